"""Angel One's login with PIN and one-time password: what is sent, the tokens, refusals as documented or reported."""

from __future__ import annotations

import pytest

from brokers.adapters.angel import ADAPTER
from brokers.contract import ErrorKind, HttpRequest
from tests.adapters.stepping import answer, refused, walked

ENDPOINT = ADAPTER.spec.feeds[0].endpoint
# The secret of RFC 6238 at its first instant: 94287082 in eight digits.
NOW_MS = 59_000
CREDENTIALS = {
    "client_code": "A123456",
    "api_key": "key",
    "pin": "1234",
    "totp_secret": "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ",
}

# https://smartapi.angelbroking.com/docs/User
LOGGED_IN = {
    "status": True,
    "message": "SUCCESS",
    "errorcode": "",
    "data": {"jwtToken": "eyJhbGci.eyJ1c2Vy.c2ln", "refreshToken": "eyJhbGci.eyJ0b2tl.c2ln", "feedToken": "eyJhbGci"},
}


def test_the_pin_and_the_password_of_the_half_minute_become_the_days_tokens() -> None:
    requests, gained = walked(ADAPTER.login(CREDENTIALS, ENDPOINT, NOW_MS), answer(LOGGED_IN))
    [request] = requests
    assert request == HttpRequest(
        method="POST",
        url="https://apiconnect.angelone.in/rest/auth/angelbroking/user/v1/loginByPassword",
        headers=request.headers,
        json={"clientcode": "A123456", "password": "1234", "totp": "287082"},
    )
    assert request.headers["X-PrivateKey"] == "key"
    assert (request.headers["X-UserType"], request.headers["X-SourceID"]) == ("USER", "WEB")
    assert {"X-ClientLocalIP", "X-ClientPublicIP", "X-MACAddress"} <= set(request.headers)
    assert gained == {"jwt_token": "eyJhbGci.eyJ1c2Vy.c2ln", "feed_token": "eyJhbGci"}


def test_the_word_before_the_token_is_not_stored() -> None:
    data = {"jwtToken": "Bearer a.b.c", "feedToken": "f"}
    _, gained = walked(ADAPTER.login(CREDENTIALS, ENDPOINT, NOW_MS), answer({"status": "true", "data": data}))
    assert gained["jwt_token"] == "a.b.c"


@pytest.mark.parametrize("secret", ["no base32!", "GEZ1", "ÄÖÜ", "=", "A"])
def test_a_secret_that_is_none_is_not_tried_at_the_broker(secret: str) -> None:
    refusal = refused(ADAPTER.login(CREDENTIALS | {"totp_secret": secret}, ENDPOINT, NOW_MS))
    assert refusal.kind is ErrorKind.AUTH
    assert str(refusal).startswith("Angel One was not asked: the TOTP secret is ")


@pytest.mark.parametrize("lacking", [["pin"], ["totp_secret"], ["pin", "totp_secret"]])
def test_what_a_login_needs_is_named(lacking: list[str]) -> None:
    labels = {"pin": "PIN", "totp_secret": "TOTP secret"}
    refusal = refused(ADAPTER.login(CREDENTIALS | dict.fromkeys(lacking, " "), ENDPOINT, NOW_MS))
    expected = ", ".join(labels[name] for name in lacking)
    assert str(refusal) == f"A login at Angel One needs: {expected}; enter it in the admin."


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            200,
            {"status": False, "message": "Invalid totp", "errorcode": "AB1050", "data": None},
            ErrorKind.AUTH,
            "Invalid totp AB1050",
        ),
        (
            200,
            {
                "status": "false",
                "message": "Login Id or password is invalid",
                "errorcode": "AB1007",
                "data": "null",
            },
            ErrorKind.AUTH,
            "Login Id or password is invalid AB1007",
        ),
        (
            200,
            {"success": False, "message": "Invalid API Key", "errorCode": "AG8004", "data": ""},
            ErrorKind.AUTH,
            "Invalid API Key AG8004",
        ),
        (
            200,
            {"status": False, "message": "Something Went Wrong, Please Try After Sometime", "errorcode": "AB1004"},
            ErrorKind.NETWORK,
            "Something Went Wrong, Please Try After Sometime AB1004",
        ),
        (
            200,
            {"status": False, "message": "Too many requests", "errorcode": "AB1021", "data": None},
            ErrorKind.LIMIT,
            "Too many requests AB1021",
        ),
        (403, b"Access denied because of exceeding access rate", ErrorKind.LIMIT, "too many requests"),
        (200, {}, ErrorKind.AUTH, "HTTP 200"),
    ],
)
def test_a_refusal_says_why_in_angels_words(status: int, body: object, kind: ErrorKind, words: str) -> None:
    refusal = refused(ADAPTER.login(CREDENTIALS, ENDPOINT, NOW_MS), answer(body, status))
    assert (refusal.kind, str(refusal)) == (kind, f"Angel One refused the login: {words}.")


def test_a_yes_without_both_tokens_is_no_answer() -> None:
    for data in (None, "null", {"jwtToken": "a.b.c"}, {"jwtToken": None, "feedToken": "f"}):
        refusal = refused(ADAPTER.login(CREDENTIALS, ENDPOINT, NOW_MS), answer({"status": True, "data": data}))
        assert (refusal.kind, str(refusal)) == (ErrorKind.PROTOCOL, "Angel One answered the login without tokens.")
