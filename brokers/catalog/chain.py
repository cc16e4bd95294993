"""The option chain of an underlying: its expiries, and the calls and puts of one of them by strike."""

from __future__ import annotations

import datetime as dt

import msgspec

from brokers.catalog.directory import Directory, Underlying
from brokers.catalog.lookup import memory
from brokers.catalog.query import QueryError
from brokers.catalog.search import check, place, read_options
from brokers.symbols import INDEX_ALIASES, compact

MOST_STRIKES = 500
"""Strikes on each side, at most."""


class NoOptions(QueryError):
    """There are no options of this name, or none that expire then; the sentence has what there is."""


class Strike(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a chain: the symbols of its call and its put, None where there is none."""

    strike: float
    call: str | None
    put: str | None


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """The options of an underlying that expire on `expiry`, by strike; `expiries` are all those there are."""

    underlying: str
    exchange: str
    expiries: tuple[dt.date, ...]
    expiry: dt.date
    strikes: tuple[Strike, ...]


def option_chain(
    underlying: str,
    exchange: str = "",
    *,
    expiry: dt.date | None = None,
    around: float | None = None,
    count: int = 10,
    today: dt.date,
) -> Chain:
    """
    The calls and puts of an underlying that expire on a day, the nearest one unless `expiry` says another.

    `around` (rupees, the price of the underlying) leaves only the strike nearest to it and `count` on each side.
    Without an exchange it is the first that has options of this name.
    Raises QueryError: no such exchange, a count out of range. NoOptions: no such options, or none that expire then.
    """
    exchange = exchange.strip().upper()
    check(exchange, "", 1)
    if not 0 <= count <= MOST_STRIKES:
        raise QueryError(f"The count is {count}; use a number from 0 to {MOST_STRIKES}.")
    directory = memory.directory()
    chosen, expiries = _underlying(directory, compact(underlying), exchange, today)
    if expiry is not None and expiry not in expiries:
        has = ", ".join(str(each) for each in expiries[:6])
        raise NoOptions(f"No options of {chosen[0]} on {chosen[1]} expire on {expiry}; the next ones do on {has}.")
    day = expiry or expiries[0]
    strikes = _strikes(chosen, day)
    return Chain(
        underlying=chosen[0],
        exchange=chosen[1],
        expiries=expiries,
        expiry=day,
        strikes=strikes if around is None else _near(strikes, around, count),
    )


def _underlying(
    directory: Directory, name: str, exchange: str, today: dt.date
) -> tuple[Underlying, tuple[dt.date, ...]]:
    names = [name, *(aliases[name] for aliases in INDEX_ALIASES.values() if name in aliases)]
    candidates = [key for key in directory.contracts if key[0] in names and exchange in ("", key[1])]
    for key in sorted(candidates, key=lambda key: (names.index(key[0]), place(key[1]))):
        expiries = tuple(one.expiry for one in directory.upcoming(key, today) if one.has_options)
        if expiries:
            return key, expiries
    where = f" on {exchange}" if exchange else ""
    alike = directory.alike_bases(name, exchange, 3)
    hint = f"did you mean {' or '.join(alike)}" if alike else "name an underlying such as NIFTY"
    raise NoOptions(f"There are no options of {name[:40]!r}{where}; {hint}{'?' if alike else '.'}")


def _strikes(underlying: Underlying, expiry: dt.date) -> tuple[Strike, ...]:
    calls: dict[float, str] = {}
    puts: dict[float, str] = {}
    for symbol, right, strike in read_options(underlying, expiry):
        (calls if right == "CE" else puts)[strike] = symbol
    return tuple(
        Strike(strike=strike, call=calls.get(strike), put=puts.get(strike)) for strike in sorted({*calls, *puts})
    )


def _near(strikes: tuple[Strike, ...], around: float, count: int) -> tuple[Strike, ...]:
    """
    >>> chain = tuple(Strike(strike=strike, call=None, put=None) for strike in (100.0, 110.0, 120.0, 130.0, 140.0))
    >>> [row.strike for row in _near(chain, 121.0, 1)], [row.strike for row in _near(chain, 1.0, 1)]
    ([110.0, 120.0, 130.0], [100.0, 110.0])
    """
    middle = min(range(len(strikes)), key=lambda number: abs(strikes[number].strike - around), default=0)
    return strikes[max(0, middle - count) : middle + count + 1]
