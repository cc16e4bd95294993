"""Which brokers there are: every module or package in `brokers.adapters`, named by its slug. No list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from brokers import adapters
from brokers.contract import Adapter


class UnknownBroker(LookupError):
    """No adapter has this slug; the text lists those there are."""


def slugs() -> list[str]:
    """
    Every broker's slug, sorted.

    >>> "zerodha" in slugs()
    True
    """
    return sorted(found.name for found in pkgutil.iter_modules(adapters.__path__))


@cache
def load(slug: str) -> Adapter:
    """
    The adapter of a broker: the `ADAPTER` of its module.

    Raises UnknownBroker.

    >>> load("zerodha").spec.name
    'Zerodha'
    """
    if slug not in slugs():
        raise UnknownBroker(f"There is no broker {slug!r}; there is {', '.join(slugs())}.")
    adapter: Adapter = importlib.import_module(f"{adapters.__name__}.{slug}").ADAPTER
    return adapter
