"""
Two brokers in one feed or in two, as processes: the one that serves is killed, and what clients see of it.

Deadlines are three times the promised ones, because test machines are shared.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from tests.conftest import free_port
from tests.e2e.client import Client
from tests.e2e.stack import Simulator, Stack, wait_for, wait_until

MOVED_S = 3 * 1.0
"""From the death of a broker to a tick of every symbol from the other."""
RESTED_MS = 3000
"""A connection that has stood for so long is one to flee to."""
NAMES = ("NSE:SBIN", "NSE:RELIANCE", "NSE:INFY", "NSE:TCS", "NSE:ITC", "NSE:WIPRO", "NSE_INDEX:NIFTY")

SECOND = """
from brokers.models import Broker, BrokerAccount
Broker.objects.filter(slug="zerodha").update(priority=1)
Broker.objects.filter(slug="upstox").update(priority=2)
BrokerAccount.objects.create(broker=Broker.objects.get(slug="upstox"), name="reserve", feed="{feed}",
    endpoint="ws://127.0.0.1:{port}", credentials={{"api_key": "demo", "access_token": "demo-token"}})
"""
ROOM = """
from brokers.models import Broker
Broker.objects.filter(slug="upstox").update(instruments_per_connection={most})
"""


def start(stack: Stack, feed: str = "") -> Simulator:
    """The stack with a second simulated broker, whose account is in this feed; where it listens."""
    master = stack.folder / "upstox.json"
    master.write_text(stack.manage("simulate", "upstox", "--symbols", "400", "--master"))
    stack.manage("sync_instruments", "upstox", "--file", str(master))
    stack.start(rate=300)
    second = Simulator(free_port())
    stack.manage("shell", "-c", SECOND.format(feed=feed, port=second.port))
    stack.add("second", "simulate", "upstox", "--rate", "300", "--symbols", "60", "--port", str(second.port))
    wait_for(lambda: _stands(second, 0), "the second broker's connection", 30)
    return second


def _stands(simulator: Simulator, for_ms: int) -> bool:
    """Whether somebody has been connected for so long."""
    try:
        came = simulator.call("log", event="connect")
    except OSError:
        return False  # it does not listen yet
    return bool(came) and time.time() * 1000 - came[-1]["ts_ms"] >= for_ms


def ticks(client: Client, name: str) -> list[dict[str, Any]]:
    exchange, _, symbol = name.partition(":")
    return client.ticks[exchange, symbol, "LTP"]


def brokers(client: Client, name: str) -> list[str]:
    """Whose its ticks were, one after the other."""
    return [broker for broker, _ in itertools.groupby(tick["broker"] for tick in ticks(client, name))]


async def test_every_symbol_ticks_from_the_other_broker_when_the_one_that_serves_is_killed(stack: Stack) -> None:
    second = start(stack)
    async with Client(stack.url, stack.key, status=True) as client, Client(stack.url, stack.key) as plain:
        for each in (client, plain):
            await each.subscribe(*NAMES)
            for name in NAMES:
                await each.tick(name, beyond=2)
                assert brokers(each, name) == ["zerodha"]
        await wait_until(lambda: _stands(second, RESTED_MS), "the second broker to be one that lasts")
        told = len(client.statuses)
        stack.processes["simulator"].kill()
        killed_s = time.monotonic()

        def all_served() -> bool:
            return all(ticks(each, name)[-1]["broker"] == "upstox" for each in (client, plain) for name in NAMES)

        await wait_until(all_served, "every symbol from the other", MOVED_S)
        print(f"every symbol ticks again after {time.monotonic() - killed_s:.2f} s")

        def is_said() -> bool:
            news = [each for each in client.statuses[told:] if each.get("broker") == "zerodha"]
            words = [each["message"].lower() for each in news if each["state"] == "reconnecting"]
            return any("upstox" in text and str(len(NAMES)) in text for text in words)

        await wait_until(is_said, "a status that says who serves now", MOVED_S)
        for each in (client, plain):
            for name in NAMES:
                await each.tick(name, beyond=len(ticks(each, name)) + 2)
                assert brokers(each, name) == ["zerodha", "upstox"]
                instants = [tick["received_ms"] for tick in ticks(each, name)]
                assert instants == sorted(instants)
            assert each.jumps == []
            assert each.closed is None
        stack.processes["simulator"].start()
        await client.status(lambda each: each in client.statuses[told:] and _is_back(each), 30)
        count = len(ticks(client, NAMES[0]))
        await client.tick(NAMES[0], beyond=count + 5)
        assert all(brokers(client, name) == ["zerodha", "upstox"] for name in NAMES), "it stays where it is"
        assert stack.simulator.call("subscribed") == {}
        assert second.call("stats")["limit_violations"] == 0
        assert client.jumps == plain.jumps == []


def _is_back(message: dict[str, Any]) -> bool:
    return message.get("broker") == "zerodha" and message.get("state") in ("connected", "market_closed")


async def test_two_keys_of_two_feeds_hold_the_same_symbols_and_each_sees_its_own_broker_only(stack: Stack) -> None:
    second = start(stack, feed="desk")
    desk_key = stack.manage("create_api_key", "desk", "--feed", "desk").strip()
    async with (
        Client(stack.url, stack.key, status=True) as ours,
        Client(stack.url, desk_key, status=True) as theirs,
    ):
        for client in (ours, theirs):
            await client.subscribe(*NAMES)
            for name in NAMES:
                await client.tick(name, beyond=2)
        stack.manage("shell", "-c", ROOM.format(most=3))
        await theirs.status(lambda each: each.get("state") == "no_capacity")
        stack.manage("shell", "-c", ROOM.format(most=None))
        await wait_until(lambda: len(second.call("subscribed")) == len(NAMES), "room for all again", 10)
        connects = second.call("stats")["connections_peak"]
        stack.processes["simulator"].kill()
        await ours.status(lambda each: each.get("broker") == "zerodha" and each.get("state") == "reconnecting")
        counts = {name: len(ticks(theirs, name)) for name in NAMES}
        for name in NAMES:
            await theirs.tick(name, beyond=counts[name] + 10)
        assert {tick["broker"] for of in ours.ticks.values() for tick in of} == {"zerodha"}
        assert {tick["broker"] for of in theirs.ticks.values() for tick in of} == {"upstox"}
        assert [each for each in theirs.statuses if each.get("broker") == "zerodha"] == []
        assert [each for each in ours.statuses if each.get("broker") == "upstox"] == []
        assert [each for each in ours.statuses if each.get("state") == "no_capacity"] == [], "that was the others'"
        assert second.call("stats")["connections_peak"] == connects
        stack.processes["simulator"].start()
        for name in NAMES:
            await ours.tick(name, beyond=len(ticks(ours, name)), patience_s=30)
        assert {tick["broker"] for of in ours.ticks.values() for tick in of} == {"zerodha"}
        assert ours.jumps == theirs.jumps == []
