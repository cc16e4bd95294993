"""The cards of a session: every broker's adapter and simulator, through the whole feed, over the registry."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from brokers import registry
from brokers.contract import ErrorKind
from brokers.feed import calendar, knocks
from brokers.feed import supervisor as module
from brokers.feed.backoff import POLICY, Waits
from brokers.simulators import simulators
from marketdata.ticks import FeedState, Mode, Segment
from tests.adapters.feeding import feeding
from tests.brokers.feed.bench import until

pytestmark = pytest.mark.django_db(transaction=True)
SLUGS = pytest.mark.parametrize("slug", registry.slugs())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.1)


def test_every_broker_has_a_simulator() -> None:
    assert registry.slugs() == sorted(simulators())


@SLUGS
async def test_every_mode_of_every_socket_ticks(slug: str) -> None:
    async with feeding(slug) as bench:
        for feed in registry.load(slug).spec.feeds:
            for mode in feed.modes:
                [key] = bench.keys(1, mode, feed)
                bench.sub.subscribe(key)
                await until(lambda key=key: len(bench.sub.of(key)) > 2, f"ticks of {key} on {feed.kind}")
                tick = bench.sub.of(key)[-1].tick
                assert tick.ltp > 0
                assert (tick.broker, tick.simulated, tick.mode) == (slug, True, mode)
                if mode >= Mode.DEPTH:
                    assert tick.depth is not None
                    assert len(tick.depth.buy) == len(tick.depth.sell) == mode.depth_levels
                    assert [level.price for level in tick.depth.buy] == sorted(
                        (level.price for level in tick.depth.buy), reverse=True
                    )
                elif mode is Mode.QUOTE:
                    assert None not in (tick.open, tick.high, tick.low, tick.close)


@SLUGS
async def test_the_price_is_the_one_the_broker_sent(slug: str) -> None:
    async with feeding(slug, rate=0) as bench:
        [key] = [key for key in bench.keys(60, Mode.QUOTE) if (key.symbol, key.exchange) == ("SBIN", "NSE")]
        bench.sub.subscribe(key)
        await bench.holds(1)
        bench.simulator.emit("SBIN", ltp=812.55, volume=1234)
        await until(lambda: bench.sub.of(key) and bench.sub.of(key)[-1].tick.ltp == 812.55, "the price")
        assert bench.sub.of(key)[-1].tick.volume == 1234


@SLUGS
async def test_after_a_drop_all_is_subscribed_again_and_ticks_flow(slug: str) -> None:
    async with feeding(slug) as bench:
        keys = bench.keys(30)
        bench.sub.subscribe(*keys)
        await bench.holds(len(keys))
        await bench.simulator.drop()
        await bench.holds(len(keys))
        count = len(bench.sub.got)
        await until(lambda: len(bench.sub.got) > count + 100, "ticks again")
        assert len(bench.simulator.entries("connect")) == 2


@SLUGS
async def test_a_token_that_expired_is_not_tried_again_and_a_new_one_at_once(slug: str) -> None:
    async with feeding(slug) as bench:
        bench.sub.subscribe(*bench.keys(5))
        await bench.holds(5)
        await bench.simulator.expire()
        await until(lambda: bench.state in (FeedState.TOKEN_EXPIRED, FeedState.WAITING_FOR_LOGIN), "the state")
        await asyncio.sleep(1.0)  # longer than the first waits of a reconnect: nothing must be tried
        assert bench.simulator.stats()["refused_logins"] == 1
        bench.simulator.set_token("tomorrow")
        await bench.log_in_with("tomorrow")
        await bench.holds(5)


@SLUGS
async def test_a_silent_broker_is_left_and_found_again(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = registry.load(slug)
    impatient = [msgspec.structs.replace(feed, silence_s=1.0) for feed in adapter.spec.feeds]
    monkeypatch.setattr(adapter, "spec", msgspec.structs.replace(adapter.spec, feeds=tuple(impatient)))
    monkeypatch.setattr(calendar, "TELLING_MS", dict.fromkeys(Segment, 1000))
    async with feeding(slug) as bench:
        bench.sub.subscribe(*bench.keys(5))
        await bench.holds(5)
        [client] = bench.simulator.clients
        bench.simulator.silence(client)
        await until(lambda: len(bench.simulator.entries("connect")) == 2, "another connection")
        await bench.holds(5)


@SLUGS
async def test_the_limits_of_the_broker_are_never_exceeded(slug: str) -> None:
    fields = {"instruments_per_connection": 10, "connections_per_account": 2}
    async with feeding(slug, fields, instruments_per_socket=10, sockets_per_key=2) as bench:
        keys = bench.keys(30)
        bench.sub.subscribe(*keys)
        await bench.holds(20)
        await until(
            lambda: bench.sub.statuses[""] and len(bench.sub.statuses[""][-1].keys) == 10, "ten without a place"
        )
        await bench.simulator.drop(1)
        await bench.holds(20)
        assert bench.simulator.stats()["limit_violations"] == 0
        assert bench.simulator.stats()["connections_peak"] == 2


@SLUGS
async def test_a_killed_connection_that_the_broker_still_counts_costs_patience_and_no_lock(
    slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers count a socket that ended without a word for a minute; here it is three seconds, and so are our waits."""
    monkeypatch.setattr(knocks, "DENIED_FIRST_MS", 750)
    monkeypatch.setitem(POLICY, ErrorKind.LIMIT, Waits(0.75, 15.0))
    async with feeding(slug, {"connections_per_account": 1}, sockets_per_key=1) as bench:
        bench.simulator.set_limits(ghost_s=3.0)
        bench.sub.subscribe(*bench.keys(5))
        await bench.holds(5)
        await bench.simulator.drop()
        await until(lambda: bench.held() == 0, "the end of it")
        await until(lambda: bench.held() == 5, "all again", 15.0)
        refused = bench.simulator.entries("refused")
        assert len(refused) <= 4
        assert bench.simulator.stats()["locked"] == []
        assert bench.state is not FeedState.WAITING_FOR_LOGIN


@SLUGS
async def test_malformed_frames_do_not_end_the_connection(slug: str) -> None:
    async with feeding(slug) as bench:
        bench.sub.subscribe(*bench.keys(10))
        await bench.holds(10)
        for kind in bench.simulator.damages:
            bench.simulator.malformed(kind, count=3)
        count = len(bench.sub.got)
        await until(lambda: len(bench.sub.got) > count + 50, "more ticks")
        assert len(bench.simulator.entries("connect")) == 1
