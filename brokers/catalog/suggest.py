"""What somebody may have meant by a symbol that nobody lists."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice, product

from django.utils import timezone

from brokers.catalog.directory import Directory, Underlying
from brokers.catalog.lookup import Name, find, memory
from brokers.catalog.query import OPTIONS, Wish, readings
from brokers.catalog.search import place, read_all, read_options
from brokers.symbols import (
    DERIVATIVE_EXCHANGES,
    INDEX_ALIASES,
    MONTHS,
    Derivative,
    GrammarError,
    compact,
    derivative_symbol,
    equity_symbol,
    parse,
    parse_derivative,
)

_TRIED = 120
"""Names that are looked up for suggestions, at most."""
_PORTION = 24
_EXPIRIES = 12

_END = re.compile(r"(?:FUT|(\d+(?:\.\d+)?)(CE|PE))$")
_IN_MONTH = re.compile("|".join(MONTHS))


def flaw(symbol: str, exchange: str) -> str:
    """
    What is wrong with the spelling of a symbol, in one sentence; "" where the grammar has it.

    >>> flaw("SBIN", "NSE"), flaw("NIFTY31FEB26FUT", "NFO")[:51]
    ('', 'NIFTY31FEB26FUT on NFO expires on 31FEB26, which is')
    """
    try:
        parse(symbol, exchange)
    except GrammarError as error:
        return str(error)
    return ""


def suggest(symbol: str, exchange: str, limit: int = 3, *, today: dt.date | None = None) -> list[str]:
    """
    Up to `limit` names that may have been meant, the likeliest first, only such as some account can serve.

    A name on another exchange says so: `NIFTY on NSE_INDEX`. `today` (India's, as it is) keeps out what has expired.
    """
    wanted = compact(symbol)[:100]
    if not wanted:
        return []
    guesses = _guesses(wanted, exchange, memory.directory(), today or timezone.localdate())
    named = _named(guesses, find, limit + 1)
    return [
        name if its_exchange == exchange else f"{name} on {its_exchange}"
        for name, its_exchange in named
        if (name, its_exchange) != (symbol, exchange)
    ][:limit]


def did_you_mean(query: str, *, exchange: str = "", limit: int = 3, today: dt.date) -> list[str]:
    """
    Up to `limit` names for a query that found nothing, each with its exchange: those no account can serve as well.

    Raises QueryError.
    """
    directory = memory.directory()

    def existing(names: Collection[Name]) -> Collection[Name]:
        return {(found.symbol, found.exchange) for found in read_all(list(names), today)}

    *_, wish = readings(query, exchange.strip().upper())
    named = _named(_guesses_for(wish, directory, today), existing, limit)
    return [f"{symbol} on {its_exchange}" for symbol, its_exchange in named]


def _named(guesses: Iterator[Name], existing: Callable[[list[Name]], Collection[Name]], limit: int) -> list[Name]:
    """The first guesses that exist; no more are made than it takes."""
    named: dict[Name, None] = {}
    tried = 0
    while len(named) < limit and tried < _TRIED:
        portion = list(islice(guesses, _PORTION))
        if not portion:
            break
        tried += len(portion)
        there = existing(portion)
        named.update((name, None) for name in portion if name in there)
    return list(named)[:limit]


def _guesses_for(wish: Wish, directory: Directory, today: dt.date) -> Iterator[Name]:
    if wish.is_contract:
        rights: list[str | None] = [*sorted(wish.kinds & OPTIONS)] or (["CE"] if wish.strike is not None else [None])
        for underlying in _underlyings_for(wish, directory):
            fitting = [one.expiry for one in directory.upcoming(underlying, today) if wish.fits(one.expiry)]
            expiry = fitting[0] if fitting else _asked(wish, today)
            for right in rights:
                strike = (wish.strike or 0.0) if right else None
                symbol = derivative_symbol(Derivative(underlying[0], expiry, strike, right))
                yield from _near(underlying, symbol.removeprefix(underlying[0]), directory, today)
    for name in directory.alike(wish.joined, wish.exchange, 3):
        yield from ((name, other) for other in sorted(directory.exchanges[name], key=place))


def _underlyings_for(wish: Wish, directory: Directory) -> list[Underlying]:
    bases = [wish.joined, *directory.alike_bases(wish.joined, wish.exchange, 2)]
    found = [key for key in directory.contracts if key[0] in bases and wish.exchange in ("", key[1])]
    return sorted(found, key=lambda key: (bases.index(key[0]), place(key[1])))


def _asked(wish: Wish, today: dt.date) -> dt.date:
    """About when: the middle of the month where the query says no day, and this year where it says none."""
    day = min(wish.day or 15, 28)
    return dt.date(wish.year or today.year, wish.month or today.month, max(1, day))


def _guesses(wanted: str, exchange: str, directory: Directory, today: dt.date) -> Iterator[Name]:
    """The likeliest first; some of them exist."""
    spellings = list(dict.fromkeys(_spellings(wanted)))
    yield from ((spelling, exchange) for spelling in spellings)
    yield from _with_series(spellings, exchange, directory)
    yield from _elsewhere(spellings, exchange, directory)
    yield from _contracts(wanted, exchange, directory, today)
    yield from ((name, exchange) for name in directory.alike(wanted, exchange, 3))
    yield from _longer(wanted, exchange, directory)
    for name in directory.alike(wanted, "", 3):
        yield from ((name, other) for other in sorted(directory.exchanges[name], key=place))


def _spellings(wanted: str) -> Iterator[str]:
    """The same name as another would write it: aliases of indices, with and without a series."""
    yield wanted
    yield from (aliases[wanted] for aliases in INDEX_ALIASES.values() if wanted in aliases)
    yield equity_symbol(wanted)
    base, dash, series = wanted.rpartition("-")
    if dash and len(series) <= 2:
        yield base


def _with_series(spellings: Iterable[str], exchange: str, directory: Directory) -> Iterator[Name]:
    starts = tuple(f"{spelling}-" for spelling in spellings)
    yield from (
        (entry.symbol, exchange)
        for entry in directory.entries
        if entry.exchange == exchange and entry.symbol.startswith(starts)
    )


def _elsewhere(spellings: Iterable[str], exchange: str, directory: Directory) -> Iterator[Name]:
    for spelling in spellings:
        others = {*directory.exchanges.get(spelling, ())}
        contract = parse_derivative(spelling)
        if contract is not None:
            others |= {its_exchange for base, its_exchange in directory.contracts if base == contract.base}
        yield from ((spelling, other) for other in sorted(others - {exchange}, key=place))


def _longer(wanted: str, exchange: str, directory: Directory) -> list[Name]:
    """Entries that begin as what was asked for, the shortest first."""
    if len(wanted) < 3:
        return []
    longer = [
        entry.symbol for entry in directory.entries if entry.exchange == exchange and entry.symbol.startswith(wanted)
    ]
    return [(symbol, exchange) for symbol in sorted(longer, key=lambda each: (len(each), each))[:3]]


# ------------------------------------------------------------------------------------------------------------ contracts


def _contracts(wanted: str, exchange: str, directory: Directory, today: dt.date) -> Iterator[Name]:
    """Contracts near one that there is not: its strike at the nearest expiries, then the nearest strikes."""
    if (wanted, exchange) in directory.contracts:
        coming = directory.upcoming((wanted, exchange), today)[:_EXPIRIES]
        yield from ((derivative_symbol(Derivative(wanted, one.expiry)), exchange) for one in coming)
        return
    places = (
        [exchange]
        if exchange in DERIVATIVE_EXCHANGES
        else sorted({its_exchange for _, its_exchange in directory.contracts}, key=place)
    )
    for base, rest in _bases(wanted, places, directory):
        for its_exchange in places:
            if (base, its_exchange) in directory.contracts:
                yield from _near((base, its_exchange), rest, directory, today)


def _bases(wanted: str, exchanges: Iterable[str], directory: Directory) -> Iterator[tuple[str, str]]:
    """The underlyings it may be about, each with what was written after it."""
    exact = parse_derivative(wanted)
    known = sorted({base for exchange in exchanges for base in directory.bases(exchange)}, key=len, reverse=True)
    if exact is not None and exact.base in known:
        yield exact.base, wanted[len(exact.base) :]
        return
    if not _END.search(wanted):
        return
    start = next((base for base in known if wanted.startswith(base)), None)
    if start is not None:
        yield start, wanted[len(start) :]
    misspelt = exact.base if exact is not None else re.split(r"\d|FUT$", wanted)[0]
    for base in difflib.get_close_matches(misspelt, known, n=2, cutoff=0.6):
        yield base, wanted[len(misspelt) :]


def _near(underlying: Underlying, rest: str, directory: Directory, today: dt.date) -> Iterator[Name]:
    """
    `rest` is what came after the underlying, in our words or in a broker's: 24NOV2624500CE, 26NOV24500CE, FUT.

    What expired in our words may be a broker's: 26NOV24500CE is 500 in November 2024, or 24500 in November 2026.
    """
    base, exchange = underlying
    end = _END.search(rest)
    if end is None:
        return
    digits, right = end.groups()
    exact = parse_derivative(f"{base}{rest}")
    if exact is not None and exact.expiry < today:
        exact = None
    strikes = _strikes_in(digits) if exact is None else [exact.strike]
    expiries = _by_nearness(rest, exact, directory, underlying, today)
    named = product(expiries, strikes) if right else ((expiry, None) for expiry in expiries)
    yield from ((derivative_symbol(Derivative(base, expiry, strike, right)), exchange) for expiry, strike in named)
    asked = strikes[0] if len(strikes) == 1 else None
    if right and expiries and asked is not None:
        options = [option for option in read_options(underlying, expiries[0]) if option[1] == right]
        nearest = sorted(options, key=lambda option: (abs(option[2] - asked), option[2]))
        yield from ((symbol, exchange) for symbol, _, _ in nearest[:3])


def _by_nearness(
    rest: str, exact: Derivative | None, directory: Directory, underlying: Underlying, today: dt.date
) -> list[dt.date]:
    """Expiries, the nearest to what was asked for first; those of its month where there is no more than that."""
    expiries = [one.expiry for one in directory.upcoming(underlying, today)]
    if exact is not None:
        asked = exact.expiry
        return sorted(expiries, key=lambda expiry: (abs(expiry - asked), expiry))[:_EXPIRIES]
    month = _IN_MONTH.search(rest)
    in_month = [expiry for expiry in expiries if month and MONTHS[expiry.month - 1] == month[0]]
    return list(dict.fromkeys(chain(reversed(in_month), expiries)))[:_EXPIRIES]


def _strikes_in(digits: str | None) -> list[float | None]:
    """
    The strikes that may end a broker's run of digits: the year and the day may stand before them.

    >>> _strikes_in("2612424500"), _strikes_in("24500")
    ([2612424500.0, 612424500.0, 12424500.0, 2424500.0, 424500.0, 24500.0], [24500.0])
    """
    if digits is None:
        return [None]
    whole = digits.partition(".")[0]
    starts = range(max(1, min(6, len(whole) - 3))) if len(whole) > 6 else range(1)
    return [float(digits[start:]) for start in starts]
