"""
Whether brokers agree on what they list under one name, and whether their names follow the grammar.

Both read row by row and keep only counts and the first findings, however many instruments there are.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from django.db import connection
from django.db.backends.utils import CursorWrapper

from brokers.symbols import GrammarError, Kind, parse

FIELDS = ("lot_size", "tick_size", "expiry", "strike", "kind")
"""In which the listings of one (symbol, exchange) must be equal."""
FETCHED = 2000
_SAME = 1e-9
"""Rupees below which two tick sizes or strikes are the same number, read from different texts."""

_KINDS = {Kind.SPOT: ("SPOT", "EQ"), Kind.PERPETUAL: ("PERPFUT", "FUT")}
"""What a row may be called that the grammar calls so; else the same."""

Value = str | int | float | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One field of one name in which brokers differ: each broker's value, by slug."""

    symbol: str
    exchange: str
    field: str
    values: dict[str, Value]


class Misnamed(msgspec.Struct, frozen=True, kw_only=True):
    """A row whose symbol does not say what the row is, and why."""

    broker: str
    symbol: str
    exchange: str
    reason: str


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """In so many names two brokers differ in a field."""

    field: str
    brokers: tuple[str, str]
    names: int


class Report(msgspec.Struct, kw_only=True):
    """
    What was found: all of it counted, the first of it kept.

    `shared` is how many listings of two brokers each were compared, `rows` how many symbols were read.
    """

    shared: int = 0
    rows: int = 0
    differing: int = 0
    misnaming: int = 0
    differences: list[Difference] = msgspec.field(default_factory=list)
    misnamed: list[Misnamed] = msgspec.field(default_factory=list)
    counts: list[Count] = msgspec.field(default_factory=list)
    misnamed_by: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.differing and not self.misnaming


def check(brokers: Sequence[str], limit: int) -> Report:
    """
    Compares these brokers' instruments (slugs; none: all brokers'), keeping the first `limit` findings of each sort.

    Raises django.db.DatabaseError.
    """
    report = Report()
    report.shared = _count_shared(brokers)
    _compare(brokers, limit, report)
    _read_names(brokers, limit, report)
    return report


# ---------------------------------------------------------------------------------------------------------- differences


def _compare(brokers: Sequence[str], limit: int, report: Report) -> None:
    counts: Counter[tuple[str, str, str]] = Counter()
    for (symbol, exchange), pairs in groupby(_differing_pairs(brokers), key=lambda row: (row[0], row[1])):
        values: dict[str, dict[str, Value]] = {}
        for row in pairs:
            first, second = row[2], row[3]
            for place, field in enumerate(FIELDS):
                one, other = row[4 + 2 * place], row[5 + 2 * place]
                if not is_same(one, other):
                    counts[field, first, second] += 1
                    values.setdefault(field, {}).update({first: plain(one), second: plain(other)})
        report.differing += len(values)
        for field, by_broker in values.items():
            if len(report.differences) < limit:
                sorted_values = dict(sorted(by_broker.items()))
                report.differences.append(
                    Difference(symbol=symbol, exchange=exchange, field=field, values=sorted_values)
                )
    report.counts = [
        Count(field=field, brokers=(first, second), names=names)
        for (field, first, second), names in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    ]


def is_same(one: Any, other: Any) -> bool:
    """
    Whether two values of a field are one.

    >>> is_same(0.05, 0.05000000000000001), is_same(None, 0.05), is_same("EQ", "EQ")
    (True, False, True)
    """
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _SAME
    return bool(one == other)


def plain(value: Any) -> Value:
    """A value as JSON has it."""
    return value.isoformat() if isinstance(value, dt.date) else value


def _differing_pairs(brokers: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """
    Every two brokers' listings of one name that differ, sorted by name: symbol, exchange, slug, slug, then each field
    of both. One self-join, of which only what differs leaves the database.
    """
    is_not = "IS NOT" if connection.vendor == "sqlite" else "IS DISTINCT FROM"
    apart = f"abs(a.{{0}} - b.{{0}}) > {_SAME} OR (a.{{0}} IS NULL) <> (b.{{0}} IS NULL)"
    differs = " OR ".join(
        apart.format(field) if field in ("tick_size", "strike") else f"a.{field} {is_not} b.{field}" for field in FIELDS
    )
    columns = ", ".join(f"a.{field}, b.{field}" for field in FIELDS)
    yield from _rows(
        f"SELECT a.symbol, a.exchange, one.slug, other.slug, {columns} {_pairs(brokers)} AND ({differs})"
        " ORDER BY a.symbol, a.exchange, one.slug, other.slug",
        [*brokers, *brokers],
    )


def _count_shared(brokers: Sequence[str]) -> int:
    [(shared,)] = _rows(f"SELECT count(*) {_pairs(brokers)}", [*brokers, *brokers])
    return int(shared)


def _pairs(brokers: Sequence[str]) -> str:
    among = f"IN ({', '.join(['%s'] * len(brokers))})" if brokers else "IS NOT NULL"
    return (
        "FROM brokers_instrument a JOIN brokers_broker one ON one.id = a.broker_id"
        " JOIN brokers_instrument b ON b.symbol = a.symbol AND b.exchange = a.exchange"
        " JOIN brokers_broker other ON other.id = b.broker_id"
        f" WHERE one.slug < other.slug AND one.slug {among} AND other.slug {among}"
    )


# ---------------------------------------------------------------------------------------------------------------- names


class _Named(NamedTuple):
    """A row's name and what the row says of itself."""

    broker: str
    symbol: str
    exchange: str
    kind: str
    expiry: dt.date | None
    strike: float | None


def _read_names(brokers: Sequence[str], limit: int, report: Report) -> None:
    misnamed: Counter[str] = Counter()
    for row in _named(brokers):
        report.rows += 1
        reason = misnomer(row)
        if reason:
            misnamed[row.broker] += 1
            if len(report.misnamed) < limit:
                report.misnamed.append(
                    Misnamed(broker=row.broker, symbol=row.symbol, exchange=row.exchange, reason=reason)
                )
    report.misnaming = misnamed.total()
    report.misnamed_by = dict(sorted(misnamed.items()))


def misnomer(row: _Named) -> str:
    """
    Why a symbol does not say what its row is; "" where it does.

    >>> misnomer(_Named("zerodha", "NIFTY28MAR24FUT", "NFO", "FUT", dt.date(2024, 3, 28), None))
    ''
    >>> misnomer(_Named("zerodha", "NIFTY28MAR24FUT", "NFO", "FUT", dt.date(2024, 3, 27), None))
    'NIFTY28MAR24FUT on NFO says the expiry 2024-03-28, its row has 2024-03-27; name it by the row.'
    """
    try:
        name = parse(row.symbol, row.exchange)
    except GrammarError as error:
        return str(error)
    told: tuple[tuple[str, object, object, bool], ...] = (
        ("kind", str(name.kind), row.kind, row.kind in _KINDS.get(name.kind, (name.kind,))),
        ("expiry", name.expiry, row.expiry, name.expiry == row.expiry),
        ("strike", name.strike, row.strike, is_same(name.strike, row.strike)),
    )
    for field, said, has, agree in told:
        if not agree:
            return (
                f"{row.symbol} on {row.exchange} says the {field} {said or 'nothing'}, its row has {has or 'nothing'}; "
                "name it by the row."
            )
    return ""


def _named(brokers: Sequence[str]) -> Iterator[_Named]:
    where = f" WHERE b.slug IN ({', '.join(['%s'] * len(brokers))})" if brokers else ""
    rows = _rows(
        "SELECT b.slug, i.symbol, i.exchange, i.kind, i.expiry, i.strike FROM brokers_instrument i"
        f" JOIN brokers_broker b ON b.id = i.broker_id{where}",
        brokers,
    )
    for slug, symbol, exchange, kind, expiry, strike in rows:
        date = dt.date.fromisoformat(expiry) if isinstance(expiry, str) else expiry
        yield _Named(slug, symbol, exchange, kind, date, strike)


def _rows(query: str, parameters: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, a portion at a time: PostgreSQL's own cursors would fetch all of them at once."""
    cursor: CursorWrapper = connection.chunked_cursor()
    with cursor:
        cursor.execute(query, parameters)
        while portion := cursor.fetchmany(FETCHED):
            yield from portion
