"""
When a broker's token ends, and what is the same at every broker where one is got. Pure: instants and credentials are
arguments.

A token that is a JWT says itself when it ends (claim `exp`); it is read, not verified, which is the broker's to do. Of
others only the broker's clock is known ("about 6:00 the next morning"): such an end is expected, not certain.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import msgspec

from brokers.contract import ErrorKind, HttpResponse, Refused, Spec, TokenLife
from brokers.india import DAY_MS, india_date, india_ms

EXPIRING_MS = 3_600_000
"""So long before its end a token counts as expiring."""

MOST_WORDS = 200
"""So many characters of what a broker says are repeated."""

Answer = TypeVar("Answer")
Payload = TypeVar("Payload")

# ---------------------------------------------------------------------------------------------------------- its end


class TokenEnd(NamedTuple):
    """When a token ends (Unix ms); `is_certain` where it says so itself."""

    at_ms: int
    is_certain: bool

    def is_over(self, now_ms: int) -> bool:
        """Whether the token is dead for certain: nobody need try it."""
        return self.is_certain and now_ms >= self.at_ms

    def is_near(self, now_ms: int) -> bool:
        """Whether it ends soon, or should have ended."""
        return now_ms >= self.at_ms - EXPIRING_MS


class Claims(msgspec.Struct, frozen=True):
    """What a token says of itself: its end (Unix seconds, 0 where it does not say), and for whom it was made."""

    exp: float = 0.0
    consumer: str = msgspec.field(default="", name="tokenConsumerType")


def token_end(life: TokenLife | None, credentials: Mapping[str, str], since_ms: int) -> TokenEnd | None:
    """
    When the token in these credentials ends; `since_ms` is when it was got. None: there is none, or it does not end.

    >>> got_ms = 1_795_578_300_000  # 25 Nov 2026, 09:15 in India
    >>> token_end(TokenLife(ends_ist="06:00"), {"access_token": "x"}, got_ms)
    TokenEnd(at_ms=1795653000000, is_certain=False)
    >>> claims = base64.urlsafe_b64encode(b'{"exp": 1795600000}').decode().rstrip("=")
    >>> token_end(TokenLife(), {"access_token": f"head.{claims}.signature"}, got_ms)
    TokenEnd(at_ms=1795600000000, is_certain=True)
    """
    token = credentials.get(life.names[0], "") if life else ""
    if life is None or not token:
        return None
    exp_ms = jwt_end_ms(token)
    if exp_ms is not None:
        return TokenEnd(exp_ms, is_certain=True)
    if life.ends_ist:
        return TokenEnd(_next(life.ends_ist, since_ms), is_certain=False)
    if life.lasts_s is not None:
        return TokenEnd(since_ms + int(life.lasts_s * 1000), is_certain=False)
    return None


def jwt_end_ms(token: str) -> int | None:
    """
    What a JWT says of its own end; None where it says nothing, or is none.

    >>> jwt_end_ms("not a token"), jwt_end_ms("a.b.c")
    (None, None)
    """
    exp = jwt_claims(token).exp
    return int(exp * 1000) if 0 < exp < 1e11 else None


def jwt_claims(token: str) -> Claims:
    """What a JWT says of itself; nothing where it is none."""
    return jwt_payload(token, Claims) or Claims()


def jwt_payload(token: str, type: type[Payload]) -> Payload | None:
    """
    The middle part of a JWT, of which `type` names what is wanted; None where it is none. It is read, not verified.

    `Bearer ` or `app:` before it is cut.
    """
    parts = token.rpartition(":")[2].strip().removeprefix("Bearer ").split(".")
    if len(parts) != 3:
        return None
    try:
        text = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(text, type=type)
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
        return None


def _next(clock: str, after_ms: int) -> int:
    """
    The next instant at which it is so late in India.

    >>> _next("06:00", 1_795_578_300_000) - 1_795_578_300_000 == (20 * 60 + 45) * 60_000
    True
    """
    at_ms = india_ms(india_date(after_ms), clock)
    return at_ms if at_ms > after_ms else at_ms + DAY_MS


# ------------------------------------------------------------------------------------------------------- getting one


def needed(spec: Spec, credentials: Mapping[str, str], *names: str) -> tuple[str, ...]:
    """
    The values of the credentials that a login needs, without blanks around them.

    Raises Refused: it names those that are missing as the admin labels them.
    """
    values = tuple(credentials.get(name, "").strip() for name in names)
    labels = {each.name: each.label for each in spec.credentials}
    missing = [labels[name] for name, value in zip(names, values, strict=True) if not value]
    if missing:
        raise Refused(ErrorKind.AUTH, f"A login at {spec.name} needs: {', '.join(missing)}; enter it in the admin.")
    return values


def brought(spec: Spec, callback: Mapping[str, str], name: str, words: str = "") -> str:
    """
    The parameter that a login page's redirect brings when all went well; `words` is the broker's error in it, if any.

    Raises Refused: there is an error, or nothing.
    """
    if words:
        raise Refused(ErrorKind.AUTH, f"{spec.name} did not log in: {_quoted(words)}.")
    if not callback.get(name):
        raise Refused(ErrorKind.PROTOCOL, f"{spec.name} came back without {name}; begin the login again.")
    return callback[name]


def answered(spec: Spec, response: HttpResponse, type: type[Answer]) -> Answer:
    """
    The JSON a broker answers a login with.

    Raises Refused: it is none; the status says whether the broker is out of order or busy.
    """
    try:
        return msgspec.json.decode(response.body, type=type)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        status = response.status
        kind = refusal_kind(status) if status == 429 or status >= 500 else ErrorKind.PROTOCOL
        raise Refused(kind, f"{spec.name} answered with HTTP {status} and nothing that is understood.") from None


def refused(spec: Spec, response: HttpResponse, words: str, kind: ErrorKind | None = None) -> Refused:
    """A broker's no to a login, in its own words; its kind is told by the status unless the broker says it better."""
    said = _quoted(words) or f"HTTP {response.status}"
    return Refused(kind or refusal_kind(response.status), f"{spec.name} refused the login: {said}.")


def refusal_kind(status: int) -> ErrorKind:
    """
    Why a login is refused, by the status of the answer. What is wrong with a login is its credentials.

    >>> [refusal_kind(status).value for status in (200, 400, 403, 429, 502)]
    ['auth', 'auth', 'auth', 'limit', 'network']
    """
    if status == 429:
        return ErrorKind.LIMIT
    return ErrorKind.NETWORK if status >= 500 else ErrorKind.AUTH


def _quoted(words: str) -> str:
    """
    A broker's words inside a sentence of ours.

    >>> _quoted("Token is invalid\\n or has expired. ")
    'Token is invalid or has expired'
    """
    return " ".join(words.split())[:MOST_WORDS].rstrip(" .")
