"""The product as a user starts it: a database with an account and a key, a (simulated) broker, `manage.py stream`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.clients import Clients, plan
from bench.load import Report
from bench.processes import BenchError, Usage, child, control, environment, free_port, listens, manage, usage, wait_for
from bench.results import Result, result_of
from bench.workloads import Workload

REAL_NAMES = 250
"""The simulated broker quotes about so many real names before SIM0001, SIM0002 …"""
ROLES = {"run_adapters": "adapters", "run_bridge": "bridge", "run_server": "server", "valkey": "valkey"}
QUIET_S = 0.5


class Product:
    """A running product and its simulated broker."""

    def __init__(self, port: int, simulator_port: int, key: str, pids: dict[str, int]) -> None:
        self.port = port
        self.simulator_port = simulator_port
        self.key = key
        self.pids = pids

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}/"

    def usage(self) -> dict[str, Usage]:
        """CPU and memory of each of its processes."""
        return usage(self.pids)

    def packets(self) -> int:
        """How many packets the broker has sent."""
        return int(control(self.simulator_port, "stats")["packets"])


@contextlib.contextmanager
def running(workload: Workload, *, in_process: bool = False, workers: int = 1) -> Iterator[Product]:
    """Starts everything for a workload, with the broker's ticks paused, and stops it all."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port, simulator_port, symbols = free_port(), free_port(), str(workload.symbols + REAL_NAMES)
        env = environment(
            STREAM_DATA_DIR=name,
            STREAM_ENV_FILE=str(folder / ".env"),
            WEBSOCKET_PORT=str(port),
            ZMQ_PORT=str(free_port()),
            THROTTLE_MS=str(workload.throttle_ms),
            SLOW_CLIENT_S="3600",
            SYNC_INSTRUMENTS="false",
        )
        where = ("--port", str(simulator_port), "--symbols", symbols)
        simulators = ("--simulators", f"zerodha={simulator_port}", "--symbols", symbols)
        manage(env, "setup_demo", *simulators, "--key-file", str(folder / "key"))
        key = manage(env, "create_api_key", "bench", "--max-connections", "5000", "--max-symbols", "50000").strip()
        pace = ("--rate", str(workload.rate), "--burst", str(workload.burst_s), "--seed", "1")
        frames = ("--stamp", "--packets-per-frame", str(workload.packets_per_frame), "--instruments", "50000")
        command = [sys.executable, "manage.py"]
        stack.enter_context(child("simulator", [*command, "simulate", "zerodha", *where, *pace, *frames], env, folder))
        wait_for(lambda: listens(simulator_port), "the simulated broker")
        control(simulator_port, "pause_ticks")
        how = ["--in-process"] if in_process else ["--workers", str(workers)]
        parent = stack.enter_context(child("stream", [*command, "stream", *how], env, folder))
        try:
            wait_for(lambda: parent.poll() is not None or listens(port), "the product")
            wait_for(lambda: control(simulator_port, "stats")["connections"] == 1, "the broker's login")
        except BenchError as error:
            raise BenchError(f"{error} It said: {(folder / 'stream.log').read_text()[-2000:]}") from error
        yield Product(port, simulator_port, key, pids_of(parent.pid))


def pids_of(parent: int) -> dict[str, int]:
    """The product's processes by what they are."""
    found: dict[str, int] = {}
    for process in psutil.Process(parent).children(recursive=True):
        line = " ".join(process.cmdline())
        role = next((role for word, role in ROLES.items() if word in line), None)
        if role is not None:
            found[role if role not in found else f"{role} {len(found)}"] = process.pid
    return found


def measure(
    workload: Workload, *, seconds: float, warm_up_s: float = 3.0, in_process: bool = False, workers: int = 1
) -> Result:
    """
    One workload, measured.

    Everybody subscribes while the broker is quiet; then it ticks: a warm-up, the measured time, and a pause in which
    what is under way arrives. Counts are those from the first tick to the last; rates, latencies and CPU time are of
    the measured time only.
    """
    with running(workload, in_process=in_process, workers=workers) as product:
        with Clients(plan(workload, product.url, "native", product.key)) as clients:
            until_subscribed(product, workload)
            _until_quiet(clients)
            packets = product.packets()
            control(product.simulator_port, "resume_ticks")
            time.sleep(warm_up_s)
            clients.phase()
            before = product.usage()
            time.sleep(seconds)
            clients.phase()
            after = product.usage()
            control(product.simulator_port, "pause_ticks")
            reports = _until_quiet(clients)
            packets = product.packets() - packets
        return result_of(
            workload, "in-process" if in_process else "Redis", reports,
            expected=packets * workload.holders, before=before, after=after,
        )  # fmt: skip


def until_subscribed(product: Product, workload: Workload) -> None:
    """Returns when the broker was asked for everything."""

    def all_there() -> bool:
        return bool(control(product.simulator_port, "stats")["instruments"] == workload.ticking)

    wait_for(all_there, f"{workload.ticking} instruments to be subscribed at the broker")


def _until_quiet(clients: Clients) -> list[Report]:
    """All phases until nothing comes any more."""
    reports: list[Report] = []
    while not reports or reports[-1].delivered:
        time.sleep(QUIET_S)
        reports.extend(clients.report())
    return reports
