"""
Two programs with one login that push each other out, recognised by how sockets end. Pure: instants are arguments.

Brokers allow an account so many connections; one more, and some end the oldest. Two programs that both come back at
once then end each other's sockets for ever, and neither sees why. Who recognises it waits, and says so.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from brokers.contract import ErrorKind
from brokers.india import INDIA

TIMES, WINDOW_MS = 3, 600_000
"""So many evictions within so long are no chance."""
SHORT_S = 60.0
"""A socket that the broker closes within so long after it stood was not meant to stay."""
TOGETHER_MS = 2_000
"""What ends within so long of the one before is the same eviction: it hit several connections."""
CALM_S = 600.0
"""A connection that stands for so long after a wait: the other program is gone."""
WAITS_MS = (300_000, 900_000, 1_800_000)
"""The first wait, the one after the next eviction, and every further one."""
JITTER = 0.1
"""A wait is longer or shorter by at most this part of it: another program of this kind would come back just then."""


class Ending(NamedTuple):
    """
    How an attempt ended: the kind, the reason in words, for how many seconds the socket stood (0: it never did).

    `is_said` is whether the broker itself ended it, in so many words: a close frame with nothing wrong in it, or a
    message. A line that breaks says nothing, and neither does a server that goes away or has trouble of its own.
    """

    kind: ErrorKind
    reason: str
    lived_s: float = 0.0
    is_said: bool = False


class Evictions:
    """
    Those of one account at one kind of socket. `chance` gives numbers from 0 to 1.

    Counted are sockets that the broker ended because of a limit, however long they stood, and those that it closed with
    the same words within a minute. The third within ten minutes begins a wait; after it each further one begins the
    next, until a connection stands for ten minutes.

    >>> evictions, limit = Evictions(lambda: 0.5), Ending(ErrorKind.LIMIT, "the oldest", 20.0, True)
    >>> [evictions.ended(limit, minute * 60_000) for minute in (1, 2, 3)]
    [False, False, True]
    >>> (evictions.until_ms - 3 * 60_000) // 60_000
    5
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self.until_ms = 0
        """Until when (Unix ms) nobody should try; 0: there was no wait yet."""
        self.times = 0
        """Evictions that led to the wait, and to those before it."""
        self._chance = chance
        self._waits = 0
        """Waits so far, one after the other."""
        self._since_ms = 0
        """The first eviction of those that led to the wait."""
        self._last_ms = 0
        self._seen: dict[str, deque[int]] = {}
        """When, by the broker's words, in the last ten minutes."""

    def ended(self, ending: Ending, now_ms: int) -> bool:
        """Takes note of the end of a socket; whether a wait begins."""
        self._calm(ending, now_ms)
        words = _words(ending)
        if words is None or now_ms < self.until_ms:
            return False
        is_same = 0 <= now_ms - self._last_ms < TOGETHER_MS
        self._last_ms = now_ms
        if is_same:
            return False
        if not self._waits:
            return self._first(self._seen_of(words, now_ms), now_ms)
        self.times += 1
        return self._wait(now_ms)

    def forgive(self) -> None:
        """Somebody changed something: it is tried at once, as if nothing had been."""
        self.until_ms = self.times = self._waits = 0
        self._seen.clear()

    def sentence(self) -> str:
        """What to tell people while it waits."""
        again = dt.datetime.fromtimestamp(self.until_ms / 1000, INDIA)
        return (
            "Another program seems to be connected with the same account: the broker ended our connection "
            f"{self.times} times in {_length(self._last_ms - self._since_ms)}. Stop that program, or give it another "
            f"login; trying again at {again:%H:%M}."
        )

    def _calm(self, ending: Ending, now_ms: int) -> None:
        lived_ms = int(ending.lived_s * 1000)
        if self._waits and ending.lived_s >= CALM_S and now_ms - lived_ms >= self.until_ms:
            self.forgive()

    def _seen_of(self, words: str, now_ms: int) -> deque[int]:
        """When this was seen, now included; what is older than the window is forgotten."""
        self._seen.setdefault(words, deque()).append(now_ms)
        for each, seen in list(self._seen.items()):
            while seen and not 0 <= now_ms - seen[0] < WINDOW_MS:
                seen.popleft()
            if not seen:
                del self._seen[each]
        return self._seen[words]

    def _first(self, seen: deque[int], now_ms: int) -> bool:
        if len(seen) < TIMES:
            return False
        self._since_ms, self.times = seen[0], len(seen)
        return self._wait(now_ms)

    def _wait(self, now_ms: int) -> bool:
        wait_ms = WAITS_MS[min(self._waits, len(WAITS_MS) - 1)]
        self._waits += 1
        self.until_ms = now_ms + int(wait_ms * (1 - JITTER + 2 * JITTER * self._chance()))
        return True


def _words(ending: Ending) -> str | None:
    """By what an eviction is the same as another; None: it is none."""
    if not ending.lived_s:
        return None
    if ending.kind is ErrorKind.LIMIT:
        return "limit"
    is_short = ending.is_said and ending.kind is ErrorKind.NETWORK and ending.lived_s < SHORT_S
    return f"closed: {ending.reason}" if is_short else None


def _length(ms: int) -> str:
    """
    A length of time for people.

    >>> _length(40_400), _length(240_000), _length(5 * 3_600_000)
    ('40 s', '4 min', '5 h')
    """
    if ms < 60_000:
        return f"{ms // 1000} s"
    return f"{round(ms / 60_000)} min" if ms < 2 * 3_600_000 else f"{round(ms / 3_600_000)} h"
