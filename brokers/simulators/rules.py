"""What a simulated broker allows, how fast it ticks, and whom it still takes for connected."""

from __future__ import annotations

import math
from typing import TypeVar

import msgspec

IDLE_S = 0.05
_CATCH_UP_S = 0.25

Number = TypeVar("Number", int, float)


class Rules(msgspec.Struct):
    """
    The broker's limits, changeable while it runs.

    `ignore_beyond`: instruments of one socket beyond this number are taken without a word and never tick.
    `lock_after`: so many wrong logins of a key in a row lock it (None: never). `ghost_s`: so many seconds a connection
    that ended without a close frame from the client goes on counting.
    """

    sockets_per_key: int
    instruments_per_socket: int
    ignore_beyond: int | None = None
    lock_after: int | None = 3
    ghost_s: float = 0.0

    def change(
        self,
        sockets: int | None = None,
        instruments: int | None = None,
        ignore_beyond: int | None = None,
        lock_after: int | None = None,
        ghost_s: float | None = None,
    ) -> None:
        """
        Changes those that are given; -1 ends the ignoring, or the locking.

        Raises ValueError: a number out of range.
        """
        if sockets is not None:
            self.sockets_per_key = at_least("The sockets of a key", sockets, 0)
        if instruments is not None:
            self.instruments_per_socket = at_least("The instruments of a socket", instruments, 0)
        if ignore_beyond is not None:
            self.ignore_beyond = None if ignore_beyond == -1 else at_least("The number", ignore_beyond, 0)
        if lock_after is not None:
            self.lock_after = None if lock_after == -1 else at_least("The wrong logins that lock a key", lock_after, 1)
        if ghost_s is not None:
            self.ghost_s = at_least("The seconds that a ghost counts", ghost_s, 0)


class Ghosts:
    """
    Connections that ended without a word: for some time the broker takes them for open. By the connection's number.

    >>> ghosts = Ghosts()
    >>> ghosts.add(7, ("demo", ""), until_s=60.0)
    >>> ghosts.of(("demo", ""), 59.0), ghosts.of(("demo", "depth20"), 59.0), ghosts.of(("demo", ""), 60.0)
    ([7], [], [])
    """

    def __init__(self) -> None:
        self._until: dict[int, tuple[tuple[str, str], float]] = {}
        """Whose (api key and kind of socket), and until when."""

    def add(self, number: int, owner: tuple[str, str], until_s: float) -> None:
        """One more."""
        self._until[number] = owner, until_s

    def lay(self, number: int) -> None:
        """One less."""
        self._until.pop(number, None)

    def of(self, owner: tuple[str, str], now_s: float) -> list[int]:
        """Those of an api key and kind, oldest first; whose time is over are forgotten."""
        self._until = {number: (whose, end_s) for number, (whose, end_s) in self._until.items() if end_s > now_s}
        return [number for number, (whose, _) in self._until.items() if whose == owner]

    def count(self, now_s: float) -> int:
        """How many there are of everybody."""
        return sum(end_s > now_s for _, end_s in self._until.values())


class Pace:
    """
    How many ticks are due: `rate` a second, evenly in time; or in bursts, all of a burst's time at once at its end.

    What was missed is caught up for a quarter second at most.

    >>> pace = Pace(100.0)
    >>> pace.due(0.025), pace.due(0.005), pace.due(60.0)
    (2, 1, 25)
    >>> pace = Pace(100.0, burst_s=1.0)
    >>> pace.due(0.99), pace.due(0.01), pace.due(0.5)
    (0, 100, 0)
    """

    def __init__(self, rate: float, burst_s: float = 0.0) -> None:
        self.rate = rate
        self.burst_s = burst_s
        self._least = max(1.0, rate * burst_s)
        self._most = max(self._least, rate * _CATCH_UP_S)
        self._credit = 0.0

    def due(self, elapsed_s: float) -> int:
        """Ticks due after so many more seconds."""
        self._credit = min(self._credit + elapsed_s * self.rate, self._most)
        # Sums of many small floats end a hair below the number they stand for.
        if self._credit < self._least - 1e-6:
            return 0
        due = int(self._credit + 1e-6)
        self._credit -= due
        return due

    def wait_s(self) -> float:
        """Seconds until the next are due."""
        return (self._least - self._credit) / self.rate if self.rate else IDLE_S


def at_least(what: str, number: Number, least: Number) -> Number:
    """The number. Raises ValueError: it is smaller, or none at all."""
    if not math.isfinite(number) or number < least:
        raise ValueError(f"{what} must be at least {least}, not {number}.")
    return number
