"""
A broker's server side, one module a broker: what the demo and the tests speak to without an account.

A module here that has a `SIMULATOR` (a subclass of `engine.Simulator`) is a broker, named by its slug; the others
are what brokers share.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokers.contract import Adapter, BadRow, InstrumentRow
    from brokers.simulators.engine import Simulator


def simulators() -> dict[str, type[Simulator]]:
    """
    Every broker that can be simulated, by slug.

    >>> simulators()["zerodha"].__name__
    'ZerodhaSimulator'
    """
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    classes = (getattr(module, "SIMULATOR", None) for module in modules)
    return {found.slug: found for found in classes if found is not None}


def rows_of(adapter: Adapter, simulator: Simulator) -> Iterator[InstrumentRow | BadRow]:
    """What a simulated broker quotes, from its own instrument files, as the broker's adapter reads them."""
    for master in adapter.spec.masters:
        yield from adapter.parse_instruments(simulator.master(master.segment).encode(), master.segment)
