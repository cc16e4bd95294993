"""What a running feed does when an import, by whatever process, changes the instruments it serves."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from brokers.contract import Adapter, InstrumentRow
from brokers.feed import pickup
from brokers.feed import supervisor as module
from brokers.feed.pickup import fates, gone
from brokers.india import INDIA
from brokers.instruments.store import replace_instruments
from brokers.models import Broker
from marketdata.ticks import FeedState, Key, Mode, Segment
from tests.brokers.feed.bench import Toy, ToyBroker, nse, until
from tests.brokers.feed.supervising import Bench, add_account, in_database, supervising

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

SBIN, TCS = Key("SBIN", "NSE", Mode.LTP), Key("TCS", "NSE", Mode.LTP)
TWO = {"SBIN": 1, "TCS": 2}


def row(symbol: str, token: int, exchange: str = "NSE") -> InstrumentRow:
    return InstrumentRow(
        segment=Segment.NSE, token=str(token), symbol=symbol, exchange=exchange, broker_symbol=symbol,
        broker_exchange=exchange,
    )  # fmt: skip


def import_rows(listed: dict[str, int], slug: str = "toy") -> Broker:
    """As a sync does, in whatever process."""
    broker, _ = Broker.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
    replace_instruments(broker, [row(symbol, token) for symbol, token in listed.items()])
    return broker


async def imported(listed: dict[str, int], slug: str = "toy") -> Broker:
    broker: Broker = await sync_to_async(import_rows)(listed, slug)
    return broker


async def set_up(url: str, listed: dict[str, int], slug: str = "toy", name: str = "main") -> None:
    await in_database(add_account, await imported(listed, slug), url, name)


def told(bench: Bench, symbol: str) -> tuple[FeedState, str] | None:
    images = bench.sub.statuses[""]
    found = [key for key in images[-1].keys if key.symbol == symbol] if images else []
    return (found[0].state, found[0].message) if found else None


def commands(broker: ToyBroker, word: str) -> list[list[str]]:
    return [message[word] for message in broker.said if word in message]


def prices(bench: Bench, keys: Iterable[Key]) -> list[list[float]]:
    return [[got.tick.ltp for got in bench.sub.of(key)] for key in keys]


async def test_an_import_is_picked_up_within_two_seconds_at_the_real_pace(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 1.0)
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await set_up(broker.url, TWO)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            await imported({"SBIN": 11, "TCS": 2})
            began_s = time.monotonic()
            await until(lambda: broker.held == {"11": "LTP"}, "the other token")
            assert time.monotonic() - began_s < 2.0


async def test_a_token_that_changed_is_followed_and_nothing_else_is_touched(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await set_up(broker.url, TWO)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN, TCS)
            await until(lambda: broker.held == {"1": "LTP", "2": "LTP"}, "the subscriptions")
            await broker.send({"token": 1, "ltp": 5.0}, {"token": 2, "ltp": 7.0})
            await until(lambda: len(bench.sub.got) == 2, "ticks of both")
            await imported({"SBIN": 11, "TCS": 2})
            await until(lambda: broker.held == {"11": "LTP", "2": "LTP"}, "the other token")
            assert (commands(broker, "unsub"), commands(broker, "sub")[-1]) == ([["1"]], ["11"])
            await broker.send({"token": 1, "ltp": 6.0}, {"token": 11, "ltp": 5.5}, {"token": 2, "ltp": 7.5})
            await until(lambda: len(bench.sub.got) == 4, "ticks of both")
            assert prices(bench, [SBIN, TCS]) == [[5.0, 5.5], [7.0, 7.5]]
            for key in (SBIN, TCS):
                first, second = (got.tick.seq for got in bench.sub.of(key))
                assert second == first + 1
            assert len(broker.sockets) == 1
            assert bench.key_states() == {}


async def test_tokens_that_were_exchanged_keep_their_names_apart(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await set_up(broker.url, TWO)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN, TCS)
            await until(lambda: len(broker.held) == 2, "the subscriptions")
            await broker.send({"token": 1, "ltp": 5.0, "volume": 100}, {"token": 2, "ltp": 7.0, "volume": 200})
            await until(lambda: len(bench.sub.got) == 2, "ticks of both")
            await imported({"SBIN": 2, "TCS": 1})
            await until(lambda: bench.supervisor._tokens[("SBIN", "NSE")] == {"toy": nse(2)}, "the pick-up")
            quote = TCS._replace(mode=Mode.QUOTE)
            bench.sub.subscribe(quote)
            await until(lambda: broker.held["1"] == "QUOTE", "the deeper mode on the token TCS has now")
            await broker.send({"token": 1, "ltp": 7.5}, {"token": 2, "ltp": 5.5})
            await until(lambda: len(bench.sub.got) == 5, "ticks of both")
            assert prices(bench, [SBIN, TCS]) == [[5.0, 5.5], [7.0, 7.5]]
            [deeper] = bench.sub.of(quote)
            assert (deeper.tick.ltp, deeper.tick.volume) == (7.5, None), "nothing of the name that had it before"


async def test_an_import_that_changed_nothing_is_not_looked_at(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await set_up(broker.url, TWO)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            asked: list[Any] = []
            real = pickup.catalog.tokens_for
            monkeypatch.setattr(pickup.catalog, "tokens_for", lambda *args: asked.append(args) or real(*args))
            await imported(TWO)
            await asyncio.sleep(0.5)  # several looks at the database
            assert asked == []


async def test_an_instrument_that_no_broker_lists_is_told_and_served_after_a_sync(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await set_up(broker.url, TWO)
        async with supervising() as bench:
            bench.sub.subscribe(Key("NEW", "NSE", Mode.LTP))
            await until(lambda: bench.key_states() == {"NEW": FeedState.EXPIRED_INSTRUMENT}, "the state")
            await imported(TWO | {"NEW": 7})
            await until(lambda: broker.held == {"7": "LTP"}, "the subscription")
            await until(lambda: bench.key_states() == {}, "all is well")


async def test_the_holders_of_a_name_that_vanished_or_changed_are_told_the_new_name(toys: dict[str, Adapter]) -> None:
    toys["toy"] = Toy()
    zomato, future = Key("ZOMATO", "NSE", Mode.LTP), Key("SBIN30JAN20FUT", "NSE", Mode.LTP)
    async with ToyBroker() as broker:
        await set_up(broker.url, {"SBIN": 1, "TCS": 2, "ZOMATO": 3, future.symbol: 4})
        async with supervising() as bench:
            bench.sub.subscribe(SBIN, TCS, zomato, future)
            await until(lambda: len(broker.held) == 4, "the subscriptions")
            await imported({"SBIN": 1, "ETERNAL": 3, "SBIN27FEB20FUT": 4})
            await until(lambda: broker.held == {"1": "LTP"}, "only what is left")
            await until(lambda: len(bench.key_states()) == 3, "the states")
            assert told(bench, "ZOMATO") == (
                FeedState.RENAMED, "ZOMATO on NSE is called ETERNAL now; subscribe that name.",
            )  # fmt: skip
            assert told(bench, future.symbol) == (FeedState.EXPIRED_INSTRUMENT, "It expired on 30 Jan 2020.")
            state, message = told(bench, "TCS") or (None, "")
            assert state is FeedState.EXPIRED_INSTRUMENT
            assert "delisted" in message
            bench.sub.subscribe(Key("ETERNAL", "NSE", Mode.LTP))
            await until(lambda: broker.held == {"1": "LTP", "3": "LTP"}, "the new name")
            await imported({"SBIN": 1, "ETERNAL": 3, "TCS": 22})
            await until(lambda: "TCS" not in bench.key_states(), "the one that came back is well")
            assert told(bench, "ZOMATO") is not None


async def test_what_one_broker_dropped_is_served_by_another_that_lists_it(toys: dict[str, Adapter]) -> None:
    toys["toy"], toys["other"] = Toy(), Toy(slug="other")
    async with ToyBroker() as first, ToyBroker() as second:
        await set_up(first.url, TWO)
        await set_up(second.url, {"SBIN": 9}, "other", "reserve")
        await in_database(Broker.objects.filter(slug="toy").update, priority=1)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: first.held == {"1": "LTP"}, "the first choice")
            await imported({"NEWNAME": 1, "TCS": 2})
            await until(lambda: (first.held, second.held) == ({}, {"9": "LTP"}), "the other broker")
            await second.send({"token": 9, "ltp": 5.0})
            await until(lambda: bench.sub.of(SBIN), "the tick")
            assert bench.key_states() == {}
            await imported({"NEWNAME": 9}, "other")
            await until(lambda: bench.key_states() == {"SBIN": FeedState.RENAMED}, "now no broker has the old name")


async def test_an_import_while_the_database_is_away_is_picked_up_when_it_is_back(
    toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        await set_up(broker.url, TWO)
        async with supervising() as bench:
            bench.sub.subscribe(SBIN, TCS)
            await until(lambda: len(broker.held) == 2, "the subscriptions")
            looks = 0

            def fail(*_: object) -> None:
                nonlocal looks
                looks += 1
                raise OperationalError("the disk is on fire")

            with monkeypatch.context() as away:
                away.setattr(pickup, "_names_by_token", fail)  # the last step
                await imported({"TCS": 22})
                await until(lambda: looks >= 2, "some failures")
                await broker.send({"token": 2, "ltp": 5.0})
                await until(lambda: bench.sub.of(TCS), "the feed goes on")
            await until(lambda: broker.held == {"22": "LTP"}, "the pick-up, later")
            await until(lambda: bench.key_states() == {"SBIN": FeedState.EXPIRED_INSTRUMENT}, "what is gone is told")


def test_a_contract_that_expires_today_has_not_expired() -> None:
    noon = dt.datetime(2024, 3, 28, 12, tzinfo=INDIA)
    assert "expired" not in gone(("NIFTY28MAR24FUT", "NFO"), noon).message
    assert "expired" in gone(("NIFTY28MAR24FUT", "NFO"), noon + dt.timedelta(days=1)).message


def test_many_lost_names_are_looked_up_in_portions() -> None:
    import_rows({f"NEW{number}": number for number in range(1000)})
    lost = {(f"OLD{number}", "NSE"): {"toy": nse(number)} for number in range(1001)}
    states = [condition.state for condition in fates(lost, dt.datetime.now(INDIA)).values()]
    assert states == [FeedState.RENAMED] * 1000 + [FeedState.EXPIRED_INSTRUMENT]
