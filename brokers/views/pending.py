"""
Logins that were begun in a browser's session and not ended yet.

The state that travels with the browser to the broker and back is a random text that only the session knows: it is good
for one account, once, and for ten minutes. The server holds all of it, so there is nothing to sign.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any

from django.contrib.sessions.backends.base import SessionBase

GOOD_FOR_S = 600.0

_NAME = "broker_logins"

Entries = dict[str, dict[str, Any]]
"""By the account's id as text, as JSON wants it: the broker's slug, the state, and when it was begun (Unix s)."""


class NotPending(Exception):
    """No login that was begun here fits; the text says why, and what to do."""


def begin(session: SessionBase, account_id: int, slug: str, *, has_state: bool, now_s: float) -> str:
    """
    The state of a new login; it replaces one of the same account that was begun before.

    Without `has_state` the broker's redirect brings none back: then only one login of this broker can be under way.
    """
    entries = {
        key: entry
        for key, entry in _entries(session).items()
        if now_s - entry["at_s"] <= GOOD_FOR_S and (has_state or entry["slug"] != slug)
    }
    state = secrets.token_urlsafe(32)
    session[_NAME] = entries | {str(account_id): {"slug": slug, "state": state, "at_s": now_s}}
    return state


def end(session: SessionBase, slug: str, state: str | None, *, now_s: float) -> int:
    """
    The account whose login came back from a broker, with this state or (None) of a broker that brings none back.

    Raises NotPending.
    """
    own = {key: entry for key, entry in _entries(session).items() if entry["slug"] == slug}
    return _take(session, [key for key, entry in own.items() if _fits(entry, state)], now_s)


def end_of(session: SessionBase, account_id: int, state: str | None, *, now_s: float) -> None:
    """
    The same for a redirect that somebody pasted at an account; None: it carries no state.

    Raises NotPending.
    """
    entry = _entries(session).get(str(account_id))
    _take(session, [str(account_id)] if entry and _fits(entry, state) else [], now_s)


def _entries(session: SessionBase) -> Entries:
    entries: Entries = session.get(_NAME, {})
    return entries


def _fits(entry: dict[str, Any], state: str | None) -> bool:
    return state is None or hmac.compare_digest(entry["state"].encode(), state.encode("utf-8", "replace"))


def _take(session: SessionBase, keys: list[str], now_s: float) -> int:
    """Takes a login out of the session: nothing fits it a second time."""
    if not keys:
        raise NotPending(
            "This is not the answer to a login that was begun here, in this browser, and not used yet; press Log in."
        )
    entries = _entries(session)
    taken = entries[keys[0]]
    session[_NAME] = {key: entry for key, entry in entries.items() if key != keys[0]}
    if not 0 <= now_s - taken["at_s"] <= GOOD_FOR_S:
        raise NotPending(f"The login was begun more than {GOOD_FOR_S / 60:.0f} minutes ago; press Log in again.")
    return int(keys[0])
