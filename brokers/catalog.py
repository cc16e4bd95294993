"""
Symbols to tokens and back: the clients' side's only door to instruments. Read-only; call it in a thread.

Only brokers that can serve count: enabled, with an enabled account.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from django.db.models import Q, QuerySet

from brokers import registry
from brokers.models import BrokerAccount, Instrument
from marketdata.ticks import Mode, Segment, Token

Name = tuple[str, str]
"""(symbol, exchange) in canonical spelling."""

NAMES_PER_QUERY = 900
"""SQLite's lowest limit of parameters is 999."""
CANDIDATES = 400
"""Symbols looked at for suggestions."""


class Listing(NamedTuple):
    """One broker's listing of an instrument; `modes` are those in which the broker can stream."""

    symbol: str
    exchange: str
    broker: str
    token: Token
    modes: frozenset[Mode]


def find(names: Collection[Name]) -> dict[Name, list[Listing]]:
    """
    Who lists these instruments; what nobody lists is not in the result.

    One query per exchange and 900 symbols.
    """
    found: dict[Name, list[Listing]] = defaultdict(list)
    modes: dict[tuple[str, str], frozenset[Mode]] = {}
    for query in _queries(names):
        rows = query.filter(broker__in=_serving_brokers()).values_list(
            "symbol", "exchange", "broker__slug", "segment", "token"
        )
        for symbol, exchange, slug, segment, number in rows:
            if (slug, segment) not in modes:
                modes[slug, segment] = _modes(slug, Segment(segment))
            listing = Listing(symbol, exchange, slug, Token(Segment(segment), number), modes[slug, segment])
            found[symbol, exchange].append(listing)
    return dict(found)


def tokens_for(broker: str, names: Collection[Name]) -> dict[Name, Token]:
    """The tokens under which one broker knows these instruments; what it does not list is not in the result."""
    return {
        (symbol, exchange): Token(Segment(segment), number)
        for query in _queries(names)
        for symbol, exchange, segment, number in query.filter(broker__slug=broker).values_list(
            "symbol", "exchange", "segment", "token"
        )
    }


def served_exchanges() -> set[str]:
    """The exchanges of which some broker that can serve has instruments."""
    rows = Instrument.objects.filter(broker__in=_serving_brokers()).order_by().values_list("exchange", flat=True)
    return set(rows.distinct())


def suggest(symbol: str, exchange: str, limit: int = 3) -> list[str]:
    """Up to `limit` symbols of the exchange that resemble this one, best first."""
    wanted = re.sub(r"[^A-Z0-9&.-]", "", symbol.upper())
    if not wanted:
        return []
    listed = Instrument.objects.filter(exchange=exchange, broker__in=_serving_brokers())
    likely = Q(symbol__startswith=wanted[:3]) | Q(symbol__startswith=wanted[:2], kind__in=("EQ", "INDEX"))
    rows = listed.filter(likely).order_by("symbol").values_list("symbol", flat=True).distinct()
    candidates = sorted(
        set(rows[:CANDIDATES]) | set(listed.filter(symbol__contains=wanted)[:20].values_list("symbol", flat=True))
    )
    return difflib.get_close_matches(wanted, candidates, n=limit, cutoff=0.5)


def is_simulated(feed: str) -> bool:
    """Whether the accounts of a feed are simulated: an account with an endpoint of its own speaks to a simulator."""
    accounts = BrokerAccount.objects.filter(feed=feed, enabled=True, broker__enabled=True).select_related("broker")
    return any(account.endpoint or _is_simulated(account.broker.slug) for account in accounts)


def _serving_brokers() -> QuerySet[BrokerAccount, Any]:
    return (
        BrokerAccount.objects.filter(enabled=True, broker__enabled=True).order_by().values_list("broker_id").distinct()
    )


def _queries(names: Collection[Name]) -> Iterator[QuerySet[Instrument]]:
    by_exchange: dict[str, list[str]] = defaultdict(list)
    for symbol, exchange in names:
        by_exchange[exchange].append(symbol)
    for exchange, symbols in by_exchange.items():
        for start in range(0, len(symbols), NAMES_PER_QUERY):
            chunk = symbols[start : start + NAMES_PER_QUERY]
            yield Instrument.objects.filter(exchange=exchange, symbol__in=chunk)


def _modes(slug: str, segment: Segment) -> frozenset[Mode]:
    try:
        feeds = registry.load(slug).spec.feeds
    except registry.UnknownBroker:
        return frozenset()
    return frozenset(mode for feed in feeds if not feed.segments or segment in feed.segments for mode in feed.modes)


def _is_simulated(slug: str) -> bool:
    try:
        return registry.load(slug).spec.simulated
    except registry.UnknownBroker:
        return False
