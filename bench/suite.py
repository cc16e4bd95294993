"""The measurements `make bench` makes, in the order in which they are of interest."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from bench import adapter, compare, product, report, scaling
from bench.clients import Clients, plan
from bench.processes import BenchError, control
from bench.report import CONSOLE
from bench.results import Result
from bench.workloads import ALL, Workload

THROTTLES_MS = (0, 50)
LOAD_RATES = (1000, 2500, 5000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000)
NATS_RATES = (1000, 2500, 5000, 10_000, 15_000, 20_000, 25_000)
LIMIT_MS = 100.0
SOAK_S, SOAK_STEP_S = 600.0, 20.0
SMOKE_S = 3.0

Run = tuple[Workload, bool]
"""A workload, and whether everything runs in one process."""


def everything(options: argparse.Namespace) -> None:
    """All but the ten minutes of `soak`."""
    for command in (workloads, peers, load, scaling.run, adapter.run):
        command(options)


def workloads(options: argparse.Namespace) -> None:
    """Every workload, throttled and not, with Redis; those of the targets also in one process."""
    chosen = [ALL[name] for name in options.only or ALL]
    runs = [
        (workload.at(throttle_ms), in_process)
        for in_process in (False, True)
        for workload in chosen
        for throttle_ms in (THROTTLES_MS if not in_process else (0,))
        if not in_process or workload.name in ("a", "b", "c")
    ]
    results = list(_each(runs, lambda run: product.measure(run[0], seconds=options.seconds, in_process=run[1])))
    CONSOLE.print(report.workloads_table(results), report.parts_table(results))
    report.save(results, options.out / "workloads.json")


def peers(options: argparse.Namespace) -> None:
    """The product and its peers, all under workload c; what cannot keep up shows what it can."""
    full, prd = ALL["c"], replace(ALL["c"], rate=100)
    own = _said(product.measure(full, seconds=options.seconds))
    results = [
        own,
        _said(product.measure(full, seconds=options.seconds, in_process=True)),
        *(_said(compare.measure(name, full, seconds=options.seconds)) for name in ("nats-server", "websockets")),
        _said(compare.measure("textbook Channels", prd, seconds=options.seconds)),
    ]
    CONSOLE.print(report.peers_table(results))
    report.save(results, options.out / "peers.json")


def load(options: argparse.Namespace) -> None:
    """Latency against load, up to where it breaks; the highest rate with p99 below 100 ms."""
    series = {
        "with Redis": _until_broken(LOAD_RATES, lambda run: product.measure(run, seconds=options.seconds)),
        "one process": _until_broken(
            LOAD_RATES, lambda run: product.measure(run, seconds=options.seconds, in_process=True)
        ),
        "nats-server": _until_broken(
            NATS_RATES, lambda run: compare.measure("nats-server", run, seconds=options.seconds)
        ),
    }
    for name, results in series.items():
        best = max((result.delivered_per_s for result in results if _holds(result)), default=0.0)
        CONSOLE.print(f"{name}: {best:,.0f} deliveries/s at p99 below {LIMIT_MS:g} ms")
    everyone = [result for results in series.values() for result in results]
    report.save(everyone, options.out / "load.json")
    report.plot_load(series, options.out / "load.png")


def soak(options: argparse.Namespace) -> None:
    """Ten minutes of workload b: memory of each process over time."""
    workload = ALL["b"]
    with product.running(workload) as running, Clients(plan(workload, running.url, "native", running.key)) as clients:
        product.until_subscribed(running, workload)
        clients.report()
        control(running.simulator_port, "resume_ticks")
        minutes: list[float] = []
        sizes: dict[str, list[float]] = {name: [] for name in running.pids}
        began_s = time.monotonic()
        while time.monotonic() - began_s < SOAK_S:
            time.sleep(SOAK_STEP_S)
            [counted] = clients.report()
            minutes.append((time.monotonic() - began_s) / 60)
            for name, used in running.usage().items():
                sizes[name].append(used.rss_bytes / report.MEBI)
            mebis = ", ".join(f"{name} {values[-1]:.1f}" for name, values in sizes.items())
            CONSOLE.print(
                f"{minutes[-1]:4.1f} min  {counted.delivered / counted.seconds:,.0f}/s  "
                f"p99 {counted.p99_us / 1000:.1f} ms  gaps {counted.gaps}  MiB: {mebis}"
            )
            if counted.closed or not counted.delivered:
                raise BenchError(f"{counted.closed} clients were closed, {counted.delivered} ticks came.")
    panel = ("Memory under the PRD's load", "minutes", minutes, sizes)
    report.plot_lines([panel], options.out / "soak.png", "MiB")


def smoke(options: argparse.Namespace) -> None:
    """A minute, without thresholds but that every tick is accounted for: does the bench still work?"""
    runs = [(ALL["a"], False), (ALL["b"], False), (replace(ALL["b"], rate=2000).at(50), False), (ALL["b"], True)]
    results = list(_each(runs, lambda run: product.measure(run[0], seconds=SMOKE_S, warm_up_s=1.0, in_process=run[1])))
    results.append(_said(compare.measure("nats-server", replace(ALL["b"], rate=2000), seconds=SMOKE_S)))
    CONSOLE.print(report.workloads_table(results), report.parts_table(results))
    for result in results[:-1]:
        if result.lost or result.gaps or result.closed or not result.delivered:
            raise BenchError(
                f"Workload {result.workload} ({result.system}): {result.lost} ticks are not accounted for."
            )


def _until_broken(rates: Sequence[float], measure: Callable[..., Result]) -> list[Result]:
    """The all-to-all workload at rising rates, up to the first at which latency is out of hand."""
    results: list[Result] = []
    for rate in rates:
        results.append(_said(measure(replace(ALL["c"], rate=rate))))
        if not _holds(results[-1]):
            break
    return results


def _holds(result: Result) -> bool:
    return result.p99_ms < LIMIT_MS and result.delivered_per_s > 0.97 * result.due_per_s


def _each(runs: Iterable[Run], measure: Callable[[Run], Result]) -> Iterator[Result]:
    for run in runs:
        yield _said(measure(run))


def _said(result: Result) -> Result:
    """Shows a result at once: the whole takes a while."""
    CONSOLE.print(
        f"{result.workload:8} {result.system:18} throttle {result.throttle_ms:2} ms  {result.due_per_s:>11,.0f}/s due  "
        f"{result.delivered_per_s:>11,.0f}/s  p50 {result.p50_ms:7.1f}  p99 {result.p99_ms:7.1f} ms  "
        f"{result.cpu_s_per_million:8.2f} CPU-s/M  lost {result.lost:,}"
    )
    return result
