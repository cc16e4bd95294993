"""How fast a client may give commands. Pure; time is an argument."""

from __future__ import annotations


class TokenBucket:
    """
    So many at once, refilled at a steady rate.

    >>> bucket = TokenBucket(rate_per_s=1.0, burst=2)
    >>> [bucket.take(now_s) for now_s in (0.0, 0.0, 0.5, 1.0)]
    [True, True, False, True]
    """

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._left = float(burst)
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether one more may be, now."""
        if self._at_s is not None:
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate_per_s)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
