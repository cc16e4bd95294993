"""
One per server process: receives each tick once, encodes it once per dialect, and hands the same bytes to every client.

The hub, not the clients, is the member of the channel layer's groups. Its index answers "who holds this key" in one
look-up. Receiving fills outboxes; a second task empties them, one write per client and pass, and then rests for a small
multiple of what the pass cost: quick when the load is light, few large writes when it is heavy.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import structlog
from django.db import Error as DatabaseError

from marketdata.auth import Grant
from marketdata.dialects.base import Dialect, Held
from marketdata.errors import CLOSE_KEY_REVOKED, CLOSE_RESTART, CloseCode
from marketdata.frames import frame_of
from marketdata.lastvalue import is_stale
from marketdata.ledger import Ledger
from marketdata.membership import Items, Membership, report_failure
from marketdata.outbox import Entry, Joiner, Outbox
from marketdata.peers import Peer
from marketdata.quota import Quota
from marketdata.statuses import GATEWAY, Change, StatusBoard
from marketdata.tasks import end
from marketdata.ticks import AccountStatus, FeedState, Key, KeyStatus
from marketdata.topics import group_of, status_key
from marketdata.wire import Delivery, WireError, decode, decode_status, unpack

log = structlog.get_logger(__name__)

REST = 3.0
"""A pass is followed by a rest of so many times its own CPU time ..."""
MAX_REST_S = 0.012
"""... and at most this."""
WATCH_S = 0.5
"""How often slow clients, revoked keys and a silent bridge are looked for."""
BRIDGE_SILENCE_S = 3.0
"""The bridge repeats the feed's status every second; after this long without one it is away."""

Sink = Callable[[Entry], None]


@dataclass
class Counters:
    """What the hub has done since it started; plain numbers for metrics and tests."""

    ticks: int = 0
    encoded: int = 0
    duplicates: int = 0
    lost: int = 0
    pauses: int = 0
    evicted: int = 0
    passes: int = 0


class Session:
    """One client: its socket, its dialect, what it may do and what it holds (key -> its own throttle in ms)."""

    __slots__ = ("address", "batch", "dialect", "grant", "held", "outbox", "paused_at_s", "pauses", "peer", "status")

    def __init__(self, peer: Peer, dialect: Dialect, address: str) -> None:
        self.peer = peer
        self.dialect = dialect
        self.address = address
        self.grant: Grant | None = None
        self.batch = False
        self.status = False
        self.held: dict[Key, int] = {}
        self.outbox = Outbox()
        self.paused_at_s: float | None = None
        self.pauses = 0

    def tell(self, message: bytes | None) -> None:
        """Sends a message beside the ticks; None, from a dialect that does not know it, is passed over."""
        if message is not None:
            self.peer.send(message)

    def flush(self, now_ms: float, joiner: Joiner) -> None:
        """Writes what waits, or folds it to the newest per key while the client does not read."""
        box = self.outbox
        if self.peer.paused:
            box.fold()
            return
        if box.merged:
            self.tell(self.dialect.lagging(box.take_merged(), self.pauses))
        entries = box.take(now_ms)
        if not entries:
            return
        if self.batch:
            self.peer.send_batch(entries)
        else:
            self.peer.send_entries(entries, joiner)


class Stream:
    """One key with the clients that hold it, by dialect and by the key as they spell it, and its last tick."""

    __slots__ = ("audiences", "key", "last")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.audiences: dict[tuple[Dialect, Key], dict[Session, Sink]] = {}
        self.last: Delivery | None = None


class Hub:
    """
    The clients of one server process and the keys they hold.

    `revoked` tells which of some API-key ids are no longer good; `slow_client_s` is how long a client may not read
    before it is cut off; `clock` returns Unix seconds.
    """

    running: ClassVar[Hub | None] = None
    """This process's hub, for who asks over HTTP."""

    def __init__(
        self,
        layer: Any,
        ledger: Ledger,
        *,
        revoked: Callable[[Collection[int]], Awaitable[set[int]]],
        slow_client_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counters = Counters()
        self.sessions: dict[Session, None] = {}
        self.quota = Quota()
        self._clock = clock
        self._revoked = revoked
        self._slow_client_s = slow_client_s
        self._streams: dict[str, Stream] = {}
        self._membership = Membership(layer, ledger, self._on_items)
        self._board = StatusBoard()
        self._status_groups: dict[str, str] = {}
        self._heard: dict[str, asyncio.Event] = {}
        """Feed to whether its accounts have reported; set and never cleared."""
        self._bridge_heard_s = time.monotonic()
        self._interrupted: set[Key] = set()
        self._joiner = Joiner()
        self._dirty = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        if hasattr(layer, "add_listener"):
            layer.add_listener(self._layer_lost, self._layer_back)

    # ------------------------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Begins to receive and to write. Needs a running event loop; Redis may still be away."""
        Hub.running = self
        self._follow_status("")
        self._membership.start()
        self._tasks = [asyncio.ensure_future(task) for task in (self._write(), self._watch())]
        for task in self._tasks:
            task.add_done_callback(report_failure)

    async def stop(self) -> None:
        """Sends every client away so that it comes back, and gives the lease back."""
        Hub.running = None
        for session in list(self.sessions):
            self._dismiss(session, CLOSE_RESTART)
        await end(self._tasks)
        await self._membership.stop()

    # ---------------------------------------------------------------------------------------------------------- clients

    def open(self, session: Session) -> None:
        """A client has connected."""
        self.sessions[session] = None
        session.peer.listen(lambda: self._paused(session), lambda: self._resumed(session))

    def close(self, session: Session) -> None:
        """A client is gone; nothing of it remains."""
        if session not in self.sessions:
            return
        self.unsubscribe(session, list(session.held))
        del self.sessions[session]
        if session.grant:
            self.quota.disconnect(session.grant.key_id)

    def admit(self, session: Session, grant: Grant, *, batch: bool, status: bool) -> bool:
        """Lets an authenticated client in; False where its key holds all the connections it may."""
        if session.grant is None:
            if not self.quota.connect(grant.key_id, grant.max_connections):
                return False
            session.grant = grant
        session.batch, session.status = batch, status
        self._follow_status(grant.feed)
        return True

    def tell_status(self, session: Session) -> None:
        """Everything there is to say of the feed's health now, to a client that asked for it."""
        if session.status and session.grant:
            for account in self._board.accounts(session.grant.feed):
                session.tell(session.dialect.account_status(account))

    def subscribe(self, session: Session, key: Key, throttle_ms: int) -> bool:
        """
        The client holds this key from now on and gets its last value at once, if there is one.

        The key is as the client spells it. False where its API key holds all the symbols it may. Repeating it only
        changes the throttle.
        """
        assert session.grant is not None
        grant, served = session.grant, session.dialect.served(key)
        is_new = key not in session.held
        if is_new and not self.quota.hold(grant.key_id, (served.symbol, served.exchange), grant.max_symbols):
            return False
        stream = self._stream(served)
        if is_new:
            self._offer_last(session, stream, key, throttled=bool(throttle_ms))
        session.held[key] = throttle_ms
        session.outbox.throttle(key, throttle_ms)
        sink = session.outbox.offer_throttled if throttle_ms else session.outbox.offer
        stream.audiences.setdefault((session.dialect, key), {})[session] = sink
        return True

    def serving(self, session: Session, keys: Collection[Key]) -> dict[Key, str]:
        """Of these keys that the client holds, those whose ticks have come, and the broker they came from."""
        streams = {key: self._streams.get(group_of(session.dialect.served(key))) for key in keys}
        return {key: stream.last.tick.broker for key, stream in streams.items() if stream and stream.last}

    def unsubscribe(self, session: Session, keys: Collection[Key]) -> int:
        """The client no longer holds these keys, nor gets a tick of them; returns how many it held."""
        held = {key for key in keys if key in session.held}
        for key in held:
            del session.held[key]
            served = session.dialect.served(key)
            stream = self._streams[group_of(served)]
            audience = stream.audiences[session.dialect, key]
            del audience[session]
            if not audience:
                del stream.audiences[session.dialect, key]
            self._drop_if_unheld(stream)
            if session.grant:
                self.quota.let_go(session.grant.key_id, (served.symbol, served.exchange))
        session.outbox.forget(held)
        return len(held)

    def held(self, session: Session) -> list[Held]:
        """What the client holds, in the order it was asked for."""
        return [Held(key, throttle_ms) for key, throttle_ms in session.held.items()]

    # ------------------------------------------------------------------------------------------------------------ ticks

    def _on_items(self, items: Items) -> None:
        for group, packed in items.items():
            stream = self._streams.get(group)
            if stream is not None:
                self._on_stream(stream, packed)
            elif group in self._status_groups:
                self._on_status(self._status_groups[group], packed)
        self._dirty.set()

    def _on_stream(self, stream: Stream, packed: bytes) -> None:
        for payload in unpack(packed):
            try:
                delivery = decode(payload)
            except WireError:
                log.exception("wire_error", key=stream.key)
                continue
            if self._is_new(stream, delivery):
                stream.last = delivery
                self.counters.ticks += 1
                self._fan_out(stream, delivery)

    def _fan_out(self, stream: Stream, delivery: Delivery) -> None:
        for (dialect, key), sinks in stream.audiences.items():
            if delivery.stale and not dialect.shows_stale:
                continue
            entry = _entry(key, dialect, delivery)
            self.counters.encoded += 1
            for sink in sinks.values():
                sink(entry)

    def _is_new(self, stream: Stream, delivery: Delivery) -> bool:
        """False for what was seen before; notes a gap in the sequence, which clients are told of before the tick."""
        last = stream.last
        if last is None:
            return True
        if delivery.epoch_ms != last.epoch_ms:
            self._interrupted.add(stream.key)
            return True
        missing = delivery.tick.seq - last.tick.seq - 1 - delivery.conflated
        if delivery.tick.seq <= last.tick.seq:
            self.counters.duplicates += not delivery.snapshot
            return False
        if missing > 0:
            self.counters.lost += missing
            self._interrupted.add(stream.key)
        return True

    def _offer_last(self, session: Session, stream: Stream, key: Key, *, throttled: bool) -> None:
        if stream.last is None:
            return
        tick = stream.last.tick
        up = self._board.is_up(stream.key.feed, tick.broker)
        stale = is_stale(tick.received_ms, self._clock() * 1000, feed_is_up=up)
        if stale and not session.dialect.shows_stale:
            return
        last = stream.last._replace(conflated=0, snapshot=True, stale=stale)
        entry = _entry(key, session.dialect, last)
        (session.outbox.offer_throttled if throttled else session.outbox.offer)(entry)
        self._dirty.set()

    # ----------------------------------------------------------------------------------------------------------- passes

    async def _write(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            began = time.thread_time()
            self._pass(self._clock() * 1000)
            self.counters.passes += 1
            await asyncio.sleep(min((time.thread_time() - began) * REST, MAX_REST_S))

    def _pass(self, now_ms: float) -> None:
        if self._interrupted:
            self._tell_interrupted(int(now_ms))
        due_ms: float | None = None
        for session in self.sessions:
            box = session.outbox
            if box.waiting():
                session.flush(now_ms, self._joiner)
                # A paused client is looked at again when it resumes: until then nothing of it is due.
                next_ms = None if session.peer.paused else box.next_due_ms()
                if next_ms is not None and (due_ms is None or next_ms < due_ms):
                    due_ms = next_ms
        self._joiner.clear()
        if due_ms is not None:
            self._wake_in((due_ms - now_ms) / 1000)

    def _wake_in(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(delay_s, 0.001), self._dirty.set)

    def _tell_interrupted(self, now_ms: int) -> None:
        keys, self._interrupted = len(self._interrupted), set()
        message = "Ticks were lost on the way; sequences jump, prices are the newest again."
        for session in self.sessions:
            if session.status:
                session.tell(session.dialect.interrupted(keys, message, now_ms))

    # ----------------------------------------------------------------------------------------------------- housekeeping

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self._evict_the_slow()
            self._listen_for_the_bridge()
            await self._close_the_revoked()

    def _evict_the_slow(self) -> None:
        now_s = time.monotonic()
        for session in list(self.sessions):
            if session.paused_at_s is not None and now_s - session.paused_at_s > self._slow_client_s:
                self.counters.evicted += 1
                log.warning("slow_client_cut_off", address=session.address, after_s=self._slow_client_s)
                session.peer.abort()
                self.close(session)

    async def _close_the_revoked(self) -> None:
        ids = {session.grant.key_id for session in self.sessions if session.grant}
        if not ids:
            return
        try:
            revoked = await self._revoked(ids)
        except DatabaseError as error:
            log.warning("revocations_unknown", reason=str(error))
            return
        for session in list(self.sessions):
            if session.grant and session.grant.key_id in revoked:
                log.info("revoked_key_closed", address=session.address, key=session.grant.name)
                self._dismiss(session, CLOSE_KEY_REVOKED)

    def _dismiss(self, session: Session, code: CloseCode) -> None:
        if code.reconnect and not session.dialect.closes_for_restart:
            session.peer.abort()
        else:
            session.peer.close(code)
        self.close(session)

    def _paused(self, session: Session) -> None:
        session.paused_at_s = time.monotonic()
        session.pauses += 1
        self.counters.pauses += 1

    def _resumed(self, session: Session) -> None:
        session.paused_at_s = None
        self._dirty.set()

    # ----------------------------------------------------------------------------------------------------------- status

    async def accounts(self, feed: str, *, patience_s: float = 0.0) -> list[AccountStatus]:
        """A feed's accounts as they last reported; the first report is waited for so long."""
        heard = self._heard.get(feed)
        if heard is not None and not heard.is_set() and patience_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), patience_s)
        return [account for account in self._board.accounts(feed) if account.broker != GATEWAY]

    def unready(self) -> list[str]:
        """What keeps prices from flowing, a sentence each; see `StatusBoard.unready`."""
        return self._board.unready()

    def _follow_status(self, feed: str) -> None:
        key = status_key(feed)
        if self._status_groups.setdefault(group_of(key), feed) == feed:
            self._heard.setdefault(feed, asyncio.Event())
            self._membership.want(key)

    def _on_status(self, feed: str, packed: bytes) -> None:
        self._bridge_heard_s = time.monotonic()
        self._hop("bridge", FeedState.CONNECTED, "The bridge is there.")
        for payload in unpack(packed):
            try:
                status = decode_status(payload)
            except WireError:
                log.exception("wire_error", key=status_key(feed))
                continue
            for change in self._board.apply(feed, status):
                self._tell_change(change)
            self._heard[feed].set()

    def _tell_change(self, change: Change) -> None:
        for session in self.sessions:
            if not session.status or session.grant is None:
                continue
            if isinstance(change, AccountStatus):
                if change.broker == GATEWAY or change.feed == session.grant.feed:
                    session.tell(session.dialect.account_status(change))
            elif change.feed == session.grant.feed and _holds(session, change):
                session.tell(session.dialect.key_status(change))

    def _listen_for_the_bridge(self) -> None:
        if time.monotonic() - self._bridge_heard_s > BRIDGE_SILENCE_S:
            self._hop("bridge", FeedState.RECONNECTING, "The bridge is silent; no ticks until it is back.")

    def _layer_lost(self) -> None:
        self._hop("redis", FeedState.RECONNECTING, "Redis is away; no ticks until it is back.")

    def _layer_back(self) -> None:
        self._hop("redis", FeedState.CONNECTED, "Redis is back.")
        self._membership.refresh()

    def _hop(self, name: str, state: FeedState, message: str) -> None:
        change = self._board.hop(name, state, message, int(self._clock() * 1000))
        if change is not None:
            self._tell_change(change)

    # ------------------------------------------------------------------------------------------------------------ index

    def _stream(self, key: Key) -> Stream:
        group = group_of(key)
        stream = self._streams.get(group)
        if stream is None:
            stream = self._streams[group] = Stream(key)
            self._membership.want(key)
        return stream

    def _drop_if_unheld(self, stream: Stream) -> None:
        if not stream.audiences:
            self._streams.pop(group_of(stream.key), None)
            self._membership.drop(stream.key)


def _entry(key: Key, dialect: Dialect, delivery: Delivery) -> Entry:
    """A tick in a dialect and under the key as clients spell it, ready for every outbox."""
    if key.symbol != delivery.tick.symbol:
        delivery = delivery._replace(tick=msgspec.structs.replace(delivery.tick, symbol=key.symbol))
    payload = dialect.tick(delivery)
    return Entry(key, payload, frame_of(payload))


def _holds(session: Session, change: KeyStatus) -> bool:
    """Whether a client holds the instrument, in whatever mode."""
    return any((key.symbol, key.exchange) == (change.symbol, change.exchange) for key in session.held)
