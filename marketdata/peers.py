"""
A client's socket as the hub sees it: ready-made frames where the server offers them, ordinary ASGI messages elsewhere.

`FramePeer` needs the extension of `marketdata.server`; `MessagePeer` works with any ASGI server, slower.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from marketdata.errors import CloseCode
from marketdata.frames import frame_of
from marketdata.outbox import Entry, Joiner

EXTENSION = "marketdata.transport"
"""The name under which a server puts its FrameTransport into `scope["extensions"]`."""

Nothing = Callable[[], None]


class FrameTransport(Protocol):
    """What our server offers beyond ASGI: writing frames as they are, and the transport's back-pressure."""

    paused: bool

    def write(self, data: bytes) -> None:
        """Ready-made WebSocket frames, as one write."""

    def listen(self, on_pause: Nothing, on_resume: Nothing) -> None:
        """Who is told when the transport's buffer is full, and when it has room again."""

    def close(self, code: int, reason: str) -> None:
        """A closing handshake."""

    def abort(self) -> None:
        """Drops the TCP connection, without a close frame."""


class Peer(ABC):
    """One client's socket. Nothing here waits: what a slow client cannot take yet is the outbox's to keep."""

    @property
    @abstractmethod
    def paused(self) -> bool:
        """Whether the client reads too slowly for more to be written now."""

    @abstractmethod
    def listen(self, on_pause: Nothing, on_resume: Nothing) -> None:
        """Who is told when `paused` changes."""

    @abstractmethod
    def send(self, payload: bytes) -> None:
        """One message, at once: an answer, a status."""

    @abstractmethod
    def send_entries(self, entries: Sequence[Entry], joiner: Joiner) -> None:
        """Ticks, as one write, a frame each; `joiner` is that of the pass."""

    @abstractmethod
    def send_batch(self, entries: Sequence[Entry]) -> None:
        """Ticks, as one write, all in one frame: a JSON array."""

    @abstractmethod
    def close(self, code: CloseCode) -> None:
        """Ends the connection with a code."""

    @abstractmethod
    def abort(self) -> None:
        """Ends the connection without a word: the client reads nothing anyhow, or must not be told."""


class FramePeer(Peer):
    """A client of our own server."""

    def __init__(self, transport: FrameTransport) -> None:
        self._transport = transport

    @property
    def paused(self) -> bool:
        return self._transport.paused

    def listen(self, on_pause: Nothing, on_resume: Nothing) -> None:
        self._transport.listen(on_pause, on_resume)

    def send(self, payload: bytes) -> None:
        self._transport.write(frame_of(payload))

    def send_entries(self, entries: Sequence[Entry], joiner: Joiner) -> None:
        self._transport.write(joiner.join(entries))

    def send_batch(self, entries: Sequence[Entry]) -> None:
        self._transport.write(frame_of(array_of(entries)))

    def close(self, code: CloseCode) -> None:
        self._transport.close(code.code, code.reason)

    def abort(self) -> None:
        self._transport.abort()


class MessagePeer(Peer):
    """
    A client of any ASGI server.

    A task of its own awaits the server's `send`; the peer counts as paused while more than `QUEUE_LIMIT` messages wait
    for that, so ticks fold meanwhile. How far this is back-pressure is the server's affair: uvicorn's `send` waits for
    the client, daphne's never does.
    """

    QUEUE_LIMIT = 256

    def __init__(self, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._send = send
        self._queue: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._paused = False
        self._on_pause: Nothing = _nothing
        self._on_resume: Nothing = _nothing
        self._task = asyncio.ensure_future(self._write())

    @property
    def paused(self) -> bool:
        return self._paused

    def listen(self, on_pause: Nothing, on_resume: Nothing) -> None:
        self._on_pause, self._on_resume = on_pause, on_resume

    def send(self, payload: bytes) -> None:
        self._put({"type": "websocket.send", "text": payload.decode()})

    def send_entries(self, entries: Sequence[Entry], joiner: Joiner) -> None:
        for entry in entries:
            self._put({"type": "websocket.send", "text": entry.payload.decode()})

    def send_batch(self, entries: Sequence[Entry]) -> None:
        self._put({"type": "websocket.send", "text": array_of(entries).decode()})

    def close(self, code: CloseCode) -> None:
        self._put({"type": "websocket.close", "code": code.code, "reason": code.reason})

    def abort(self) -> None:
        self._queue.clear()
        self._put({"type": "websocket.close", "code": 1011})

    def stop(self) -> None:
        """The connection is gone; nothing more is written."""
        self._task.cancel()

    def _put(self, message: dict[str, Any]) -> None:
        self._queue.append(message)
        self._wake.set()
        if len(self._queue) > self.QUEUE_LIMIT and not self._paused:
            self._paused = True
            self._on_pause()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                try:
                    await self._send(self._queue.popleft())
                except (OSError, RuntimeError):
                    # The socket is gone or closing; the consumer hears of it by its own disconnect message.
                    self._queue.clear()
            if self._paused:
                self._paused = False
                self._on_resume()


def array_of(entries: Sequence[Entry]) -> bytes:
    """Several ticks as one JSON array."""
    return b"[" + b",".join([entry.payload for entry in entries]) + b"]"


def _nothing() -> None:
    """Nobody listens yet."""
