"""
Instrument rows into the database, in bulk and as a whole: nobody ever sees a half-loaded table.

Plain SQL, seven times faster than the ORM's bulk_create: rows are first put into a temporary table (`executemany` on
SQLite, COPY on PostgreSQL), which takes most of the time and locks nobody out, then compared with what is stored, and
only what differs is written, in one transaction.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from django.db import connection, transaction
from django.utils import timezone

from brokers.contract import BadRow, InstrumentRow
from brokers.india import INDIA
from brokers.models import Broker, InstrumentMaster
from brokers.symbols import parse_derivative

COLUMNS = (
    "broker_id", "segment", "token", "symbol", "exchange", "broker_symbol", "broker_exchange", "name", "kind",
    "expiry", "strike", "lot_size", "tick_size", "master",
)  # fmt: skip
CHUNK = 5000
PROGRESS_EVERY = 1000
BAD_SHOWN = 20
MOST = 0.5
"""With more bad rows than this share of a file nothing is replaced: the file, not the rows, is wrong."""
SHRUNK = 0.5
"""With fewer rows than this share of what was stored nothing is replaced: the file looks cut short."""
SHRINKS_FROM = 1000
"""A file that had fewer rows than this may shrink as it likes."""

_TABLE = "brokers_instrument"
_VALUES = COLUMNS[3:]
_LENGTHS = {"token": 100, "symbol": 100, "exchange": 16, "broker_symbol": 200, "broker_exchange": 50, "kind": 10}
_NAME_LENGTH = 200
_MOST_LOT = 2**31 - 1


class UnsoundMaster(Exception):
    """What was read is no whole, sound master; nothing was replaced. The text says why."""


class MasterFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an import: its rows, which day's it is, and what to remember of where it came from."""

    rows: Iterable[InstrumentRow | BadRow]
    dated: dt.date
    segment: str = ""
    url: str = ""
    simulated: bool = False
    etag: str = ""
    last_modified: str = ""


class Bad(NamedTuple):
    """A row that was passed over: the segment of its file, its line, and why."""

    segment: str
    line: int
    reason: str


class Name(NamedTuple):
    """What clients call an instrument."""

    symbol: str
    exchange: str


class Renamed(NamedTuple):
    """The same token of the broker under another name."""

    old: Name
    new: Name


class Report(msgspec.Struct):
    """
    What an import did. `bad` holds the first bad rows with their reasons.

    `gone` are names that lead nowhere now, `moved` those that lead to another token.
    """

    rows: int = 0
    bad_rows: int = 0
    written: int = 0
    deleted: int = 0
    bad: list[Bad] = msgspec.field(default_factory=list)
    gone: list[Name] = msgspec.field(default_factory=list)
    moved: list[Name] = msgspec.field(default_factory=list)
    renamed: list[Renamed] = msgspec.field(default_factory=list)

    @property
    def is_changed(self) -> bool:
        """Whether anything in the table is different now."""
        return bool(self.written or self.deleted)


class _Count(msgspec.Struct):
    """How many rows of one file were good and bad."""

    file: MasterFile
    good: int = 0
    bad: int = 0


Progress = Callable[[str, int], None]
"""Told a file's segment and how many of its rows were read so far."""


def replace_instruments(broker: Broker, rows: Iterable[InstrumentRow | BadRow], *, simulated: bool = False) -> Report:
    """
    Makes these the broker's instruments, whatever there was before. See `replace_masters`.

    Raises UnsoundMaster.
    """
    today = timezone.now().astimezone(INDIA).date()
    return replace_masters(broker, [MasterFile(rows=rows, dated=today, simulated=simulated)], force=True)


def replace_masters(
    broker: Broker,
    files: Iterable[MasterFile],
    *,
    partly: bool = False,
    force: bool = False,
    progress: Progress = lambda _segment, _rows: None,
) -> Report:
    """
    Makes the rows of these files the broker's instruments, all or nothing; returns what changed.

    `partly`: what other files list stays, unless these contradict it. A second row of a (segment, token) or a (symbol,
    exchange) counts as bad: a token must lead to one symbol and back. `force` believes also files that shrank.
    Files are taken one after the other, so that an iterator need hold only one.

    Raises UnsoundMaster, whatever iterating over the rows raises, and django.db.DatabaseError; then all is as before.
    """
    report = Report()
    with _staging() as cursor:
        counts = _stage_all(cursor, broker.pk, files, report, progress)
        _check(broker, counts, report, force=force)
        with transaction.atomic():
            Broker.objects.select_for_update().get(pk=broker.pk)  # two imports of a broker come one after the other
            scope = [count.file.segment for count in counts] if partly else None
            _find_doomed(cursor, broker.pk, scope)
            _note_names(cursor, report)
            report.deleted = _delete_doomed(cursor)
            report.written = _upsert(cursor)
            _remember(broker, counts, changed=report.is_changed, partly=partly)
    return report


# -------------------------------------------------------------------------------------------------------------- staging


@contextmanager
def _staging() -> Iterator[Any]:
    """A cursor, and the temporary table for what it stages; afterwards both are gone, however it ends."""
    _drop_staged()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TEMPORARY TABLE staged_instruments AS SELECT {', '.join(COLUMNS)} FROM {_TABLE} WHERE 1 = 0"
            )
            yield cursor
    finally:
        _drop_staged()


def _drop_staged() -> None:
    if connection.needs_rollback:  # somebody else's transaction, which is lost: the tables go with it
        return
    with connection.cursor() as cursor:
        for table in ("staged_instruments", "doomed_instruments"):
            cursor.execute(f"DROP TABLE IF EXISTS {table}")


def _stage_all(
    cursor: Any, broker_id: int, files: Iterable[MasterFile], report: Report, progress: Progress
) -> list[_Count]:
    tokens: set[str] = set()
    symbols: set[str] = set()
    counts: list[_Count] = []
    with _one_transaction(cursor):
        for file in files:
            counts.append(_Count(file))
            good = _good(counts[-1], report, tokens, symbols, progress)
            _stage(cursor, (_values(broker_id, row, file.segment) for row in good))
        cursor.execute("CREATE INDEX staged_tokens ON staged_instruments (segment, token)")
        cursor.execute("CREATE INDEX staged_symbols ON staged_instruments (symbol, exchange)")
    if connection.vendor == "postgresql":
        cursor.execute("ANALYZE staged_instruments")
    return counts


@contextmanager
def _one_transaction(cursor: Any) -> Iterator[None]:
    """Many inserts at the price of one commit; on PostgreSQL a COPY is one statement anyway."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    cursor.execute("BEGIN")  # not Django's own, which would bar all writers while a file is parsed
    try:
        yield
    except BaseException:
        if connection.connection.in_transaction:  # a full disk has ended it already
            cursor.execute("ROLLBACK")
        raise
    cursor.execute("COMMIT")


def _good(
    count: _Count, report: Report, tokens: set[str], symbols: set[str], progress: Progress
) -> Iterator[InstrumentRow]:
    segment = count.file.segment
    for number, row in enumerate(count.file.rows, start=1):
        if number % PROGRESS_EVERY == 0:
            progress(segment, number)
        if isinstance(row, BadRow):
            _count_bad(count, report, row.line, row.reason)
            continue
        token, symbol = f"{row.segment}\t{row.token}", f"{row.exchange}\t{row.symbol}"
        flaw = _flaw(row)
        if flaw:
            _count_bad(count, report, number, flaw)
        elif token in tokens:
            _count_bad(count, report, number, f"token {row.token} of {row.segment} is there twice")
        elif symbol in symbols:
            _count_bad(count, report, number, f"symbol {row.symbol} of {row.exchange} is there twice")
        else:
            tokens.add(token)
            symbols.add(symbol)
            count.good += 1
            report.rows += 1
            yield row
    progress(segment, count.good + count.bad)


def _count_bad(count: _Count, report: Report, line: int, reason: str) -> None:
    count.bad += 1
    report.bad_rows += 1
    if len(report.bad) < BAD_SHOWN:
        report.bad.append(Bad(count.file.segment, line, reason))


def _flaw(row: InstrumentRow) -> str:
    """
    Why the table cannot hold a row; "" where it can.

    >>> row = InstrumentRow(segment="NSE", token="3045", symbol="SBIN", exchange="NSE", broker_symbol="SBIN",
    ...                     broker_exchange="NSE")
    >>> _flaw(row), _flaw(msgspec.structs.replace(row, symbol="")), _flaw(msgspec.structs.replace(row, lot_size=0))
    ('', 'it has no symbol', 'a lot of 0')
    """
    if not row.token or not row.symbol or not row.exchange:
        return f"it has no {'token' if not row.token else 'symbol' if not row.symbol else 'exchange'}"
    texts = (row.token, row.symbol, row.exchange, row.broker_symbol, row.broker_exchange, row.kind)
    for text, (column, length) in zip(texts, _LENGTHS.items(), strict=True):
        if len(text) > length:
            return f"its {column} is longer than {length} characters"
    every = f"{''.join(texts)}{row.name}"
    if "\0" in every or not (every.isascii() or _is_text(every)):
        return "it holds characters that are no text"
    if not 0 < row.lot_size <= _MOST_LOT:
        return f"a lot of {row.lot_size}"
    if not math.isfinite(row.tick_size) or not math.isfinite(row.strike or 0.0):
        return f"a tick size of {row.tick_size} and a strike of {row.strike}"
    return "" if _is_date(row.expiry) else f"an expiry of {row.expiry!r}"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=4096)
def _is_date(text: str) -> bool:
    try:
        return not text or dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _values(broker_id: int, row: InstrumentRow, master: str) -> tuple[object, ...]:
    return (
        broker_id, str(row.segment), row.token, row.symbol, row.exchange, row.broker_symbol, row.broker_exchange,
        row.name[:_NAME_LENGTH], row.kind, row.expiry or None, row.strike, row.lot_size, row.tick_size, master,
    )  # fmt: skip


def _stage(cursor: Any, values: Iterator[tuple[object, ...]]) -> None:
    if connection.vendor == "postgresql":
        with cursor.copy(f"COPY staged_instruments ({', '.join(COLUMNS)}) FROM STDIN") as copy:
            for value in values:
                copy.write_row(value)
        return
    marks = ", ".join(["%s"] * len(COLUMNS))
    while chunk := list(islice(values, CHUNK)):
        cursor.executemany(f"INSERT INTO staged_instruments VALUES ({marks})", chunk)


# ------------------------------------------------------------------------------------------------------------ soundness


def _check(broker: Broker, counts: Collection[_Count], report: Report, *, force: bool) -> None:
    if not sum(count.good + count.bad for count in counts):
        raise UnsoundMaster("The file has no instruments; nothing was replaced.")
    stored = {master.segment: master for master in InstrumentMaster.objects.filter(broker=broker)}
    for count in counts:
        if count.bad > MOST * (count.good + count.bad):
            raise UnsoundMaster(_mostly_bad(count, report))
        before = stored.get(count.file.segment)
        if before is not None and not force and before.rows >= SHRINKS_FROM and count.good < SHRUNK * before.rows:
            raise UnsoundMaster(_shrunk(count, before))


def _mostly_bad(count: _Count, report: Report) -> str:
    segment = count.file.segment
    text = f"{count.bad:,} of {count.good + count.bad:,} rows{_of(segment)} are bad, so nothing was replaced."
    first = next((bad for bad in report.bad if bad.segment == segment), None)
    return text if first is None else f"{text} The first is line {first.line}: {first.reason}."


def _shrunk(count: _Count, before: InstrumentMaster) -> str:
    return (
        f"There are only {count.good:,} instruments{_of(count.file.segment)} where that of {before.dated:%d %b %Y} "
        f"had {before.rows:,}; it looks cut short, so nothing was replaced. If it is right, run it with --force."
    )


def _of(segment: str) -> str:
    return f" of {segment}" if segment else ""


# -------------------------------------------------------------------------------------------------------------- writing


def _find_doomed(cursor: Any, broker_id: int, scope: Collection[str] | None) -> None:
    """
    Which stored rows go before the others come: those that the files do not list under the same token and name.

    Outside the `scope` (None: all of the broker's) only those that contradict the files.
    """
    same_id = "s.segment = i.segment AND s.token = i.token"
    same_name = "s.symbol = i.symbol AND s.exchange = i.exchange"
    staged = "SELECT 1 FROM staged_instruments s WHERE"
    parameters: list[object] = [broker_id]
    rule = f"NOT EXISTS ({staged} {same_id} AND {same_name})"
    if scope is not None:
        inside = ", ".join(["%s"] * len(scope))
        parameters += scope
        rule = (
            f"(i.master IN ({inside}) AND {rule}) OR EXISTS ({staged} {same_id} AND NOT ({same_name}))"
            f" OR EXISTS ({staged} {same_name} AND NOT ({same_id}))"
        )
    cursor.execute(
        "CREATE TEMPORARY TABLE doomed_instruments AS SELECT i.id, i.segment, i.token, i.symbol, i.exchange"
        f" FROM {_TABLE} i WHERE i.broker_id = %s AND ({rule})",
        parameters,
    )


def _note_names(cursor: Any, report: Report) -> None:
    cursor.execute(
        "SELECT d.symbol, d.exchange, named.token, same.symbol, same.exchange FROM doomed_instruments d"
        " LEFT JOIN staged_instruments named ON named.symbol = d.symbol AND named.exchange = d.exchange"
        " LEFT JOIN staged_instruments same ON same.segment = d.segment AND same.token = d.token"
    )
    for symbol, exchange, token, new_symbol, new_exchange in iter(cursor.fetchone, None):
        old = Name(symbol, exchange)
        if token is not None:
            report.moved.append(old)
        elif new_symbol is not None and is_rename(symbol, new_symbol):
            report.renamed.append(Renamed(old, Name(new_symbol, new_exchange)))
        else:
            report.gone.append(old)


def is_rename(old: str, new: str) -> bool:
    """
    Whether two names of one token mean the same thing: exchanges give a contract's token to another once it expired.

    >>> is_rename("ZOMATO", "ETERNAL"), is_rename("VEDL25APR24292.5CE", "VEDL25APR24281CE")
    (True, True)
    >>> is_rename("NIFTY28MAR24FUT", "NIFTY25APR24FUT")
    False
    """
    before, after = parse_derivative(old), parse_derivative(new)
    return (before and before.expiry) == (after and after.expiry)


def _delete_doomed(cursor: Any) -> int:
    cursor.execute(f"DELETE FROM {_TABLE} WHERE id IN (SELECT id FROM doomed_instruments)")
    return int(cursor.rowcount)


def _upsert(cursor: Any) -> int:
    """Writes what is new and what differs; what is the same is not even locked."""
    names, ours = ", ".join(COLUMNS), ", ".join(f"s.{name}" for name in COLUMNS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in _VALUES)
    is_not = "IS NOT" if connection.vendor == "sqlite" else "IS DISTINCT FROM"
    differs = " OR ".join(f"i.{name} {is_not} s.{name}" for name in _VALUES)
    cursor.execute(
        f"INSERT INTO {_TABLE} ({names}) SELECT {ours} FROM staged_instruments s LEFT JOIN {_TABLE} i"
        " ON i.broker_id = s.broker_id AND i.segment = s.segment AND i.token = s.token"
        f" WHERE i.id IS NULL OR {differs} ON CONFLICT (broker_id, segment, token) DO UPDATE SET {changes}"
    )
    return int(cursor.rowcount)


def _remember(broker: Broker, counts: Collection[_Count], *, changed: bool, partly: bool) -> None:
    masters = InstrumentMaster.objects.filter(broker=broker)
    newest = max(masters.values_list("version", flat=True), default=0)
    versions: Mapping[str, int] = dict(masters.values_list("segment", "version"))
    for count in counts:
        file = count.file
        InstrumentMaster.objects.update_or_create(
            broker=broker,
            segment=file.segment,
            defaults={
                "url": file.url,
                "simulated": file.simulated,
                "etag": file.etag,
                "last_modified": file.last_modified,
                "dated": file.dated,
                "imported_at": timezone.now(),
                "rows": count.good,
                "bad_rows": count.bad,
                "version": newest + 1 if changed else versions.get(file.segment, max(newest, 1)),
            },
        )
    if not partly:
        masters.exclude(segment__in=[count.file.segment for count in counts]).delete()
