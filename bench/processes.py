"""Child processes of the bench: started, asked for their CPU time and memory, stopped; none is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

PROJECT = Path(__file__).resolve().parent.parent
PATIENCE_S = 90.0


class BenchError(Exception):
    """A part did not come up, or said something unexpected."""


class Usage(NamedTuple):
    """What one process has used: CPU seconds since its start, resident bytes now."""

    cpu_s: float
    rss_bytes: int


@contextlib.contextmanager
def child(name: str, command: Sequence[str], env: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the block runs; what it prints goes to `folder`/name.log."""
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=PROJECT, env=dict(env), stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Ctrl-C's signal, then patience, then force."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def python(module: str, *arguments: object) -> list[str]:
    """The command line of one of the bench's own programs."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def manage(env: Mapping[str, str], *arguments: str) -> str:
    """A `manage.py` command run to its end; what it printed on standard output. Raises BenchError."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"manage.py {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def environment(**own: str) -> dict[str, str]:
    """This process' environment without settings of a product that may run here."""
    foreign = {"DATABASE_URL", "REDIS_URL", "THROTTLE_MS", "SLOW_CLIENT_S", "WEBSOCKET_HOST", "ZMQ_HOST"}
    return {name: value for name, value in os.environ.items() if name not in foreign} | own


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Returns when it holds. Raises BenchError when it does not in time."""
    end_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end_s:
            raise BenchError(f"Waited {patience_s:g} s in vain for {what}.")
        time.sleep(0.05)


def usage(pids: Mapping[str, int]) -> dict[str, Usage]:
    """CPU and memory by process name."""
    found = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        times = process.cpu_times()
        found[name] = Usage(times.user + times.system, process.memory_info().rss)
    return found


def control(port: int, command: str, **arguments: object) -> Any:
    """One command to the simulated broker; its answer."""
    query = urllib.parse.urlencode(arguments)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/control/{command}?{query}", timeout=30) as answer:
        return json.loads(answer.read())
