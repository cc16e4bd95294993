"""
Dhan's sockets for 20 and for 200 levels: books without prices, each side a packet of its own. Pure.

Source: https://dhanhq.co/docs/v2/full-market-depth/ and /annexure/.
"""

from __future__ import annotations

import math
import struct
from abc import abstractmethod
from collections.abc import Sequence
from itertools import starmap
from typing import ClassVar

from brokers.contract import DecodeError, Event, Frame, Session, Update
from brokers.families.dhan import requests
from brokers.families.dhan.requests import DEPTH, OFF, SEGMENTS
from marketdata.ticks import Depth, Level, Mode, Token

BID, ASK, DISCONNECT = 41, 51, 50

_HEADER = struct.Struct("<HBBII")
_ROW = struct.Struct("<dII")
_REASON = struct.Struct("<H")
_DISCONNECT_BYTES = _HEADER.size + _REASON.size

_Side = tuple[Level, ...]


class DepthSession(Session):
    """
    One socket for books. An instrument's sides come in packets of their own and are put together here.

    Dhan is known to go on sending what was unsubscribed: that is passed over until it is subscribed again.
    """

    mode: ClassVar[Mode]

    def __init__(self) -> None:
        self._bids: dict[Token, _Side] = {}
        self._asks: dict[Token, _Side] = {}
        self._silenced: set[Token] = set()
        """Unsubscribed on this connection."""

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """Code 23 for all of them."""
        self._silenced.difference_update(tokens)
        return self._requests(DEPTH, tokens)

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The annexure's code, 25. The official client sends 24; live reports say that neither is fully obeyed."""
        self._silenced.update(tokens)
        for token in tokens:
            self._bids.pop(token, None)
            self._asks.pop(token, None)
        return self._requests(OFF[DEPTH], tokens)

    @abstractmethod
    def _requests(self, code: int, tokens: Sequence[Token]) -> list[Frame]:
        """Requests with this code, as the socket wants them: of a list, or of one instrument each."""

    @abstractmethod
    def _rows(self, word: int) -> int:
        """How many rows a packet has at most, by the last word of its header."""

    def decode(self, frame: Frame) -> list[Event]:
        """
        The events in one frame of a depth socket.

        A frame is packets back to back, little-endian, each with a header of 12 bytes: length (u16), code (u8),
        segment (u8), security id (u32), and a word that is a sequence number (20 levels) or the number of rows (200).
        Code 41 is the bid side, 51 the ask side: rows of price (f64), quantity (u32) and orders (u32), best first.
        Where length and rows disagree the smaller one tells the rows, the length where the next packet is. Code 50 is
        a disconnect of 14 bytes, the reason (u16) last.

        Returns one update for a bid side and the ask side behind it, one for a side that comes alone, none while the
        other side has never come. Each has both sides whole. Prices are rupees as they come, quantities units; a row
        of zeros is no order.

        Raises DecodeError: a text, a packet cut short, of an unknown code or segment, or with a price that is no
        number; its `events` are those of the good packets.
        """
        if isinstance(frame, str):
            raise DecodeError(f"Dhan depth frame is a text of {len(frame)} characters; only packets are documented.")
        events: list[Event] = []
        damage = ""
        offset, end = 0, len(frame)
        while offset < end:
            size = _size(frame, offset)
            if not size:
                damage = f"the packet at byte {offset} runs over the end at byte {end}"
                break
            try:
                events += self._read(frame, offset, size)
            except KeyError as error:
                damage = f"the packet at byte {offset} is of the unknown segment {error}"
            except ValueError as error:
                damage = f"the packet at byte {offset} {error}"
            offset += size
        if damage:
            raise DecodeError(f"Dhan depth frame of {end} bytes: {damage}.", events)
        return events

    def _read(self, frame: bytes, offset: int, size: int) -> list[Event]:
        """One packet. Raises KeyError: an unknown segment; ValueError: an unknown code, or prices that are none."""
        _, code, segment, number, word = _HEADER.unpack_from(frame, offset)
        if code == DISCONNECT:
            return [requests.disconnected(_REASON.unpack_from(frame, offset + _HEADER.size)[0])]
        if code not in (BID, ASK):
            raise ValueError(f"is of the unknown code {code}")
        token = Token(SEGMENTS[segment], str(number))
        start = offset + _HEADER.size
        rows = min(self._rows(word), (size - _HEADER.size) // _ROW.size)
        side = _levels(frame[start : start + rows * _ROW.size])
        if token in self._silenced:
            return []
        (self._bids if code == BID else self._asks)[token] = side
        if (
            code == BID
            and frame[offset + size + 2 : offset + size + 8] == bytes((ASK,)) + frame[offset + 3 : offset + 8]
        ):
            return []  # the other side is the next packet
        return self._shown(token)

    def _shown(self, token: Token) -> list[Event]:
        bids, asks = self._bids.get(token), self._asks.get(token)
        if bids is None or asks is None:
            return []
        return [Update(token=token, depth=Depth(bids, asks), mode=self.mode)]


class Depth20Session(DepthSession):
    """Twenty rows always; the header's last word is a sequence number, which nothing needs."""

    mode: ClassVar[Mode] = Mode.DEPTH20

    def _requests(self, code: int, tokens: Sequence[Token]) -> list[Frame]:
        return [requests.encode(code, tokens)]

    def _rows(self, word: int) -> int:
        return 20


class Depth200Session(DepthSession):
    """As many rows as there are, up to two hundred; one instrument a request."""

    mode: ClassVar[Mode] = Mode.DEPTH200

    def _requests(self, code: int, tokens: Sequence[Token]) -> list[Frame]:
        return [requests.encode_one(code, token) for token in tokens]

    def _rows(self, word: int) -> int:
        return min(word, 200)


def _size(frame: bytes, offset: int) -> int:
    """The bytes of a packet, header included; 0 where they are not all there."""
    left = len(frame) - offset
    if left < _HEADER.size:
        return 0
    length, code, *_ = _HEADER.unpack_from(frame, offset)
    size: int = _DISCONNECT_BYTES if code == DISCONNECT else length
    return size if _HEADER.size <= size <= left else 0


def _levels(body: bytes) -> _Side:
    """
    Rows as levels.

    Raises ValueError: a price that is no number.
    """
    side = tuple(starmap(Level, _ROW.iter_unpack(body)))
    if not math.isfinite(sum([level.price for level in side])):
        raise ValueError("has a price that is no number")
    return side
