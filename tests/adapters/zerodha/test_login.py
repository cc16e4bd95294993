"""Kite's login: the page, the request token, the checksum, refusals as documented."""

from __future__ import annotations

import hashlib

import pytest

from brokers.adapters.zerodha import ADAPTER
from brokers.contract import ErrorKind, HttpRequest
from tests.adapters.stepping import answer, refused, walked

FEED = ADAPTER.spec.feeds[0]
CREDENTIALS = {"api_key": "key", "api_secret": "secret"}
REDIRECT = {"request_token": "rt", "action": "login", "status": "success", "state": "s/1"}

# https://kite.trade/docs/connect/v3/user/, shortened
LOGGED_IN = {
    "status": "success",
    "data": {
        "user_id": "XX000",
        "api_key": "key",
        "access_token": "yyyyyy",
        "public_token": "zzzzzz",
        "refresh_token": "",
        "login_time": "2021-01-01 16:15:14",
    },
}


def test_the_page_carries_the_state_in_its_redirect_params() -> None:
    requests, page = walked(ADAPTER.login_url(CREDENTIALS, FEED.endpoint, "s/1"))
    assert requests == []
    assert page == "https://kite.zerodha.com/connect/login?v=3&api_key=key&redirect_params=state%3Ds%252F1"


def test_the_request_token_becomes_the_days_token() -> None:
    requests, gained = walked(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, REDIRECT, 0), answer(LOGGED_IN))
    assert requests == [
        HttpRequest(
            method="POST",
            url="https://api.kite.trade/session/token",
            headers={"X-Kite-Version": "3"},
            form={"api_key": "key", "request_token": "rt", "checksum": hashlib.sha256(b"keyrtsecret").hexdigest()},
        )
    ]
    assert gained == {"access_token": "yyyyyy"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            403,
            {"status": "error", "message": "Token is invalid or has expired.", "error_type": "TokenException"},
            ErrorKind.AUTH,
            "Zerodha refused the login: Token is invalid or has expired.",
        ),
        (
            400,
            {"status": "error", "message": "Invalid `checksum`.", "data": None, "error_type": "InputException"},
            ErrorKind.AUTH,
            "Zerodha refused the login: Invalid `checksum`.",
        ),
        (
            400,
            {"status": "error", "message": "Unable to reach the OMS", "error_type": "NetworkException"},
            ErrorKind.NETWORK,
            "Zerodha refused the login: Unable to reach the OMS.",
        ),
        (403, {}, ErrorKind.AUTH, "Zerodha refused the login: HTTP 403."),
        (429, {"message": "Too many requests"}, ErrorKind.LIMIT, "Zerodha refused the login: Too many requests."),
    ],
)
def test_a_refusal_says_why_in_kites_words(status: int, body: object, kind: ErrorKind, words: str) -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, REDIRECT, 0), answer(body, status))
    assert (refusal.kind, str(refusal)) == (kind, words)


def test_a_redirect_that_says_no_is_not_exchanged() -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, REDIRECT | {"status": "error"}, 0))
    assert (refusal.kind, str(refusal)) == (ErrorKind.AUTH, "Zerodha did not log in: status error.")
    told = REDIRECT | {"status": "cancelled", "message": "User cancelled"}
    assert "User cancelled" in str(refused(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, told, 0)))


def test_a_redirect_without_a_request_token_is_no_login() -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, {"status": "success"}, 0))
    assert refusal.kind is ErrorKind.PROTOCOL
    assert str(refusal) == "Zerodha came back without request_token; begin the login again."


def test_the_secret_is_missed_before_a_person_is_sent_to_the_page() -> None:
    refusal = refused(ADAPTER.login_url({"api_key": "key"}, FEED.endpoint, "s"))
    assert str(refusal) == "A login at Zerodha needs: API secret; enter it in the admin."
