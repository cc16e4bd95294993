"""
Dates and times of day in India, which is UTC+05:30 in every season, whatever the machine's zone is. Pure.

Instants are Unix milliseconds UTC.
"""

from __future__ import annotations

from datetime import date, timedelta, timezone

MINUTE_MS = 60_000
DAY_MS = 86_400_000
INDIA_MS = 19_800_000
"""How far Indian time is ahead of UTC: five and a half hours."""

INDIA = timezone(timedelta(milliseconds=INDIA_MS))

_EPOCH = date(1970, 1, 1).toordinal()


def india_ms(day: date, clock: str = "00:00") -> int:
    """
    The instant of a time of day in India.

    >>> india_ms(date(2026, 11, 25), "09:15")
    1795578300000
    """
    minutes = int(clock[:2]) * 60 + int(clock[3:])
    return (day.toordinal() - _EPOCH) * DAY_MS + minutes * MINUTE_MS - INDIA_MS


def india_date(now_ms: int) -> date:
    """
    The date in India at an instant.

    Raises ValueError or OverflowError: an instant outside the years 1 to 9999.

    >>> india_date(1795578300000)
    datetime.date(2026, 11, 25)
    """
    return date.fromordinal((now_ms + INDIA_MS) // DAY_MS + _EPOCH)


def india_clock(now_ms: int) -> str:
    """
    The time of day in India at an instant.

    >>> india_clock(1795578300000)
    '09:15'
    """
    minutes = (now_ms + INDIA_MS) % DAY_MS // MINUTE_MS
    return f"{minutes // 60:02}:{minutes % 60:02}"
