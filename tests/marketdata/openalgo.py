"""
The clients' side in one process, with a client of OpenAlgo's protocol at each end of it.

Everything between a handshake and a frame is the real thing (routing, consumer, hub, codec, outbox, channel layer,
ledger, keys and instruments in a database); only TCP is not: a `Socket` takes the frames, and a test may let it stall.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from marketdata import auth, consumers, hub, routing
from marketdata.hub import Hub
from marketdata.layers import LocalTickLayer
from marketdata.ledger import LocalLedger
from marketdata.peers import EXTENSION, Nothing
from marketdata.tasks import end
from marketdata.ticks import AccountStatus, Depth, FeedState, FeedStatus, Key, Level, Mode, Tick
from marketdata.topics import group_of, status_key
from marketdata.wire import encode, encode_status, pack

PATIENCE_S = 5.0
SLOW_CLIENT_S = 0.05
OWN_PAGE = "http://127.0.0.1:8765"
BOOK = Depth((Level(625.45, 1000, 5), Level(625.4, 700, 2)), (Level(625.5, 800, 3),))

Message = dict[str, Any]


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits for a condition while other tasks go on."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"Waited {PATIENCE_S} s in vain for {what}."
        await asyncio.sleep(0.001)


class Socket:
    """The client's end: what `marketdata.server` offers as a FrameTransport. `dropped`: TCP ended without a word."""

    def __init__(self) -> None:
        self.paused = False
        self.texts: list[str] = []
        self.writes = 0
        self.closed: int | None = None
        self.dropped = False
        self._on_pause: Nothing = lambda: None
        self._on_resume: Nothing = lambda: None

    @property
    def is_open(self) -> bool:
        return self.closed is None and not self.dropped

    def write(self, data: bytes) -> None:
        if self.is_open:
            self.writes += 1
            self.texts.extend(texts_of(data))

    def listen(self, on_pause: Nothing, on_resume: Nothing) -> None:
        self._on_pause, self._on_resume = on_pause, on_resume

    def close(self, code: int, reason: str) -> None:
        if self.is_open:
            self.closed = code

    def abort(self) -> None:
        if self.is_open:
            self.dropped = True

    def stall(self) -> None:
        """The client reads no more and the buffers are full."""
        self.paused = True
        self._on_pause()

    def resume(self) -> None:
        """The client reads again."""
        self.paused = False
        self._on_resume()


def texts_of(data: bytes) -> Iterator[str]:
    """The texts in some bytes of whole, unmasked frames."""
    while data:
        assert data[0] == 0x81, "a text frame, final"
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        yield data[start : start + size].decode()
        data = data[start + size :]


class Caller:
    """One connection. `messages` is everything that came, in order; an array counts as its members."""

    def __init__(self, path: str = "/openalgo", origin: str | None = OWN_PAGE) -> None:
        self.socket = Socket()
        self.denied: int | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        headers = [(b"host", b"127.0.0.1:8765")] + ([(b"origin", origin.encode())] if origin else [])
        extensions = {EXTENSION: self.socket, "websocket.http.response": {}}
        self._scope = {
            "type": "websocket",
            "path": path,
            "headers": headers,
            "client": ["127.0.0.1", 50000],
            "extensions": extensions,
        }
        self._accepted = False

    async def __aenter__(self) -> Self:
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.ensure_future(routing.application(self._scope, self._inbox.get, self._send))
        await until(lambda: self._accepted or self.denied or self._task.done(), "the handshake")
        return self

    async def __aexit__(self, *error: object) -> None:
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1005})
        if self.denied is None:
            await asyncio.wait([self._task], timeout=PATIENCE_S)
        await end([self._task])

    @property
    def messages(self) -> list[Message]:
        read = [json.loads(text) for text in self.socket.texts]
        return [one for message in read for one in (message if isinstance(message, list) else [message])]

    def say(self, *messages: Message | str) -> None:
        """Sends messages without waiting for anything."""
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    async def answer(self, is_it: Callable[[Message], object], what: str, beyond: int = 0) -> Message:
        """The first message of this kind after so many messages."""
        found: list[Message] = []

        def came() -> bool:
            found.extend(message for message in self.messages[beyond:] if is_it(message))
            return bool(found)

        await until(came, what)
        return found[0]

    async def ask(self, message: Message | str, kind: str | None) -> Message:
        """Sends a message and returns the next one of this type; None is an error's, which has none."""
        seen = len(self.messages)
        self.say(message)
        return await self.answer(lambda one: one.get("type") == kind or _is_error(one), f"an answer to {message}", seen)

    async def authenticate(self, key: str) -> Message:
        """Authenticates as the SDK does."""
        return await self.ask({"action": "authenticate", "api_key": key}, "auth")

    async def subscribe(self, symbol: str, mode: int | str, exchange: str = "NSE", **more: Any) -> Message:
        """Subscribes one symbol as the SDK does; returns the ack."""
        named = {"symbol": symbol, "exchange": exchange, "mode": mode}
        return await self.ask({"action": "subscribe", **named, **more}, "subscribe")

    def ticks(self, symbol: str | None = None, mode: int | None = None) -> list[Message]:
        """The ticks that came, of a symbol, of a mode."""
        return [
            message
            for message in self.messages
            if message.get("type") == "market_data"
            and symbol in (None, message["symbol"])
            and mode in (None, message["mode"])
        ]

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._accepted = True
            case "websocket.http.response.start":
                self.denied = message["status"]


def _is_error(message: Message) -> bool:
    return message.get("status") == "error" and "code" in message


class Market:
    """A hub with a layer, which a test feeds as the bridge would: `tick` is one packet of a broker."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._patch = pytest.MonkeyPatch()

    async def __aenter__(self) -> Self:
        self._patch.setattr(hub, "WATCH_S", 0.01)
        self._patch.setattr(routing, "edge", routing.Edge())
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.hub.stop()
        self._patch.undo()

    async def start(self) -> None:
        """A server process starts with nothing in its memory; the accounts report themselves."""
        self._patch.setattr(auth, "_cache", auth.Cache())
        self._patch.setattr(auth, "_failures", auth.FailureWindow())
        self.layer, self.ledger = LocalTickLayer(), LocalLedger()
        self.hub = Hub(self.layer, self.ledger, revoked=_nobody, slow_client_s=SLOW_CLIENT_S)
        routing.edge.hub = self.hub
        self.hub.start()
        await self.report("", "zerodha")

    async def restart(self) -> None:
        """The server process ends, and another one begins."""
        await self.hub.stop()
        await self.start()

    async def report(self, feed: str, *brokers: str, state: FeedState = FeedState.CONNECTED) -> None:
        """These accounts of a feed say how they are doing, as soon as somebody listens."""
        accounts = tuple(
            AccountStatus(broker=broker, account="main", feed=feed, state=state, message="", since_ms=1)
            for broker in brokers
        )
        status = FeedStatus(accounts=accounts, received_ms=now_ms())
        await self._publish(status_key(feed), encode_status(status, number=next(self._numbers), epoch_ms=1))

    async def tick(
        self, symbol: str, mode: Mode, *, feed: str = "", broker: str = "zerodha", flags: int = 0, **fields: Any
    ) -> None:
        """A tick of a symbol that somebody holds in this mode."""
        number = next(self._numbers)
        values = {"ltp": 625.5, "received_ms": now_ms(), "seq": number, "depth": BOOK if mode.depth_levels else None}
        tick = Tick(symbol=symbol, exchange="NSE", mode=mode, broker=broker, **(values | fields))
        payload = encode(tick, number=number, epoch_ms=1, flags=flags)
        await self._publish(Key(symbol, "NSE", mode, feed), payload)

    async def _publish(self, key: Key, payload: bytes) -> None:
        group = group_of(key)
        await until(lambda: group in self.layer.groups, f"somebody to hold {key}")
        await self.layer.group_send_many({group: pack([payload])})

    def holds(self, key: Key) -> bool:
        """Whether the hub is a member of this key's group."""
        return group_of(key) in self.layer.groups


def now_ms() -> int:
    """Now, as Unix milliseconds."""
    return int(time.time() * 1000)


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Who does not authenticate is closed after a moment instead of 15 s."""
    patch.setattr(consumers, "AUTH_DEADLINE_S", 0.05)


async def _nobody(ids: object) -> set[int]:
    return set()
