"""When a broker is lost another one serves: how soon, where to, what is told, and what never happens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from brokers.contract import Adapter, Limits
from brokers.feed import pool as pool_module
from brokers.feed.report import ask_feed
from brokers.models import BrokerAccount
from marketdata.ticks import FeedState, Key, Mode
from tests.brokers.feed.bench import Got, Toy, ToyBroker, nse, until
from tests.brokers.feed.supervising import SBIN, Bench, add_account, add_broker, change, in_database, supervising
from tests.brokers.feed.test_pool import FIRST, SECOND, THIRD, pooling

pytestmark = [pytest.mark.django_db(transaction=True)]

KEYS = [Key(f"S{number}", "NSE", Mode.LTP) for number in range(6)]
PROMISE_S = 1.0
"""From the loss of a broker to the first tick of another."""


class Sides:
    """A feed with two brokers; fifty times a second each sends a price of all it was told to send."""

    def __init__(self, bench: Bench, first: ToyBroker, second: ToyBroker, accounts: list[BrokerAccount]) -> None:
        self.bench, self.first, self.second, self.accounts = bench, first, second, accounts

    def is_served_by(self, broker: ToyBroker, count: int = len(KEYS)) -> bool:
        return len(broker.held) == count and bool(broker.sockets)

    def ticks(self, broker: str, since_ms: float = 0.0) -> list[Got]:
        return [got for got in self.bench.sub.got if got.tick.broker == broker and got.tick.received_ms >= since_ms]

    def message(self, name: str) -> str:
        status = self.bench.account(name)
        return status.message if status is not None else ""


async def _quote(*brokers: ToyBroker) -> None:
    price = 100.0
    while True:
        price += 0.05
        for broker in brokers:
            with contextlib.suppress(Exception):  # it may be down just now, which is what the tests are about
                await broker.send(*({"token": int(number), "ltp": price} for number in list(broker.held)))
        await asyncio.sleep(0.02)


def cut(broker: ToyBroker) -> float:
    """Sockets end without a word and no new one is let in; the Unix ms at which that was."""
    broker.tokens.clear()
    broker.status = 503
    broker.drop()
    broker.held.clear()
    return time.time() * 1000


def mend(broker: ToyBroker) -> None:
    broker.tokens.add("good")


@asynccontextmanager
async def sides(toys: dict[str, Adapter], room: int = 100, **limits: int) -> AsyncIterator[Sides]:
    """`limits` are those of the first; the second has one connection with `room`. All keys are wanted and tick."""
    toys["toy"] = Toy(limits=Limits(frames_per_second=1000.0, **limits))  # type: ignore[arg-type]
    toys["other"] = Toy(
        slug="other",
        limits=Limits(frames_per_second=1000.0, instruments_per_connection=room, connections_per_account=1),
    )
    async with ToyBroker() as first, ToyBroker() as second:
        brokers = [
            await in_database(add_broker, "toy", len(KEYS), priority=1),
            await in_database(add_broker, "other", len(KEYS), priority=2),
        ]
        accounts = [
            await in_database(add_account, brokers[0], first.url, "main"),
            await in_database(add_account, brokers[1], second.url, "reserve"),
        ]
        async with supervising() as bench:
            quoting = asyncio.create_task(_quote(first, second))
            try:
                await until(lambda: len(first.sockets) == len(second.sockets) == 1, "a connection each")
                bench.sub.subscribe(*KEYS)
                yield Sides(bench, first, second, accounts)
            finally:
                quoting.cancel()
                await asyncio.wait([quoting])


async def test_the_first_tick_of_another_broker_comes_within_a_second_of_the_loss(toys: dict[str, Adapter]) -> None:
    async with sides(toys) as both:
        await until(lambda: both.is_served_by(both.first) and both.ticks("toy"), "the first choice")
        at_ms = cut(both.first)
        await until(lambda: {got.key for got in both.ticks("other")} == set(KEYS), "a tick of each from the other")
        assert (
            max(min(got.tick.received_ms for got in both.ticks("other") if got.key == key) for key in KEYS) - at_ms
            < 1000 * PROMISE_S
        )
        served = "6 of its instruments are served elsewhere now: 6 by other reserve."
        await until(lambda: served in both.message("main"), "who serves them now")
        assert both.bench.state() is FeedState.RECONNECTING
        for key in KEYS:
            seqs = [got.tick.seq for got in both.bench.sub.of(key)]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_what_moved_stays_where_it_is_until_the_account_that_serves_is_switched_off(
    toys: dict[str, Adapter],
) -> None:
    async with sides(toys) as both:
        await until(lambda: both.is_served_by(both.first), "the first choice")
        cut(both.first)
        await until(lambda: both.is_served_by(both.second), "the reserve")
        mend(both.first)
        await until(lambda: both.bench.state() is FeedState.CONNECTED, "it is back")
        said = len(both.second.said)
        await asyncio.sleep(1.5)  # longer than the supervisor needs to look
        assert (both.first.held, len(both.second.said)) == ({}, said)
        assert both.message("main") == "Connected. 6 of its instruments are served elsewhere now: 6 by other reserve."
        await change(both.accounts[1], enabled=False)
        await until(lambda: both.is_served_by(both.first), "the first choice again")
        await until(lambda: both.message("main") == "Connected.", "nothing of it is elsewhere")
        await change(both.accounts[1], enabled=True)
        await until(lambda: both.bench.state("reserve") is FeedState.CONNECTED, "the reserve is there again")
        assert both.is_served_by(both.first)


async def test_what_finds_no_room_waits_where_it_was(toys: dict[str, Adapter]) -> None:
    async with sides(toys, room=4) as both:
        await until(lambda: both.is_served_by(both.first), "the first choice")
        cut(both.first)
        await until(lambda: both.is_served_by(both.second, 4), "what fits")
        await until(lambda: "4 of its instruments are served" in both.message("main"), "how many")
        mend(both.first)
        await until(lambda: both.is_served_by(both.first, 2), "the others, with the first again")


async def test_one_connection_of_several_that_breaks_for_a_moment_moves_nothing(toys: dict[str, Adapter]) -> None:
    async with sides(toys, instruments_per_connection=3, connections_per_account=2) as both:
        plan = both.bench.supervisor.plan
        await until(lambda: len(both.first.sockets) == 2 and len(plan.seats()) == 6, "two connections")
        before = dict(plan.seats())
        both.first.sockets[0].transport.abort()
        await until(lambda: len(both.first.sockets) == 1, "one of them")
        await until(lambda: len(both.first.sockets) == 2, "both")
        assert dict(plan.seats()) == before
        assert both.second.held == {}


async def test_what_was_lost_together_is_moved_to_nobody_who_just_came_back(toys: dict[str, Adapter]) -> None:
    async with sides(toys) as both:
        await until(lambda: both.is_served_by(both.first), "the first choice")
        cut(both.second)
        cut(both.first)
        await until(lambda: both.bench.state("main") is both.bench.state("reserve") is FeedState.RECONNECTING, "both")
        mend(both.second)
        await until(lambda: both.second.sockets, "the reserve is back first")
        mend(both.first)
        await until(lambda: both.is_served_by(both.first), "the first choice, as before")
        assert both.second.held == {}


async def test_a_simulated_account_with_room_never_serves_for_a_real_one(toys: dict[str, Adapter]) -> None:
    async with ToyBroker() as real, ToyBroker() as demo:
        toys["real"], toys["toy"] = Toy(slug="real", endpoint=real.url), Toy()
        await in_database(add_account, await in_database(add_broker, "real", priority=2), "", "mine")
        await in_database(add_account, await in_database(add_broker, "toy", priority=1), demo.url, "demo")
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: real.held == {"1": "LTP"}, "the real one serves")
            cut(real)
            await until(lambda: bench.state("mine") is FeedState.RECONNECTING, "the status")
            await until(lambda: real.attempts >= 4, "some attempts later")
            assert (demo.attempts, bench.sub.got, bench.supervisor.publisher.counters.published) == (0, [], 0)
            assert bench.state("demo") is FeedState.DISABLED


# ------------------------------------------------------------------------------------------------------------- the pool


async def test_an_account_that_lost_all_its_sockets_is_down_at_once_and_one_of_several_after_a_while() -> None:
    async with pooling() as bench:
        bench.pool.open({SECOND: {nse(1): Mode.LTP}})
        await until(lambda: len(bench.broker.sockets) == 2 and bench.up() == {FIRST, SECOND}, "two")
        since_s = bench.pool.since_s()
        assert since_s is not None
        assert bench.pool.fell_s() is None
        cut_s = time.monotonic()
        bench.broker.tokens.clear()
        bench.broker.status = 503
        bench.broker.sockets[0].transport.abort()
        await until(lambda: len(bench.up()) == 1, "one of them")
        assert bench.pool.down(cut_s + pool_module.MOVE_AFTER_S - 0.1) == set()
        assert len(bench.pool.down(cut_s + pool_module.MOVE_AFTER_S + 1)) == 1
        bench.broker.drop()
        await until(lambda: not bench.up(), "both")
        fell_s = bench.pool.fell_s()
        assert fell_s is not None
        assert bench.pool.down(fell_s + pool_module.LOST_AFTER_S - 0.01) == set()
        assert bench.pool.down(fell_s + pool_module.LOST_AFTER_S) == {FIRST, SECOND, THIRD}
        assert pool_module.LOST_AFTER_S <= 0.3
        assert bench.pool.since_s() is None


async def test_one_that_never_stood_has_lost_nothing_yet() -> None:
    async with pooling() as bench:
        bench.broker.tokens.clear()
        bench.broker.status = 503
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        await until(lambda: bench.broker.attempts, "the first attempt")
        assert bench.pool.fell_s() is None
        changed_s = bench.pool.connections[FIRST].changed_s
        assert bench.pool.down(changed_s + 1.0) == set()
        assert bench.pool.down(changed_s + pool_module.MOVE_AFTER_S) == {FIRST, SECOND, THIRD}


async def test_what_moves_between_connections_of_an_account_is_told_off_before_it_is_told_anew() -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}, SECOND: {nse(2): Mode.LTP}})
        await until(lambda: len(bench.broker.said) == 4, "both subscribed")
        held = bench.pool.connections
        bench.pool.apply({SECOND: {nse(1): Mode.QUOTE}, FIRST: {nse(1): None}})
        assert held[SECOND].subscriptions.mode(nse(1)) is None
        await until(lambda: len(bench.broker.said) == 6, "the move")
        assert bench.broker.said[4:] == [{"unsub": ["1"], "mode": "LTP"}, {"sub": ["1"], "mode": "QUOTE"}]
        bench.pool.apply({FIRST: {nse(1): Mode.LTP}, SECOND: {nse(1): None}})
        bench.pool.apply({FIRST: {nse(1): None}})
        await until(lambda: len(bench.broker.said) == 7, "it is wanted no more")
        assert held[FIRST].subscriptions.mode(nse(1)) is None
        assert bench.broker.said[6] == {"unsub": ["1"], "mode": "QUOTE"}


async def test_off_a_connection_that_is_down_it_moves_at_once() -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}, SECOND: {nse(2): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST, SECOND} and len(bench.broker.said) == 4, "both subscribed")
        bench.broker.tokens.clear()
        bench.broker.status = 503
        bench.broker.sockets[0].transport.abort()
        await until(lambda: len(bench.up()) == 1, "one is lost")
        [other] = bench.up()
        lost = ({FIRST, SECOND} - {other}).pop()
        [token] = bench.pool.connections[lost].subscriptions.wanted()
        bench.pool.apply({lost: {token: None}, other: {token: Mode.LTP}})
        assert bench.pool.connections[other].subscriptions.mode(token) is Mode.LTP


async def test_the_difference_in_the_report_returns_to_nothing(toys: dict[str, Adapter]) -> None:
    async with sides(toys) as both:
        await until(lambda: both.is_served_by(both.first), "the subscriptions")
        port = both.bench.supervisor.publisher.port

        async def unsaid() -> dict[str, int]:
            report = await asyncio.to_thread(ask_feed, "127.0.0.1", port)
            return {account.name: sum(each.unsaid for each in account.connections) for account in report.accounts}

        assert await unsaid() == {"main": 0, "reserve": 0}
        both.second.tokens.clear()
        cut(both.first)
        both.second.status = 503
        both.second.drop()
        await until(lambda: not both.first.sockets and not both.second.sockets, "nobody is there")
        differences = await unsaid()
        assert sum(differences.values()) == len(KEYS), "nobody was told of what is planned"
        mend(both.first)
        mend(both.second)
        await until(lambda: len(both.first.held) + len(both.second.held) == len(KEYS), "all told")
        assert await unsaid() == {"main": 0, "reserve": 0}
