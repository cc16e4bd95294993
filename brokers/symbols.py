"""
The canonical symbol grammar, the same for every broker. Pure.

    equity      BASE                        SBIN, M&M, BAJAJ-AUTO, IDEA-BE
    index       NAME                        NIFTY, SENSEX
    future      BASE DDMMMYY FUT            NIFTY28MAR24FUT
    option      BASE DDMMMYY STRIKE CE|PE   NIFTY28MAR2420800CE, VEDL25APR24292.5CE
    crypto      as those; spot PAIR, perpetual PAIR FUT: BTCUSDT, BTCUSDFUT

Upper case, no blanks. The date is the last trading day. A strike has no trailing zeros. `parse` and `symbol_of` are the
grammar as a whole; what a symbol is depends on its exchange.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from functools import lru_cache
from typing import NamedTuple

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

_DERIVATIVE = re.compile(rf"^(.+?)(\d{{2}}(?:{'|'.join(MONTHS)})\d{{2}})(?:FUT|(\d+(?:\.\d+)?)(CE|PE))$")

NSE_INDEX_ALIASES: dict[str, str] = {
    "CNX100EQ": "NIFTY100",
    "HANGSENGBEES-NAV": "HANGSENGBEESNAV",
    "INDIA_VIX": "INDIAVIX",
    "LIQ15": "NIFTY100LIQ15",
    "LIX15MIDCAP": "NIFTYMIDLIQ15",
    "MIDCAP50": "NIFTYMIDCAP50",
    "NIFTY100EQUALWEIGHT": "NIFTY100EQLWGT",
    "NIFTY100LOWVOLATILITY30": "NIFTY100LOWVOL30",
    "NIFTY100WEIGHT": "NIFTY100EQLWGT",
    "NIFTY10YRBMGSEC": "NIFTYGS10YR",
    "NIFTY10YRBMSECCP": "NIFTYGS10YRCLN",
    "NIFTY11-15YRGSEC": "NIFTYGS1115YR",
    "NIFTY15YRABOVEGSEC": "NIFTYGS15YRPLUS",
    "NIFTY200QLTY30": "NIFTY200QUALTY30",
    "NIFTY4-8YRGESC": "NIFTYGS48YR",
    "NIFTY50": "NIFTY",
    "NIFTY8-13YRGSEC": "NIFTYGS813YR",
    "NIFTYALPHA": "NIFTYALPHA50",
    "NIFTYBANK": "BANKNIFTY",
    "NIFTYCDTY": "NIFTYCOMMODITIES",
    "NIFTYCONSUMP": "NIFTYCONSUMPTION",
    "NIFTYDIVOPPT": "NIFTYDIVOPPS50",
    "NIFTYEQWGT": "NIFTY50EQLWGT",
    "NIFTYFIN": "FINNIFTY",
    "NIFTYFINANCIAL": "FINNIFTY",
    "NIFTYFINANCIALSERVICES": "FINNIFTY",
    "NIFTYFINSERV": "FINNIFTY",
    "NIFTYFINSERVICE": "FINNIFTY",
    "NIFTYGSCOMP": "NIFTYGSCOMPSITE",
    "NIFTYINDEX": "NIFTY",
    "NIFTYINFRAST": "NIFTYINFRA",
    "NIFTYINFRASTRUCTURE": "NIFTYINFRA",
    "NIFTYJR": "NIFTYNXT50",
    "NIFTYLOWVOL": "NIFTY100LOWVOL30",
    "NIFTYMCAP50": "NIFTYMIDCAP50",
    "NIFTYMID100FREE": "NIFTYMIDCAP100",
    "NIFTYMID50": "NIFTYMIDCAP50",
    "NIFTYMIDCAP": "NIFTYMIDCAP100",
    "NIFTYMIDCAPSEL": "MIDCPNIFTY",
    "NIFTYMIDCAPSELECT": "MIDCPNIFTY",
    "NIFTYMIDSELECT": "MIDCPNIFTY",
    "NIFTYMIDSMALL400": "NIFTYMIDSML400",
    "NIFTYMIDSMALLCAP400": "NIFTYMIDSML400",
    "NIFTYNEXT50": "NIFTYNXT50",
    "NIFTYPR1X": "NIFTY50PR1XINV",
    "NIFTYPR2X": "NIFTY50PR2XLEV",
    "NIFTYPTBNK": "NIFTYPVTBANK",
    "NIFTYSERVICE": "NIFTYSERVSECTOR",
    "NIFTYSMALL": "NIFTYSMLCAP100",
    "NIFTYSMALLCAP100": "NIFTYSMLCAP100",
    "NIFTYSMALLCAP250": "NIFTYSMLCAP250",
    "NIFTYSMALLCAP50": "NIFTYSMLCAP50",
    "NIFTYTR1X": "NIFTY50TR1XINV",
    "NIFTYTR2X": "NIFTY50TR2XLEV",
    "NIFTYV20": "NIFTY50VALUE20",
    "NSEQ30": "NIFTY100QUALTY30",
}
"""Spellings of NSE's indices, blanks removed, that have another canonical name."""

BSE_INDEX_ALIASES: dict[str, str] = {
    "150MIDCAP": "BSE150MIDCAPINDEX",
    "250LARGEMIDCAP": "BSE250LARGEMIDCAPINDEX",
    "400MIDSMALLCAP": "BSE400MIDSMALLCAPINDEX",
    "AUTO": "BSEAUTO",
    "BSE150MIDCAP": "BSE150MIDCAPINDEX",
    "BSE250LARGEMIDCAP": "BSE250LARGEMIDCAPINDEX",
    "BSE400MIDSMALLCAP": "BSE400MIDSMALLCAPINDEX",
    "BSEBANKEX": "BANKEX",
    "BSECAPGOOD": "BSECAPITALGOODS",
    "BSECARBON": "BSECARBONEX",
    "BSECD": "BSECONSUMERDURABLES",
    "BSECDGS": "BSECONSUMERDURABLES",
    "BSECG": "BSECAPITALGOODS",
    "BSECONSDUR": "BSECONSUMERDURABLES",
    "BSEDOL100": "BSEDOLLEX100",
    "BSEDOL200": "BSEDOLLEX200",
    "BSEDOL30": "BSEDOLLEX30",
    "BSEFMC": "BSEFASTMOVINGCONSUMERGOODS",
    "BSEFMCG": "BSEFASTMOVINGCONSUMERGOODS",
    "BSEGREENX": "BSEGREENEX",
    "BSEHC": "BSEHEALTHCARE",
    "BSEHEALTHC": "BSEHEALTHCARE",
    "BSEINFRA": "BSEINDIAINFRASTRUCTUREINDEX",
    "BSEIT": "BSEINFORMATIONTECHNOLOGY",
    "BSEMIDCAPSELECT": "BSEMIDCAPSELECTINDEX",
    "BSESENSEX": "SENSEX",
    "BSESENSEX50": "SENSEX50",
    "BSESMALLCAPSELECT": "BSESMALLCAPSELECTINDEX",
    "BSESMLCAP": "BSESMALLCAP",
    "CARBON": "BSECARBONEX",
    "CARBONEX": "BSECARBONEX",
    "CD": "BSECONSUMERDURABLES",
    "CG": "BSECAPITALGOODS",
    "CPSE": "BSECPSE",
    "DOL100": "BSEDOLLEX100",
    "DOL200": "BSEDOLLEX200",
    "DOL30": "BSEDOLLEX30",
    "ENERGY": "BSEENERGY",
    "ENERGYINDEX": "BSEENERGY",
    "FIN": "BSEFINANCIALSERVICES",
    "FINSER": "BSEFINANCIALSERVICES",
    "FMC": "BSEFASTMOVINGCONSUMERGOODS",
    "GREENEX": "BSEGREENEX",
    "GREENX": "BSEGREENEX",
    "HC": "BSEHEALTHCARE",
    "INDSTR": "BSEINDUSTRIALS",
    "INFRA": "BSEINDIAINFRASTRUCTUREINDEX",
    "INFRAINDEX": "BSEINDIAINFRASTRUCTUREINDEX",
    "IT": "BSEINFORMATIONTECHNOLOGY",
    "LMI250": "BSE250LARGEMIDCAPINDEX",
    "LRGCAP": "BSELARGECAP",
    "METAL": "BSEMETAL",
    "METALINDEX": "BSEMETAL",
    "MID150": "BSE150MIDCAPINDEX",
    "MIDCAP": "BSEMIDCAP",
    "MIDSEL": "BSEMIDCAPSELECTINDEX",
    "MSL400": "BSE400MIDSMALLCAPINDEX",
    "OILGAS": "BSEOIL&GAS",
    "POWER": "BSEPOWER",
    "PSU": "BSEPSU",
    "REALTY": "BSEREALTY",
    "S&PBSESENSEX": "SENSEX",
    "S&PBSESENSEX50": "SENSEX50",
    "S&PBSESENSEXNEXT50": "BSESENSEXNEXT50",
    "SMEIPO": "BSESMEIPO",
    "SMLCAP": "BSESMALLCAP",
    "SMLSEL": "BSESMALLCAPSELECTINDEX",
    "SNSX50": "SENSEX50",
    "SNXT50": "BSESENSEXNEXT50",
    "SPBSEBANKEX": "BANKEX",
    "SPBSESENSEX": "SENSEX",
    "SPBSESENSEX50": "SENSEX50",
    "TECK": "BSETECK",
    "TELCOM": "BSETELECOM",
}
"""Spellings of BSE's indices; right on rows of BSE indices only, AUTO or METAL are other things elsewhere."""

MCX_INDEX_ALIASES: dict[str, str] = {
    "BASEMETAL": "MCXMETLDEX",
    "BULLION": "MCXBULLDEX",
    "COMPOSITE": "MCXCOMPDEX",
    "COPPER": "MCXCOPRDEX",
    "CRUDEOIL": "MCXCRUDEX",
    "ENERGY": "MCXENERGY",
    "GOLD": "MCXGOLDEX",
    "SILVER": "MCXSILVDEX",
}
"""Spellings of MCX' indices; right on rows of its index segment only, GOLD is a metal elsewhere."""

INDEX_ALIASES: dict[str, dict[str, str]] = {
    "NSE_INDEX": NSE_INDEX_ALIASES,
    "BSE_INDEX": BSE_INDEX_ALIASES,
    "MCX_INDEX": MCX_INDEX_ALIASES,
}


class Derivative(NamedTuple):
    """A derivative's parts; `strike` (rupees) and `right` (CE or PE) are None for a future."""

    base: str
    expiry: dt.date
    strike: float | None = None
    right: str | None = None


def compact(text: str) -> str:
    """
    A broker's spelling in upper case without blanks.

    >>> compact("Nifty 100")
    'NIFTY100'
    """
    return "".join(text.upper().split())


def index_symbol(name: str, exchange: str) -> str:
    """
    The canonical name of an index.

    >>> index_symbol("NIFTY BANK", "NSE_INDEX"), index_symbol("NIFTY MIDCAP 50", "NSE_INDEX")
    ('BANKNIFTY', 'NIFTYMIDCAP50')
    >>> index_symbol("S&P BSE SENSEX", "BSE_INDEX")
    'SENSEX'
    """
    spelling = compact(name).removeprefix("S&P")
    return INDEX_ALIASES.get(exchange, {}).get(spelling, spelling)


def equity_symbol(name: str, series: str = "") -> str:
    """
    The canonical name of a share, bond or fund, the same whichever broker lists it.

    NSE's ordinary series, EQ, is not said; every other one follows a dash, whether the broker writes it into the name
    or beside it. BSE's groups (A, B, X, Z …) are no part of a name: pass none.

    >>> equity_symbol("SBIN-EQ"), equity_symbol("SBIN", "EQ"), equity_symbol("IDEA-BE"), equity_symbol("IDEA", "BE")
    ('SBIN', 'SBIN', 'IDEA-BE', 'IDEA-BE')
    >>> equity_symbol("IDEA-BE", "BE"), equity_symbol("BAJAJ-AUTO", "EQ"), equity_symbol("M&M")
    ('IDEA-BE', 'BAJAJ-AUTO', 'M&M')
    """
    base, series = compact(name), compact(series)
    if series and series != "EQ":
        return base if base.endswith(f"-{series}") else f"{base}-{series}"
    return base.removesuffix("-EQ")


def derivative_symbol(parts: Derivative) -> str:
    """
    >>> derivative_symbol(Derivative("NIFTY", dt.date(2024, 3, 28)))
    'NIFTY28MAR24FUT'
    >>> derivative_symbol(Derivative("VEDL", dt.date(2024, 4, 25), 292.50, "CE"))
    'VEDL25APR24292.5CE'
    """
    day = f"{parts.expiry.day:02d}{MONTHS[parts.expiry.month - 1]}{parts.expiry.year % 100:02d}"
    end = "FUT" if parts.right is None else f"{strike_text(parts.strike or 0.0)}{parts.right}"
    return f"{compact(parts.base)}{day}{end}"


def parse_derivative(symbol: str) -> Derivative | None:
    """
    The parts of a derivative's symbol; None for what is none.

    >>> parse_derivative("NIFTY28MAR2420800CE")
    Derivative(base='NIFTY', expiry=datetime.date(2024, 3, 28), strike=20800.0, right='CE')
    >>> parse_derivative("SBIN") is None
    True
    """
    match = _DERIVATIVE.match(symbol)
    if match is None:
        return None
    base, day, strike, right = match.groups()
    try:
        expiry = dt.date(2000 + int(day[5:]), MONTHS.index(day[2:5]) + 1, int(day[:2]))
    except ValueError:
        return None
    return Derivative(base, expiry, None if strike is None else float(strike), right)


def strike_text(strike: float) -> str:
    """
    >>> strike_text(20800.0), strike_text(187.5), strike_text(82.25)
    ('20800', '187.5', '82.25')
    """
    return f"{strike:.4f}".rstrip("0").rstrip(".")


# ---------------------------------------------------------------------------------------------------- the grammar whole

CASH_EXCHANGES = frozenset({"NSE", "BSE"})
INDEX_EXCHANGES = frozenset({"NSE_INDEX", "BSE_INDEX", "MCX_INDEX", "GLOBAL_INDEX"})
DERIVATIVE_EXCHANGES = frozenset({"NFO", "BFO", "CDS", "BCD", "MCX", "NCDEX", "NCO"})
CRYPTO_EXCHANGES = frozenset({"CRYPTO"})
"""Where everything is traded beside each other: spot, perpetual and dated futures, options."""

LONGEST = 100
"""Characters of a symbol, at most."""

_SERIES = re.compile(r"(.+)-([A-Z0-9]{2})")
_PERPETUAL = re.compile(r"(.+)FUT")
_ENDS = re.compile(r"(.*?)(?:(FUT)|(?<=[0-9.])(CE|PE))")
_PLAIN = re.compile(r"[\w&.-]*\w…?|\w+␣\w+")
_DATED = re.compile(r"(.*)(\d{2})([A-Z]{3})(\d{2})([0-9.]*)")


class Kind(enum.StrEnum):
    """What a symbol names."""

    EQUITY = "EQ"
    INDEX = "INDEX"
    FUTURE = "FUT"
    CALL = "CE"
    PUT = "PE"
    SPOT = "SPOT"
    PERPETUAL = "PERPFUT"


class GrammarError(ValueError):
    """A symbol, or parts of one, that the grammar does not have: one sentence with the part, and what to do."""


class Name(NamedTuple):
    """
    What a symbol says. `series` is NSE's where it is not EQ; `strike` is rupees (the quote currency for crypto).

    Futures and options have an expiry, options a strike; nothing else has.
    """

    exchange: str
    kind: Kind
    base: str
    series: str = ""
    expiry: dt.date | None = None
    strike: float | None = None


def parse(symbol: str, exchange: str) -> Name:
    """
    What a symbol of an exchange names.

    Raises GrammarError.

    >>> parse("IDEA-BE", "NSE")
    Name(exchange='NSE', kind=<Kind.EQUITY: 'EQ'>, base='IDEA', series='BE', expiry=None, strike=None)
    >>> parse("726GS203225APR2497.5PE", "CDS")[2:]
    ('726GS2032', '', datetime.date(2024, 4, 25), 97.5)
    >>> parse("BTCUSDFUT", "CRYPTO").kind, parse("BTC28FEB25FUT", "CRYPTO").kind, parse("BTCUSDT", "CRYPTO").kind
    (<Kind.PERPETUAL: 'PERPFUT'>, <Kind.FUTURE: 'FUT'>, <Kind.SPOT: 'SPOT'>)
    >>> parse("NIFTY31FEB24FUT", "NFO")
    Traceback (most recent call last):
        ...
    brokers.symbols.GrammarError: NIFTY31FEB24FUT on NFO expires on 31FEB24, which is no date; write the last trading
    day as DDMMMYY.
    """
    _check_spelling(symbol, exchange)
    if exchange in INDEX_EXCHANGES:
        _refuse_derivative(symbol, exchange)
        return Name(exchange, Kind.INDEX, symbol)
    if exchange in CASH_EXCHANGES:
        _refuse_derivative(symbol, exchange)
        return _cash(symbol, exchange)
    contract = _contract(symbol, exchange)
    if contract is not None:
        return contract
    if exchange in CRYPTO_EXCHANGES and not _is_dated(symbol):
        perpetual = _PERPETUAL.fullmatch(symbol)
        return Name(exchange, Kind.PERPETUAL, perpetual[1]) if perpetual else Name(exchange, Kind.SPOT, symbol)
    raise GrammarError(_flaw(symbol, exchange))


def symbol_of(name: Name) -> str:
    """
    The symbol of what `parse` reads.

    Raises GrammarError: parts that no symbol can say.

    >>> symbol_of(Name("NFO", Kind.CALL, "VEDL", expiry=dt.date(2024, 4, 25), strike=292.5))
    'VEDL25APR24292.5CE'
    >>> symbol_of(Name("NSE", Kind.EQUITY, "IDEA", "BE")), symbol_of(Name("CRYPTO", Kind.PERPETUAL, "BTCUSD"))
    ('IDEA-BE', 'BTCUSDFUT')
    """
    symbol = _written(name)
    if not name.base:
        raise GrammarError("The name has no base; give the share, index or underlying it is of.")
    read = parse(symbol, name.exchange)
    for field, meant, understood in zip(Name._fields, name, read, strict=True):
        if meant != understood:
            raise GrammarError(
                f"{_shown(symbol)} on {name.exchange} would be read with {field} {_shown(str(understood))} instead of "
                f"{_shown(str(meant))}; give parts that the grammar can say."
            )
    return symbol


def _written(name: Name) -> str:
    if name.kind in (Kind.EQUITY, Kind.INDEX, Kind.SPOT):
        return f"{name.base}-{name.series}" if name.series else name.base
    if name.kind is Kind.PERPETUAL:
        return f"{name.base}FUT"
    if name.expiry is None:
        raise GrammarError(f"A {name.kind} has to expire; give its last trading day.")
    if name.kind is Kind.FUTURE:
        return f"{name.base}{date_text(name.expiry)}FUT"
    if name.strike is None:
        raise GrammarError(f"A {name.kind} needs a strike; give it in rupees.")
    return f"{name.base}{date_text(name.expiry)}{strike_text(name.strike)}{name.kind}"


def date_text(date: dt.date) -> str:
    """
    A date as symbols write it.

    >>> date_text(dt.date(2024, 3, 28))
    '28MAR24'
    """
    return f"{date.day:02d}{MONTHS[date.month - 1]}{date.year % 100:02d}"


def _check_spelling(symbol: str, exchange: str) -> None:
    shown = _shown(symbol)
    if exchange not in CASH_EXCHANGES | INDEX_EXCHANGES | DERIVATIVE_EXCHANGES | CRYPTO_EXCHANGES:
        known = ", ".join(sorted(CASH_EXCHANGES | INDEX_EXCHANGES | DERIVATIVE_EXCHANGES | CRYPTO_EXCHANGES))
        raise GrammarError(f"There is no exchange {_shown(exchange)}; use one of {known}.")
    if not symbol:
        raise GrammarError(f"The symbol on {exchange} is empty; write one such as SBIN.")
    if any(character.isspace() for character in symbol):
        raise GrammarError(f"The symbol {shown} holds a blank; write it without.")
    if symbol != symbol.upper():
        raise GrammarError(f"The symbol {shown} holds lower case; write {_shown(symbol.upper())}.")
    if not all("!" <= character <= "~" for character in symbol):
        raise GrammarError(f"The symbol {shown} holds a character that is not plain ASCII; write it without.")
    if len(symbol) > LONGEST:
        raise GrammarError(f"The symbol {shown} is longer than {LONGEST} characters; write the exchange's own name.")


def _cash(symbol: str, exchange: str) -> Name:
    match = _SERIES.fullmatch(symbol) if exchange == "NSE" else None
    if match is None:
        return Name(exchange, Kind.EQUITY, symbol)
    base, series = match.groups()
    if series == "EQ":
        raise GrammarError(f"{_shown(symbol)} on NSE says the series EQ, which is left out; write {_shown(base)}.")
    return Name(exchange, Kind.EQUITY, base, series)


def _refuse_derivative(symbol: str, exchange: str) -> None:
    contract = parse_derivative(symbol)
    if contract is not None:
        what = "a future" if contract.right is None else "an option"
        has = "indices" if exchange in INDEX_EXCHANGES else "shares"
        other = {"BSE": "BFO", "MCX": "MCX"}.get(exchange[:3], "NFO")
        raise GrammarError(
            f"{_shown(symbol)} is {what}, and {exchange} has {has} only; ask for it on an exchange of derivatives such "
            f"as {other}."
        )


def _contract(symbol: str, exchange: str) -> Name | None:
    """The future or option; None where it is none, or one that is not spelled as it must be."""
    match = _DERIVATIVE.fullmatch(symbol)
    if match is None:
        return None
    base, day, strike, right = match.groups()
    expiry = _date(day)
    if expiry is None or (strike is not None and not _is_strike(strike)):
        return None
    return Name(exchange, Kind(right or "FUT"), base, "", expiry, None if strike is None else float(strike))


def _is_dated(symbol: str) -> bool:
    """Whether it was meant to be a contract with an expiry."""
    ends = _ENDS.fullmatch(symbol)
    return ends is not None and _DATED.fullmatch(ends[1]) is not None


@lru_cache(maxsize=4096)
def _date(text: str) -> dt.date | None:
    try:
        return dt.date(2000 + int(text[5:]), MONTHS.index(text[2:5]) + 1, int(text[:2]))
    except ValueError:
        return None


def _is_strike(text: str) -> bool:
    return float(text) > 0 and strike_text(float(text)) == text


def _flaw(symbol: str, exchange: str) -> str:
    """What is wrong with a symbol that should be a future or an option, in one sentence."""
    subject = f"{_shown(symbol)} on {exchange}"
    ends = _ENDS.fullmatch(symbol)
    if ends is None:
        return (
            f"{subject} ends neither with FUT nor with a strike and CE or PE; write a contract such as "
            "NIFTY28MAR24FUT or NIFTY28MAR2420800CE."
        )
    rest, end = ends[1], ends[2] or ends[3]
    dated = _DATED.fullmatch(rest)
    if dated is None:
        return f"{subject} has no expiry; write the last trading day as DDMMMYY before the {_what(end)}, as in 28MAR24."
    base, day, month, year, strike = dated.groups()
    date = f"{day}{month}{year}"
    if not base:
        return f"{subject} has nothing before its expiry; begin with the underlying, such as NIFTY."
    if month not in MONTHS:
        return f"{subject} expires in {month}, which is no month; use one of {', '.join(MONTHS)}."
    if _date(date) is None:
        return f"{subject} expires on {date}, which is no date; write the last trading day as DDMMMYY."
    return f"{subject} {_strike_flaw(strike, end)}"


def _what(end: str) -> str:
    return "FUT" if end == "FUT" else f"strike and {end}"


def _strike_flaw(strike: str, end: str) -> str:
    if end == "FUT":
        return f"has {strike} between its expiry and FUT; a future has no strike, so leave it out or end with CE or PE."
    if not strike:
        return f"has no strike; write it between the expiry and {end}, as in 20800{end}."
    try:
        value = float(strike)
    except ValueError:
        return f"has the strike {strike}, which is no number; write it as 187.5 or 20800."
    if value <= 0:
        return f"has the strike {strike}; write one above 0."
    return f"has the strike {strike}; write it as {strike_text(value)}, without needless zeros and to four decimals."


def _shown(text: str) -> str:
    """
    A user's text inside a sentence: short, on one line, in quotes where it looks like no symbol.

    >>> print(_shown("SBIN"), _shown("a b\\n."), _shown(""))
    SBIN “a␣b␣.” “”
    """
    plain = "".join("␣" if each.isspace() else each if each.isprintable() else "?" for each in text[:41])
    if len(plain) > 40:
        plain = f"{plain[:39]}…"
    return plain if _PLAIN.fullmatch(plain) else f"“{plain}”"
