"""The supervisor from the bus to a broker and back: real database, real ZeroMQ, a broker of a few lines."""

from __future__ import annotations

import asyncio
import time

import pytest
from django.db import OperationalError

from brokers.contract import Adapter, Limits
from brokers.feed import hours, pickup
from brokers.feed import pool as pool_module
from brokers.feed import supervisor as module
from marketdata.ticks import FeedState, Key, Mode
from tests.brokers.feed.bench import Toy, ToyBroker, subscriber, until
from tests.brokers.feed.supervising import (
    SBIN,
    TCS,
    add_account,
    add_broker,
    change,
    in_database,
    set_up,
    supervising,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

# ---------------------------------------------------------------------------------------------------------- all is well


async def test_a_wanted_key_is_subscribed_at_the_broker_and_ticks(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising() as bench:
            await until(lambda: bench.state() is FeedState.CONNECTED, "the account's state")
            wanted_s = time.monotonic()
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            assert time.monotonic() - wanted_s < 0.25
            await broker.send({"token": 1, "ltp": 812.5})
            await until(lambda: bench.sub.got, "the tick")
            [got] = bench.sub.got
            assert (got.key, got.tick.ltp, got.tick.broker, got.tick.simulated) == (SBIN, 812.5, "toy", True)


async def test_the_highest_mode_anybody_wants_is_run_and_lowered_again(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    deep = SBIN._replace(mode=Mode.DEPTH)
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising(linger_s=0.2) as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the first mode")
            bench.sub.subscribe(deep)
            await until(lambda: broker.held == {"1": "DEPTH"}, "the higher mode")
            await broker.send({"token": 1, "ltp": 812.5})
            await until(lambda: {got.key for got in bench.sub.got} == {SBIN, deep}, "a tick for each mode")
            bench.sub.unsubscribe(deep)
            await until(lambda: broker.held == {"1": "LTP"}, "the lower mode")
            bench.sub.unsubscribe(SBIN)
            await until(lambda: broker.held == {}, "nothing")


async def test_a_bridge_that_restarts_costs_the_broker_nothing(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising() as bench:
            async with subscriber(bench.supervisor.publisher.port) as bridge:
                bridge.subscribe(SBIN)
                await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
                await broker.send({"token": 1, "ltp": 812.5})
                await until(lambda: bridge.got, "the tick")
            said = len(broker.said)
            async with subscriber(bench.supervisor.publisher.port) as bridge:
                bridge.subscribe(SBIN)
                await until(lambda: bridge.got, "the last value")
                assert bridge.got[0].is_snapshot
            assert len(broker.said) == said


async def test_ten_thousand_keys_reach_the_broker_quickly(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy(limits=Limits(instruments_per_connection=5000, instruments_per_frame=500, frames_per_second=1000))
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url, symbols=10_000)
        async with supervising() as bench:
            bench.sub.subscribe(*(Key(f"S{number}", "NSE", Mode.LTP) for number in range(10_000)))
            began_s = time.monotonic()

            def sent() -> int:
                return sum(len(message.get("sub", ())) for message in broker.said)

            await until(lambda: sent() == 10_000, "all subscriptions")
            assert time.monotonic() - began_s < 4.0
            assert len(broker.sockets) == 2


async def test_feeds_have_accounts_and_statuses_of_their_own(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as ours, ToyBroker() as theirs:
        account = await in_database(set_up, ours.url)
        await in_database(add_account, account.broker, theirs.url, "desk", feed="desk")
        async with supervising(statuses=("", "desk")) as bench:
            bench.sub.subscribe(SBIN, TCS._replace(feed="desk"))
            await until(lambda: (ours.held, theirs.held) == ({"1": "LTP"}, {"2": "LTP"}), "one each")
            await until(lambda: bench.state("desk", "desk") is FeedState.CONNECTED, "the desk's status")
            assert bench.state("desk") is None
            await theirs.send({"token": 2, "ltp": 1.0})
            await until(lambda: bench.sub.got, "the tick")
            assert bench.sub.got[0].key == TCS._replace(feed="desk")


# ----------------------------------------------------------------------------------------- what changes in the database


async def test_a_token_that_is_refused_is_not_tried_again_not_even_after_a_restart(toys: dict[str, Adapter]) -> None:
    toy = toys["toy"] = Toy()
    async with ToyBroker() as broker:
        broker.tokens.clear()
        account = await in_database(set_up, broker.url)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: bench.state() is FeedState.WAITING_FOR_LOGIN, "the refusal")
            await account.arefresh_from_db()
            assert account.refused_fingerprint.startswith("auth:")
            assert account.refused_at is not None
            await asyncio.sleep(0.5)  # several looks at the database: none may lead to another attempt
        async with supervising() as bench:
            await until(lambda: bench.state() is FeedState.WAITING_FOR_LOGIN, "the refusal remembered")
            assert len(toy.opened) == 1

            broker.tokens.add("fresh")
            bench.sub.subscribe(SBIN)
            saved_s = time.monotonic()
            await change(account, credentials={"key": "k", "token": "fresh"})
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription with the new token")
            assert time.monotonic() - saved_s < 1.0
            await until(lambda: bench.state() is FeedState.CONNECTED, "the state")


async def test_a_new_token_replaces_sockets_that_stand(toys: dict[str, Adapter]) -> None:
    toy = toys["toy"] = Toy()
    async with ToyBroker() as broker:
        broker.tokens.add("fresh")
        account = await in_database(set_up, broker.url)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            [old] = broker.sockets
            await change(account, credentials={"key": "k", "token": "fresh"})
            await until(lambda: broker.sockets and broker.sockets != [old], "another socket")
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription again")
            assert [opened["token"] for opened in toy.opened] == ["good", "fresh"]
            await until(lambda: old.close_code == 1000, "the end of the old one")


async def test_a_refusal_that_was_taken_back_is_tried_again(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        broker.tokens.clear()
        account = await in_database(set_up, broker.url)
        async with supervising() as bench:
            await until(lambda: bench.state() is FeedState.WAITING_FOR_LOGIN, "the refusal")
            await until(lambda: bench.supervisor._unmarked == {}, "it is in the database")
            await asyncio.sleep(0.3)  # the supervisor has seen it there
            broker.tokens.add("good")
            await change(account, refused_fingerprint="")
            await until(lambda: bench.state() is FeedState.CONNECTED, "another attempt")


async def test_an_account_without_a_login_waits_for_one(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        account = await in_database(set_up, broker.url)
        await change(account, credentials={"key": "k"})
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: bench.state() is FeedState.WAITING_FOR_LOGIN, "the state")
            status = bench.account()
            assert status is not None
            assert status.message.startswith("Token missing")
            await change(account, credentials={"key": "k", "token": "good"})
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")


async def test_switching_off_and_on_takes_effect_without_a_restart(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        account = await in_database(set_up, broker.url)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            await change(account, enabled=False)
            await until(lambda: not broker.sockets, "no socket")
            await until(lambda: bench.state() is FeedState.DISABLED, "the state")
            await until(lambda: bench.key_states() == {"SBIN": FeedState.DISABLED}, "the instrument's state")
            await change(account, enabled=True)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription again")
            await until(lambda: bench.key_states() == {}, "all is well")
            await in_database(account.delete)
            await until(lambda: not broker.sockets, "no socket")
            await until(lambda: bench.account() is None, "no account")


async def test_limits_take_effect_without_a_restart_and_what_does_not_fit_is_told(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        account = await in_database(set_up, broker.url, instruments_per_connection=1, connections_per_account=1)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the first")
            bench.sub.subscribe(TCS)
            await until(lambda: bench.key_states() == {"TCS": FeedState.NO_CAPACITY}, "no room for the second")
            await change(account.broker, instruments_per_connection=2)
            await until(lambda: broker.held == {"1": "LTP", "2": "LTP"}, "both")
            await until(lambda: bench.key_states() == {}, "all is well")
            assert len(broker.sockets) == 1, "the connection stayed"
            await change(account.broker, instruments_per_connection=1, connections_per_account=2)
            await until(lambda: len(broker.sockets) == 2, "a second connection")


async def test_a_connection_that_carries_nothing_is_closed(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module.Pool.__init__, "__kwdefaults__", {"idle_close_s": 0.2})
    toys["toy"] = Toy(limits=Limits(instruments_per_connection=1, connections_per_account=2))
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising(linger_s=0.05) as bench:
            bench.sub.subscribe(SBIN, TCS)
            await until(lambda: len(broker.sockets) == 2, "two connections")
            bench.sub.unsubscribe(SBIN, TCS)
            await until(lambda: len(broker.sockets) == 1, "one connection, kept for the next demand")
            bench.sub.subscribe(SBIN, TCS)
            await until(lambda: len(broker.sockets) == 2, "two connections again")


async def test_simulated_accounts_do_not_run_beside_real_ones(toys: dict[str, Adapter]) -> None:
    toys["toy"], toys["real"] = Toy(), Toy(slug="real")
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        real = await in_database(add_account, await in_database(add_broker, "real"), "", "mine", token="")
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: bench.state() is FeedState.DISABLED, "the simulated one is off")
            status = bench.account()
            assert status is not None
            assert status.message == "Simulated accounts do not run beside real ones."
            await until(lambda: bench.state("mine") is FeedState.WAITING_FOR_LOGIN, "the real one waits")
            assert broker.attempts == 0
            await change(real, enabled=False)
            await until(lambda: broker.held == {"1": "LTP"}, "now the simulated one may serve")


async def test_an_endpoint_elsewhere_is_not_connected_to(toys: dict[str, Adapter]) -> None:
    toy = toys["toy"] = Toy()
    await in_database(set_up, "ws://192.0.2.1:9001")
    async with supervising() as bench:
        await until(lambda: bench.state() is FeedState.DISABLED, "the state")
        status = bench.account()
        assert status is not None
        assert "ALLOW_REMOTE_ENDPOINTS" in status.message
        assert toy.opened == []


async def test_an_account_whose_adapter_is_gone_is_told(toys: dict[str, Adapter]) -> None:
    await in_database(set_up, "")
    async with supervising() as bench:
        await until(lambda: bench.state() is FeedState.DISABLED, "the state")


# ------------------------------------------------------------------------------------------------------- it breaks down


async def test_a_drop_is_told_and_mended(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            broker.drop()
            await until(lambda: bench.state() is FeedState.RECONNECTING, "the state")
            await until(lambda: broker.held == {"1": "LTP"} and len(broker.sockets) == 1, "the subscription again")
            await until(lambda: bench.state() is FeedState.CONNECTED, "the state again")


async def test_when_one_broker_is_away_another_that_has_the_instrument_serves_it(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MOVE_AFTER_S", 0.1)
    toys["toy"], toys["other"] = Toy(), Toy(slug="other")
    async with ToyBroker() as first, ToyBroker() as second:
        await in_database(set_up, first.url, priority=1)
        await in_database(add_account, await in_database(add_broker, "other", priority=2), second.url, "reserve")
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: first.held == {"1": "LTP"}, "the first choice")
            assert second.held == {}
            first.tokens.clear()
            first.status = 503
            first.drop()
            await until(lambda: second.held == {"1": "LTP"}, "the reserve")
            await second.send({"token": 1, "ltp": 5.0})
            await until(lambda: bench.sub.got, "the tick")
            assert bench.sub.got[0].tick.broker == "other"


async def test_a_refused_instrument_and_a_silent_one_are_told(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "NO_DATA_S", 0.2)
    monkeypatch.setattr(hours, "NO_DATA_S", 0.2)
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url, symbols=1)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN, TCS, Key("S0", "NSE", Mode.LTP))
            await until(lambda: len(broker.held) == 3, "the subscriptions")
            await broker.send({"error": "entitlement", "text": "TCS is not in your plan.", "tokens": [2]})
            await broker.send({"token": 100, "ltp": 3.0})
            await until(
                lambda: bench.key_states() == {"TCS": FeedState.NOT_ENTITLED, "SBIN": FeedState.NO_DATA}, "both"
            )
            assert bench.key_status("TCS").message == "TCS is not in your plan."
            since_ms = bench.key_status("TCS").since_ms
            count = len(bench.sub.statuses[""])
            await until(lambda: len(bench.sub.statuses[""]) > count + 1, "the status repeated")
            assert bench.key_status("TCS").since_ms == since_ms
            await broker.send({"token": 1, "ltp": 1.0}, {"token": 2, "ltp": 2.0})
            await until(lambda: bench.key_states() == {}, "all is well")


async def test_the_feed_goes_on_while_the_database_is_away(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            looks = 0

            def fail(*_: object) -> None:
                nonlocal looks
                looks += 1
                raise OperationalError("the disk is on fire")

            with monkeypatch.context() as away:
                away.setattr(module, "load_accounts", fail)
                away.setattr(pickup.catalog, "tokens_for", fail)
                bench.sub.subscribe(TCS)
                await until(lambda: looks >= 3, "some looks at the database")
                await broker.send({"token": 1, "ltp": 5.0})
                await until(lambda: bench.sub.of(SBIN), "the tick")
                assert bench.key_states() == {}, "nothing is said of what could not be looked up"
            await until(lambda: broker.held == {"1": "LTP", "2": "LTP"}, "the second, later")


async def test_a_machine_that_slept_looks_at_its_sockets_at_once(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys["toy"] = Toy(silence_s=60.0)
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            [old] = broker.sockets
            [pool] = bench.supervisor.pools.values()
            for connection in pool.connections.values():
                connection._heard_ms -= 8 * 3600 * 1000
            real = time.time
            monkeypatch.setattr(time, "time", lambda: real() + 8 * 3600)
            await until(lambda: broker.sockets and broker.sockets != [old], "another socket", timeout_s=3)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription again")


async def test_it_ends_within_two_seconds_with_sockets_open(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 2.0
        await until(lambda: not broker.sockets, "no socket left")


async def test_a_brokers_word_closes_a_market_and_a_simulated_ones_does_not(toys: dict[str, Adapter]) -> None:
    async with ToyBroker() as broker:
        toys["toy"] = Toy(endpoint=broker.url)
        account = await in_database(set_up, "")
        async with supervising() as bench:
            await until(lambda: bench.state() is FeedState.CONNECTED, "the account's state")
            await broker.send({"markets": {"NSE": "closed"}})
            await until(lambda: bench.state() is FeedState.MARKET_CLOSED, "the news of it")
            assert bench.account().message == "NSE is closed: toy says so."  # type: ignore[union-attr]
            await broker.send({"markets": {"NSE": "continuous"}})
            await until(lambda: bench.state() is FeedState.CONNECTED, "the other news")
            await change(account, endpoint=broker.url)
            await until(lambda: (bench.account() or account).simulated, "it is simulated now")  # type: ignore[union-attr]
            await until(lambda: bench.state() is FeedState.CONNECTED, "the connection")
            await broker.send({"markets": {"NSE": "closed"}}, {"markets": {"BSE": "closed"}})
            await asyncio.sleep(1.0)  # two rounds of status
            assert bench.state() is FeedState.CONNECTED
