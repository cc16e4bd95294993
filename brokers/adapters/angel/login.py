"""
The login with PIN and one-time password: what is sent, and what comes back. Pure.

Source: https://smartapi.angelbroking.com/docs/User and /docs/Exceptions; the official client, smartapi-python 1.5.5,
sends the same. That a wrong one-time password is AB1050 and too many requests are AB1021 is on its forum only.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from brokers import tokens
from brokers.contract import ErrorKind, HttpRequest, HttpResponse, Refused, Spec

REST = "https://apiconnect.angelone.in"
PATH = "/rest/auth/angelbroking/user/v1/loginByPassword"

# Every call must say from where it comes, and nothing checks it: the addresses are those the official client sends from
# everywhere, the last one is of no maker of hardware.
FROM_HERE: Mapping[str, str] = {
    "X-UserType": "USER",
    "X-SourceID": "WEB",
    "X-ClientLocalIP": "127.0.0.1",
    "X-ClientPublicIP": "106.193.147.98",
    "X-MACAddress": "02:00:00:00:00:01",
}

KINDS: Mapping[str, ErrorKind] = {
    "AB1004": ErrorKind.NETWORK,  # something went wrong, try after some time
    "AB2001": ErrorKind.NETWORK,  # internal error, try after some time
    "AB1021": ErrorKind.LIMIT,  # too many requests
}
"""Error codes that are not about the credentials."""

TOO_FAST = b"exceeding access rate"
"""In the plain text that is answered instead of JSON, with HTTP 403, to who asks too often."""


class _Tokens(msgspec.Struct):
    jwt: str | None = msgspec.field(default="", name="jwtToken")
    feed: str | None = msgspec.field(default="", name="feedToken")


class _Answer(msgspec.Struct):
    """`status` is also seen as a text, `data` as the text "null", and both names of the code with a capital C."""

    status: bool | str = False
    message: str | None = ""
    errorcode: str | None = ""
    error_code: str | None = msgspec.field(default="", name="errorCode")
    data: _Tokens | str | None = None


def request(base: str, *, api_key: str, client_code: str, pin: str, totp: str) -> HttpRequest:
    """The one call that a login is."""
    return HttpRequest(
        method="POST",
        url=f"{base}{PATH}",
        headers={**FROM_HERE, "X-PrivateKey": api_key, "Accept": "application/json"},
        json={"clientcode": client_code, "password": pin, "totp": totp},
    )


def gained(spec: Spec, response: HttpResponse) -> Mapping[str, str]:
    """
    The day's two tokens; the first without the word `Bearer`, which the official client puts before it.

    Raises Refused: a refusal comes with HTTP 200, too.
    """
    if TOO_FAST in response.body.lower():
        raise tokens.refused(spec, response, "too many requests", ErrorKind.LIMIT)
    answer = tokens.answered(spec, response, _Answer)
    if str(answer.status).lower() != "true":
        code = answer.errorcode or answer.error_code or ""
        raise tokens.refused(spec, response, f"{answer.message or ''} {code}", KINDS.get(code))
    if not isinstance(answer.data, _Tokens) or not answer.data.jwt or not answer.data.feed:
        raise Refused(ErrorKind.PROTOCOL, f"{spec.name} answered the login without tokens.")
    return {"jwt_token": answer.data.jwt.removeprefix("Bearer "), "feed_token": answer.data.feed}
