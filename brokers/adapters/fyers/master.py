"""
Fyers' instrument masters, one a market, made anew every morning: CSV without a header, or JSON by ticker. Pure.

Source: https://public.fyers.in/sym_details/; the columns as in Fyers' documentation of its symbol master.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import msgspec

from brokers.adapters.fyers.indices import index_name
from brokers.adapters.fyers.names import INDEX_SEGMENTS, SEGMENTS, scrip_token, split_fytoken
from brokers.contract import BadRow, InstrumentRow, MasterError
from brokers.india import INDIA
from brokers.masters import csv_rows, named
from brokers.symbols import Derivative, compact, derivative_symbol, equity_symbol, index_symbol

BROKER = "Fyers"

COLUMNS = (
    "Fytoken",
    "Symbol Details",
    "Exchange Instrument type",
    "Minimum lot size",
    "Tick size",
    "ISIN",
    "Trading Session",
    "Last update date",
    "Expiry date",
    "Symbol ticker",
    "Exchange",
    "Segment",
    "Scrip code",
    "Underlying symbol",
    "Underlying scrip code",
    "Strike price",
    "Option type",
    "Underlying FyToken",
    "Reserved column (string)",
    "Reserved column (int)",
    "Reserved column (float)",
)

FUTURES = frozenset({"XX", "", "FUT"})
OPTIONS = frozenset({"CE", "PE"})

BSE_INDICES = {"100": "BSE100", "200": "BSE200", "500": "BSE500", "IPO": "BSEIPO"}
"""Spellings that are this broker's alone; the others are common ones."""

_DETAILS = re.compile(r"^(.+) \d{1,2} [A-Za-z]{3} \d{2}(?: |$)")
"""`NIFTY 28 Mar 24 20800 CE`: the name, then the date."""


class _Row(NamedTuple):
    """What both kinds of file say of an instrument, as text; `kind` is the exchange's number for kinds of them."""

    fytoken: str
    details: str
    kind: str
    lot: str
    tick: str
    expiry: str
    ticker: str
    underlying: str
    strike: str
    right: str


_Read = Callable[[_Row], InstrumentRow | None]


def parse(body: bytes, segment: str) -> Iterator[InstrumentRow | BadRow]:
    """
    The rows of a file, in its order; `segment` is the file's name without what all have in common.

    Raises MasterError: it is not that file.

    >>> line = "101124032853590,NIFTY 28 Mar 24 20800 CE,14,50,0.05,,0915-1530|1815-1915:,2024-03-27,1711620000,"
    >>> line += "NSE:NIFTY24MAR20800CE,10,11,53590,NIFTY,26000,20800.0,CE,101000000026000,None,0,0.0"
    >>> [row] = parse(line.encode(), "NSE_FO")
    >>> row.symbol, row.exchange, row.token, row.lot_size
    ('NIFTY28MAR2420800CE', 'NFO', 'nse_fo|53590|NSE:NIFTY24MAR20800CE', 50)
    """
    if segment in _JSON_FILES:
        yield from _json_rows(body, _JSON_FILES[segment])
    elif segment not in _CSV_FILES:
        raise MasterError(f"{BROKER} has no file {segment!r}; it has {', '.join([*_CSV_FILES, *_JSON_FILES])}.")
    else:
        _check(body)
        yield from csv_rows(body, BROKER, COLUMNS, partial(_csv_row, _CSV_FILES[segment]), has_header=False)


def _check(body: bytes) -> None:
    """Raises MasterError: the first line is none of the file's; it has no header that could say so."""
    line = body[:2000].lstrip().decode("utf-8-sig", "replace").partition("\n")[0]
    if body and not line:
        return  # a blank line: a market in which nothing is listed
    fields = next(csv.reader([line]), [])
    if len(fields) != len(COLUMNS) or not fields[0].isdigit():
        raise MasterError(
            f"This is not {BROKER}'s instrument file: its first line should be {len(COLUMNS)} columns, "
            f"the first a number (Fytoken); it is {line[:120] or 'nothing'}."
        )


def _csv_row(read: _Read, fields: Sequence[str]) -> InstrumentRow | None:
    fytoken, details, kind, lot, tick, _, _, _, expiry, ticker, _, _, _, underlying, _, strike, right, *_ = fields
    return read(_Row(fytoken, details, kind, lot, tick, expiry, ticker, underlying, strike, right))


# ----------------------------------------------------------------------------------------------------------------- JSON


class _Record(msgspec.Struct, rename="camel"):
    """What is used of an instrument in a file of JSON."""

    fy_token: str
    sym_ticker: str
    sym_details: str = ""
    expiry_date: str | float = ""
    strike_price: float = -1.0
    qty_multiplier: float = 1.0
    tick_size: float = 0.0
    opt_type: str = ""
    under_sym: str = ""


def _json_rows(body: bytes, read: _Read) -> Iterator[InstrumentRow | BadRow]:
    """The object is cut into its records first: one bad record spoils no other; `line` is its place."""
    try:
        records = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError as error:
        raise MasterError(f"This is not {BROKER}'s instrument file: it should be a JSON object; {error}.") from None
    if records and not any(bytes(raw).startswith(b"{") for raw in records.values()):
        raise MasterError(f"This is not {BROKER}'s instrument file: it should be a JSON object of objects by ticker.")
    decode = msgspec.json.Decoder(_Record, strict=False).decode
    for number, raw in enumerate(records.values(), start=1):
        try:
            row = read(_json_row(decode(raw)))
        except (msgspec.MsgspecError, ValueError) as error:
            yield BadRow(number, str(error))
        else:
            if row is not None:
                yield row


def _json_row(record: _Record) -> _Row:
    return _Row(
        record.fy_token,
        record.sym_details,
        "",
        str(record.qty_multiplier),
        str(record.tick_size),
        str(record.expiry_date),
        record.sym_ticker,
        record.under_sym,
        str(record.strike_price),
        record.opt_type,
    )


# --------------------------------------------------------------------------------------------------------- instruments


def _nse_cash(row: _Row) -> InstrumentRow | None:
    """Shares, funds (kinds 0 and 9), gold bonds (2) and indices (10); other bonds are not listed."""
    if row.kind == "10":
        return _index(row, index_symbol(row.underlying.replace("-", ""), "NSE_INDEX"))
    if row.kind in ("0", "9") or (row.kind == "2" and row.ticker.endswith("-GB")):
        return _share(row, equity_symbol(_named_in(row.ticker)))
    return None


def _bse_cash(row: _Row) -> InstrumentRow | None:
    """Shares and funds (kinds 0, 4, 50), whose group is no part of the name, and indices (10)."""
    if row.kind == "10":
        name = compact(row.underlying)
        return _index(row, BSE_INDICES.get(name) or index_symbol(name, "BSE_INDEX"))
    if row.kind in ("0", "4", "50"):
        return _share(row, compact(row.underlying))
    return None


def _share(row: _Row, symbol: str) -> InstrumentRow:
    token = scrip_token(row.fytoken, _checked(row.ticker))
    return InstrumentRow(
        segment=token.segment,
        token=token.number,
        symbol=named(symbol, "Underlying symbol"),
        exchange=token.segment.value,
        broker_symbol=row.ticker,
        broker_exchange=token.segment.value,
        name=row.details,
        lot_size=_lot(row),
        tick_size=_tick(row),
    )


def _index(row: _Row, symbol: str) -> InstrumentRow:
    """An index is known on the wire by its name, not by its number."""
    market, _ = split_fytoken(row.fytoken)
    segment = INDEX_SEGMENTS.get(market)
    if segment is None:
        raise ValueError(f"the index {row.ticker!r} is of the market {market}, which has none")
    ticker = _checked(row.ticker)
    return InstrumentRow(
        segment=segment,
        token=f"{market}|{index_name(market, ticker)}|{ticker}",
        symbol=named(symbol, "Underlying symbol"),
        exchange=segment.value,
        broker_symbol=ticker,
        broker_exchange=SEGMENTS[market].value,
        name=row.details,
        kind="INDEX",
        tick_size=_tick(row),
    )


def _contract(row: _Row) -> InstrumentRow:
    token = scrip_token(row.fytoken, _checked(row.ticker))
    found = _DETAILS.match(row.details)
    if found is None:
        raise ValueError(f"Symbol Details {row.details!r} should be a name and a date")
    day, right = _day(named(row.expiry, "Expiry date")), _right(row.right)
    strike = None if right is None else _price(row.strike, "Strike price")
    return InstrumentRow(
        segment=token.segment,
        token=token.number,
        symbol=derivative_symbol(Derivative(found[1], day, strike, right)),
        exchange=token.segment.value,
        broker_symbol=row.ticker,
        broker_exchange=token.segment.value,
        name=row.underlying or found[1],
        kind=right or "FUT",
        expiry=day.isoformat(),
        strike=strike,
        lot_size=_lot(row),
        tick_size=_tick(row),
    )


def _right(text: str) -> str | None:
    """CE, PE, or None for a future. Raises ValueError."""
    if text in FUTURES:
        return None
    if text not in OPTIONS:
        raise ValueError(f"unknown Option type {text!r}")
    return text


@lru_cache(maxsize=4096)
def _day(seconds: str) -> dt.date:
    """
    The day in India of an expiry in Unix seconds. Raises ValueError.

    >>> _day("1711620000")
    datetime.date(2024, 3, 28)
    """
    try:
        return dt.datetime.fromtimestamp(float(seconds), INDIA).date()
    except (OverflowError, OSError):
        raise ValueError(f"the Expiry date {seconds!r} is no time") from None


def _checked(ticker: str) -> str:
    """Raises ValueError: no ticker."""
    if ":" not in ticker:
        raise ValueError(f"the Symbol ticker {ticker!r} has no exchange")
    return ticker


def _named_in(ticker: str) -> str:
    return ticker.partition(":")[2]


def _lot(row: _Row) -> int:
    """Raises ValueError."""
    lot = float(row.lot)
    if not 0 <= lot < 2**31:
        raise ValueError(f"{row.lot!r} is no lot size")
    return max(int(lot), 1)


def _tick(row: _Row) -> float:
    return _price(row.tick, "Tick size") or 0.05


def _price(text: str, column: str) -> float:
    """Raises ValueError."""
    price = float(text)
    if not 0 <= price < math.inf:
        raise ValueError(f"the {column} {text!r} is no price")
    return price


_CSV_FILES: dict[str, _Read] = {
    "NSE_CM": _nse_cash,
    "BSE_CM": _bse_cash,
    "NSE_FO": _contract,
    "BSE_FO": _contract,
}
_JSON_FILES: dict[str, _Read] = {"NSE_CD": _contract, "MCX_COM": _contract}
