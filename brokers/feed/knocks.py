"""
How often an account may knock at its broker's door. Pure: instants are arguments.

Every connection has waits of its own that rise; this is what holds for all connections of an account together, over
restarts of the process: brokers throttle or lock out who comes too often.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

MINUTE_MS = 60_000
WINDOWS_MS = ((MINUTE_MS, 1), (10 * MINUTE_MS, 3))
"""Within so long, so many times the burst."""

DENIED_FIRST_MS, DENIED_MOST_MS = 15_000, 300_000
"""After a broker's "too many", the first wait; each that follows at once is twice as long, at most this."""


class Knocks:
    """
    The attempts of one account at one kind of socket; `burst` are allowed in a minute.

    >>> knocks = Knocks(2)
    >>> knocks.add(0), knocks.add(100), knocks.next_ms(200), knocks.next_ms(60_001)
    (None, None, 60000, 60001)
    """

    def __init__(self, burst: int, past: Iterable[int] = (), *, denied: Iterable[int] = ()) -> None:
        self.burst = burst
        self._at_ms: deque[int] = deque(sorted(past), maxlen=burst * WINDOWS_MS[-1][1])
        self._denied_ms = 0
        self._denials = 0
        for at_ms in sorted(denied):
            self.denied(at_ms)

    def next_ms(self, now_ms: int) -> int:
        """When the next attempt may be made: now, or later."""
        earliest_ms = now_ms
        for window_ms, times in WINDOWS_MS:
            most = self.burst * times
            if len(self._at_ms) >= most:
                earliest_ms = max(earliest_ms, self._at_ms[-most] + window_ms)
        if self._denials:
            wait_ms = min(DENIED_FIRST_MS * 2 ** min(self._denials - 1, 16), DENIED_MOST_MS)
            earliest_ms = max(earliest_ms, self._denied_ms + wait_ms)
        # An instant in the future was written down by a clock that was wrong.
        return min(earliest_ms, now_ms + WINDOWS_MS[-1][0])

    def add(self, now_ms: int) -> None:
        """An attempt is made."""
        self._at_ms.append(now_ms)

    def denied(self, now_ms: int) -> None:
        """The broker said that these are too many."""
        self._denied_ms, self._denials = now_ms, self._denials + 1

    def let_in(self) -> None:
        """The broker took one."""
        self._denials = 0
