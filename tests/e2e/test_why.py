"""
`why` and `feed_status` against the running product, with one fault after the other injected and undone.

One stack for all: each fault leaves things as it found them, or comes so late that nobody minds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import PROJECT
from tests.e2e.client import Client
from tests.e2e.stack import Stack, Template, listens, wait_until

NAMES = ("NSE:SBIN", "NSE:RELIANCE", "NSE:TCS")
PATIENCE_S = 30.0
ANSWER_S = 8.0
"""A process starts, each hop has 3 s, and all are asked at the same time."""

OPEN_ALL_DAY = """
from datetime import timedelta
from django.utils import timezone
from brokers.models import CalendarDay
for days in (0, 1):
    CalendarDay.objects.create(date=timezone.localdate() + timedelta(days), segments=["NSE", "NSE_INDEX"],
                               sessions="special 00:00-23:59", reason="a test")
"""
SHUT = """
from django.utils import timezone
from brokers.models import CalendarDay
CalendarDay.objects.create(date=timezone.localdate(), segments=["NSE", "NSE_INDEX"], sessions="", reason="a storm")
"""
OPEN_AGAIN = "from brokers.models import CalendarDay as C; C.objects.filter(reason='a storm').delete()"
ELSEWHERE = """
from brokers.models import Broker, Instrument
broker = Broker.objects.get(slug="upstox")
Instrument.objects.create(broker=broker, segment="NSE", token="1", symbol="ONLYTHERE", exchange="NSE",
                          broker_symbol="ONLYTHERE", broker_exchange="NSE")
"""
WITHOUT_TOKEN = """
from brokers.models import BrokerAccount
account = BrokerAccount.objects.get(name="e2e")
account.credentials = {"api_key": "demo"}
account.save()
"""
WITH_TOKEN = """
from brokers.models import BrokerAccount
account = BrokerAccount.objects.get(name="e2e")
account.credentials = {"api_key": "demo", "access_token": "demo-token"}
account.refused_fingerprint = ""
account.save()
"""


def account_is(enabled: bool) -> str:
    return f"from brokers.models import BrokerAccount as A; A.objects.filter(name='e2e').update(enabled={enabled})"


def room_is(most: int | None) -> str:
    broker = "from brokers.models import Broker as B; B.objects.filter(slug='zerodha')"
    return f"{broker}.update(instruments_per_connection={most})"


class Answer(NamedTuple):
    """What a command said, and how it ended."""

    code: int
    text: str
    problem: str
    took_s: float

    @property
    def verdict(self) -> str:
        """The last line."""
        return self.text.rstrip().rpartition("\n")[2]


class Asker:
    """Somebody at a terminal beside the running product."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    async def command(self, *arguments: str) -> Answer:
        """Runs a `manage.py` command; it must not take long, and must never show a traceback."""
        began_s = time.monotonic()
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "manage.py", *arguments], cwd=PROJECT, env=self.stack.env,
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        answer = Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - began_s)
        assert "Traceback" not in answer.text + answer.problem, answer
        assert answer.took_s < ANSWER_S, answer
        return answer

    async def why(self, name: str = "NSE:SBIN", *options: str) -> Answer:
        return await self.command("why", name, *options)

    async def names(self, sentence: str, name: str = "NSE:SBIN", *options: str, code: int = 1) -> Answer:
        """Asks until this is the verdict."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            answer = await self.why(name, *options)
            if sentence in answer.verdict and answer.code == code:
                return answer
            assert time.monotonic() < end_s, f"{sentence!r} was not said: {answer.text}{answer.problem}"

    async def flows(self, name: str = "NSE:SBIN") -> Answer:
        return await self.names("SIMULATED ticks flow in mode QUOTE", name, code=0)

    async def shell(self, code: str) -> None:
        await asyncio.to_thread(self.stack.manage, "shell", "-c", code)


Injected = Callable[[Asker, Client], Awaitable[None]]


async def unknown_symbol(ask: Asker, client: Client) -> None:
    answer = await ask.names("No broker lists SBINN on NSE. Did you mean SBIN", "NSE:SBINN", code=2)
    assert "✗ │ Name" in answer.text
    await ask.names("There is no exchange 'NSEX'.", "NSEX:SBIN", code=2)
    nothing = await ask.why("SBIN")
    assert (nothing.code, nothing.problem) == (
        2, "CommandError: 'SBIN' is no instrument; write EXCHANGE:SYMBOL, for example NSE:SBIN.\n",
    )  # fmt: skip


async def depth_not_served(ask: Asker, client: Client) -> None:
    await ask.names("not streamed in mode DEPTH20 by zerodha. Subscribe DEPTH,", "NSE:SBIN", "--mode", "DEPTH20")


async def no_account_at_its_broker(ask: Asker, client: Client) -> None:
    await ask.shell(ELSEWHERE)
    await ask.names("No account at upstox is configured, and these list it.", "NSE:ONLYTHERE")


async def merged(ask: Asker, client: Client) -> None:
    """No fault: a remark."""
    ask.stack.simulator.call("set_symbol_rate", symbol="SBIN", rate=200)
    answer = await ask.names("are merged into the next one", code=0)
    assert "with THROTTLE_MS=50 at most 20 go out" in answer.verdict
    ask.stack.simulator.call("set_symbol_rate", symbol="SBIN", rate="")


async def account_switched_off(ask: Asker, client: Client) -> None:
    await ask.shell(account_is(enabled=False))
    await ask.names("zerodha e2e: The account is switched off in the admin.")
    await ask.shell(account_is(enabled=True))
    await ask.flows()


async def no_room(ask: Asker, client: Client) -> None:
    await ask.shell(room_is(1))
    await wait_until(lambda: len(ask.stack.simulator.call("subscribed")) == 1, "the others' end")
    [kept] = ask.stack.simulator.call("subscribed")
    homeless = next(name for name in NAMES if name != kept)
    await ask.names("All connections are full", homeless)
    await ask.flows(kept)
    await ask.shell(room_is(None))
    await ask.flows(homeless)


async def broker_silent_for_the_symbol(ask: Asker, client: Client) -> None:
    ask.stack.simulator.call("set_limits", ignore_beyond=0)
    await client.subscribe("NSE:ITC", mode="QUOTE")
    answer = await ask.names("others on market 0 tick.", "NSE:ITC")
    assert answer.verdict.startswith("zerodha has sent nothing for it since it was subscribed")
    assert "sync_instruments zerodha" in answer.verdict
    ask.stack.simulator.call("set_limits", ignore_beyond=-1)
    await client.unsubscribe("NSE:ITC")


async def connection_silent(ask: Asker, client: Client) -> None:
    ask.stack.simulator.call("silence")
    await ask.names("Nothing at all has come on zerodha's market 0 for")
    ask.stack.simulator.call("resume")
    await ask.flows()


async def market_closed(ask: Asker, client: Client) -> None:
    """While prices come, it is not believed that the market is closed."""
    await ask.shell(SHUT)
    await ask.names("All the same prices come.", code=0)
    ask.stack.simulator.call("pause_ticks")
    answer = await ask.names("There is nothing to do but to wait.")
    assert answer.verdict.startswith("NSE is closed")
    assert "✗ │ Market" in answer.text
    ask.stack.simulator.call("resume_ticks")
    await ask.shell(OPEN_AGAIN)
    await ask.flows()


async def token_refused(ask: Asker, client: Client) -> None:
    ask.stack.simulator.call("expire")
    answer = await ask.names("zerodha e2e: The broker refused the token")
    assert "manage.py set_token zerodha e2e" in answer.verdict
    ask.stack.simulator.call("set_token", token="demo-token")
    await ask.shell(WITH_TOKEN)
    await ask.flows()


async def waiting_for_login(ask: Asker, client: Client) -> None:
    await ask.shell(WITHOUT_TOKEN)
    await ask.names("zerodha e2e: It has no token yet")
    await ask.shell(WITH_TOKEN)
    await ask.flows()


async def bridge_killed(ask: Asker, client: Client) -> None:
    ask.stack.processes["bridge"].kill()
    await ask.names("The bridge is not running, or stands still. Start manage.py run_bridge")
    ask.stack.restart("bridge")
    await ask.flows()


async def redis_killed(ask: Asker, client: Client) -> None:
    assert ask.stack.redis is not None
    ask.stack.redis.kill()
    answer = await ask.names("Redis does not answer:")
    assert "✓ │ Broker" in answer.text
    ask.stack.redis.start()
    await ask.flows()


async def connection_down(ask: Asker, client: Client) -> None:
    ask.stack.processes["simulator"].kill()
    await ask.names("zerodha e2e market 0 is down for")


async def adapters_killed(ask: Asker, client: Client) -> None:
    """`feed_status` then says what is stored."""
    ask.stack.processes["adapters"].kill()
    await ask.names(f"nothing listens on 127.0.0.1 port {ask.stack.zmq_port}")
    status = await ask.command("feed_status")
    assert status.code == 0
    assert "The adapters' process is not running" in status.text
    assert "zerodha e2e SIMULATED" in status.text
    stored = json.loads((await ask.command("feed_status", "--json")).text)
    assert (stored["running"], [each["name"] for each in stored["accounts"]]) == (False, ["e2e"])
    ask.stack.restart("adapters")
    await wait_until(lambda: listens(ask.stack.zmq_port), "the adapters")


async def no_server(ask: Asker, client: Client) -> None:
    ask.stack.processes["server"].kill()
    await ask.names(f"Nothing listens on 127.0.0.1 port {ask.stack.port}, where clients connect.")


FAULTS: tuple[Injected, ...] = (
    unknown_symbol, depth_not_served, no_account_at_its_broker, merged, account_switched_off, no_room,
    broker_silent_for_the_symbol, connection_silent, market_closed, token_refused, waiting_for_login, bridge_killed,
    redis_killed, connection_down, adapters_killed, no_server,
)  # fmt: skip


@asynccontextmanager
async def subscribed(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.url, stack.key) as client:
        await client.subscribe(*NAMES, mode="QUOTE")
        yield client


@pytest.mark.timeout(300)
async def test_each_fault_is_named_by_the_hop_that_has_it(stack: Stack) -> None:
    stack.start(rate=30, symbols=60)
    ask = Asker(stack)
    await ask.shell(OPEN_ALL_DAY)
    await ask.names("No client is subscribed to it in mode QUOTE. Subscribe it in your client, or try manage.py watch")
    async with subscribed(stack) as client:
        answer = await ask.flows()
        assert {"✗", "!"}.isdisjoint(answer.text)
        for inject in FAULTS:
            print(inject.__name__)
            await inject(ask, client)


async def test_the_status_of_the_running_feed_is_shown_and_told_to_programs(stack: Stack) -> None:
    stack.start(rate=30, symbols=60)
    ask = Asker(stack)
    async with subscribed(stack):
        await ask.flows()
        shown = await ask.command("feed_status")
        assert (shown.code, shown.problem) == (0, "")
        for part in ("zerodha e2e SIMULATED", "connected", "3/3,000", "market 0", "3 symbols wanted"):
            assert part in shown.text, part
        told = json.loads((await ask.command("feed_status", "--json")).text)
        assert told["running"] is True
        [account] = told["accounts"]
        [connection] = account["connections"]
        assert (account["placed"], account["limit"], connection["told"], connection["unheard"]) == (3, 3000, 3, 0)


@pytest.fixture
def alone(tmp_path: Path, template: Template) -> Iterator[Stack]:
    """A stack without Redis: the bridge is inside the one server."""
    own = Stack(tmp_path / "alone", template, redis=False)
    yield own
    own.stop()
    print(own.logs())


async def test_without_redis_the_hops_of_one_process_are_told(alone: Stack) -> None:
    stack = alone
    stack.start(rate=30, symbols=60)
    ask = Asker(stack)
    await ask.names("No client is subscribed to it in mode QUOTE.")
    async with subscribed(stack):
        await ask.flows()
        stack.processes["server"].kill()
        await ask.names(f"Nothing listens on 127.0.0.1 port {stack.port}, where clients connect.")
