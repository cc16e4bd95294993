"""How many connections and symbols each API key holds in this process. Pure."""

from __future__ import annotations

from collections import Counter

from marketdata.demand import Holders

Instrument = tuple[str, str]
"""(symbol, exchange): a symbol held in three modes, or by three connections of one key, counts once."""


class Quota:
    """
    Counts by API key id.

    >>> quota = Quota()
    >>> quota.connect(1, limit=1), quota.connect(1, limit=1)
    (True, False)
    >>> quota.hold(1, ("SBIN", "NSE"), limit=1), quota.hold(1, ("INFY", "NSE"), limit=1)
    (True, False)
    """

    def __init__(self) -> None:
        self._connections: Counter[int] = Counter()
        self._instruments: dict[int, Holders[Instrument]] = {}

    def connect(self, key_id: int, limit: int) -> bool:
        """Whether one more connection of this key may be; if so it is counted."""
        if self._connections[key_id] >= limit:
            return False
        self._connections[key_id] += 1
        return True

    def disconnect(self, key_id: int) -> None:
        """One connection less."""
        self._connections[key_id] -= 1
        if not self._connections[key_id]:
            del self._connections[key_id]
            self._instruments.pop(key_id, None)

    def hold(self, key_id: int, instrument: Instrument, limit: int) -> bool:
        """Whether this key may hold the instrument; if so one holder more is counted."""
        held = self._instruments.setdefault(key_id, Holders())
        if instrument not in held and len(held) >= limit:
            return False
        held.add((instrument,))
        return True

    def let_go(self, key_id: int, instrument: Instrument) -> None:
        """One holder less."""
        if key_id in self._instruments:
            self._instruments[key_id].remove((instrument,))
