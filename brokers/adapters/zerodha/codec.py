"""
The Kite ticker's frames: JSON requests out, big-endian binary packets and JSON texts in. Pure.

Source: https://kite.trade/docs/connect/v3/websocket/; divisors and packet sizes as in zerodha/pykiteconnect, ticker.py.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence

import msgspec

from brokers.contract import DecodeError, ErrorKind, Event, Frame, Notice, NoticeKind, Update
from marketdata.ticks import Depth, Level, Mode, Segment, Token

SEGMENTS: dict[int, Segment] = {
    1: Segment.NSE,
    2: Segment.NFO,
    3: Segment.CDS,
    4: Segment.BSE,
    5: Segment.BFO,
    6: Segment.BCD,
    7: Segment.MCX,
    9: Segment.INDEX,
    12: Segment.NCO,
}
"""An instrument token's low byte. 9 covers the indices of every exchange; the master tells which."""

DIVISORS: dict[Segment, float] = {Segment.CDS: 10_000_000.0, Segment.BCD: 10_000.0, Segment.NCO: 10_000.0}
"""By what a segment's integer prices are divided; 100 elsewhere."""

MODE_WORDS: dict[Mode, str] = {Mode.LTP: "ltp", Mode.QUOTE: "quote", Mode.DEPTH: "full"}

HEARTBEAT_BYTES = 4
"""Binary frames up to this length carry no packet."""

_U16 = struct.Struct(">H")
_LTP = struct.Struct(">Ii")
_INDEX = struct.Struct(">Iiiiiii")
_QUOTE = struct.Struct(">IiIiIIIiiii")
_FULL_TAIL = struct.Struct(">IIIII" + "IiHxx" * 10)

_HEARTBEAT = Notice(kind=NoticeKind.HEARTBEAT)

_known: dict[int, tuple[Token, float]] = {}


def encode_subscribe(numbers: Sequence[int]) -> str:
    """
    >>> encode_subscribe([408065, 738561])
    '{"a":"subscribe","v":[408065,738561]}'
    """
    return json.dumps({"a": "subscribe", "v": list(numbers)}, separators=(",", ":"))


def encode_unsubscribe(numbers: Sequence[int]) -> str:
    """
    >>> encode_unsubscribe([408065])
    '{"a":"unsubscribe","v":[408065]}'
    """
    return json.dumps({"a": "unsubscribe", "v": list(numbers)}, separators=(",", ":"))


def encode_mode(mode: Mode, numbers: Sequence[int]) -> str:
    """
    >>> encode_mode(Mode.DEPTH, [408065])
    '{"a":"mode","v":["full",[408065]]}'
    """
    return json.dumps({"a": "mode", "v": [MODE_WORDS[mode], list(numbers)]}, separators=(",", ":"))


def decode(frame: Frame) -> list[Event]:
    """
    The events in one frame of the Kite ticker.

    A binary frame is a count (u16), then that many times a size (u16) and a packet of that many bytes, big-endian. The
    size tells the kind: 8 ltp, 28 or 32 index, 44 quote, 184 with depth; others are passed over. Up to 4 bytes it is a
    heartbeat. Bytes behind the last packet are passed over. A text frame is an error, a message, or no market data.

    Returns one update a packet, in order. Prices are rupees: the wire's integers over 100, over 10**7 for CDS, over
    10**4 for BCD and NCO. Quantities are units, not lots. Times are Unix ms, UTC; the wire has whole seconds. What the
    packet lacks is None. Depth has always 5 and 5 rows; one of zeros is no order.

    Raises DecodeError: a packet cut short or of an unknown segment; its `events` are the good packets.

    >>> [update] = decode(bytes.fromhex("0001001c0003e909000ded2d000dfd18000de90e000dfcd7000ded2dffffffdc"))
    >>> update.token.number, update.ltp, update.high, update.volume
    ('256265', 9126.85, 9167.6, None)
    """
    if isinstance(frame, str):
        return _decode_text(frame)
    if len(frame) <= HEARTBEAT_BYTES:
        return [_HEARTBEAT]
    events: list[Event] = []
    damage = ""
    offset, end = 2, len(frame)
    for number in range(_U16.unpack_from(frame)[0]):
        start = offset + 2
        if start > end or (offset := start + _U16.unpack_from(frame, start - 2)[0]) > end:
            damage = f"packet {number + 1} runs over the frame's end at byte {end}"
            break
        read = _READERS.get(offset - start)
        if read is None:
            continue
        try:
            events.append(read(frame, start))
        except KeyError as error:
            damage = f"packet {number + 1} is of the unknown segment {error}"
    if damage:
        raise DecodeError(f"Kite frame of {end} bytes: {damage}.", events)
    return events


def _read_ltp(frame: bytes, start: int) -> Update:
    number, ltp = _LTP.unpack_from(frame, start)
    token, divisor = _known.get(number) or _learn(number)
    return Update(token=token, ltp=ltp / divisor, mode=Mode.LTP)


def _read_index(frame: bytes, start: int) -> Update:
    return _index(frame, start, None)


def _read_index_full(frame: bytes, start: int) -> Update:
    return _index(frame, start, int.from_bytes(frame[start + 28 : start + 32], "big"))


def _index(frame: bytes, start: int, seconds: int | None) -> Update:
    number, ltp, high, low, open_, close, _ = _INDEX.unpack_from(frame, start)
    token, divisor = _known.get(number) or _learn(number)
    return Update(
        token=token,
        ltp=ltp / divisor,
        open=open_ / divisor,
        high=high / divisor,
        low=low / divisor,
        close=close / divisor,
        exchange_ms=seconds * 1000 if seconds else None,
        mode=Mode.QUOTE if seconds is None else Mode.DEPTH,
    )


def _read_quote(frame: bytes, start: int) -> Update:
    number, ltp, ltq, average, volume, buy, sell, open_, high, low, close = _QUOTE.unpack_from(frame, start)
    token, divisor = _known.get(number) or _learn(number)
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
        total_buy_quantity=buy,
        total_sell_quantity=sell,
        mode=Mode.QUOTE,
    )


def _read_full(frame: bytes, start: int) -> Update:
    number, ltp, ltq, average, volume, buy, sell, open_, high, low, close = _QUOTE.unpack_from(frame, start)
    trade_s, oi, _, _, exchange_s, *rows = _FULL_TAIL.unpack_from(frame, start + 44)
    token, divisor = _known.get(number) or _learn(number)
    levels = tuple([Level(rows[at + 1] / divisor, rows[at], rows[at + 2]) for at in range(0, 30, 3)])
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
        oi=oi,
        total_buy_quantity=buy,
        total_sell_quantity=sell,
        depth=Depth(levels[:5], levels[5:]),
        exchange_ms=exchange_s * 1000 if exchange_s else None,
        last_trade_ms=trade_s * 1000 if trade_s else None,
        mode=Mode.DEPTH,
    )


_READERS: dict[int, Callable[[bytes, int], Update]] = {
    8: _read_ltp,
    28: _read_index,
    32: _read_index_full,
    44: _read_quote,
    184: _read_full,
}


def _learn(number: int) -> tuple[Token, float]:
    """A token and its divisor, remembered: a feed repeats the same few thousand. Raises KeyError: unknown segment."""
    segment = SEGMENTS[number & 0xFF]
    found = Token(segment, str(number)), DIVISORS.get(segment, 100.0)
    if len(_known) < 100_000:
        _known[number] = found
    return found


def _decode_text(frame: str) -> list[Event]:
    try:
        message = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise DecodeError(f"Kite text frame is no JSON: {error}.") from None
    if not isinstance(message, dict):
        raise DecodeError("Kite text frame is no JSON object.")
    text = str(message.get("data", ""))
    match message.get("type"):
        case "error":
            return [Notice(kind=NoticeKind.ERROR, error=_error_kind(text), text=text)]
        case "message":
            return [Notice(kind=NoticeKind.MESSAGE, text=text)]
        case _:
            return []  # An order update, or a kind added later: no market data.


def _error_kind(text: str) -> ErrorKind:
    return ErrorKind.LIMIT if "limit" in text.lower() else ErrorKind.PROTOCOL
