"""Made-up ticks at an even pace, for peers that have no broker side: the bytes a client of the product would get."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.workloads import Workload

STEP_TICKS = 10
"""As many as a broker's frame has."""


class Feed:
    """
    The ticks of a workload, in turn, each with a clock in its price and its own sequence.

    >>> feed = Feed(Workload("x", "", clients=1, symbols=2, held=2, rate=10))
    >>> [(symbol, payload[:20]) for symbol, payload in feed.take(3)]
    [('SIM0001', b'{"symbol":"SIM0001",'), ('SIM0002', b'{"symbol":"SIM0002",'), ('SIM0001', b'{"symbol":"SIM0001",')]
    """

    def __init__(self, workload: Workload) -> None:
        self.sent = 0
        self._rate = workload.rate
        self._symbols = [f"SIM{number + 1:04d}" for number in range(workload.ticking)]
        self._due = 0.0

    def take(self, count: int) -> Iterator[tuple[str, bytes]]:
        """The next so many (symbol, message)."""
        now_ns = time.time_ns()
        price = (now_ns // 10_000 & 0xFFFFFF) / 100
        symbols, received_ms = self._symbols, now_ns // 1_000_000
        for _ in range(count):
            turn, place = divmod(self.sent, len(symbols))
            self.sent += 1
            yield (
                symbols[place],
                b'{"symbol":"%s","exchange":"NSE","mode":"LTP","ltp":%.2f,"timestamp":"2026-01-15T10:30:00.123+05:30",'
                b'"received_ms":%d,"seq":%d,"broker":"zerodha","simulated":true}'
                % (symbols[place].encode(), price, received_ms, turn + 1_700_000_000_000),
            )

    def due(self, elapsed_s: float) -> int:
        """How many are due after so many more seconds; what was missed is caught up for a quarter second at most."""
        self._due = min(self._due + elapsed_s * self._rate, max(self._rate / 4, 1.0))
        count = int(self._due)
        self._due -= count
        return count

    @property
    def step_s(self) -> float:
        """The time between two looks at what is due: that of one broker frame, between 1 and 5 ms."""
        return min(max(STEP_TICKS / self._rate, 0.001), 0.005)
