"""Made-up ticks at an even pace, for peers that have no broker side: the bytes a client of the product would get."""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from bench.workloads import ALL, Workload

STEP_TICKS = 10
"""As many as a broker's frame has."""
CATCH_UP_S = 0.25

Ticks = list[tuple[str, bytes]]


class Feed:
    """
    The ticks of a workload, in turn, each with a clock in its price and its own sequence.

    >>> feed = Feed(Workload("x", "", clients=1, symbols=2, held=2, rate=10))
    >>> [(symbol, payload[:20]) for symbol, payload in feed.take(3)]
    [('SIM0001', b'{"symbol":"SIM0001",'), ('SIM0002', b'{"symbol":"SIM0002",'), ('SIM0001', b'{"symbol":"SIM0001",')]
    """

    def __init__(self, workload: Workload) -> None:
        self.sent = 0
        self.step_s = min(max(STEP_TICKS / workload.rate, 0.001), 0.005)
        self._rate = workload.rate
        self._symbols = [f"SIM{number + 1:04d}" for number in range(workload.ticking)]
        self._due = 0.0

    def take(self, count: int) -> Ticks:
        """The next so many (symbol, message)."""
        now_ns = time.time_ns()
        price, received_ms = (now_ns // 10_000 & 0xFFFFFF) / 100, now_ns // 1_000_000
        taken = []
        for _ in range(count):
            turn, place = divmod(self.sent, len(self._symbols))
            self.sent += 1
            symbol = self._symbols[place]
            message = (
                f'{{"symbol":"{symbol}","exchange":"NSE","mode":"LTP","ltp":{price:.2f},'
                f'"timestamp":"2026-01-15T10:30:00.123+05:30","received_ms":{received_ms},'
                f'"seq":{turn + 1_700_000_000_000},"broker":"zerodha","simulated":true}}'
            )
            taken.append((symbol, message.encode()))
        return taken

    def due(self, elapsed_s: float) -> int:
        """How many are due after so many more seconds; what was missed is caught up for a quarter second at most."""
        self._due = min(self._due + elapsed_s * self._rate, max(self._rate * CATCH_UP_S, 1.0))
        count = int(self._due)
        self._due -= count
        return count


async def pump(workload: Workload, put: Callable[[Ticks], Awaitable[None]]) -> None:
    """From the signal SIGUSR1 on, hands ticks to `put` at the workload's pace, for ever."""
    go = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)
    await go.wait()
    feed, last_s = Feed(workload), time.monotonic()
    while True:
        now_s = time.monotonic()
        count = feed.due(now_s - last_s)
        last_s = now_s
        if count:
            await put(feed.take(count))
        await asyncio.sleep(feed.step_s)


def arguments(about: str | None) -> tuple[int, Workload]:
    """The port and the workload of a peer's command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("port", type=int)
    parser.add_argument("workload", choices=ALL)
    parser.add_argument("rate", type=float)
    given = parser.parse_args()
    return given.port, replace(ALL[given.workload], rate=given.rate)
