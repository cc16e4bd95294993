"""One account's connections against a broker of a few lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from brokers.contract import ErrorKind, Limits
from brokers.feed import pool as module
from brokers.feed.account_tokens import NO_TOKEN
from brokers.feed.accounts import Account
from brokers.feed.connection import Condition
from brokers.feed.counters import Counters
from brokers.feed.plan import ConnectionId, SocketKind
from brokers.feed.pool import Pool, possible
from brokers.feed.publisher import Publisher
from marketdata.ticks import FeedState, Mode
from tests.brokers.feed.bench import Toy, ToyBroker, nse, until

FIRST, SECOND, THIRD = (ConnectionId(1, "market", number) for number in range(3))


def edited(account: Account) -> Account:
    """The same account after somebody saved it in the admin."""
    return msgspec.structs.replace(account, edited_ms=account.edited_ms + 1)


class Bench:
    """A pool, its broker, and what it told its owner."""

    def __init__(self, pool: Pool, broker: ToyBroker, refusals: list[ErrorKind], make: Callable[..., Pool]) -> None:
        self.pool, self.broker, self.refusals, self.make = pool, broker, refusals, make

    def next(self, token: str) -> tuple[Pool, Pool]:
        """The pool there was, and one for the same account with another token, which is the bench's now."""
        before = self.pool
        account = msgspec.structs.replace(before.account, credentials={"key": "k", "token": token})
        self.pool = self.make(account, before)
        return before, self.pool

    def up(self) -> set[ConnectionId]:
        return {id_ for id_, connection in self.pool.connections.items() if connection.is_up}


@asynccontextmanager
async def pooling(connections: int = 3) -> AsyncIterator[Bench]:
    toy = Toy(limits=Limits(connections_per_account=connections, frames_per_second=1000.0))
    publisher = Publisher("127.0.0.1", 0, on_demand=lambda: None, on_status_asked=lambda _: None)
    publisher.open()
    refusals: list[ErrorKind] = []
    async with ToyBroker() as broker:
        account = Account(
            id=1, broker="toy", name="main", feed="", priority=1, endpoint=broker.url, simulated=True, trouble=None,
            credentials={"key": "k", "token": "good"}, used={"key": "k", "token": "good"},
            sockets=(SocketKind("market", toy.feed.modes, toy.feed.limits),), segments=toy.spec.segments,
            token=NO_TOKEN, logins=frozenset(), tries=(), fingerprints=("", ""),
        )  # fmt: skip
        source = publisher.source("toy", simulated=True)

        def make(account: Account, before: Pool | None = None) -> Pool:
            return Pool(
                account,
                toy,
                source,
                spawn=asyncio.ensure_future,
                on_change=lambda: None,
                on_refused=refusals.append,
                counters=Counters(),
                idle_close_s=0.2,
                before=before,
            )

        bench = Bench(make(account), broker, refusals, make)
        try:
            yield bench
        finally:
            await asyncio.wait_for(bench.pool.close(), 3)
            publisher.close()
            assert not broker.sockets


async def test_the_first_connection_is_there_before_anything_is_wanted_and_stays() -> None:
    async with pooling() as bench:
        assert bench.pool.condition().state is FeedState.CONNECTING
        bench.pool.open({})
        await until(lambda: bench.up() == {FIRST}, "the first")
        await asyncio.sleep(0.4)  # longer than an idle connection lives
        assert bench.up() == {FIRST}
        assert bench.pool.condition().state is FeedState.CONNECTED


async def test_others_are_opened_when_needed_and_closed_when_empty() -> None:
    async with pooling() as bench:
        bench.pool.open({SECOND: {nse(1): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST, SECOND}, "two")
        bench.pool.apply({SECOND: {nse(1): None}, THIRD: {nse(1): None}})
        await until(lambda: len(bench.broker.sockets) == 1, "one socket at the broker")
        assert set(bench.pool.connections) == {FIRST}


async def test_one_that_is_needed_again_in_time_is_not_closed() -> None:
    async with pooling() as bench:
        bench.pool.open({SECOND: {nse(1): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST, SECOND}, "two")
        bench.pool.apply({SECOND: {nse(1): None}})
        bench.pool.apply({SECOND: {nse(2): Mode.LTP}})
        await asyncio.sleep(0.4)  # longer than an idle connection lives
        assert bench.broker.attempts == 2
        assert bench.up() == {FIRST, SECOND}


async def test_nothing_is_opened_before_it_may_be() -> None:
    async with pooling() as bench:
        bench.pool.apply({FIRST: {nse(1): Mode.LTP}})
        assert bench.pool.connections == {}


async def test_when_one_connection_is_refused_no_other_tries_and_those_that_stand_go_on() -> None:
    async with pooling() as bench:
        bench.pool.open({SECOND: {nse(1): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST, SECOND}, "two")
        await until(lambda: len(bench.broker.sockets) == 2, "both at the broker")
        bench.broker.tokens.clear()
        bench.pool.apply({THIRD: {nse(2): Mode.LTP}})
        await until(lambda: bench.refusals == [ErrorKind.AUTH], "the refusal")
        assert bench.pool.condition().state is FeedState.TOKEN_EXPIRED
        assert bench.up() == {FIRST, SECOND}
        assert bench.pool.down(0.0) == {THIRD}
        attempts = bench.broker.attempts
        bench.broker.drop()
        await until(lambda: bench.up() == set(), "the end of the others")
        await asyncio.sleep(0.7)  # longer than the first wait of a reconnect
        assert bench.broker.attempts == attempts
        assert bench.refusals == [ErrorKind.AUTH]
        assert bench.pool.down(0.0) == {FIRST, SECOND, THIRD}


async def test_while_some_are_down_it_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOVE_AFTER_S", 0.0)
    async with pooling() as bench:
        bench.pool.open({SECOND: {nse(1): Mode.LTP}})
        await until(lambda: len(bench.broker.sockets) == 2, "two")
        bench.broker.tokens.clear()
        bench.broker.status = 503
        bench.broker.sockets[1].transport.abort()
        await until(lambda: len(bench.up()) == 1, "one of them")
        [lost] = {FIRST, SECOND} - bench.up()
        condition = bench.pool.condition()
        assert condition.state is FeedState.RECONNECTING
        assert condition.message.startswith("1 of 2 connections are down")
        assert bench.pool.down(float("inf")) == {lost}
        bench.broker.drop()
        await until(lambda: not bench.up(), "both")
        assert bench.pool.down(float("inf")) == possible(bench.pool.account)


async def test_with_room_for_one_more_each_new_connection_stands_before_the_old_one_goes() -> None:
    async with pooling() as bench:
        wanted = {FIRST: {nse(1): Mode.LTP}, SECOND: {nse(2): Mode.LTP}}
        bench.pool.open(wanted)
        await until(lambda: bench.up() == {FIRST, SECOND} and len(bench.broker.sockets) == 2, "two")
        old = set(bench.broker.sockets)
        bench.broker.tokens.add("new")
        _, pool = bench.next("new")
        counts: list[int] = []
        taking = asyncio.ensure_future(pool.take_over(lambda: wanted))
        while not taking.done():
            counts.append(len(bench.broker.sockets))
            assert pool.condition().state is FeedState.CONNECTED, "nobody hears of it"
            await asyncio.sleep(0.005)
        assert min(counts) >= 2
        assert max(counts) == 3, "never more than the broker allows"
        assert bench.up() == {FIRST, SECOND}
        assert not old & set(bench.broker.sockets)
        assert all(not each.muted for each in pool.connections.values())


async def test_without_room_the_old_one_goes_first() -> None:
    async with pooling(connections=1) as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST} and len(bench.broker.sockets) == 1, "one")
        bench.broker.tokens.add("new")
        _, pool = bench.next("new")
        taking = asyncio.ensure_future(pool.take_over(lambda: {FIRST: {nse(1): Mode.LTP}}))
        while not taking.done():
            assert len(bench.broker.sockets) <= 1
            await asyncio.sleep(0.005)
        await until(lambda: bench.up() == {FIRST}, "the new one")


async def test_a_new_token_that_is_refused_does_not_end_what_stands_with_the_old_one() -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST} and len(bench.broker.sockets) == 1, "one")
        [socket] = bench.broker.sockets
        before, pool = bench.next("wrong")
        await pool.take_over(lambda: {FIRST: {nse(1): Mode.LTP}})
        assert bench.refusals == [ErrorKind.AUTH]
        assert bench.broker.sockets == [socket]
        pool.apply({FIRST: {nse(2): Mode.LTP}})
        assert set(before.connections[FIRST].subscriptions.wanted()) == {nse(1), nse(2)}, "it goes on being used"
        attempts = bench.broker.attempts
        bench.broker.drop()
        await until(lambda: pool.condition().state is FeedState.TOKEN_EXPIRED, "the end of it")
        await asyncio.sleep(0.7)  # longer than the first wait of a reconnect
        assert bench.broker.attempts == attempts


async def test_what_is_no_longer_wanted_after_the_change_is_dropped() -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP, nse(2): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST}, "one")
        bench.broker.tokens.add("new")
        _, pool = bench.next("new")
        plans = iter([{FIRST: {nse(1): Mode.LTP, nse(2): Mode.LTP}}, {FIRST: {nse(2): Mode.LTP}}])
        await pool.take_over(lambda: next(plans))
        assert set(pool.connections[FIRST].subscriptions.wanted()) == {nse(2)}


async def test_credentials_known_to_be_worthless_are_not_tried_and_what_stands_goes_on() -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST}, "one")
        bench.pool.forbid(Condition(FeedState.WAITING_FOR_LOGIN, "The token ended."))
        assert bench.pool.condition() == Condition(FeedState.CONNECTED, "The token ended.")
        bench.broker.drop()
        await until(lambda: bench.pool.condition().state is FeedState.WAITING_FOR_LOGIN, "the end of it")
        await asyncio.sleep(0.7)  # longer than the first wait of a reconnect
        assert bench.broker.attempts == 1
        assert bench.refusals == []


async def test_what_is_planned_while_it_waits_for_a_login_does_not_bar_the_login() -> None:
    async with pooling() as bench:
        bench.broker.tokens.clear()
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        await until(lambda: bench.refusals == [ErrorKind.AUTH], "the refusal")
        wanted = {FIRST: {nse(1): Mode.LTP}, SECOND: {nse(2): Mode.LTP}}
        bench.pool.apply(wanted)
        bench.broker.tokens.add("new")
        _, pool = bench.next("new")
        await pool.take_over(lambda: wanted)
        await until(lambda: bench.up() == {FIRST, SECOND}, "both")
