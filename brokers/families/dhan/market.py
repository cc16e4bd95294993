"""
Dhan's market feed: ticker, quote and full packets, and what comes beside them. Pure.

Source: https://dhanhq.co/docs/v2/live-market-feed/ and /annexure/; sizes as in the official client, dhanhq 2.3.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from brokers.contract import DecodeError, Event, Frame, Session, Update
from brokers.families.dhan import requests
from brokers.families.dhan.requests import OFF, SEGMENTS
from marketdata.ticks import Depth, Level, Mode, Segment, Token

HEADER_BYTES = 8

DIVISORS: dict[int, float] = {3: 10_000.0, 7: 10_000.0}
"""Currencies have four decimals, all else two: to so many parts of a rupee the wire's float32 is rounded."""

IST_S = 19_800
"""The wire's seconds show India's clock as if it were UTC."""

REQUEST_CODES: dict[Mode, int] = {Mode.LTP: requests.TICKER, Mode.QUOTE: requests.QUOTE, Mode.DEPTH: requests.FULL}

# Each begins with response code, message length, exchange segment and security id, not aligned.
_TICKER = struct.Struct("<BHBIfI")
_DEPTH = struct.Struct("<BHBIf" + "IIHHff" * 5)
_QUOTE = struct.Struct("<BHBIfHIfIIIffff")
_OI = struct.Struct("<BHBII")
_FULL = struct.Struct("<BHBIfHIfIIIIIIffff" + "IIHHff" * 5)
_REASON = struct.Struct("<BHBIH")
_LENGTH = struct.Struct("<H")

_known: dict[tuple[int, int], tuple[Token, float]] = {}


class MarketSession(Session):
    """
    The server sends each kind an instrument is subscribed in, so the one before is unsubscribed when the mode changes.
    """

    def __init__(self) -> None:
        self._codes: dict[Token, int] = {}
        """The request code under which each instrument is subscribed."""

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """Unsubscribes those that tick in another mode, then subscribes all; indices have no book and get quotes."""
        wanted = {token: _code(token, mode) for token in tokens}
        before = {token: self._codes[token] for token, code in wanted.items() if self._codes.get(token, code) != code}
        self._codes |= wanted
        return [*_frames(before, OFF), *_frames(wanted, {code: code for code in OFF})]

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """By the codes under which they were subscribed."""
        return _frames({token: self._codes.pop(token, _code(token, mode)) for token in tokens}, OFF)

    def decode(self, frame: Frame) -> Sequence[Event]:
        """See `decode`."""
        return decode(frame)


def _code(token: Token, mode: Mode) -> int:
    code = REQUEST_CODES[mode]
    return requests.QUOTE if token.segment is Segment.INDEX and code == requests.FULL else code


def _frames(codes: dict[Token, int], said: dict[int, int]) -> list[Frame]:
    """A request for each code in use, of what is `said` for it."""
    lists: dict[int, list[Token]] = {}
    for token, code in codes.items():
        lists.setdefault(said[code], []).append(token)
    return [requests.encode(code, tokens) for code, tokens in lists.items()]


def decode(frame: Frame) -> list[Event]:
    """
    The events in one frame of the market feed.

    A frame is one packet or several back to back, little-endian, each with a header of 8 bytes: code (u8), length
    (u16), segment (u8), security id (u32). The code tells the size: 2 ticker 16, 3 depth 112, 4 quote 50, 5 open
    interest 12, 6 previous close 16, 7 market status 8, 8 full 162, 50 disconnect 10. Code 1, an index packet of which
    nothing but its name is documented, is passed over by its length.

    Returns one update a packet, in order; 7 says nothing. Prices are rupees: the wire's float32 rounded to two
    decimals, four for currencies; above 131,072 rupees a float32 tells no single paisa. Quantities are units; the last
    one has 16 bits. Times are Unix ms, UTC; the wire has whole seconds of India's clock. `close` is the previous
    session's. What the packet lacks is None. A quote of an index is all there is of it, so it counts as DEPTH.

    Raises DecodeError: a text, a packet cut short, of an unknown code or segment, or with a price that is no number;
    its `events` are the good packets.

    Source: https://dhanhq.co/docs/v2/live-market-feed/ and /annexure/.

    >>> [update] = decode(bytes.fromhex("02100001350500005200cf44f48d2266"))
    >>> update.token, update.ltp, update.last_trade_ms
    (Token(segment=<Segment.NSE: 'NSE'>, number='1333'), 1656.01, 1713520796000)
    """
    if isinstance(frame, str):
        raise DecodeError(f"Dhan market frame is a text of {len(frame)} characters, where only packets are documented.")
    events: list[Event] = []
    damage = ""
    offset, end = 0, len(frame)
    while offset < end:
        code = frame[offset]
        size, read = _READERS.get(code) or (_length(frame, offset), None)
        if not HEADER_BYTES <= size <= end - offset:
            damage = f"packet of code {code} at byte {offset} of {size} bytes runs over the end at byte {end}"
            break
        if read is not None:
            try:
                events.append(read(frame, offset))
            except KeyError as error:
                damage = f"packet of code {code} at byte {offset} is of the unknown segment {error}"
            except (ValueError, OverflowError):
                damage = f"packet of code {code} at byte {offset} has a price that is no number"
        elif code not in _SILENT:
            damage = f"packet at byte {offset} is of the unknown code {code}"
        offset += size
    if damage:
        raise DecodeError(f"Dhan market frame of {end} bytes: {damage}.", events)
    return events


def _length(frame: bytes, offset: int) -> int:
    """The packet's own word for its size; 0 where even that is cut off."""
    return _LENGTH.unpack_from(frame, offset + 1)[0] if offset + HEADER_BYTES <= len(frame) else 0


def _read_ticker(frame: bytes, start: int) -> Update:
    _, _, segment, number, ltp, trade_s = _TICKER.unpack_from(frame, start)
    token, parts = _known.get((segment, number)) or _learn(segment, number)
    return Update(
        token=token,
        ltp=round(ltp * parts) / parts,
        last_trade_ms=(trade_s - IST_S) * 1000 if trade_s > IST_S else None,
        mode=Mode.LTP,
    )


def _read_depth(frame: bytes, start: int) -> Update:
    _, _, segment, number, ltp, *rows = _DEPTH.unpack_from(frame, start)
    token, parts = _known.get((segment, number)) or _learn(segment, number)
    return Update(token=token, ltp=round(ltp * parts) / parts, depth=_book(rows, parts), mode=Mode.DEPTH)


def _read_quote(frame: bytes, start: int) -> Update:
    (_, _, segment, number, ltp, ltq, trade_s, average, volume, sell, buy, open_, close, high, low) = (
        _QUOTE.unpack_from(frame, start)
    )
    token, parts = _known.get((segment, number)) or _learn(segment, number)
    return Update(
        token=token,
        ltp=round(ltp * parts) / parts,
        ltq=ltq,
        open=round(open_ * parts) / parts,
        high=round(high * parts) / parts,
        low=round(low * parts) / parts,
        close=round(close * parts) / parts,
        volume=volume,
        average_price=round(average * parts) / parts,
        total_buy_quantity=buy,
        total_sell_quantity=sell,
        last_trade_ms=(trade_s - IST_S) * 1000 if trade_s > IST_S else None,
        mode=Mode.QUOTE if segment else Mode.DEPTH,
    )


def _read_oi(frame: bytes, start: int) -> Update:
    _, _, segment, number, oi = _OI.unpack_from(frame, start)
    return Update(token=(_known.get((segment, number)) or _learn(segment, number))[0], oi=oi)


def _read_close(frame: bytes, start: int) -> Update:
    _, _, segment, number, close, _ = _TICKER.unpack_from(frame, start)
    token, parts = _known.get((segment, number)) or _learn(segment, number)
    return Update(token=token, close=round(close * parts) / parts)


def _read_full(frame: bytes, start: int) -> Update:
    (
        _, _, segment, number, ltp, ltq, trade_s, average, volume, sell, buy, oi, _, _, open_, close, high, low, *rows
    ) = _FULL.unpack_from(frame, start)  # fmt: skip
    token, parts = _known.get((segment, number)) or _learn(segment, number)
    return Update(
        token=token,
        ltp=round(ltp * parts) / parts,
        ltq=ltq,
        open=round(open_ * parts) / parts,
        high=round(high * parts) / parts,
        low=round(low * parts) / parts,
        close=round(close * parts) / parts,
        volume=volume,
        average_price=round(average * parts) / parts,
        oi=oi,
        total_buy_quantity=buy,
        total_sell_quantity=sell,
        depth=_book(rows, parts),
        last_trade_ms=(trade_s - IST_S) * 1000 if trade_s > IST_S else None,
        mode=Mode.DEPTH,
    )


def _book(rows: Sequence[float], parts: float) -> Depth:
    """Five times bid quantity, ask quantity, bid orders, ask orders, bid price, ask price."""
    return Depth(
        tuple([Level(round(rows[at + 4] * parts) / parts, int(rows[at]), int(rows[at + 2])) for at in range(0, 30, 6)]),
        tuple(
            [Level(round(rows[at + 5] * parts) / parts, int(rows[at + 1]), int(rows[at + 3])) for at in range(0, 30, 6)]
        ),
    )


def _read_disconnect(frame: bytes, start: int) -> Event:
    return requests.disconnected(_REASON.unpack_from(frame, start)[4])


_READERS: dict[int, tuple[int, Callable[[bytes, int], Event]]] = {
    2: (16, _read_ticker),
    3: (112, _read_depth),
    4: (50, _read_quote),
    5: (12, _read_oi),
    6: (16, _read_close),
    8: (162, _read_full),
    50: (10, _read_disconnect),
}
_SILENT = frozenset({1, 7})
"""Packets that say nothing that is documented."""


def _learn(segment: int, number: int) -> tuple[Token, float]:
    """A token and its prices' parts, remembered: a feed repeats the same few thousand. Raises KeyError."""
    found = Token(SEGMENTS[segment], str(number)), DIVISORS.get(segment, 100.0)
    if len(_known) < 100_000:
        _known[segment, number] = found
    return found
