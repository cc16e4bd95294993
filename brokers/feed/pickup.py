"""
Names to brokers' tokens, and what became of names that lead nowhere any more. Synchronous: call it in a thread.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from brokers import catalog
from brokers.feed.connection import Condition
from brokers.india import INDIA
from brokers.models import Instrument
from brokers.symbols import parse_derivative
from marketdata.ticks import FeedState, Segment, Token

TOKENS_PER_QUERY = 400
"""SQLite's lowest limit of parameters is 999."""

Name = tuple[str, str]
Tokens = dict[Name, dict[str, Token]]
"""The identity of an instrument (symbol, exchange) at each broker that has it, by slug."""


def look_up(
    brokers: Collection[str], names: Mapping[Name, Mapping[str, Token]], now: dt.datetime
) -> tuple[Tokens, dict[Name, Condition]]:
    """
    Each of these names with its token at each of these brokers that has it; and what became of those that led to a
    token of theirs (the values of `names`) and do not any more.

    Raises django.db.DatabaseError.
    """
    found: Tokens = {name: {} for name in names}
    for broker in sorted(brokers):
        for name, token in catalog.tokens_for(broker, names.keys()).items():
            found[name][broker] = token
    lost = {
        name: {slug: token for slug, token in before.items() if slug in brokers and slug not in found[name]}
        for name, before in names.items()
    }
    return found, fates({name: tokens for name, tokens in lost.items() if tokens}, now)


def fates(lost: Mapping[Name, Mapping[str, Token]], now: dt.datetime) -> dict[Name, Condition]:
    """
    What to tell the holders of names that no broker lists any more; `lost` has the tokens they led to, by broker.

    A name whose token has another one now was renamed. Exchanges give a contract's token to another contract once it
    expired: that is no renaming. `now` is aware.
    Raises django.db.DatabaseError.
    """
    by_token = _names_by_token({(slug, token) for tokens in lost.values() for slug, token in tokens.items()})
    found: dict[Name, Condition] = {}
    for name, tokens in lost.items():
        new = next((by_token[key] for key in tokens.items() if key in by_token), None)
        is_same = new is not None and _expiry(new[0]) == _expiry(name[0])
        found[name] = renamed(name, new) if new is not None and is_same else gone(name, now)
    return found


def renamed(old: Name, new: Name) -> Condition:
    """
    >>> renamed(("ZOMATO", "NSE"), ("ETERNAL", "NSE")).message
    'ZOMATO on NSE is called ETERNAL now; subscribe that name.'
    """
    where = "" if old[1] == new[1] else f" on {new[1]}"
    return Condition(FeedState.RENAMED, f"{old[0]} on {old[1]} is called {new[0]}{where} now; subscribe that name.")


def gone(name: Name, now: dt.datetime) -> Condition:
    """
    What to say of a name that no broker lists; `now` is aware.

    >>> gone(("NIFTY28MAR24FUT", "NFO"), dt.datetime(2024, 3, 29, tzinfo=INDIA)).message
    'It expired on 28 Mar 2024.'
    """
    expiry = _expiry(name[0])
    if expiry is not None and expiry < now.astimezone(INDIA).date():
        return Condition(FeedState.EXPIRED_INSTRUMENT, f"It expired on {expiry:%d %b %Y}.")
    return Condition(
        FeedState.EXPIRED_INSTRUMENT,
        "No broker of this feed lists it now; it may be delisted, or the instruments are not synced.",
    )


def _expiry(symbol: str) -> dt.date | None:
    parts = parse_derivative(symbol)
    return parts.expiry if parts else None


def _names_by_token(wanted: Collection[tuple[str, Token]]) -> dict[tuple[str, Token], Name]:
    return {
        (slug, token): name
        for (slug, segment), numbers in _grouped(wanted).items()
        for start in range(0, len(numbers), TOKENS_PER_QUERY)
        for token, name in _query(slug, segment, numbers[start : start + TOKENS_PER_QUERY])
    }


def _grouped(wanted: Collection[tuple[str, Token]]) -> dict[tuple[str, Segment], list[str]]:
    groups: dict[tuple[str, Segment], list[str]] = defaultdict(list)
    for slug, token in wanted:
        groups[slug, token.segment].append(token.number)
    return groups


def _query(slug: str, segment: Segment, numbers: Collection[str]) -> Iterator[tuple[Token, Name]]:
    listed = Instrument.objects.filter(segment=segment, broker__slug=slug, token__in=numbers)
    for token, symbol, exchange in listed.values_list("token", "symbol", "exchange"):
        yield Token(segment, token), (symbol, exchange)
