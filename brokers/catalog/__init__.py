"""
Symbols to tokens and back, and finding them: the clients' side's only door to instruments.

Read-only; call it in a thread. Everything here may raise django.db.DatabaseError.
"""

from __future__ import annotations

from brokers.catalog.chain import Chain, NoOptions, Strike, option_chain
from brokers.catalog.lookup import (
    Listing,
    Name,
    find,
    forget,
    is_simulated,
    served_exchanges,
    tokens_for,
)
from brokers.catalog.query import KINDS, QueryError
from brokers.catalog.search import MOST, Found, search
from brokers.catalog.suggest import did_you_mean, flaw, suggest

__all__ = [
    "KINDS",
    "MOST",
    "Chain",
    "Found",
    "Listing",
    "Name",
    "NoOptions",
    "QueryError",
    "Strike",
    "did_you_mean",
    "find",
    "flaw",
    "forget",
    "is_simulated",
    "option_chain",
    "search",
    "served_exchanges",
    "suggest",
    "tokens_for",
]
