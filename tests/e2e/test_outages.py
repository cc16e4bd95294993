"""
What must hold when something dies, stops reading or changes: the promises of the whole, with real processes.

Deadlines are three times the promised ones, because test machines are shared.
"""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import connect

from marketdata import errors
from tests.conftest import free_port
from tests.e2e.client import Client
from tests.e2e.stack import Stack, Template, wait_for, wait_until

BACK_S = 15.0
"""Three times the promised 5 s from a kill to the next tick."""

NAMES = ("NSE:SBIN", "NSE:RELIANCE", "NSE_INDEX:NIFTY")


def quiet(stack: Stack, symbol: str) -> None:
    """The simulator no longer ticks this symbol by itself."""
    stack.simulator.call("set_symbol_rate", symbol=symbol, rate=0)


async def settled(client: Client, name: str) -> dict[str, Any]:
    """A quiet symbol's value: the broker sends its image once or twice when it is subscribed, and then no more."""
    await client.subscribe(name)
    await client.tick(name)
    await asyncio.sleep(1)
    return await client.tick(name)


@pytest.mark.parametrize("victim", ["adapters", "bridge", "redis"])
async def test_ticks_are_back_for_a_client_that_stayed_after_a_kill(stack: Stack, victim: str) -> None:
    stack.start(rate=300)
    async with Client(stack.url, stack.key, status=True) as client:
        await client.subscribe(*NAMES)
        for name in NAMES:
            await client.tick(name)
        pids = {name: process.pid for name, process in stack.processes.items()}
        if victim == "redis":
            assert stack.redis is not None
            stack.redis.kill()
            stack.redis.start()
        else:
            stack.processes[victim].kill()
            stack.restart(victim)
        killed_s = time.time()
        for name in NAMES:
            exchange, _, symbol = name.partition(":")
            ticks = client.ticks[exchange, symbol, "LTP"]
            await wait_until(
                lambda ticks=ticks: ticks[-1]["received_ms"] > killed_s * 1000 and not ticks[-1].get("snapshot"),  # type: ignore[misc]
                f"{name} to tick again",
                BACK_S,
            )
        assert client.closed is None
        others = {name: pid for name, pid in pids.items() if name != victim}
        assert all(psutil.pid_exists(pid) for pid in others.values())
    if victim == "bridge":
        assert stack.simulator.call("log", event="unsubscribe") == []


async def test_a_client_that_comes_back_after_the_servers_death_gets_its_last_values_at_once(stack: Stack) -> None:
    stack.start(rate=300)
    quiet(stack, "TCS")
    async with Client(stack.url, stack.key) as client:
        last = await settled(client, "NSE:TCS")
        stack.processes["server"].kill()
    stack.restart("server")
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:TCS")
        again = await client.tick("NSE:TCS", patience_s=BACK_S)
    assert (again["seq"], again["ltp"], again["snapshot"]) == (last["seq"], last["ltp"], True)


async def test_a_quiet_symbols_last_value_is_had_in_every_server_and_after_the_bridges_death(stack: Stack) -> None:
    stack.start(rate=300)
    quiet(stack, "TCS")
    port = free_port()
    await asyncio.to_thread(stack.add_server, "server two", port)
    async with Client(stack.url, stack.key) as first:
        value = await settled(first, "NSE:TCS")
        count = first.count("NSE:TCS")
        for url in (stack.url, f"ws://127.0.0.1:{port}/"):
            async with Client(url, stack.key) as second:
                await second.subscribe("NSE:TCS")
                last = await second.tick("NSE:TCS", patience_s=3)
                assert (last["seq"], last["ltp"]) == (value["seq"], value["ltp"])
        stack.processes["bridge"].kill()
        stack.restart("bridge")
        async with Client(f"ws://127.0.0.1:{port}/", stack.key) as third:
            await third.subscribe("NSE:TCS")
            last = await third.tick("NSE:TCS", patience_s=BACK_S)
            assert last["ltp"] == value["ltp"]
        assert first.count("NSE:TCS") == count


async def test_the_last_unsubscribe_and_a_disconnect_reach_the_broker(stack: Stack) -> None:
    stack.start(rate=300)
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN", "NSE:TCS", "NSE:INFY")
        for name in ("NSE:SBIN", "NSE:TCS", "NSE:INFY"):
            await client.tick(name)
        await client.unsubscribe("NSE:SBIN")
        began_s = time.monotonic()
        tokens = stack.simulator.tokens("subscribe")
        assert stack.simulator.tokens("unsubscribe") == set()
    await wait_until(lambda: stack.simulator.tokens("unsubscribe") == tokens, "three unsubscribes", 3 * 15.0)
    assert time.monotonic() - began_s > 14
    assert len(tokens) == 3


async def test_ten_thousand_keys_are_demanded_again_after_the_adapters_death(tmp_path: Path) -> None:
    (tmp_path / "template").mkdir()
    stack = Stack(tmp_path / "stack", Template(tmp_path / "template", symbols=10_000))
    try:
        stack.manage("shell", "-c", _ROOM)
        stack.start(rate=100, symbols=10_000, instruments=10_000)
        names = stack.manage("simulate", "zerodha", "--list", "--symbols", "10000").split()
        async with Client(stack.url, stack.key) as client:
            for start in range(0, len(names), 2500):
                ack = await client.subscribe(*names[start : start + 2500])
                assert ack["count"] == 2500
            await wait_until(lambda: len(_held(stack)) == 10_000, "10,000 instruments at the broker", 60)
            stack.processes["adapters"].kill()
            wait_for(lambda: not _held(stack), "the broker to see the connection end")
            stack.restart("adapters")
            await wait_until(lambda: len(_held(stack)) == 10_000, "all 10,000 again", 60)
    finally:
        stack.stop()
        print(stack.logs())


_ROOM = """
from brokers.models import Broker
from marketdata.models import ApiKey
Broker.objects.filter(slug="zerodha").update(instruments_per_connection=10000)
ApiKey.objects.update(max_symbols=10000)
"""


def _held(stack: Stack) -> dict[str, Any]:
    held: dict[str, Any] = stack.simulator.call("subscribed")
    return held


async def test_a_key_that_ticks_a_thousand_times_a_second_is_throttled_and_its_last_price_arrives(stack: Stack) -> None:
    stack.start(rate=50)
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN")
        await client.tick("NSE:SBIN")
        stack.simulator.call("set_symbol_rate", symbol="SBIN", rate=1000)
        await client.tick("NSE:SBIN", beyond=client.count("NSE:SBIN") + 5)
        ticks = client.ticks["NSE", "SBIN", "LTP"]
        before, began_s = len(ticks), time.monotonic()
        await asyncio.sleep(3)
        took_s = time.monotonic() - began_s
        assert 20 <= len(ticks) - before <= 20 * took_s + 2
        assert sum(tick.get("conflated", 0) for tick in ticks[before:]) > 500
        quiet(stack, "SBIN")
        stack.simulator.call("emit", symbol="SBIN", ltp=799.95)
        await wait_until(lambda: ticks[-1]["ltp"] == 799.95, "the last price")
        assert client.jumps == []


async def test_a_client_that_stops_reading_costs_nobody_anything_and_gets_the_newest_when_it_reads(
    stack: Stack,
) -> None:
    stack.start(rate=6000, symbols=300, throttle_ms=0, SLOW_CLIENT_S="60")
    names = stack.manage("simulate", "zerodha", "--list", "--symbols", "300").split()
    async with Client(stack.url, stack.key) as healthy:
        await healthy.subscribe(*names, mode="DEPTH")
        await healthy.tick("NSE:SBIN", "DEPTH", beyond=10)
        stuck = _raw_client(stack, names)
        server = psutil.Process(stack.processes["server"].pid)
        await asyncio.sleep(1)
        rss_bytes, began_s, before = server.memory_info().rss, time.monotonic(), healthy.bytes
        await asyncio.sleep(8)
        due = (healthy.bytes - before) / (time.monotonic() - began_s)
        assert due > 2_000_000, f"only {due:,.0f} bytes/s were due; the test proves nothing"
        assert server.memory_info().rss - rss_bytes < 10 * 1024 * 1024
        assert healthy.jumps == []
        newest = healthy.ticks["NSE", "SBIN", "DEPTH"][-1]["seq"]
        messages = await asyncio.to_thread(_read_until, stuck, newest)
        lagging = [message for message in messages if message.get("status") == "lagging"]
        assert max(message["pauses"] for message in lagging) >= 1
        assert sum(message["merged"] for message in lagging) > 1000


def _raw_client(stack: Stack, names: list[str]) -> Any:
    """A client that authenticates, subscribes and then reads nothing."""
    raw = sockets.create_connection(("127.0.0.1", stack.port))
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 32 * 1024)
    client = connect(stack.url, sock=raw, compression=None, max_size=None, max_queue=(1, 0), ping_interval=None)
    client.send(json.dumps({"action": "authenticate", "api_key": stack.key}))
    client.recv()
    items = [{"symbol": name.partition(":")[2], "exchange": name.partition(":")[0]} for name in names]
    client.send(json.dumps({"action": "subscribe", "symbols": items, "mode": "DEPTH"}))
    return client


def _read_until(client: Any, seq: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    end_s = time.monotonic() + 30
    while time.monotonic() < end_s:
        message = json.loads(client.recv(timeout=10))
        messages.append(message)
        if message.get("symbol") == "SBIN" and message.get("seq", 0) >= seq:
            client.close()
            return messages
    raise AssertionError("The newest price never came.")


async def test_revoking_a_key_closes_its_sockets(stack: Stack) -> None:
    stack.start()
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN")
        await client.tick("NSE:SBIN")
        stack.manage("shell", "-c", "from marketdata.models import ApiKey; ApiKey.objects.update(active=False)")
        await wait_until(lambda: client.closed is not None, "the close", 3.0)
        assert client.closed == errors.CLOSE_KEY_REVOKED.code


async def test_limits_and_tokens_changed_in_the_database_take_effect_without_a_restart(stack: Stack) -> None:
    stack.start(rate=300)
    async with Client(stack.url, stack.key, status=True) as client:
        await client.subscribe("NSE:SBIN", "NSE:TCS", "NSE:INFY")
        await client.tick("NSE:INFY")
        limit = "from brokers.models import Broker; Broker.objects.update(instruments_per_connection={})"
        stack.manage("shell", "-c", limit.format(1))
        await wait_until(lambda: len(_held(stack)) == 1, "the limit to hold", BACK_S)
        await client.status(lambda message: message.get("state") == "no_capacity")
        stack.manage("shell", "-c", limit.format(100))
        await wait_until(lambda: len(_held(stack)) == 3, "room again", BACK_S)
        stack.simulator.call("expire")
        await client.status(lambda message: message.get("state") == "waiting_for_login", BACK_S)
        refused = len(stack.simulator.call("log", event="refused"))
        await asyncio.sleep(2)
        assert len(stack.simulator.call("log", event="refused")) == refused == 1
        stack.simulator.call("set_token", token="fresh")
        stack.manage("shell", "-c", _FRESH)
        count = client.count("NSE:SBIN")
        await client.tick("NSE:SBIN", beyond=count, patience_s=BACK_S)


_FRESH = """
from brokers.models import BrokerAccount
for account in BrokerAccount.objects.all():
    account.credentials = {**account.credentials, "access_token": "fresh"}
    account.save()
"""


async def test_malformed_frames_are_passed_over_and_the_connection_lives(stack: Stack) -> None:
    stack.start(rate=300)
    async with Client(stack.url, stack.key) as client:
        await client.subscribe("NSE:SBIN")
        await client.tick("NSE:SBIN")
        for kind in ("truncated", "length", "count", "random", "text"):
            stack.simulator.call("malformed", kind=kind, count=5)
        await client.tick("NSE:SBIN", beyond=client.count("NSE:SBIN") + 10)
    assert len(stack.simulator.call("log", event="connect")) == 1
    assert "Traceback" not in stack.processes["adapters"].text()
