"""What a client asked for against what brokers have: each item becomes a key or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from brokers import catalog
from marketdata.dialects.base import Item, Rejected
from marketdata.errors import (
    DEPTH_NOT_SERVED,
    EXCHANGE_NOT_SERVED,
    UNKNOWN_EXCHANGE,
    UNKNOWN_SYMBOL,
    with_detail,
)
from marketdata.ticks import EXCHANGES, Key, Mode

SUGGESTED_ITEMS = 20
"""Suggestions cost a search each; a request with more unknown symbols than this gets them for its first ones only."""


class Resolution(NamedTuple):
    """Keys in the order asked for, each once, and what is refused; symbols as the client spells them."""

    keys: tuple[Key, ...]
    rejected: tuple[Rejected, ...]


def resolve(items: Sequence[Item], feed: str) -> Resolution:
    """
    The keys of the items, in the deepest mode their brokers serve up to the one asked for.

    Reads the database; call it in a thread.
    """
    listings = catalog.find({(item.symbol, item.exchange) for item in items})
    served = catalog.served_exchanges()
    keys: dict[Key, None] = {}
    rejected: list[Rejected] = []
    for item in items:
        found = listings.get((item.symbol, item.exchange))
        if not found:
            rejected.append(_refuse(item, served, suggest=len(rejected) < SUGGESTED_ITEMS))
            continue
        mode = _deepest(item.mode or Mode.LTP, (listing.modes for listing in found))
        if mode is None:
            rejected.append(Rejected(item.spelling or item.symbol, item.exchange, DEPTH_NOT_SERVED))
        else:
            keys[Key(item.spelling or item.symbol, item.exchange, mode, feed)] = None
    return Resolution(tuple(keys), tuple(rejected))


def _deepest(asked: Mode, served: Iterable[frozenset[Mode]]) -> Mode | None:
    """The highest mode not above the one asked for that any broker serves; a book never becomes a mere price."""
    floor = Mode.DEPTH if asked.depth_levels else asked
    return max((mode for modes in served for mode in modes if floor <= mode <= asked), default=None)


def _refuse(item: Item, served: set[str], *, suggest: bool) -> Rejected:
    if item.exchange not in EXCHANGES:
        error = with_detail(UNKNOWN_EXCHANGE, f"Use one of {', '.join(sorted(EXCHANGES))}.")
    elif item.exchange not in served:
        error = EXCHANGE_NOT_SERVED
    else:
        flaw = catalog.flaw(item.symbol, item.exchange)
        error = with_detail(UNKNOWN_SYMBOL, flaw) if flaw else UNKNOWN_SYMBOL
        suggestions = catalog.suggest(item.symbol, item.exchange) if suggest else []
        if suggestions:
            error = with_detail(error, f"Did you mean {' or '.join(suggestions)}?")
    return Rejected(item.spelling or item.symbol, item.exchange, error)
