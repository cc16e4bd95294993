"""Looking instruments up over HTTP: with Django's test client, and from the servers that people run."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from brokers import catalog
from brokers.models import BrokerAccount
from marketdata import auth
from marketdata.hub import Hub
from marketdata.models import ApiKey
from marketdata.views import InstrumentsThrottle
from tests.brokers.instruments_of import OTHERS, TODAY, load, rows, sample
from tests.e2e.stack import Stack, Template

INSTRUMENTS = "/api/v1/instruments/"
CHAIN = "/api/v1/instruments/chain/"


@pytest.fixture(autouse=True)
def fresh_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither remembered keys nor counted requests of another test."""
    monkeypatch.setattr(auth, "_cache", auth.Cache())
    monkeypatch.setattr(auth, "_failures", auth.FailureWindow())
    InstrumentsThrottle.cache.clear()


@pytest.fixture
def market(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two brokers with accounts, on a day on which nothing has expired."""
    load("zerodha", sample())
    load("upstox", rows(OTHERS))
    monkeypatch.setattr(timezone, "localdate", lambda: TODAY)


@pytest.fixture
def key(transactional_db: None) -> str:
    """A key that was used just now, so that its use is not written down again."""
    row, key = auth.issue("charts")
    ApiKey.objects.filter(pk=row.pk).update(last_used_at=timezone.now())
    return key


def get(client: Client, path: str, key: str, **asked: object) -> tuple[int, Any]:
    answer = client.get(path, asked, headers={"authorization": f"Bearer {key}"})
    assert answer["Content-Type"] == "application/json"
    return answer.status_code, answer.json()


# --------------------------------------------------------------------------------------------------------------- search


def test_a_search_answers_with_rows(client: Client, market: None, key: str) -> None:
    BrokerAccount.objects.filter(broker__slug="upstox").delete()
    status, answer = get(client, INSTRUMENTS, key, q="nifty 24850 pe 31mar")
    assert (status, answer) == (
        200,
        {
            "status": "instruments",
            "count": 1,
            "instruments": [
                {
                    "symbol": "NIFTY31MAR2624850PE", "exchange": "NFO", "kind": "PE", "name": "NIFTY",
                    "expiry": "2026-03-31", "strike": 24850.0, "lot_size": 75, "tick_size": 0.05,
                    "brokers": ["zerodha"], "served_by": ["zerodha"],
                }
            ],
        },
    )  # fmt: skip


def test_what_a_row_lacks_is_left_out(client: Client, market: None, key: str) -> None:
    _, answer = get(client, INSTRUMENTS, key, q="m&m", exchange="NSE", kind="EQ", limit=1)
    assert answer["instruments"] == [
        {
            "symbol": "M&M", "exchange": "NSE", "kind": "EQ", "name": "MAHINDRA & MAHINDRA", "lot_size": 1,
            "tick_size": 0.1, "brokers": ["zerodha"], "served_by": ["zerodha"],
        }
    ]  # fmt: skip


def test_nothing_found_has_suggestions(client: Client, market: None, key: str) -> None:
    assert get(client, INSTRUMENTS, key, q="relaince") == (
        200,
        {"status": "instruments", "count": 0, "instruments": [], "suggestions": ["RELIANCE on NSE", "RELIANCE on BSE"]},
    )


def test_a_chain_answers_with_strikes(client: Client, market: None, key: str) -> None:
    asked = {"underlying": "NIFTY", "exchange": "NFO", "expiry": "2026-03-31", "around": "24855.5", "count": 1}
    status, answer = get(client, CHAIN, key, **asked)
    assert (status, answer) == (
        200,
        {
            "status": "chain",
            "underlying": "NIFTY",
            "exchange": "NFO",
            "expiries": ["2026-03-10", "2026-03-31"],
            "expiry": "2026-03-31",
            "strikes": [
                {"strike": 24800.0, "call": "NIFTY31MAR2624800CE", "put": "NIFTY31MAR2624800PE"},
                {"strike": 24850.0, "call": "NIFTY31MAR2624850CE", "put": "NIFTY31MAR2624850PE"},
                {"strike": 24900.0, "call": "NIFTY31MAR2624900CE", "put": "NIFTY31MAR2624900PE"},
            ],
        },
    )


def test_a_strike_without_a_put_leaves_it_out(client: Client, market: None, key: str) -> None:
    _, answer = get(client, CHAIN, key, underlying="SENSEX")
    assert answer["strikes"] == [{"strike": 81500.0, "call": "SENSEX12MAR2681500CE"}]


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("path", "asked", "status", "code", "sentence"),
    [
        (INSTRUMENTS, {}, 400, 4006, "The query is empty; say what to look for"),
        (INSTRUMENTS, {"q": "24850 ce"}, 400, 4006, "does not say of what"),
        (INSTRUMENTS, {"q": "sbin", "limit": "0"}, 400, 4006, "The limit is 0; use a number from 1 to 200."),
        (INSTRUMENTS, {"q": "sbin", "limit": "many"}, 400, 4006, "The limit is 'many'; write a whole number"),
        (INSTRUMENTS, {"q": "sbin", "limit": "-1"}, 400, 4006, "The limit is '-1'; write a whole number"),
        (INSTRUMENTS, {"q": "sbin", "limit": "²"}, 400, 4006, "write a whole number"),
        (INSTRUMENTS, {"q": "sbin", "exchange": "XX"}, 400, 4006, "There is no exchange 'XX'"),
        (INSTRUMENTS, {"q": "sbin", "kind": "XX"}, 400, 4006, "There is no kind 'XX'"),
        (
            INSTRUMENTS,
            {"q": "sbin", "exchnage": "NSE"},
            400,
            4006,
            "no parameter 'exchnage'; use q, exchange, kind, lim",
        ),
        (INSTRUMENTS, {"q": "sbin", "format": "xml"}, 400, 4006, "There is no parameter 'format'"),
        (CHAIN, {}, 400, 4006, "The underlying is missing; add for example underlying=NIFTY."),
        (CHAIN, {"underlying": "NIFTY", "expiry": "31MAR26"}, 400, 4006, "The expiry is '31MAR26'; write a date as"),
        (CHAIN, {"underlying": "NIFTY", "around": "nan"}, 400, 4006, "around is 'nan'; write a price such as"),
        (CHAIN, {"underlying": "NIFTY", "around": "x"}, 400, 4006, "around is 'x'; write a price such as"),
        (CHAIN, {"underlying": "NIFTY", "count": "501"}, 400, 4006, "The count is 501; use a number from 0 to 500."),
        (CHAIN, {"underlying": "NITFY"}, 404, 4044, "There are no options of 'NITFY'; did you mean NIFTY"),
        (CHAIN, {"underlying": "NIFTY", "expiry": "2026-03-11"}, 404, 4044, "the next ones do on 2026-03-10"),
    ],
)
def test_a_bad_parameter_is_one_sentence(
    client: Client, market: None, key: str, path: str, asked: dict[str, str], status: int, code: int, sentence: str
) -> None:
    got, answer = get(client, path, key, **asked)
    assert (got, answer["status"], answer["code"]) == (status, "error", code)
    assert sentence in answer["message"]
    assert ". " not in answer["message"]


def test_another_method_is_refused(client: Client, key: str) -> None:
    answer = client.post(INSTRUMENTS, {"q": "sbin"}, headers={"authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["code"]) == (405, 4007)


def test_a_database_that_does_not_answer_is_503_and_a_mistake_of_ours_500(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failure, status, name in ((OperationalError("gone"), 503, "unavailable"), (KeyError("x"), 500, "internal")):

        def fail(*_: object, failure: Exception = failure, **__: object) -> None:
            raise failure

        monkeypatch.setattr(catalog, "search", fail)
        got, answer = get(client, INSTRUMENTS, key, q="sbin")
        assert (got, answer["name"], answer["retry"]) == (status, name, True)


# -------------------------------------------------------------------------------------------------- who may, how often


def test_both_headers_open(client: Client, market: None, key: str) -> None:
    for headers in ({"authorization": f"bearer {key}"}, {"x-api-key": key}):
        assert client.get(INSTRUMENTS, {"q": "sbin"}, headers=headers).status_code == 200


def test_without_a_key_it_says_how_to_send_one(client: Client, transactional_db: None) -> None:
    answer = client.get(INSTRUMENTS, {"q": "sbin"})
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json() == {
        "status": "error",
        "code": 4013,
        "name": "no_key",
        "message": "Send an API key with the request, as Authorization: Bearer KEY or as X-API-Key: KEY.",
    }


@pytest.mark.parametrize("wrong", ["", "short", "sk_0123456789ab_" + "x" * 43, "Bearer", "ключ" * 8])
def test_a_wrong_key_is_told(client: Client, transactional_db: None, wrong: str) -> None:
    answer = client.get(INSTRUMENTS, {"q": "sbin"}, headers={"x-api-key": wrong})
    assert (answer.status_code, answer.json()["name"]) == (401, "wrong_key")


def test_wrong_keys_without_end_are_refused_unread(client: Client, market: None, key: str) -> None:
    for number in range(auth.FAILURES_PER_WINDOW):
        client.get(INSTRUMENTS, {"q": "sbin"}, headers={"x-api-key": f"not a key, number {number:09d}"})
    answer = client.get(INSTRUMENTS, {"q": "sbin"}, headers={"x-api-key": key})
    assert (answer.status_code, answer.json()["name"]) == (429, "too_many_failures")


def test_a_revoked_key_opens_nothing(client: Client, market: None, key: str) -> None:
    ApiKey.objects.update(active=False)
    assert get(client, INSTRUMENTS, key, q="sbin")[0] == 401


def test_staff_may_ask_with_their_session_and_others_may_not(
    client: Client, market: None, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("asha", password="a password")
    client.force_login(user)
    answer = client.get(INSTRUMENTS, {"q": "sbin"})
    assert (answer.status_code, answer.json()["name"]) == (403, "not_staff")
    user.is_staff = True
    user.save()
    assert client.get(INSTRUMENTS, {"q": "sbin"}).status_code == 200


def test_each_key_has_its_own_rate(client: Client, market: None, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, other = auth.issue("another")
    ApiKey.objects.filter(pk=row.pk).update(last_used_at=timezone.now())
    monkeypatch.setattr(InstrumentsThrottle, "rate", "2/min", raising=False)
    assert [get(client, INSTRUMENTS, key, q="sbin")[0] for _ in range(3)] == [200, 200, 429]
    answer = client.get(CHAIN, headers={"x-api-key": key})
    assert (answer.status_code, answer.json()["name"]) == (429, "too_many_requests")
    assert 0 < int(answer["Retry-After"]) <= 60
    assert get(client, INSTRUMENTS, other, q="sbin")[0] == 200


# -------------------------------------------------------------------------------------------------------------- servers


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A database with the simulator's instruments, an account and a key."""
    return Template(tmp_path_factory.mktemp("template"), symbols=400)


@pytest.fixture(params=["run_server", "daphne", "uvicorn"])
def served(request: pytest.FixtureRequest, tmp_path: Path, template: Template) -> Iterator[Stack]:
    """One server process alone, without Redis."""
    stack = Stack(tmp_path / "stack", template, redis=False, server=request.param)
    try:
        stack.add_server("server", stack.port)
        yield stack
    finally:
        stack.stop()
        print(stack.logs())


def test_every_server_answers(served: Stack) -> None:
    def ask(path: str, **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.loads(refusal.read())

    status, answer = ask(f"{INSTRUMENTS}?q=sbin", Authorization=f"Bearer {served.key}")
    assert (status, answer["instruments"][0]["symbol"]) == (200, "SBIN")
    status, answer = ask(f"{CHAIN}?underlying=NIFTY&around=24850&count=2", **{"X-API-Key": served.key})
    assert (status, len(answer["strikes"])) == (200, 5)
    assert ask(f"{INSTRUMENTS}?q=sbin")[0] == 401


def test_whether_it_is_ready_is_told_to_anybody(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").json() == {"alive": True}
    monkeypatch.setattr(Hub, "running", None)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)

    class Well:
        def unready(self) -> list[str]:
            return []

    monkeypatch.setattr(Hub, "running", Well())
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})
