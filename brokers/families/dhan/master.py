"""
Dhan's instrument master: one compact CSV of all exchanges. Pure.

Source: https://dhanhq.co/docs/v2/instruments/; expiry, strike and tick conventions as in public copies of the file.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from brokers.contract import BadRow, InstrumentRow
from brokers.masters import csv_rows, named
from brokers.symbols import MONTHS, Derivative, derivative_symbol, equity_symbol, index_symbol
from marketdata.ticks import Segment

COLUMNS = (
    "SEM_EXM_EXCH_ID",
    "SEM_SEGMENT",
    "SEM_SMST_SECURITY_ID",
    "SEM_INSTRUMENT_NAME",
    "SEM_EXPIRY_CODE",
    "SEM_TRADING_SYMBOL",
    "SEM_LOT_UNITS",
    "SEM_CUSTOM_SYMBOL",
    "SEM_EXPIRY_DATE",
    "SEM_STRIKE_PRICE",
    "SEM_OPTION_TYPE",
    "SEM_TICK_SIZE",
    "SEM_EXPIRY_FLAG",
    "SEM_EXCH_INSTRUMENT_TYPE",
    "SEM_SERIES",
    "SM_SYMBOL_NAME",
)

NO_SERIES = frozenset({"", "NA", "X", "XX"})
INDEX_TICK = 0.05
"""An index has no tick; what the file has there differs from index to index."""

_EARLIEST_EXPIRY = dt.date(2000, 1, 1)
"""Dates before it (0001, 1979, 1980) stand for "none"."""

_CUSTOM_BASE = re.compile(rf"(.+?)\s+(?:\d{{1,2}}\s+)?(?:{'|'.join(MONTHS)})\b")
_TRADING_BASE = re.compile(r"(.+?)-\d{0,2}[A-Za-z]{3}\d{4}-")


class Place(NamedTuple):
    """Where a kind of instrument trades: the wire's segment, the canonical exchange, Dhan's word in requests."""

    segment: Segment
    exchange: str
    broker_exchange: str


_NFO = Place(Segment.NFO, "NFO", "NSE_FNO")
_CDS = Place(Segment.CDS, "CDS", "NSE_CURRENCY")
_BFO = Place(Segment.BFO, "BFO", "BSE_FNO")
_BCD = Place(Segment.BCD, "BCD", "BSE_CURRENCY")
_MCX = Place(Segment.MCX, "MCX", "MCX_COMM")

PLACES: dict[tuple[str, str], Place] = {
    ("NSE", "EQUITY"): Place(Segment.NSE, "NSE", "NSE_EQ"),
    ("BSE", "EQUITY"): Place(Segment.BSE, "BSE", "BSE_EQ"),
    ("NSE", "INDEX"): Place(Segment.INDEX, "NSE_INDEX", "IDX_I"),
    ("BSE", "INDEX"): Place(Segment.INDEX, "BSE_INDEX", "IDX_I"),
    **{("NSE", kind): _NFO for kind in ("FUTIDX", "FUTSTK", "OPTIDX", "OPTSTK", "OPTFUT")},
    **{("NSE", kind): _CDS for kind in ("FUTCUR", "OPTCUR")},
    **{("BSE", kind): _BFO for kind in ("FUTIDX", "FUTSTK", "OPTIDX", "OPTSTK")},
    **{("BSE", kind): _BCD for kind in ("FUTCUR", "OPTCUR")},
    **{("MCX", kind): _MCX for kind in ("FUTIDX", "FUTCOM", "OPTFUT")},
}
"""By exchange and instrument name; of other rows Dhan's feed has no segment, they are passed over."""


def parse(body: bytes, broker: str) -> Iterator[InstrumentRow | BadRow]:
    """
    The rows of the file, in its order.

    Raises MasterError: the first line is not Dhan's header.

    >>> line = "NSE,D,53590,OPTIDX,0,NIFTY-Mar2024-20800-CE,50.0,NIFTY 28 MAR 20800 CALL,2024-03-28 14:30:00,"
    >>> [row] = parse(f"{','.join(COLUMNS)}\\n{line}20800.00000,CE,5.0000,M,OP,,\\n".encode(), "Dhan")
    >>> row.symbol, row.exchange, row.token, row.lot_size, row.tick_size
    ('NIFTY28MAR2420800CE', 'NFO', '53590', 50, 0.05)
    """
    return csv_rows(body, broker, COLUMNS, _instrument)


def _instrument(fields: Sequence[str]) -> InstrumentRow | None:
    exchange, _, number, kind, _, trading, lot, custom, expiry, strike, right, tick, _, _, series, name = fields
    place = PLACES.get((exchange, kind))
    if place is None:
        return None
    named(trading, "SEM_TRADING_SYMBOL")
    token, lot_size = str(int(number)), max(int(float(lot or 1)), 1)
    if kind == "EQUITY":
        symbol = equity_symbol(trading, series if exchange == "NSE" and series not in NO_SERIES else "")
        return _row(place, token, symbol, trading, name=name, lot_size=lot_size, tick_size=_tick(tick))
    if kind == "INDEX":
        symbol = index_symbol(trading, place.exchange)
        return _row(place, token, symbol, trading, name=name, kind="INDEX", tick_size=INDEX_TICK)
    base, day = _base(custom, trading), _expiry(expiry)
    if kind.startswith("FUT"):
        parts = Derivative(base, day)
    elif right in ("CE", "PE"):
        parts = Derivative(base, day, _strike(strike), right)
    else:
        raise ValueError(f"unknown SEM_OPTION_TYPE {right!r}")
    return _row(
        place,
        token,
        derivative_symbol(parts),
        trading,
        name=base,
        kind=parts.right or "FUT",
        expiry=day.isoformat(),
        strike=parts.strike,
        lot_size=lot_size,
        tick_size=_tick(tick),
    )


def _row(
    place: Place,
    token: str,
    symbol: str,
    trading: str,
    *,
    name: str,
    kind: str = "EQ",
    expiry: str = "",
    strike: float | None = None,
    lot_size: int = 1,
    tick_size: float,
) -> InstrumentRow:
    return InstrumentRow(
        segment=place.segment,
        token=token,
        symbol=symbol,
        exchange=place.exchange,
        broker_symbol=trading,
        broker_exchange=place.broker_exchange,
        name=name,
        kind=kind,
        expiry=expiry,
        strike=strike,
        lot_size=lot_size,
        tick_size=tick_size,
    )


def _base(custom: str, trading: str) -> str:
    """
    The underlying, which no column has by itself.

    >>> _base("BAJAJ-AUTO 28 OCT 9500 CALL", ""), _base("SENSEX JUL  FUT", ""), _base("", "M&M-Mar2024-FUT")
    ('BAJAJ-AUTO', 'SENSEX', 'M&M')
    """
    found = _CUSTOM_BASE.match(custom.upper()) or _TRADING_BASE.match(trading)
    if found is None:
        raise ValueError(f"neither SEM_CUSTOM_SYMBOL {custom!r} nor SEM_TRADING_SYMBOL {trading!r} names an underlying")
    return found[1]


def _expiry(text: str) -> dt.date:
    day = dt.date.fromisoformat(text[:10])
    if day < _EARLIEST_EXPIRY:
        raise ValueError(f"the contract has no expiry but {text!r}")
    return day


def _strike(text: str) -> float:
    strike = float(text)
    if not strike > 0:
        raise ValueError(f"the option has no strike but {text!r}")
    return strike


def _tick(paise: str) -> float:
    """
    Rupees, from paise; the usual tick where the file has none.

    >>> _tick("5.0000"), _tick("0.2500"), _tick("")
    (0.05, 0.0025, 0.05)
    """
    return float(paise or 0) / 100 or 0.05
