"""A Kite client that knows nothing of the simulator's code: it unpacks by the offsets of Kite's documentation."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import websockets

DEMO = "api_key=demo&access_token=demo-token"


def u16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "big")


def u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "big")


def i32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "big", signed=True)


def split(frame: bytes) -> list[bytes]:
    """The packets of a frame, which must hold exactly as many as it says."""
    packets, at = [], 2
    for _ in range(u16(frame, 0)):
        size = u16(frame, at)
        packets.append(frame[at + 2 : at + 2 + size])
        assert len(packets[-1]) == size
        at += 2 + size
    assert at == len(frame)
    return packets


@dataclass
class Kite:
    """One client: everything that arrived, with the time it did."""

    socket: websockets.ClientConnection
    binary: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ended: Exception | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        try:
            while True:
                message = await self.socket.recv()
                self.times.append(time.monotonic())
                (self.texts if isinstance(message, str) else self.binary).append(message)  # type: ignore[arg-type]
                self._news.set()
        except websockets.ConnectionClosed as error:
            self.ended = error
            self._news.set()

    async def ask(self, action: str, value: object) -> None:
        await self.socket.send(json.dumps({"a": action, "v": value}))

    @property
    def frames(self) -> list[bytes]:
        """Binary frames that are no heartbeat."""
        return [frame for frame in self.binary if len(frame) > 4]

    @property
    def beats(self) -> list[bytes]:
        return [frame for frame in self.binary if len(frame) <= 4]

    @property
    def packets(self) -> list[bytes]:
        return [packet for frame in self.frames for packet in split(frame)]

    def of(self, token: int) -> list[bytes]:
        return [packet for packet in self.packets if u32(packet, 0) == token]

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Waits for a condition that only arrivals can make true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()


async def eventually(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Waits for something that no client can see arrive, such as an entry in the simulator's log."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
