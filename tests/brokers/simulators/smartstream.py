"""A SmartStream client that knows nothing of the simulator's code: it unpacks by the documentation's offsets."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import websockets

HEADERS = {
    "Authorization": "Bearer demo-token",
    "x-api-key": "key-demo",
    "x-client-code": "demo",
    "x-feed-token": "feed-demo-token",
}
SIZES = {1: 51, 2: 123, 3: 379, 4: 443}


def i64(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 8], "little", signed=True)


def f64(packet: bytes, at: int) -> float:
    value: float = struct.unpack_from("<d", packet, at)[0]
    return value


def token_of(packet: bytes) -> str:
    return packet[2:27].split(b"\0")[0].decode()


def five(packet: bytes) -> list[tuple[int, int, int, int]]:
    """Side, quantity, price and orders of each row."""
    return [struct.unpack_from("<hqqH", packet, at) for at in range(147, 347, 20)]


def twenty(packet: bytes, at: int) -> list[tuple[int, int, int]]:
    """Quantity, price and orders of each row of a side: 43 buy, 243 sell."""
    return [struct.unpack_from("<iih", packet, row) for row in range(at, at + 200, 10)]


class SmartStream:
    """One client: everything that arrived."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.packets: list[bytes] = []
        self.texts: list[str] = []
        self.ended: Exception | None = None
        self._news = asyncio.Event()

    async def read(self) -> None:
        try:
            while True:
                message = await self.socket.recv()
                if isinstance(message, str):
                    self.texts.append(message)
                else:
                    self.packets.append(message)
                self._news.set()
        except websockets.ConnectionClosed as error:
            self.ended = error
            self._news.set()

    async def ask(self, action: int, mode: int, *groups: tuple[int, Sequence[int]], name: str = "abcde12345") -> None:
        tokens = [{"exchangeType": number, "tokens": [str(each) for each in each_of]} for number, each_of in groups]
        params = {"mode": mode, "tokenList": tokens}
        await self.socket.send(json.dumps({"correlationID": name, "action": action, "params": params}))

    def of(self, token: int, mode: int) -> list[bytes]:
        return [packet for packet in self.packets if packet[0] == mode and token_of(packet) == str(token)]

    def errors(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts if text != "pong"]

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Waits for a condition that only arrivals can make true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def smartstream(
    url: str, headers: Mapping[str, str] = HEADERS, path: str = "/smart-stream"
) -> AsyncIterator[SmartStream]:
    """An open client; raises websockets.InvalidStatus where it is refused."""
    async with websockets.connect(
        f"{url}{path}", additional_headers=headers, max_queue=None, close_timeout=1
    ) as socket:
        client = SmartStream(socket)
        reader = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            reader.cancel()
