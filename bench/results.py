"""What one measurement found, and the tables and files it goes into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bench.load import Report
from bench.processes import Usage
from bench.workloads import Workload


class Part(msgspec.Struct):
    """One process: CPU seconds in the measured time, resident bytes at its end."""

    cpu_s: float
    rss_bytes: int


class Result(msgspec.Struct):
    """
    One measurement. Counts are of all ticks from first to last; the rest is of the measured time.

    `merged` is what newer ticks stood for, by throttling (as far as the checking clients saw it) or because a client
    was slow; `gaps` are breaks of a sequence, in the checking clients, that neither explains.
    """

    workload: str
    system: str
    throttle_ms: int
    mode: str
    rate: float
    clients: int
    due_per_s: float
    delivered_per_s: float
    expected: int
    delivered: int
    merged: int
    checked: int
    gaps: int
    closed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    load_cpu_s: float
    seconds: float
    megabytes_per_s: float
    parts: dict[str, Part]

    @property
    def cpu_s_per_million(self) -> float:
        """CPU seconds of all the system's processes per million deliveries."""
        cpu_s = sum(part.cpu_s for part in self.parts.values())
        return cpu_s * 1e6 / (self.delivered_per_s * self.seconds) if self.delivered_per_s else 0.0

    @property
    def lost(self) -> int:
        """Deliveries that were due, did not come, and were not merged into a newer one."""
        return self.expected - self.delivered - self.merged


def result_of(
    workload: Workload,
    system: str,
    reports: Sequence[Report],
    *,
    expected: int,
    before: Mapping[str, Usage],
    after: Mapping[str, Usage],
) -> Result:
    """Puts the load generator's phases (warm-up, the measured time, what follows) and the processes' usage together."""
    measured = reports[1]
    return Result(
        workload=workload.name,
        system=system,
        throttle_ms=workload.throttle_ms,
        mode=workload.mode,
        rate=workload.rate,
        clients=workload.clients,
        due_per_s=workload.due_per_s,
        delivered_per_s=measured.delivered / measured.seconds,
        expected=expected,
        delivered=sum(report.delivered for report in reports),
        merged=sum(report.merged for report in reports) + _conflated(reports, workload),
        checked=sum(report.checked for report in reports),
        gaps=sum(report.gaps for report in reports),
        closed=sum(report.closed for report in reports),
        p50_ms=measured.p50_us / 1000,
        p95_ms=measured.p95_us / 1000,
        p99_ms=measured.p99_us / 1000,
        max_ms=measured.max_us / 1000,
        load_cpu_s=measured.cpu_s,
        seconds=measured.seconds,
        megabytes_per_s=measured.received_bytes / measured.seconds / 1e6,
        parts={
            name: Part(after[name].cpu_s - before[name].cpu_s, after[name].rss_bytes)
            for name in after
            if name in before
        },
    )


def _conflated(reports: Sequence[Report], workload: Workload) -> int:
    """What throttling replaced, for all clients: the checking ones' sum, which all others' is by construction."""
    checkers = min(workload.clients, 5)
    return sum(report.conflated for report in reports) * workload.clients // checkers
