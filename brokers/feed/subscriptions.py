"""
One connection's instruments: wanted, said to the broker, heard from. Pure: the time is an argument.

Nothing is queued: a command is made at the moment it can be sent, from what is wanted then. So a change of mind before
that costs the broker nothing, and a new connection needs no more than `restart`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from brokers.contract import Limits
from marketdata.ticks import Mode, Token


class Command(NamedTuple):
    """To be said to the broker now: these tokens shall tick in this mode, or those that ticked in it shall not."""

    subscribe: bool
    tokens: tuple[Token, ...]
    mode: Mode


class Subscriptions:
    """
    What one connection should carry against what the broker was told on it.

    >>> from marketdata.ticks import Segment
    >>> sbin, tcs = Token(Segment.NSE, "779521"), Token(Segment.NSE, "2953217")
    >>> held = Subscriptions()
    >>> held.want(sbin, Mode.QUOTE), held.want(tcs, Mode.QUOTE)
    (None, None)
    >>> command = held.next(Limits(), now_s=0.0)
    >>> command.subscribe, len(command.tokens), held.next(Limits(), now_s=0.0)
    (True, 2, None)
    """

    def __init__(self) -> None:
        self._wanted: dict[Token, Mode] = {}
        """The mode each instrument should tick in, in the order of demand."""
        self._sent: dict[Token, Mode] = {}
        """The mode the broker was told on this connection."""
        self._to_drop: dict[Mode, dict[Token, None]] = {}
        """To be unsubscribed, by the mode the broker was told."""
        self._to_send: dict[Mode, dict[Token, None]] = {}
        """To be subscribed (also anew), by the mode wanted."""
        self._unheard: dict[Token, float] = {}
        """Told to the broker and nothing heard yet: the time (s) of the telling."""

    def __len__(self) -> int:
        return len(self._wanted)

    @property
    def sent(self) -> int:
        """Instruments the broker was told on this connection and not told off."""
        return len(self._sent)

    @property
    def is_settled(self) -> bool:
        """Whether the broker was told all there is to say."""
        return not any(self._to_send.values()) and not any(self._to_drop.values())

    @property
    def unheard(self) -> dict[Token, float]:
        """What the broker was told and has not answered with a word or a price: when (s) it was told. Read only."""
        return self._unheard

    def mode(self, token: Token) -> Mode | None:
        """The mode in which an instrument is wanted here; None: it is not."""
        return self._wanted.get(token)

    def told(self, token: Token) -> Mode | None:
        """The mode that the broker was told on this connection; None: it was not told of it."""
        return self._sent.get(token)

    def wanted(self) -> dict[Token, Mode]:
        """All that is wanted here, in the order of demand."""
        return dict(self._wanted)

    def want(self, token: Token, mode: Mode) -> None:
        """The instrument shall tick in this mode."""
        before, sent = self._wanted.get(token), self._sent.get(token)
        self._wanted[token] = mode
        if before is not None and before != mode:
            self._to_send.get(before, {}).pop(token, None)
        if sent is not None:
            self._to_drop.get(sent, {}).pop(token, None)
        if sent != mode:
            self._to_send.setdefault(mode, {})[token] = None

    def drop(self, token: Token) -> None:
        """The instrument shall not tick here any more; one that did not is passed over."""
        mode = self._wanted.pop(token, None)
        if mode is None:
            return
        self._to_send.get(mode, {}).pop(token, None)
        sent = self._sent.get(token)
        if sent is not None:
            self._to_drop.setdefault(sent, {})[token] = None

    def restart(self) -> None:
        """The connection is a new one: the broker was told nothing."""
        self._sent.clear()
        self._to_drop.clear()
        self._unheard.clear()
        self._to_send.clear()
        for token, mode in self._wanted.items():
            self._to_send.setdefault(mode, {})[token] = None

    def next(self, limits: Limits, *, now_s: float) -> Command | None:
        """
        What to say next, counted as said; None: the broker knows all.

        Unsubscribing comes first, so that the broker never counts more instruments than the connection may hold.
        """
        size = max(limits.instruments_per_frame, 1)
        for mode, tokens in self._to_drop.items():
            if tokens:
                return self._say_off(_take(tokens, size), mode)
        for mode, tokens in self._to_send.items():
            if tokens:
                return self._say_on(_take(tokens, size), mode, now_s)
        return None

    def heard(self, tokens: Iterable[Token]) -> None:
        """The broker confirmed these, refused them, or sent a price."""
        for token in tokens:
            self._unheard.pop(token, None)

    def _say_off(self, tokens: tuple[Token, ...], mode: Mode) -> Command:
        for token in tokens:
            del self._sent[token]
            self._unheard.pop(token, None)
        return Command(False, tokens, mode)

    def _say_on(self, tokens: tuple[Token, ...], mode: Mode, now_s: float) -> Command:
        for token in tokens:
            if token not in self._sent:
                self._unheard[token] = now_s
            self._sent[token] = mode
        return Command(True, tokens, mode)


def _take(tokens: dict[Token, None], count: int) -> tuple[Token, ...]:
    taken = tuple(islice(tokens, count))
    for token in taken:
        del tokens[token]
    return taken


class Pacer:
    """
    Keeps to so many frames a second in any second, without holding back what is within that.

    >>> pacer = Pacer()
    >>> for now_s in (0.0, 0.25):
    ...     print(pacer.wait_s(2.0, now_s=now_s))
    ...     pacer.count(now_s)
    0.0
    0.0
    >>> pacer.wait_s(2.0, now_s=0.25)
    0.75
    """

    def __init__(self) -> None:
        self._sent_s: deque[float] = deque(maxlen=1000)

    def wait_s(self, frames_per_second: float, *, now_s: float) -> float:
        """Seconds until the next frame may go out."""
        most = max(int(frames_per_second), 1)
        window_s = most / frames_per_second
        if len(self._sent_s) < most:
            return 0.0
        return max(self._sent_s[-most] + window_s - now_s, 0.0)

    def count(self, now_s: float) -> None:
        """A frame goes out now."""
        self._sent_s.append(now_s)
