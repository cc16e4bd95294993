"""
One SmartStream connection's conversation: who ticks in which of the wire's modes, and whose request was refused. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from brokers.adapters.angel import codec
from brokers.adapters.angel.codec import WireMode
from brokers.contract import Event, Frame, Notice, Session, Update
from marketdata.ticks import Mode, Segment, Token

_WIRE_MODES: Mapping[Mode, tuple[WireMode, ...]] = {
    Mode.LTP: (WireMode.LTP,),
    Mode.QUOTE: (WireMode.QUOTE,),
    Mode.DEPTH: (WireMode.SNAP_QUOTE,),
    Mode.DEPTH20: (WireMode.SNAP_QUOTE, WireMode.DEPTH_20),
}

_REMEMBERED = 1000
"""Requests of which we know what they asked for: those that may still be refused."""


class SmartStreamSession(Session):
    """
    The server lets an instrument tick in several modes at once, and counts each; here it keeps the ones of its mode.

    20 levels are for NSE's shares, in packets without prices, so in DEPTH20 a share ticks in two modes of the wire.
    What has no such book, or does not get it, ticks with the five levels there are, as the deepest book it has.
    """

    def __init__(self) -> None:
        self._modes: dict[Token, Mode] = {}
        """Everything subscribed."""
        self._books: dict[Token, bool] = {}
        """Those in DEPTH20, and whether a book of 20 levels came."""
        self._asked: dict[str, tuple[Token, ...]] = {}
        """The latest requests by their correlation id: the instruments for which nothing comes if they are refused."""
        self._number = 0

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """
        The end of modes that are not theirs any more, then their modes, also those they have: these count once.
        """
        ending: dict[WireMode, list[Token]] = {}
        beginning: dict[WireMode, list[Token]] = {}
        for token in tokens:
            wanted = wire_modes(token, mode)
            for wire_mode in wire_modes(token, self._modes.get(token)):
                if wire_mode not in wanted:
                    ending.setdefault(wire_mode, []).append(token)
            for wire_mode in wanted:
                beginning.setdefault(wire_mode, []).append(token)
            self._note(token, mode)
        return [*self._requests(ending, subscribe=False), *self._requests(beginning, subscribe=True)]

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The end of every mode they tick in."""
        ending: dict[WireMode, list[Token]] = {}
        for token in tokens:
            for wire_mode in wire_modes(token, self._modes.get(token, mode)):
                ending.setdefault(wire_mode, []).append(token)
            self._modes.pop(token, None)
            self._books.pop(token, None)
        return self._requests(ending, subscribe=False)

    def heartbeat(self) -> Frame:
        """A text, besides the pings of the protocol below."""
        return codec.HEARTBEAT

    def decode(self, frame: Frame) -> Sequence[Event]:
        """See `codec.decode` and `codec.decode_text`; a refusal names the instruments that were asked for."""
        if isinstance(frame, str):
            answer = codec.decode_text(frame)
            return (self._addressed(answer.notice, answer.correlation_id),)
        update = codec.decode(frame)
        if update.ltp is None:
            return self._book(update)
        heard = self._books.get(update.token)
        return (update,) if heard is None else (_beside_book(update, heard=heard),)

    def _note(self, token: Token, mode: Mode) -> None:
        self._modes[token] = mode
        if mode is Mode.DEPTH20:
            self._books.setdefault(token, False)
        else:
            self._books.pop(token, None)

    def _requests(self, groups: Mapping[WireMode, Sequence[Token]], *, subscribe: bool) -> list[Frame]:
        """One frame a mode."""
        frames: list[Frame] = []
        for mode, tokens in groups.items():
            self._number += 1
            correlation_id = f"{self._number:010d}"
            frames.append(codec.encode(correlation_id, subscribe=subscribe, mode=mode, tokens=tokens))
            if subscribe and mode is not WireMode.DEPTH_20:
                self._remember(correlation_id, tuple(tokens))
        return frames

    def _remember(self, correlation_id: str, tokens: tuple[Token, ...]) -> None:
        self._asked[correlation_id] = tokens
        if len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]

    def _addressed(self, notice: Notice, correlation_id: str) -> Notice:
        tokens = self._asked.get(correlation_id)
        return notice if tokens is None else msgspec.structs.replace(notice, tokens=tokens)

    def _book(self, update: Update) -> Sequence[Update]:
        """A book that was still under way when its instrument was told to tick otherwise is of no use."""
        if update.token in self._books:
            self._books[update.token] = True
        elif update.token in self._modes:
            return ()
        return (update,)


def wire_modes(token: Token, mode: Mode | None) -> tuple[WireMode, ...]:
    """
    The wire's modes in which an instrument ticks.

    >>> wire_modes(Token(Segment.NSE, "3045"), Mode.DEPTH20), wire_modes(Token(Segment.NFO, "53590"), Mode.DEPTH20)
    ((<WireMode.SNAP_QUOTE: 3>, <WireMode.DEPTH_20: 4>), (<WireMode.SNAP_QUOTE: 3>,))
    """
    if mode is None:
        return ()
    has_deep_book = token.segment is Segment.NSE and not codec.is_index(token.number)
    return _WIRE_MODES[Mode.DEPTH if mode is Mode.DEPTH20 and not has_deep_book else mode]


def _beside_book(update: Update, *, heard: bool) -> Update:
    """The prices of what is subscribed in DEPTH20: without their five levels as soon as the book of 20 comes."""
    if update.mode is not Mode.DEPTH:
        return update
    return msgspec.structs.replace(update, mode=Mode.DEPTH20, depth=None if heard else update.depth)
