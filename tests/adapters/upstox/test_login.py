"""Upstox's login: the page, the code, refusals as documented."""

from __future__ import annotations

import pytest

from brokers.adapters.upstox import ADAPTER
from brokers.contract import ErrorKind, HttpRequest
from tests.adapters.stepping import answer, refused, walked

FEED = ADAPTER.spec.feeds[0]
CREDENTIALS = {"api_key": "key", "api_secret": "secret", "redirect_uri": "https://me.example/cb"}
REDIRECT = {"code": "mk404x", "state": "s 1"}

# https://upstox.com/developer/api-documentation/get-token, shortened
LOGGED_IN = {
    "email": "******",
    "exchanges": ["NSE", "NFO"],
    "broker": "UPSTOX",
    "user_id": "******",
    "access_token": "eyJ0eXAi.eyJzdWIi.c2ln",
    "extended_token": "******",
    "is_active": True,
}


def error(code: str, message: str) -> dict[str, object]:
    return {"status": "error", "errors": [{"errorCode": code, "message": message, "propertyPath": None}]}


def test_the_page_has_what_the_app_was_registered_with() -> None:
    requests, page = walked(ADAPTER.login_url(CREDENTIALS, FEED.endpoint, "s 1"))
    assert requests == []
    assert page == (
        "https://api.upstox.com/v2/login/authorization/dialog"
        "?response_type=code&client_id=key&redirect_uri=https%3A%2F%2Fme.example%2Fcb&state=s+1"
    )


def test_the_code_becomes_the_days_token() -> None:
    requests, gained = walked(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, REDIRECT, 0), answer(LOGGED_IN))
    assert requests == [
        HttpRequest(
            method="POST",
            url="https://api.upstox.com/v2/login/authorization/token",
            headers={"Accept": "application/json"},
            form={
                "code": "mk404x",
                "client_id": "key",
                "client_secret": "secret",
                "redirect_uri": "https://me.example/cb",
                "grant_type": "authorization_code",
            },
        )
    ]
    assert gained == {"access_token": "eyJ0eXAi.eyJzdWIi.c2ln"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, error("UDAPI100057", "Invalid Auth code"), ErrorKind.AUTH, "UDAPI100057 Invalid Auth code"),
        (400, error("UDAPI100068", "Check your 'client_id'"), ErrorKind.AUTH, "UDAPI100068 Check your 'client_id'"),
        (401, error("UDAPI100016", "Invalid Credentials"), ErrorKind.AUTH, "UDAPI100016 Invalid Credentials"),
        (403, error("UDAPI100073", "It is inactive."), ErrorKind.ENTITLEMENT, "UDAPI100073 It is inactive"),
        (429, error("UDAPI10005", "Too Many Request Sent"), ErrorKind.LIMIT, "UDAPI10005 Too Many Request Sent"),
        (500, error("UDAPI100500", "Something went wrong..."), ErrorKind.NETWORK, "UDAPI100500 Something went wrong"),
        (400, {}, ErrorKind.PROTOCOL, "HTTP 400"),
    ],
)
def test_a_refusal_says_why_in_upstoxs_words(status: int, body: object, kind: ErrorKind, words: str) -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, REDIRECT, 0), answer(body, status))
    assert (refusal.kind, str(refusal)) == (kind, f"Upstox refused the login: {words}.")


def test_an_answer_without_a_token_is_none() -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, REDIRECT, 0), answer({"access_token": ""}))
    assert (refusal.kind, str(refusal)) == (ErrorKind.PROTOCOL, "Upstox answered the login without a token.")


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        ({"error": "access_denied", "state": "s"}, "access_denied"),
        ({"error": "access_denied", "error_description": "The user said no."}, "The user said no"),
    ],
)
def test_a_redirect_that_says_no_is_not_exchanged(callback: dict[str, str], words: str) -> None:
    refusal = refused(ADAPTER.exchange(CREDENTIALS, FEED.endpoint, callback, 0))
    assert (refusal.kind, str(refusal)) == (ErrorKind.AUTH, f"Upstox did not log in: {words}.")


def test_an_account_of_an_analytics_token_is_told_what_a_login_would_need() -> None:
    refusal = refused(ADAPTER.login_url({"access_token": "analytics"}, FEED.endpoint, "s"))
    assert str(refusal) == "A login at Upstox needs: API key, API secret, Redirect URL; enter it in the admin."
