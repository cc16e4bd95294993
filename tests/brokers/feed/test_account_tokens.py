"""How an account's token is doing, as the database, the broker's facts and the clock have it."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

import msgspec
import pytest

from brokers import registry
from brokers.contract import Credential, ErrorKind, LoginWay, TokenLife
from brokers.feed.account_tokens import TokenView, token_of
from brokers.feed.accounts import load_accounts, mark_refused
from brokers.models import Attempt, Broker, BrokerAccount
from marketdata.ticks import FeedState, TokenState
from tests.brokers.feed.bench import Toy

pytestmark = pytest.mark.django_db

NINE = dt.datetime(2026, 11, 25, 3, 30, tzinfo=dt.UTC)
HOUR_MS = 3_600_000
NOW_MS = int(NINE.timestamp() * 1000)


def jwt(end_ms: int) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": end_ms // 1000}).encode()).decode().rstrip("=")
    return f"head.{claims}.signature"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A broker whose token ends at 6:00 unless it says otherwise, and that takes a person to log in."""
    one = Toy(token=TokenLife(names=("token",), ends_ist="06:00"), logins=frozenset({LoginWay.REDIRECT}))
    monkeypatch.setattr(registry, "load", lambda slug: one)
    return one


def by_itself(toy: Toy) -> None:
    """Now it can log in without a person, if it has the PIN."""
    pin = Credential(name="pin", label="PIN", required=False)
    toy.spec = msgspec.structs.replace(
        toy.spec,
        logins=frozenset({LoginWay.SCRIPTED}),
        login_needs=("pin",),
        credentials=(*toy.spec.credentials, pin),
    )


def add(**credentials: str) -> BrokerAccount:
    broker, _ = Broker.objects.get_or_create(slug="toy", defaults={"name": "Toy"})
    row = BrokerAccount.objects.create(broker=broker, name="main", credentials={"key": "k"} | credentials)
    row.token_since = NINE
    row.save(update_fields=["token_since"])
    return row


def view(row: BrokerAccount, hours: float = 0.0) -> TokenView:
    return token_of(BrokerAccount.objects.get(pk=row.pk), NOW_MS + int(hours * HOUR_MS))


def test_by_the_brokers_clock_it_is_valid_then_expiring_and_never_dead_before_the_broker_says_so(toy: Toy) -> None:
    row = add(token="opaque")
    assert view(row) == TokenView(
        TokenState.VALID, "The token ends on 26 Nov at about 06:00.", NOW_MS + 21 * HOUR_MS, False
    )
    assert view(row, 20).state is TokenState.EXPIRING
    late = view(row, 24)
    assert late.state is TokenState.EXPIRING
    assert "should have ended" in late.sentence


def test_a_token_that_says_when_it_ends_is_dead_from_then_on(toy: Toy) -> None:
    row = add(token=jwt(NOW_MS + 2 * HOUR_MS))
    assert view(row).state is TokenState.VALID
    assert view(row, 1).state is TokenState.EXPIRING
    dead = view(row, 2)
    assert dead.state is TokenState.WAITING_FOR_LOGIN
    assert dead.sentence == "The token ended on 25 Nov at 11:00; log in, or enter one, in the admin."
    [account] = load_accounts(NOW_MS + 2 * HOUR_MS)
    assert account.trouble is not None
    assert account.trouble.state is FeedState.WAITING_FOR_LOGIN
    assert account.is_on, "its instruments keep their places, and wait there"


def test_an_account_without_one_waits_for_a_login(toy: Toy) -> None:
    assert view(add()).state is TokenState.WAITING_FOR_LOGIN


def test_a_missing_right_is_no_matter_of_the_token(toy: Toy) -> None:
    row = add(token="t")
    [account] = load_accounts(NOW_MS)
    mark_refused(account, ErrorKind.ENTITLEMENT, NOW_MS)
    assert view(row).state is TokenState.NOT_ENTITLED


def test_one_that_can_log_in_by_itself_says_so_while_it_still_may(toy: Toy) -> None:
    by_itself(toy)
    row = add(token="t", pin="1234")
    [account] = load_accounts(NOW_MS)
    mark_refused(account, ErrorKind.AUTH, NOW_MS)
    assert view(row).state is TokenState.TOKEN_EXPIRED
    row.refresh_from_db()
    from brokers.logins import login_fingerprint

    fields: dict[str, Any] = {"token": row.token_fingerprint, "login": login_fingerprint(row)}
    Attempt.objects.create(account=row, what="login", automatic=True, outcome="refused", at=NINE, **fields)
    waiting = view(row)
    assert waiting.state is TokenState.WAITING_FOR_LOGIN
    assert "not tried again" in waiting.sentence
    [account] = load_accounts(NOW_MS)
    assert account.trouble is not None
    assert account.trouble.message == waiting.sentence


def test_without_what_the_login_needs_it_takes_a_person(toy: Toy) -> None:
    by_itself(toy)
    waiting = view(add())
    assert waiting.state is TokenState.WAITING_FOR_LOGIN
    assert "PIN" in waiting.sentence


def test_a_broker_whose_keys_do_not_change_has_no_token_of_the_day(toy: Toy) -> None:
    toy.spec = msgspec.structs.replace(toy.spec, token=None)
    assert view(add(token="t")).state is None
