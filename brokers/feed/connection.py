"""
One connection to a broker: the only reconnect loop there is, whatever the broker and the transport.

It opens what the adapter says, tells the broker what is wanted, hands updates on, notices silence, and comes back with
rising waits. It never tries refused credentials twice, and writes no address and no header to any log.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from brokers.calls import walk
from brokers.contract import (
    Adapter,
    DecodeError,
    ErrorKind,
    Event,
    Feed,
    Frame,
    Handshake,
    Limits,
    MarketKind,
    Notice,
    NoticeKind,
    Refused,
    Reply,
    Session,
    Update,
)
from brokers.feed.backoff import Backoff
from brokers.feed.counters import Counters
from brokers.feed.evictions import Ending
from brokers.feed.knocks import Knocks, Turn, Turns, Who
from brokers.feed.subscriptions import Pacer, Subscriptions
from brokers.feed.transports import OPENERS, Closed, Socket, Unspeakable, UpgradeRefused
from marketdata.ticks import FeedState, Mode, Segment, Token

log = structlog.get_logger(__name__)

GRACE_S = 0.1
"""Before a socket is called silent, what waits unread (this process may have stalled) gets so long to be read."""
IMAGE_S = 5.0
"""What comes so soon after a subscription may be an image of old prices: it does not prove that anything is traded."""
BUSY = 5
"""Of fewer instruments (an index apart) nothing need come for minutes, also in an open market."""
INDICES = frozenset({Segment.NSE_INDEX, Segment.BSE_INDEX, Segment.MCX_INDEX, Segment.INDEX})
"""Each of their instruments is busy while its market is open."""
SAMPLES = 20
SAMPLE_BYTES = 4096
BURST = 30
"""A connection of its own may make so many attempts a minute."""
TEXTS = 20
"""So many different complaints of a broker are logged for each connection; the rest is only counted."""

OWN_TROUBLE = frozenset({1001, 1002, 1003, 1006, 1007, 1009, 1010, 1011, 1012, 1013, 1014, 1015})
"""Close codes that blame the server, the line or our frames (RFC 6455, and IANA's registry of close codes)."""

REFUSED_STATES = {ErrorKind.AUTH: FeedState.TOKEN_EXPIRED, ErrorKind.ENTITLEMENT: FeedState.NOT_ENTITLED}
"""What an account is that must not try again, by the kind of the refusal."""


class Sample(NamedTuple):
    """A frame that could not be decoded: when it came, what was wrong, and its first bytes in hex."""

    received_ms: int
    error: str
    frame_hex: str


class Condition(NamedTuple):
    """How a connection is doing, with a sentence for people."""

    state: FeedState
    message: str


class Route(NamedTuple):
    """How a connection is opened. Holds secrets: it has no text form."""

    adapter: Adapter
    feed: Feed
    credentials: Mapping[str, str]
    endpoint: str

    def __repr__(self) -> str:
        return f"<Route to {self.adapter.spec.slug} {self.feed.kind}>"


class _Ended(Exception):
    """Why a connection is over; `is_said` as in `Ending`."""

    def __init__(self, kind: ErrorKind, reason: str, *, is_said: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        self.is_said = is_said


class Connection:
    """
    Keeps one socket open for as long as `run` is not cancelled.

    `deliver` takes each frame's updates with the Unix ms at which it was read; `on_change` is called when `condition`
    or `refused` changed; `on_lost`, with what it carried, when a socket that stood is gone; `on_dropped` when the
    broker was told that something shall not tick here any more. `turn` is its place among the account's connections,
    and `on_knock` is told of each attempt: when it was made (Unix ms by `clock`), and what came of it so far ("begun",
    "ok", "refused", "failed") with a reason. `on_markets` is told what the broker
    says that segments are doing. `tells` is asked about feeds that do not beat: whether it says anything that in these
    segments no price came for so many seconds; True if there was one since the socket stands. `run` returns by itself
    only when the broker refused the credentials: then `refusal` is set, or `forbid` was called.
    """

    def __init__(  # noqa: PLR0915 - an attribute a line
        self,
        name: str,
        route: Route,
        limits: Limits,
        *,
        deliver: Callable[[Collection[Update], int], None],
        on_change: Callable[[], None],
        on_lost: Callable[[Iterable[Token]], None],
        counters: Counters,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
        turn: Turn | None = None,
        on_dropped: Callable[[], None] = lambda: None,
        on_knock: Callable[[int, str, str], None] = lambda at_ms, outcome, reason: None,
        on_markets: Callable[[Mapping[Segment, MarketKind]], None] = lambda markets: None,
        tells: Callable[[Collection[Segment], float, bool], bool] = lambda segments, silent_for_s, ticked: True,
    ) -> None:
        self.muted = False
        """Reads and listens, but hands nothing on: another connection still delivers the same instruments."""
        self.limits = limits
        self.subscriptions = Subscriptions()
        self.condition = Condition(FeedState.CONNECTING, "Connecting.")
        self.refusal: ErrorKind | None = None
        """Set when the broker refused the credentials; they must not be tried again."""
        self.refused: dict[Token, str] = {}
        """Instruments the broker said no to, and its words."""
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        """The newest frames that could not be decoded."""
        self.reconnects: Counter[str] = Counter()
        """How often it came back, by the kind of what had ended it."""
        self.decode_errors = 0
        self.is_up = False
        """Whether the socket stands."""
        self.has_stood = False
        """Whether any socket of this connection ever did."""
        self.changed_s = time.monotonic()
        """Since when `is_up` is what it is."""
        self._route = route
        self._deliver = deliver
        self._on_change = on_change
        self._on_lost = on_lost
        self._counters = counters
        self._backoff = Backoff(chance)
        self._clock = clock
        self._turn = turn or Turn(Turns(("",), {"": Knocks(BURST)}.__getitem__, chance=chance), Who("", 0))
        self._turned = asyncio.Event()
        """It may be its turn."""
        self._on_dropped = on_dropped
        self._on_knock = on_knock
        self._knocked_ms = 0
        self._pacer = Pacer()
        self._dirty = asyncio.Event()
        """Something may have to be said to the broker."""
        self._nudge = asyncio.Event()
        """The machine woke up: waits are over, and a socket that was silent meanwhile is dead."""
        self._on_markets = on_markets
        self._tells = tells
        self._heard_s = 0.0
        self._heard_ms = 0
        self._asked_s = 0.0
        """When the broker was last told what is wanted."""
        self._priced_s = 0.0
        """When the last price came that was no image; before the first one, when something was first subscribed."""
        self._has_ticked = False
        """Whether there was such a price since the socket stands."""
        self._texts: set[str] = set()
        self._forbidden: Condition | None = None
        self._log = log.bind(feed=name)

    @property
    def heard_ms(self) -> int | None:
        """When its latest frame came, or its socket was opened (Unix ms); None: neither was."""
        return self._heard_ms or None

    # ---------------------------------------------------------------------------------------------------------- orders

    def want(self, token: Token, mode: Mode | None) -> None:
        """The instrument shall tick in this mode; None: no more."""
        if mode is None:
            self.subscriptions.drop(token)
            self.refused.pop(token, None)
        else:
            self.subscriptions.want(token, mode)
        self._dirty.set()

    def forbid(self, condition: Condition) -> None:
        """The credentials turned out to be refused: when the socket ends, it is not opened again."""
        self._forbidden = condition
        if not self.is_up:
            self.condition = condition

    def follow(self) -> None:
        """Another connection of the account stands: this one need not wait any longer. Not for one that stands."""
        self.look()
        self._nudge.set()

    def look(self) -> None:
        """What it waits for before it tries may be over."""
        self._turned.set()

    def woke(self) -> None:
        """The machine slept, or this process stood still: looks after itself at once."""
        self._nudge.set()

    # ------------------------------------------------------------------------------------------------------------ loop

    async def run(self) -> None:
        """Connects, talks, reconnects. Returns when the credentials are refused, to it or to another."""
        while True:
            await self._knock()
            ended = await self._live()
            lived_s = self._fall()
            is_evicted = self._count_end(ended, lived_s)
            if self._forbidden is not None:
                self._become(*self._forbidden)
                return
            wait_s = self._backoff.failed(ended.kind, lived_s=lived_s)
            if wait_s is None:
                self._give_up(ended)
                return
            self._counters.reconnects[ended.kind] += 1
            self.reconnects[ended.kind.value] += 1
            if is_evicted:
                self._log.warning("feed_evicted", reason=str(ended), kind=ended.kind.value, consequence=self._held())
                continue
            self._log.warning("feed_down", reason=str(ended), kind=ended.kind.value, retry_s=round(wait_s, 1))
            self._become(FeedState.RECONNECTING, f"No connection: {ended}. Trying again in {wait_s:.1f} s.")
            self._nudge.clear()
            if await self._nudged(wait_s):
                self._backoff.restart()

    async def _knock(self) -> None:
        """Waits until the broker may be bothered again; being woken does not shorten that."""
        while (hold := self._turn.hold(self._now_ms())) is not None:
            if self.condition.message != hold.text:
                self._become(FeedState.RECONNECTING, hold.text)
            await _is_set(self._turned, min(hold.ms / 1000, 1.0))
        self._knocked_ms = self._now_ms()
        self._turn.tries(self._knocked_ms)
        self._on_knock(self._knocked_ms, "begun", "")

    def _held(self) -> str:
        hold = self._turn.hold(self._now_ms())
        return "" if hold is None else hold.text

    def _count_end(self, ended: _Ended, lived_s: float) -> bool:
        """
        What the broker's door had to say to this attempt; of one that stood that was told already. Whether it looks as
        if another program were at the door.
        """
        if not lived_s:
            refused = ended.kind in (ErrorKind.LIMIT, *REFUSED_STATES)
            self._on_knock(self._knocked_ms, "refused" if refused else "failed", f"{ended.kind.value}: {ended}")
        return self._turn.ended(Ending(ended.kind, str(ended), lived_s, ended.is_said), self._now_ms())

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _fall(self) -> float:
        """The socket, if there was one, is gone; for how many seconds it stood."""
        if not self.is_up:
            return 0.0
        lived_s = time.monotonic() - self.changed_s
        self.is_up, self.changed_s = False, time.monotonic()
        self._on_lost(self.subscriptions.wanted())
        return lived_s

    def _give_up(self, ended: _Ended) -> None:
        self._counters.refusals += 1
        self.refusal = ended.kind
        self._log.error("feed_refused", reason=str(ended), kind=ended.kind.value)
        self._become(REFUSED_STATES[ended.kind], f"The broker refuses the credentials: {ended}. Log in again.")

    def _become(self, state: FeedState, message: str) -> None:
        self.condition = Condition(state, message)
        self._on_change()

    async def _nudged(self, wait_s: float) -> bool:
        """Waits so long; True: was woken before that."""
        return await _is_set(self._nudge, wait_s)

    async def _live(self) -> _Ended:
        """One connection from the first request to its end, and why it ended."""
        try:
            await self._connect_and_talk()
        except Exception as error:  # noqa: BLE001 - a mistake in one adapter must not end the other brokers' feeds
            return self._reason(error)
        raise AssertionError("a connection ends with a reason")

    def _reason(self, error: Exception) -> _Ended:
        adapter, is_said = self._route.adapter, False
        match error:
            case _Ended():
                return error
            case Refused():
                kind, reason = error.kind, str(error)
            case UpgradeRefused():
                kind, reason = adapter.refusal(error.status, error.body), str(error)
            case Closed():
                kind, reason = adapter.closed(error.code, error.reason), str(error)
                is_said = error.code not in OWN_TROUBLE
            case TimeoutError():
                kind, reason = ErrorKind.NETWORK, "no answer in time"
            case OSError():
                kind, reason = ErrorKind.NETWORK, error.strerror or str(error)
            case Unspeakable():
                kind, reason = ErrorKind.PROTOCOL, str(error)
            case _:
                self._log.error("adapter_failed", exc_info=error)
                kind, reason = ErrorKind.PROTOCOL, f"the adapter failed with {type(error).__name__}; see the log"
        return _Ended(kind, reason, is_said=is_said)

    async def _connect_and_talk(self) -> None:
        adapter, feed = self._route.adapter, self._route.feed
        self.subscriptions.restart()
        self.refused.clear()
        handshake = await self._handshake()
        session = adapter.session(feed)
        async with _opened(handshake, feed) as socket:
            for frame in handshake.first_frames:
                await socket.send(frame)
            self._stand()
            await self._talk(socket, session)

    async def _handshake(self) -> Handshake:
        adapter, feed, credentials, endpoint = self._route
        steps = adapter.open(feed, credentials, endpoint or feed.endpoint, self._now_ms())
        return await walk(steps)

    def _stand(self) -> None:
        self.is_up = self.has_stood = True
        self.changed_s = self._heard_s = self._priced_s = time.monotonic()
        self._has_ticked = False
        self._heard_ms = time.time_ns() // 1_000_000
        self._nudge.clear()
        self._dirty.set()
        self._turn.stands()
        self._on_knock(self._knocked_ms, "ok", "")
        self._log.info("feed_up", instruments=len(self.subscriptions))
        self._become(FeedState.CONNECTED, "Connected.")

    async def _talk(self, socket: Socket, session: Session) -> None:
        """
        Reads, writes and watches until one of them fails; raises what ended it.

        Not a TaskGroup: that of Python 3.11 forgets that we were cancelled where something fails in the same moment.
        """
        parts = [
            asyncio.ensure_future(part)
            for part in (
                self._read(socket, session),
                self._write(socket, session),
                self._beat(socket, session),
                self._watch(),
            )
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        for part in done:
            part.result()

    # --------------------------------------------------------------------------------------------------------- reading

    async def _read(self, socket: Socket, session: Session) -> None:
        recv, decode, deliver, counters = socket.recv, session.decode, self._deliver, self._counters
        unpriced = self.subscriptions.unpriced
        while True:
            frame = await recv()
            received_ms = time.time_ns() // 1_000_000
            self._heard_ms, self._heard_s = received_ms, (now_s := time.monotonic())
            counters.frames += 1
            events: Sequence[Event]
            try:
                events = decode(frame)
            except DecodeError as error:
                events = error.events
                self._keep(frame, error, received_ms)
            updates = [event for event in events if event.__class__ is Update]
            if updates:
                if now_s - self._asked_s > IMAGE_S:
                    self._priced_s, self._has_ticked = now_s, True
                if not self.muted:
                    deliver(updates, received_ms)
                if unpriced or self.refused:
                    self._hear(updates)
            if len(updates) != len(events):
                await self._answer(socket, events)

    def _keep(self, frame: Frame, error: DecodeError, received_ms: int) -> None:
        self._counters.decode_errors += 1
        self.decode_errors += 1
        start = frame[:SAMPLE_BYTES]
        content = start.encode() if isinstance(start, str) else start
        self.samples.append(Sample(received_ms, str(error), content[:SAMPLE_BYTES].hex()))
        self._say_once("frame_not_understood", str(error))

    def _hear(self, updates: Collection[Update]) -> None:
        tokens = [update.token for update in updates]
        self.subscriptions.priced(tokens)
        forgiven = self.refused.keys() & set(tokens)
        for token in forgiven:
            del self.refused[token]
        if forgiven:
            self._on_change()

    async def _answer(self, socket: Socket, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Reply):
                await socket.send(event.frame)
            elif isinstance(event, Notice):
                self._notice(event)

    def _notice(self, notice: Notice) -> None:
        self.subscriptions.heard(notice.tokens)
        if notice.kind is NoticeKind.ERROR:
            self._complaint(notice)
        elif notice.kind in (NoticeKind.MESSAGE, NoticeKind.MARKET_STATUS) and notice.text:
            self._say_once("broker_says", notice.text)
        if notice.markets:
            self._on_markets(notice.markets)

    def _complaint(self, notice: Notice) -> None:
        self._counters.broker_errors += 1
        text = notice.text or "the broker gave no reason"
        if notice.fatal:
            raise _Ended(notice.error or ErrorKind.PROTOCOL, text, is_said=True)
        self._say_once("broker_complains", text)
        if notice.tokens:
            self.refused.update(dict.fromkeys(notice.tokens, text))
            self._on_change()

    def _say_once(self, event: str, text: str) -> None:
        if text not in self._texts and len(self._texts) < TEXTS:
            self._texts.add(text)
            self._log.warning(event, text=text[:500])

    # --------------------------------------------------------------------------------------------------------- writing

    async def _write(self, socket: Socket, session: Session) -> None:
        """Tells the broker what is wanted, as fast as its limit of frames allows and never earlier than it must."""
        while True:
            await self._pace()
            self._dirty.clear()
            idle = not self.subscriptions.sent
            command = self.subscriptions.next(self.limits, now_s=time.monotonic())
            if command is None:
                await self._dirty.wait()
                continue
            if idle:
                self._heard_s = self._priced_s = time.monotonic()  # silence counts from the first subscription
            say = session.subscribe if command.subscribe else session.unsubscribe
            for frame in say(command.tokens, command.mode):
                await self._pace()
                self._pacer.count(time.monotonic())
                await socket.send(frame)
            if command.subscribe:
                self._asked_s = time.monotonic()
            else:
                self._on_dropped()

    async def _pace(self) -> None:
        wait_s = self._pacer.wait_s(self.limits.frames_per_second, now_s=time.monotonic())
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _beat(self, socket: Socket, session: Session) -> None:
        every_s = self._route.feed.heartbeat_s
        while every_s is not None:
            await asyncio.sleep(every_s)
            frame = session.heartbeat()
            if frame is not None:
                await socket.send(frame)

    # -------------------------------------------------------------------------------------------------------- watching

    async def _watch(self) -> None:
        """
        Ends the connection when it is silent for too long while something is subscribed, or was while we slept.

        A feed that does not beat is silent in a quiet market too: there the silence itself must say something.
        """
        silence_s = self._route.feed.silence_s
        while True:
            left_s = self._heard_s + silence_s - time.monotonic()
            if await self._nudged(left_s if left_s > 0 else min(silence_s, 1.0)):
                await asyncio.sleep(GRACE_S)
                silent_s = time.time_ns() / 1e9 - self._heard_ms / 1000
                if silent_s > silence_s and self._slept_through(silent_s):
                    raise _Ended(ErrorKind.NETWORK, "nothing came while this machine slept")
            elif self.subscriptions.sent and self._is_silent(silence_s):
                await asyncio.sleep(GRACE_S)
                if self._is_silent(silence_s) and self._says_something():
                    raise _Ended(ErrorKind.NETWORK, f"nothing came for {silence_s:g} s")

    def _says_something(self) -> bool:
        """Whether no frame means that the socket is dead: always of a feed that beats, else of busy instruments."""
        if self._route.feed.beats:
            return True
        held = Counter(token.segment for token in self.subscriptions.wanted())
        telling = self._telling(held, time.monotonic() - self._priced_s)
        return not INDICES.isdisjoint(telling) or sum(held[segment] for segment in telling) >= BUSY

    def _slept_through(self, silent_s: float) -> bool:
        """
        Whether no frame while the machine slept means that the socket is dead.

        Of a feed that does not beat it means nothing in a quiet market. There it is the transport's own pings that find
        a dead socket: after `Feed.ping_s` and the time a pong may take, where it has them.
        """
        feed = self._route.feed
        if feed.beats or feed.ping_s is None:
            return True
        return bool(self._telling({token.segment for token in self.subscriptions.wanted()}, silent_s))

    def _telling(self, segments: Collection[Segment], silent_s: float) -> set[Segment]:
        """The segments whose part of the silence says something."""
        return {segment for segment in segments if self._tells((segment,), silent_s, self._has_ticked)}

    def _is_silent(self, silence_s: float) -> bool:
        return time.monotonic() - self._heard_s >= silence_s


async def _is_set(event: asyncio.Event, wait_s: float) -> bool:
    """Waits until an event is set, and clears it; False: it was not within so long."""
    try:
        async with asyncio.timeout(wait_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True


@contextlib.asynccontextmanager
async def _opened(handshake: Handshake, feed: Feed) -> AsyncIterator[Socket]:
    """A socket that is aborted after a failure, and closed in order when we leave it."""
    socket = await OPENERS[feed.transport](handshake, feed)
    try:
        yield socket
    except asyncio.CancelledError:
        await socket.close()
        raise
    except BaseException:
        socket.abort()
        raise
