"""
Zerodha's instrument master: one CSV of all exchanges, made anew every morning. Pure.

Source: https://kite.trade/docs/connect/v3/market-quotes/#instruments.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from brokers.adapters.zerodha.codec import SEGMENTS
from brokers.contract import BadRow, InstrumentRow
from brokers.masters import csv_rows, named
from brokers.symbols import Derivative, compact, derivative_symbol, index_symbol
from marketdata.ticks import Segment

COLUMNS = (
    "instrument_token",
    "exchange_token",
    "tradingsymbol",
    "name",
    "last_price",
    "expiry",
    "strike",
    "tick_size",
    "lot_size",
    "instrument_type",
    "segment",
    "exchange",
)

EXCHANGES = frozenset({"NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCO"})
GLOBAL = frozenset({"GLOBAL", "NSEIX"})


def parse(body: bytes) -> Iterator[InstrumentRow | BadRow]:
    """
    The rows of `GET /instruments`, in file order.

    Raises MasterError: the first line is not Kite's header.

    >>> header = ",".join(COLUMNS)
    >>> line = "13719042,53590,NIFTY24MARFUT,NIFTY,0.0,2024-03-28,0.0,0.05,50,FUT,NFO-FUT,NFO"
    >>> [row] = parse("\\n".join([header, line]).encode())
    >>> row.symbol, row.exchange, row.token, row.lot_size
    ('NIFTY28MAR24FUT', 'NFO', '13719042', 50)
    """
    return csv_rows(body, "Zerodha", COLUMNS, _instrument)


def _instrument(fields: Sequence[str]) -> InstrumentRow:
    token, _, broker_symbol, name, _, expiry, strike, tick_size, lot_size, kind, segment, raw_exchange = fields
    is_index = segment == "INDICES"
    exchange = _exchange(raw_exchange, is_index=is_index)
    return InstrumentRow(
        segment=_segment(token),
        token=str(int(token)),
        symbol=index_symbol(broker_symbol, exchange) if exchange.endswith("_INDEX") else _symbol(fields),
        exchange=exchange,
        broker_symbol=broker_symbol,
        broker_exchange=raw_exchange,
        name=name,
        kind="INDEX" if is_index else kind,
        expiry=expiry,
        strike=float(strike) if kind in ("CE", "PE") else None,
        lot_size=max(int(lot_size), 1),
        tick_size=float(tick_size) or 0.05,
    )


def _segment(token: str) -> Segment:
    segment = SEGMENTS.get(int(token) & 0xFF)
    if segment is None:
        raise ValueError(f"instrument_token {token} is of the unknown segment {int(token) & 0xFF}")
    return segment


def _exchange(raw: str, *, is_index: bool) -> str:
    if raw in GLOBAL:
        return "GLOBAL_INDEX"
    if raw not in EXCHANGES:
        raise ValueError(f"unknown exchange {raw!r}")
    return f"{raw}_INDEX" if is_index else raw


def _symbol(fields: Sequence[str]) -> str:
    _, _, broker_symbol, name, _, expiry, strike, _, _, kind, _, _ = fields
    if kind == "EQ":
        return named(compact(broker_symbol), "tradingsymbol")
    if kind not in ("FUT", "CE", "PE"):
        raise ValueError(f"unknown instrument_type {kind!r}")
    base = named(name, "name")
    day = dt.date.fromisoformat(named(expiry, "expiry"))
    if kind == "FUT":
        return derivative_symbol(Derivative(base, day))
    return derivative_symbol(Derivative(base, day, float(strike), kind))
