"""
The canonical symbol grammar, the same for every broker. Pure.

    equity      BASE                        SBIN, M&M, BAJAJ-AUTO, IDEA-BE
    index       NAME                        NIFTY, SENSEX
    future      BASE DDMMMYY FUT            NIFTY28MAR24FUT
    option      BASE DDMMMYY STRIKE CE|PE   NIFTY28MAR2420800CE, VEDL25APR24292.5CE

Upper case, no blanks. The date is the last trading day. A strike has no trailing zeros.
"""

from __future__ import annotations

import datetime as dt
import re
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
