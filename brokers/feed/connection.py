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
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import structlog

from brokers.contract import (
    Adapter,
    DecodeError,
    ErrorKind,
    Event,
    Feed,
    Frame,
    Handshake,
    HttpRequest,
    HttpResponse,
    Limits,
    Notice,
    NoticeKind,
    Refused,
    Reply,
    Session,
    Steps,
    Update,
)
from brokers.feed.backoff import Backoff
from brokers.feed.counters import Counters
from brokers.feed.subscriptions import Pacer, Subscriptions
from brokers.feed.transports import OPENERS, Closed, Socket, Unspeakable, UpgradeRefused
from brokers.models import is_loopback
from marketdata.ticks import FeedState, Mode, Token

log = structlog.get_logger(__name__)

HTTP_TIMEOUT_S = 10.0
GRACE_S = 0.1
"""Before a socket is called silent, what waits unread (this process may have stalled) gets so long to be read."""
SAMPLES = 20
SAMPLE_BYTES = 4096
TEXTS = 20
"""So many different complaints of a broker are logged for each connection; the rest is only counted."""

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
    """Why a connection is over."""

    def __init__(self, kind: ErrorKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Connection:
    """
    Keeps one socket open for as long as `run` is not cancelled.

    `deliver` takes each frame's updates with the Unix ms at which it was read; `on_change` is called when `condition`
    or `refused` changed; `on_lost`, with what it carried, when a socket that stood is gone. `run` returns by itself
    only when the broker refused the credentials: then `refusal` is set, or `forbid` was called.
    """

    def __init__(
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
    ) -> None:
        self.limits = limits
        self.subscriptions = Subscriptions()
        self.condition = Condition(FeedState.CONNECTING, "Connecting.")
        self.refusal: ErrorKind | None = None
        """Set when the broker refused the credentials; they must not be tried again."""
        self.refused: dict[Token, str] = {}
        """Instruments the broker said no to, and its words."""
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        """The newest frames that could not be decoded."""
        self.is_up = False
        """Whether the socket stands."""
        self.changed_s = time.monotonic()
        """Since when `is_up` is what it is."""
        self._route = route
        self._deliver = deliver
        self._on_change = on_change
        self._on_lost = on_lost
        self._counters = counters
        self._backoff = Backoff(chance)
        self._pacer = Pacer()
        self._dirty = asyncio.Event()
        """Something may have to be said to the broker."""
        self._nudge = asyncio.Event()
        """The machine woke up: waits are over, and a socket that was silent meanwhile is dead."""
        self._heard_s = 0.0
        self._heard_ms = 0
        self._texts: set[str] = set()
        self._forbidden: Condition | None = None
        self._log = log.bind(feed=name)

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

    def woke(self) -> None:
        """The machine slept, or this process stood still: looks after itself at once."""
        self._nudge.set()

    # ------------------------------------------------------------------------------------------------------------ loop

    async def run(self) -> None:
        """Connects, talks, reconnects. Returns when the credentials are refused, to it or to another."""
        while True:
            ended = await self._live()
            lived_s = self._fall()
            if self._forbidden is not None:
                self._become(*self._forbidden)
                return
            wait_s = self._backoff.failed(ended.kind, lived_s=lived_s)
            if wait_s is None:
                self._give_up(ended)
                return
            self._counters.reconnects[ended.kind] += 1
            self._log.warning("feed_down", reason=str(ended), kind=ended.kind.value, retry_s=round(wait_s, 1))
            self._become(FeedState.RECONNECTING, f"No connection: {ended}. Trying again in {wait_s:.1f} s.")
            self._nudge.clear()
            if await self._nudged(wait_s):
                self._backoff.restart()

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
        try:
            async with asyncio.timeout(wait_s):
                await self._nudge.wait()
        except TimeoutError:
            return False
        self._nudge.clear()
        return True

    async def _live(self) -> _Ended:
        """One connection from the first request to its end, and why it ended."""
        try:
            await self._connect_and_talk()
        except Exception as error:  # noqa: BLE001 - a mistake in one adapter must not end the other brokers' feeds
            return self._reason(error)
        raise AssertionError("a connection ends with a reason")

    def _reason(self, error: Exception) -> _Ended:
        adapter = self._route.adapter
        match error:
            case _Ended():
                return error
            case Refused():
                kind, reason = error.kind, str(error)
            case UpgradeRefused():
                kind, reason = adapter.refusal(error.status, error.body), str(error)
            case Closed():
                kind, reason = adapter.closed(error.code, error.reason), str(error)
            case TimeoutError():
                kind, reason = ErrorKind.NETWORK, "no answer in time"
            case OSError():
                kind, reason = ErrorKind.NETWORK, error.strerror or str(error)
            case Unspeakable():
                kind, reason = ErrorKind.PROTOCOL, str(error)
            case _:
                self._log.error("adapter_failed", exc_info=error)
                kind, reason = ErrorKind.PROTOCOL, f"the adapter failed with {type(error).__name__}; see the log"
        return _Ended(kind, reason)

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
        steps = adapter.open(feed, credentials, endpoint or feed.endpoint, time.time_ns() // 1_000_000)
        return await walk(steps)

    def _stand(self) -> None:
        self.is_up = True
        self.changed_s = self._heard_s = time.monotonic()
        self._heard_ms = time.time_ns() // 1_000_000
        self._nudge.clear()
        self._dirty.set()
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
        unheard = self.subscriptions.unheard
        while True:
            frame = await recv()
            received_ms = time.time_ns() // 1_000_000
            self._heard_ms, self._heard_s = received_ms, time.monotonic()
            counters.frames += 1
            events: Sequence[Event]
            try:
                events = decode(frame)
            except DecodeError as error:
                events = error.events
                self._keep(frame, error, received_ms)
            updates = [event for event in events if event.__class__ is Update]
            if updates:
                deliver(updates, received_ms)
                if unheard or self.refused:
                    self._hear(updates)
            if len(updates) != len(events):
                await self._answer(socket, events)

    def _keep(self, frame: Frame, error: DecodeError, received_ms: int) -> None:
        self._counters.decode_errors += 1
        start = frame[:SAMPLE_BYTES]
        content = start.encode() if isinstance(start, str) else start
        self.samples.append(Sample(received_ms, str(error), content[:SAMPLE_BYTES].hex()))
        self._say_once("frame_not_understood", str(error))

    def _hear(self, updates: Collection[Update]) -> None:
        tokens = [update.token for update in updates]
        self.subscriptions.heard(tokens)
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

    def _complaint(self, notice: Notice) -> None:
        self._counters.broker_errors += 1
        text = notice.text or "the broker gave no reason"
        if notice.fatal:
            raise _Ended(notice.error or ErrorKind.PROTOCOL, text)
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
                self._heard_s = time.monotonic()  # silence counts from the first subscription
            say = session.subscribe if command.subscribe else session.unsubscribe
            for frame in say(command.tokens, command.mode):
                await self._pace()
                self._pacer.count(time.monotonic())
                await socket.send(frame)

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
        """Ends the connection when it is silent for too long while something is subscribed, or was while we slept."""
        silence_s = self._route.feed.silence_s
        while True:
            left_s = self._heard_s + silence_s - time.monotonic()
            if await self._nudged(left_s if left_s > 0 else min(silence_s, 1.0)):
                await asyncio.sleep(GRACE_S)
                if time.time_ns() // 1_000_000 - self._heard_ms > silence_s * 1000:
                    raise _Ended(ErrorKind.NETWORK, "nothing came while this machine slept")
            elif self.subscriptions.sent and self._is_silent(silence_s):
                await asyncio.sleep(GRACE_S)
                if self._is_silent(silence_s):
                    raise _Ended(ErrorKind.NETWORK, f"nothing came for {silence_s:g} s")

    def _is_silent(self, silence_s: float) -> bool:
        return time.monotonic() - self._heard_s >= silence_s


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


async def walk(steps: Steps) -> Handshake:
    """
    Makes the HTTP calls an adapter asks for, up to its handshake.

    Raises Refused, and OSError where nobody answers.
    """
    try:
        request = next(steps)
        while True:
            request = steps.send(await _call(request))
    except StopIteration as done:
        handshake: Handshake = done.value
        return handshake
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Its text may hold the address, and that a token.
        raise ConnectionError(f"an HTTP call before the connection failed ({type(error).__name__})") from None


async def _call(request: HttpRequest) -> HttpResponse:
    # A proxy of the environment is for the way out, not for a simulator beside us.
    here = is_loopback(urlsplit(request.url).hostname or "")
    form = None if request.form is None else dict(request.form)
    async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, trust_env=not here) as client:
        response = await client.request(
            request.method, request.url, headers=dict(request.headers), data=form, json=request.json
        )
    return HttpResponse(status=response.status_code, body=response.content, headers=dict(response.headers))
