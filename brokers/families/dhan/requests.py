"""
What the client says on Dhan's sockets: JSON texts; and the segments as requests and packets name them. Pure.

Source: https://dhanhq.co/docs/v2/annexure/ (Exchange Segment, Feed Request Code).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from brokers.contract import ErrorKind, Notice, NoticeKind
from marketdata.ticks import Segment, Token

SEGMENTS: dict[int, Segment] = {
    0: Segment.INDEX,
    1: Segment.NSE,
    2: Segment.NFO,
    3: Segment.CDS,
    4: Segment.BSE,
    5: Segment.MCX,
    7: Segment.BCD,
    8: Segment.BFO,
}
"""A packet's exchange segment. 0 covers the indices of both exchanges; the master tells which."""

SEGMENT_WORDS: dict[Segment, str] = {
    Segment.INDEX: "IDX_I",
    Segment.NSE: "NSE_EQ",
    Segment.NFO: "NSE_FNO",
    Segment.CDS: "NSE_CURRENCY",
    Segment.BSE: "BSE_EQ",
    Segment.MCX: "MCX_COMM",
    Segment.BCD: "BSE_CURRENCY",
    Segment.BFO: "BSE_FNO",
}
"""The same in requests and in the instrument master's rules."""

TICKER, QUOTE, FULL, DEPTH = 15, 17, 21, 23
"""Request codes that subscribe."""

OFF: dict[int, int] = {TICKER: 16, QUOTE: 18, FULL: 22, DEPTH: 25}
"""The codes that unsubscribe."""

REASONS: dict[int, tuple[ErrorKind, str]] = {
    800: (ErrorKind.NETWORK, "internal server error"),
    804: (ErrorKind.LIMIT, "more instruments than a connection may have"),
    805: (ErrorKind.LIMIT, "more connections than the user may have; this was the oldest"),
    806: (ErrorKind.ENTITLEMENT, "the account has no Data API plan"),
    807: (ErrorKind.AUTH, "the access token has expired"),
    808: (ErrorKind.AUTH, "the client ID or the access token is wrong"),
    809: (ErrorKind.AUTH, "the access token is invalid"),
    810: (ErrorKind.AUTH, "the client ID is invalid"),
    811: (ErrorKind.PROTOCOL, "invalid expiry date"),
    812: (ErrorKind.PROTOCOL, "invalid date format"),
    813: (ErrorKind.PROTOCOL, "invalid security id"),
    814: (ErrorKind.PROTOCOL, "invalid request"),
}
"""Why the server disconnects, as in the annexure (Data API Error); the official client prints 808 and 809 otherwise."""


def encode(code: int, tokens: Sequence[Token]) -> str:
    """
    A request for a list of instruments.

    >>> encode(QUOTE, [Token(Segment.NSE, "1333")])
    '{"RequestCode":17,"InstrumentCount":1,"InstrumentList":[{"ExchangeSegment":"NSE_EQ","SecurityId":"1333"}]}'
    """
    return _text({"RequestCode": code, "InstrumentCount": len(tokens), "InstrumentList": [_named(t) for t in tokens]})


def encode_one(code: int, token: Token) -> str:
    """
    A request for one instrument, as the socket for 200 levels has it.

    >>> encode_one(DEPTH, Token(Segment.NFO, "53590"))
    '{"RequestCode":23,"ExchangeSegment":"NSE_FNO","SecurityId":"53590"}'
    """
    return _text({"RequestCode": code, **_named(token)})


def disconnected(reason: int) -> Notice:
    """
    A disconnect packet's reason.

    >>> notice = disconnected(807)
    >>> notice.error, notice.fatal, notice.text
    (<ErrorKind.AUTH: 'auth'>, True, 'Dhan disconnects: the access token has expired (807)')
    """
    kind, text = REASONS.get(reason, (ErrorKind.PROTOCOL, "a reason that is not documented"))
    return Notice(kind=NoticeKind.ERROR, error=kind, fatal=True, text=f"Dhan disconnects: {text} ({reason})")


def _named(token: Token) -> dict[str, str]:
    return {"ExchangeSegment": SEGMENT_WORDS[token.segment], "SecurityId": token.number}


def _text(message: object) -> str:
    return json.dumps(message, separators=(",", ":"))
