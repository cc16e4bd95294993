"""
Upstox's instrument file: one gzipped JSON list of all exchanges, made anew every morning. Pure.

Source: https://upstox.com/developer/api-documentation/instruments.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import msgspec

from brokers.adapters.upstox.codec import SEGMENTS
from brokers.contract import BadRow, InstrumentRow
from brokers.masters import json_rows, named
from brokers.symbols import Derivative, compact, derivative_symbol, equity_symbol, index_symbol
from marketdata.ticks import Segment

GLOBAL_INDEX_NAMES: dict[str, str] = {
    "^HSI": "HANGSENG",
    "^DJI": "DOWJONES",
    "^FTSE": "UK100",
    "^GSPC": "US500",
    "^GDAXI": "GERMANY40",
    "^FCHI": "FRANCE40",
    "^N225": "JAPAN225",
    "IXIX": "US100",
    "DOWFUTURES": "US30",
    "BZUSD": "BRENTOIL",
    "CLUSD": "WTIOIL",
}
"""Trading symbols of world indices, blanks removed, that have another canonical name."""

INDICES = frozenset({Segment.NSE_INDEX, Segment.BSE_INDEX, Segment.MCX_INDEX, Segment.GLOBAL_INDEX})
CASH = frozenset({Segment.NSE, Segment.BSE})

_EPOCH = dt.date(1970, 1, 1)
_IST_MS = 19_800_000
_DAY_MS = 86_400_000
_LATEST_MS = 4_102_444_800_000
"""The year 2100."""


class _Row(msgspec.Struct):
    """One record; `expiry` is Unix ms, `tick_size` paise, `strike_price` rupees."""

    segment: str
    instrument_key: str
    trading_symbol: str
    instrument_type: str = ""
    name: str | None = None
    underlying_symbol: str | None = None
    expiry: int | None = None
    strike_price: float | None = None
    lot_size: float | None = None
    tick_size: float | None = None


def parse(body: bytes) -> Iterator[InstrumentRow | BadRow]:
    """
    The rows of the file, in its order.

    Raises MasterError: no JSON list.

    >>> line = '''{"segment":"NSE_FO","name":"NIFTY","exchange":"NSE","expiry":1711650599000,"instrument_type":"CE",
    ... "underlying_symbol":"NIFTY","instrument_key":"NSE_FO|53590","lot_size":50,"exchange_token":"53590",
    ... "tick_size":5.0,"trading_symbol":"NIFTY 20800 CE 28 MAR 24","strike_price":20800.0}'''
    >>> [row] = parse(f"[{line}]".encode())
    >>> row.symbol, row.exchange, row.token, row.expiry, row.lot_size, row.tick_size
    ('NIFTY28MAR2420800CE', 'NFO', 'NSE_FO|53590', '2024-03-28', 50, 0.05)
    """
    return json_rows(body, "Upstox", _Row, _instrument)


def _instrument(row: _Row) -> InstrumentRow:
    segment = SEGMENTS.get(row.segment)
    if segment is None:
        raise ValueError(f"unknown segment {row.segment!r}")
    named(row.trading_symbol, "trading_symbol")
    is_contract = segment not in INDICES and segment not in CASH
    day = _expiry(row) if is_contract else None
    return InstrumentRow(
        segment=segment,
        token=named(row.instrument_key, "instrument_key"),
        symbol=_contract_symbol(row, day) if day else _symbol(row, segment),
        exchange=segment.value,
        broker_symbol=row.trading_symbol,
        broker_exchange=row.segment,
        name=row.name or "",
        kind=row.instrument_type if is_contract else "INDEX" if segment in INDICES else "EQ",
        expiry=day.isoformat() if day else "",
        strike=row.strike_price if row.instrument_type in ("CE", "PE") else None,
        lot_size=max(int(row.lot_size or 1), 1),
        tick_size=(row.tick_size or 5.0) / 100,
    )


def _symbol(row: _Row, segment: Segment) -> str:
    """NSE's series is the row's type; on BSE the type is a group, which is no part of a name."""
    if segment is Segment.GLOBAL_INDEX:
        spelling = compact(row.trading_symbol)
        return GLOBAL_INDEX_NAMES.get(spelling, spelling)
    if segment in INDICES:
        return index_symbol(row.trading_symbol, segment.value)
    return equity_symbol(row.trading_symbol, row.instrument_type if segment is Segment.NSE else "")


def _contract_symbol(row: _Row, day: dt.date) -> str:
    match row.instrument_type:
        case "FUT":
            return derivative_symbol(Derivative(_base(row, 4), day))
        case "CE" | "PE":
            if row.strike_price is None:
                raise ValueError("the option has no strike_price")
            return derivative_symbol(Derivative(_base(row, 5), day, row.strike_price, row.instrument_type))
    raise ValueError(f"unknown instrument_type {row.instrument_type!r}")


def _base(row: _Row, tail: int) -> str:
    """
    The contract's name: the trading symbol without its last words, FUT DD MMM YY or STRIKE CE DD MMM YY.

    A name may have blanks. A trading symbol of another form leaves it to the underlying.
    """
    words = row.trading_symbol.split()
    if len(words) > tail and words[-4] == row.instrument_type:
        return " ".join(words[:-tail])
    return named(row.underlying_symbol or "", "underlying_symbol")


def _expiry(row: _Row) -> dt.date:
    """The day in India on which `expiry` falls."""
    if row.expiry is None or not 0 < row.expiry < _LATEST_MS:
        raise ValueError(f"the contract's expiry {row.expiry} is no instant")
    return _EPOCH + dt.timedelta(days=(row.expiry + _IST_MS) // _DAY_MS)
