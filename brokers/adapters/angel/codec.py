"""
SmartStream's frames: JSON requests out, little-endian binary packets and texts in. Pure.

Source: https://smartapi.angelbroking.com/docs/WebSocket2; offsets and divisors also in angel-one/smartapi-python,
smartWebSocketV2.py. Where these two differ the documentation is followed: the instant of a book of 20 levels is at
byte 27, not 35. That the last trade's instant is in seconds stands in no document; all published captures show it.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from brokers.contract import DecodeError, ErrorKind, Notice, NoticeKind, Update
from marketdata.ticks import Depth, Level, Mode, Segment, Token

SEGMENTS: dict[int, Segment] = {
    1: Segment.NSE,
    2: Segment.NFO,
    3: Segment.BSE,
    4: Segment.BFO,
    5: Segment.MCX,
    7: Segment.NCDEX,
    13: Segment.CDS,
}
"""The wire's exchange types. An index has that of its exchange, and a number that no share has."""

EXCHANGE_TYPES: dict[Segment, int] = {segment: number for number, segment in SEGMENTS.items()}

DIVISORS: dict[Segment, float] = {Segment.CDS: 10_000_000.0}
"""By what a segment's integer prices are divided; 100 elsewhere."""

HEARTBEAT = "ping"
ANSWER = "pong"


class WireMode(enum.IntEnum):
    """What can be subscribed; a packet's first byte."""

    LTP = 1
    QUOTE = 2
    SNAP_QUOTE = 3
    DEPTH_20 = 4


class Kind(enum.Enum):
    """What an instrument's packets hold in earnest: of an index all but prices is 0, of a share the interest is not."""

    INDEX = enum.auto()
    CASH = enum.auto()
    CONTRACT = enum.auto()


# Exchange time, last price | last quantity, average, volume, total buy and sell quantity, open, high, low, close |
# last trade's time, open interest, its change (a dummy); ten rows of side, quantity, price, orders; both circuits,
# the year's high and low. A book of 20 levels: exchange time, a dummy; 20 and 20 rows of quantity, price, orders.
_LTP = struct.Struct("<35xqq")
_QUOTE = struct.Struct("<35xqqqqqddqqqq")
_SNAP_QUOTE = struct.Struct("<35xqqqqqddqqqqqq8x" + "HqqH" * 10 + "qq16x")
_DEPTH_20 = struct.Struct("<27xq8x" + "iih" * 40)

_MOST = 2.0**53
"""A double holds every whole number up to this one."""
_LATEST_MS = 4_102_444_800_000
"""The year 2100: an instant that is not before it is none."""

_known: dict[bytes, tuple[Token, float, Kind]] = {}


def is_index(number: str) -> bool:
    """
    Whether a token's number is an index's: they are 999 and five digits, on every exchange.

    >>> is_index("99926000"), is_index("3045")
    (True, False)
    """
    return len(number) == 8 and number.startswith("999")


def encode(correlation_id: str, *, subscribe: bool, mode: WireMode, tokens: Sequence[Token]) -> str:
    """
    The request that begins or ends ticks of one mode.

    Raises KeyError: a token of a segment that the socket does not have.

    >>> encode("abcde12345", subscribe=True, mode=WireMode.LTP, tokens=[Token(Segment.NSE, "3045")])
    '{"correlationID":"abcde12345","action":1,"params":{"mode":1,"tokenList":[{"exchangeType":1,"tokens":["3045"]}]}}'
    """
    groups: dict[int, list[str]] = {}
    for token in tokens:
        groups.setdefault(EXCHANGE_TYPES[token.segment], []).append(token.number)
    token_list = [{"exchangeType": number, "tokens": numbers} for number, numbers in groups.items()]
    params = {"mode": mode.value, "tokenList": token_list}
    request = {"correlationID": correlation_id, "action": int(subscribe), "params": params}
    return json.dumps(request, separators=(",", ":"))


def decode(frame: bytes) -> Update:
    """
    The packet in a binary frame.

    The first byte is the mode, the second the exchange type, then 25 bytes are the token's digits up to the first NUL.
    1 is a last price (51 bytes), 2 a quote (123), 3 a quote with five levels (379), 4 a book of 20 levels and no price
    (443). Bytes behind these are passed over.

    Prices are rupees: the wire's integers over 100, over 10**7 for currencies. Quantities and interest are units. Times
    are Unix ms, UTC. Of an index only prices and the exchange's time are told, the rest being 0 on the wire; of a share
    no open interest. Depth has the rows of the packet, by their side; one of zeros is no order.

    Raises DecodeError: a packet cut short, of an unknown mode or exchange, without a token, or with totals that are no
    numbers.

    >>> update = decode(b"\\x01\\x01" + b"3045".ljust(25, b"\\0") + struct.pack("<qqq", 7, 1711650599000, 75540))
    >>> update.token.number, update.ltp, update.exchange_ms, update.volume
    ('3045', 755.4, 1711650599000, None)
    """
    read = _READERS.get(frame[0] if frame else 0)
    if read is None:
        raise DecodeError(f"SmartStream frame of {len(frame)} bytes has the unknown mode {frame[:1].hex() or 'none'}.")
    try:
        return read(frame, *(_known.get(frame[1:27]) or _learn(frame)))
    except struct.error:
        raise DecodeError(f"SmartStream packet of mode {frame[0]} ends at byte {len(frame)}.") from None


def _read_ltp(frame: bytes, token: Token, divisor: float, _: Kind) -> Update:
    exchange_ms, ltp = _LTP.unpack_from(frame)
    return Update(
        token=token,
        ltp=ltp / divisor,
        exchange_ms=exchange_ms if 0 < exchange_ms < _LATEST_MS else None,
        mode=Mode.LTP,
    )


def _read_quote(frame: bytes, token: Token, divisor: float, kind: Kind) -> Update:
    exchange_ms, ltp, ltq, average, volume, buy, sell, open_, high, low, close = _QUOTE.unpack_from(frame)
    if kind is Kind.INDEX:
        return _index(token, divisor, (ltp, open_, high, low, close), exchange_ms, Mode.QUOTE)
    if not (0 <= buy < _MOST and 0 <= sell < _MOST):
        raise DecodeError(f"SmartStream's total quantities of {token.number} are {buy} and {sell}.")
    return Update(
        token=token,
        ltp=ltp / divisor,
        ltq=ltq,
        open=open_ / divisor,
        high=high / divisor,
        low=low / divisor,
        close=close / divisor,
        volume=volume,
        average_price=average / divisor,
        total_buy_quantity=int(buy),
        total_sell_quantity=int(sell),
        exchange_ms=exchange_ms if 0 < exchange_ms < _LATEST_MS else None,
        mode=Mode.QUOTE,
    )


def _read_snap_quote(frame: bytes, token: Token, divisor: float, kind: Kind) -> Update:
    exchange_ms, ltp, ltq, average, volume, buy, sell, open_, high, low, close, trade_s, oi, *rows, upper, lower = (
        _SNAP_QUOTE.unpack_from(frame)
    )
    if kind is Kind.INDEX:
        return _index(token, divisor, (ltp, open_, high, low, close), exchange_ms, Mode.DEPTH)
    if not (0 <= buy < _MOST and 0 <= sell < _MOST):
        raise DecodeError(f"SmartStream's total quantities of {token.number} are {buy} and {sell}.")
    trade_ms = trade_s * 1000
    return Update(
        token=token,
        ltp=ltp / divisor,
        ltq=ltq,
        open=open_ / divisor,
        high=high / divisor,
        low=low / divisor,
        close=close / divisor,
        volume=volume,
        average_price=average / divisor,
        oi=oi if kind is Kind.CONTRACT else None,
        total_buy_quantity=int(buy),
        total_sell_quantity=int(sell),
        upper_circuit=upper / divisor,
        lower_circuit=lower / divisor,
        depth=_five(rows, divisor),
        exchange_ms=exchange_ms if 0 < exchange_ms < _LATEST_MS else None,
        last_trade_ms=trade_ms if 0 < trade_ms < _LATEST_MS else None,
        mode=Mode.DEPTH,
    )


def _five(rows: list[int], divisor: float) -> Depth:
    """Ten rows of side (0: sell), quantity, price and orders; each side in the order in which its rows come."""
    sides = rows[0::4]
    levels = [Level(rows[at + 2] / divisor, rows[at + 1], rows[at + 3]) for at in range(0, 40, 4)]
    return Depth(
        tuple([level for side, level in zip(sides, levels, strict=True) if side]),
        tuple([level for side, level in zip(sides, levels, strict=True) if not side]),
    )


def _read_depth_20(frame: bytes, token: Token, divisor: float, _: Kind) -> Update:
    exchange_ms, *rows = _DEPTH_20.unpack_from(frame)
    levels = tuple([Level(rows[at + 1] / divisor, rows[at], rows[at + 2]) for at in range(0, 120, 3)])
    return Update(
        token=token,
        depth=Depth(levels[:20], levels[20:]),
        exchange_ms=exchange_ms if 0 < exchange_ms < _LATEST_MS else None,
        mode=Mode.DEPTH20,
    )


def _index(token: Token, divisor: float, prices: tuple[int, ...], exchange_ms: int, mode: Mode) -> Update:
    ltp, open_, high, low, close = prices
    return Update(
        token=token,
        ltp=ltp / divisor,
        open=open_ / divisor,
        high=high / divisor,
        low=low / divisor,
        close=close / divisor,
        exchange_ms=exchange_ms if 0 < exchange_ms < _LATEST_MS else None,
        mode=mode,
    )


_READERS: dict[int, Callable[[bytes, Token, float, Kind], Update]] = {
    WireMode.LTP: _read_ltp,
    WireMode.QUOTE: _read_quote,
    WireMode.SNAP_QUOTE: _read_snap_quote,
    WireMode.DEPTH_20: _read_depth_20,
}


def _learn(frame: bytes) -> tuple[Token, float, Kind]:
    """A packet's token, its divisor and kind, remembered: a feed repeats the same few thousand. Raises DecodeError."""
    key = frame[1:27]
    if len(key) < 26:
        raise DecodeError(f"SmartStream packet ends within its token, at byte {len(frame)}.")
    segment = SEGMENTS.get(key[0])
    if segment is None:
        raise DecodeError(f"SmartStream packet is of the unknown exchange type {key[0]}.")
    digits = key[1:].partition(b"\0")[0]
    if not digits.isalnum():
        raise DecodeError(f"SmartStream packet has no token but {digits.hex() or 'nothing'}.")
    number = digits.decode("ascii")
    found = Token(segment, number), DIVISORS.get(segment, 100.0), _kind(segment, number)
    if len(_known) < 100_000:
        _known[key] = found
    return found


def _kind(segment: Segment, number: str) -> Kind:
    if is_index(number):
        return Kind.INDEX
    return Kind.CASH if segment in (Segment.NSE, Segment.BSE) else Kind.CONTRACT


# --------------------------------------------------------------------------------------------------------------- texts


class Answer(NamedTuple):
    """A text's meaning, and the request that it answers ("" where it does not tell)."""

    notice: Notice
    correlation_id: str = ""


class _Text(msgspec.Struct, rename={"correlation_id": "correlationID", "code": "errorCode", "message": "errorMessage"}):
    correlation_id: str | None = None
    code: str | None = None
    message: str | None = None


_ERROR_KINDS: dict[str, ErrorKind] = {"E1001": ErrorKind.PROTOCOL, "E1002": ErrorKind.LIMIT}
"""A request that is no good, and one for more than the session may hold."""

_ALIVE = Answer(Notice(kind=NoticeKind.HEARTBEAT))


def decode_text(frame: str) -> Answer:
    """
    What a text frame says: the answer to our heartbeat, or why a request is refused.

    Raises DecodeError: neither.

    >>> decode_text('{"correlationID":"abcde12345","errorCode":"E1002","errorMessage":"Limit"}').notice.error
    <ErrorKind.LIMIT: 'limit'>
    """
    if frame == ANSWER:
        return _ALIVE
    try:
        text = msgspec.json.decode(frame, type=_Text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise DecodeError(f"SmartStream text frame is no answer of its kind: {error}.") from None
    if not text.code:
        return Answer(Notice(kind=NoticeKind.MESSAGE, text=text.message or frame[:500]))
    kind = _ERROR_KINDS.get(text.code, ErrorKind.PROTOCOL)
    reason = f"{text.code}: {text.message or 'no reason given'}"
    return Answer(Notice(kind=NoticeKind.ERROR, error=kind, text=reason), text.correlation_id or "")
