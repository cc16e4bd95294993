"""The daily sync beside the feed: who is due, one attempt at a time, a child that is a process of its own."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from asgiref.sync import sync_to_async
from structlog.testing import capture_logs

from brokers.contract import Adapter, Master
from brokers.india import INDIA
from brokers.instruments import daily
from brokers.instruments.schedule import APART
from brokers.models import Broker, BrokerAccount, InstrumentMaster
from tests.brokers.feed.bench import until
from tests.brokers.instruments.conftest import Answer, Files, Lister
from tests.brokers.instruments.test_sync_instruments import ACCOUNT, MASTER, add_account
from tests.conftest import PROJECT, free_port, run_manage, wait_until

in_database = pytest.mark.django_db(transaction=True)

NOON = dt.datetime(2024, 3, 21, 12, tzinfo=INDIA)
DAY = dt.timedelta(days=1)


def lister(slug: str = "toy", **fields: Any) -> Lister:
    return Lister(Master(url=f"https://{slug}.invalid/m.csv", **fields), slug=slug)


def import_of(slug: str, imported_at: dt.datetime, **fields: Any) -> None:
    broker = Broker.objects.get(slug=slug)
    InstrumentMaster.objects.create(broker=broker, imported_at=imported_at, dated=imported_at.date(), **fields)


def due(now: dt.datetime = NOON) -> list[str]:
    return daily.due(now, {})


# --------------------------------------------------------------------------------------------------------------- who


@in_database
def test_every_broker_with_an_enabled_account_is_due_until_it_has_todays_master(adapters: dict[str, Adapter]) -> None:
    for slug in ("toy", "stale", "fresh", "off", "gone", "none"):
        adapters[slug] = lister(slug)
        add_account(slug)
    adapters["none"] = Lister(slug="none")
    del adapters["gone"]
    Broker.objects.filter(slug="off").update(enabled=False)
    import_of("stale", NOON - DAY)
    import_of("fresh", NOON - dt.timedelta(hours=3))
    assert due() == ["stale", "toy"]
    BrokerAccount.objects.filter(broker__slug="toy").update(enabled=False)
    assert due() == ["stale"]
    Broker.objects.filter(slug="stale").update(synced_at=NOON - dt.timedelta(hours=1))
    assert due() == [], "it was asked, and had nothing new"
    assert due(NOON + DAY) == ["fresh", "stale"]


@in_database
def test_one_that_needs_a_login_is_due_after_the_login(adapters: dict[str, Adapter]) -> None:
    adapters["toy"] = lister(needs_login=True)
    account = add_account("toy", token="")
    assert due() == []
    BrokerAccount.objects.update(updated_at=NOON - dt.timedelta(minutes=1))
    account.refresh_from_db()
    account.credentials = {"key": "k", "token": "today's"}
    account.save()
    assert due() == ["toy"]
    Broker.objects.update(sync_tried_at=NOON - dt.timedelta(minutes=11), sync_failures=5)
    BrokerAccount.objects.update(updated_at=NOON - dt.timedelta(minutes=12))
    assert due() == [], "with this login it failed, and the waits have risen"
    BrokerAccount.objects.update(updated_at=NOON - dt.timedelta(minutes=1))
    assert due() == ["toy"], "another login"


@in_database
def test_a_simulators_instruments_are_replaced_when_a_real_account_comes_and_the_reverse(
    adapters: dict[str, Adapter],
) -> None:
    adapters["toy"] = lister(needs_login=True)
    simulated = add_account("toy", "simulated", "", endpoint="ws://127.0.0.1:9001")
    assert due() == ["toy"], "a simulator wants no login"
    import_of("toy", NOON, simulated=True)
    assert due() == []
    add_account("toy", "real")
    assert due() == ["toy"]
    InstrumentMaster.objects.update(simulated=False)
    assert due() == []
    BrokerAccount.objects.exclude(pk=simulated.pk).delete()
    assert due() == ["toy"]
    BrokerAccount.objects.update(endpoint="ws://192.0.2.1:9001")
    assert due() == []


@in_database
def test_an_attempt_is_claimed_once_in_ten_minutes_whoever_asks(adapters: dict[str, Adapter]) -> None:
    adapters["toy"] = lister()
    add_account("toy")
    assert daily.claim("toy", NOON)
    assert not daily.claim("toy", NOON)
    assert not daily.claim("toy", NOON + APART - dt.timedelta(seconds=1))
    assert daily.claim("toy", NOON + APART)


# ------------------------------------------------------------------------------------------------------------ the child


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "LOOK_S", 0.05)
    monkeypatch.setattr(daily, "JITTER_S", 0.0)


def child_does(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(daily, "command", lambda slug: [sys.executable, "-c", code, slug])


WORDS = """
import sys
slug = sys.argv[1]
open(f"{slug}.ran", "a").write("once ")
print(f"{slug}: 9 instruments.") if slug == "toy" else sys.exit(f"{slug}: No.")
"""


@asynccontextmanager
async def keeping_current() -> AsyncIterator[list[Any]]:
    task = asyncio.create_task(daily.keep_current())
    with capture_logs() as logs:
        yield logs
        task.cancel()
        await asyncio.wait([task], timeout=5)
    assert task.cancelled(), task


@in_database
async def test_a_child_does_it_once_and_its_words_are_logged(
    adapters: dict[str, Adapter], quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapters["toy"], adapters["other"] = lister(), lister("other")
    for slug in adapters:
        await sync_to_async(add_account)(slug)
    monkeypatch.chdir(tmp_path)
    child_does(monkeypatch, WORDS)
    async with keeping_current() as logs:
        await until(lambda: len(logs) == 2, "both")
        await asyncio.sleep(0.3)  # several looks: neither is tried again
    assert [(log["event"], log["broker"], log.get("result") or log["reason"]) for log in logs] == [
        ("instruments_not_synced", "other", "No."),
        ("instruments_synced", "toy", "9 instruments."),
    ]
    assert (tmp_path / "toy.ran").read_text() == "once "


@in_database
async def test_a_child_that_hangs_is_ended_in_time_and_with_the_feed(
    adapters: dict[str, Adapter], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters["toy"] = lister()
    await sync_to_async(add_account)("toy")
    child_does(monkeypatch, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(30)")
    monkeypatch.setattr(daily, "STOP_S", 0.2)
    began_s = time.monotonic()
    async with keeping_current():
        await until(lambda: psutil.Process().children(), "the child")
    assert not psutil.Process().children()
    assert time.monotonic() - began_s < 3.0
    await sync_to_async(Broker.objects.update)(sync_tried_at=None)
    monkeypatch.setattr(daily, "CHILD_S", 0.2)
    async with keeping_current() as logs:
        await until(lambda: logs, "the child is given up")
    assert logs[0]["reason"] == "It was not done within 0.2 s."


def test_what_the_feed_started_has_a_lower_priority_and_dies_with_it(tmp_path: Path, files: Files) -> None:
    environment = {"STREAM_DATA_DIR": str(tmp_path), "STREAM_ENV_FILE": str(tmp_path / ".env"), "DATABASE_URL": ""}
    assert run_manage("migrate", "-v", "0", **environment).returncode == 0
    files.put("/m.csv", Answer(headers={"Content-Length": "99999"}, write=lambda _: time.sleep(20)))
    arguments = ["sync_instruments", "zerodha", "--url", f"{files.url}/m.csv", "--background"]
    code = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, 'manage.py', *{arguments}]).pid, flush=True)"
    )
    feed = subprocess.Popen(
        [sys.executable, "-c", f"{code}; import time; time.sleep(60)"],
        cwd=PROJECT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert feed.stdout is not None
    child = psutil.Process(int(feed.stdout.readline()))
    try:
        wait_until(lambda: bool(files.asked), "the request", timeout_s=20)
        assert child.nice() == psutil.Process().nice() + 10
    finally:
        feed.kill()
        feed.communicate()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the end of the child")


def test_the_adapters_process_syncs_by_itself_and_goes_on(tmp_path: Path, files: Files) -> None:
    files.put("/instruments", Answer(body=gzip.compress(MASTER)))
    environment = {"STREAM_DATA_DIR": str(tmp_path), "STREAM_ENV_FILE": str(tmp_path / ".env"), "DATABASE_URL": ""}
    assert run_manage("migrate", "-v", "0", **environment).returncode == 0
    assert run_manage("shell", "-v0", "-c", ACCOUNT.format(port=files.port), **environment).returncode == 0
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_AT_ONCE],
            cwd=PROJECT,
            env=os.environ | environment | {"ZMQ_PORT": str(free_port()), "SYNC_INSTRUMENTS": "true"},
            stderr=output,
        )
    try:
        wait_until(lambda: "instruments_synced" in log.read_text(), "the sync", timeout_s=40)
        process.terminate()
        assert process.wait(10) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    code = (
        "from brokers.models import *; print(InstrumentMaster.objects.get().simulated, Instrument.objects.count() > 5)"
    )
    assert run_manage("shell", "-v0", "-c", code, **environment).stdout == "True True\n"


RUN_AT_ONCE = """
import sys, django, manage
django.setup()
from brokers.instruments import daily
daily.JITTER_S = 0.0
sys.argv = ["manage.py", "run_adapters"]
sys.exit(manage.main())
"""
"""`manage.py run_adapters` without the minutes it lets pass after the publishing time."""
