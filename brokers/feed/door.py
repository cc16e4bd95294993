"""The brokers' doors: who knocked when, remembered over restarts of the process."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable

from brokers.contract import ErrorKind
from brokers.feed.knocks import WINDOWS_MS, Knocks
from brokers.logins import Knock, Outcome, read_knocks, write_knocks

KEPT = 500
"""So many attempts wait for the database while it is away, the newest."""


class Door:
    """
    The attempts to connect of every account, at each kind of socket.

    `clock` gives Unix seconds; `on_news` is called when there is something to `write`.
    """

    def __init__(self, clock: Callable[[], float], *, on_news: Callable[[], None]) -> None:
        self._clock = clock
        self._on_news = on_news
        self._knocks: dict[tuple[int, str], Knocks] = {}
        """By account and kind of socket."""
        self._unwritten: list[Knock] = []
        self._past: defaultdict[tuple[int, str], list[Knock]] = defaultdict(list)
        """What was tried before this process began, oldest first, until it is counted in `_knocks`."""

    def remember(self) -> None:
        """What this process's predecessors tried counts at the broker. Synchronous. Raises django.db.DatabaseError."""
        since = dt.datetime.fromtimestamp(self._clock(), dt.UTC) - dt.timedelta(milliseconds=WINDOWS_MS[-1][0])
        for knock in read_knocks(since):
            self._past[knock.account_id, knock.kind].append(knock)

    def knocks(self, account_id: int, burst: int, kind: str) -> Knocks:
        """An account's attempts at a kind of socket, of which `burst` a minute are allowed."""
        knocks = self._knocks.get((account_id, kind))
        if knocks is None:
            past = self._past.pop((account_id, kind), [])
            knocks = self._knocks[account_id, kind] = Knocks(burst, (each.at_ms for each in past))
            for each in past:
                if each.outcome == Outcome.OK:
                    knocks.let_in()
                elif each.detail.startswith(ErrorKind.LIMIT.value):
                    knocks.denied(each.at_ms)
        return knocks

    def knocked(self, account_id: int, kind: str, at_ms: int, outcome: str, reason: str) -> None:
        """An attempt was made, or something came of it; as `Connection` tells."""
        self._unwritten.append(Knock(account_id, kind, at_ms, Outcome(outcome), reason))
        self._on_news()

    def write(self) -> None:
        """Puts into the database what is not there. Synchronous. Raises django.db.DatabaseError: all is kept."""
        del self._unwritten[:-KEPT]
        count = len(self._unwritten)
        if count:
            write_knocks(self._unwritten[:count])
            del self._unwritten[:count]
