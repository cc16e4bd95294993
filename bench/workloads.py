"""What is measured: how many clients, symbols and ticks, and who subscribes what. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

CHECKERS = 5
"""Clients that read every tick instead of counting them."""


@dataclass(frozen=True)
class Workload:
    """
    `rate` ticks a second over `symbols` symbols in turn; each of `clients` holds `held` of them in `mode`.

    `silent` more clients hold them and never read. `burst_s`: the ticks come all at once, so often, in one frame.
    `throttle_ms` is the gateway's. Every symbol has the same number of holders, so what is due is known exactly.
    """

    name: str
    about: str
    clients: int
    symbols: int
    held: int
    rate: float
    mode: str = "LTP"
    silent: int = 0
    burst_s: float = 0.0
    packets_per_frame: int = 10
    throttle_ms: int = 0

    @property
    def holders(self) -> int:
        """Reading clients of each symbol that anybody holds."""
        return self.clients * self.held // self.ticking

    @property
    def ticking(self) -> int:
        """Symbols that somebody holds: the broker sends only these."""
        return min(self.symbols, self.clients * self.held)

    @property
    def due_per_s(self) -> float:
        """Deliveries a second when every tick reaches every holder."""
        return self.rate * self.holders

    def symbols_of(self, client: int) -> list[str]:
        """What the client with this number holds: neighbours in the ring of symbols."""
        first = client * self.held
        return [f"SIM{(first + place) % self.ticking + 1:04d}" for place in range(self.held)]

    def at(self, throttle_ms: int) -> Workload:
        """The same with another throttling."""
        return replace(self, throttle_ms=throttle_ms)


ALL = {
    workload.name: workload
    for workload in (
        Workload("a", "idle: 1 client", clients=1, symbols=100, held=100, rate=100),
        Workload("b", "the PRD's: each a tenth of the symbols", clients=100, symbols=1000, held=100, rate=10_000),
        Workload("c", "all to all, LTP", clients=100, symbols=1000, held=1000, rate=10_000),
        Workload("c-quote", "all to all, Quote", clients=100, symbols=1000, held=1000, rate=10_000, mode="QUOTE"),
        Workload("d", "many symbols", clients=100, symbols=3000, held=3000, rate=3000),
        Workload("e", "Depth", clients=100, symbols=200, held=200, rate=2000, mode="DEPTH"),
        Workload("f", "many clients", clients=1000, symbols=1000, held=50, rate=5000),
        Workload(
            "g", "all symbols change in one frame, once a second", clients=100, symbols=3000, held=3000, rate=3000,
            burst_s=1.0, packets_per_frame=3000,
        ),
        Workload("h", "(c) and 10 clients that never read", clients=100, symbols=1000, held=1000, rate=10_000,
                 silent=10),
    )
}  # fmt: skip
