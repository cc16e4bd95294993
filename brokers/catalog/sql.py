"""Small words for plain SQL on both databases."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any


def marks(values: Collection[object]) -> str:
    """
    Placeholders for values.

    >>> marks("abc")
    '%s, %s, %s'
    """
    return ", ".join(["%s"] * len(values))


def as_date(value: Any) -> dt.date | None:
    """A date as it comes out of a cursor: PostgreSQL gives dates, SQLite texts."""
    return dt.date.fromisoformat(value) if isinstance(value, str) else value
