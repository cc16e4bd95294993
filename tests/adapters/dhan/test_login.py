"""Dhan's logins: a consent before the page, what its redirect brings, the renewal; and that the sandbox has none."""

from __future__ import annotations

import base64
import json

import pytest

from brokers import registry
from brokers.contract import ErrorKind, HttpRequest
from tests.adapters.stepping import answer, refused, walked

DHAN, SANDBOX = registry.load("dhan"), registry.load("dhan_sandbox")
ENDPOINT = DHAN.spec.feeds[0].endpoint
CREDENTIALS = {"client_id": "1000000001", "app_id": "app", "app_secret": "secret", "access_token": "old.jwt.token"}
APP = {"app_id": "app", "app_secret": "secret", "Accept": "application/json"}

# https://dhanhq.co/docs/v2/authentication/
CONSENT = {
    "consentAppId": "940b0ca1-3ff4-4476-b46e-03a3ce7dc55d",
    "consentAppStatus": "GENERATED",
    "status": "success",
}
LOGGED_IN = {
    "dhanClientId": "1000000001",
    "dhanClientName": "JOHN DOE",
    "dhanClientUcc": "CEFE4265",
    "givenPowerOfAttorney": True,
    "accessToken": "new.jwt.token",
    "expiryTime": "2025-09-23T12:37:23",
}


def test_the_page_is_that_of_a_consent_which_is_asked_for_first() -> None:
    requests, page = walked(DHAN.login_url(CREDENTIALS, ENDPOINT, "state"), answer(CONSENT))
    assert requests == [
        HttpRequest(method="POST", url="https://auth.dhan.co/app/generate-consent?client_id=1000000001", headers=APP)
    ]
    assert page == ("https://auth.dhan.co/login/consentApp-login?consentAppId=940b0ca1-3ff4-4476-b46e-03a3ce7dc55d")
    assert not DHAN.spec.redirect_has_state


def test_the_token_id_becomes_the_token() -> None:
    requests, gained = walked(DHAN.exchange(CREDENTIALS, ENDPOINT, {"tokenId": "a b"}, 0), answer(LOGGED_IN))
    assert requests == [
        HttpRequest(method="GET", url="https://auth.dhan.co/app/consumeApp-consent?tokenId=a+b", headers=APP)
    ]
    assert gained == {"access_token": "new.jwt.token"}


def test_a_login_of_somebody_else_is_not_taken() -> None:
    other = LOGGED_IN | {"dhanClientId": "1000000002"}
    refusal = refused(DHAN.exchange(CREDENTIALS, ENDPOINT, {"tokenId": "t"}, 0), answer(other))
    assert refusal.kind is ErrorKind.AUTH
    assert str(refusal) == "Client 1000000002 logged in at Dhan, and this account is client 1000000001's."


@pytest.mark.parametrize("name", ["token", "accessToken"])
def test_a_renewal_changes_the_token_for_another(name: str) -> None:
    renewed = {"createTime": "2026-09-19T09:00:00", "expiryTime": "2026-09-20T09:00:00", name: "new.jwt.token"}
    requests, gained = walked(DHAN.renew(CREDENTIALS, ENDPOINT, 0), answer(renewed))
    assert requests == [
        HttpRequest(
            method="GET",
            url="https://api.dhan.co/v2/RenewToken",
            headers={"access-token": "old.jwt.token", "dhanClientId": "1000000001"},
        )
    ]
    assert gained == {"access_token": "new.jwt.token"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, {"status": "error", "message": "Invalid API key."}, ErrorKind.AUTH, "Invalid API key"),
        (
            401,
            {"errorType": "Invalid_Authentication", "errorCode": "DH-901", "errorMessage": "Client ID is invalid"},
            ErrorKind.AUTH,
            "Client ID is invalid DH-901",
        ),
        (400, {"errorCode": "DH-904", "errorMessage": "Slow down"}, ErrorKind.LIMIT, "Slow down DH-904"),
        (400, {"errorCode": "DH-908", "errorMessage": None}, ErrorKind.NETWORK, "DH-908"),
        (403, {"errorCode": "DH-902", "errorMessage": "No plan"}, ErrorKind.ENTITLEMENT, "No plan DH-902"),
        (200, {"status": "success"}, ErrorKind.AUTH, "HTTP 200"),
        (500, {}, ErrorKind.NETWORK, "HTTP 500"),
    ],
)
def test_a_refusal_says_why_in_dhans_words(status: int, body: object, kind: ErrorKind, words: str) -> None:
    for steps in (
        DHAN.login_url(CREDENTIALS, ENDPOINT, "state"),
        DHAN.exchange(CREDENTIALS, ENDPOINT, {"tokenId": "t"}, 0),
        DHAN.renew(CREDENTIALS, ENDPOINT, 0),
    ):
        refusal = refused(steps, answer(body, status))
        assert (refusal.kind, str(refusal)) == (kind, f"Dhan refused the login: {words}.")


def test_a_token_beside_an_error_status_is_not_taken() -> None:
    refusal = refused(DHAN.renew(CREDENTIALS, ENDPOINT, 0), answer({"token": "new.jwt.token"}, 401))
    assert refusal.kind is ErrorKind.AUTH


def test_a_redirect_without_a_token_id_is_no_login() -> None:
    assert "without tokenId" in str(refused(DHAN.exchange(CREDENTIALS, ENDPOINT, {}, 0)))
    told = refused(DHAN.exchange(CREDENTIALS, ENDPOINT, {"error": "denied"}, 0))
    assert str(told) == "Dhan did not log in: denied."


def test_an_account_with_an_entered_token_can_be_renewed_without_an_app() -> None:
    entered = {"client_id": "1000000001", "access_token": "old.jwt.token"}
    assert walked(DHAN.renew(entered, ENDPOINT, 0), answer({"token": "new"}))[1] == {"access_token": "new"}
    refusal = refused(DHAN.login_url(entered, ENDPOINT, "state"))
    assert str(refusal) == "A login at Dhan needs: API key, API secret; enter it in the admin."


@pytest.mark.parametrize(("consumer", "renews"), [("SELF", True), ("APP", False), ("PARTNER", False)])
def test_only_a_token_made_in_dhan_web_is_renewed_and_for_others_dhan_is_not_asked(consumer: str, renews: bool) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"tokenConsumerType": consumer}).encode()).decode().rstrip("=")
    steps = DHAN.renew(CREDENTIALS | {"access_token": f"head.{claims}.signature"}, ENDPOINT, 0)
    if renews:
        assert walked(steps, answer({"token": "new"}))[1] == {"access_token": "new"}
    else:
        assert "Dhan Web" in str(refused(steps))


def test_the_sandbox_has_a_token_and_no_login() -> None:
    assert SANDBOX.spec.token is not None
    assert SANDBOX.spec.logins == frozenset()
    assert "app_secret" not in {each.name for each in SANDBOX.spec.credentials}
