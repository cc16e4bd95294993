"""
What the calendar is made of: the bundled facts (a file of rules, and one of holidays a year), and the days set in the
admin.
"""

from __future__ import annotations

import datetime as dt
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from brokers.feed.calendar import Calendar, DayOverride, Facts, Rules, Year, parse_spans
from brokers.india import india_date
from brokers.models import CalendarDay
from marketdata.ticks import Segment

log = structlog.get_logger(__name__)

FOLDER = Path(__file__).parent / "calendars"

T = TypeVar("T")

_told: set[tuple[int, str]] = set()
"""Rows that could not be used, and why: each is logged once, however often the days are read."""


def load_calendar(folder: Path = FOLDER) -> Calendar:
    """
    The calendar of the files in a folder: `rules.toml`, and a file for each year, named by it.

    Raises ValueError: a file that is not what it should be; it names the file and what is wrong with it.

    >>> from datetime import date
    >>> from marketdata.ticks import Segment
    >>> load_calendar().is_trading_day(Segment.NSE, date(2026, 2, 1))
    True
    """
    return Calendar(load_facts(folder))


def load_facts(folder: Path = FOLDER) -> Facts:
    """What the files say; see `load_calendar`."""
    years = tuple(_read(path, Year) for path in sorted(folder.glob("[0-9]*.toml")))
    return Facts(_read(folder / "rules.toml", Rules), years)


def _read(path: Path, shape: type[T]) -> T:
    """A file's content in its shape; msgspec's and TOML's errors are ValueErrors, which then name the file."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), shape)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def load_days() -> tuple[DayOverride, ...]:
    """
    The days set in the admin, from yesterday on, one entry a segment.

    A row that cannot be used (the admin stores none such, but others may) is passed over and logged.
    """
    yesterday = india_date(time.time_ns() // 1_000_000) - dt.timedelta(days=1)
    days: list[DayOverride] = []
    for row in CalendarDay.objects.filter(date__gte=yesterday).order_by("date", "set_at", "pk"):
        try:
            days += _of_row(row)
        except ValueError as error:
            _tell_once(row, str(error))
    return tuple(days)


def _of_row(row: CalendarDay) -> Iterator[DayOverride]:
    """Raises ValueError: something in the row is not what it should be."""
    spans = parse_spans(row.sessions)
    if not isinstance(row.segments, list):
        raise ValueError("Its segments are no list.")  # noqa: TRY004 - one kind of error for all that a row may hold
    for segment in [Segment(name) for name in row.segments]:
        yield DayOverride(
            segment=segment,
            date=row.date,
            spans=spans,
            reason=row.reason,
            set_ms=int(row.set_at.timestamp() * 1000),
        )


def _tell_once(row: CalendarDay, problem: str) -> None:
    if (row.pk, problem) not in _told:
        _told.add((row.pk, problem))
        log.warning("calendar_day_unusable", date=row.date.isoformat(), row=row.pk, reason=problem)
