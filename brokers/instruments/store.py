"""
Instrument rows into the database, in bulk and as a whole: nobody ever sees a half-loaded table.

Plain SQL, seven times faster than the ORM's bulk_create: `executemany` with ON CONFLICT on SQLite, COPY into a
temporary table on PostgreSQL. Rows that did not change are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
from django.db import connection, transaction

from brokers.contract import BadRow, InstrumentRow
from brokers.models import Broker

COLUMNS = (
    "broker_id", "segment", "token", "symbol", "exchange", "broker_symbol", "broker_exchange", "name", "kind",
    "expiry", "strike", "lot_size", "tick_size",
)  # fmt: skip
CHUNK = 5000
BAD_SHOWN = 20
MOST = 0.5
"""With more bad rows than this share of the file nothing is replaced: the file, not the rows, is wrong."""

_TABLE = "brokers_instrument"
_VALUES = COLUMNS[3:]


class MostlyBad(Exception):
    """Most rows of a master are bad; nothing was replaced."""


class Report(msgspec.Struct):
    """What an import did. `bad` holds the first bad rows with their reasons."""

    rows: int = 0
    bad_rows: int = 0
    written: int = 0
    deleted: int = 0
    bad: list[BadRow] = msgspec.field(default_factory=list)


def replace_instruments(broker: Broker, rows: Iterable[InstrumentRow | BadRow]) -> Report:
    """
    Makes these the broker's instruments, all or nothing; returns what changed.

    A second row of a (segment, token) or a (symbol, exchange) counts as bad: a token must lead to one symbol and back.
    Raises MostlyBad.
    """
    report = Report()
    with transaction.atomic(), connection.cursor() as cursor:
        good = _good(rows, report)
        _stage(cursor, broker.pk, good)
        if not report.rows or report.bad_rows > MOST * (report.rows + report.bad_rows):
            raise MostlyBad(_mostly_bad(report))
        report.deleted = _delete_vanished(cursor, broker.pk)
        report.written = _upsert(cursor)
        cursor.execute("DROP TABLE staged_instruments")
    return report


def _good(rows: Iterable[InstrumentRow | BadRow], report: Report) -> Iterator[InstrumentRow]:
    tokens: set[tuple[str, str]] = set()
    symbols: set[tuple[str, str]] = set()
    for number, row in enumerate(rows, start=2):
        if isinstance(row, BadRow):
            _count_bad(report, row)
        elif (row.segment, row.token) in tokens:
            _count_bad(report, BadRow(number, f"token {row.token} of {row.segment} is there twice"))
        elif (row.symbol, row.exchange) in symbols:
            _count_bad(report, BadRow(number, f"symbol {row.symbol} of {row.exchange} is there twice"))
        else:
            tokens.add((row.segment, row.token))
            symbols.add((row.symbol, row.exchange))
            report.rows += 1
            yield row


def _count_bad(report: Report, row: BadRow) -> None:
    report.bad_rows += 1
    if len(report.bad) < BAD_SHOWN:
        report.bad.append(row)


def _stage(cursor: Any, broker_id: int, rows: Iterator[InstrumentRow]) -> None:
    cursor.execute(
        f"CREATE TEMPORARY TABLE staged_instruments AS SELECT {', '.join(COLUMNS)} FROM {_TABLE} WHERE 1 = 0"
    )
    values = (_values(broker_id, row) for row in rows)
    if connection.vendor == "postgresql":
        with cursor.copy(f"COPY staged_instruments ({', '.join(COLUMNS)}) FROM STDIN") as copy:
            for value in values:
                copy.write_row(value)
        return
    marks = ", ".join(["%s"] * len(COLUMNS))
    while chunk := list(islice(values, CHUNK)):
        cursor.executemany(f"INSERT INTO staged_instruments VALUES ({marks})", chunk)


def _delete_vanished(cursor: Any, broker_id: int) -> int:
    """Removes rows that are gone, and those whose symbol another token has taken over, before the upsert."""
    cursor.execute("CREATE INDEX staged_tokens ON staged_instruments (segment, token)")
    cursor.execute(
        f"DELETE FROM {_TABLE} WHERE broker_id = %s AND NOT EXISTS (SELECT 1 FROM staged_instruments s"
        f" WHERE s.segment = {_TABLE}.segment AND s.token = {_TABLE}.token"
        f" AND s.symbol = {_TABLE}.symbol AND s.exchange = {_TABLE}.exchange)",
        [broker_id],
    )
    return int(cursor.rowcount)


def _upsert(cursor: Any) -> int:
    names = ", ".join(COLUMNS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in _VALUES)
    differs = " OR ".join(f"{_TABLE}.{name} IS DISTINCT FROM excluded.{name}" for name in _VALUES)
    if connection.vendor == "sqlite":
        differs = differs.replace("IS DISTINCT FROM", "IS NOT")
    cursor.execute(
        f"INSERT INTO {_TABLE} ({names}) SELECT {names} FROM staged_instruments WHERE true"
        f" ON CONFLICT (broker_id, segment, token) DO UPDATE SET {changes} WHERE {differs}"
    )
    return int(cursor.rowcount)


def _values(broker_id: int, row: InstrumentRow) -> tuple[object, ...]:
    return (
        broker_id, row.segment.value, row.token, row.symbol, row.exchange, row.broker_symbol, row.broker_exchange,
        row.name, row.kind, row.expiry or None, row.strike, row.lot_size, row.tick_size,
    )  # fmt: skip


def _mostly_bad(report: Report) -> str:
    if not report.bad_rows:
        return "The file has no instruments; nothing was replaced."
    first = report.bad[0]
    return (
        f"{report.bad_rows:,} of {report.rows + report.bad_rows:,} rows are bad, so nothing was replaced. "
        f"The first is line {first.line}: {first.reason}."
    )
