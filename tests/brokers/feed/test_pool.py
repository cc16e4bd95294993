"""One account's connections against a broker of a few lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from brokers.contract import ErrorKind, Limits
from brokers.feed import pool as module
from brokers.feed.accounts import Account
from brokers.feed.counters import Counters
from brokers.feed.plan import ConnectionId, SocketKind
from brokers.feed.pool import Pool, possible
from brokers.feed.publisher import Publisher
from marketdata.ticks import FeedState, Mode
from tests.brokers.feed.bench import Toy, ToyBroker, nse, until

FIRST, SECOND, THIRD = (ConnectionId(1, "market", number) for number in range(3))


class Bench:
    """A pool, its broker, and what it told its owner."""

    def __init__(self, pool: Pool, broker: ToyBroker, refusals: list[ErrorKind]) -> None:
        self.pool, self.broker, self.refusals = pool, broker, refusals

    def up(self) -> set[ConnectionId]:
        return {id_ for id_, connection in self.pool.connections.items() if connection.is_up}


@asynccontextmanager
async def pooling() -> AsyncIterator[Bench]:
    toy = Toy(limits=Limits(connections_per_account=3, frames_per_second=1000.0))
    publisher = Publisher("127.0.0.1", 0, on_demand=lambda: None, on_status_asked=lambda _: None)
    publisher.open()
    refusals: list[ErrorKind] = []
    async with ToyBroker() as broker:
        account = Account(
            id=1, broker="toy", name="main", feed="", priority=1, endpoint=broker.url, simulated=True, trouble=None,
            credentials={"key": "k", "token": "good"},
            sockets=(SocketKind("market", toy.feed.modes, toy.feed.limits),),
        )  # fmt: skip
        pool = Pool(
            account,
            toy,
            publisher.source("toy", simulated=True),
            spawn=asyncio.ensure_future,
            on_change=lambda: None,
            on_refused=refusals.append,
            counters=Counters(),
            idle_close_s=0.2,
        )
        try:
            yield Bench(pool, broker, refusals)
        finally:
            await asyncio.wait_for(pool.close(), 3)
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
