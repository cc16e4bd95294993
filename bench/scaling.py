"""What a tick costs as clients, symbols and server processes grow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from bench import product, report
from bench.report import CONSOLE
from bench.results import Result
from bench.workloads import ALL, Workload

CLIENTS = (10, 50, 100, 200, 400)
SYMBOLS = (100, 500, 1000, 2000, 3000)
RATES = (1000, 2500, 5000, 10_000)
WORKERS = (1, 2, 3)
BASE = replace(ALL["c"], rate=2000)


def run(options: argparse.Namespace) -> None:
    """Cost against clients, symbols, ticks a second, and processes."""
    panels = {
        "clients": [replace(BASE, clients=count) for count in CLIENTS],
        "symbols": [replace(BASE, symbols=count, held=count) for count in SYMBOLS],
        "ticks a second": [replace(BASE, rate=count) for count in RATES],
    }
    results = {name: [_measure(workload, options, 1) for workload in several] for name, several in panels.items()}
    results["server processes"] = [_measure(BASE, options, count) for count in WORKERS]
    values = {"clients": CLIENTS, "symbols": SYMBOLS, "ticks a second": RATES, "server processes": WORKERS}
    for name, several in results.items():
        CONSOLE.print(_table(name, values[name], several))
    report.save([result for several in results.values() for result in several], options.out / "scaling.json")
    report.plot_lines(
        [("CPU", name, values[name], _cores(several)) for name, several in results.items()],
        options.out / "scaling.png",
        "cores",
    )


def _measure(workload: Workload, options: argparse.Namespace, workers: int) -> Result:
    return product.measure(workload, seconds=options.seconds, workers=workers)


def _cores(results: Sequence[Result]) -> dict[str, Sequence[float]]:
    """Cores by kind of process; several servers together."""
    kinds: dict[str, list[float]] = {name: [] for name in ("adapters", "bridge", "valkey", "server")}
    for result in results:
        for kind, line in kinds.items():
            line.append(
                sum(part.cpu_s for name, part in result.parts.items() if name.startswith(kind)) / result.seconds
            )
    return dict(kinds)


def _table(name: str, values: Sequence[float], results: Sequence[Result]) -> Table:
    table = Table(title=f"Growing {name}; else 100 clients x 1,000 symbols, 2,000 ticks/s, LTP")
    cores = _cores(results)
    for column in (name, "delivered/s", "p50 ms", "p99 ms", *(f"{kind}, cores" for kind in cores), "server MiB"):
        table.add_column(column, justify="right")
    for place, (value, result) in enumerate(zip(values, results, strict=True)):
        mebis = sum(part.rss_bytes for kind, part in result.parts.items() if kind.startswith("server")) / report.MEBI
        table.add_row(
            f"{value:,}", f"{result.delivered_per_s:,.0f}", f"{result.p50_ms:.1f}", f"{result.p99_ms:.1f}",
            *(f"{line[place]:.2f}" for line in cores.values()), f"{mebis:.0f}",
        )  # fmt: skip
    return table
