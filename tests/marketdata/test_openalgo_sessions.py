"""OpenAlgo's clients beside native ones in one hub: spellings, depths, old values, what an encode costs, and paths."""

from __future__ import annotations

import io
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.core.management import call_command

from marketdata import auth, routing
from marketdata.ticks import FeedState, Key, Mode
from marketdata.wire import SNAPSHOT, STALE
from tests.brokers.instruments_of import load, rows
from tests.conftest import run_manage
from tests.marketdata.openalgo import Caller, Market, Message, now_ms, until
from tests.marketdata.test_openalgo_points import settled

DAY_MS = 86_400_000
IMPORTED = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"


@pytest.fixture
def key(transactional_db: None) -> str:
    """A key, and instruments at a broker with 5 levels and at one with 200."""
    load("zerodha", rows(["INFY@NSE", "TCS@NSE"]))
    load("dhan", rows(["SBIN@NSE", "RELIANCE@NSE"]))
    return auth.issue("charts")[1]


async def native(client: Caller, **message: Any) -> Message:
    """Sends a native command; its answer."""
    seen = len(client.messages)
    client.say(message)
    return await client.answer(lambda one: "status" in one, f"an answer to {message}", seen)


async def test_a_suffixed_symbol_is_a_deeper_book_and_ticks_under_its_suffixed_name(key: str) -> None:
    async with Market() as market, Caller() as client:
        await client.authenticate(key)
        [item] = (await client.subscribe("SBIN:50", 3, depth=50))["subscriptions"]
        assert (item["symbol"], item["mode"], item["depth"]) == ("SBIN:50", "Depth", 20)
        await market.tick("SBIN", Mode.DEPTH20)
        await until(client.ticks, "the tick")
        [tick] = client.ticks()
        assert (tick["symbol"], tick["data"]["symbol"], tick["data"]["depth_level"]) == ("SBIN:50", "SBIN:50", 20)
    await settled()


async def test_both_spellings_tick_side_by_side_and_end_one_by_one(key: str) -> None:
    async with Market() as market, Caller() as client, Caller() as other:
        for caller, symbols in ((client, ("SBIN:20", "SBIN")), (other, ("SBIN",))):
            await caller.authenticate(key)
            for symbol in symbols:
                await caller.subscribe(symbol, 3, depth=20)
        await market.tick("SBIN", Mode.DEPTH20)
        await until(lambda: len(client.ticks()) == 2 and other.ticks(), "both spellings")
        assert {tick["symbol"] for tick in client.ticks()} == {"SBIN", "SBIN:20"}
        await client.ask({"action": "unsubscribe", "symbol": "SBIN:20", "exchange": "NSE", "mode": 3}, "unsubscribe")
        await market.tick("SBIN", Mode.DEPTH20)
        await until(lambda: len(client.ticks("SBIN")) == 2, "the plain spelling's next tick")
        assert len(client.ticks("SBIN:20")) == 1
        await client.ask({"action": "unsubscribe_all"}, "unsubscribe")
        assert market.holds(Key("SBIN", "NSE", Mode.DEPTH20)), "the other client's"
    await settled()


async def test_a_last_value_comes_under_the_spelling_it_is_asked_in(key: str) -> None:
    async with Market() as market, Caller() as first, Caller() as second:
        for caller in (first, second):
            await caller.authenticate(key)
        await first.subscribe("SBIN", 3, depth=20)
        await market.tick("SBIN", Mode.DEPTH20)
        await until(first.ticks, "the tick")
        await second.subscribe("SBIN:20", 3)
        await until(second.ticks, "the last value")
        assert second.ticks()[0]["symbol"] == "SBIN:20"
    await settled()


async def test_a_symbol_in_two_spellings_is_one_of_the_keys_symbols(key: str) -> None:
    small = (await database_sync_to_async(auth.issue)("small", max_symbols=1))[1]
    async with Market(), Caller() as client:
        await client.authenticate(small)
        for symbol in ("SBIN", "SBIN:20"):
            assert (await client.subscribe(symbol, 3, depth=20))["status"] == "success"
        [item] = (await client.subscribe("INFY", 1))["subscriptions"]
        assert item["code"] == "MAX_CAPACITY_REACHED"
        await client.ask({"action": "unsubscribe_all"}, "unsubscribe")
        assert (await client.subscribe("INFY", 1))["status"] == "success"
    await settled()


async def test_asking_for_another_depth_replaces_the_book(key: str) -> None:
    async with Market() as market, Caller() as client:
        await client.authenticate(key)
        for levels in (5, 20, 20):
            await client.subscribe("SBIN", 3, depth=levels)
        [session] = market.hub.sessions
        assert list(session.held) == [Key("SBIN", "NSE", Mode.DEPTH20)]
        await client.ask({"action": "unsubscribe", "symbol": "SBIN", "exchange": "NSE", "mode": 3}, "unsubscribe")
        assert not session.held
    await settled()


async def test_an_old_value_goes_to_native_clients_marked_and_to_openalgos_not_at_all(key: str) -> None:
    async with Market() as market, Caller() as modern, Caller("/v1") as plain:
        await modern.authenticate(key)
        await native(plain, action="authenticate", api_key=key)
        await modern.subscribe("INFY", 1)
        await native(plain, action="subscribe", symbols=[{"symbol": "INFY", "exchange": "NSE"}], mode="LTP")
        await market.tick("INFY", Mode.LTP, flags=SNAPSHOT | STALE, received_ms=now_ms() - DAY_MS)
        await until(lambda: any("ltp" in one for one in plain.messages), "the native client's old value")
        async with Caller() as late:
            await late.authenticate(key)
            await late.subscribe("INFY", 1)
            await market.tick("INFY", Mode.LTP, ltp=630.0)
            await until(lambda: modern.ticks() and late.ticks(), "a live tick")
            assert [tick["data"]["ltp"] for tick in modern.ticks() + late.ticks()] == [630.0, 630.0]
    await settled()


async def test_a_last_value_of_today_is_not_sent_while_the_feed_is_down(key: str) -> None:
    async with Market() as market, Caller() as first, Caller() as late:
        await first.authenticate(key)
        await late.authenticate(key)
        await first.subscribe("INFY", 1)
        await market.tick("INFY", Mode.LTP)
        await until(first.ticks, "the tick")
        await market.report("", "zerodha", state=FeedState.RECONNECTING)
        await until(market.hub.unready, "the news of it")
        await late.subscribe("INFY", 1)
        await market.tick("INFY", Mode.LTP, ltp=630.0)
        await until(late.ticks, "the first tick after")
        assert late.ticks()[0]["data"]["ltp"] == 630.0
    await settled()


async def test_a_tick_is_encoded_once_a_dialect_and_mode_however_many_clients_hold_it(key: str) -> None:
    async with Market() as market:
        modern, plain = [Caller() for _ in range(5)], [Caller("/v1") for _ in range(5)]
        for client in modern + plain:
            await client.__aenter__()
        for client in modern:
            await client.authenticate(key)
            await client.subscribe("INFY", 1)
            await client.subscribe("INFY", 2)
        for client in plain:
            await native(client, action="authenticate", api_key=key)
            for mode in ("LTP", "QUOTE"):
                await native(client, action="subscribe", symbols=[{"symbol": "INFY", "exchange": "NSE"}], mode=mode)
        for number in range(1, 11):
            for mode in (Mode.LTP, Mode.QUOTE):
                await market.tick("INFY", mode)
            await until(lambda number=number: all(len(one.ticks()) == 2 * number for one in modern), "both ticks")
        assert market.hub.counters.ticks == 2 * 10
        assert market.hub.counters.encoded == 2 * 2 * 10, "two dialects, two modes, ten ticks"
        for client in modern + plain:
            await client.__aexit__()
    await settled()


async def test_a_stalled_client_gets_the_newest_of_each_spelling_when_it_reads_again(key: str) -> None:
    async with Market() as market, Caller() as client, Caller() as reader:
        for caller in (client, reader):
            await caller.authenticate(key)
            await caller.subscribe("SBIN", 3, depth=20)
        await client.subscribe("SBIN:20", 3)
        client.socket.stall()
        for ltp in (1.0, 2.0, 3.0):
            await market.tick("SBIN", Mode.DEPTH20, ltp=ltp)
            await until(
                lambda ltp=ltp: reader.ticks() and reader.ticks()[-1]["data"]["ltp"] == ltp, "the reader's tick"
            )
        client.socket.resume()
        await until(lambda: len(client.ticks()) == 2, "the newest of both")
        assert {(tick["symbol"], tick["data"]["ltp"]) for tick in client.ticks()} == {("SBIN", 3.0), ("SBIN:20", 3.0)}
        assert all(message["type"] in {"auth", "subscribe", "market_data"} for message in client.messages)
    await settled()


async def test_an_imported_key_opens_both_dialects(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{IMPORTED}\n"))
    await database_sync_to_async(call_command)("create_api_key", "my-openalgo", "--import", stderr=io.StringIO())
    async with Market(), Caller() as modern, Caller("/v1") as plain:
        ack = await modern.authenticate(IMPORTED)
        assert (ack["status"], ack["user_id"]) == ("success", "my-openalgo")
        assert (await native(plain, action="authenticate", api_key=IMPORTED))["status"] == "authenticated"
    await settled()


async def test_a_misspelt_symbol_is_refused_with_the_right_spelling_instead_of_ticking_under_it(key: str) -> None:
    async with Market(), Caller() as client:
        await client.authenticate(key)
        [item] = (await client.subscribe("sbin", 1))["subscriptions"]
        assert (item["status"], item["code"], item["symbol"]) == ("error", "SYMBOL_NOT_FOUND", "sbin")
        assert "SBIN" in item["message"]
        [item] = (await client.subscribe("SBIN", 1, "nse"))["subscriptions"]
        assert item["code"] == "SYMBOL_NOT_FOUND"
    await settled()


async def test_questions_are_answered_and_those_that_need_a_key_are_not_without_one(key: str) -> None:
    async with Market(), Caller() as client:
        assert (await client.ask({"action": "get_broker_info"}, "broker_info"))["code"] == "NOT_AUTHENTICATED"
        assert (await client.ask({"action": "subscribe_orders"}, "subscribe_orders"))["code"] == "NOT_AUTHENTICATED"
        brokers = await client.ask({"action": "get_supported_brokers"}, "supported_brokers")
        assert (brokers["brokers"], brokers["count"]) == (["zerodha"], 1)
        await client.authenticate(key)
        info = await client.ask({"action": "get_broker_info"}, "broker_info")
        assert (info["broker"], info["adapter_status"], info["user_id"]) == ("zerodha", "connected", "charts")
        orders = await client.ask({"action": "subscribe_orders", "request_id": "excel-orders"}, "subscribe_orders")
        assert orders["request_id"] == "excel-orders"
        assert client.socket.is_open
    await settled()


async def test_a_second_authenticate_is_answered_alike_and_another_key_is_refused(key: str) -> None:
    other = (await database_sync_to_async(auth.issue)("other"))[1]
    async with Market(), Caller() as client:
        assert await client.authenticate(key) == await client.authenticate(key)
        assert (await client.authenticate(other))["code"] == "AUTHENTICATION_ERROR"
        assert client.socket.is_open
    await settled()


# ---------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("path", ["/openalgo", "/openalgo/", "/ws", "/ws/", "/feed/live"])
async def test_openalgos_path_and_its_aliases_speak_its_protocol(key: str, settings: Any, path: str) -> None:
    settings.OPENALGO_PATHS = ["/ws", "/feed/live/"]
    async with Market(), Caller(path) as client:
        assert (await client.authenticate(key))["type"] == "auth"
    await settled()


@pytest.mark.parametrize("path", ["/ws", "/openalgo/more", "/v2", "/OpenAlgo", "/%2e"])
async def test_an_unknown_path_is_404_and_never_some_dialect(path: str) -> None:
    async with Market(), Caller(path) as client:
        assert client.denied == 404


async def test_a_setting_says_what_the_root_speaks(key: str, settings: Any) -> None:
    assert routing.streams()["/"].name == "native"
    settings.ROOT_DIALECT = "openalgo"
    async with Market(), Caller("/") as client, Caller("/v1") as plain:
        assert (await client.authenticate(key))["type"] == "auth"
        assert (await native(plain, action="authenticate", api_key=key))["status"] == "authenticated"
    await settled()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ROOT_DIALECT", "union", "ROOT_DIALECT is 'UNION'; use one of NATIVE, OPENALGO."),
        ("OPENALGO_PATHS", "ws", "OPENALGO_PATHS holds 'ws'; write paths such as /ws"),
        ("OPENALGO_PATHS", "/ws?x=1", "OPENALGO_PATHS holds '/ws?x=1'"),
        ("OPENALGO_PATHS", "/", "what / speaks is ROOT_DIALECT"),
        ("OPENALGO_PATHS", "/ws,/v1/", "/v1 stays native"),
    ],
)
def test_a_setting_that_makes_no_sense_is_a_sentence(name: str, value: str, sentence: str) -> None:
    done = run_manage("check", **{name: value})
    assert done.returncode != 0
    assert sentence in done.stderr
