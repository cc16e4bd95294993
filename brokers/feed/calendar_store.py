"""Reads the bundled facts of the exchanges' calendar: one file of rules, and one of holidays a year."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from brokers.feed.calendar import Calendar, Facts, Rules, Year

FOLDER = Path(__file__).parent / "calendars"

T = TypeVar("T")


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
