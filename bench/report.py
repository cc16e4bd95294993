"""Tables for people, JSON for programs, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
from rich.console import Console
from rich.table import Table

from bench.results import Result

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

CONSOLE = Console(highlight=False, width=200)
MEBI = 1 << 20


def workloads_table(results: Sequence[Result]) -> Table:
    """What each workload needed and how long ticks took, from the broker's frame to the client's socket."""
    table = Table(title="Broker frame to client socket")
    for name in ("workload", "system", "throttle", "mode"):
        table.add_column(name)
    numbers = (
        "due/s",
        "delivered/s",
        "expected",
        "delivered",
        "merged",
        "lost",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "max ms",
    )
    for name in (*numbers, "CPU-s per M"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            result.workload, result.system, f"{result.throttle_ms} ms", result.mode,
            f"{result.due_per_s:,.0f}", f"{result.delivered_per_s:,.0f}", f"{result.expected:,}",
            f"{result.delivered:,}", f"{result.merged:,}", f"{result.lost:,}", f"{result.p50_ms:.1f}",
            f"{result.p95_ms:.1f}", f"{result.p99_ms:.1f}", f"{result.max_ms:.1f}", f"{result.cpu_s_per_million:.2f}",
        )  # fmt: skip
    return table


def parts_table(results: Sequence[Result]) -> Table:
    """What each process used: cores and MiB."""
    names = list(dict.fromkeys(name for result in results for name in result.parts))
    table = Table(title="Cores and MiB of each process (the load generator is not the product's)")
    for name in ("workload", "system", "throttle", *names, "load generator"):
        table.add_column(name, justify="left" if name in ("workload", "system") else "right")
    for result in results:
        cells = []
        for name in names:
            part = result.parts.get(name)
            cells.append(f"{part.cpu_s / result.seconds:.2f} / {part.rss_bytes / MEBI:.0f}" if part else "")
        load = f"{result.load_cpu_s / result.seconds:.2f}"
        table.add_row(result.workload, result.system, f"{result.throttle_ms} ms", *cells, load)
    return table


def peers_table(results: Sequence[Result]) -> Table:
    """Everybody under the same clients; ratios to the product, which comes first."""
    own = results[0]
    table = Table(title="The same 100 clients x 1,000 symbols, one tick a frame; ratios to the product in Redis mode")
    for name in ("system", "due/s", "delivered/s", "ratio", "p50 ms", "p99 ms", "CPU-s per M", "ratio", "MiB"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for result in results:
        memory = sum(part.rss_bytes for part in result.parts.values()) / MEBI
        table.add_row(
            result.system, f"{result.due_per_s:,.0f}", f"{result.delivered_per_s:,.0f}",
            f"{result.delivered_per_s / own.delivered_per_s:.3f}", f"{result.p50_ms:.1f}", f"{result.p99_ms:.1f}",
            f"{result.cpu_s_per_million:.2f}", f"{result.cpu_s_per_million / own.cpu_s_per_million:.2f}",
            f"{memory:.0f}",
        )  # fmt: skip
    return table


def save(results: Sequence[Result], path: Path) -> None:
    """All figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))


def plot_load(series: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Latency against load: p50 solid, p99 dashed, a colour a system."""
    figure, axes = plt.subplots(figsize=(9, 5.5))
    for color, (name, results) in zip(("C0", "C1", "C2", "C3"), series.items(), strict=False):
        millions = [result.due_per_s / 1e6 for result in results]
        axes.plot(millions, [result.p50_ms for result in results], f"{color}o-", label=f"{name}, p50")
        axes.plot(millions, [result.p99_ms for result in results], f"{color}s--", label=f"{name}, p99")
    axes.set_yscale("log")
    axes.set_xlabel("million deliveries a second that are due")
    axes.set_ylabel("ms from broker frame to client socket")
    axes.set_title("Latency against load: 100 clients, 1,000 symbols each, LTP, 2 cores for everything")
    axes.axhline(100, color="grey", linewidth=0.8, linestyle=":")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    _write(figure, path)


def plot_lines(
    panels: Sequence[tuple[str, str, Sequence[float], Mapping[str, Sequence[float]]]], path: Path, unit: str
) -> None:
    """Panels side by side: (title, name of x, x, lines by name)."""
    figure, all_axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.6), squeeze=False)
    for axes, (title, name, values, lines) in zip(all_axes[0], panels, strict=True):
        for label, heights in lines.items():
            axes.plot(values, heights, "o-", label=label)
        axes.set_title(title)
        axes.set_xlabel(name)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.25)
        axes.legend()
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
