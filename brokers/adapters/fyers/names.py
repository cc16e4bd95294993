"""
What an instrument is called: the token we keep, from it the topics of one socket and the ticker of the other. Pure.

A token's number is `<market>|<code>|<ticker>`, as `nse_cm|3045|NSE:SBIN-EQ`. Market and code (of an index its name)
are the topic's on the data socket, the ticker is what the tick-by-tick socket wants. All come from the instrument
master: the fytoken there is what the broker's symbol-token call would answer, so that call is not made.
"""

from __future__ import annotations

from marketdata.ticks import Segment, Token

SCRIP, INDEX, BOOK = "sf", "if", "dp"
"""Kinds of topic: an instrument's prices, an index, five levels of the book."""

SEGMENTS: dict[str, Segment] = {
    "nse_cm": Segment.NSE,
    "nse_fo": Segment.NFO,
    "cde_fo": Segment.CDS,
    "nse_com": Segment.NCO,
    "mcx_fo": Segment.MCX,
    "bse_cm": Segment.BSE,
    "bse_fo": Segment.BFO,
    "bcs_fo": Segment.BCD,
}
INDEX_SEGMENTS: dict[str, Segment] = {"nse_cm": Segment.NSE_INDEX, "bse_cm": Segment.BSE_INDEX}

MARKETS: dict[str, str] = {
    "1010": "nse_cm",
    "1011": "nse_fo",
    "1012": "cde_fo",
    "1020": "nse_com",
    "1120": "mcx_fo",
    "1210": "bse_cm",
    "1211": "bse_fo",
    "1212": "bcs_fo",
}
"""A fytoken's first four characters; the next six are a date, the rest is the exchange's number."""

_INDICES = frozenset(INDEX_SEGMENTS.values())


def split_fytoken(fytoken: str) -> tuple[str, str]:
    """
    Market and code of a fytoken.

    Raises ValueError: no such market, or no code.

    >>> split_fytoken("101124032853590")
    ('nse_fo', '53590')
    """
    market, code = MARKETS.get(fytoken[:4], ""), fytoken[10:]
    if not market or not code:
        raise ValueError(f"the fytoken {fytoken!r} is of no known market")
    return market, code


def scrip_token(fytoken: str, ticker: str) -> Token:
    """
    The token of what is no index.

    Raises ValueError: see `split_fytoken`.

    >>> scrip_token("10100000003045", "NSE:SBIN-EQ")
    Token(segment=<Segment.NSE: 'NSE'>, number='nse_cm|3045|NSE:SBIN-EQ')
    """
    market, code = split_fytoken(fytoken)
    return Token(SEGMENTS[market], f"{market}|{code}|{ticker}")


def topics(token: Token) -> tuple[str, str]:
    """
    The topics of an instrument's prices and of its book; an index has no book ("").

    >>> topics(Token(Segment.NSE, "nse_cm|3045|NSE:SBIN-EQ"))
    ('sf|nse_cm|3045', 'dp|nse_cm|3045')
    >>> topics(Token(Segment.NSE_INDEX, "nse_cm|Nifty 50|NSE:NIFTY50-INDEX"))
    ('if|nse_cm|Nifty 50', '')
    """
    subject = token.number.rpartition("|")[0]
    return (f"{INDEX}|{subject}", "") if token.segment in _INDICES else (f"{SCRIP}|{subject}", f"{BOOK}|{subject}")


def ticker(token: Token) -> str:
    """
    >>> ticker(Token(Segment.NSE, "nse_cm|3045|NSE:SBIN-EQ"))
    'NSE:SBIN-EQ'
    """
    return token.number.rpartition("|")[2]


def stranger(kind: str, subject: str) -> Token | None:
    """
    A token for a topic that nobody here subscribed: all that the topic says. None: of no known market.

    >>> stranger("sf", "nse_cm|3045")
    Token(segment=<Segment.NSE: 'NSE'>, number='nse_cm|3045|')
    """
    segment = (INDEX_SEGMENTS if kind == INDEX else SEGMENTS).get(subject.partition("|")[0])
    return None if segment is None else Token(segment, f"{subject}|")
