"""
Keeps a hub's groups and its lease in line with what its clients hold, whatever happens to Redis.

The hub says `want` and `drop`, plain calls that never wait. Tasks here join the groups, write the lease and renew it,
and bring every message of the hub's one channel back. While Redis is away the wishes gather; when it is back they are
all said again, and the last values asked for.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from redis.exceptions import RedisError

from marketdata.ledger import Ledger, LedgerUnavailable
from marketdata.tasks import end
from marketdata.ticks import Key
from marketdata.topics import group_of, topic_of

log = structlog.get_logger(__name__)

RENEW_S = 1.0
RETRY_S = 0.25

Items = Mapping[str, bytes]


class Membership:
    """One hub's presence: a channel, its groups, its lease."""

    def __init__(self, layer: Any, ledger: Ledger, on_items: Callable[[Items], None]) -> None:
        self.hub = uuid.uuid4().hex
        self.channel = ""
        self._layer = layer
        self._ledger = ledger
        self._on_items = on_items
        self._wanted: dict[str, bytes] = {}
        self._joined: dict[str, bytes] = {}
        self._touched: set[str] = set()
        self._changed = asyncio.Event()
        self._rewrite = True
        self._tasks: list[asyncio.Task[None]] = []

    def want(self, key: Key) -> None:
        """From now on the ticks of this key are wanted here."""
        group = group_of(key)
        self._wanted[group] = topic_of(key)
        self._touch(group)

    def drop(self, key: Key) -> None:
        """The ticks of this key are not wanted here any more."""
        group = group_of(key)
        self._wanted.pop(group, None)
        self._touch(group)

    def refresh(self) -> None:
        """Messages were lost: writes the whole lease again and asks for every last value."""
        self._rewrite = True
        self._changed.set()

    def start(self) -> None:
        """Begins to receive, to join and to renew."""
        self._tasks = [asyncio.ensure_future(task) for task in (self._receive(), self._renew())]
        for task in self._tasks:
            task.add_done_callback(report_failure)

    async def stop(self) -> None:
        """Ends everything and gives the lease back."""
        await end(self._tasks)
        try:
            await asyncio.wait_for(self._ledger.release(self.hub), RENEW_S)
        except (LedgerUnavailable, TimeoutError):
            log.info("lease_not_released", reason="Redis is away; the lease ends by itself")

    def _touch(self, group: str) -> None:
        self._touched.add(group)
        self._changed.set()

    async def _receive(self) -> None:
        self.channel = await self._open_channel()
        upkeep = asyncio.ensure_future(self._upkeep())
        upkeep.add_done_callback(report_failure)
        try:
            while True:
                message = await self._layer.receive(self.channel)
                self._on_items(message["items"])
        finally:
            await end([upkeep])

    async def _open_channel(self) -> str:
        while True:
            try:
                channel: str = await self._layer.new_channel("hub.")
            except (RedisError, OSError):
                await asyncio.sleep(RETRY_S)
            else:
                return channel

    async def _upkeep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            touched, self._touched = self._touched, set()
            try:
                await self._apply(touched)
            except (RedisError, OSError, LedgerUnavailable):
                # Said again as a whole when Redis is back; `_touched` may have grown meanwhile.
                self._touched |= touched
                self._rewrite = True
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    async def _apply(self, touched: set[str]) -> None:
        added = {group: topic for group in touched if (topic := self._wanted.get(group)) and group not in self._joined}
        removed = {
            group: self._joined[group] for group in touched if group in self._joined and group not in self._wanted
        }
        for group, topic in added.items():
            await self._layer.group_add(group, self.channel)
            self._joined[group] = topic
        for group in removed:
            await self._layer.group_discard(group, self.channel)
            del self._joined[group]
        if self._rewrite or not await self._ledger.change(self.hub, set(added.values()), set(removed.values())):
            self._rewrite = False
            await self._ledger.replace(self.hub, self.channel, set(self._joined.values()), refresh=True)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                alive = await self._ledger.renew(self.hub)
            except LedgerUnavailable:
                continue
            if not alive:
                self.refresh()


def report_failure(task: asyncio.Task[None]) -> None:
    """A task of the hub must never end by itself; if one does, its error is shown, not swallowed."""
    if not task.cancelled() and (error := task.exception()):
        log.error("hub_task_failed", exc_info=error)
