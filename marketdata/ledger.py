"""
Who wants which topics: leases that hubs hold and a bridge watches.

A lease lives 4 seconds beyond its last renewal, so the demand of a killed process ends by itself. In Redis a lease is a
hash (channel, version) and a set of topics, both with that time to live; every change is also told by pub/sub, with the
version it makes, so the watcher hears of it in milliseconds and reads anew only when it missed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import structlog
from django.conf import settings
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from marketdata.demand import difference

log = structlog.get_logger(__name__)

LEASE_S = 4.0
"""How long a lease outlives its last renewal; hubs renew every second."""
RECONCILE_S = 1.0
"""How often the watcher compares versions, in case it missed a word."""
RETRY_S = 0.1

Topics = frozenset[bytes]
_NONE: Topics = frozenset()


class LedgerUnavailable(Exception):
    """The ledger cannot be reached now; nothing was changed, or all of it."""


class LeaseChange(NamedTuple):
    """
    What became different in one hub's lease.

    `channel` is the hub's own; `again` are topics it held before and asks the last values of once more.
    """

    hub: str
    channel: str
    added: Topics
    removed: Topics
    again: Topics = _NONE


class Census(NamedTuple):
    """How many hubs hold a lease, how many of them want each topic asked for, and the bridge's sign of life."""

    hubs: int
    wanted: dict[bytes, int]
    life: bytes | None


class Ledger(ABC):
    """One interface for both: Redis between processes, a dict within one."""

    @abstractmethod
    async def replace(self, hub: str, channel: str, topics: Collection[bytes], *, refresh: bool = False) -> None:
        """
        Writes a hub's whole lease; with `refresh` it also asks for the last values of all its topics.

        Raises LedgerUnavailable, as every method of a hub's side does.
        """

    @abstractmethod
    async def change(self, hub: str, added: Collection[bytes], removed: Collection[bytes]) -> bool:
        """Changes a lease. False: there is none (it ran out, or Redis came back empty); `replace` it."""

    @abstractmethod
    async def renew(self, hub: str) -> bool:
        """Keeps a lease alive. False: there is none; `replace` it."""

    @abstractmethod
    async def release(self, hub: str) -> None:
        """Gives a lease back."""

    @abstractmethod
    async def beat(self, life: bytes) -> None:
        """Leaves the bridge's sign of life, which fades as a lease does; within one process nobody needs it."""

    @abstractmethod
    def watch(self) -> AsyncIterator[list[LeaseChange]]:
        """All leases there are, then every change, for as long as one listens. Outlives the ledger's outages."""


@cache
def make_ledger() -> Ledger:
    """The ledger the settings describe; one per process."""
    return RedisLedger(settings.REDIS_URL) if settings.REDIS_URL else LocalLedger()


# --------------------------------------------------------------------------------------------------------- in-process


class LocalLedger(Ledger):
    """Within one process: a lease ends when its hub says so, since both die together."""

    def __init__(self) -> None:
        self._leases: dict[str, tuple[str, Topics]] = {}
        self._watchers: set[asyncio.Queue[list[LeaseChange]]] = set()

    async def replace(self, hub: str, channel: str, topics: Collection[bytes], *, refresh: bool = False) -> None:
        """See Ledger."""
        held = self._leases.get(hub, (channel, _NONE))[1]
        self._set(hub, channel, frozenset(topics), again=held if refresh else _NONE)

    async def change(self, hub: str, added: Collection[bytes], removed: Collection[bytes]) -> bool:
        """See Ledger."""
        if hub not in self._leases:
            return False
        channel, held = self._leases[hub]
        self._set(hub, channel, (held | frozenset(added)) - frozenset(removed))
        return True

    async def renew(self, hub: str) -> bool:
        """See Ledger."""
        return hub in self._leases

    async def release(self, hub: str) -> None:
        """See Ledger."""
        channel, held = self._leases.pop(hub, ("", _NONE))
        self._tell(LeaseChange(hub, channel, _NONE, held))

    async def beat(self, life: bytes) -> None:
        """See Ledger."""

    async def watch(self) -> AsyncIterator[list[LeaseChange]]:
        """See Ledger."""
        queue: asyncio.Queue[list[LeaseChange]] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield [LeaseChange(hub, channel, held, _NONE) for hub, (channel, held) in self._leases.items()]
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    def _set(self, hub: str, channel: str, topics: Topics, again: Topics = _NONE) -> None:
        change = difference(self._leases.get(hub, ("", _NONE))[1], topics)
        self._leases[hub] = channel, topics
        self._tell(LeaseChange(hub, channel, change.added, change.removed, again & topics))

    def _tell(self, change: LeaseChange) -> None:
        if change.added or change.removed or change.again:
            for queue in self._watchers:
                queue.put_nowait([change])


# ------------------------------------------------------------------------------------------------------------- Redis


class _News(msgspec.Struct, array_like=True):
    """What a hub's side tells by pub/sub: `whole` means "read my lease anew"."""

    hub: str
    channel: str
    version: int
    added: list[bytes]
    removed: list[bytes]
    whole: bool
    refresh: bool


class _Known(msgspec.Struct):
    """A lease as the watcher last saw it."""

    channel: str
    version: int
    topics: Topics


_encode = msgspec.msgpack.Encoder().encode
_news = msgspec.msgpack.Decoder(_News)

# KEYS: lease, topics. ARGV: time to live in ms, how many are added, those, those removed. Returns {version, channel},
# or nothing where there is no lease.
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local last_added = 2 + tonumber(ARGV[2])
for at = 3, last_added do redis.call('SADD', KEYS[2], ARGV[at]) end
for at = last_added + 1, #ARGV do redis.call('SREM', KEYS[2], ARGV[at]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return {redis.call('HINCRBY', KEYS[1], 'version', 1), redis.call('HGET', KEYS[1], 'channel')}
"""


class RedisLedger(Ledger):
    """Between processes and machines. Times to live are counted by Redis, so no clock of ours matters."""

    def __init__(self, url: str, *, prefix: str = "ledger", lease_s: float = LEASE_S) -> None:
        # No retries below us: a connection that came back by itself would hide that Redis may have come back empty.
        retry = Retry(NoBackoff(), 0)
        self._redis = aioredis.Redis.from_url(
            url, socket_connect_timeout=2.0, socket_timeout=5.0, health_check_interval=2, retry=retry
        )
        self._change = self._redis.register_script(_CHANGE)
        self._prefix = prefix
        self.lease_ms = int(lease_s * 1000)

    async def replace(self, hub: str, channel: str, topics: Collection[bytes], *, refresh: bool = False) -> None:
        """See Ledger."""
        lease, members = self._keys(hub)
        # A random start: a lease that ran out and came back is never mistaken for the one before.
        version = secrets.randbits(48)
        news = _News(hub, channel, version, [], [], whole=True, refresh=refresh)
        async with self._reached(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(members)
            if topics:
                pipeline.sadd(members, *topics)
            pipeline.hset(lease, mapping={"channel": channel, "version": version})
            pipeline.pexpire(lease, self.lease_ms)
            pipeline.pexpire(members, self.lease_ms)
            pipeline.sadd(self._hubs, hub)
            pipeline.publish(self.news_channel, _encode(news))
            await pipeline.execute()

    async def change(self, hub: str, added: Collection[bytes], removed: Collection[bytes]) -> bool:
        """See Ledger."""
        arguments: list[int | bytes] = [self.lease_ms, len(added), *added, *removed]
        async with self._reached():
            done = await self._change(keys=list(self._keys(hub)), args=arguments)
            if done is None:
                return False
            version, channel = int(done[0]), done[1].decode()
            news = _News(hub, channel, version, list(added), list(removed), whole=False, refresh=False)
            await self._redis.publish(self.news_channel, _encode(news))
        return True

    async def renew(self, hub: str) -> bool:
        """See Ledger."""
        lease, members = self._keys(hub)
        async with self._reached(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.pexpire(lease, self.lease_ms)
            pipeline.pexpire(members, self.lease_ms)
            return bool((await pipeline.execute())[0])

    async def release(self, hub: str) -> None:
        """See Ledger."""
        news = _News(hub, "", 0, [], [], whole=True, refresh=False)
        async with self._reached(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(*self._keys(hub))
            pipeline.srem(self._hubs, hub)
            pipeline.publish(self.news_channel, _encode(news))
            await pipeline.execute()

    async def beat(self, life: bytes) -> None:
        """See Ledger."""
        async with self._reached():
            await self._redis.set(self._bridge, life, px=self.lease_ms)

    async def watch(self) -> AsyncIterator[list[LeaseChange]]:
        """See Ledger."""
        watcher = _Watcher(self._redis, self)
        try:
            while True:
                try:
                    await watcher.open()
                    while True:
                        changes = await watcher.next()
                        if changes:
                            yield changes
                except (RedisError, OSError) as error:
                    await watcher.lost(error)
                    await asyncio.sleep(RETRY_S)
        finally:
            await watcher.close()

    @property
    def _hubs(self) -> str:
        return f"{self._prefix}:hubs"

    @property
    def _bridge(self) -> str:
        return f"{self._prefix}:bridge"

    @property
    def news_channel(self) -> str:
        """Where changes are told."""
        return f"{self._prefix}:news"

    def _keys(self, hub: str) -> tuple[str, str]:
        return f"{self._prefix}:lease:{hub}", f"{self._prefix}:topics:{hub}"

    async def hubs(self) -> set[str]:
        """Every hub that has a lease, or had one."""
        found: set[Any] = await self._redis.smembers(self._hubs)
        return {hub.decode() for hub in found}

    async def versions(self, hubs: Collection[str]) -> dict[str, int]:
        """The version of each lease that is alive."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for hub in hubs:
                pipeline.hget(self._keys(hub)[0], "version")
            found = await pipeline.execute()
        return {hub: int(version) for hub, version in zip(hubs, found, strict=True) if version is not None}

    async def read(self, hub: str) -> _Known | None:
        """One lease as it is now; None if there is none."""
        lease, members = self._keys(hub)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hmget(lease, ["channel", "version"])
            pipeline.smembers(members)
            (channel, version), topics = await pipeline.execute()
        return None if version is None else _Known(channel.decode(), int(version), frozenset(topics))

    async def census(self, topics: Sequence[bytes]) -> Census:
        """
        Who is there now, for somebody who only looks on.

        Raises LedgerUnavailable.
        """
        async with self._reached():
            alive = list(await self.versions(await self.hubs()))
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(self._bridge)
                for hub in alive:
                    for topic in topics:
                        pipeline.sismember(self._keys(hub)[1], topic)  # type: ignore[arg-type]  # bytes are taken too
                life, *held = await pipeline.execute()
        columns = {topic: held[at :: len(topics)] for at, topic in enumerate(topics)}
        return Census(len(alive), {topic: sum(map(bool, column)) for topic, column in columns.items()}, life)

    async def close(self) -> None:
        """Ends its connections."""
        await self._redis.aclose()

    async def forget(self, hub: str) -> None:
        """Removes a hub whose lease has run out from the list."""
        await self._redis.srem(self._hubs, hub)

    @contextlib.asynccontextmanager
    async def _reached(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(f"Redis does not answer: {error}") from error


class _Watcher:
    """The bridge's view of all leases, kept right by news and, every second, by versions."""

    def __init__(self, redis: Any, ledger: RedisLedger) -> None:
        self._redis = redis
        self._ledger = ledger
        self._pubsub: Any = None
        self._known: dict[str, _Known] = {}
        self._reconcile_at_s = 0.0
        self._believe_absence_s = 0.0
        self._is_lost = False

    async def open(self) -> None:
        """Listens; the first `next` reads everything."""
        await self.close()
        self._pubsub = self._redis.pubsub()
        await self._pubsub.subscribe(self._ledger.news_channel)
        self._reconcile_at_s = 0.0
        if self._is_lost:
            self._is_lost = False
            log.info("ledger_back")

    async def close(self) -> None:
        """Listens no more."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with contextlib.suppress(RedisError, OSError):
                await pubsub.aclose()

    async def lost(self, error: Exception) -> None:
        """
        Redis is away. When it is back it may be empty: for one lease's length absence is not believed, so hubs have
        time to write theirs again.
        """
        if not self._is_lost:
            self._is_lost = True
            log.warning("ledger_lost", reason=str(error))
        self._believe_absence_s = time.monotonic() + self._ledger.lease_ms / 1000

    async def next(self) -> list[LeaseChange]:
        """What became different, at most a second later; may be nothing."""
        wait_s = self._reconcile_at_s - time.monotonic()
        if wait_s <= 0:
            self._reconcile_at_s = time.monotonic() + RECONCILE_S
            return await self._reconcile()
        message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=wait_s)
        return [] if message is None else await self._hear(_news.decode(message["data"]))

    async def _hear(self, news: _News) -> list[LeaseChange]:
        known = self._known.get(news.hub)
        if news.whole or known is None or news.version != known.version + 1:
            if known is not None and not news.whole and news.version <= known.version:
                return []  # Read already, with a later word.
            return await self._read(news.hub, refresh=news.refresh)
        topics = (known.topics | frozenset(news.added)) - frozenset(news.removed)
        return self._take(news.hub, _Known(news.channel, news.version, topics))

    async def _reconcile(self) -> list[LeaseChange]:
        hubs = await self._ledger.hubs() | set(self._known)
        versions = await self._ledger.versions(hubs)
        changes: list[LeaseChange] = []
        for hub in hubs:
            if hub not in versions:
                changes += await self._gone(hub)
            elif hub not in self._known or self._known[hub].version != versions[hub]:
                changes += await self._read(hub)
        return changes

    async def _read(self, hub: str, *, refresh: bool = False) -> list[LeaseChange]:
        lease = await self._ledger.read(hub)
        return await self._gone(hub) if lease is None else self._take(hub, lease, refresh=refresh)

    async def _gone(self, hub: str) -> list[LeaseChange]:
        if time.monotonic() < self._believe_absence_s:
            return []
        await self._ledger.forget(hub)
        known = self._known.pop(hub, None)
        return [LeaseChange(hub, known.channel, _NONE, known.topics)] if known else []

    def _take(self, hub: str, lease: _Known, *, refresh: bool = False) -> list[LeaseChange]:
        held = self._known[hub].topics if hub in self._known else _NONE
        change = difference(held, lease.topics)
        self._known[hub] = lease
        again = held & lease.topics if refresh else _NONE
        if not (change or again):
            return []
        return [LeaseChange(hub, lease.channel, change.added, change.removed, again)]
