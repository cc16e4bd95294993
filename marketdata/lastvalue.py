"""Whether a last value may pass for a current one. Pure."""

from __future__ import annotations

IST_OFFSET_MS = 19_800_000
DAY_MS = 86_400_000


def is_stale(received_ms: int, now_ms: float, *, feed_is_up: bool) -> bool:
    """
    True for a value of an earlier day (Indian time), and for any value while its feed is down.

    >>> noon = 1705300200000
    >>> is_stale(noon, noon + 60_000, feed_is_up=True), is_stale(noon, noon + 60_000, feed_is_up=False)
    (False, True)
    >>> is_stale(noon, noon + DAY_MS, feed_is_up=True)
    True
    """
    return not feed_is_up or _day(received_ms) != _day(now_ms)


def _day(instant_ms: float) -> int:
    return int(instant_ms + IST_OFFSET_MS) // DAY_MS
