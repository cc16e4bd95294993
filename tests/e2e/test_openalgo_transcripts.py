"""
What OpenAlgo's clients send, in their shapes and their order, against a running server: what each needs to come back.

None of them is run here; each test is written from how one behaves. Those with a package to install are in
test_openalgo_sdk.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.openalgo import Bytes, Client, Message, import_key, named
from tests.e2e.stack import Stack, Template

FIFTY = [f"SIM{number:04d}" for number in range(1, 51)]
HUNDRED = [f"SIM{number:04d}" for number in range(1, 101)]
PAGE = "http://127.0.0.1:5000"
"""Where OpenAlgo's own web pages come from."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[Stack]:
    """One running stack, also under the path that OpenAlgo's proxy has behind nginx."""
    running = Stack(tmp_path_factory.mktemp("openalgo"), template)
    try:
        running.start(rate=300, symbols=400, throttle_ms=0, OPENALGO_PATHS="/ws", SLOW_CLIENT_S="2")
        import_key(running)
        yield running
    finally:
        running.stop()
        print(running.logs())


@pytest.fixture
def url(stack: Stack) -> str:
    return f"ws://127.0.0.1:{stack.port}/openalgo"


def authenticate(stack: Stack) -> Message:
    """The first message of every client."""
    return {"action": "authenticate", "api_key": stack.key}


async def test_the_web_pages_manager_subscribes_by_label_and_unsubscribes_without_a_mode(
    stack: Stack, url: str
) -> None:
    async with Client(url, PAGE) as page:
        assert (await page.ask(authenticate(stack), "auth"))["status"] == "success"
        for label in ("LTP", "Quote", "Depth"):
            await page.say({"action": "subscribe", "symbols": named("SBIN", "INFY"), "mode": label})
        for mode in (1, 2, 3):
            await page.more("SBIN", mode, 2)
        book = page.ticks("SBIN", 3)[-1]["data"]
        assert {"bid_price", "ask_price", "bid_size", "ask_size", "change", "change_percent"} <= book.keys()
        ack = await page.ask({"action": "unsubscribe", "symbols": named("SBIN")}, "unsubscribe")
        assert ack["status"] == "success"
        had = [len(page.ticks("SBIN", mode)) for mode in (1, 2, 3)]
        await page.more("INFY", 1, 10)
        assert [len(page.ticks("SBIN", mode)) for mode in (1, 2, 3)] == had


async def test_the_web_pages_manager_sees_an_unclean_end_at_a_restart_and_comes_back(stack: Stack, url: str) -> None:
    async with Client(url, PAGE) as page:
        await page.ask(authenticate(stack), "auth")
        await page.say({"action": "subscribe", "symbols": named("SBIN"), "mode": "LTP"})
        await page.more("SBIN", 1)
        await asyncio.to_thread(stack.processes["server"].stop)
        await page.until(lambda: page.closed is not None, "the end")
        assert page.closed == 1006
    await asyncio.to_thread(stack.restart, "server")
    async with Client(url, PAGE) as page:
        await page.ask(authenticate(stack), "auth")
        await page.say({"action": "subscribe", "symbols": named("SBIN"), "mode": "LTP"})
        await page.more("SBIN", 1, 3)


async def test_the_test_page_pings_asks_and_subscribes_fifty_levels(stack: Stack) -> None:
    async with Client(f"ws://127.0.0.1:{stack.port}/ws", PAGE) as page:
        await page.ask(authenticate(stack), "auth")
        pong = await page.ask({"action": "ping", "timestamp": 1705294800123, "_pingId": 7}, "pong")
        assert (pong["_pingId"], pong["client_timestamp"]) == (7, 1705294800123)
        info = await page.ask({"action": "get_broker_info"}, "broker_info")
        assert (info["broker"], info["adapter_status"]) == ("zerodha", "connected")
        assert (await page.ask({"action": "get_supported_brokers"}, "supported_brokers"))["brokers"] == ["zerodha"]
        deep = {"action": "subscribe", "symbols": named("SBIN:50"), "mode": "Depth", "depth": 50}
        [item] = (await page.ask(deep, "subscribe"))["subscriptions"]
        assert (item["symbol"], item["status"], item["depth"]) == ("SBIN:50", "success", 5)
        await page.more("SBIN:50", 3, 2)
        orders = await page.ask({"action": "subscribe_orders"}, "subscribe_orders")
        assert orders["status"] == "success"
        assert "not provided" in orders["message"]
        assert (await page.ask({"action": "unsubscribe_all"}, "unsubscribe"))["status"] == "success"


async def test_the_spreadsheet_subscribes_singly_half_a_second_after_authenticating(stack: Stack, url: str) -> None:
    async with Client(url) as sheet:
        await sheet.say(authenticate(stack))
        await asyncio.sleep(0.5)  # what the spreadsheet does instead of reading the answer
        for mode in (1, 2, 3):
            one = {"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": mode, "depth_level": 5}
            await sheet.say(one)
        for mode in (1, 2, 3):
            await sheet.more("SBIN", mode, 2)
        level = sheet.ticks("SBIN", 3)[-1]["data"]["depth"]["buy"][0]
        assert level.keys() == {"price", "quantity", "orders"}
        orders = {"action": "subscribe_orders", "request_id": "excel-orders"}
        assert (await sheet.ask(orders, "subscribe_orders"))["request_id"] == "excel-orders"
        for action, kind in (("ping", "pong"), ("get_broker_info", "broker_info")):
            assert (await sheet.ask({"action": action}, kind))["status"] == "success"
        error = await sheet.ask({"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": 9}, None)
        assert error.keys() == {"status", "code", "message"}
        first = next(place for place, message in enumerate(sheet.messages) if message.get("type") == "market_data")
        assert any(message.get("type") == "auth" for message in sheet.messages[:first])


def test_the_amibroker_plugin_reads_frames_by_a_search_in_their_text(stack: Stack) -> None:
    with Bytes(stack.port) as plugin:
        assert b"101" in plugin.status
        assert b"Switching Protocols" in plugin.status
        plugin.write(authenticate(stack))
        _, first = plugin.read()
        assert b"success" in first
        for symbol in ("SBIN", "INFY"):
            plugin.write({"action": "subscribe", "symbol": symbol, "exchange": "NSE", "mode": 2})
        frames = [plugin.read()[1] for _ in range(20)]
        quotes = [frame for frame in frames if b"market_data" in frame]
        assert quotes
        for quote in quotes:
            assert between(quote, "symbol") in ('"SBIN"', '"INFY"')
            assert between(quote, "exchange") == '"NSE"'
            assert float(between(quote, "ltp")) > 0
            assert int(between(quote, "last_trade_quantity")) > 0
            assert int(between(quote, "timestamp")) > 1_600_000_000_000
            assert len(quote) < 16_000
        plugin.write(b"are you there")
        while (frame := plugin.read())[0] != 0x0A:
            assert frame[0] == 1
        assert frame[1] == b"are you there"


def between(frame: bytes, name: str) -> str:
    """The text after the first `"name":` up to the next comma or brace, as the plug-in finds it."""
    rest = frame.decode().split(f'"{name}":', 1)[1]
    return rest.replace("}", ",").split(",", 1)[0]


async def test_the_go_command_line_waits_for_acks_by_their_request_ids(stack: Stack, url: str) -> None:
    async with Client(url) as cli:
        wrong = await cli.ask({"action": "authenticate", "api_key": "nobody has this key at all"}, None)
        assert wrong["code"] == "AUTHENTICATION_ERROR"
        early = await cli.ask({"action": "subscribe", "symbols": named("SBIN"), "mode": "Quote"}, None)
        assert early["code"] == "NOT_AUTHENTICATED"
        assert (await cli.ask(authenticate(stack), "auth"))["status"] == "success"
        for number, label in enumerate(("LTP", "Quote", "Depth")):
            order = {"action": "subscribe", "symbols": named("SBIN"), "mode": label, "request_id": f"sub-{number}"}
            ack = await cli.ask(order, "subscribe")
            assert (ack["request_id"], ack["status"]) == (f"sub-{number}", "success")
            assert ack["subscriptions"][0]["mode"] == label
            undo = {"action": "unsubscribe", "symbols": named("SBIN"), "mode": label, "request_id": f"undo-{number}"}
            assert (await cli.ask(undo, "unsubscribe"))["request_id"] == f"undo-{number}"
        had = len(cli.messages)
        await cli.say({"action": "subscribe", "symbols": named("INFY"), "mode": "LTP"})
        await cli.more("INFY", 1, 10)
        assert not [one for one in cli.messages[had:] if one.get("symbol") == "SBIN"]


def test_charts_send_everything_at_once_and_all_of_it_is_served_in_order(stack: Stack) -> None:
    """Key, a hundred subscribes, an order subscription and a JSON pong, several to a TCP segment, nothing awaited."""
    with Bytes(stack.port) as charts:
        subscribes = [
            {"action": "subscribe", "symbol": name, "exchange": "NSE", "mode": 2, "depth_level": 5} for name in HUNDRED
        ]
        charts.write(authenticate(stack), *subscribes, {"action": "subscribe_orders"}, {"action": "pong"})
        acks: list[str] = []
        ticking: set[str] = set()
        kinds: list[Any] = []
        while len(acks) < len(HUNDRED) or "subscribe_orders" not in kinds or not ticking.issuperset(HUNDRED[:3]):
            [message] = charts.texts(1)
            kinds.append(message.get("type"))
            if message.get("type") == "subscribe":
                acks.append(message["subscriptions"][0]["symbol"])
            elif message.get("type") == "market_data":
                data = message["data"]
                ticking.add(data["symbol"])
                assert data["exchange"] == "NSE"
                assert isinstance(data["ltp"], float)
        assert kinds[0] == "auth"
        assert acks == HUNDRED
        assert set(kinds) == {"auth", "subscribe", "subscribe_orders", "market_data"}


def test_backtrader_pipelines_and_reads_a_quote(stack: Stack) -> None:
    with Bytes(stack.port) as data_feed:
        data_feed.write(
            authenticate(stack),
            *({"action": "subscribe", "symbol": name, "exchange": "NSE", "mode": 2} for name in ("SBIN", "INFY")),
        )
        ticks = [message for message in data_feed.texts(30) if message.get("type") == "market_data"]
        assert {tick["symbol"] for tick in ticks} == {"SBIN", "INFY"}
        assert all(tick["data"]["ltp"] > 0 and tick["data"]["last_quantity"] > 0 for tick in ticks)


async def test_the_newer_package_replays_one_array_a_mode(stack: Stack, url: str) -> None:
    async with Client(url) as package:
        assert (await package.ask(authenticate(stack), "auth"))["status"] == "success"
        for mode in (1, 2, 3):
            await package.say({"action": "subscribe", "symbols": named("SBIN", "INFY"), "mode": mode, "depth": 5})
        await package.say({"action": "subscribe_orders"})
        for symbol in ("SBIN", "INFY"):
            for mode in (1, 2, 3):
                await package.more(symbol, mode)
        for mode in (1, 2, 3):
            ended = await package.ask({"action": "unsubscribe", "symbols": named("SBIN", mode=mode)}, "unsubscribe")
            assert ended["successful"][0]["symbol"] == "SBIN"
        had = [len(package.ticks("SBIN", mode)) for mode in (1, 2, 3)]
        await package.more("INFY", 1, 10)
        assert [len(package.ticks("SBIN", mode)) for mode in (1, 2, 3)] == had


async def test_the_back_end_gets_its_own_request_ids_back(stack: Stack, url: str) -> None:
    async with Client(url) as back_end:
        await back_end.ask(authenticate(stack), "auth")
        for action in ("subscribe", "unsubscribe"):
            number = str(uuid.uuid4())
            order = {"action": action, "symbols": named("SBIN", "INFY"), "mode": "Quote", "request_id": number}
            assert (await back_end.ask(order, action))["request_id"] == number


async def test_the_community_chart_and_the_mobile_app_are_served(stack: Stack, url: str) -> None:
    async with Client(url) as client:
        await client.ask(authenticate(stack), "auth")
        await client.say({"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": 2}, {"type": "pong"})
        await client.more("SBIN", 2)
        ended = await client.ask({"action": "unsubscribe", "symbol": "SBIN", "exchange": "NSE"}, "unsubscribe")
        assert ended["status"] == "success"
        assert not [message for message in client.messages if message.get("status") == "error"]


async def test_made_up_prices_are_named_in_the_acks_and_in_every_tick(stack: Stack, url: str) -> None:
    async with Client(url) as client:
        ack = await client.ask(authenticate(stack), "auth")
        assert (ack["simulated"], "SIMULATED" in ack["message"]) == (True, True)
        ack = await client.ask({"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": 1}, "subscribe")
        assert (ack["simulated"], "SIMULATED" in ack["message"]) == (True, True)
        await client.more("SBIN", 1)
        assert all(tick["simulated"] for tick in client.ticks("SBIN", 1))


async def test_who_stops_reading_is_cut_off_without_a_close_frame_and_delays_nobody(stack: Stack, url: str) -> None:
    """Everything at 2,000 ticks a second; the healthy client's longest wait is measured while the other is stalled."""
    stack.simulator.call("set_rate", rate=2000)
    try:
        async with Client(url) as reader:
            await reader.ask(authenticate(stack), "auth")
            await reader.say({"action": "subscribe", "symbols": named(*FIFTY), "mode": 3})
            stalled = await asyncio.to_thread(Bytes, stack.port, "/openalgo", 4096)
            with stalled:
                stalled.write(authenticate(stack), {"action": "subscribe", "symbols": named(*HUNDRED), "mode": 3})
                server = stack.processes["server"]
                waits: list[float] = []
                while "slow_client_cut_off" not in server.text():
                    had, began_s = len(reader.messages), time.monotonic()
                    await reader.until(lambda had=had: len(reader.messages) > had, "a tick")
                    waits.append(time.monotonic() - began_s)
                assert max(waits) < 1.0
                opcodes = await asyncio.to_thread(stalled.until_closed)
            assert set(opcodes) == {1}, "texts, and no close frame"
            await reader.more(FIFTY[0], 3, 3)
    finally:
        stack.simulator.call("set_rate", rate=300)


def test_a_handshake_needs_no_origin_and_an_unknown_path_is_404(stack: Stack) -> None:
    for path, status in (("/openalgo", b"101"), ("/openalgo/", b"101"), ("/ws", b"101"), ("/openalgos", b"404")):
        with Bytes(stack.port, path) as client:
            assert client.status.split()[1] == status


async def _knows_its_broker(url: str, running: Stack) -> None:
    """Other servers make the hub at the first handshake, so the first client may be answered before it has heard."""
    for _ in range(20):
        async with Client(url) as client:
            if (await client.ask(authenticate(running), "auth"))["broker"]:
                return


@pytest.mark.parametrize(("server", "redis"), [("run_server", False), ("daphne", True), ("uvicorn", True)])
async def test_every_other_server_speaks_it_too(tmp_path: Path, template: Template, server: str, redis: bool) -> None:
    running = Stack(tmp_path / "stack", template, redis=redis, server=server)
    try:
        await asyncio.to_thread(running.start, rate=300, symbols=60)
        url = f"ws://127.0.0.1:{running.port}/openalgo"
        await _knows_its_broker(url, running)
        async with Client(url) as client:
            assert (await client.ask(authenticate(running), "auth"))["broker"] == "zerodha"
            for mode in (1, 2, 3):
                await client.say({"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": mode})
            for mode in (1, 2, 3):
                await client.more("SBIN", mode, 2)
            await client.ask({"action": "unsubscribe_all"}, "unsubscribe")
            had = len(client.messages)
            assert (await client.ask({"action": "ping"}, "pong"))["status"] == "success"
            assert not [message for message in client.messages[had:] if message.get("type") == "market_data"]
    finally:
        await asyncio.to_thread(running.stop)
        print(running.logs())
