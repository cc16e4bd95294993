"""
One connection's instruments: wanted, said to the broker, heard from. Pure: the time is an argument.

Nothing is queued: a command is made at the moment it can be sent, from what is wanted then. So a change of mind before
that costs the broker nothing, and a new connection needs no more than `restart`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
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
        """The mode the broker was told on this connection, in the order in which it was first told of each."""
        self._count = Counter[Mode]()
        """How many of those are in each mode."""
        self._to_drop: dict[Mode, dict[Token, None]] = {}
        """To be unsubscribed, by the mode the broker was told."""
        self._to_send: dict[Mode, dict[Token, None]] = {}
        """To be subscribed (also anew), by the mode wanted."""
        self._unheard: dict[Token, float] = {}
        """Told to the broker and nothing heard yet: the time (s) of the telling."""
        self._unpriced: dict[Token, float] = {}
        """The same for those of which no price came, whatever else did."""

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

    @property
    def unpriced(self) -> dict[Token, float]:
        """What the broker was told and sent no price of, though it may have confirmed it. Read only."""
        return self._unpriced

    def order(self) -> list[Token]:
        """What the broker was told and not told off, in the order in which it was first told."""
        return list(self._sent)

    def difference(self, planned: Mapping[Token, Mode]) -> int:
        """
        How many instruments the broker must still be told of, so that it knows what is planned here: those it does not
        know of, knows in another mode, or should know no more.
        """
        unsaid = sum(self._sent.get(token) != mode for token, mode in planned.items())
        return unsaid + sum(token not in planned for token in self._sent)

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
        for known in (self._sent, self._count, self._to_drop, self._unheard, self._unpriced, self._to_send):
            known.clear()
        for token, mode in self._wanted.items():
            self._to_send.setdefault(mode, {})[token] = None

    def next(self, limits: Limits, *, now_s: float) -> Command | None:
        """
        What to say next, counted as said; None: the broker knows all, or as much as the limits allow.

        Unsubscribing comes first, and what is told to tick in a mode fits in at that moment: so the broker never counts
        more instruments than the connection may hold, in any mode. Where two would each have to change before the
        other can, one of them is told off for that.
        """
        size = max(limits.instruments_per_frame, 1)
        for mode, tokens in self._to_drop.items():
            if tokens:
                return self._say_off(_take(tokens, size), mode)
        for mode, tokens in self._to_send.items():
            said = self._say_on(tokens, mode, size, limits, now_s) if tokens else ()
            if said:
                return Command(True, said, mode)
        for tokens in self._to_send.values():
            for token in tokens:
                if token in self._sent:
                    return self._say_off((token,), self._sent[token])
        return None

    def heard(self, tokens: Iterable[Token]) -> None:
        """The broker confirmed these, or refused them."""
        for token in tokens:
            self._unheard.pop(token, None)

    def priced(self, tokens: Iterable[Token]) -> None:
        """The broker sent prices of these."""
        for token in tokens:
            self._unheard.pop(token, None)
            self._unpriced.pop(token, None)

    def _say_off(self, tokens: tuple[Token, ...], mode: Mode) -> Command:
        for token in tokens:
            del self._sent[token]
            self._unheard.pop(token, None)
            self._unpriced.pop(token, None)
        self._recount(mode, -len(tokens))
        return Command(False, tokens, mode)

    def _say_on(
        self, tokens: dict[Token, None], mode: Mode, size: int, limits: Limits, now_s: float
    ) -> tuple[Token, ...]:
        """As many of these as go into a frame and fit."""
        said = list[Token]()
        for token in tokens:
            if len(said) == size:
                break
            before = self._sent.get(token)
            if not self._fits(before, mode, limits):
                continue
            if before is None:
                self._unheard[token] = self._unpriced[token] = now_s
            else:
                self._recount(before, -1)
            self._sent[token] = mode
            self._recount(mode, 1)
            said.append(token)
        for token in said:
            del tokens[token]
        return tuple(said)

    def _fits(self, before: Mode | None, mode: Mode, limits: Limits) -> bool:
        """Whether the broker's limits allow one more in this mode, that was in another (None: in none) until now."""
        count = len(self._sent) + (before is None)
        if not limits.by_mode and not limits.at_most:
            return before is not None or count <= limits.instruments_per_connection
        if self._count[mode] + 1 > limits.at_most.get(mode, count):
            return False
        kept = [each for each, held in self._count.items() if held > (each == before)]
        return count <= min(limits.room(each) for each in (mode, *kept))

    def _recount(self, mode: Mode, change: int) -> None:
        self._count[mode] += change
        if not self._count[mode]:
            del self._count[mode]


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
