"""The feed against the simulated Zerodha, through the broker's real wire protocol; its log is the witness."""

from __future__ import annotations

import time

import pytest

from brokers.feed import supervisor as module
from marketdata.ticks import FeedState, Key, Mode
from tests.adapters.feeding import feeding
from tests.brokers.feed.bench import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.1)


async def test_prices_are_those_the_broker_sent() -> None:
    async with feeding("zerodha", rate=0) as bench:
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
    async with feeding("zerodha") as bench:
        await until(lambda: bench.state is FeedState.CONNECTED, "the connection")
        delays = []
        for key in bench.keys(10):
            wanted_s, before = time.monotonic(), bench.held()
            bench.sub.subscribe(key)
            await bench.holds(before + 1)
            delays.append(time.monotonic() - wanted_s)
        assert sorted(delays)[len(delays) // 2] < 0.1, delays


async def test_sequences_of_all_keys_have_no_gap() -> None:
    async with feeding("zerodha", rate=2000) as bench:
        keys = bench.keys(50, Mode.QUOTE)
        bench.sub.subscribe(*keys)
        await bench.holds(50)
        await until(lambda: len(bench.sub.got) > 3000, "some ticks")
        for key in keys:
            seqs = [got.tick.seq for got in bench.sub.of(key) if not got.is_snapshot]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_instruments_the_broker_silently_ignores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokers.feed.pool.NO_DATA_S", 0.5)
    monkeypatch.setattr("brokers.feed.hours.NO_DATA_S", 0.5)
    monkeypatch.setattr(module, "STATUS_S", 0.2)
    async with feeding("zerodha", rate=500) as bench:
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
