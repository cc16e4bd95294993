"""What tests of the feed share: a subscriber on the bus, a broker made of a few lines, waiting for conditions."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import zmq
import zmq.asyncio
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from brokers.contract import (
    Adapter,
    BadRow,
    Credential,
    DecodeError,
    ErrorKind,
    Event,
    Feed,
    Frame,
    Handshake,
    HttpRequest,
    InstrumentRow,
    Limits,
    LoginWay,
    MarketKind,
    Notice,
    NoticeKind,
    Reply,
    Session,
    Spec,
    Steps,
    TokenLife,
    Update,
)
from marketdata.ticks import FeedStatus, Key, Mode, Segment, Tick, Token
from marketdata.topics import key_of_topic, split, topic_of
from marketdata.wire import SNAPSHOT, STATUS, Header, decode, decode_status, header


async def until(is_so: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Returns as soon as the condition holds; fails, naming it, when it does not in time."""
    try:
        async with asyncio.timeout(timeout_s):
            while not is_so():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"Waited {timeout_s} s in vain for: {what}") from None


def trading_clock() -> Callable[[], float]:
    """A clock that goes on from 11:00 in India on a trading day, whenever the test runs."""
    ahead_s = dt.datetime(2026, 11, 25, 5, 30, tzinfo=dt.UTC).timestamp() - time.time()
    return lambda: time.time() + ahead_s


def nse(number: object) -> Token:
    return Token(Segment.NSE, str(number))


class Got(NamedTuple):
    """One tick as it came over the bus."""

    key: Key
    tick: Tick
    header: Header

    @property
    def is_snapshot(self) -> bool:
        return bool(self.header.flags & SNAPSHOT)


class Subscriber:
    """A real SUB, as the bridge has one; everything it receives is kept."""

    def __init__(self, port: int) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self._reading = asyncio.create_task(self._read())
        self.got: list[Got] = []
        self.statuses: dict[str, list[FeedStatus]] = defaultdict(list)
        self.numbers: list[int] = []

    async def _read(self) -> None:
        while True:
            topic, payload = split(await self._socket.recv())
            fields, key = header(payload), key_of_topic(topic)
            self.numbers.append(fields.number)
            if fields.flags & STATUS:
                self.statuses[key.feed].append(decode_status(payload))
            else:
                self.got.append(Got(key, decode(payload).tick, fields))

    def subscribe(self, *keys: Key) -> None:
        for key in keys:
            self._socket.subscribe(topic_of(key))

    def subscribe_raw(self, topic: bytes) -> None:
        self._socket.subscribe(topic)

    def unsubscribe(self, *keys: Key) -> None:
        for key in keys:
            self._socket.unsubscribe(topic_of(key))

    def of(self, key: Key) -> list[Got]:
        return [got for got in self.got if got.key == key]

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        self._context.destroy(linger=0)


@asynccontextmanager
async def subscriber(port: int) -> AsyncIterator[Subscriber]:
    sub = Subscriber(port)
    try:
        yield sub
    finally:
        await sub.close()


# ---------------------------------------------------------------------------------------------- a broker of a few lines


class ToySession(Session):
    """JSON both ways; a text that is no JSON is not understood."""

    def __init__(self, heartbeat: str | None) -> None:
        self._heartbeat = heartbeat

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        return [json.dumps({"sub": [token.number for token in tokens], "mode": mode.name})]

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        return [json.dumps({"unsub": [token.number for token in tokens], "mode": mode.name})]

    def heartbeat(self) -> Frame | None:
        return self._heartbeat

    def decode(self, frame: Frame) -> Sequence[Event]:
        if frame == "boom":
            raise ZeroDivisionError("a mistake in the adapter")
        try:
            packets = json.loads(frame)
        except ValueError:
            raise DecodeError("no JSON", [Update(token=nse("half"), ltp=1.0)]) from None
        return [_event(packet) for packet in packets]


def _event(packet: dict[str, Any]) -> Event:
    if "reply" in packet:
        return Reply(packet["reply"])
    if "markets" in packet:
        markets = {Segment(name): MarketKind(kind) for name, kind in packet["markets"].items()}
        return Notice(kind=NoticeKind.MARKET_STATUS, markets=markets)
    if "error" in packet:
        kind = ErrorKind(packet["error"])
        tokens = tuple(map(nse, packet.get("tokens", ())))
        return Notice(
            kind=NoticeKind.ERROR, error=kind, text=packet["text"], fatal=packet.get("fatal", False), tokens=tokens
        )
    return Update(token=nse(packet["token"]), ltp=packet.get("ltp"), volume=packet.get("volume"))


class Toy(Adapter):
    """An adapter whose credentials are {"key": …, "token": …}; the token travels in the URL and in a header."""

    spec: Spec  # type: ignore[misc]  # each toy has its own facts

    def __init__(
        self,
        *,
        slug: str = "toy",
        endpoint: str = "ws://127.0.0.1:1",
        limits: Limits | None = None,
        silence_s: float = 30.0,
        heartbeat_s: float | None = None,
        ping_s: float | None = None,
        ticket_url: str = "",
        modes: tuple[Mode, ...] = (Mode.LTP, Mode.QUOTE, Mode.DEPTH),
        simulated: bool = False,
        beats: bool = True,
        token: TokenLife | None = None,
        logins: frozenset[LoginWay] = frozenset(),
    ) -> None:
        self.feed = Feed(
            kind="market",
            endpoint=endpoint,
            modes=modes,
            limits=limits or Limits(frames_per_second=1000.0),
            silence_s=silence_s,
            heartbeat_s=heartbeat_s,
            ping_s=ping_s,
            beats=beats,
        )
        self.spec = Spec(
            slug=slug,
            name=slug.title(),
            docs="",
            segments=frozenset({Segment.NSE}),
            feeds=(self.feed,),
            credentials=(Credential(name="key", label="Key"), Credential(name="token", label="Token")),
            simulated=simulated,
            token=token,
            logins=logins,
        )
        self.ticket_url = ticket_url
        self.opened: list[Mapping[str, str]] = []
        """The credentials of every attempt to connect."""

    def open(self, feed: Feed, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> Steps:
        self.opened.append(dict(credentials))
        ticket = credentials["token"]
        if self.ticket_url:
            response = yield HttpRequest(method="GET", url=self.ticket_url, headers={"X-Secret": ticket})
            ticket = response.body.decode()
        return Handshake(url=f"{endpoint}/?token={ticket}", headers={"X-Secret": ticket}, first_frames=('{"hello":1}',))

    def session(self, feed: Feed) -> Session:
        return ToySession('{"beat":1}' if feed.heartbeat_s else None)

    def closed(self, code: int, reason: str) -> ErrorKind:
        return ErrorKind.AUTH if code == 4401 else ErrorKind.NETWORK

    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        return iter(())


class ToyBroker:
    """The server side: accepts `token`s it knows, remembers what each socket said, sends what a test tells it to."""

    def __init__(self) -> None:
        self.tokens = {"good"}
        self.status = 403
        self.sockets: list[ServerConnection] = []
        self.attempts = 0
        self.said: list[dict[str, Any]] = []
        self.held: dict[str, str] = {}
        """Mode by token number, of the newest socket."""
        self.is_deaf = False
        self._server: Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def __aenter__(self) -> ToyBroker:
        self._server = await serve(
            self._converse, "127.0.0.1", 0, process_request=self._admit, ping_interval=None, close_timeout=0.2
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        for socket in self.sockets:
            socket.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        self.attempts += 1
        if request.path.partition("token=")[2] in self.tokens:
            return None
        return socket.respond(self.status, "no\n")

    async def _converse(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        self.held = {}
        try:
            async for text in socket:
                message = json.loads(text)
                self.said.append(message)
                self.held |= dict.fromkeys(message.get("sub", ()), message.get("mode"))
                for number in message.get("unsub", ()):
                    del self.held[number]
        except ConnectionClosed:
            pass
        finally:
            self.sockets.remove(socket)

    async def send(self, *packets: dict[str, Any]) -> None:
        """One frame on every socket."""
        for socket in self.sockets:
            await socket.send(json.dumps(packets))

    async def send_raw(self, frame: str) -> None:
        for socket in self.sockets:
            await socket.send(frame)

    def drop(self) -> None:
        """Every socket ends without a word."""
        for socket in self.sockets:
            socket.transport.abort()

    async def close(self, code: int) -> None:
        for socket in list(self.sockets):
            await socket.close(code)

    def beats(self) -> int:
        return sum("beat" in message for message in self.said)
