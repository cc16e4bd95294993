"""
Two nights and a weekend, in the time of a test: tokens die, new ones come, and nothing is restarted.

Zerodha takes a person each morning; Angel One logs in by itself. The adapters run here, by a clock that the test moves;
the bridge and the server are a process of their own, and the clients stay connected from Wednesday to Monday.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection

from brokers import logins, registry
from brokers.contract import InstrumentRow
from brokers.feed import supervisor as module
from brokers.feed.supervisor import Supervisor
from brokers.instruments.store import replace_instruments
from brokers.models import Alert, Broker, BrokerAccount
from brokers.simulators import rows_of, simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from marketdata import auth
from tests.adapters.browsing import log_in_at
from tests.conftest import free_port
from tests.e2e.client import Client
from tests.e2e.stack import Process, listens, wait_for, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "NSE:SBIN"
OPEN_DAYS = (dt.date(2026, 11, 26), dt.date(2026, 11, 27), dt.date(2026, 11, 30))
FEEDS = {"zerodha": "", "angel": "desk"}
"""Each broker serves clients of its own, so that none stands in for the other."""


class Clock:
    """Unix seconds, as the test says."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.move(dt.date(2026, 11, 25), "14:00")

    def __call__(self) -> float:
        return self.now_s

    def move(self, day: dt.date, at: str) -> None:
        """To a time of a day in India; never back."""
        then = dt.datetime.fromisoformat(f"{day}T{at}+05:30").timestamp()
        assert then >= self.now_s
        self.now_s = then


class Webhook:
    """What a person's phone would have shown."""

    def __init__(self) -> None:
        told = self.told = list[dict[str, Any]]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()


class Week:
    """Everything that runs through it."""

    def __init__(self, clock: Clock, brokers: dict[str, Simulator], server: Process, webhook: Webhook) -> None:
        self.clock, self.brokers, self.server, self.webhook = clock, brokers, server, webhook
        self.clients: dict[str, Client] = {}

    def state(self, slug: str) -> str:
        """What the clients of a broker were last told of its account."""
        told = [each for each in self.clients[slug].statuses if each.get("broker") == slug]
        return str(told[-1]["state"]) if told else ""

    async def becomes(self, slug: str, *states: str) -> None:
        """Waits until they are told so."""
        await wait_until(lambda: self.state(slug) in states, f"{slug} to be {states}, it is {self.state(slug)!r}")

    async def passes(self, day: dt.date, *times: str) -> None:
        """Hours go by, and nothing is awaited."""
        for at in times:
            self.clock.move(day, at)
            await asyncio.sleep(0.3)  # a few looks of the supervisor

    async def ticks(self, slug: str) -> None:
        """Fresh prices reach the client."""
        client = self.clients[slug]
        await client.tick(NAME, beyond=client.count(NAME) + 3)

    async def person_logs_in(self) -> None:
        """Somebody opens Zerodha's page from the admin, and is sent back."""
        account = await BrokerAccount.objects.aget(broker__slug="zerodha")
        _, query = await log_in_at(await logins.page(account.pk, "s"))
        await logins.exchange(account.pk, query)

    async def angel_logs_in(self) -> None:
        """The first login, on Wednesday, is somebody's who has just entered PIN and TOTP secret."""
        account = await BrokerAccount.objects.aget(broker__slug="angel")
        await logins.log_in(account.pk, now_ms=int(self.clock() * 1000))


@asynccontextmanager
async def week(tmp_path: Path) -> AsyncIterator[Week]:
    clock, webhook, port = Clock(), Webhook(), free_port()
    settings.ALERT_WEBHOOK_URL = webhook.url
    brokers = {slug: simulators()[slug](rate=100, symbols=40, clock=clock) for slug in FEEDS}
    supervisor = Supervisor("127.0.0.1", free_port(), clock=clock)
    env = os.environ | {
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "WEBSOCKET_PORT": str(port),
        "ZMQ_PORT": str(supervisor.publisher.port),
        "REDIS_URL": "",
        "SECRET_KEY": settings.SECRET_KEY,
        "CREDENTIALS_KEY": ",".join(settings.CREDENTIALS_KEYS),
    }
    server = Process("server", ["manage.py", "run_server"], env, tmp_path / "server.log")
    for broker in brokers.values():
        await broker.open()
    keys = await sync_to_async(_fill)(brokers)
    with contextlib.closing(sqlite3.connect(str(connection.settings_dict["NAME"]))) as seen:  # as the server sees it
        assert seen.execute("SELECT COUNT(*) FROM marketdata_apikey").fetchone() == (len(FEEDS),)
    running = asyncio.create_task(supervisor.run())
    server.start()
    try:
        await asyncio.to_thread(wait_for, lambda: listens(port), "the server to listen")
        made = Week(clock, brokers, server, webhook)
        async with (
            Client(f"ws://127.0.0.1:{port}/", keys["zerodha"], status=True) as first,
            Client(f"ws://127.0.0.1:{port}/", keys["angel"], status=True) as second,
        ):
            made.clients = {"zerodha": first, "angel": second}
            yield made
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])
        for broker in brokers.values():
            await broker.close()
        server.stop()
        webhook.close()
        print(server.text()[-4000:])


def _fill(brokers: dict[str, Simulator]) -> dict[str, str]:
    keys = {}
    for slug, simulator in brokers.items():
        adapter = registry.load(slug)
        row, _ = Broker.objects.update_or_create(slug=slug, defaults={"name": adapter.spec.name})
        replace_instruments(row, (each for each in rows_of(adapter, simulator) if isinstance(each, InstrumentRow)))
        credentials = simulator.credentials(DEMO_KEY, DEMO_TOKEN)
        BrokerAccount.objects.create(
            broker=row, name="main", endpoint=simulator.url, credentials=credentials, feed=FEEDS[slug]
        )
        keys[slug] = auth.issue(slug, feed=FEEDS[slug])[1]
    return keys


@pytest.mark.timeout(240)
async def test_two_nights_and_a_weekend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "WAKE_S", float("inf"))  # hours that go by are no sleep of the machine
    monkeypatch.setattr(settings, "ALERT_WEBHOOK_URL", "")
    async with week(tmp_path) as now:
        await now.person_logs_in()
        await now.angel_logs_in()
        for client in now.clients.values():
            await client.subscribe(NAME)
        for slug in FEEDS:
            await now.ticks(slug)
        yesterday = dt.date(2026, 11, 25)
        for day in OPEN_DAYS:
            await _evening(now, yesterday)
            between = yesterday + dt.timedelta(days=1)
            while between < day:
                await _day_off(now, between)
                between += dt.timedelta(days=1)
            await _morning(now, day)
            yesterday = day
        assert all(client.closed is None for client in now.clients.values())
        assert all(client.jumps == [] for client in now.clients.values())
        assert _dead_tokens_tried(now.brokers["zerodha"]) == [1] * len(OPEN_DAYS), "each once: it does not say its end"
        assert _dead_tokens_tried(now.brokers["angel"]) == [], "its token says when it ends"
        for broker in now.brokers.values():
            assert broker.entries("login_refused") == []
            assert broker.stats()["locked"] == []
        assert len(now.brokers["angel"].entries("login_ok")) == 1 + len(OPEN_DAYS), "by itself once a trading morning"
        missing = [told for told in now.webhook.told if told["kind"] == "login_missing"]
        assert [told["state"] for told in missing] == ["raised", "cleared"] * len(OPEN_DAYS)
        assert {told["broker"] for told in missing} == {"zerodha"}
        assert not await Alert.objects.filter(kind="feed_down").aexists()


async def _evening(now: Week, day: dt.date) -> None:
    """Trading ends; nothing comes any more, and nobody minds."""
    for broker in now.brokers.values():
        broker.pause_ticks()
    await now.passes(day, "15:45", "18:00", "21:00", "23:59")


async def _day_off(now: Week, day: dt.date) -> None:
    """A day of a weekend: tokens die, and nobody logs in."""
    count = len(now.brokers["angel"].entries("login_ok"))
    await now.passes(day, "03:00", "05:30", "06:30")
    await now.becomes("zerodha", "waiting_for_login")
    await now.passes(day, "08:00", "09:20", "12:00", "18:00", "23:00")
    assert now.state("angel") == "token_expired"
    assert len(now.brokers["angel"].entries("login_ok")) == count


async def _morning(now: Week, day: dt.date) -> None:
    await now.passes(day, "03:00", "05:30", "06:30")
    await now.becomes("zerodha", "waiting_for_login")
    await now.becomes("angel", "token_expired")
    await now.passes(day, "07:00", "07:30")
    now.clock.move(day, "07:50")
    await now.becomes("angel", "connected", "market_closed")
    assert now.state("zerodha") == "waiting_for_login"
    now.clock.move(day, "08:46")
    raised = collections.Counter(told["state"] for told in now.webhook.told)["raised"]
    await wait_until(
        lambda: collections.Counter(told["state"] for told in now.webhook.told)["raised"] >= raised, "the alert"
    )
    await asyncio.sleep(0.3)
    now.clock.move(day, "08:55")
    await now.person_logs_in()
    await now.becomes("zerodha", "connected", "market_closed")
    now.clock.move(day, "09:20")
    for slug, broker in now.brokers.items():
        broker.resume_ticks()
        await now.ticks(slug)
        await now.becomes(slug, "connected")


def _dead_tokens_tried(broker: Simulator) -> list[int]:
    """How often each token was tried after the broker had refused it once, that time included."""
    return list(collections.Counter(entry["token_id"] for entry in broker.entries("refused")).values())
