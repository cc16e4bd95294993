"""Attempts are written down before they are made, and tokens are stored once they are got."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import serve

from brokers import logins, registry
from brokers.contract import ErrorKind, HttpRequest, LoginSteps, LoginWay, PageSteps, Refused, TokenLife
from brokers.logins import AlreadyTried, Knock, LoginFailed, Outcome, What
from brokers.models import Attempt, Broker, BrokerAccount
from tests.brokers.feed.bench import Toy
from tests.conftest import free_port

pytestmark = pytest.mark.django_db(transaction=True)


class Bank(Toy):
    """A broker that asks one thing over HTTP and answers with what it was told to."""

    def __init__(self, url: str) -> None:
        super().__init__(token=TokenLife(names=("token",)), logins=frozenset(LoginWay))
        self.url = url
        self.refusal, self.kind = "", ErrorKind.AUTH
        self.seen: list[Mapping[str, str]] = []

    def login_url(self, credentials: Mapping[str, str], endpoint: str, state: str) -> PageSteps:
        yield from ()
        return f"{self.url}/page?state={state}"

    def exchange(
        self, credentials: Mapping[str, str], endpoint: str, callback: Mapping[str, str], now_ms: int
    ) -> LoginSteps:
        return self._answer({**credentials, **callback})

    def login(self, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> LoginSteps:
        return self._answer(credentials)

    def renew(self, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> LoginSteps:
        return self._answer(credentials)

    def _answer(self, credentials: Mapping[str, str]) -> LoginSteps:
        yield HttpRequest(method="GET", url=self.url)
        self.seen.append(credentials)
        if self.refusal:
            raise Refused(self.kind, self.refusal)
        return {"token": f"new {len(self.seen)}"}


@pytest.fixture
async def bank(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bank]:
    async with _listening() as url:
        toy = Bank(url)
        monkeypatch.setattr(registry, "load", lambda slug: toy)
        yield toy


@asynccontextmanager
async def _listening() -> AsyncIterator[str]:
    async with serve(lambda socket: None, "127.0.0.1", 0, process_request=lambda s, r: s.respond(200, "")) as server:  # type: ignore[arg-type]
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def account(**credentials: str) -> BrokerAccount:
    broker, _ = await Broker.objects.aget_or_create(slug="toy", defaults={"name": "Toy"})
    held = {"key": "k", "token": "old"} | credentials
    return await BrokerAccount.objects.acreate(broker=broker, name="main", credentials=held)


async def attempts() -> list[tuple[str, str]]:
    return [(each.what, each.outcome) async for each in Attempt.objects.order_by("at")]


async def test_a_login_stores_the_token_and_leaves_the_rest(bank: Bank) -> None:
    row = await account(pin="1234")
    before = row.token_since
    await logins.log_in(row.pk)
    await row.arefresh_from_db()
    assert row.credentials == {"key": "k", "token": "new 1", "pin": "1234"}
    assert before is not None
    assert row.token_since is not None
    assert row.token_since > before
    assert await attempts() == [("login", "ok")]


async def test_a_redirect_is_exchanged_with_what_came_back(bank: Bank) -> None:
    row = await account()
    assert await logins.page(row.pk, "s") == f"{bank.url}/page?state=s"
    await logins.exchange(row.pk, {"code": "c"})
    assert bank.seen[0]["code"] == "c"
    assert await attempts() == [("page", "ok"), ("exchange", "ok")]


async def test_a_refusal_is_told_and_stores_nothing(bank: Bank) -> None:
    row, bank.refusal = await account(), "The PIN is wrong."
    with pytest.raises(LoginFailed, match="The PIN is wrong"):
        await logins.log_in(row.pk)
    await row.arefresh_from_db()
    assert row.credentials["token"] == "old"
    assert await attempts() == [("login", "refused")]


async def test_a_brokers_trouble_of_its_own_is_no_refusal(bank: Bank) -> None:
    row, bank.refusal, bank.kind = await account(), "Try again later.", ErrorKind.NETWORK
    with pytest.raises(LoginFailed, match="Try again later"):
        await logins.log_in(row.pk)
    assert await attempts() == [("login", "failed")]


async def test_the_same_is_not_tried_twice_without_a_person(bank: Bank) -> None:
    row, bank.refusal = await account(), "The PIN is wrong."
    with pytest.raises(LoginFailed):
        await logins.log_in(row.pk, automatic=True)
    with pytest.raises(AlreadyTried):
        await logins.log_in(row.pk, automatic=True)
    assert len(bank.seen) == 1
    with pytest.raises(LoginFailed):
        await logins.log_in(row.pk)
    assert len(bank.seen) == 2, "a person may"


async def test_of_two_that_try_at_once_one_does(bank: Bank) -> None:
    row = await account()
    done = await asyncio.gather(*(logins.log_in(row.pk, automatic=True) for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["AlreadyTried", "NoneType"]
    assert len(bank.seen) == 1


async def test_an_attempt_that_was_cut_short_counts(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    row = await account()

    async def die(steps: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
        patch.setattr(logins, "walk", die)
        await logins.log_in(row.pk, automatic=True)
    assert await attempts() == [("login", "begun")]
    with pytest.raises(AlreadyTried):
        await logins.log_in(row.pk, automatic=True)


async def test_what_never_reached_the_broker_may_be_tried_again(bank: Bank) -> None:
    row, there, bank.url = await account(), bank.url, f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LoginFailed, match="cannot be reached") as failed:
        await logins.log_in(row.pk, automatic=True)
    assert failed.value.outcome is Outcome.UNREACHED
    bank.url = there
    await logins.log_in(row.pk, automatic=True)
    assert await attempts() == [("login", "unreached"), ("login", "ok")]


async def test_what_was_edited_during_a_login_is_kept(bank: Bank) -> None:
    row = await account(pin="1234")
    steps = bank.login({}, "", 0)
    next(steps)
    row.credentials = row.credentials | {"pin": "9999"}
    await row.asave()
    await asyncio.to_thread(logins._store, row.pk, {"token": "new"})
    await row.arefresh_from_db()
    assert row.credentials == {"key": "k", "token": "new", "pin": "9999"}


async def test_a_token_that_is_entered_must_be_what_the_broker_calls_it(bank: Bank) -> None:
    row = await account()
    for wrong in ({"pin": "1"}, {"token": "  "}, {}):
        with pytest.raises(LoginFailed, match="The token of Toy is token"):
            await asyncio.to_thread(logins.enter, row, wrong, source="test")
    await asyncio.to_thread(logins.enter, row, {"token": " mine "}, source="test")
    await row.arefresh_from_db()
    assert row.credentials["token"] == "mine"
    assert await attempts() == [("entry", "ok")]


async def test_the_token_is_as_old_as_it_was_stored_whatever_else_changes(bank: Bank) -> None:
    row = await account()
    since = row.token_since
    row.credentials = row.credentials | {"pin": "1"}
    await row.asave()
    assert row.token_since == since
    row.credentials = row.credentials | {"token": "another"}
    await row.asave(update_fields=["credentials"])
    await row.arefresh_from_db()
    assert row.token_since is not None
    assert since is not None
    assert row.token_since > since


async def test_knocks_are_written_once_each_with_their_latest_outcome(bank: Bank) -> None:
    row = await account()
    now = dt.datetime(2026, 11, 25, 3, 45, tzinfo=dt.UTC)
    at_ms = int(now.timestamp() * 1000)
    first = Knock(row.pk, "market", at_ms, Outcome.BEGUN)
    await asyncio.to_thread(logins.write_knocks, [first, Knock(row.pk + 1, "market", at_ms, Outcome.BEGUN)])
    denied = first._replace(outcome=Outcome.REFUSED, detail="limit: HTTP 429")
    await asyncio.to_thread(logins.write_knocks, [denied])
    assert await asyncio.to_thread(logins.read_knocks, now) == [denied]
    for number in range(logins.KEPT_KNOCKS + 5):
        await asyncio.to_thread(logins.write_knocks, [first._replace(at_ms=at_ms + 1 + number)])
    assert await Attempt.objects.filter(what=What.CONNECT).acount() == logins.KEPT_KNOCKS
