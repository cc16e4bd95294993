"""What may connect, and with what limits, as the database has it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from brokers.adapters.zerodha import SPEC
from brokers.contract import ErrorKind, Limits
from brokers.feed.accounts import Account, effective_limits, load_accounts, mark_refused
from brokers.models import Broker, BrokerAccount
from marketdata.ticks import FeedState, Mode

pytestmark = pytest.mark.django_db

NOW_MS = time.time_ns() // 1_000_000
LOGIN = {"api_key": "k", "access_token": "s3cr3t-t0ken"}


def add(**fields: Any) -> BrokerAccount:
    broker, _ = Broker.objects.get_or_create(slug="zerodha", defaults={"name": "Zerodha"})
    return BrokerAccount.objects.create(**{"broker": broker, "name": "main", "credentials": LOGIN} | fields)


def the_account() -> Account:
    [account] = load_accounts(NOW_MS)
    return account


def state_of(account: Account) -> FeedState | None:
    return account.trouble.state if account.trouble else None


def test_an_account_with_all_it_needs_may_connect() -> None:
    add(feed="desk")
    account = the_account()
    assert (account.trouble, account.is_on, account.simulated, account.feed) == (None, True, False, "desk")
    assert [socket.limits for socket in account.sockets] == [SPEC.feeds[0].limits]


def test_what_is_optional_need_not_be_there_and_what_is_required_must() -> None:
    row = add(credentials={"api_key": "k"})
    account = the_account()
    assert state_of(account) is FeedState.WAITING_FOR_LOGIN
    assert account.trouble is not None
    assert "no token" in account.trouble.message
    row.credentials = LOGIN
    row.save()
    assert the_account().trouble is None


def test_credentials_under_a_lost_key_are_no_reason_to_stop(settings: Any) -> None:
    add()
    settings.CREDENTIALS_KEYS = ["another key, long enough to be taken for a good one"]
    account = the_account()
    assert state_of(account) is FeedState.WAITING_FOR_LOGIN
    assert account.trouble is not None
    assert "CREDENTIALS_KEY" in account.trouble.message


def test_no_text_form_of_an_account_holds_its_secrets() -> None:
    add()
    assert "s3cr3t" not in repr(the_account())
    assert "s3cr3t" not in f"{the_account()}"


def test_an_account_with_an_endpoint_is_simulated_and_off_beside_a_real_one() -> None:
    add(name="demo", endpoint="ws://127.0.0.1:9001")
    assert (the_account().simulated, the_account().is_on) == (True, True)
    real = add()
    demo, _ = load_accounts(NOW_MS)
    assert state_of(demo) is FeedState.DISABLED
    real.enabled = False
    real.save()
    demo, _ = load_accounts(NOW_MS)
    assert demo.is_on


@pytest.mark.parametrize("kind", [ErrorKind.AUTH, ErrorKind.ENTITLEMENT])
def test_refused_credentials_are_known_again_and_others_are_not_taken_for_them(kind: ErrorKind) -> None:
    row = add()
    mark_refused(the_account(), kind, NOW_MS)
    states = {ErrorKind.AUTH: FeedState.WAITING_FOR_LOGIN, ErrorKind.ENTITLEMENT: FeedState.NOT_ENTITLED}
    assert state_of(the_account()) is states[kind]
    row.refresh_from_db()
    assert row.refused_at is not None
    assert "s3cr3t" not in row.refused_fingerprint
    row.credentials = LOGIN | {"access_token": "new"}
    row.save()
    assert the_account().trouble is None
    row.credentials = LOGIN | {"api_secret": "new"}
    row.save()
    assert state_of(the_account()) is states[kind], "going back to it does not help, whatever else is new"


def test_a_broker_that_is_off_serves_nothing() -> None:
    row = add()
    row.broker.enabled = False
    row.broker.save()
    account = the_account()
    assert (account.is_on, state_of(account)) == (False, FeedState.DISABLED)


def test_limits_are_the_rows_else_the_adapters_else_the_settings(settings: Any) -> None:
    settings.MAX_SYMBOLS_PER_WEBSOCKET, settings.MAX_WEBSOCKET_CONNECTIONS = 400, 2
    own = Limits(instruments_per_connection=3000, connections_per_account=1, by_mode={Mode.DEPTH: 500})
    silent = Limits()
    plain, row = Broker(), Broker(instruments_per_connection=50, connections_per_account=4)

    def numbers(limits: Limits, broker: Broker) -> tuple[int, int]:
        effective = effective_limits(limits, broker)
        return effective.instruments_per_connection, effective.connections_per_account

    assert numbers(own, plain) == (3000, 1)
    assert numbers(silent, plain) == (400, 2)
    assert numbers(own, row) == numbers(silent, row) == (50, 4)
    assert effective_limits(own, plain).room(Mode.DEPTH) == 500
    assert effective_limits(own, row).room(Mode.DEPTH) == 50
