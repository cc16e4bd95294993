"""
Whether an account may log in by itself, and when. Pure.

Brokers lock accounts after a few wrong logins, and end one program's session when another logs in. So a login without a
person is tried once for each token that died, never again with what the broker refused, and not at all where a token
that was got this way did not last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from brokers.india import MINUTE_MS

LEAD_MS = 75 * MINUTE_MS
"""So long before its markets open an account without a token logs in: in time, and not in the broker's night."""

LASTING_MS = 4 * 60 * MINUTE_MS
"""A token that was got by a login of ours and is refused sooner than this was ended by somebody else's login."""

UNREACHED_MS = MINUTE_MS
"""After an attempt that did not reach the broker, so long until the next."""

REFUSED, UNREACHED, OK = "refused", "unreached", "ok"


class Try(NamedTuple):
    """What was tried: when, what came of it (an `Attempt.Outcome`), for which token, with what, by whom, and what."""

    at_ms: int
    outcome: str
    token: str
    login: str
    automatic: bool
    what: str = "login"


class Login(NamedTuple):
    """
    Whether and when an account logs in by itself.

    `at_ms`: then (0: now); None: never, it takes a person, and `reason` says why.
    """

    at_ms: int | None
    reason: str = ""


def next_login(token: str, login: str, tries: Sequence[Try], *, now_ms: int, opens_ms: int | None) -> Login:
    """
    When an account without a good token logs in by itself.

    `token` and `login` are fingerprints of the dead token ("" for none) and of what would be logged in with; `tries`
    are the logins without a redirect so far, newest first; `opens_ms` is when the account's markets open next (in the
    past: they are open; None: nobody knows).

    >>> next_login("t", "l", [], now_ms=0, opens_ms=None)
    Login(at_ms=0, reason='')
    >>> next_login("t", "l", [Try(0, "failed", "t", "l", True)], now_ms=99, opens_ms=0).at_ms is None
    True
    """
    same = [each for each in tries if each.login == login]
    if same and same[0].outcome == REFUSED:
        return Login(None, "The broker refused the last login with these credentials, and it is not tried again.")
    own = [each for each in tries if each.automatic]
    if any((each.token, each.login) == (token, login) for each in own if each.outcome != UNREACHED):
        return Login(None, "It was tried once, and it is not tried again by itself.")
    lasted = [each for each in own if each.outcome == OK]
    if token and lasted and now_ms - lasted[0].at_ms < LASTING_MS:
        return Login(
            None,
            "The token of the last login by itself did not last: another program may log in with the same account.",
        )
    earliest_ms = 0
    if own and own[0].outcome == UNREACHED:
        earliest_ms = own[0].at_ms + UNREACHED_MS
    if token and opens_ms is not None:
        earliest_ms = max(earliest_ms, opens_ms - LEAD_MS)
    return Login(0 if earliest_ms <= now_ms else earliest_ms)


def may_renew(token: str, tries: Sequence[Try]) -> bool:
    """
    Whether this token may be changed for a longer one by itself: once for each token. `tries` are renewals.

    >>> may_renew("t", []), may_renew("t", [Try(0, "refused", "t", "l", True)])
    (True, False)
    """
    return not any(each.token == token for each in tries if each.outcome != UNREACHED)
