"""Instruments for tests: Zerodha's sample master, and rows that are told by their symbols alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from brokers import registry
from brokers.contract import InstrumentRow
from brokers.instruments.store import replace_instruments
from brokers.models import Broker, BrokerAccount
from brokers.symbols import parse
from marketdata.ticks import Segment
from tests.conftest import PROJECT

TODAY = dt.date(2026, 3, 3)
"""A day on which nothing in the sample has expired."""

SAMPLE = PROJECT / "tests" / "adapters" / "zerodha" / "master.csv"

OTHERS = (
    "SBIN@NSE", "SBIN@BSE", "RELIANCE@BSE", "IDEA-BE@NSE", "VODAFONE@BSE", "MCX@NSE", "BSE@NSE", "NIFTYBEES@NSE",
    "NIFTY100@NSE_INDEX", "SENSEX12MAR2681500CE@BFO", "SENSEX12MAR26FUT@BFO", "NIFTY31MAR2624850CE@NFO",
    "ITC31MAR26412.5CE@NFO", "ITC31MAR26412.5PE@NFO", "NIFTY24FEB2624850CE@NFO", "NIFTY24FEB26FUT@NFO",
    "USDINR27MAR26FUT@CDS", "USDINR27MAR2687.25CE@CDS", "726GS203326MAR26FUT@CDS", "CRUDEOIL19MAR26FUT@MCX",
    "CRUDEOIL17APR26FUT@MCX", "CRUDEOILM19MAR26FUT@MCX", "CRUDEOIL17MAR265600CE@MCX", "GOLD03APR26FUT@MCX",
    "GOLD03APR26FUT@NCO", "GOLD10GM27MAR26FUT@NCO", "BTCUSDFUT@CRYPTO", "BTC27MAR26FUT@CRYPTO",
    "BTC27MAR2662000CE@CRYPTO", "BTCUSDT@CRYPTO",
)  # fmt: skip
"""What a second broker lists; two of the contracts have expired."""


def row(name: str, number: int, **own: Any) -> InstrumentRow:
    """A row for SYMBOL@EXCHANGE."""
    symbol, _, exchange = name.partition("@")
    parts = parse(symbol, exchange)
    values = {
        "segment": Segment(exchange),
        "token": str(number),
        "symbol": symbol,
        "exchange": exchange,
        "broker_symbol": symbol,
        "broker_exchange": exchange,
        "name": parts.base,
        "kind": {"SPOT": "EQ", "PERPFUT": "FUT"}.get(parts.kind, str(parts.kind)),
        "expiry": parts.expiry.isoformat() if parts.expiry else "",
        "strike": parts.strike,
    }
    return InstrumentRow(**(values | own))


def rows(names: Iterable[str]) -> list[InstrumentRow]:
    """A row for each SYMBOL@EXCHANGE, with tokens that only this list has."""
    return [row(name, number) for number, name in enumerate(names, start=1)]


def sample() -> list[InstrumentRow]:
    """The rows of Zerodha's sample."""
    parsed = registry.load("zerodha").parse_instruments(SAMPLE.read_bytes())
    return [each for each in parsed if isinstance(each, InstrumentRow)]


def load(slug: str, its_rows: Iterable[InstrumentRow], *, account: bool = True) -> Broker:
    """A broker with these instruments, and an account that can serve them."""
    broker, _ = Broker.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
    replace_instruments(broker, its_rows)
    if account:
        BrokerAccount.objects.get_or_create(broker=broker, name="main")
    return broker
