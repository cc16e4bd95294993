"""
Angel One's instrument master: one JSON list of all exchanges, made anew every morning. Pure.

All values are texts. Prices are in paise, those of currencies in 1/10**7 rupees. Source: the sample and the answers at
https://smartapi.angelone.in/topic/286/number-format-query-in-instrument-master, and published copies of the file.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from brokers.adapters.angel.codec import DIVISORS
from brokers.contract import BadRow, InstrumentRow
from brokers.masters import json_rows, named
from brokers.symbols import MONTHS, Derivative, derivative_symbol, equity_symbol, index_symbol
from marketdata.ticks import Segment

SEGMENTS: dict[str, Segment] = {
    "NSE": Segment.NSE,
    "NFO": Segment.NFO,
    "BSE": Segment.BSE,
    "BFO": Segment.BFO,
    "CDS": Segment.CDS,
    "MCX": Segment.MCX,
    "NCDEX": Segment.NCDEX,
}
"""The file's exchanges that the socket has; NCO has no exchange type there."""

INDEX = "AMXIDX"
INDEX_EXCHANGES: dict[Segment, str] = {
    Segment.NSE: "NSE_INDEX",
    Segment.BSE: "BSE_INDEX",
    Segment.MCX: "MCX_INDEX",
}
CASH = frozenset({Segment.NSE, Segment.BSE})
RIGHTS = frozenset({"CE", "PE"})


class _Row(msgspec.Struct):
    """One record, as it stands there."""

    token: str
    symbol: str
    exch_seg: str
    name: str = ""
    expiry: str = ""
    strike: str = ""
    lotsize: str = ""
    instrumenttype: str = ""
    tick_size: str = ""


def parse(body: bytes) -> Iterator[InstrumentRow | BadRow]:
    """
    The rows of the file, in its order.

    Spot values of commodities and currencies (COMDTY, UNDCUR …) are bad rows: they are neither contracts nor indices.
    Raises MasterError: no JSON list.

    >>> line = '''{"token":"53590","symbol":"NIFTY28MAR2420800CE","name":"NIFTY","expiry":"28MAR2024",
    ... "strike":"2080000.000000","lotsize":"50","instrumenttype":"OPTIDX","exch_seg":"NFO","tick_size":"5.000000"}'''
    >>> [row] = parse(f"[{line}]".encode())
    >>> row.symbol, row.exchange, row.strike, row.lot_size, row.tick_size
    ('NIFTY28MAR2420800CE', 'NFO', 20800.0, 50, 0.05)
    """
    return json_rows(body, "Angel One", _Row, _instrument)


def _instrument(row: _Row) -> InstrumentRow:
    segment = SEGMENTS.get(row.exch_seg)
    if segment is None:
        raise ValueError(f"exchange {row.exch_seg!r} is not on the socket")
    if row.instrumenttype == INDEX:
        return _index(row, segment)
    if segment in CASH:
        return _share(row, segment)
    return _contract(row, segment)


def _index(row: _Row, segment: Segment) -> InstrumentRow:
    """Of MCX the symbol names the index, elsewhere the name does; the hyphens in it say nothing."""
    exchange = INDEX_EXCHANGES.get(segment)
    if exchange is None:
        raise ValueError(f"an index of {row.exch_seg} is not known")
    column = "symbol" if segment is Segment.MCX else "name"
    spelling = named(getattr(row, column), column)
    return _made(
        row, segment, symbol=index_symbol(spelling.replace("-", " "), exchange), exchange=exchange, kind="INDEX"
    )


def _share(row: _Row, segment: Segment) -> InstrumentRow:
    if row.instrumenttype:
        raise ValueError(f"unknown instrumenttype {row.instrumenttype!r} on {row.exch_seg}")
    return _made(row, segment, symbol=equity_symbol(named(row.symbol, "symbol")), exchange=segment.value, kind="EQ")


def _contract(row: _Row, segment: Segment) -> InstrumentRow:
    """A future (FUTIDX, FUTCUR …), or an option (OPTSTK, OPTFUT …) whose symbol ends with its right."""
    kind = row.symbol[-2:] if row.instrumenttype.startswith("OPT") else row.instrumenttype[:3]
    if kind != "FUT" and kind not in RIGHTS:
        raise ValueError(f"{row.symbol!r} of instrumenttype {row.instrumenttype!r} is no future or option")
    base, day = named(row.name, "name"), _day(named(row.expiry, "expiry"))
    strike = float(row.strike) / DIVISORS.get(segment, 100.0) if kind != "FUT" else None
    symbol = derivative_symbol(Derivative(base, day, strike, None if kind == "FUT" else kind))
    return _made(row, segment, symbol=symbol, exchange=segment.value, kind=kind, expiry=day.isoformat(), strike=strike)


def _made(
    row: _Row,
    segment: Segment,
    *,
    symbol: str,
    exchange: str,
    kind: str,
    expiry: str = "",
    strike: float | None = None,
) -> InstrumentRow:
    return InstrumentRow(
        segment=segment,
        token=named(row.token, "token"),
        symbol=symbol,
        exchange=exchange,
        broker_symbol=row.symbol,
        broker_exchange=row.exch_seg,
        name=row.name,
        kind=kind,
        expiry=expiry,
        strike=strike,
        lot_size=max(int(row.lotsize or 1), 1),
        tick_size=float(row.tick_size or 0) / DIVISORS.get(segment, 100.0) or 0.05,
    )


@lru_cache(maxsize=4096)
def _day(text: str) -> dt.date:
    """
    A date such as 28MAR2024.

    Raises ValueError.

    >>> _day("04Apr2024")
    datetime.date(2024, 4, 4)
    """
    month = text[2:5].upper()
    if len(text) != 9 or month not in MONTHS:
        raise ValueError(f"the expiry {text!r} is no date such as 28MAR2024")
    return dt.date(int(text[5:]), MONTHS.index(month) + 1, int(text[:2]))
