"""
How a token is got at Dhan: a consent, the login page, and what its redirect brings; or a renewal. Pure.

Source: https://dhanhq.co/docs/v2/authentication/ and /annexure/ (Trading API Error); the official client, dhanhq 2.3.0
(DhanLogin), makes the same calls. A renewal answers with `token`, which is documented nowhere.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from urllib.parse import urlencode

import msgspec

from brokers import tokens
from brokers.contract import ErrorKind, HttpRequest, HttpResponse, Refused, Spec, rest_base

AUTH = "https://auth.dhan.co"
API = "https://api.dhan.co/v2"

KINDS: Mapping[str, ErrorKind] = {
    "DH-902": ErrorKind.ENTITLEMENT,
    "DH-904": ErrorKind.LIMIT,
    "DH-908": ErrorKind.NETWORK,
    "DH-909": ErrorKind.NETWORK,
}
"""Error codes that are not about the credentials: no such plan, too many requests, the broker's own trouble."""


class _Answer(msgspec.Struct):
    """Of all calls; a refusal is one or the other of the last lines, and may come with HTTP 200."""

    consent: str | None = msgspec.field(default="", name="consentAppId")
    client_id: str | int | None = msgspec.field(default="", name="dhanClientId")
    access_token: str | None = msgspec.field(default="", name="accessToken")
    token: str | None = ""
    message: str | None = ""
    error_code: str | None = msgspec.field(default="", name="errorCode")
    error_message: str | None = msgspec.field(default="", name="errorMessage")


def page(spec: Spec, credentials: Mapping[str, str], endpoint: str) -> Generator[HttpRequest, HttpResponse, str]:
    """
    The login page of a new consent, of which there may be 25 a day.

    Raises Refused.
    """
    client_id, *app = tokens.needed(spec, credentials, "client_id", "app_id", "app_secret")
    base = rest_base(AUTH, spec.feeds[0], endpoint)
    response = yield HttpRequest(
        method="POST",
        url=f"{base}/app/generate-consent?{urlencode({'client_id': client_id})}",
        headers=_app(*app),
    )
    answer = tokens.answered(spec, response, _Answer)
    if response.status != 200 or not answer.consent:
        raise _refused(spec, response, answer)
    return f"{base}/login/consentApp-login?{urlencode({'consentAppId': answer.consent})}"


def exchange(
    spec: Spec, credentials: Mapping[str, str], endpoint: str, callback: Mapping[str, str]
) -> Generator[HttpRequest, HttpResponse, Mapping[str, str]]:
    """
    The redirect's tokenId for an access token.

    Raises Refused, also where somebody else logged in than the account's client: the redirect brings nothing back that
    says whose it is.
    """
    client_id, *app = tokens.needed(spec, credentials, "client_id", "app_id", "app_secret")
    token_id = tokens.brought(spec, callback, "tokenId", callback.get("message") or callback.get("error", ""))
    base = rest_base(AUTH, spec.feeds[0], endpoint)
    response = yield HttpRequest(
        method="GET",
        url=f"{base}/app/consumeApp-consent?{urlencode({'tokenId': token_id})}",
        headers=_app(*app),
    )
    answer, token = _gained(spec, response)
    if answer.client_id and str(answer.client_id) != client_id:
        raise Refused(
            ErrorKind.AUTH,
            f"Client {answer.client_id} logged in at {spec.name}, and this account is client {client_id}'s.",
        )
    return {"access_token": token}


def renew(
    spec: Spec, credentials: Mapping[str, str], endpoint: str
) -> Generator[HttpRequest, HttpResponse, Mapping[str, str]]:
    """
    A token for another 24 hours; the one there is ends at once. It must still be good, and made in Dhan Web.

    Raises Refused.
    """
    client_id, token = tokens.needed(spec, credentials, "client_id", "access_token")
    if tokens.jwt_claims(token).consumer not in ("", "SELF"):
        raise Refused(ErrorKind.ENTITLEMENT, f"{spec.name} renews tokens made in Dhan Web only, not those of a login.")
    response = yield HttpRequest(
        method="GET",  # the documentation's curl and the official client; a POST is refused
        url=f"{rest_base(API, spec.feeds[0], endpoint)}/RenewToken",
        headers={"access-token": token, "dhanClientId": client_id},
    )
    return {"access_token": _gained(spec, response)[1]}


def _app(app_id: str, secret: str) -> Mapping[str, str]:
    return {"app_id": app_id, "app_secret": secret, "Accept": "application/json"}


def _gained(spec: Spec, response: HttpResponse) -> tuple[_Answer, str]:
    answer = tokens.answered(spec, response, _Answer)
    token = answer.access_token or answer.token
    if response.status != 200 or not token:
        raise _refused(spec, response, answer)
    return answer, token


def _refused(spec: Spec, response: HttpResponse, answer: _Answer) -> Refused:
    code = answer.error_code or ""
    words = f"{answer.error_message or answer.message or ''} {code}"
    return tokens.refused(spec, response, words, KINDS.get(code))
