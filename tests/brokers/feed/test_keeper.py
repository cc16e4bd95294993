"""Accounts get their tokens by themselves, in time and once."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Collection, Coroutine, Mapping
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from brokers import registry
from brokers.contract import LoginSteps, LoginWay, TokenLife
from brokers.feed.accounts import Account, load_accounts
from brokers.feed.keeper import Keeper
from brokers.feed.login_policy import LEAD_MS
from brokers.models import Broker, BrokerAccount
from marketdata.ticks import Segment
from tests.brokers.feed.bench import Toy, until

pytestmark = pytest.mark.django_db(transaction=True)

HOUR_MS = 3_600_000


def jwt(end_ms: int) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": end_ms // 1000}).encode()).decode().rstrip("=")
    return f"head.{claims}.signature"


class Bank(Toy):
    """Gives a token that is good for a day to whoever asks."""

    def __init__(self, way: LoginWay) -> None:
        super().__init__(token=TokenLife(names=("token",)), logins=frozenset({way}))
        self.asked = 0

    def login(self, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> LoginSteps:
        yield from ()
        self.asked += 1
        return {"token": jwt(now_ms + 24 * HOUR_MS)}

    renew = login


class Bench:
    """A keeper at a moment of our own choosing, and one account."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.now_ms = time.time_ns() // 1_000_000
        self.opens_ms: int | None = self.now_ms
        self.tasks: set[asyncio.Task[None]] = set()
        self.done = 0
        self.keeper = Keeper(self, clock=lambda: self.now_ms / 1000, spawn=self._spawn, on_done=self._count)

    def next_open_ms(self, segments: Collection[Segment]) -> int | None:
        assert segments == {Segment.NSE}
        return self.opens_ms

    def _spawn(self, part: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(part)
        self.tasks.add(task)
        return task

    def _count(self) -> None:
        self.done += 1

    async def account(self) -> Account:
        [account] = await sync_to_async(load_accounts)(self.now_ms)
        return account

    async def looks(self, times: int = 1) -> None:
        """As the supervisor does, every second."""
        for _ in range(times):
            self.keeper.look([await self.account()])
            await asyncio.sleep(0)


async def bench(monkeypatch: pytest.MonkeyPatch, way: LoginWay, ends_in_ms: int) -> Bench:
    bank = Bank(way)
    monkeypatch.setattr(registry, "load", lambda slug: bank)
    made = Bench(bank)
    broker, _ = await Broker.objects.aget_or_create(slug="toy", defaults={"name": "Toy"})
    credentials = {"key": "k", "token": jwt(made.now_ms + ends_in_ms)}
    await BrokerAccount.objects.acreate(broker=broker, name="main", credentials=credentials)
    return made


async def test_a_dead_token_is_followed_by_one_login_and_a_good_token(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await bench(monkeypatch, LoginWay.SCRIPTED, -HOUR_MS)
    await made.looks(5)
    await until(lambda: made.done == 1, "the login")
    await made.looks(5)
    assert made.bank.asked == 1
    assert (await made.account()).trouble is None


async def test_it_waits_for_the_morning(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await bench(monkeypatch, LoginWay.SCRIPTED, -HOUR_MS)
    made.opens_ms = made.now_ms + LEAD_MS + 1000
    await made.looks(5)
    assert made.tasks == set()
    made.now_ms += 1000
    await made.looks()
    await until(lambda: made.done == 1, "the login")


async def test_a_token_near_its_end_is_renewed_once_where_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await bench(monkeypatch, LoginWay.RENEWAL, 2 * HOUR_MS)
    await made.looks(3)
    assert made.tasks == set(), "not before it is near"
    made.now_ms += HOUR_MS + 1000
    await made.looks(3)
    await until(lambda: made.done == 1, "the renewal")
    await made.looks(3)
    assert made.bank.asked == 1


async def test_where_it_takes_a_person_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await bench(monkeypatch, LoginWay.REDIRECT, -HOUR_MS)
    await made.looks(5)
    assert made.tasks == set()


async def test_an_account_that_is_off_does_not_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await bench(monkeypatch, LoginWay.SCRIPTED, -HOUR_MS)
    await BrokerAccount.objects.aupdate(enabled=False)
    await made.looks(5)
    assert made.tasks == set()
