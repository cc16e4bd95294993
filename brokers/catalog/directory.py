"""
The names there are, of all brokers, small enough for memory: every share and index, and of contracts only the
underlyings with their expiries. 150,000 instruments are some 8,000 names and 200 underlyings.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.db import connection

from brokers.catalog.sql import as_date, marks
from brokers.symbols import CASH_EXCHANGES, INDEX_EXCHANGES, MONTHS, date_text

SHORTLIST = 40
"""Names whose likeness is worked out exactly."""
LIKENESS = 0.6
"""From 0 to 1, as difflib measures it: below this nobody meant it."""

_WORDLESS = re.compile(r"[^A-Z0-9&]+")
_UNDATED = sorted(CASH_EXCHANGES | INDEX_EXCHANGES)


class Entry(NamedTuple):
    """
    One instrument that is no contract of a series: a share, an index, a pair.

    `text` is every broker's name of it, in upper case, each word after a blank.
    """

    symbol: str
    exchange: str
    kind: str
    text: str


class Series(NamedTuple):
    """The contracts of an underlying that expire on one day."""

    expiry: dt.date
    has_options: bool


Underlying = tuple[str, str]
"""(base, exchange)."""


class Directory:
    """Entries, and each underlying's series, the nearest first."""

    def __init__(self, entries: Iterable[Entry], series: Iterable[tuple[Underlying, Series]]) -> None:
        self.entries = list(entries)
        self.contracts: dict[Underlying, list[Series]] = defaultdict(list)
        for underlying, one in sorted(set(series)):
            of_it = self.contracts[underlying]
            if of_it and of_it[-1].expiry == one.expiry:
                of_it.pop()  # brokers may disagree on whether there are options; True sorts last
            of_it.append(one)
        self.exchanges: dict[str, list[str]] = defaultdict(list)
        """Symbol of an entry to its exchanges."""
        for entry in self.entries:
            self.exchanges[entry.symbol].append(entry.exchange)
        self._pairs: dict[str, dict[str, list[str]]] = {}

    def upcoming(self, underlying: Underlying, today: dt.date) -> list[Series]:
        """Its series that have not expired."""
        return [series for series in self.contracts.get(underlying, ()) if series.expiry >= today]

    def bases(self, exchange: str) -> list[str]:
        """The underlyings of an exchange's contracts."""
        return [base for base, its_exchange in self.contracts if its_exchange == exchange]

    def alike(self, symbol: str, exchange: str, limit: int) -> list[str]:
        """Entries of an exchange ("": of any) that look like this one, the most alike first."""
        names = self._pairs.get(exchange)
        if names is None:
            listed = {entry.symbol for entry in self.entries if exchange in ("", entry.exchange)}
            names = self._pairs[exchange] = _by_pair(listed)
        shared: Counter[str] = Counter()
        for pair in _pairs_of(symbol):
            shared.update(names.get(pair, ()))
        likely = sorted(shared, key=lambda name: (abs(len(name) - len(symbol)) - 2 * shared[name], name))[:SHORTLIST]
        return difflib.get_close_matches(symbol, likely, n=limit, cutoff=LIKENESS)

    def alike_bases(self, base: str, exchange: str, limit: int) -> list[str]:
        """Underlyings of an exchange ("": of any) that look like this one, the most alike first."""
        bases = {each for each, its_exchange in self.contracts if exchange in ("", its_exchange)}
        return difflib.get_close_matches(base, sorted(bases), n=limit, cutoff=LIKENESS)


def _by_pair(symbols: Iterable[str]) -> dict[str, list[str]]:
    by_pair: dict[str, list[str]] = defaultdict(list)
    for symbol in symbols:
        for pair in _pairs_of(symbol):
            by_pair[pair].append(symbol)
    return dict(by_pair)


def _pairs_of(symbol: str) -> set[str]:
    """
    The neighbours in a word, its ends included.

    >>> sorted(_pairs_of("SBIN"))
    ['<S', 'BI', 'IN', 'N>', 'SB']
    """
    framed = f"<{symbol}>"
    return {framed[place : place + 2] for place in range(len(framed) - 1)}


def words_of(name: str) -> str:
    """
    A company's name as words in upper case, each after a blank.

    >>> words_of("Dr. Reddy's Laboratories"), words_of("Larsen & Toubro"), words_of("")
    (' DR REDDY S LABORATORIES', ' LARSEN & TOUBRO', '')
    """
    return " ".join(["", *_WORDLESS.sub(" ", name.upper()).split()])


# -------------------------------------------------------------------------------------------------------------- reading


def read_directory() -> Directory:
    """The directory as the database has it now, expired contracts included. Tens of milliseconds."""
    texts: dict[tuple[str, str], set[str]] = defaultdict(set)
    kinds: dict[tuple[str, str], str] = {}
    series: list[tuple[Underlying, Series]] = []
    with connection.cursor() as cursor:
        brokers = _broker_ids(cursor)
        for symbol, exchange, kind, name in _undated(cursor, brokers):
            kinds.setdefault((symbol, exchange), kind)
            texts[symbol, exchange].add(words_of(name))
        for symbol, exchange, kind, expiry in _hops(cursor, brokers):
            base = symbol.partition(date_text(expiry))[0] if expiry else symbol
            if expiry is None or base in ("", symbol):
                kinds.setdefault((symbol, exchange), kind)
            else:
                series.append(((base, exchange), Series(expiry, kind != "FUT")))
    entries = (Entry(*name, kind, "".join(sorted(texts[name]))) for name, kind in kinds.items())
    return Directory(entries, series)


def _broker_ids(cursor: Any) -> list[int]:
    cursor.execute("SELECT id FROM brokers_broker")
    return [number for (number,) in cursor.fetchall()]


def _undated(cursor: Any, brokers: list[int]) -> list[tuple[str, str, str, str]]:
    if not brokers:
        return []
    cursor.execute(
        "SELECT DISTINCT symbol, exchange, kind, name FROM brokers_instrument"
        f" WHERE broker_id IN ({marks(brokers)}) AND exchange IN ({marks(_UNDATED)})",
        [*brokers, *_UNDATED],
    )
    rows: list[tuple[str, str, str, str]] = cursor.fetchall()
    return rows


def _hops(cursor: Any, brokers: list[int]) -> list[tuple[str, str, str, dt.date | None]]:
    """
    The first row of each underlying and expiry, with digits before FUT: an option where there are any.

    Hops along the index of a broker's symbols instead of reading every contract: from a symbol over all that begin as
    it does up to its date. Each ends below a `ZZZZ`, whether the database sorts by bytes or as dictionaries do.
    """
    if not brokers:
        return []
    dated = [exchange for exchange in _exchanges(cursor, brokers) if exchange not in _UNDATED]
    if not dated:
        return []
    next_row = (
        "SELECT n.id FROM brokers_instrument n WHERE n.broker_id = {0}.broker_id AND n.exchange = {0}.exchange"
        "{1} ORDER BY n.symbol LIMIT 1"
    )
    starts = " UNION ALL ".join(["SELECT %s AS broker_id, %s AS exchange"] * (len(brokers) * len(dated)))
    cursor.execute(
        f"WITH RECURSIVE hop(id) AS (SELECT ({next_row.format('start', '')}) FROM ({starts}) start"
        f" UNION ALL SELECT ({next_row.format('c', f' AND n.symbol > {_end_of_series()}')})"
        " FROM hop JOIN brokers_instrument c ON c.id = hop.id)"
        " SELECT DISTINCT c.symbol, c.exchange, c.kind, c.expiry FROM hop JOIN brokers_instrument c ON c.id = hop.id",
        [value for broker in brokers for exchange in dated for value in (broker, exchange)],
    )
    return [(symbol, exchange, kind, as_date(expiry)) for symbol, exchange, kind, expiry in cursor.fetchall()]


def _exchanges(cursor: Any, brokers: list[int]) -> list[str]:
    """Those that the instruments name, by hops as well."""
    cursor.execute(
        "WITH RECURSIVE place(broker_id, exchange) AS (SELECT b.id, (SELECT min(i.exchange) FROM brokers_instrument i"
        f" WHERE i.broker_id = b.id) FROM brokers_broker b WHERE b.id IN ({marks(brokers)})"
        " UNION ALL SELECT p.broker_id, (SELECT min(i.exchange) FROM brokers_instrument i"
        " WHERE i.broker_id = p.broker_id AND i.exchange > p.exchange) FROM place p WHERE p.exchange IS NOT NULL)"
        " SELECT DISTINCT exchange FROM place WHERE exchange IS NOT NULL",
        brokers,
    )
    return sorted(exchange for (exchange,) in cursor.fetchall())


def _end_of_series() -> str:
    """SQL for the end of all symbols that begin as c.symbol does up to its date; c.symbol itself where it has none."""
    if connection.vendor == "postgresql":
        date, place = "to_char(c.expiry, 'DDMONYY')", "strpos"
    else:
        month = f"substr('{''.join(MONTHS)}', 3 * CAST(substr(c.expiry, 6, 2) AS INTEGER) - 2, 3)"
        date, place = f"(substr(c.expiry, 9, 2) || {month} || substr(c.expiry, 3, 2))", "instr"
    at = f"{place}(c.symbol, {date})"
    return f"CASE WHEN {at} > 1 THEN substr(c.symbol, 1, {at} + 6) || 'ZZZZ' ELSE c.symbol END"
