"""
Ticks from ZeroMQ to Channels groups; demand the other way.

One process (or, without Redis, one task of the server). It subscribes exactly the topics that some hub's lease names,
conflates per key, publishes in batches, and keeps each key's last tick for hubs that come later. It never decodes a
tick: topics, headers and opaque bodies are all it handles.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from redis.exceptions import RedisError

from marketdata.bus import BusReader
from marketdata.conflation import Conflator
from marketdata.demand import Holders
from marketdata.lastvalue import is_stale
from marketdata.ledger import LeaseChange, Ledger, LedgerUnavailable
from marketdata.report import BridgeReport, encode_report
from marketdata.statuses import GATEWAY, StatusBoard
from marketdata.tasks import end
from marketdata.ticks import AccountStatus, FeedState, FeedStatus
from marketdata.topics import STATUS_EXCHANGE, group_of, key_of_topic, split
from marketdata.wire import (
    SNAPSHOT,
    STALE,
    STATUS,
    Header,
    WireError,
    decode,
    decode_status,
    encode_status,
    header,
    marked,
    pack,
)

log = structlog.get_logger(__name__)

REST = 6.0
"""
A flush is followed by a rest of so many times its own CPU time: what it costs Redis and every server is more than what
it costs here. Not of its duration: that has Redis' answer in it, and on a busy machine the waits of others.
"""
MAX_REST_S = 0.006
"""The longest rest."""
RESYNC_S = 2.0
"""The adapters are asked for all states again at most this often."""
STATUS_S = 1.0
"""The feed's status is repeated this often, so that hubs notice when the bridge is gone."""
BEAT_S = 1.0
"""A sign of life is left in Redis this often, so that `why` notices it too."""
UNSURE_S = 1.0
"""So long after an unsubscribe a gap in the publisher's numbers may be no loss."""
SNAPSHOT_CHUNK = 500
"""Last values go to a hub in messages of so many keys."""


@dataclass
class Counters:
    """What the bridge has done since it started; plain numbers for metrics and tests."""

    received: int = 0
    published: int = 0
    conflated: int = 0
    dropped: int = 0
    unpublished: int = 0
    wire_errors: int = 0


class Bridge:
    """
    Relays the bus into the channel layer.

    `throttle_ms` is the least time between two ticks of a key (0: none); `clock` returns Unix seconds.
    """

    def __init__(
        self,
        layer: Any,
        ledger: Ledger,
        address: str,
        *,
        throttle_ms: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counters = Counters()
        self._layer = layer
        self._ledger = ledger
        self._clock = clock
        self._dirty = asyncio.Event()
        self._bus = BusReader(address, self._dirty.set, self._on_adapters)
        self._conflator = Conflator[tuple[bytes, Header]](throttle_ms)
        self._holders = Holders[bytes]()
        self._last: dict[bytes, tuple[bytes, Header]] = {}
        self._batch: dict[bytes, list[bytes]] = {}
        self._groups: dict[bytes, str] = {}
        self._board = StatusBoard()
        self._images: dict[bytes, FeedStatus] = {}
        self._adapters_up = False
        self._heard_ms: int | None = None
        """When the latest message came."""
        self._expected = (0, 0)
        self._unsubscribed_s = float("-inf")
        self._resync_at_s: float | None = None
        self._layer_is_down = False

    async def run(self) -> None:
        """Relays until cancelled."""
        self._bus.open()
        parts = (self._follow(), self._flush(), self._repeat_status(), self._beat())
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(tasks)
            self._bus.close()

    # ----------------------------------------------------------------------------------------------------------- demand

    async def _follow(self) -> None:
        async for changes in self._ledger.watch():
            for change in changes:
                await self._apply(change)

    async def _apply(self, change: LeaseChange) -> None:
        first = self._holders.add(change.added)
        last = self._holders.remove(change.removed)
        for topic in first:
            self._begin(topic)
        for topic in last:
            self._end(topic)
        if last:
            self._unsubscribed_s = time.monotonic()
        self._bus.change(first, last)
        known = [topic for topic in change.added | change.again if topic not in first or topic in self._images]
        await self._send_last(change.channel, known)

    def _begin(self, topic: bytes) -> None:
        key = key_of_topic(topic)
        self._groups[topic] = group_of(key)
        if key.exchange == STATUS_EXCHANGE:
            self._images[topic] = self._image(FeedStatus(accounts=(), received_ms=self._now_ms()))

    def _end(self, topic: bytes) -> None:
        for by_topic in (self._groups, self._last, self._images, self._batch):
            by_topic.pop(topic, None)

    async def _send_last(self, channel: str, topics: Iterable[bytes]) -> None:
        items = {self._groups[topic]: value for topic in topics if (value := self._last_value(topic)) is not None}
        groups = list(items)
        for start in range(0, len(groups), SNAPSHOT_CHUNK):
            chunk = {group: items[group] for group in groups[start : start + SNAPSHOT_CHUNK]}
            try:
                await self._layer.send(channel, {"type": "group.batch", "items": chunk})
            except (RedisError, OSError):
                return  # The hub asks again once its layer is back.

    def _last_value(self, topic: bytes) -> bytes | None:
        image = self._images.get(topic)
        if image is not None:
            return pack([encode_status(image, number=0, epoch_ms=0)])
        last = self._last.get(topic)
        if last is None:
            return None
        payload, fields = last
        tick = decode(payload).tick
        up = self._board.is_up(key_of_topic(topic).feed, tick.broker)
        stale = STALE if is_stale(tick.received_ms, self._now_ms(), feed_is_up=up) else 0
        return pack([marked(payload, fields, flags=SNAPSHOT | stale)])

    # ------------------------------------------------------------------------------------------------------------ ticks

    def _on_messages(self, messages: Collection[bytes]) -> None:
        now_ms = self._now_ms()
        for message in messages:
            topic, payload = split(message)
            try:
                fields = header(payload)
            except WireError as error:
                self._wire_error(error)
                continue
            self._count(fields)
            if fields.flags & STATUS:
                self._on_status(topic, payload)
            elif topic in self._groups:
                self._on_tick(topic, payload, fields, now_ms)
        self.counters.received += len(messages)
        if messages:
            self._heard_ms = now_ms

    def _on_tick(self, topic: bytes, payload: bytes, fields: Header, now_ms: float) -> None:
        last = self._last.get(topic)
        if fields.flags & SNAPSHOT and last is not None and last[1][4:6] == fields[4:6]:
            return  # The answer to a question we had asked for others' sake; nothing newer than what everybody has.
        self._last[topic] = payload, fields
        if self._conflator.offer(topic, (payload, fields), now_ms):
            self._batch.setdefault(topic, []).append(payload)

    def _count(self, fields: Header) -> None:
        """
        Counts messages that XPUB dropped at its high-water mark, and asks for every state again then.

        Right after an unsubscribe a gap may also be a tick that XPUB filtered before the adapters had read of it:
        states are asked for all the same, but nothing is counted as lost.
        """
        epoch_ms, expected = self._expected
        self._expected = fields.epoch_ms, fields.number + 1
        if fields.epoch_ms == epoch_ms and fields.number > expected:
            if time.monotonic() - self._unsubscribed_s > UNSURE_S:
                self.counters.dropped += fields.number - expected
            self._resync_soon()

    def _resync_soon(self) -> None:
        if self._resync_at_s is None:
            self._resync_at_s = time.monotonic() + RESYNC_S

    def _wire_error(self, error: WireError) -> None:
        self.counters.wire_errors += 1
        if self.counters.wire_errors == 1:
            log.error("wire_error", reason=str(error))

    # ------------------------------------------------------------------------------------------------------------ flush

    async def _flush(self) -> None:
        while True:
            await self._wait_for_work()
            self._on_messages(self._bus.take())
            now_ms = self._now_ms()
            for due in self._conflator.due(now_ms):
                payload, fields = due.message
                self.counters.conflated += due.conflated
                if due.key in self._groups:
                    self._batch.setdefault(due.key, []).append(marked(payload, fields, conflated=due.conflated))
            began = time.thread_time()
            await self._publish()
            await asyncio.sleep(min((time.thread_time() - began) * REST, MAX_REST_S))

    async def _wait_for_work(self) -> None:
        due_ms = self._conflator.next_due_ms()
        delay_s = None if due_ms is None else max((due_ms - self._now_ms()) / 1000, 0)
        if delay_s is not None:
            asyncio.get_running_loop().call_later(delay_s, self._dirty.set)
        await self._dirty.wait()
        self._dirty.clear()

    async def _publish(self) -> None:
        if not self._batch:
            return
        batch, self._batch = self._batch, {}
        messages = {self._groups[topic]: pack(payloads) for topic, payloads in batch.items() if topic in self._groups}
        try:
            await self._send_many(messages)
        except (RedisError, OSError) as error:
            self.counters.unpublished += len(messages)
            if not self._layer_is_down:
                self._layer_is_down = True
                log.warning("layer_lost", reason=str(error), consequence="no ticks go out until Redis is back")
        else:
            self.counters.published += len(messages)
            if self._layer_is_down:
                self._layer_is_down = False
                log.info("layer_back", unpublished=self.counters.unpublished)

    async def _send_many(self, messages: dict[str, bytes]) -> None:
        send_many = getattr(self._layer, "group_send_many", None)
        if send_many is not None:
            await send_many(messages)
            return
        for group, packed in messages.items():
            await self._layer.group_send(group, {"type": "group.batch", "items": {group: packed}})

    # ----------------------------------------------------------------------------------------------------------- status

    def _on_status(self, topic: bytes, payload: bytes) -> None:
        try:
            self._set_image(topic, decode_status(payload))
        except WireError as error:
            self._wire_error(error)

    def _set_image(self, topic: bytes, status: FeedStatus) -> None:
        if topic in self._images:
            image = self._images[topic] = self._image(status)
            self._board.apply(key_of_topic(topic).feed, image)
            self._batch[topic] = [encode_status(image, number=0, epoch_ms=0)]
            self._dirty.set()

    def _image(self, status: FeedStatus) -> FeedStatus:
        """The adapters' word, and ours on whether they are there; while they are not, their word is not believed."""
        accounts = [account for account in status.accounts if account.broker != GATEWAY]
        state, message = FeedState.CONNECTED, "The adapters are there."
        if not self._adapters_up:
            state, message = FeedState.RECONNECTING, "The adapters' process is away; no ticks until it is back."
        hop = AccountStatus(
            broker=GATEWAY, account="adapters", state=state, message=message, since_ms=status.received_ms
        )
        return msgspec.structs.replace(status, accounts=(*accounts, hop))

    def _on_adapters(self, up: bool) -> None:
        if up != self._adapters_up:
            self._adapters_up = up
            log.info("adapters_connected" if up else "adapters_lost")
        for topic, image in list(self._images.items()):
            self._set_image(topic, msgspec.structs.replace(image, received_ms=self._now_ms()))

    async def _repeat_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            for topic, image in self._images.items():
                self._batch[topic] = [encode_status(image, number=0, epoch_ms=0)]
            self._dirty.set()
            if self._resync_at_s is not None and time.monotonic() >= self._resync_at_s:
                self._resync_at_s = None
                log.info("asking_for_all_states", dropped=self.counters.dropped)
                self._bus.ask_again(self._groups)

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(LedgerUnavailable):  # Told already by those who need the ledger.
                await self._ledger.beat(encode_report(self.report()))
            await asyncio.sleep(BEAT_S)

    def report(self) -> BridgeReport:
        """What the bridge has done, and what it sees."""
        counters = self.counters
        return BridgeReport(
            pid=os.getpid(),
            now_ms=self._now_ms(),
            received=counters.received,
            published=counters.published,
            unpublished=counters.unpublished,
            conflated=counters.conflated,
            dropped=counters.dropped,
            heard_ms=self._heard_ms,
            adapters_up=self._adapters_up,
            topics=len(self._groups),
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
