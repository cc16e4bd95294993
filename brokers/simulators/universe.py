"""
The instruments a simulator quotes: real names at made-up prices, then `SIM0001`, `SIM0002` ... on NSE. Pure.

Prices, lots and the numbers of derivatives are invented. Numbers of NSE and BSE shares are the exchanges' own.
Contracts are made for a given day and expire at least a week after it, so none is ever expired.
"""

from __future__ import annotations

import datetime as dt
import math
import zlib
from collections.abc import Iterator

import msgspec

from brokers.symbols import Derivative, derivative_symbol

MOST = 100_000
"""The most instruments a simulator quotes."""

_TUESDAY, _THURSDAY, _FRIDAY = 1, 3, 4
_SPARE = dt.timedelta(days=7)


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """
    One quoted instrument in canonical words.

    `code` is the exchange's own number of it (for indices: a number unique among indices). `name` is the company, or
    the underlying of a contract. `kind` is EQ, INDEX, FUT, CE or PE. `price` is the previous close; prices, strike
    and `tick_size` are rupees. `weekly` marks contracts that do not expire with their month.
    """

    symbol: str
    exchange: str
    code: int
    name: str
    kind: str
    price: float
    tick_size: float
    lot_size: int = 1
    expiry: dt.date | None = None
    strike: float | None = None
    weekly: bool = False

    @property
    def key(self) -> str:
        """EXCHANGE:SYMBOL."""
        return f"{self.exchange}:{self.symbol}"


# symbol, NSE's number, previous close, name
_SHARES = (
    ("SBIN", 3045, 812.40, "STATE BANK OF INDIA"),
    ("RELIANCE", 2885, 1392.60, "RELIANCE INDUSTRIES"),
    ("INFY", 1594, 1487.20, "INFOSYS"),
    ("ADANIENT", 25, 2512.00, "ADANI ENTERPRISES"),
    ("ADANIPORTS", 15083, 1391.30, "ADANI PORT & SEZ"),
    ("APOLLOHOSP", 157, 7410.50, "APOLLO HOSPITALS ENTER."),
    ("ASIANPAINT", 236, 2486.40, "ASIAN PAINTS"),
    ("AXISBANK", 5900, 1168.70, "AXIS BANK"),
    ("BAJAJ-AUTO", 16669, 8890.00, "BAJAJ AUTO"),
    ("BAJAJFINSV", 16675, 2018.60, "BAJAJ FINSERV"),
    ("BAJFINANCE", 317, 987.45, "BAJAJ FINANCE"),
    ("BEL", 383, 398.65, "BHARAT ELECTRONICS"),
    ("BHARTIARTL", 10604, 1921.80, "BHARTI AIRTEL"),
    ("CIPLA", 694, 1502.90, "CIPLA"),
    ("COALINDIA", 20374, 389.15, "COAL INDIA"),
    ("DRREDDY", 881, 1264.30, "DR. REDDY'S LABORATORIES"),
    ("EICHERMOT", 910, 6885.50, "EICHER MOTORS"),
    ("ETERNAL", 5097, 318.90, "ETERNAL"),
    ("GRASIM", 1232, 2790.10, "GRASIM INDUSTRIES"),
    ("HCLTECH", 7229, 1488.30, "HCL TECHNOLOGIES"),
    ("HDFCBANK", 1333, 998.35, "HDFC BANK"),
    ("HDFCLIFE", 467, 771.25, "HDFC LIFE INS CO"),
    ("HEROMOTOCO", 1348, 5386.00, "HERO MOTOCORP"),
    ("HINDALCO", 1363, 742.80, "HINDALCO INDUSTRIES"),
    ("HINDUNILVR", 1394, 2533.70, "HINDUSTAN UNILEVER"),
    ("ICICIBANK", 4963, 1402.10, "ICICI BANK"),
    ("INDUSINDBK", 5258, 768.95, "INDUSIND BANK"),
    ("ITC", 1660, 412.75, "ITC"),
    ("JIOFIN", 18143, 310.45, "JIO FINANCIAL SERVICES"),
    ("JSWSTEEL", 11723, 1137.20, "JSW STEEL"),
    ("KOTAKBANK", 1922, 2104.60, "KOTAK MAHINDRA BANK"),
    ("LT", 11483, 3678.40, "LARSEN & TOUBRO"),
    ("M&M", 2031, 3421.90, "MAHINDRA & MAHINDRA"),
    ("MARUTI", 10999, 15890.00, "MARUTI SUZUKI INDIA"),
    ("NESTLEIND", 17963, 1187.30, "NESTLE INDIA"),
    ("NTPC", 11630, 338.55, "NTPC"),
    ("ONGC", 2475, 241.32, "OIL AND NATURAL GAS CORP."),
    ("POWERGRID", 14977, 286.40, "POWER GRID CORP. OF INDIA"),
    ("SBILIFE", 21808, 1796.20, "SBI LIFE INSURANCE CO"),
    ("SHRIRAMFIN", 4306, 634.85, "SHRIRAM FINANCE"),
    ("SUNPHARMA", 3351, 1638.40, "SUN PHARMACEUTICAL IND"),
    ("TATACONSUM", 3432, 1124.60, "TATA CONSUMER PRODUCTS"),
    ("TATAMOTORS", 3456, 688.75, "TATA MOTORS"),
    ("TATASTEEL", 3499, 168.94, "TATA STEEL"),
    ("TCS", 11536, 3062.80, "TATA CONSULTANCY SERV"),
    ("TECHM", 13538, 1476.50, "TECH MAHINDRA"),
    ("TITAN", 3506, 3498.70, "TITAN COMPANY"),
    ("TRENT", 1964, 4812.30, "TRENT"),
    ("ULTRACEMCO", 11532, 12410.00, "ULTRATECH CEMENT"),
    ("WIPRO", 3787, 248.61, "WIPRO"),
)

# symbol, exchange, number, previous close
_INDICES = (
    ("NIFTY", "NSE_INDEX", 1001, 24850.55),
    ("BANKNIFTY", "NSE_INDEX", 1016, 55210.30),
    ("FINNIFTY", "NSE_INDEX", 1007, 26340.80),
    ("MIDCPNIFTY", "NSE_INDEX", 1125, 12875.45),
    ("NIFTYNXT50", "NSE_INDEX", 1058, 67120.15),
    ("INDIAVIX", "NSE_INDEX", 1035, 12.84),
    ("SENSEX", "BSE_INDEX", 1, 81455.40),
    ("BANKEX", "BSE_INDEX", 1072, 62018.75),
    ("GIFTNIFTY", "GLOBAL_INDEX", 1137, 24905.50),
    ("MCXBULLDEX", "MCX_INDEX", 1201, 27340.20),
)

# symbol, BSE's number, previous close, name
_BSE_SHARES = (
    ("SBIN", 500112, 812.35, "STATE BANK OF INDIA"),
    ("RELIANCE", 500325, 1392.50, "RELIANCE INDUSTRIES"),
    ("INFY", 500209, 1487.35, "INFOSYS"),
)


def listings(count: int | None, today: dt.date) -> list[Listing]:
    """
    The first `count` instruments, in an order that never changes: well-known names first, artificial ones last.

    None is every real name and no artificial one. `today` decides the expiries.
    Raises ValueError: a count outside 1 to 100,000.

    >>> [listing.key for listing in listings(6, dt.date(2024, 3, 1))]
    ['NSE:SBIN', 'NSE:RELIANCE', 'NSE:INFY', 'NSE_INDEX:NIFTY', 'NSE_INDEX:BANKNIFTY', 'NSE_INDEX:FINNIFTY']
    >>> listings(1000, dt.date(2024, 3, 1))[-1].symbol[:3]
    'SIM'
    """
    if count is not None and not 1 <= count <= MOST:
        raise ValueError(f"The number of symbols must be from 1 to {MOST:,}, not {count}.")
    real = list(_real(today))
    if count is None or count <= len(real):
        return real[:count]
    return real + [_artificial(number) for number in range(1, count - len(real) + 1)]


def _real(today: dt.date) -> Iterator[Listing]:
    shares = [_share("NSE", *row) for row in _SHARES]
    indices = [_index(*row) for row in _INDICES]
    yield from shares[:3]
    yield from indices
    yield from shares[3:]
    yield from _contracts(today)
    yield from (_share("BSE", *row) for row in _BSE_SHARES)


def _share(exchange: str, symbol: str, code: int, price: float, name: str) -> Listing:
    tick = _share_tick(price) if exchange == "NSE" else 0.05
    return Listing(
        symbol=symbol, exchange=exchange, code=code, name=name, kind="EQ", price=_on_grid(price, tick), tick_size=tick
    )


def _index(symbol: str, exchange: str, code: int, price: float) -> Listing:
    return Listing(
        symbol=symbol,
        exchange=exchange,
        code=code,
        name=symbol,
        kind="INDEX",
        price=_on_grid(price, 0.05),
        tick_size=0.05,
    )


def _artificial(number: int) -> Listing:
    price = 50.0 + (number * 7919 % 3000)
    tick = _share_tick(price)
    return Listing(
        symbol=f"SIM{number:04d}",
        exchange="NSE",
        code=900_000 + number,
        name=f"SIMULATED COMPANY {number}",
        kind="EQ",
        price=_on_grid(price, tick),
        tick_size=tick,
    )


def _share_tick(price: float) -> float:
    """NSE's price steps for shares by price band, in force since April 2025."""
    for below, tick in ((250, 0.01), (1000, 0.05), (5000, 0.1), (10000, 0.5), (20000, 1.0)):
        if price < below:
            return tick
    return 5.0


def _on_grid(price: float, tick: float) -> float:
    return round(round(price / tick) * tick, 4)


# ------------------------------------------------------------------------------------------------------------ contracts


class _Underlying(msgspec.Struct, frozen=True, kw_only=True):
    """What contracts are made on: its exchange, its price, and the steps of prices, lots and strikes."""

    base: str
    exchange: str
    price: float
    tick_size: float = 0.05
    lot_size: int = 1
    strike_step: float = 0.0
    reach: int = 0  # strikes on each side of the middle one


_NIFTY = _Underlying(base="NIFTY", exchange="NFO", price=24850.55, lot_size=75, strike_step=50, reach=6)
_BANKNIFTY = _Underlying(base="BANKNIFTY", exchange="NFO", price=55210.30, lot_size=35, strike_step=100, reach=6)
_RELIANCE = _Underlying(base="RELIANCE", exchange="NFO", price=1392.60, lot_size=500, strike_step=10, reach=4)
_ITC = _Underlying(base="ITC", exchange="NFO", price=412.75, lot_size=1600, strike_step=2.5, reach=3)
_MAHINDRA = _Underlying(base="M&M", exchange="NFO", price=3421.90, tick_size=0.1, lot_size=200)
_BAJAJ_AUTO = _Underlying(base="BAJAJ-AUTO", exchange="NFO", price=8890.00, tick_size=0.5, lot_size=75)
_SENSEX = _Underlying(base="SENSEX", exchange="BFO", price=81455.40, lot_size=20, strike_step=100, reach=3)
_DOLLAR = _Underlying(base="USDINR", exchange="CDS", price=87.9150, tick_size=0.0025, strike_step=0.25, reach=2)
_EURO = _Underlying(base="EURINR", exchange="CDS", price=102.4425, tick_size=0.0025)
_DOLLAR_ON_BSE = _Underlying(base="USDINR", exchange="BCD", price=87.9150, tick_size=0.0025)
_GOLD = _Underlying(base="GOLD", exchange="MCX", price=112350.0, tick_size=1.0)
_CRUDE = _Underlying(base="CRUDEOIL", exchange="MCX", price=5612.0, tick_size=1.0, strike_step=50, reach=2)
_GAS = _Underlying(base="NATURALGAS", exchange="MCX", price=268.4, tick_size=0.1)
_GOLD_ON_NSE = _Underlying(base="GOLD10GM", exchange="NCO", price=112350.0, tick_size=1.0)


def _contracts(today: dt.date) -> Iterator[Listing]:
    """Every contract, each with a number made from its name, so that it keeps it from day to day."""
    taken: set[int] = set()
    for contract in _unnumbered(today):
        code = 30_000 + zlib.crc32(contract.key.encode()) % 400_000
        while code in taken:
            code += 1
        taken.add(code)
        yield msgspec.structs.replace(contract, code=code)


def _unnumbered(today: dt.date) -> Iterator[Listing]:
    month, following = _last(_TUESDAY, today, 0), _last(_TUESDAY, today, 1)
    for expiry in (month, following):
        for underlying in (_NIFTY, _BANKNIFTY, _RELIANCE):
            yield _future(underlying, expiry)
    yield _future(_MAHINDRA, month)
    yield _future(_BAJAJ_AUTO, month)
    for expiry in sorted({_next(_TUESDAY, today), month}):
        yield from _chain(_NIFTY, expiry)
    for underlying in (_BANKNIFTY, _RELIANCE, _ITC):
        yield from _chain(underlying, month)
    yield _future(_SENSEX, _last(_THURSDAY, today, 0))
    yield from _chain(_SENSEX, _next(_THURSDAY, today))
    friday = _last(_FRIDAY, today, 0)
    for underlying in (_DOLLAR, _EURO, _DOLLAR_ON_BSE, _GOLD, _CRUDE, _GAS, _GOLD_ON_NSE):
        yield _future(underlying, friday)
    yield from _chain(_DOLLAR, friday)
    yield from _chain(_CRUDE, friday)


def _future(underlying: _Underlying, expiry: dt.date) -> Listing:
    return _contract(underlying, expiry, "FUT", None, _on_grid(underlying.price * 1.003, underlying.tick_size))


def _chain(underlying: _Underlying, expiry: dt.date) -> Iterator[Listing]:
    """Calls and puts, from the strike nearest to the price outwards."""
    step, reach = underlying.strike_step, underlying.reach
    middle = round(underlying.price / step) * step
    for distance in sorted(range(-reach, reach + 1), key=abs):
        strike = middle + distance * step
        for right in ("CE", "PE"):
            yield _contract(underlying, expiry, right, strike, _premium(underlying, strike, right))


def _contract(underlying: _Underlying, expiry: dt.date, right: str, strike: float | None, price: float) -> Listing:
    return Listing(
        symbol=derivative_symbol(Derivative(underlying.base, expiry, strike, None if right == "FUT" else right)),
        exchange=underlying.exchange,
        code=0,
        name=underlying.base,
        kind=right,
        price=price,
        tick_size=underlying.tick_size,
        lot_size=underlying.lot_size,
        expiry=expiry,
        strike=strike,
        weekly=expiry != _last_of_month(expiry.weekday(), expiry.year, expiry.month),
    )


def _premium(underlying: _Underlying, strike: float, right: str) -> float:
    """A believable option price: what it is worth now, and a hope that fades with the distance."""
    spot = underlying.price
    worth = max(0.0, spot - strike if right == "CE" else strike - spot)
    hope = spot * 0.008 * math.exp(-(((strike - spot) / (spot * 0.02)) ** 2))
    return _on_grid(max(worth + hope, 40 * underlying.tick_size), underlying.tick_size)


def _next(weekday: int, today: dt.date) -> dt.date:
    """The first such weekday at least a week ahead."""
    ahead = today + _SPARE
    return ahead + dt.timedelta(days=(weekday - ahead.weekday()) % 7)


def _last(weekday: int, today: dt.date, months: int) -> dt.date:
    """The month's last such weekday at least a week ahead, or that of so many months later."""
    year, month = today.year, today.month
    if _last_of_month(weekday, year, month) < today + _SPARE:
        months += 1
    return _last_of_month(weekday, *_months_later(year, month, months))


def _months_later(year: int, month: int, months: int) -> tuple[int, int]:
    later = year * 12 + month - 1 + months
    return later // 12, later % 12 + 1


def _last_of_month(weekday: int, year: int, month: int) -> dt.date:
    """
    >>> _last_of_month(1, 2025, 9)
    datetime.date(2025, 9, 30)
    """
    last = dt.date(*_months_later(year, month, 1), 1) - dt.timedelta(days=1)
    return last - dt.timedelta(days=(last.weekday() - weekday) % 7)
