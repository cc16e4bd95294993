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
    "NIFTY50": "NIFTY",
    "NIFTYBANK": "BANKNIFTY",
    "NIFTYFINSERVICE": "FINNIFTY",
    "NIFTYNEXT50": "NIFTYNXT50",
    "NIFTYMIDSELECT": "MIDCPNIFTY",
}
"""Spellings of NSE's indices, blanks removed, that have another canonical name."""

BSE_INDEX_ALIASES: dict[str, str] = {
    "SNSX50": "SENSEX50",
    "SNXT50": "BSESENSEXNEXT50",
    "MID150": "BSE150MIDCAPINDEX",
    "LMI250": "BSE250LARGEMIDCAPINDEX",
    "MSL400": "BSE400MIDSMALLCAPINDEX",
    "AUTO": "BSEAUTO",
    "BSECG": "BSECAPITALGOODS",
    "CARBON": "BSECARBONEX",
    "BSECD": "BSECONSUMERDURABLES",
    "CPSE": "BSECPSE",
    "DOL100": "BSEDOLLEX100",
    "DOL200": "BSEDOLLEX200",
    "DOL30": "BSEDOLLEX30",
    "ENERGY": "BSEENERGY",
    "BSEFMC": "BSEFASTMOVINGCONSUMERGOODS",
    "FINSER": "BSEFINANCIALSERVICES",
    "GREENX": "BSEGREENEX",
    "BSEHC": "BSEHEALTHCARE",
    "INFRA": "BSEINDIAINFRASTRUCTUREINDEX",
    "INDSTR": "BSEINDUSTRIALS",
    "BSEIT": "BSEINFORMATIONTECHNOLOGY",
    "LRGCAP": "BSELARGECAP",
    "METAL": "BSEMETAL",
    "MIDCAP": "BSEMIDCAP",
    "MIDSEL": "BSEMIDCAPSELECTINDEX",
    "OILGAS": "BSEOIL&GAS",
    "POWER": "BSEPOWER",
    "REALTY": "BSEREALTY",
    "SMLCAP": "BSESMALLCAP",
    "SMLSEL": "BSESMALLCAPSELECTINDEX",
    "SMEIPO": "BSESMEIPO",
    "TECK": "BSETECK",
    "TELCOM": "BSETELECOM",
}
"""Spellings of BSE's indices; right on rows of BSE indices only, AUTO or METAL are other things elsewhere."""

INDEX_ALIASES: dict[str, dict[str, str]] = {"NSE_INDEX": NSE_INDEX_ALIASES, "BSE_INDEX": BSE_INDEX_ALIASES}


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
    """
    spelling = compact(name)
    return INDEX_ALIASES.get(exchange, {}).get(spelling, spelling)


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
