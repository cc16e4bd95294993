"""How long to wait before the next attempt at a connection. Pure: randomness and ages are arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from brokers.contract import ErrorKind

HEALTHY_S = 30.0
"""A connection that lived so long was a success: after it the waits begin anew."""


class Waits(NamedTuple):
    """
    Seconds before the first retry, at most so many, each time so many times the one before; `early_s` are the waits
    before these, one after the other.

    >>> [Waits(4.0, 30.0, early_s=(0.5, 1.0)).after(failures) for failures in range(6)]
    [0.5, 1.0, 4.0, 8.0, 16.0, 30.0]
    """

    first_s: float
    most_s: float
    factor: float = 2.0
    early_s: tuple[float, ...] = ()

    def after(self, failures: int) -> float:
        """The wait after so many failures before this one."""
        if failures < len(self.early_s):
            return self.early_s[failures]
        return min(self.first_s * self.factor ** min(failures - len(self.early_s), 32), self.most_s)


POLICY: dict[ErrorKind, Waits | None] = {
    # In a short outage nobody should wait long after its end.
    ErrorKind.NETWORK: Waits(4.0, 30.0, early_s=(0.5, 1.0, 2.0, 2.0, 2.0, 2.0)),
    ErrorKind.PROTOCOL: Waits(2.0, 60.0),
    ErrorKind.LIMIT: Waits(15.0, 300.0),
    ErrorKind.AUTH: None,
    ErrorKind.ENTITLEMENT: None,
}
"""None: trying again with the same credentials is pointless, and with some brokers locks the account."""


class Backoff:
    """
    One connection's waits: rising, jittered down to half, so that many connections do not return at once.

    `chance` gives numbers from 0 to 1, as `random.random` does.

    >>> backoff = Backoff(lambda: 1.0)
    >>> [backoff.failed(ErrorKind.NETWORK, lived_s=0.0) for _ in range(11)]
    [0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    >>> backoff.failed(ErrorKind.NETWORK, lived_s=3600.0), backoff.failed(ErrorKind.AUTH, lived_s=0.0)
    (0.5, None)
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0
        """Failed attempts since the last healthy connection."""

    def failed(self, kind: ErrorKind, *, lived_s: float) -> float | None:
        """
        Seconds to wait after a connection that lived `lived_s` (0: it never stood); None: until credentials change.
        """
        if lived_s >= HEALTHY_S:
            self._failures = 0
        waits = POLICY[kind]
        if waits is None:
            return None
        wait_s = waits.after(self._failures)
        self._failures += 1
        return wait_s * (0.5 + self._chance() / 2)

    def restart(self) -> None:
        """What kept it from connecting is over (new credentials, awake again): the next wait is the first."""
        self._failures = 0
