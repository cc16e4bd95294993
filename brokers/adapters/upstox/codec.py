"""
The Market Data Feed V3: JSON requests out in binary frames, protobuf in, errors as JSON. Pure.

Source: https://upstox.com/developer/api-documentation/v3/get-market-data-feed; the schema is in `brokers/schemas/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import msgspec
from google.protobuf.message import DecodeError as ProtobufError

from brokers.contract import DecodeError, ErrorKind, Event, Frame, MarketKind, Notice, NoticeKind, Update
from brokers.schemas import upstox_pb2 as schema
from marketdata.ticks import Depth, Level, Mode, Segment, Token

SEGMENTS: dict[str, Segment] = {
    "NSE_EQ": Segment.NSE,
    "NSE_FO": Segment.NFO,
    "NCD_FO": Segment.CDS,
    "BCD_FO": Segment.BCD,
    "BSE_EQ": Segment.BSE,
    "BSE_FO": Segment.BFO,
    "MCX_FO": Segment.MCX,
    "NSE_COM": Segment.NCO,
    "NSE_INDEX": Segment.NSE_INDEX,
    "BSE_INDEX": Segment.BSE_INDEX,
    "MCX_INDEX": Segment.MCX_INDEX,
    "GLOBAL_INDEX": Segment.GLOBAL_INDEX,
    "GLOBAL_INDICATOR": Segment.GLOBAL_INDEX,
}
"""What stands before the bar in an instrument key."""

MARKET_KINDS: dict[int, MarketKind] = {
    schema.PRE_OPEN_START: MarketKind.PRE_OPEN,
    schema.PRE_OPEN_END: MarketKind.PRE_OPEN,
    schema.NORMAL_OPEN: MarketKind.CONTINUOUS,
    schema.NORMAL_CLOSE: MarketKind.CLOSED,
    schema.CLOSING_START: MarketKind.POST_CLOSE,
    schema.CLOSING_END: MarketKind.CLOSED,
}
"""
What a segment is doing after Upstox's word, which marks the beginning or the end of a session.

After PRE_OPEN_END (about 09:08) no orders are taken, and nothing is traded until NORMAL_OPEN at 09:15: the exchanges
count these minutes as pre-open, so do we, also after a halt, which ends with a pre-open session of its own. "Closed"
would tell people that the day is over. The closing phase is the session at the closing price, after NORMAL_CLOSE. The
closing auction is told in a map of its own (`casMarketStatus`) in words that no document lists: they are shown, and
nothing is concluded. A state that is added later says nothing.

Source: https://upstox.com/developer/api-documentation/appendix/market-status.
"""

WITH_OPEN_INTEREST = frozenset({Segment.NFO, Segment.BFO, Segment.CDS, Segment.BCD, Segment.MCX, Segment.NCO})

MODE_WORDS: dict[Mode, str] = {Mode.LTP: "ltpc", Mode.QUOTE: "full", Mode.DEPTH: "full", Mode.DEPTH30: "full_d30"}

ERROR_CODES: dict[str, ErrorKind] = {
    "UDAPI100050": ErrorKind.AUTH,  # invalid token
    "UDAPI100016": ErrorKind.AUTH,  # invalid credentials
    "UDAPI100067": ErrorKind.ENTITLEMENT,  # not permitted with an extended token
    "UDAPI100073": ErrorKind.ENTITLEMENT,  # the app is inactive
    "UDAPI10005": ErrorKind.LIMIT,  # too many requests
    "UDAPI100500": ErrorKind.NETWORK,  # something went wrong at the broker
}
"""Codes of https://upstox.com/developer/api-documentation/error-codes that say what to do."""

_WORDS: tuple[tuple[str, ErrorKind], ...] = (
    ("limit", ErrorKind.LIMIT),
    ("exceed", ErrorKind.LIMIT),
    ("too many", ErrorKind.LIMIT),
    ("plus", ErrorKind.ENTITLEMENT),
    ("permi", ErrorKind.ENTITLEMENT),
    ("entitle", ErrorKind.ENTITLEMENT),
    ("not allowed", ErrorKind.ENTITLEMENT),
)
"""What a refusal without a known code is about, by words in its text."""

_STATUSES: dict[int, ErrorKind] = {401: ErrorKind.AUTH, 403: ErrorKind.LIMIT, 429: ErrorKind.LIMIT}
"""A 403 is documented nowhere: too many connections, or a right that lacks. Taken for the former, it is tried again."""

_known: dict[str, tuple[Token, bool]] = {}
"""Token, and whether there is open interest, by instrument key."""


def encode_request(number: int, method: str, keys: Sequence[str], mode: str = "") -> bytes:
    """
    A request; the server answers none that comes in a text frame.

    >>> encode_request(1, "sub", ["NSE_INDEX|Nifty 50"], "full")
    b'{"guid":"1","method":"sub","data":{"mode":"full","instrumentKeys":["NSE_INDEX|Nifty 50"]}}'
    >>> encode_request(2, "unsub", ["NSE_INDEX|Nifty 50"])
    b'{"guid":"2","method":"unsub","data":{"instrumentKeys":["NSE_INDEX|Nifty 50"]}}'
    """
    data = {"mode": mode} if mode else {}
    return msgspec.json.encode({"guid": str(number), "method": method, "data": data | {"instrumentKeys": list(keys)}})


def decode(frame: Frame) -> list[Event]:
    """
    The events in one frame: the state of the market's segments, one update an instrument in the order of their keys,
    or an error.

    A binary frame is one FeedResponse. Prices are rupees, as the wire has them, quantities units, instants Unix ms UTC;
    `exchange_ms` is the server's time of the whole message. proto3 leaves out zeros, so a number that is not there is
    0 or not said: prices are 0 then, a volume or a last quantity None, open interest 0 where there is such a thing.
    A part that is not there (last price, book, candles) is no news: its fields are None. The previous close is
    `cp`; the close of the day's candle is the last price.

    Raises DecodeError: bytes that are no FeedResponse; an unknown segment or a number that is none costs its own
    instrument only, the others are in `events`.

    Source: https://upstox.com/developer/api-documentation/v3/get-market-data-feed.

    >>> frame = "080112370a124e53455f494e4445587c4e696674792035301221121d121b0a190900000000005cd74010b09bd5ecda32"
    >>> [update] = decode(bytes.fromhex(frame + "2100000000202ed740200118c9a2d5ecda32"))
    >>> update.token.number, update.ltp, update.close, update.last_trade_ms, update.volume
    ('NSE_INDEX|Nifty 50', 23920.0, 23736.5, 1742373998000, None)
    """
    if isinstance(frame, str) or frame[:1] == b"{":
        return _decode_text(frame)
    try:
        response = schema.FeedResponse.FromString(frame)
    except ProtobufError as error:
        raise DecodeError(f"Upstox frame of {len(frame)} bytes is no FeedResponse: {error}.") from None
    events: list[Event] = []
    if response.HasField("marketInfo"):
        info = response.marketInfo
        events.append(Notice(kind=NoticeKind.MARKET_STATUS, text=_status_text(info), markets=_markets(info)))
    exchange_ms = response.currentTs or None
    damage = ""
    feeds = response.feeds
    for key in sorted(feeds):  # by itself a map's order differs from one process to the next
        feed = feeds[key]
        try:
            token, has_oi = _known.get(key) or _learn(key)
            update = _READERS[feed.WhichOneof("FeedUnion")](token, has_oi, feed, exchange_ms)
        except (ValueError, OverflowError) as error:
            damage = f"{key[:80]!r}: {error}"
            continue
        if update is not None:
            events.append(update)
    if damage:
        raise DecodeError(f"Upstox frame of {len(frame)} bytes: {damage}.", events)
    return events


def _learn(key: str) -> tuple[Token, bool]:
    """A key's token, remembered: a feed repeats the same few thousand. Raises ValueError: unknown segment."""
    name = key.partition("|")[0]
    segment = SEGMENTS.get(name)
    if segment is None:
        raise ValueError(f"the segment {name[:40]!r} is unknown")
    found = Token(segment, key), segment in WITH_OPEN_INTEREST
    if len(_known) < 200_000:
        _known[key] = found
    return found


def _read_ltpc(token: Token, has_oi: bool, feed: schema.Feed, exchange_ms: int | None) -> Update:
    last = feed.ltpc
    ltp, close = last.ltp, last.cp
    _check(ltp + close)
    return Update(
        token=token,
        ltp=ltp,
        ltq=last.ltq or None,
        close=close,
        exchange_ms=exchange_ms,
        last_trade_ms=last.ltt or None,
        mode=Mode.LTP,
    )


def _read_full(token: Token, has_oi: bool, feed: schema.Feed, exchange_ms: int | None) -> Update | None:
    full = feed.fullFeed
    mode = Mode.DEPTH30 if feed.requestMode == schema.full_d30 else Mode.DEPTH
    match full.WhichOneof("FullFeedUnion"):
        case "marketFF":
            return _read_market(token, has_oi, full.marketFF, mode, exchange_ms)
        case "indexFF":
            return _read_index(token, full.indexFF, mode, exchange_ms)
        case _:
            return None


def _read_market(
    token: Token, has_oi: bool, market: schema.MarketFullFeed, mode: Mode, exchange_ms: int | None
) -> Update:
    """Without its last price it does not say of what kind it is: with a book it would pass for a book alone."""
    has_last, last = market.HasField("ltpc"), market.ltpc
    ltp, close, average = last.ltp, last.cp, market.atp
    _check(ltp + close + average)
    open_, high, low = _day(market.marketOHLC.ohlc)
    return Update(
        token=token,
        ltp=ltp if has_last else None,
        ltq=last.ltq or None,
        open=open_,
        high=high,
        low=low,
        close=close if has_last else None,
        volume=market.vtt or None,
        average_price=average,
        oi=int(market.oi) if has_oi else None,
        total_buy_quantity=int(market.tbq),
        total_sell_quantity=int(market.tsq),
        depth=_depth(market.marketLevel.bidAskQuote) if market.HasField("marketLevel") else None,
        exchange_ms=exchange_ms,
        last_trade_ms=last.ltt or None,
        mode=mode if has_last else None,
    )


def _read_index(token: Token, index: schema.IndexFullFeed, mode: Mode, exchange_ms: int | None) -> Update:
    has_last, last = index.HasField("ltpc"), index.ltpc
    _check(last.ltp + last.cp)
    open_, high, low = _day(index.marketOHLC.ohlc)
    return Update(
        token=token,
        ltp=last.ltp if has_last else None,
        open=open_,
        high=high,
        low=low,
        close=last.cp if has_last else None,
        exchange_ms=exchange_ms,
        last_trade_ms=last.ltt or None,
        mode=mode if has_last else None,
    )


def _read_first_level(token: Token, has_oi: bool, feed: schema.Feed, exchange_ms: int | None) -> Update:
    """Mode option_greeks: more than ltpc has, but no candles, so it is of the kind LTP."""
    first = feed.firstLevelWithGreeks
    has_last, last = first.HasField("ltpc"), first.ltpc
    _check(last.ltp + last.cp)
    return Update(
        token=token,
        ltp=last.ltp if has_last else None,
        ltq=last.ltq or None,
        close=last.cp if has_last else None,
        volume=first.vtt or None,
        oi=int(first.oi) if has_oi else None,
        depth=_depth([first.firstDepth]) if first.HasField("firstDepth") else None,
        exchange_ms=exchange_ms,
        last_trade_ms=last.ltt or None,
        mode=Mode.LTP if has_last else None,
    )


def _read_nothing(token: Token, has_oi: bool, feed: schema.Feed, exchange_ms: int | None) -> None:
    """A kind of feed added later."""


_READERS: dict[str | None, Callable[[Token, bool, schema.Feed, int | None], Update | None]] = {
    "fullFeed": _read_full,
    "ltpc": _read_ltpc,
    "firstLevelWithGreeks": _read_first_level,
    None: _read_nothing,
}


def _depth(quotes: Sequence[schema.Quote]) -> Depth:
    """Both sides, as many rows as the wire has; one of zeros is no order. Nobody tells the number of orders."""
    buy, sell = [], []
    total = 0.0
    for quote in quotes:
        bid, ask = quote.bidP, quote.askP
        total += bid + ask
        buy.append(Level(bid, quote.bidQ, 0))
        sell.append(Level(ask, quote.askQ, 0))
    _check(total)
    return Depth(tuple(buy), tuple(sell))


def _day(candles: Iterable[schema.OHLC]) -> tuple[float | None, float | None, float | None]:
    """Open, high and low of the day's candle, wherever it stands among them."""
    for candle in candles:
        if candle.interval == "1d":
            open_, high, low = candle.open, candle.high, candle.low
            _check(open_ + high + low)
            return open_, high, low
    return None, None, None


def _check(total: float) -> None:
    """Raises ValueError: one of the prices in a sum is none."""
    if not isfinite(total):
        raise ValueError("a price is no number")


def _status_text(info: schema.MarketInfo) -> str:
    """The states of all segments, by name: "BSE_EQ NORMAL_OPEN, NSE_EQ NORMAL_OPEN"."""
    parts = [f"{name} {_status(value)}" for name, value in sorted(info.segmentStatus.items())]
    for title, states in (("closing auction", info.casMarketStatus), ("pre-open", info.preOpenSessionStatus)):
        parts += [f"{name} {title} {state.status}" for name, state in sorted(states.items())]
    return ", ".join(parts)


def _markets(info: schema.MarketInfo) -> dict[Segment, MarketKind]:
    """What the segments we know are doing, as far as Upstox's words for it are known."""
    known = ((SEGMENTS.get(name), MARKET_KINDS.get(value)) for name, value in sorted(info.segmentStatus.items()))
    return {segment: kind for segment, kind in known if segment is not None and kind is not None}


def _status(value: int) -> str:
    known = schema.MarketStatus.DESCRIPTOR.values_by_number.get(value)
    return f"status {value}" if known is None else known.name


# --------------------------------------------------------------------------------------------------------------- errors


def refusal(status: int, body: bytes) -> tuple[ErrorKind, str]:
    """
    Why the broker answered an HTTP request or an upgrade with this status, and its words.

    >>> refusal(401, b'{"status":"error","errors":[{"errorCode":"UDAPI100050","message":"Invalid token"}]}')
    (<ErrorKind.AUTH: 'auth'>, 'UDAPI100050 Invalid token')
    >>> refusal(503, b"<html>")
    (<ErrorKind.NETWORK: 'network'>, 'HTTP 503')
    """
    code, text = _error(_object(body))
    kind = ERROR_CODES.get(code)
    if kind is None and status != 401:
        kind = _kind_by_words(text)
    if kind is None:
        kind = _STATUSES.get(status, ErrorKind.NETWORK if status >= 500 else ErrorKind.PROTOCOL)
    return kind, f"{code} {text}".strip() or f"HTTP {status}"


def _decode_text(frame: Frame) -> list[Event]:
    message = _object(frame)
    if not message:
        raise DecodeError("Upstox text frame is no JSON object.")
    code, text = _error(message)
    if not (code or text) and message.get("status") not in ("failed", "error"):
        return [Notice(kind=NoticeKind.MESSAGE, text=str(message.get("message", "")))]
    kind = ERROR_CODES.get(code) or _kind_by_words(text) or ErrorKind.PROTOCOL
    words = f"{code} {text}".strip() or f"{message.get('method', 'a request')} failed"
    return [Notice(kind=NoticeKind.ERROR, error=kind, text=words, fatal=kind is ErrorKind.AUTH)]


def _object(frame: Frame) -> Mapping[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        found = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _error(message: Mapping[str, Any]) -> tuple[str, str]:
    """Code and text of `{"errors": [{"errorCode", "message"}]}` (REST) or `{"error": text}` (socket); "" for none."""
    found = message.get("error")
    errors = message.get("errors")
    if isinstance(errors, list) and errors:
        found = errors[0]
    if not isinstance(found, dict):
        return "", "" if found is None else str(found)
    code = found.get("errorCode") or found.get("error_code") or found.get("code") or ""
    return str(code), str(found.get("message") or "")


def _kind_by_words(text: str) -> ErrorKind | None:
    lower = text.lower()
    return next((kind for word, kind in _WORDS if word in lower), None)
