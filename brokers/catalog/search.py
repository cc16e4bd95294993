"""
Instruments for people: a few words in any order, the best first.

The directory in memory tells which names and underlyings are meant; only what is shown is read from the database.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec
from django.db import connection

from brokers.catalog.directory import Directory, Entry, Series, Underlying
from brokers.catalog.lookup import NAMES_PER_QUERY, Name, memory, serving
from brokers.catalog.query import CONTRACTS, KINDS, OPTIONS, QueryError, Wish, readings
from brokers.catalog.sql import as_date, marks
from brokers.symbols import Derivative, derivative_symbol
from marketdata.ticks import EXCHANGES

MOST = 200
"""The most rows an answer has."""

_ORDER = ("NSE", "NSE_INDEX", "NFO", "BSE", "BSE_INDEX", "BFO", "MCX", "CDS")
"""Of exchanges whose names fit equally well; others follow."""
_UNDERLYINGS = 25
"""Of so many the contracts are looked at; the query fits the others less well."""
_LOOKED_AT = 3000
"""Contracts that could be what is asked for, at most."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """
    One instrument, with the brokers that list it and, of these, those that can serve it now.

    Lot, tick size and name are those of the first broker by priority; strike and tick size are rupees.
    """

    symbol: str
    exchange: str
    kind: str
    name: str
    expiry: dt.date | None
    strike: float | None
    lot_size: int
    tick_size: float
    brokers: tuple[str, ...]
    served_by: tuple[str, ...]


def search(query: str, *, exchange: str = "", kind: str = "", limit: int = 20, today: dt.date) -> list[Found]:
    """
    The instruments a query means, best first, none that has expired: also those no account can serve.

    Exact symbols come first, then those that begin so, then companies called so; shares and indices before contracts
    unless the query has a strike, an expiry, FUT, CE or PE; of contracts the nearest expiry, and of options without a
    strike those in the middle of the listed ones.
    Raises QueryError.
    """
    exchange, kinds = exchange.strip().upper(), check(exchange, kind, limit)
    directory = memory.directory()
    for wish in readings(query, exchange):
        if kinds:
            wish.kinds = wish.kinds & kinds if wish.kinds else kinds
            if not wish.kinds:
                continue
        found = list(islice(_search(wish, directory, limit, today), limit))
        if found:
            return found
    return []


def check(exchange: str, kind: str, limit: int) -> frozenset[str]:
    """
    The kinds of rows to look for; none is any.

    Raises QueryError.
    """
    if exchange and exchange.strip().upper() not in EXCHANGES:
        raise QueryError(f"There is no exchange {exchange[:20]!r}; use one of {', '.join(sorted(EXCHANGES))}.")
    if kind and kind.strip().upper() not in KINDS:
        raise QueryError(f"There is no kind {kind[:20]!r}; use one of {', '.join(KINDS)}.")
    if not 1 <= limit <= MOST:
        raise QueryError(f"The limit is {limit}; use a number from 1 to {MOST}.")
    return KINDS[kind.strip().upper()] if kind else frozenset()


def _search(wish: Wish, directory: Directory, limit: int, today: dt.date) -> Iterator[Found]:
    ranks = _ranked(wish, directory.entries)
    singles = [entry for rank, entry in ranks if _is_wanted(entry, wish, rank)]
    yield from read_all([(entry.symbol, entry.exchange) for entry in singles[: limit + 5]], today)
    if wish.kinds and not wish.kinds & CONTRACTS:
        return
    underlyings = _underlyings(wish, directory, ranks)
    yield from _contracts(wish, directory, underlyings, today)


# -------------------------------------------------------------------------------------------------------------- ranking


def _ranked(wish: Wish, entries: Iterable[Entry]) -> list[tuple[int, Entry]]:
    """The entries that fit at all, the best first."""
    symbols, joined, words = wish.symbols, wish.joined, wish.words
    first, others = words[0], words[1:]
    named = [f" {word}" for word in words]
    ranked = []
    for entry in entries:
        symbol, text = entry.symbol, entry.text
        if symbol in symbols:
            rank = 0
        elif symbol.startswith(joined):
            rank = 1
        elif others and symbol.startswith(first) and all(word in symbol for word in others):
            rank = 2
        elif all(word in text for word in named):
            rank = 3 if text.startswith(named[0]) else 4
        elif joined in symbol and len(joined) > 2:
            rank = 5
        elif others and all(word in symbol or name in text for word, name in zip(words, named, strict=True)):
            rank = 6
        else:
            continue
        ranked.append((rank, entry))
    ranked.sort(key=lambda pair: (pair[0], len(pair[1].symbol), pair[1].symbol, place(pair[1].exchange)))
    return ranked


def place(exchange: str) -> tuple[int, str]:
    """Which of two exchanges comes first where a name fits equally well on both."""
    return (_ORDER.index(exchange) if exchange in _ORDER else len(_ORDER)), exchange


def _is_wanted(entry: Entry, wish: Wish, rank: int) -> bool:
    if wish.exchange and entry.exchange != wish.exchange:
        return False
    if wish.kinds and entry.kind not in wish.kinds:
        return False
    if rank == 0 and entry.symbol in wish.numbered:
        return True
    return not wish.is_contract or (entry.kind in wish.kinds and wish.strike is None and not wish.says_when)


def _underlyings(wish: Wish, directory: Directory, ranks: Sequence[tuple[int, Entry]]) -> list[tuple[int, Underlying]]:
    """The underlyings that fit, the best first: by their own name, or as the share or index that fits."""
    by_name = {entry.symbol: rank for rank, entry in reversed(ranks)}
    own = {
        entry.symbol: rank
        for rank, entry in _ranked(wish, (Entry(base, "", "", "") for base, _ in directory.contracts))
    }
    found = []
    for base, exchange in directory.contracts:
        rank = min(own.get(base, 9), by_name.get(base, 9))
        if rank < 9 and wish.exchange in ("", exchange):
            found.append((rank, (base, exchange)))
    found.sort(key=lambda pair: (pair[0], len(pair[1][0]), pair[1][0], place(pair[1][1])))
    return found[:_UNDERLYINGS]


# ------------------------------------------------------------------------------------------------------------ contracts


def _contracts(
    wish: Wish, directory: Directory, underlyings: Sequence[tuple[int, Underlying]], today: dt.date
) -> Iterator[Found]:
    """Futures before options, of the best underlyings first, of these the nearest expiry."""
    kinds = wish.kinds or CONTRACTS
    series = [
        (rank, one, underlying)
        for rank, underlying in underlyings
        for one in _fitting(wish, directory.upcoming(underlying, today))
    ]
    series.sort(key=lambda each: (each[0], each[1].expiry))
    for rank in sorted({each[0] for each in series}):
        of_rank = [(one, underlying) for its_rank, one, underlying in series if its_rank == rank]
        if "FUT" in kinds and wish.strike is None:
            yield from read_all([_name(underlying, one, None, None) for one, underlying in of_rank], today)
        rights = sorted(kinds & OPTIONS)
        with_options = [(one, underlying) for one, underlying in of_rank if one.has_options]
        if wish.strike is not None:
            names = [_name(of, one, wish.strike, right) for one, of in with_options for right in rights]
            yield from read_all(names, today)
        elif rights:
            yield from chain.from_iterable(
                read_all(_around_the_middle(of, one, rights), today) for one, of in with_options
            )


def _fitting(wish: Wish, upcoming: Sequence[Series]) -> list[Series]:
    fitting = [one for one in upcoming if wish.fits(one.expiry)]
    if not wish.cycle:
        return fitting
    last_of_month = {(one.expiry.year, one.expiry.month): one.expiry for one in upcoming}
    is_monthly = wish.cycle == "MONTHLY"
    return [one for one in fitting if (one.expiry in last_of_month.values()) is is_monthly]


def _name(underlying: Underlying, series: Series, strike: float | None, right: str | None) -> Name:
    base, exchange = underlying
    return derivative_symbol(Derivative(base, series.expiry, strike, right)), exchange


def _around_the_middle(underlying: Underlying, series: Series, rights: Sequence[str]) -> list[Name]:
    """Exchanges list strikes on both sides of the price, so that the middle one is near it."""
    options = read_options(underlying, series.expiry)
    strikes = sorted({strike for _, _, strike in options})
    if not strikes:
        return []
    middle = strikes[len(strikes) // 2]
    options.sort(key=lambda option: (abs(option[2] - middle), option[2], option[1]))
    return [(symbol, underlying[1]) for symbol, right, strike in options if right in rights]


# -------------------------------------------------------------------------------------------------------------- reading


def read_options(underlying: Underlying, expiry: dt.date) -> list[tuple[str, str, float]]:
    """Symbol, right and strike of every option of an underlying that expires on a day, whichever broker lists it."""
    base, exchange = underlying
    start = derivative_symbol(Derivative(base, expiry)).removesuffix("FUT")
    with connection.cursor() as cursor:
        # From the start to below `ZZZZ` are those that begin so, in every collation; LIKE alone would use no index.
        cursor.execute(
            "SELECT DISTINCT symbol, kind, strike FROM brokers_instrument WHERE symbol > %s AND symbol < %s"
            " AND exchange = %s AND kind IN ('CE', 'PE') AND strike IS NOT NULL",
            [start, f"{start}ZZZZ", exchange],
        )
        return [(symbol, kind, strike) for symbol, kind, strike in cursor.fetchall() if symbol.startswith(start)]


def read_all(names: Sequence[Name], today: dt.date) -> Iterator[Found]:
    """What there is of these names, in their order, without what has expired; read in portions, as far as needed."""
    can_serve = serving()
    size = 40
    start = 0
    while start < min(len(names), _LOOKED_AT):
        portion = names[start : start + size]
        rows = _read(portion)
        for name in portion:
            if name in rows and not _has_expired(rows[name][0], today):
                yield _found(rows[name], can_serve)
        start, size = start + size, NAMES_PER_QUERY


class _Row(NamedTuple):
    symbol: str
    exchange: str
    broker_id: int
    slug: str
    kind: str
    name: str
    expiry: dt.date | None
    strike: float | None
    lot_size: int
    tick_size: float


def _read(names: Collection[Name]) -> dict[Name, list[_Row]]:
    """The listings of each name, the first broker's first."""
    symbols, exchanges = sorted({symbol for symbol, _ in names}), sorted({exchange for _, exchange in names})
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.symbol, i.exchange, i.broker_id, b.slug, i.kind, i.name, i.expiry, i.strike, i.lot_size,"
            " i.tick_size FROM brokers_instrument i JOIN brokers_broker b ON b.id = i.broker_id"
            f" WHERE i.symbol IN ({marks(symbols)}) AND i.exchange IN ({marks(exchanges)})"
            " ORDER BY b.priority, b.name, b.id",
            [*symbols, *exchanges],
        )
        rows: dict[Name, list[_Row]] = {}
        for values in cursor.fetchall():
            row = _Row._make(values)
            rows.setdefault((row.symbol, row.exchange), []).append(row._replace(expiry=as_date(row.expiry)))
    return rows


def _has_expired(row: _Row, today: dt.date) -> bool:
    return row.expiry is not None and row.expiry < today


def _found(rows: Sequence[_Row], serving: Collection[int]) -> Found:
    first = rows[0]
    return Found(
        symbol=first.symbol,
        exchange=first.exchange,
        kind=first.kind,
        name=max((row.name for row in rows), key=len),
        expiry=first.expiry,
        strike=first.strike,
        lot_size=first.lot_size,
        tick_size=first.tick_size,
        brokers=tuple(row.slug for row in rows),
        served_by=tuple(row.slug for row in rows if row.broker_id in serving),
    )
