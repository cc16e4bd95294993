"""
From the simulated broker's wire to a client's socket, under every server and with and without Redis.

The same tests run over `run_server`, plain daphne and uvicorn; what only the first can promise is in test_outages.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from marketdata import errors
from tests.e2e.client import Client, item_of
from tests.e2e.stack import Stack, Template, wait_until

KINDS = [("run_server", True), ("run_server", False), ("daphne", True), ("uvicorn", True)]
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+05:30")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}{'' if kind[1] else '-in-process'}")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, template: Template
) -> Iterator[Stack]:
    """One running stack a kind of server, for all tests here."""
    server, redis = request.param
    running = Stack(tmp_path_factory.mktemp(server), template, redis=redis, server=server)
    try:
        running.start(rate=300, symbols=400)
        yield running
    finally:
        running.stop()
        print(running.logs())


async def test_the_prds_authentication_holds(stack: Stack) -> None:
    async with connect(stack.url) as socket:
        await socket.send(json.dumps({"action": "authenticate", "api_key": stack.key}))
        answer = json.loads(await socket.recv())
    assert answer == {"status": "authenticated", "message": "Connected", "simulated": True}


async def test_the_prds_subscription_holds_and_brings_ltp_ticks(stack: Stack) -> None:
    async with connect(stack.url) as socket:
        await socket.send(json.dumps({"action": "authenticate", "api_key": stack.key}))
        await socket.recv()
        symbols = [{"symbol": "SBIN", "exchange": "NSE"}, {"symbol": "RELIANCE", "exchange": "NSE"}]
        await socket.send(json.dumps({"action": "subscribe", "symbols": symbols, "mode": "LTP"}))
        messages = [json.loads(await socket.recv()) for _ in range(12)]
    [ack] = [message for message in messages if "status" in message]
    assert (ack["status"], ack["count"]) == ("subscribed", 2)
    ticks = [message for message in messages if "ltp" in message]
    assert {tick["symbol"] for tick in ticks} == {"SBIN", "RELIANCE"}
    for tick in ticks:
        assert tick["exchange"] == "NSE"
        assert isinstance(tick["ltp"], float)
        assert TIMESTAMP.fullmatch(tick["timestamp"])
        assert tick["simulated"] is True


async def test_a_quote_has_the_prds_fields(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN", "NSE:RELIANCE", mode="QUOTE")
        for name in ("NSE:SBIN", "NSE:RELIANCE"):
            tick = await client.tick(name, "QUOTE")
            assert all(isinstance(tick[field], float) for field in ("ltp", "open", "high", "low", "close"))
            assert isinstance(tick["volume"], int)
            assert tick["low"] <= tick["ltp"] <= tick["high"]
            assert "depth" not in tick


async def test_a_depth_has_the_prds_book(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN", "NSE:RELIANCE", mode="DEPTH")
        for name in ("NSE:SBIN", "NSE:RELIANCE"):
            tick = await with_depth(client, name)
            assert TIMESTAMP.fullmatch(tick["timestamp"])
            for side in ("buy", "sell"):
                levels = tick["depth"][side]
                assert len(levels) == 5
                assert all({"price", "quantity", "orders"} == level.keys() for level in levels)
            assert tick["depth"]["buy"][0]["price"] < tick["depth"]["sell"][0]["price"]


async def with_depth(client: Client, name: str) -> dict[str, Any]:
    """The first depth tick with a book: the broker's first image may come in a lower mode."""
    exchange, _, symbol = name.partition(":")
    ticks = client.ticks[exchange, symbol, "DEPTH"]
    await wait_until(lambda: any("depth" in tick for tick in ticks), f"a book of {name}")
    return next(tick for tick in ticks if "depth" in tick)


async def test_three_modes_of_one_symbol_all_tick_and_no_sequence_jumps(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        for mode in ("LTP", "QUOTE", "DEPTH"):
            await client.subscribe("NSE:INFY", mode=mode)
        for mode in ("LTP", "QUOTE", "DEPTH"):
            await client.tick("NSE:INFY", mode, beyond=5)
        assert client.jumps == []


async def test_an_index_an_option_and_a_currency_tick(stack: Stack) -> None:
    listed = stack.manage("simulate", "zerodha", "--list", "--symbols", "400").split()
    option = next(name for name in listed if name.startswith("NFO:NIFTY") and name.endswith("CE"))
    currency = next(name for name in listed if name.startswith("CDS:"))
    async with Client(stack.url, stack.key) as client:
        ack = await client.subscribe("NSE_INDEX:NIFTY", option, currency, mode="QUOTE")
        assert ack["count"] == 3
        for name in ("NSE_INDEX:NIFTY", option, currency):
            assert (await client.tick(name, "QUOTE"))["ltp"] > 0


async def test_a_mode_per_item_and_any_case(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        items = [item_of("nse:sbin"), {**item_of("NSE:TCS"), "mode": "quote"}]
        assert (await client.ask("subscribe", symbols=items, mode="ltp"))["count"] == 2
        await client.tick("NSE:SBIN", "LTP")
        await client.tick("NSE:TCS", "QUOTE")


async def test_deeper_books_than_the_broker_has_are_granted_as_far_as_they_go(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        ack = await client.subscribe("NSE:SBIN", mode="DEPTH", depth_levels=20)
        assert ack["granted"] == [{"symbol": "SBIN", "exchange": "NSE", "mode": "DEPTH", "depth_levels": 5}]
        await with_depth(client, "NSE:SBIN")


async def test_unsubscribe_ends_one_mode_or_all(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        for mode in ("LTP", "QUOTE"):
            await client.subscribe("NSE:SBIN", mode=mode)
            await client.tick("NSE:SBIN", mode)
        assert (await client.unsubscribe("NSE:SBIN", mode="LTP"))["count"] == 1
        count = client.count("NSE:SBIN", "LTP")
        await client.tick("NSE:SBIN", "QUOTE", beyond=client.count("NSE:SBIN", "QUOTE") + 3)
        assert client.count("NSE:SBIN", "LTP") == count
        assert (await client.unsubscribe("NSE:SBIN"))["count"] == 1
        assert (await client.ask("get_subscriptions"))["subscriptions"] == []


async def test_unsubscribe_all_and_unsubscribing_what_is_not_held(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN", "NSE:TCS")
        assert (await client.ask("unsubscribe_all"))["count"] == 2
        assert (await client.unsubscribe("NSE:SBIN"))["count"] == 0


async def test_set_subscriptions_replaces_the_list(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN", "NSE:TCS")
        ack = await client.ask("set_subscriptions", symbols=[item_of("NSE:TCS"), item_of("NSE:INFY")], mode="LTP")
        assert ack["count"] == 2
        held = (await client.ask("get_subscriptions"))["subscriptions"]
        assert {row["symbol"] for row in held} == {"TCS", "INFY"}
        count = client.count("NSE:SBIN")
        await client.tick("NSE:INFY", beyond=3)
        assert client.count("NSE:SBIN") == count


async def test_a_throttled_subscription_ticks_no_faster_and_others_do(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as slow, Client(stack.url, stack.key) as quick:
        stack.simulator.call("set_symbol_rate", symbol="HDFCBANK", rate=100)
        ack = await slow.subscribe("NSE:HDFCBANK", throttle_ms=500)
        assert ack["throttle_ms"] == 500
        await quick.subscribe("NSE:HDFCBANK")
        await slow.tick("NSE:HDFCBANK")
        began_s, slow_before, quick_before = time.monotonic(), slow.count("NSE:HDFCBANK"), quick.count("NSE:HDFCBANK")
        await slow.tick("NSE:HDFCBANK", beyond=slow_before + 4)
        took_s = time.monotonic() - began_s
        assert slow.count("NSE:HDFCBANK") - slow_before <= took_s / 0.5 + 2
        assert quick.count("NSE:HDFCBANK") - quick_before > 2 * (slow.count("NSE:HDFCBANK") - slow_before)
        stack.simulator.call("set_symbol_rate", symbol="HDFCBANK", rate="")


async def test_a_batching_client_gets_arrays_and_loses_nothing(stack: Stack) -> None:
    async with Client(stack.url, stack.key, batch=True) as client:
        names = [f"NSE:SIM{number:04d}" for number in range(1, 41)]
        await client.subscribe(*names)
        for name in names:
            await client.tick(name, beyond=1)
        assert client.jumps == []
    async with connect(stack.url) as socket:
        await socket.send(json.dumps({"action": "authenticate", "api_key": stack.key, "batch": True}))
        await socket.recv()
        await socket.send(json.dumps({"action": "subscribe", "symbols": [item_of(name) for name in names]}))
        frames = [json.loads(await socket.recv()) for _ in range(10)]
    assert all(isinstance(frame, list) or "status" in frame for frame in frames)
    assert any(isinstance(frame, list) for frame in frames)


async def test_ping_is_answered_without_a_key_and_request_ids_come_back(stack: Stack) -> None:
    async with Client(stack.url) as client:
        answer = await client.ask("ping")
        assert answer["status"] == "pong"
        assert abs(answer["server_ms"] - time.time() * 1000) < 60_000
        await client.socket.send('{"action": "ping", "request_id": {"any": ["json", 1]}}')
        await client.status(lambda message: message.get("request_id") == {"any": ["json", 1]})


async def test_a_pipelined_client_is_served_in_order(stack: Stack) -> None:
    async with connect(stack.url) as socket:
        await socket.send(json.dumps({"action": "authenticate", "api_key": stack.key}))
        for number in range(1, 51):
            item = {"symbol": f"SIM{number:04d}", "exchange": "NSE"}
            await socket.send(json.dumps({"action": "subscribe", "symbols": [item], "request_id": number}))
        acks: list[int] = []
        while len(acks) < 50:
            message = json.loads(await socket.recv())
            if message.get("status") == "subscribed":
                acks.append(message["request_id"])
    assert acks == list(range(1, 51))


async def test_status_is_told_to_those_who_ask(stack: Stack) -> None:
    async with Client(stack.url, stack.key, status=True) as client:
        up = await client.status(lambda message: message.get("broker") == "zerodha")
        assert (up["status"], up["account"], up["simulated"]) == ("feed", "e2e", True)
        assert up["state"] in ("connected", "market_closed"), "the hour of the day decides which"
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN")
        await client.tick("NSE:SBIN", beyond=3)
        assert not [message for message in client.statuses if message["status"] == "feed"]


async def test_what_cannot_be_subscribed_is_refused_item_by_item(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        ack = await client.subscribe("NSE:SBIN", "NSE:SBINN", "LSE:VOD", "NCDEX:GUAR")
        codes = {one["symbol"]: one["code"] for one in ack["rejected"]}
        assert ack["count"] == 1
        assert codes == {
            "SBINN": errors.UNKNOWN_SYMBOL.code,
            "VOD": errors.UNKNOWN_EXCHANGE.code,
            "GUAR": errors.EXCHANGE_NOT_SERVED.code,
        }
        assert "SBIN" in next(one["message"] for one in ack["rejected"] if one["symbol"] == "SBINN")
        assert (await client.subscribe())["count"] == 0


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ("no json", errors.BAD_JSON),
        ("[1, 2]", errors.BAD_MESSAGE),
        ('{"action": "sell"}', errors.UNKNOWN_ACTION),
        ('{"action": 5}', errors.BAD_MESSAGE),
        ('{"action": "subscribe", "symbols": "SBIN"}', errors.BAD_MESSAGE),
        ('{"action": "subscribe", "symbols": [], "mode": "TAPE"}', errors.BAD_MODE),
        (b"\x00\x01", errors.BINARY_FRAME),
        ("[" * 100_000, errors.BAD_MESSAGE),
        ('{"action": "authenticate", "api_key": "sk_wrong_key_that_is_nobodys"}', errors.WRONG_KEY),
        ('{"action": "authenticate", "api_key": ""}', errors.WRONG_KEY),
    ],
)
async def test_bad_input_gets_its_number_and_the_socket_lives(
    stack: Stack, frame: str | bytes, error: errors.ClientError
) -> None:
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN")
        await client.socket.send(frame)
        answer = await client.status(lambda message: message["status"] == "error")
        assert answer["code"] == error.code
        await client.tick("NSE:SBIN", beyond=client.count("NSE:SBIN"))


async def test_without_a_key_nothing_is_served(stack: Stack) -> None:
    async with Client(stack.url) as client:
        for action in ("subscribe", "unsubscribe", "set_subscriptions"):
            assert (await client.ask(action, symbols=[]))["code"] == errors.NOT_AUTHENTICATED.code
        for action in ("unsubscribe_all", "get_subscriptions"):
            assert (await client.ask(action))["code"] == errors.NOT_AUTHENTICATED.code


async def test_a_message_that_is_too_big_closes_the_socket_and_says_why(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        await client.socket.send('"' + "x" * (1024 * 1024 + 10) + '"')
        await wait_until(lambda: client.closed is not None, "the close")
        # Plain daphne drops the connection; its extension-less protocol sends no close frame here.
        assert client.closed == (1006 if stack.server == "daphne" else errors.CLOSE_TOO_BIG.code)


async def test_a_client_that_floods_is_told_and_then_closed(stack: Stack) -> None:
    async with Client(stack.url, stack.key) as client:
        for _ in range(8000):
            await client.socket.send('{"action":"ping"}')
            if client.closed is not None:
                break
        await wait_until(lambda: client.closed is not None, "the close")
        assert client.closed == errors.CLOSE_FLOOD.code
        assert any(message.get("code") == errors.TOO_MANY_COMMANDS.code for message in client.statuses)


async def test_unknown_paths_and_foreign_origins_are_refused(stack: Stack) -> None:
    refused: list[int] = []
    for url, origin in ((f"{stack.url}nowhere", None), (stack.url, "https://evil.example")):
        with pytest.raises(InvalidStatus) as answer:
            async with connect(url, origin=origin):  # type: ignore[arg-type]
                pass
        refused.append(answer.value.response.status_code)
    assert refused == ([403, 403] if stack.server == "daphne" else [404, 403])
    async with connect(stack.url, origin="http://localhost:3000"):  # type: ignore[arg-type]
        pass


async def test_the_servers_log_has_no_traceback(stack: Stack) -> None:
    await asyncio.sleep(0)
    for name, process in stack.processes.items():
        assert "Traceback" not in process.text(), name
