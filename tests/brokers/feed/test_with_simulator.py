"""The feed against the simulated Zerodha, through the broker's real wire protocol; its log is the witness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from brokers.adapters.zerodha import ADAPTER
from brokers.feed import supervisor as module
from brokers.feed.supervisor import Supervisor
from brokers.instruments.store import replace_instruments
from brokers.models import Broker, BrokerAccount
from brokers.simulators.zerodha import ZerodhaSimulator
from marketdata.ticks import FeedState, Key, Mode
from marketdata.topics import status_key
from tests.brokers.feed.bench import Subscriber, subscriber, until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.1)


def _fill(simulator: ZerodhaSimulator, **fields: Any) -> BrokerAccount:
    broker, _ = Broker.objects.update_or_create(slug="zerodha", defaults={"name": "Zerodha", **fields})
    replace_instruments(broker, ADAPTER.parse_instruments(simulator.master().encode()))
    return BrokerAccount.objects.create(
        broker=broker,
        name="demo",
        endpoint=simulator.url,
        credentials={"api_key": "demo", "access_token": "demo-token"},
    )


class Bench:
    """The simulator, the account in the database, and a subscriber on the bus."""

    def __init__(self, simulator: ZerodhaSimulator, account: BrokerAccount, sub: Subscriber) -> None:
        self.simulator, self.account, self.sub = simulator, account, sub

    def keys(self, count: int, mode: Mode = Mode.LTP) -> list[Key]:
        return [
            Key(quote.listing.symbol, quote.listing.exchange, mode) for quote in self.simulator.market.quotes[:count]
        ]

    @property
    def state(self) -> FeedState | None:
        images = self.sub.statuses[""]
        return images[-1].accounts[0].state if images else None

    def held(self) -> int:
        return len(self.simulator.subscribed())

    async def holds(self, count: int) -> None:
        await until(lambda: self.held() == count, f"{count} instruments at the broker")


@asynccontextmanager
async def feeding(fields: dict[str, Any] | None = None, **simulated: Any) -> AsyncIterator[Bench]:
    async with ZerodhaSimulator(**{"rate": 50, "symbols": 60, "seed": 1} | simulated) as simulator:
        account = await sync_to_async(_fill)(simulator, **fields or {})
        supervisor = Supervisor("127.0.0.1", 0)
        task = asyncio.create_task(supervisor.run())
        await supervisor.ready.wait()
        try:
            async with subscriber(supervisor.publisher.port) as sub:
                sub.subscribe(status_key())
                yield Bench(simulator, account, sub)
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.cancelled(), task


async def test_prices_are_those_the_broker_sent() -> None:
    async with feeding(rate=0) as bench:
        key = Key("SBIN", "NSE", Mode.DEPTH)
        bench.sub.subscribe(key)
        await until(lambda: bench.simulator.subscribed() == {"NSE:SBIN": ["full"]}, "the subscription in full mode")
        bench.simulator.emit("SBIN", ltp=812.55, volume=1234)
        await until(lambda: bench.sub.of(key) and bench.sub.of(key)[-1].tick.ltp == 812.55, "the price")
        tick = bench.sub.of(key)[-1].tick
        assert (tick.volume, tick.broker, tick.simulated) == (1234, "zerodha", True)
        assert tick.depth is not None
        assert len(tick.depth.buy) == len(tick.depth.sell) == 5
        assert abs(tick.received_ms - time.time() * 1000) < 5000


async def test_a_new_key_reaches_the_broker_within_a_tenth_of_a_second() -> None:
    async with feeding() as bench:
        await until(lambda: bench.state is FeedState.CONNECTED, "the connection")
        delays = []
        for key in bench.keys(10):
            wanted_s, before = time.monotonic(), bench.held()
            bench.sub.subscribe(key)
            await bench.holds(before + 1)
            delays.append(time.monotonic() - wanted_s)
        assert sorted(delays)[len(delays) // 2] < 0.1, delays


async def test_sequences_of_all_keys_have_no_gap() -> None:
    async with feeding(rate=2000) as bench:
        keys = bench.keys(50, Mode.QUOTE)
        bench.sub.subscribe(*keys)
        await bench.holds(50)
        await until(lambda: len(bench.sub.got) > 3000, "some ticks")
        for key in keys:
            seqs = [got.tick.seq for got in bench.sub.of(key) if not got.is_snapshot]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_after_a_drop_all_is_subscribed_again_and_ticks_flow() -> None:
    async with feeding(rate=500) as bench:
        bench.sub.subscribe(*bench.keys(40))
        await bench.holds(40)
        await bench.simulator.drop()
        await bench.holds(40)
        count = len(bench.sub.got)
        await until(lambda: len(bench.sub.got) > count + 100, "ticks again")
        assert len(bench.simulator.entries("connect")) == 2


async def test_a_token_that_expired_is_not_tried_again_and_a_new_one_at_once() -> None:
    async with feeding() as bench:
        bench.sub.subscribe(*bench.keys(5))
        await bench.holds(5)
        await bench.simulator.expire()
        await until(lambda: bench.state is FeedState.TOKEN_EXPIRED, "the state")
        await asyncio.sleep(1.0)  # longer than the first waits of a reconnect: nothing must be tried
        assert len(bench.simulator.entries("refused")) == 1
        bench.simulator.set_token("tomorrow")
        bench.account.credentials = {"api_key": "demo", "access_token": "tomorrow"}
        await bench.account.asave()
        await bench.holds(5)


async def test_the_limits_of_the_broker_are_never_exceeded() -> None:
    fields = {"instruments_per_connection": 10, "connections_per_account": 3}
    async with feeding(fields, instruments_per_socket=10, sockets_per_key=3) as bench:
        keys = bench.keys(40)
        bench.sub.subscribe(*keys)
        await bench.holds(30)
        await until(
            lambda: bench.sub.statuses[""] and len(bench.sub.statuses[""][-1].keys) == 10, "ten without a place"
        )
        await bench.simulator.drop(1)
        await bench.holds(30)
        assert bench.simulator.stats()["limit_violations"] == 0
        assert bench.simulator.stats()["connections_peak"] == 3


async def test_malformed_frames_do_not_end_the_connection() -> None:
    async with feeding(rate=500) as bench:
        bench.sub.subscribe(*bench.keys(10))
        await bench.holds(10)
        for kind in bench.simulator.damages:
            bench.simulator.malformed(kind, count=3)
        count = len(bench.sub.got)
        await until(lambda: len(bench.sub.got) > count + 50, "more ticks")
        assert len(bench.simulator.entries("connect")) == 1


async def test_instruments_the_broker_silently_ignores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.feed.pool.NO_DATA_S", 0.5)
    monkeypatch.setattr(module, "STATUS_S", 0.2)
    async with feeding(rate=500) as bench:
        bench.simulator.set_limits(ignore_beyond=8)
        bench.sub.subscribe(*bench.keys(10))
        await until(
            lambda: (
                [key.state for key in bench.sub.statuses[""][-1].keys] == [FeedState.NO_DATA] * 2
                if bench.sub.statuses[""]
                else False
            ),
            "two without data",
        )
