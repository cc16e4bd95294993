"""
The adapters' end of the bus: ticks out on a ZeroMQ XPUB, demand in on the same socket.

A subscription message is the demand for a key; it is also a question for the key's last value, which is answered at
once, marked as snapshot. What nobody subscribes any more stays wanted for a while, because a bridge that restarts
unsubscribes everything and comes back. Sends are synchronous and never wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import copy

import structlog
import zmq

from brokers.contract import Update
from brokers.feed.counters import Counters
from brokers.feed.plan import Instrument
from brokers.feed.snapshots import Guard, Snapshots, project
from brokers.models import is_loopback
from marketdata.ticks import FeedStatus, Key, Mode, Tick, Token
from marketdata.topics import REPORT_EXCHANGE, STATUS_EXCHANGE, WHY_EXCHANGE, key_of_topic, status_key, topic_of
from marketdata.wire import SNAPSHOT, encode, encode_status

log = structlog.get_logger(__name__)

LINGER_S = 15.0
"""So long an instrument stays wanted after its last unsubscribe."""
HIGH_WATER_MARK = 100_000
"""Messages that may wait for one bridge; beyond, ZeroMQ drops the newest, which the bridge sees by the numbers."""
PUT_LIMIT = 64
"""So many ticks of one frame are sent in one go; a bridge begins with them while the rest is made."""
LTP, DEPTH = Mode.LTP, Mode.DEPTH
BURST = 500
"""Subscription messages taken at one go before other tasks have a turn."""


class BusError(Exception):
    """The bus cannot be opened; the text says why and what to set."""


class Stream:
    """One key that was ever demanded: its topic and its sequence, which lives as long as the process."""

    __slots__ = ("demanded", "guard", "instrument", "mode", "seq", "since_ms", "topic")

    def __init__(self, key: Key, topic: bytes, seq: int) -> None:
        self.instrument = Instrument(key.symbol, key.exchange, key.feed)
        self.mode = key.mode
        self.topic = topic
        self.seq = seq
        """That of the latest tick."""
        self.demanded = False
        """Whether somebody subscribes it now."""
        self.since_ms = 0
        """Since when (Unix ms) `demanded` is what it is."""
        self.guard: Guard | None = None
        """Set after its ticks came from one source and before one of another was sent."""


class Line:
    """One token of one account, and the wanted streams that its updates make tick."""

    __slots__ = ("guests", "source", "streams", "token")

    def __init__(self, source: Source, token: Token) -> None:
        self.source = source
        self.token = token
        self.guests: dict[Instrument, None] = {}
        """The names under which the token is wanted: usually one."""
        self.streams: tuple[Stream, ...] = ()


class Source:
    """One account's updates on their way out: merged once, then one tick for each demanded stream."""

    def __init__(self, publisher: Publisher, broker: str, *, simulated: bool) -> None:
        self.broker = broker
        self.simulated = simulated
        self.snapshots = Snapshots()
        self.lines: dict[Token, Line] = {}
        self.heard_ms = 0
        """When the latest frame with an update came (Unix ms)."""
        self._publisher = publisher

    def deliver(self, updates: Collection[Update], received_ms: int) -> None:
        """
        Publishes what one frame said; `received_ms` is when it was read.

        The hot path: a loop without calls that could be saved. An update of a token that is on no line came too late.
        A stream that lingers counts what it does not send: whoever comes back sees by the sequence what was missed. A
        packet of a lower kind than a stream's mode (the broker's first image may be one) is no tick of that stream.
        """
        publisher, lines, merge = self._publisher, self.lines, self.snapshots.merge
        broker, simulated, counters = self.broker, self.simulated, self._publisher.counters
        counters.updates += len(updates)
        self.heard_ms = received_ms
        for update in updates:
            line = lines.get(update.token)
            if line is None:
                counters.unplaced += 1
                continue
            state = merge(update)
            state.received_ms = received_ms
            # A packet that is only a book is no news for those who asked for prices.
            least = DEPTH if update.ltp is None and update.depth is not None else LTP
            for stream in line.streams:
                if stream.mode < least or not state.shows(stream.mode):
                    continue
                if not stream.demanded:
                    stream.seq += 1
                    continue
                if stream.guard is not None:
                    if stream.guard.holds(state, received_ms):
                        continue
                    stream.guard = None
                symbol, exchange, _ = stream.instrument
                tick = project(
                    state,
                    symbol=symbol,
                    exchange=exchange,
                    mode=stream.mode,
                    broker=broker,
                    received_ms=received_ms,
                    seq=stream.seq + 1,
                    simulated=simulated,
                )
                if tick is not None:
                    stream.seq += 1
                    counters.published += 1
                    publisher.put_tick(stream.topic, tick)
        publisher.send_put()

    def last(self, line: Line, stream: Stream) -> Tick | None:
        """What is known now, as the stream shows it; under the number of its latest tick."""
        state = self.snapshots.state(line.token)
        if state is None or not state.shows(stream.mode):
            return None
        if stream.guard is not None and stream.guard.holds(state, time.time_ns() // 1_000_000):
            return None
        symbol, exchange, _ = stream.instrument
        return project(
            state,
            symbol=symbol,
            exchange=exchange,
            mode=stream.mode,
            broker=self.broker,
            received_ms=state.received_ms,
            seq=stream.seq,
            simulated=self.simulated,
        )

    def clear_books(self, tokens: Iterable[Token]) -> None:
        """The connection that carried these was lost: levels that were there are no more believed."""
        for token in tokens:
            state = self.snapshots.state(token)
            if state is not None:
                state.forget_book()

    def settle(self, token: Token, mode: Mode | None, served: Mode) -> None:
        """
        A token is in this mode now (None: in none) on a kind of socket that serves modes up to `served`: a deeper book
        that came from there is no longer kept up to date.
        """
        state = self.snapshots.state(token)
        books = None if state is None else state.book_mode
        if state is not None and books is not None and books <= served and (mode is None or mode < books):
            state.forget_book()


class Publisher:
    """
    The XPUB and the demand that arrives on it.

    `on_demand` is called when something is wanted anew, more or less deeply, or no more: see `take_changes`.
    `on_status_asked` is called with a feed whose status somebody subscribes; answer with `send_status`.
    `on_report_asked` is called with a reserved key on which somebody wants a report; answer with `send_report`. `open`
    needs a running event loop.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        on_demand: Callable[[], None],
        on_status_asked: Callable[[str], None],
        on_report_asked: Callable[[Key], None] = lambda key: None,
        counters: Counters | None = None,
        linger_s: float = LINGER_S,
    ) -> None:
        self.counters = counters or Counters()
        self.linger_s = linger_s
        self.epoch_ms = time.time_ns() // 1_000_000
        self.port = port
        self._host = host
        self._on_demand = on_demand
        self._on_status_asked = on_status_asked
        self._on_report_asked = on_report_asked
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._send = self._socket.send
        self._put: list[bytes] = []
        self._number = 0
        """Of the latest message."""
        self._streams: dict[bytes, Stream] = {}
        self._wanted: dict[Instrument, dict[Mode, Stream]] = {}
        """In first-demanded order; what lingers is still here."""
        self._leaving: dict[bytes, float] = {}
        """Topics nobody subscribes any more, and until when (loop time) they stay wanted; the first ends first."""
        self._changed: dict[Instrument, None] = {}
        self._lines: dict[Instrument, Line] = {}
        self._status_feeds: set[str] = set()
        self._report_keys: set[Key] = set()
        self._expiry: asyncio.TimerHandle | None = None

    # -------------------------------------------------------------------------------------------------- start and stop

    def open(self) -> None:
        """
        Binds and listens; port 0 takes a free one, `port` tells which.

        Raises BusError: not a loopback address, or the port is taken.
        """
        socket = self._socket
        # Subscriptions travel on XPUB's receiving side: with a mark there, those beyond it are silently lost.
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        try:
            self._bind()
        except BusError:
            self._context.destroy(linger=0)
            raise
        asyncio.get_running_loop().add_reader(self._fd(), self._read)
        self._read()

    def _bind(self) -> None:
        if not is_loopback(self._host):
            raise BusError(
                f"ZMQ_HOST is {self._host}; the bus has no password and stays on this machine. Set it to 127.0.0.1."
            )
        host = "127.0.0.1" if self._host == "localhost" else self._host
        if ":" in host:
            self._socket.setsockopt(zmq.IPV6, 1)
            host = f"[{host}]"
        try:
            self._socket.bind(f"tcp://{host}:{self.port or '*'}")
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise BusError(f"Cannot open the bus on {host} port {self.port}: {error}.") from error
            raise BusError(
                f"Port {self.port} on {host} is taken, perhaps by another run of this program or by OpenAlgo. "
                "Stop that, or set ZMQ_PORT to a free port."
            ) from error
        endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        self.port = int(endpoint.rstrip(b"\0").rsplit(b":", 1)[1])

    def close(self) -> None:
        """Lets every bridge go; they reconnect to the next publisher on this port by themselves."""
        if self._expiry is not None:
            self._expiry.cancel()
        if not self._socket.closed:
            asyncio.get_running_loop().remove_reader(self._fd())
        self._context.destroy(linger=0)

    def _fd(self) -> int:
        fd = self._socket.getsockopt(zmq.FD)
        assert isinstance(fd, int)
        return fd

    # --------------------------------------------------------------------------------------------------------- demand

    def wanted(self) -> Iterator[tuple[Instrument, Mode]]:
        """Everything that is wanted and how deeply, in first-demanded order."""
        return ((instrument, max(modes)) for instrument, modes in self._wanted.items())

    def mode(self, instrument: Instrument) -> Mode | None:
        """The highest mode in which an instrument is wanted; None: it is not."""
        modes = self._wanted.get(instrument)
        return max(modes) if modes else None

    def streams(self, instrument: Instrument) -> Collection[Stream]:
        """The modes in which an instrument is wanted, lingering ones included. Read only."""
        return self._wanted.get(instrument, {}).values()

    def is_demanded(self, instrument: Instrument) -> bool:
        """Whether somebody subscribes the instrument right now; one that lingers nobody does."""
        return any(stream.demanded for stream in self._wanted.get(instrument, {}).values())

    def take_changes(self) -> list[Instrument]:
        """The instruments whose `mode` may have changed since the last call, in the order of the changes."""
        changed, self._changed = self._changed, {}
        return list(changed)

    def _read(self) -> None:
        """Takes what arrived; the descriptor is edge-triggered, so until there is no more, or again soon."""
        if self._socket.closed:
            return
        changes = len(self._changed)
        for _ in range(BURST):
            try:
                message = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._hear(message)
        else:
            asyncio.get_running_loop().call_soon(self._read)
        if len(self._changed) != changes:
            self._on_demand()

    def look(self) -> None:
        """To be called after sends: they eat the signal of subscriptions that arrived meanwhile."""
        events = self._socket.getsockopt(zmq.EVENTS)
        assert isinstance(events, int)
        if events & zmq.POLLIN:
            asyncio.get_running_loop().call_soon(self._read)

    def _hear(self, message: bytes) -> None:
        topic, subscribes = message[1:], message[:1] == b"\x01"
        key = _key(topic)
        if key is None:
            self._hear_nonsense(topic)
        elif key.exchange == STATUS_EXCHANGE:
            self._hear_of_status(key.feed, subscribes=subscribes)
        elif key.exchange in (REPORT_EXCHANGE, WHY_EXCHANGE):
            self._hear_of_report(key, subscribes=subscribes)
        elif subscribes:
            self._subscribe(key, topic)
        elif topic in self._streams:
            self._unsubscribe(self._streams[topic])

    def _hear_nonsense(self, topic: bytes) -> None:
        self.counters.unknown_topics += 1
        if self.counters.unknown_topics == 1:
            log.warning("unknown_topic", topic=repr(topic[:100]), consequence="it is ignored, and so are more of these")

    def _hear_of_status(self, feed: str, *, subscribes: bool) -> None:
        if subscribes:
            self._status_feeds.add(feed)
            self._on_status_asked(feed)
        else:
            self._status_feeds.discard(feed)

    def _hear_of_report(self, key: Key, *, subscribes: bool) -> None:
        if subscribes:
            self._report_keys.add(key)
            self._on_report_asked(key)
        else:
            self._report_keys.discard(key)

    def _subscribe(self, key: Key, topic: bytes) -> None:
        stream = self._streams.get(topic)
        if stream is None:
            stream = self._streams[topic] = Stream(key, topic, self.epoch_ms)
        elif topic not in self._leaving and not stream.demanded:
            stream.seq += 1  # What ticked since nobody wanted it is not known, but that something is missing is.
        if not stream.demanded:
            stream.demanded, stream.since_ms = True, time.time_ns() // 1_000_000
        self._leaving.pop(topic, None)
        modes = self._wanted.setdefault(stream.instrument, {})
        if stream.mode not in modes:
            modes[stream.mode] = stream
            self._changed[stream.instrument] = None
        line = self._lines.get(stream.instrument)
        if line is not None:
            self._refresh(line)
            self._answer(line, stream)

    def _answer(self, line: Line, stream: Stream) -> None:
        tick = line.source.last(line, stream)
        if tick is not None:
            self.counters.snapshots += 1
            self.send_tick(stream.topic, tick, flags=SNAPSHOT)

    def _unsubscribe(self, stream: Stream) -> None:
        if not stream.demanded:
            return
        stream.demanded, stream.since_ms = False, time.time_ns() // 1_000_000
        loop = asyncio.get_running_loop()
        self._leaving[stream.topic] = loop.time() + self.linger_s
        if self._expiry is None:
            self._expiry = loop.call_later(self.linger_s, self._expire)
        line = self._lines.get(stream.instrument)
        if line is not None:
            self._refresh(line)

    def _expire(self) -> None:
        """What lingered long enough is wanted no more."""
        loop = asyncio.get_running_loop()
        self._expiry = None
        while self._leaving:
            topic, until_s = next(iter(self._leaving.items()))
            if until_s > loop.time():
                self._expiry = loop.call_at(until_s, self._expire)
                break
            del self._leaving[topic]
            self._let_go(self._streams[topic])
        if self._changed:
            self._on_demand()

    def _let_go(self, stream: Stream) -> None:
        modes = self._wanted[stream.instrument]
        del modes[stream.mode]
        if not modes:
            del self._wanted[stream.instrument]
        self._changed[stream.instrument] = None

    # ----------------------------------------------------------------------------------------------------------- lines

    def source(self, broker: str, *, simulated: bool) -> Source:
        """The way out for one account's updates."""
        return Source(self, broker, simulated=simulated)

    def bind(self, instrument: Instrument, source: Source, token: Token, *, afresh: bool = False) -> None:
        """
        From now on the instrument's ticks are made of this token's updates, and of no other's.

        Where others made it tick before, its prices do not step back in time; `afresh`: they may, it is another world.
        """
        line = self._lines.get(instrument)
        if line is not None and (line.source, line.token) == (source, token):
            return
        self.unbind(instrument)
        line = source.lines.get(token)
        if line is None:
            line = source.lines[token] = Line(source, token)
        line.guests[instrument] = None
        self._lines[instrument] = line
        self._refresh(line)
        for stream in self.streams(instrument):
            if stream.guard is not None and (afresh or not _goes_on(stream.guard.origin, source)):
                stream.guard = None

    def unbind(self, instrument: Instrument) -> None:
        """Nothing makes the instrument tick any more; what was known of its token is forgotten with the last name."""
        line = self._lines.pop(instrument, None)
        if line is None:
            return
        del line.guests[instrument]
        self._refresh(line)
        self._guard(instrument, line)
        if not line.guests:
            del line.source.lines[line.token]
            line.source.snapshots.forget(line.token)

    def _guard(self, instrument: Instrument, line: Line) -> None:
        """What comes after this line shall not be older than what came from it."""
        state = line.source.snapshots.state(line.token)
        if state is not None:
            for stream in self.streams(instrument):
                if stream.guard is None:
                    stream.guard = Guard(line.source, copy(state), stream.mode)

    def bound(self) -> Mapping[Instrument, Line]:
        """What ticks, and of what. Read only."""
        return self._lines

    def _refresh(self, line: Line) -> None:
        line.streams = tuple(stream for guest in line.guests for stream in self._wanted.get(guest, {}).values())

    # ---------------------------------------------------------------------------------------------------------- sends

    def send_tick(self, topic: bytes, tick: Tick, flags: int = 0) -> None:
        """Sends one tick; call `look` after the last of several."""
        self._number += 1
        self._send(topic + encode(tick, number=self._number, epoch_ms=self.epoch_ms, flags=flags), zmq.NOBLOCK)

    def put_tick(self, topic: bytes, tick: Tick) -> None:
        """
        A tick that goes out with the next `send_put`, which must follow before anything else is sent.

        A send wakes ZeroMQ's own thread, which is asleep again when the next tick is made, and waking costs more than
        sending. The ticks of a frame sent in one go are one wake-up, and one packet on the wire.
        """
        self._number += 1
        put = self._put
        put.append(topic + encode(tick, number=self._number, epoch_ms=self.epoch_ms))
        if len(put) >= PUT_LIMIT:
            self.send_put()

    def send_put(self) -> None:
        """Sends what was put."""
        send = self._send
        for message in self._put:
            send(message, zmq.NOBLOCK)
        self._put.clear()
        self.look()

    @property
    def status_feeds(self) -> Collection[str]:
        """The feeds whose status somebody subscribes."""
        return self._status_feeds

    def send_status(self, feed: str, status: FeedStatus) -> None:
        """Sends the state of a feed."""
        self._number += 1
        self.counters.statuses += 1
        payload = encode_status(status, number=self._number, epoch_ms=self.epoch_ms)
        self._send(topic_of(status_key(feed)) + payload, zmq.NOBLOCK)
        self.look()

    @property
    def report_keys(self) -> Collection[Key]:
        """The reserved keys on which somebody wants a report."""
        return self._report_keys

    def send_report(self, key: Key, payload: bytes) -> None:
        """
        Sends a report on the key it was asked on.

        It takes no number: those who count numbers, the bridges, never ask for one.
        """
        self._send(topic_of(key) + payload, zmq.NOBLOCK)
        self.look()


def _goes_on(before: object, source: Source) -> bool:
    """Whether prices of this source go on where those of another one ended; simulated ones are of another world."""
    return isinstance(before, Source) and before is not source and before.simulated == source.simulated


def _key(topic: bytes) -> Key | None:
    """The key of a topic; None for a prefix of one and for anything else that `topic_of` does not make."""
    try:
        key = key_of_topic(topic)
        return key if topic_of(key) == topic else None
    except ValueError:
        return None
