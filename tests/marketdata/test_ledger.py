"""One suite over both ledgers, and what only Redis can do: die, come back empty, freeze, outlive a hub."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Self

import pytest

from marketdata.ledger import LeaseChange, Ledger, LedgerUnavailable, LocalLedger, RedisLedger
from marketdata.tasks import end
from tests.conftest import Valkey

Make = Callable[[], Ledger]
LEASE_S = 1.5


@pytest.fixture(params=["local", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes ledgers that share their leases, as two processes would (the local one: always the same)."""
    if request.param == "local":
        local = LocalLedger()
        yield lambda: local
    else:
        valkey: Valkey = request.getfixturevalue("valkey")
        yield lambda: RedisLedger(valkey.url, lease_s=LEASE_S)


class Watcher:
    """A bridge's view, kept in the background."""

    def __init__(self, ledger: Ledger) -> None:
        self.topics: dict[str, set[bytes]] = {}
        self.again: list[frozenset[bytes]] = []
        self.changes: list[LeaseChange] = []
        self._task = asyncio.create_task(self._watch(ledger))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await end([self._task])

    async def sees(self, wanted: dict[str, set[bytes]], patience_s: float = 5) -> None:
        """Waits until the view is this."""
        end_s = time.monotonic() + patience_s
        while {hub: topics for hub, topics in self.topics.items() if topics} != wanted:
            assert time.monotonic() < end_s, self.topics
            assert not self._task.done(), self._task.exception()
            await asyncio.sleep(0.005)

    async def _watch(self, ledger: Ledger) -> None:
        async for changes in ledger.watch():
            for change in changes:
                held = self.topics.setdefault(change.hub, set())
                assert not change.added & held, "added what it held"
                assert change.removed <= held, "removed what it did not hold"
                held |= change.added
                held -= change.removed
                self.changes.append(change)
                if change.again:
                    self.again.append(change.again)


async def test_a_watcher_sees_what_was_there_before_it_came(make: Make) -> None:
    await make().replace("h1", "c1", [b"a", b"b"])
    async with Watcher(make()) as watcher:
        await watcher.sees({"h1": {b"a", b"b"}})
        assert watcher.changes[0].channel == "c1"


async def test_a_new_topic_reaches_the_watcher_within_the_promised_time(make: Make) -> None:
    hub = make()
    await hub.replace("h1", "c1", [])
    async with Watcher(make()) as watcher:
        await watcher.sees({})
        await asyncio.sleep(0.1)
        assert await hub.change("h1", [b"a"], [])
        await watcher.sees({"h1": {b"a"}}, patience_s=0.75)


async def test_topics_come_and_go(make: Make) -> None:
    hub = make()
    async with Watcher(make()) as watcher:
        await hub.replace("h1", "c1", [b"a", b"b"])
        await watcher.sees({"h1": {b"a", b"b"}})
        assert await hub.change("h1", [b"c"], [b"a"])
        await watcher.sees({"h1": {b"b", b"c"}})
        await hub.replace("h1", "c1", [b"z"])
        await watcher.sees({"h1": {b"z"}})


async def test_two_hubs_may_want_the_same(make: Make) -> None:
    one, other = make(), make()
    async with Watcher(make()) as watcher:
        await one.replace("h1", "c1", [b"a"])
        await other.replace("h2", "c2", [b"a"])
        await watcher.sees({"h1": {b"a"}, "h2": {b"a"}})
        await one.release("h1")
        await watcher.sees({"h2": {b"a"}})


async def test_a_hub_without_a_lease_is_told_so(make: Make) -> None:
    hub = make()
    assert not await hub.change("h1", [b"a"], [])
    assert not await hub.renew("h1")
    await hub.replace("h1", "c1", [])
    assert await hub.renew("h1")
    await hub.release("h1")
    assert not await hub.renew("h1")


async def test_a_refresh_names_what_was_held_before(make: Make) -> None:
    hub = make()
    async with Watcher(make()) as watcher:
        await hub.replace("h1", "c1", [b"a", b"b"])
        await watcher.sees({"h1": {b"a", b"b"}})
        await hub.replace("h1", "c2", [b"b", b"c"], refresh=True)
        await watcher.sees({"h1": {b"b", b"c"}})
        assert watcher.again == [frozenset({b"b"})]
        assert watcher.changes[-1].channel == "c2"


async def test_ten_thousand_topics_in_one_change(make: Make) -> None:
    hub = make()
    topics = {b"topic %d" % number for number in range(10_000)}
    async with Watcher(make()) as watcher:
        await hub.replace("h1", "c1", [])
        assert await hub.change("h1", topics, [])
        await watcher.sees({"h1": topics})
        assert await hub.change("h1", [], topics)
        await watcher.sees({})


async def test_a_storm_of_changes_ends_right(make: Make) -> None:
    hub = make()
    await hub.replace("h1", "c1", [])
    async with Watcher(make()) as watcher:
        for number in range(200):
            await hub.change("h1", [b"%d" % number], [b"%d" % (number - 3)])
        await watcher.sees({"h1": {b"197", b"198", b"199"}})


async def test_a_killed_hubs_lease_ends_by_itself(valkey: Valkey) -> None:
    hub = RedisLedger(valkey.url, lease_s=LEASE_S)
    async with Watcher(RedisLedger(valkey.url, lease_s=LEASE_S)) as watcher:
        await hub.replace("h1", "c1", [b"a"])
        await watcher.sees({"h1": {b"a"}})
        await watcher.sees({}, patience_s=LEASE_S + 2.5)
    assert not await hub.renew("h1")


async def test_a_renewed_lease_stays(valkey: Valkey) -> None:
    hub = RedisLedger(valkey.url, lease_s=LEASE_S)
    await hub.replace("h1", "c1", [b"a"])
    async with Watcher(RedisLedger(valkey.url, lease_s=LEASE_S)) as watcher:
        end_s = time.monotonic() + 2 * LEASE_S
        while time.monotonic() < end_s:
            assert await hub.renew("h1")
            await asyncio.sleep(0.3)
        await watcher.sees({"h1": {b"a"}})
        assert all(not change.removed for change in watcher.changes)


async def test_redis_that_comes_back_empty_is_not_believed_at_once(valkey: Valkey) -> None:
    hub = RedisLedger(valkey.url, lease_s=LEASE_S)
    async with Watcher(RedisLedger(valkey.url, lease_s=LEASE_S)) as watcher:
        await hub.replace("h1", "c1", [b"a"])
        await watcher.sees({"h1": {b"a"}})
        valkey.kill()
        with pytest.raises(LedgerUnavailable):
            await hub.renew("h1")
        valkey.start()
        assert not await hub.renew("h1")
        await hub.replace("h1", "c1", [b"a", b"b"])
        await watcher.sees({"h1": {b"a", b"b"}})
        assert all(not change.removed for change in watcher.changes)


async def test_a_hub_that_does_not_come_back_after_redis_is_forgotten(valkey: Valkey) -> None:
    hub = RedisLedger(valkey.url, lease_s=LEASE_S)
    async with Watcher(RedisLedger(valkey.url, lease_s=LEASE_S)) as watcher:
        await hub.replace("h1", "c1", [b"a"])
        await watcher.sees({"h1": {b"a"}})
        valkey.kill()
        valkey.start()
        back_s = time.monotonic()
        await watcher.sees({}, patience_s=LEASE_S + 5)
        assert time.monotonic() - back_s > LEASE_S - 0.5


async def test_a_frozen_redis_is_waited_for(valkey: Valkey) -> None:
    hub = RedisLedger(valkey.url)
    async with Watcher(RedisLedger(valkey.url)) as watcher:
        await hub.replace("h1", "c1", [b"a"])
        await watcher.sees({"h1": {b"a"}})
        assert valkey._process is not None
        os.kill(valkey._process.pid, signal.SIGSTOP)
        changing = asyncio.create_task(hub.change("h1", [b"b"], []))
        await asyncio.sleep(0.5)
        os.kill(valkey._process.pid, signal.SIGCONT)
        assert await changing
        await watcher.sees({"h1": {b"a", b"b"}})
