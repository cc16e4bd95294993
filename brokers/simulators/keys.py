"""
Who may come in: the api keys of a simulated broker, their tokens and when these end, wrong logins, and the lock.

A token that is a JWT ends when it says so itself; others end when the login that made them says so, or never.
"""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from brokers import tokens
from brokers.simulators.rules import Rules


class Denied(Exception):
    """
    A login the broker refuses: the HTTP status, and the reason for the log and the body.

    `wrong` names the key against which it counts as a wrong login. `facts` go into the log beside status and reason: of
    a token its `token_id`, never the token.
    """

    def __init__(self, status: int, reason: str, *, token: str = "", wrong: str = "", **facts: object) -> None:
        super().__init__(reason)
        self.status = status
        self.wrong = wrong
        self.facts: dict[str, Any] = token_fact(token) | facts


def token_id(token: str) -> str:
    """
    What a token is called in the log: it can be known again, and not be read.

    >>> token_id("demo-token")
    '7c43ef5a'
    """
    return hashlib.sha256(token.encode()).hexdigest()[:8]


def token_fact(token: str) -> dict[str, Any]:
    """A token's name as an entry of the log has it; nothing where there is no token."""
    return {"token_id": token_id(token)} if token else {}


class Keys:
    """
    The api keys by what they were given: `accounts` maps each to its token. `clock` is Unix seconds; `rules` say after
    how many wrong logins a key is locked; `on_locked` is told when one is.
    """

    def __init__(
        self, accounts: Mapping[str, str], rules: Rules, clock: Callable[[], float], on_locked: Callable[[str], None]
    ) -> None:
        self.wrong_logins = 0
        """Of known keys, since the start."""
        self._rules, self._clock, self._on_locked = rules, clock, on_locked
        self._good: dict[str, set[str]] = {}
        self._owners: dict[str, str] = {}
        """The key of every token that there was."""
        self._ends: dict[str, float] = {}
        """Unix seconds, where there is one. Those of tokens that were made worthless stay: their sockets end then."""
        self._wrong: collections.Counter[str] = collections.Counter()
        """Wrong logins in a row."""
        self._locked: dict[str, int] = {}
        """After how many wrong logins."""
        for key, token in accounts.items():
            self.replace(key, token)

    def __contains__(self, api_key: object) -> bool:
        return api_key in self._good

    def named(self, api_key: str | None) -> list[str]:
        """One key, or all of them. Raises ValueError: it is unknown."""
        if api_key is not None and api_key not in self._good:
            raise ValueError(f"There is no api_key {api_key!r}; known are {', '.join(self._good)}.")
        return list(self._good) if api_key is None else [api_key]

    # --------------------------------------------------------------------------------------------------------- tokens

    def add(self, api_key: str, token: str, end_s: float | None = None) -> None:
        """One more good token of a key, which may be new; `end_s` (Unix seconds) where it does not say so itself."""
        end_ms = tokens.jwt_end_ms(token)
        end_s = end_ms / 1000 if end_ms is not None else end_s
        self._good.setdefault(api_key, set()).add(token)
        self._owners[token] = api_key
        self._ends.pop(token, None)
        if end_s is not None:
            self._ends[token] = end_s

    def replace(self, api_key: str, token: str, end_s: float | None = None) -> None:
        """The same as the only good token of the key."""
        self._good[api_key] = set()
        self.add(api_key, token, end_s)

    def clear(self, api_key: str) -> None:
        """No token of a key is good."""
        self._good[api_key].clear()

    def retire(self, api_key: str, token: str) -> None:
        """A token of a key is good no more."""
        self._good[api_key].discard(token)

    def owner(self, token: str) -> str | None:
        """The key whose token this is or was."""
        return self._owners.get(token)

    def has_tokens(self, api_key: str) -> bool:
        """Whether any token of a key is good, or was until its end."""
        return bool(self._good.get(api_key))

    def is_good(self, api_key: str, token: str) -> bool:
        """Whether this is a token of the key, and not past its end."""
        return token in self._good.get(api_key, ()) and not self.is_over(token)

    def is_over(self, token: str) -> bool:
        """Whether a token's end has passed."""
        end_s = self._ends.get(token)
        return end_s is not None and self._clock() >= end_s

    def check(self, api_key: str, token: str, status: int = 403) -> None:
        """
        A right login, if it returns: the wrong ones before it are forgotten.

        Raises Denied, with `status`: an unknown key, one that is locked, or not a good token of it.
        """
        if api_key not in self._good:
            raise Denied(status, "The api_key is unknown.", token=token)
        self.check_lock(api_key, token, status)
        if not self.is_good(api_key, token):
            raise Denied(status, "The access_token is wrong or has expired.", token=token, wrong=api_key)
        self.right(api_key)

    # ------------------------------------------------------------------------------------------------ wrong and locked

    @property
    def locked(self) -> list[str]:
        """The keys that are."""
        return list(self._locked)

    def check_lock(self, api_key: str, token: str = "", status: int = 403) -> None:
        """Raises Denied: the key is locked, so that nothing else of the login is looked at."""
        if api_key in self._locked:
            count = self._locked[api_key]
            sentence = f"This account is locked after {count} wrong logins in a row; unlock it with /control/unlock."
            raise Denied(status, sentence, token=token, locked=True)

    def right(self, api_key: str) -> None:
        """A right login of a key."""
        self._wrong.pop(api_key, None)

    def wrong(self, api_key: str) -> None:
        """A wrong login of a key; of one that is unknown it is nobody's."""
        if api_key not in self._good:
            return
        self.wrong_logins += 1
        self._wrong[api_key] += 1
        most = self._rules.lock_after
        if most is not None and self._wrong[api_key] >= most and api_key not in self._locked:
            self._locked[api_key] = self._wrong[api_key]
            self._on_locked(api_key)

    def unlock(self, api_key: str | None = None) -> int:
        """Forgets lock and wrong logins of a key (None: of all); how many were locked. Raises ValueError."""
        names = self.named(api_key)
        for name in names:
            self._wrong.pop(name, None)
        return sum(self._locked.pop(name, None) is not None for name in names)
