"""Fyers' login: the page, the auth_code, the hash of the app, refusals as documented."""

from __future__ import annotations

import hashlib

import pytest

from brokers.adapters.fyers import ADAPTER, DATA_FEED
from brokers.contract import ErrorKind, HttpRequest
from tests.adapters.stepping import answer, refused, walked

CREDENTIALS = {"app_id": "ABCD1234XX-100", "app_secret": "secret", "redirect_uri": "https://me.example/back"}
REDIRECT = {"s": "ok", "code": "200", "auth_code": "ac", "state": "st"}

# https://myapi.fyers.in/docsv3, Authentication, shortened
LOGGED_IN = {"s": "ok", "code": 200, "message": "", "access_token": "eyJ0.eyJp.sig", "refresh_token": "eyJ0.eyJh.sig"}


def test_the_page_has_what_the_app_was_registered_with() -> None:
    requests, page = walked(ADAPTER.login_url(CREDENTIALS, DATA_FEED.endpoint, "st"))
    assert requests == []
    assert page == (
        "https://api-t1.fyers.in/api/v3/generate-authcode?client_id=ABCD1234XX-100"
        "&redirect_uri=https%3A%2F%2Fme.example%2Fback&response_type=code&state=st"
    )


def test_the_auth_code_becomes_the_days_token() -> None:
    requests, gained = walked(ADAPTER.exchange(CREDENTIALS, DATA_FEED.endpoint, REDIRECT, 0), answer(LOGGED_IN))
    assert requests == [
        HttpRequest(
            method="POST",
            url="https://api-t1.fyers.in/api/v3/validate-authcode",
            json={
                "grant_type": "authorization_code",
                "appIdHash": hashlib.sha256(b"ABCD1234XX-100:secret").hexdigest(),
                "code": "ac",
            },
        )
    ]
    assert gained == {"access_token": "eyJ0.eyJp.sig"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"s": "error", "code": -413, "message": "invalid app id hash"}, ErrorKind.AUTH, "invalid app id hash"),
        (200, {"s": "error", "code": -437, "message": "invalid auth code"}, ErrorKind.AUTH, "invalid auth code"),
        (
            429,
            {"s": "error", "code": 429, "message": "request limit reached"},
            ErrorKind.LIMIT,
            "request limit reached",
        ),
        (401, {"s": "error", "message": None}, ErrorKind.AUTH, "HTTP 401"),
    ],
)
def test_a_refusal_says_why_in_fyers_words(status: int, body: object, kind: ErrorKind, words: str) -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, DATA_FEED.endpoint, REDIRECT, 0), answer(body, status))
    assert (refusal.kind, str(refusal)) == (kind, f"Fyers refused the login: {words}.")


def test_a_redirect_that_says_no_is_not_exchanged() -> None:
    told = {"s": "error", "code": "-1", "message": "user denied", "state": "st"}
    refusal = refused(ADAPTER.exchange(CREDENTIALS, DATA_FEED.endpoint, told, 0))
    assert (refusal.kind, str(refusal)) == (ErrorKind.AUTH, "Fyers did not log in: user denied.")
    refusal = refused(ADAPTER.exchange(CREDENTIALS, DATA_FEED.endpoint, {"s": "error"}, 0))
    assert str(refusal) == "Fyers did not log in: s=error."


def test_the_code_beside_the_auth_code_is_not_taken_for_it() -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, DATA_FEED.endpoint, {"s": "ok", "code": "200"}, 0))
    assert refusal.kind is ErrorKind.PROTOCOL
    assert str(refusal) == "Fyers came back without auth_code; begin the login again."


def test_what_the_page_needs_is_named() -> None:
    refusal = refused(ADAPTER.login_url({"app_id": "ABCD1234XX-100"}, DATA_FEED.endpoint, "st"))
    assert str(refusal) == "A login at Fyers needs: App secret, Redirect URL; enter it in the admin."
