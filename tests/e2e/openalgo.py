"""Clients of OpenAlgo's protocol over real TCP: one through a WebSocket library, one that writes bytes by hand."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import PROJECT
from tests.e2e.stack import Stack

PATIENCE_S = 20.0
IMPORTED = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
"""A key as OpenAlgo makes them: 64 hexadecimal digits."""

Message = dict[str, Any]


def import_key(stack: Stack, key: str = IMPORTED) -> str:
    """Enters a key that clients have already, as its owner would."""
    command = [sys.executable, "manage.py", "create_api_key", "from-openalgo", "--import"]
    done = subprocess.run(
        command, cwd=PROJECT, env=os.environ | stack.env, input=f"{key}\n", text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return key


def named(*symbols: str, **more: Any) -> list[Message]:
    """Items of a request."""
    return [{"symbol": symbol, "exchange": "NSE", **more} for symbol in symbols]


class Client:
    """A client of a WebSocket library. `messages` has everything that came, `closed` the close code (1006: none)."""

    def __init__(self, url: str, origin: str | None = None) -> None:
        self._url = url
        self._origin = origin
        self.socket: ClientConnection
        self.messages: list[Message] = []
        self.closed: int | None = None

    async def __aenter__(self) -> Self:
        self.socket = await connect(self._url, origin=self._origin, max_size=None)  # type: ignore[arg-type]
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.socket.close()
        await self._reader

    async def say(self, *messages: Message) -> None:
        """Sends messages without waiting for an answer."""
        for message in messages:
            await self.socket.send(json.dumps(message))

    async def ask(self, message: Message, kind: str | None) -> Message:
        """Sends a message and waits for the next one of this type (None: an error)."""
        seen = len(self.messages)
        await self.say(message)
        return await self.first(lambda one: one.get("type") == kind, f"a {kind} after {message}", seen)

    async def first(self, is_it: Callable[[Message], object], what: str, beyond: int = 0) -> Message:
        """The first message of a kind after so many messages."""
        await self.until(lambda: any(map(is_it, self.messages[beyond:])), what)
        return next(message for message in self.messages[beyond:] if is_it(message))

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Waits for a condition."""
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"Waited in vain for {what}; the last were {self.messages[-3:]}"
            await asyncio.sleep(0.005)

    def ticks(self, symbol: str, mode: int) -> list[Message]:
        """The ticks of a symbol in a mode."""
        return [
            message
            for message in self.messages
            if message.get("type") == "market_data" and (message["symbol"], message["mode"]) == (symbol, mode)
        ]

    async def more(self, symbol: str, mode: int, count: int = 1) -> None:
        """Waits until so many more ticks have come."""
        had = len(self.ticks(symbol, mode))
        await self.until(lambda: len(self.ticks(symbol, mode)) >= had + count, f"{count} ticks of {symbol} in {mode}")

    async def _read(self) -> None:
        try:
            async for frame in self.socket:
                self.messages.append(json.loads(frame))
        except ConnectionClosed:
            pass  # Without a close frame; `closed` says 1006.
        self.closed = self.socket.close_code


class Bytes:
    """A client written by hand, as the ones in C++: a fixed key in the handshake, no Origin, frames as bytes."""

    HANDSHAKE = (
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    def __init__(self, port: int, path: str = "/openalgo", receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(self.HANDSHAKE.format(path=path, port=port).encode())
        self.rest = b""
        self.status = self.socket.recv(4096)
        assert b"\r\n\r\n" in self.status
        self.status, _, self.rest = self.status.partition(b"\r\n\r\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def write(self, *messages: Message | bytes) -> None:
        """Texts (and, as bytes, pings) as masked frames, in one TCP segment."""
        self.socket.sendall(b"".join(map(masked, messages)))

    def read(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload. Raises EOFError: TCP ended."""
        first, size = self._take(2)
        if size == 126:
            [size] = struct.unpack(">H", self._take(2))
        elif size == 127:
            [size] = struct.unpack(">Q", self._take(8))
        return first & 0x0F, self._take(size)

    def texts(self, count: int) -> list[Message]:
        """The next so many messages."""
        messages: list[Message] = []
        while len(messages) < count:
            opcode, payload = self.read()
            if opcode == 1:
                messages.append(json.loads(payload))
        return messages

    def until_closed(self) -> list[int]:
        """Reads to the end of TCP; the opcodes of what came."""
        opcodes = []
        while True:
            try:
                opcodes.append(self.read()[0])
            except (EOFError, ConnectionResetError):
                return opcodes

    def _take(self, count: int) -> bytes:
        while len(self.rest) < count:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.rest += more
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken


def masked(message: Message | bytes) -> bytes:
    """A frame as a client sends it: a text, or for bytes a ping."""
    opcode, payload = (0x89, message) if isinstance(message, bytes) else (0x81, json.dumps(message).encode())
    mask = b"\x11\x22\x33\x44"
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return bytes([opcode]) + size + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
