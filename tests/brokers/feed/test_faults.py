"""
What must hold when something fails: the pools on the real protocols, with the brokers' own logs as witnesses.

Deadlines are three times the promised figures, because test machines are shared. After each fault the reconciler's
difference is 0 again, and the brokers' books say the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from brokers import registry
from brokers.contract import Adapter
from brokers.feed import calendar, hours
from brokers.feed import pool as pool_module
from brokers.feed import supervisor as supervisor_module
from brokers.simulators.engine import DEMO_KEY
from marketdata.ticks import FeedState, Key, Mode, Segment
from tests.adapters.feeding import Side, feeding_together
from tests.brokers.feed.bench import Toy, ToyBroker, subscriber, until
from tests.brokers.feed.faults import (
    LASTS_MS,
    SAFETY,
    Arrivals,
    assert_honest,
    assert_never_too_much,
    becomes_unwell,
    broker_now,
    by_key,
    cut,
    has_lasted,
    live,
    maintenance,
    pauses_s,
    reconciled,
    since,
    statuses,
    told,
    unwell,
    words,
)
from tests.brokers.feed.supervising import add_account, add_broker, in_database
from tests.conftest import free_port

pytestmark = pytest.mark.django_db(transaction=True)

REAL_LOAD = registry.load
DEAD_STATES = (FeedState.TOKEN_EXPIRED, FeedState.WAITING_FOR_LOGIN)
TOLD_S = 1.0
"""A change in the database takes effect within this time."""
MOVED_S = 1.0
"""Promised from the loss of a whole broker to the first tick of every instrument from another."""
BACK_S = 2.0
"""Promised from the return of a broker to all its connections."""


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is looked at ten times a second, where the test is not about how quickly something moves."""
    monkeypatch.setattr(supervisor_module, "POLL_S", 0.1)


def limits(instruments: int, connections: int) -> dict[str, int]:
    """A broker's row in the admin."""
    return {"instruments_per_connection": instruments, "connections_per_account": connections}


def rules(instruments: int, connections: int) -> dict[str, int]:
    """The same at the broker."""
    return {"instruments_per_socket": instruments, "sockets_per_key": connections}


# --------------------------------------------------------------------------------------------------- one connection


async def test_a_killed_connection_of_three_touches_no_instrument_of_the_others() -> None:
    """The others have room, but a break that heals by itself moves nothing."""
    angel = Side(slug="angel", fields=limits(25, 3), simulated=rules(25, 3) | {"rate": 1800, "symbols": 260})
    async with feeding_together(angel) as together:
        bench, sub = together["angel"], together.sub
        keys = together.shared(60)
        sub.subscribe(*keys)
        await bench.holds(60)
        await until(lambda: all(by_key(sub, keys).values()) and has_lasted(bench.simulator), "ticks of all")
        victim = sorted(bench.simulator.clients)[1]
        theirs = set(bench.simulator.clients[victim].modes)
        others = {quote.listing.symbol for quote in bench.simulator.market.quotes if quote.wire_id not in theirs}
        logged, seen = len(bench.simulator.log), len(sub.got)
        began_ms = time.time() * 1000
        await bench.simulator.drop(victim)
        await bench.holds(60, SAFETY * 1.0)
        touched = {
            token for entry in since(bench.simulator, logged, "subscribe", "unsubscribe") for token in entry["tokens"]
        }
        assert touched == theirs
        [came] = since(bench.simulator, logged, "connect")
        again = since(bench.simulator, logged, "subscribe", "unsubscribe")
        assert {(entry["event"], entry["connection"]) for entry in again} == {("subscribe", came["connection"])}
        mine = [key for key in keys if key.symbol not in others]
        assert len(mine) == 25
        await until(lambda: {got.key for got in sub.got[seen:]} >= set(keys), "ticks of all again")
        for key, ticks in by_key(sub, [key for key in keys if key.symbol in others]).items():
            after = [got for got in ticks if got.tick.received_ms >= began_ms - 500]
            assert max(pauses_s(after)) < 0.5, key
        assert_honest(sub, keys)
        assert_never_too_much(bench.simulator)
        await reconciled(together)


async def test_a_connection_that_cannot_come_back_gives_its_instruments_to_those_with_room() -> None:
    angel = Side(slug="angel", fields=limits(30, 3), simulated=rules(30, 3) | {"symbols": 260})
    async with feeding_together(angel, linger_s=0.1) as together:
        bench, sub = together["angel"], together.sub
        keys = together.shared(60)
        sub.subscribe(*keys)
        await bench.holds(60)
        sub.unsubscribe(*keys[:15])
        await bench.holds(45)
        [first, second] = sorted(bench.simulator.clients)
        lost = set(bench.simulator.clients[second].modes)
        with maintenance(bench.simulator):
            logged = len(bench.simulator.log)
            await bench.simulator.drop(second)
            moved = pool_module.MOVE_AFTER_S + 1.0
            await until(lambda: len(bench.simulator.clients[first].modes) == 30, "what fits", SAFETY * moved)
            assert since(bench.simulator, logged, "unsubscribe") == []
            gone = [entry for entry in since(bench.simulator, logged, "subscribe") if entry["connection"] == first]
            assert {token for entry in gone for token in entry["tokens"]} <= lost
        await bench.holds(45, 3 * 10.0)
        assert_never_too_much(bench.simulator)
        await reconciled(together)


# ------------------------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize("slug", ["zerodha", "dhan"])
async def test_the_instruments_of_a_refused_token_go_to_another_account_of_the_feed(slug: str) -> None:
    async with feeding_together(Side(slug=slug, accounts={DEMO_KEY: "", "second": ""})) as together:
        bench, sub = together[slug], together.sub
        keys = bench.keys(20)
        sub.subscribe(*keys)
        await bench.holds(20)
        await until(lambda: all(by_key(sub, keys).values()), "ticks of all")

        def holder() -> list[tuple[str, int]]:
            return [(client.api_key, len(client.modes)) for client in bench.simulator.clients.values() if client.modes]

        assert holder() == [(DEMO_KEY, 20)]
        await until(lambda: has_lasted(bench.simulator), "a connection of the other that lasts")
        arrivals = Arrivals(sub, keys, slug)
        at_ms = time.time() * 1000
        await bench.simulator.expire(DEMO_KEY)
        await until(lambda: holder() == [("second", 20)], "the other account", SAFETY * MOVED_S)
        await until(arrivals.complete, "ticks of all again", SAFETY * MOVED_S)
        print(f"{slug}: {arrivals.gap_s(at_ms):.2f} s without ticks")
        await until(lambda: bench.state in DEAD_STATES, "the status")
        await reconciled(together)
        assert bench.simulator.stats()["refused_logins"] == 1
        bench.simulator.set_token("tomorrow", DEMO_KEY)
        await bench.log_in_with("tomorrow")
        await until(lambda: bench.state is FeedState.CONNECTED, "the login")
        assert holder() == [("second", 20)], "what moved does not come back by itself"
        assert bench.simulator.stats()["refused_logins"] == 1
        assert_never_too_much(bench.simulator)
        await reconciled(together)


async def test_instruments_without_another_account_wait_for_a_new_token_and_are_up_at_once() -> None:
    async with feeding_together(Side(slug="upstox")) as together:
        bench, sub = together["upstox"], together.sub
        keys = bench.keys(20)
        sub.subscribe(*keys)
        await bench.holds(20)
        await bench.simulator.expire(DEMO_KEY)
        await until(lambda: bench.state in DEAD_STATES, "the status")
        assert bench.simulator.stats()["refused_logins"] == 1
        bench.simulator.set_token("tomorrow")
        arrivals = Arrivals(sub, keys, "upstox")
        began_s = time.monotonic()
        await bench.log_in_with("tomorrow")
        await until(arrivals.complete, "ticks of all", SAFETY * 2 * TOLD_S)
        print(f"up {time.monotonic() - began_s:.2f} s after the new token")
        assert bench.simulator.stats()["refused_logins"] == 1
        assert_never_too_much(bench.simulator)
        await reconciled(together)


# ----------------------------------------------------------------------------------------------------------- silence


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zerodha and Upstox count as silent after a second."""
    for slug in ("zerodha", "upstox"):
        adapter = registry.load(slug)
        feeds = tuple(msgspec.structs.replace(feed, silence_s=1.0) for feed in adapter.spec.feeds)
        monkeypatch.setattr(adapter, "spec", msgspec.structs.replace(adapter.spec, feeds=feeds))


async def test_a_broker_that_beats_and_falls_silent_gets_another_connection(impatient: None) -> None:
    async with feeding_together(Side(slug="zerodha")) as together:
        bench, sub = together["zerodha"], together.sub
        bench.simulator.heartbeat_s = 0.2  # type: ignore[misc]  # this one simulator's
        keys = together.shared(5)
        sub.subscribe(*keys)
        await bench.holds(5)
        bench.simulator.pause_ticks()
        beats = bench.simulator.stats()["heartbeats"]
        await until(lambda: bench.simulator.stats()["heartbeats"] > beats + 10, "more beats than two silences have")
        assert len(bench.simulator.entries("connect")) == 1, "no price is no silence while it beats"
        bench.simulator.resume_ticks()
        arrivals = Arrivals(sub, keys, "zerodha")
        [client] = bench.simulator.clients
        bench.simulator.silence(client)
        await until(lambda: len(bench.simulator.entries("connect")) == 2, "another connection", SAFETY * 2.0)
        await until(lambda: bench.held() == 5 and arrivals.complete(), "ticks of all again")
        assert_honest(sub, keys)
        assert_never_too_much(bench.simulator)
        await reconciled(together)


async def test_a_broker_that_does_not_beat_is_left_only_when_its_silence_says_something(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling_s = 3.0
    monkeypatch.setattr(calendar, "TELLING_MS", dict.fromkeys(Segment, int(telling_s * 1000)))
    async with feeding_together(Side(slug="upstox")) as together:
        bench, sub = together["upstox"], together.sub
        keys = together.shared(5)
        sub.subscribe(*keys)
        await bench.holds(5)
        await until(lambda: min(map(len, by_key(sub, keys).values())) > 1, "ticks of all")
        [client] = bench.simulator.clients
        bench.simulator.silence(client)
        await until(lambda: len(bench.simulator.entries("connect")) == 2, "another", SAFETY * (telling_s + 1.0))
        ended_ms = bench.simulator.entries("disconnect")[0]["ts_ms"]
        last_ms = max(got.tick.received_ms for got in sub.got if got.tick.received_ms < ended_ms)
        assert ended_ms - last_ms >= telling_s * 1000 - 50
        await bench.holds(5)
        await reconciled(together)


async def test_a_limit_the_broker_does_not_tell_of_is_seen_and_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "NO_DATA_S", 1.0)
    monkeypatch.setattr(hours, "NO_DATA_S", 1.0)
    zerodha = Side(slug="zerodha", simulated={"symbols": 1300})
    upstox = Side(slug="upstox", simulated={"symbols": 1300}, fields={"priority": 200})
    async with feeding_together(zerodha, upstox) as together:
        bench, sub = together["zerodha"], together.sub
        bench.simulator.set_limits(ignore_beyond=1000)
        keys = together.shared(1040)
        sub.subscribe(*keys)
        await until(
            lambda: [list(each.modes.values()) for each in bench.simulator.clients.values()] == [["ltp"] * 1040],
            "all subscribed",
        )
        logged = len(bench.simulator.log)
        await becomes_unwell(sub, 40, FeedState.NO_DATA)
        assert unwell(sub).keys() == {key.symbol for key in keys[1000:]}
        await until(lambda: all("1,000" in text for text in words(sub)), "the limit it seems to have")
        answer = await reconciled(together, unconfirmed=40)
        [seen] = [each for account in answer.accounts if account.broker == "zerodha" for each in account.connections]
        assert "1,000" in str(seen) or "1000" in str(seen), "the report tells of it too"
        assert since(bench.simulator, logged, "subscribe", "unsubscribe", "mode", "connect", "disconnect") == []
        assert together["upstox"].held() == 0


# ---------------------------------------------------------------------------------------------------- a broker is lost


def sides(first: str, second: str) -> tuple[Side, Side]:
    """The first one serves, on a port that it finds again; both quote the same prices."""
    return (
        Side(slug=first, fields={"priority": 1}, simulated={"port": free_port()}),
        Side(slug=second, fields={"priority": 2}),
    )


@pytest.mark.parametrize(("first", "second"), [("angel", "upstox"), ("upstox", "zerodha"), ("zerodha", "angel")])
async def test_another_broker_takes_over_within_a_second_and_keeps_what_it_got(
    first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MOVE_AFTER_S", 60.0)  # that is for one connection of several
    async with feeding_together(*sides(first, second)) as together:
        sub, lost, heir = together.sub, together[first].simulator, together[second].simulator
        keys = together.shared(30)
        sub.subscribe(*keys)
        await together[first].holds(30)
        await until(lambda: all(by_key(sub, keys).values()) and has_lasted(heir), "ticks of all")
        assert set(broker_now(sub, keys).values()) == {first}
        arrivals = Arrivals(sub, keys, second)
        at_ms = await cut(lost)
        await until(arrivals.complete, "a tick of each from the other", SAFETY * MOVED_S)
        print(f"{first} to {second}: {arrivals.gap_s(at_ms):.2f} s")
        name = registry.load(second).spec.name

        def is_announced() -> bool:
            message = statuses(sub, first)[-1].message
            return "30" in message and (second in message or name in message)

        await until(is_announced, "who serves the 30 now", SAFETY * MOVED_S)
        assert together[first].state is FeedState.RECONNECTING
        await lost.open()
        await until(lambda: together[first].state is FeedState.CONNECTED, "it is back", SAFETY * 5.0)
        count = len(live(sub, keys[0]))
        await until(lambda: len(live(sub, keys[0])) > count + 20, "more ticks")
        assert (together[first].held(), together[second].held()) == (0, 30)
        assert_honest(sub, keys)
        assert_never_too_much(lost, heir)
        await reconciled(together)


async def test_when_both_brokers_were_lost_the_one_that_returns_first_serves_all() -> None:
    first, second = sides("angel", "upstox")
    second = Side(slug="upstox", fields=second.fields, simulated={"port": free_port()})
    async with feeding_together(first, second) as together:
        sub, one, other = together.sub, together["angel"].simulator, together["upstox"].simulator
        keys = together.shared(20)
        sub.subscribe(*keys)
        await together["angel"].holds(20)
        await until(lambda: all(by_key(sub, keys).values()) and other.clients, "ticks of all")
        await cut(other)
        await cut(one)
        await until(lambda: together["angel"].state is together["upstox"].state is FeedState.RECONNECTING, "the status")
        count = len(sub.got)
        arrivals = Arrivals(sub, keys, "upstox")
        await other.open()
        began_s = time.monotonic()
        await until(arrivals.complete, "ticks of all", SAFETY * (BACK_S + LASTS_MS / 1000))
        print(f"all tick {time.monotonic() - began_s:.2f} s after the return of the one")
        assert {got.tick.broker for got in sub.got[count:] if not got.is_snapshot} == {"upstox"}
        await one.open()
        await until(lambda: together["angel"].state is FeedState.CONNECTED, "the other is back too", SAFETY * 8.0)
        assert (together["angel"].held(), together["upstox"].held()) == (0, 20)
        assert_honest(sub, keys)
        assert_never_too_much(one, other)
        await reconciled(together)


async def test_a_broker_that_drops_all_again_and_again_is_left_once_and_nothing_swings() -> None:
    async with feeding_together(*sides("zerodha", "upstox")) as together:
        sub, shaky, heir = together.sub, together["zerodha"].simulator, together["upstox"].simulator
        keys = together.shared(20)
        sub.subscribe(*keys)
        await together["zerodha"].holds(20)
        await until(lambda: all(by_key(sub, keys).values()) and has_lasted(heir), "ticks of all")
        for times in range(1, 4):
            await shaky.drop()
            await until(lambda times=times: len(shaky.entries("connect")) == times + 1, "it is back", SAFETY * 4.0)  # type: ignore[misc]
        arrivals = Arrivals(sub, keys, "upstox")
        await until(arrivals.complete, "ticks of all from the other", SAFETY * MOVED_S)
        assert (shaky.subscribed(), together["upstox"].held()) == ({}, 20)
        assert_honest(sub, keys)
        assert_never_too_much(shaky, heir)
        await reconciled(together)


async def test_books_are_whole_and_fresh_after_another_broker_took_over() -> None:
    async with feeding_together(*sides("zerodha", "angel")) as together:
        sub, lost, heir = together.sub, together["zerodha"].simulator, together["angel"].simulator
        for quote in heir.market.quotes:
            for _ in range(2000):  # so that its volume of the day is the higher one
                quote.walk(quote.exchange_ms)
        keys = together.shared(10, Mode.DEPTH)
        sub.subscribe(*keys)
        await together["zerodha"].holds(10)
        await until(lambda: all(by_key(sub, keys).values()) and has_lasted(heir), "ticks of all")
        arrivals = Arrivals(sub, keys, "angel")
        at_ms = await cut(lost)
        await until(arrivals.complete, "a tick of each from the other", SAFETY * MOVED_S)
        print(f"zerodha to angel, books: {arrivals.gap_s(at_ms):.2f} s")
        for key, got in arrivals.first.items():
            book = got.tick.depth
            assert book is not None, key
            assert len(book.buy) == len(book.sell) == 5
            assert book.buy[0].price <= got.tick.ltp <= book.sell[0].price, key
        for ticks in by_key(sub, keys).values():
            volumes = [got.tick.volume or 0 for got in ticks]
            assert volumes == sorted(volumes)
        assert_honest(sub, keys)
        await reconciled(together)


async def test_a_price_older_than_the_last_one_is_held_back_when_another_broker_took_over() -> None:
    first, second = sides("angel", "upstox")
    quiet = {"rate": 0}
    first, second = (
        Side(slug=each.slug, fields=each.fields, simulated={**each.simulated, **quiet}) for each in (first, second)
    )
    async with feeding_together(first, second) as together:
        sub, lost, heir = together.sub, together["angel"].simulator, together["upstox"].simulator
        [key] = together.shared(1)
        sub.subscribe(key)
        await together["angel"].holds(1)
        ahead_ms = int(time.time() * 1000) + 60_000
        lost.emit(key.symbol, ltp=801.0, exchange_ms=ahead_ms, last_trade_ms=ahead_ms)
        await until(lambda: live(sub, key) and live(sub, key)[-1].tick.ltp == 801.0, "the last price of the first")
        await until(lambda: has_lasted(heir), "a connection of the second that lasts")
        count = len(live(sub, key))
        await cut(lost)
        await together["upstox"].holds(1, SAFETY * MOVED_S)
        heir.emit(key.symbol, ltp=799.0, exchange_ms=ahead_ms - 5000, last_trade_ms=ahead_ms - 5000)
        heir.emit(key.symbol, ltp=802.0, exchange_ms=ahead_ms + 1, last_trade_ms=ahead_ms + 1)
        await until(lambda: len(live(sub, key)) > count, "a price of the second", 4.0)
        got = live(sub, key)[count]
        assert (got.tick.ltp, got.tick.broker) == (802.0, "upstox")
        assert_honest(sub, [key])


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Adapter]]:
    """Adapters of a test's own beside the real ones."""
    toys: dict[str, Adapter] = {}
    monkeypatch.setattr(registry, "load", lambda slug: toys.get(slug) or REAL_LOAD(slug))
    yield toys


async def test_a_simulated_account_with_room_never_stands_in_for_a_real_one(with_toy: dict[str, Adapter]) -> None:
    async with ToyBroker() as broker:
        with_toy["toy"] = Toy(endpoint=broker.url)
        toy = await in_database(add_broker, "toy", priority=200)
        await in_database(add_account, toy, "")
        async with feeding_together(Side(slug="angel", fields={"priority": 1})) as together:
            bench, sub = together["angel"], together.sub
            key = Key("SBIN", "NSE", Mode.LTP)
            sub.subscribe(key)
            await until(lambda: broker.held == {"1": "LTP"}, "the real one has it, whatever the priorities")
            await broker.send({"token": 1, "ltp": 5.0})
            await until(lambda: sub.of(key), "the tick")
            broker.tokens.clear()
            broker.status, broker.attempts = 503, 0
            broker.drop()
            await until(lambda: statuses(sub, "toy")[-1].state is FeedState.RECONNECTING, "the status")
            await until(lambda: broker.attempts == 3, "three attempts")  # by then everything that can move has moved
            assert [got.tick.ltp for got in sub.of(key)] == [5.0]
            assert bench.simulator.log == []
            assert bench.state is FeedState.DISABLED
            broker.tokens.add("good")
            await until(lambda: broker.sockets and broker.held == {"1": "LTP"}, "the real one again", SAFETY * 4.0)
            await broker.send({"token": 1, "ltp": 6.0})
            await until(lambda: sub.of(key)[-1].tick.ltp == 6.0, "the next tick")
            assert not any(got.tick.simulated for got in sub.of(key))
            assert bench.simulator.log == []


async def test_an_outage_costs_a_broker_one_attempt_a_wait_and_ends_for_all_connections_together() -> None:
    angel = Side(slug="angel", fields=limits(20, 3), simulated=rules(20, 3) | {"symbols": 260})
    async with feeding_together(angel) as together:
        bench, sub = together["angel"], together.sub
        keys = together.shared(60)
        sub.subscribe(*keys)
        await bench.holds(60)
        with maintenance(bench.simulator):
            began_s = time.monotonic()
            logged = len(bench.simulator.log)
            await bench.simulator.drop()
            await until(lambda: len(since(bench.simulator, logged, "refused")) >= 3, "three attempts")
            lasted_s = time.monotonic() - began_s
            attempts = len(since(bench.simulator, logged, "refused"))
        assert attempts == 3
        assert lasted_s >= 0.25 + 0.5 + 1.0 - 0.05, f"three attempts in {lasted_s:.2f} s: more than one a wait"
        began_s = time.monotonic()
        await bench.holds(60, SAFETY * BACK_S)
        print(f"{attempts} attempts in {lasted_s:.2f} s; all back {time.monotonic() - began_s:.2f} s after the return")
        came_ms = [entry["ts_ms"] for entry in since(bench.simulator, logged, "connect")]
        assert len(came_ms) == 3
        assert max(came_ms) - min(came_ms) < SAFETY * 500
        assert_honest(sub, keys)
        assert_never_too_much(bench.simulator)
        await reconciled(together)


# ------------------------------------------------------------------------------------------------------------ capacity


async def test_a_lower_limit_takes_the_place_of_the_last_to_come_and_a_higher_one_gives_it_back(prompt: None) -> None:
    zerodha = Side(slug="zerodha", fields=limits(30, 1), simulated=rules(30, 1))
    async with feeding_together(zerodha, linger_s=0.2) as together:
        bench, sub = together["zerodha"], together.sub
        keys = bench.keys(35)
        sub.subscribe(*keys)
        await bench.holds(30)
        await becomes_unwell(sub, 5, FeedState.NO_CAPACITY)
        logged = len(bench.simulator.log)
        await bench.set_fields(instruments_per_connection=20)
        await bench.holds(20, SAFETY * TOLD_S)
        await becomes_unwell(sub, 15, FeedState.NO_CAPACITY)
        assert unwell(sub).keys() == {key.symbol for key in keys[20:]}
        dropped = [token for entry in since(bench.simulator, logged, "unsubscribe") for token in entry["tokens"]]
        assert len(dropped) == len(set(dropped)) == 10
        assert since(bench.simulator, logged, "subscribe", "connect") == []
        bench.simulator.set_limits(instruments=20)
        sub.unsubscribe(*keys[:5])
        await until(lambda: unwell(sub).keys() == {key.symbol for key in keys[25:]}, "five more, in order")
        await bench.holds(20)
        bench.simulator.set_limits(instruments=30)
        await bench.set_fields(instruments_per_connection=30)
        await bench.holds(30, SAFETY * TOLD_S)
        await becomes_unwell(sub, 0, FeedState.NO_CAPACITY)
        assert len(bench.simulator.entries("connect")) == 1
        assert_never_too_much(bench.simulator)
        await reconciled(together)


async def test_a_lower_limit_is_kept_on_each_of_three_full_connections(prompt: None) -> None:
    angel = Side(slug="angel", fields=limits(20, 3), simulated=rules(20, 3) | {"symbols": 260})
    async with feeding_together(angel) as together:
        bench, sub = together["angel"], together.sub
        keys = together.shared(60)
        sub.subscribe(*keys)
        await bench.holds(60)
        logged = len(bench.simulator.log)
        await bench.set_fields(instruments_per_connection=12)
        await bench.holds(36, SAFETY * TOLD_S)
        await becomes_unwell(sub, 24, FeedState.NO_CAPACITY)
        assert [len(client.modes) for client in bench.simulator.clients.values()] == [12, 12, 12]
        assert since(bench.simulator, logged, "subscribe", "connect", "disconnect") == []
        await bench.set_fields(instruments_per_connection=20)
        await bench.holds(60, SAFETY * TOLD_S)
        await becomes_unwell(sub, 0, FeedState.NO_CAPACITY)
        assert_never_too_much(bench.simulator)
        await reconciled(together)


@pytest.mark.parametrize(("slug", "connections"), [("angel", 3), ("zerodha", 1)])
async def test_three_thousand_instruments_are_swapped_for_three_thousand_others(slug: str, connections: int) -> None:
    room = 3000 // connections
    side = Side(slug=slug, simulated=rules(room, connections) | {"symbols": 6300})
    async with feeding_together(side, linger_s=0.2) as together:
        bench, sub = together[slug], together.sub
        keys = together.shared(6000)
        before, after = keys[:3000], keys[3000:]
        sub.subscribe(*before)
        await bench.holds(3000)
        began_s = time.monotonic()
        sub.unsubscribe(*before)
        sub.subscribe(*after)
        wanted = {f"NSE:{key.symbol}" for key in after}
        await until(lambda: bench.held() == 3000 and bench.simulator.subscribed().keys() == wanted, "the swap", 30.0)
        print(f"{slug}: 3,000 swapped in {time.monotonic() - began_s:.1f} s")
        assert_never_too_much(bench.simulator)
        assert told(bench.simulator).most <= room
        await until(lambda: unwell(sub) == {}, "all is well")
        await reconciled(together)


async def test_what_finds_no_place_waits_in_the_order_of_demand(prompt: None) -> None:
    async with feeding_together(Side(slug="angel", simulated={"symbols": 3800}), linger_s=0.2) as together:
        bench, sub = together["angel"], together.sub
        keys = together.shared(3500)
        sub.subscribe(*keys)
        await bench.holds(3000)
        await becomes_unwell(sub, 500, FeedState.NO_CAPACITY)
        assert unwell(sub).keys() == {key.symbol for key in keys[3000:]}
        sub.unsubscribe(*keys[100:200])
        await until(lambda: unwell(sub).keys() == {key.symbol for key in keys[3100:]}, "a hundred more, in order")
        expected = {f"NSE:{key.symbol}" for key in [*keys[:100], *keys[200:3100]]}
        await until(lambda: bench.simulator.subscribed().keys() == expected, "them at the broker")
        assert_never_too_much(bench.simulator)
        await reconciled(together)


# --------------------------------------------------------------------------------------------------------------- feeds


async def test_two_feeds_hold_the_same_symbol_and_neither_notices_what_happens_to_the_other() -> None:
    angel = Side(slug="angel", accounts={DEMO_KEY: ""})
    upstox = Side(slug="upstox", accounts={DEMO_KEY: "desk"})
    async with (
        feeding_together(angel, upstox) as together,
        subscriber(together.supervisor.publisher.port) as other,
    ):
        sub = together.sub
        ours = together.shared(10)
        theirs = together.shared(10, feed="desk")
        sub.subscribe(*ours)
        other.subscribe(*theirs)
        await until(lambda: all(by_key(sub, ours).values()) and all(by_key(other, theirs).values()), "ticks of all")
        calm = together["upstox"].simulator
        logged, told_before = len(calm.log), len(sub.statuses["desk"])
        began_ms = time.time() * 1000
        again = Arrivals(sub, ours, "angel")
        await together["angel"].simulator.drop()
        await until(lambda: together["angel"].state is FeedState.RECONNECTING, "the status of the one")
        await until(lambda: together["angel"].held() == 10 and again.complete(), "ticks of the one again")
        assert {got.tick.broker for got in sub.got} == {"angel"}
        assert {got.tick.broker for got in other.got} == {"upstox"}
        for ticks in by_key(other, theirs).values():
            assert max(pauses_s(got for got in ticks if got.tick.received_ms >= began_ms - 500)) < 0.5
        assert since(calm, logged, "connect", "disconnect", "subscribe", "unsubscribe") == []
        states = {each.state for status in sub.statuses["desk"][told_before:] for each in status.accounts}
        assert states <= {FeedState.CONNECTED}
        assert_honest(sub, ours)
        assert_honest(other, theirs)
        await reconciled(together)
