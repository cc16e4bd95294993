"""Tokens over REST: for staff only, never over a line others can read, errors in one shape, no secret in any answer."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from brokers import logins
from brokers.models import Attempt, Broker, BrokerAccount
from brokers.views.tokens import AccountsThrottle, PasswordThrottle

ACCOUNTS = "/api/v1/accounts/"
TOKEN = "/api/v1/accounts/zerodha/main/token/"


@pytest.fixture(autouse=True)
def fresh_counts() -> Iterator[None]:
    PasswordThrottle.cache.clear()
    yield
    PasswordThrottle.cache.clear()


@pytest.fixture
def account(db: None) -> BrokerAccount:
    broker = Broker.objects.get(slug="zerodha")
    held = {"api_key": "kitekey", "api_secret": "swordfish-secret"}
    return BrokerAccount.objects.create(broker=broker, name="main", credentials=held)


@pytest.fixture
def staff(django_user_model: Any) -> Any:
    user = django_user_model.objects.create_user("robot", password="robot's own", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_brokeraccount"))
    return user


def basic(name: str = "robot", password: str = "robot's own") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def post(client: Client, sent: Any, path: str = TOKEN, **extra: Any) -> Any:
    body = sent if isinstance(sent, str) else json.dumps(sent)
    return client.post(path, body, content_type="application/json", **({"headers": basic()} | extra))


def stored(account: BrokerAccount) -> Any:
    return BrokerAccount.objects.get(pk=account.pk).credentials.get("access_token")


def error_of(answer: Any) -> tuple[int, int, str]:
    body = answer.json()
    assert body["status"] == "error"
    assert body["message"].endswith((".", "?"))
    return answer.status_code, body["code"], body["name"]


def test_a_program_stores_a_token_with_the_password_of_staff(
    client: Client, account: BrokerAccount, staff: Any
) -> None:
    answer = post(client, {"access_token": "swordfish"})
    body = answer.json()
    assert (answer.status_code, body["status"], body["token"]) == (200, "token_stored", "valid")
    assert body["token_ends"].endswith("06:00:00+05:30")
    assert body["token_end_is_certain"] is False
    assert "swordfish" not in answer.content.decode()
    assert answer["Cache-Control"] == "no-store"
    assert stored(account) == "swordfish"
    assert Attempt.objects.get().detail == "over REST, by robot"


def test_the_form_in_which_openalgo_keeps_zerodhas_token_is_taken(
    client: Client, account: BrokerAccount, staff: Any
) -> None:
    assert post(client, {"access_token": "kitekey:swordfish"}).status_code == 200
    assert stored(account) == "swordfish"
    answer = post(client, {"access_token": "otherkey:sturgeon"})
    assert error_of(answer) == (400, 4002, "bad_message")
    assert "sturgeon" not in answer.content.decode()
    assert stored(account) == "swordfish"


def test_the_list_tells_how_tokens_are_doing_and_no_secret(client: Client, account: BrokerAccount, staff: Any) -> None:
    BrokerAccount.objects.create(
        broker=Broker.objects.get(slug="angel"), name="demo", endpoint="ws://127.0.0.1:9001", enabled=False,
        credentials={"jwt_token": "swordfish", "feed_token": "swordfish"},
    )  # fmt: skip
    answer = client.get(ACCOUNTS, headers=basic())
    body = answer.json()
    assert (body["status"], body["count"]) == ("accounts", 2)
    angel, zerodha = sorted(body["accounts"], key=lambda each: str(each["broker"]))
    assert (angel["simulated"], angel["enabled"], angel["token"]) == (True, False, "valid")
    assert zerodha == {
        "broker": "zerodha",
        "account": "main",
        "enabled": True,
        "simulated": False,
        "token": "waiting_for_login",
        "message": "It has no token yet; log in, or enter one, in the admin.",
    }
    assert "swordfish" not in answer.content.decode()


def test_the_admins_session_asks_too_and_needs_its_csrf_token_to_change(
    admin_user: Any, account: BrokerAccount
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.get(ACCOUNTS).json()["count"] == 1
    assert error_of(post(client, {"access_token": "t"}, headers={})) == (403, 4017, "no_csrf")
    client.get("/admin/")
    page = client.get(f"/admin/brokers/brokeraccount/{account.pk}/change/").content.decode()
    csrf = page.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    assert post(client, {"access_token": "t"}, headers={"x-csrftoken": csrf}).status_code == 200
    assert stored(account) == "t"


def test_without_a_login_one_is_asked_for(client: Client, account: BrokerAccount) -> None:
    answer = client.get(ACCOUNTS)
    assert error_of(answer) == (401, 4010, "not_authenticated")
    assert answer["WWW-Authenticate"].startswith("Basic ")
    assert error_of(client.get(ACCOUNTS, headers={"authorization": "Bearer sk_x"})) == (401, 4010, "not_authenticated")


def test_a_wrong_password_is_refused_and_many_are_not_even_read(
    client: Client, account: BrokerAccount, staff: Any
) -> None:
    assert error_of(client.get(ACCOUNTS, headers=basic(password="x"))) == (401, 4015, "wrong_password")
    for _ in range(29):
        client.get(ACCOUNTS, headers=basic(password="x"))
    answer = client.get(ACCOUNTS, headers=basic())
    assert error_of(answer) == (429, 4224, "too_many_failures")
    assert 0 < int(answer["Retry-After"]) <= 60
    assert client.get(ACCOUNTS, headers=basic(), REMOTE_ADDR="127.0.0.2").status_code == 200


@pytest.mark.parametrize(
    ("extra", "accepted"),
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, True),
        ({"REMOTE_ADDR": "::1"}, True),
        ({"REMOTE_ADDR": "192.0.2.7"}, False),
        ({"REMOTE_ADDR": ""}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.7"}, False),
        ({"REMOTE_ADDR": "192.0.2.7", "wsgi.url_scheme": "https"}, True),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.7", "wsgi.url_scheme": "https"}, True),
    ],
)
def test_a_password_is_taken_from_here_or_over_tls_only(
    client: Client, account: BrokerAccount, staff: Any, extra: dict[str, str], accepted: bool
) -> None:
    answer = client.get(ACCOUNTS, headers=basic(), **extra)  # type: ignore[arg-type]  # names of the environment
    if accepted:
        assert answer.status_code == 200
    else:
        assert error_of(answer) == (403, 4016, "not_private")


def test_who_is_no_staff_gets_nothing(client: Client, account: BrokerAccount, django_user_model: Any) -> None:
    django_user_model.objects.create_user("robot", password="robot's own")
    assert error_of(client.get(ACCOUNTS, headers=basic())) == (403, 4014, "not_staff")
    assert error_of(post(client, {"access_token": "t"})) == (403, 4014, "not_staff")


def test_staff_without_the_right_see_and_change_only_their_own(
    client: Client, account: BrokerAccount, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("robot", password="robot's own", is_staff=True)
    assert client.get(ACCOUNTS, headers=basic()).json()["count"] == 0
    assert error_of(post(client, {"access_token": "t"})) == (404, 4045, "unknown_account")
    user.user_permissions.add(Permission.objects.get(codename="view_brokeraccount"))
    assert error_of(post(client, {"access_token": "t"})) == (403, 4018, "not_yours")
    user.user_permissions.clear()
    BrokerAccount.objects.update(owner=user)
    assert client.get(ACCOUNTS, headers=basic()).json()["count"] == 1
    assert post(client, {"access_token": "t"}).status_code == 200


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ("{", (400, 4001, "bad_json")),
        ("[]", (400, 4002, "bad_message")),
        ({}, (400, 4002, "bad_message")),
        ({"access_token": ""}, (400, 4002, "bad_message")),
        ({"access_token": 5}, (400, 4002, "bad_message")),
        ({"api_secret": "x"}, (400, 4002, "bad_message")),
        ({"access_token": "t", "api_key": "x"}, (400, 4002, "bad_message")),
    ],
)
def test_what_is_no_token_is_refused_in_the_one_shape(
    client: Client, account: BrokerAccount, staff: Any, sent: Any, problem: tuple[int, int, str]
) -> None:
    assert error_of(post(client, sent)) == problem
    assert (stored(account), Attempt.objects.count()) == (None, 0)


def test_an_unknown_account_is_told_with_what_may_be_meant(client: Client, account: BrokerAccount, staff: Any) -> None:
    answer = post(client, {"access_token": "t"}, "/api/v1/accounts/zerodha/mian/token/")
    assert error_of(answer) == (404, 4045, "unknown_account")
    assert answer.json()["message"] == "Zerodha has no account 'mian'; did you mean main?"


def test_a_name_with_blanks_and_slashes_is_found(client: Client, account: BrokerAccount, staff: Any) -> None:
    BrokerAccount.objects.update(name="desk 1/2")
    assert post(client, {"access_token": "t"}, "/api/v1/accounts/zerodha/desk%201/2/token/").status_code == 200
    assert stored(account) == "t"


def test_other_methods_are_refused(client: Client, account: BrokerAccount, staff: Any) -> None:
    assert error_of(client.get(TOKEN, headers=basic())) == (405, 4007, "bad_method")
    assert error_of(post(client, {}, ACCOUNTS)) == (405, 4007, "bad_method")


def test_requests_that_come_too_fast_are_told_when_to_come_again(
    admin_client: Client, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccountsThrottle, "rate", "1/min")
    assert admin_client.get(ACCOUNTS).status_code == 200
    answer = admin_client.get(ACCOUNTS)
    assert error_of(answer) == (429, 4225, "too_many_requests")
    assert int(answer["Retry-After"]) >= 1


def test_what_fails_on_our_side_is_in_the_one_shape(
    admin_client: Client, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OperationalError("disk I/O error") from sqlite3.OperationalError()

    monkeypatch.setattr(logins, "accounts_of", fail)
    answer = admin_client.get(ACCOUNTS)
    assert error_of(answer) == (503, 5001, "unavailable")
    assert answer.json()["retry"] is True


def test_the_token_is_as_old_as_it_was_stored(client: Client, account: BrokerAccount, staff: Any) -> None:
    before = timezone.now()
    since = post(client, {"access_token": "t"}).json()["token_since"]
    assert before.replace(microsecond=0) <= timezone.datetime.fromisoformat(since) <= timezone.now()
