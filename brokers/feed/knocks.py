"""
How often an account may knock at its broker's door, and which of its connections. Pure: instants are arguments.

Every connection has waits of its own that rise; this is what holds for all connections of an account together:
`Knocks`, over restarts of the process, because brokers throttle or lock out who comes too often; `Evictions`, because
another program may be there; and `Turns`, which also lets one of them try for all while the broker is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from brokers.contract import ErrorKind
from brokers.feed.evictions import Ending, Evictions
from brokers.india import MINUTE_MS

WINDOWS_MS = ((MINUTE_MS, 1), (10 * MINUTE_MS, 3))
"""Within so long, so many times the burst."""

DENIED_FIRST_MS, DENIED_MOST_MS = 15_000, 300_000
"""After a broker's "too many", the first wait; each that follows at once is twice as long, at most this."""


class Knocks:
    """
    The attempts of one account at one kind of socket; `burst` are allowed in a minute.

    >>> knocks = Knocks(2)
    >>> knocks.add(0), knocks.add(100), knocks.next_ms(200), knocks.next_ms(60_001)
    (None, None, 60000, 60001)
    """

    def __init__(self, burst: int, past: Iterable[int] = (), *, denied: Iterable[int] = ()) -> None:
        self.burst = burst
        self._at_ms: deque[int] = deque(sorted(past), maxlen=burst * WINDOWS_MS[-1][1])
        self._denied_ms = 0
        self._denials = 0
        for at_ms in sorted(denied):
            self.denied(at_ms)

    def next_ms(self, now_ms: int) -> int:
        """When the next attempt may be made: now, or later."""
        earliest_ms = now_ms
        for window_ms, times in WINDOWS_MS:
            most = self.burst * times
            if len(self._at_ms) >= most:
                earliest_ms = max(earliest_ms, self._at_ms[-most] + window_ms)
        if self._denials:
            wait_ms = min(DENIED_FIRST_MS * 2 ** min(self._denials - 1, 16), DENIED_MOST_MS)
            earliest_ms = max(earliest_ms, self._denied_ms + wait_ms)
        # An instant in the future was written down by a clock that was wrong.
        return min(earliest_ms, now_ms + WINDOWS_MS[-1][0])

    def add(self, now_ms: int) -> None:
        """An attempt is made."""
        self._at_ms.append(now_ms)

    def denied(self, now_ms: int) -> None:
        """The broker said that these are too many."""
        self._denied_ms, self._denials = now_ms, self._denials + 1

    def let_in(self) -> None:
        """The broker took one."""
        self._denials = 0


class Who(NamedTuple):
    """One connection of an account: its kind of socket, and its number there."""

    kind: str
    number: int


class Hold(NamedTuple):
    """Why an attempt must wait, in words for people, and when (ms from now) it is worth while to ask again."""

    ms: int
    text: str


TURN_MS = 100
IN_LINE = "The account's connections are down; one of them tries, and the others follow it."


class Turns:
    """
    Whose turn it is, among one account's connections, to knock.

    While none of them stands and the network failed one, only the first tries: the lowest number of the first kind that
    may. So a broker that is away costs one attempt a wait, not one for each connection. When it stands, the others
    follow at once: `on_free` is called with each. Refusals (too many, what nobody understands) concern one kind of
    socket: there the first of the kind tries, while none of the kind stands.

    `kinds` are the account's, in order; `knocks` has the attempts at each; `chance` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        knocks: Callable[[str], Knocks],
        *,
        chance: Callable[[], float],
        on_free: Callable[[Who], None] = lambda who: None,
    ) -> None:
        self._kinds = list(kinds)
        self._knocks = knocks
        self._on_free = on_free
        self._evictions = {kind: Evictions(chance) for kind in kinds}
        self._waiting: set[Who] = set()
        """Those that would try, now or after a wait of their own."""
        self._trying: set[Who] = set()
        self._standing: set[Who] = set()
        self._is_away = False
        """Whether none stands, and the network was to blame."""
        self._shut: dict[str, ErrorKind] = {}
        """Kinds of socket of which none stands, and why the latest attempt failed."""

    # ---------------------------------------------------------------------------------------------------------- events

    def joins(self, who: Who) -> None:
        """There is one more connection."""
        self._put(who, self._waiting)

    def leaves(self, who: Who) -> None:
        """The connection is wanted no more."""
        for each in (self._waiting, self._trying, self._standing):
            each.discard(who)

    def tries(self, who: Who, now_ms: int) -> None:
        """It knocks."""
        self._knocks(who.kind).add(now_ms)
        self._put(who, self._trying)

    def stands(self, who: Who) -> None:
        """It was let in; those that waited for that follow."""
        self._knocks(who.kind).let_in()
        free = {who.kind} if who.kind in self._shut else set[str]()
        if self._is_away:
            free |= {kind for kind in self._kinds if self._shut.get(kind, ErrorKind.NETWORK) is ErrorKind.NETWORK}
        self._is_away = False
        self._shut = {kind: error for kind, error in self._shut.items() if kind not in free}
        self._put(who, self._standing)
        for each in self._in_order(each for each in self._waiting if each.kind in free):
            self._on_free(each)

    def ended(self, who: Who, ending: Ending, now_ms: int) -> bool:
        """Its attempt failed, or the socket that stood is gone; whether that begins a wait for another program."""
        self._put(who, self._waiting)
        if ending.kind is ErrorKind.LIMIT and not ending.lived_s:
            self._knocks(who.kind).denied(now_ms)
        if not any(each.kind == who.kind for each in self._standing):
            self._shut[who.kind] = ending.kind
        if ending.kind is ErrorKind.NETWORK and not self._standing:
            self._is_away = True
        return self._evictions[who.kind].ended(ending, now_ms)

    def forgive(self) -> None:
        """Somebody changed the account: other programs are believed to be gone."""
        for evictions in self._evictions.values():
            evictions.forgive()

    # ------------------------------------------------------------------------------------------------------- questions

    def hold(self, who: Who, now_ms: int) -> Hold | None:
        """Why it must not try now; None: it may."""
        evictions = self._evictions[who.kind]
        if now_ms < evictions.until_ms:
            return Hold(evictions.until_ms - now_ms, evictions.sentence())
        wait_ms = self._knocks(who.kind).next_ms(now_ms) - now_ms
        if wait_ms > 0:
            text = f"Waiting {wait_ms / 1000:.0f} s before the next attempt, so as not to be locked out by the broker."
            return Hold(wait_ms, text)
        return None if self._is_first(who, now_ms) else Hold(TURN_MS, IN_LINE)

    def _is_first(self, who: Who, now_ms: int) -> bool:
        if self._is_away:
            kinds = set(self._kinds)
        elif who.kind in self._shut:
            kinds = {who.kind}
        else:
            return True
        if any(each.kind in kinds for each in self._trying):
            return False
        free = {kind for kind in kinds if kind == who.kind or self._is_free(kind, now_ms)}
        return next(self._in_order(each for each in self._waiting if each.kind in free), who) == who

    def _is_free(self, kind: str, now_ms: int) -> bool:
        return now_ms >= self._evictions[kind].until_ms and self._knocks(kind).next_ms(now_ms) <= now_ms

    def _in_order(self, those: Iterable[Who]) -> Iterator[Who]:
        return iter(sorted(those, key=lambda each: (self._kinds.index(each.kind), each.number)))

    def _put(self, who: Who, where: set[Who]) -> None:
        self.leaves(who)
        where.add(who)


class Turn(NamedTuple):
    """One connection's place in line; see `Turns`."""

    turns: Turns
    who: Who

    def hold(self, now_ms: int) -> Hold | None:
        """Why it must not try now; None: it may."""
        return self.turns.hold(self.who, now_ms)

    def tries(self, now_ms: int) -> None:
        """It knocks."""
        self.turns.tries(self.who, now_ms)

    def stands(self) -> None:
        """It was let in."""
        self.turns.stands(self.who)

    def ended(self, ending: Ending, now_ms: int) -> bool:
        """Its attempt failed, or its socket is gone; whether that begins a wait for another program."""
        return self.turns.ended(self.who, ending, now_ms)
