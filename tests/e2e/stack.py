"""
The whole product as separate processes, each of which a test may kill, freeze and start again.

Broker prices come from the simulator through the broker's real wire protocol; its log, read over HTTP, is the witness
for what our side sent to the broker.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import conftest
from tests.conftest import PROJECT, Valkey, free_port

PATIENCE_S = 20.0
ACCOUNT = """
from brokers.models import Broker, BrokerAccount
broker, _ = Broker.objects.get_or_create(slug="zerodha", defaults={"name": "Zerodha"})
BrokerAccount.objects.create(broker=broker, name="e2e", endpoint="ws://127.0.0.1:1",
    credentials={"api_key": "demo", "access_token": "demo-token"})
"""


class Process:
    """One child with its own log file."""

    def __init__(self, name: str, arguments: list[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self._arguments = arguments
        self._env = env
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        """Starts it; what it prints is appended to its log."""
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, *self._arguments], cwd=PROJECT, env=self._env, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal; after one that ends it, waits for the end."""
        assert self._child is not None
        self._child.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._child.wait(PATIENCE_S)

    def stop(self) -> int | None:
        """Asks it to end; its exit code, None if it was not running."""
        if self._child is None or self._child.poll() is not None:
            return None
        self.kill(signal.SIGTERM)
        return self._child.returncode

    def text(self) -> str:
        """All it has printed."""
        return self.log.read_text(errors="replace")


class Simulator:
    """The simulated broker's switches and log, from outside its process."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, command: str, **arguments: object) -> Any:
        """Runs one control command; its answer."""
        query = urllib.parse.urlencode({name: value for name, value in arguments.items() if value is not None})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/control/{command}?{query}", timeout=10) as answer:
            return json.loads(answer.read())

    def tokens(self, event: str) -> set[int]:
        """All tokens the log names for this kind of event."""
        return {token for entry in self.call("log", event=event) for token in entry["tokens"]}


class Stack:
    """
    Valkey (or none), simulator, adapters, bridge and servers on free ports, with a database, an account and a key.

    `server`: run_server, daphne or uvicorn. Without `redis` the bridge runs inside the one server.
    """

    def __init__(self, folder: Path, template: Template, *, redis: bool = True, server: str = "run_server") -> None:
        self.folder = folder
        self.key = template.key
        self.redis = Valkey() if redis else None
        self.port, self.zmq_port, self.simulator = free_port(), free_port(), Simulator(free_port())
        shutil.copytree(template.folder, folder, dirs_exist_ok=True)
        self.env = template.env | {
            "STREAM_DATA_DIR": str(folder),
            "STREAM_ENV_FILE": str(folder / ".env"),
            "WEBSOCKET_PORT": str(self.port),
            "ZMQ_PORT": str(self.zmq_port),
            "REDIS_URL": self.redis.url if self.redis else "",
        }
        self.server = server
        self.processes: dict[str, Process] = {}

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}/"

    def start(
        self, *, rate: float = 50, symbols: int = 60, throttle_ms: int = 50, instruments: int = 3000, **env: str
    ) -> None:
        """Starts every process and waits until clients can connect and the adapters are bound."""
        self.env |= {"THROTTLE_MS": str(throttle_ms), **env}
        if self.redis:
            self.redis.start()
        self.manage("shell", "-c", _point_account_at(self.simulator.port))
        port = str(self.simulator.port)
        pace = ("--rate", str(rate), "--symbols", str(symbols), "--instruments", str(instruments))
        self.add("simulator", "simulate", "zerodha", *pace, "--port", port)
        self.add("adapters", "run_adapters")
        if self.redis:
            self.add("bridge", "run_bridge")
        self.add_server("server", self.port)
        wait_for(lambda: listens(self.zmq_port), "the adapters to bind")

    def add(self, name: str, *arguments: str, **env: str) -> Process:
        """Starts one more `manage.py` process."""
        return self._add(name, ["manage.py", *arguments], env)

    def add_server(self, name: str, port: int) -> Process:
        """Starts one more server process and waits until it listens."""
        on = ["127.0.0.1", str(port)]
        arguments = {
            "run_server": ["manage.py", "run_server"],
            "daphne": ["-m", "daphne", "-b", on[0], "-p", on[1], "streamproject.asgi:application"],
            "uvicorn": ["-m", "uvicorn", "--host", on[0], "--port", on[1], "--lifespan", "off",
                        "streamproject.asgi:application"],
        }[self.server]  # fmt: skip
        process = self._add(name, arguments, {"WEBSOCKET_PORT": str(port)})
        wait_for(lambda: listens(port), f"{name} to listen")
        return process

    def restart(self, name: str) -> None:
        """Starts a process again that a test has ended."""
        self.processes[name].start()
        if name.startswith("server"):
            wait_for(lambda: listens(self.port), f"{name} to listen")

    def manage(self, *arguments: str) -> str:
        """Runs a `manage.py` command to its end; what it printed on standard output."""
        return manage(self.env, *arguments)

    def stop(self) -> None:
        """Ends everything, servers first."""
        for process in reversed(self.processes.values()):
            if process._child is not None and process._child.poll() is None:
                process.kill(signal.SIGCONT)
                process.stop()
        if self.redis:
            self.redis.stop()

    def logs(self) -> str:
        """What every process printed, for a failing test's report."""
        return "\n".join(f"--- {name}\n{process.text()[-4000:]}" for name, process in self.processes.items())

    def _add(self, name: str, arguments: list[str], env: dict[str, str]) -> Process:
        process = Process(name, arguments, self.env | env, self.folder / f"{name}.log")
        self.processes[name] = process
        process.start()
        return process


class Template:
    """A migrated database with instruments, an account and a key: made once, copied for each stack."""

    def __init__(self, folder: Path, *, symbols: int) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {
            "STREAM_DATA_DIR": str(folder),
            "STREAM_ENV_FILE": str(folder / ".env"),
            "SECRET_KEY": "a secret that only this test run knows and that is long enough",
            "CREDENTIALS_KEY": "another secret that only this test run knows and that is long enough",
            "DJANGO_SETTINGS_MODULE": "streamproject.settings",
            "REDIS_URL": "",
        }
        master = folder / "instruments.csv"
        manage(self.env, "migrate", "-v", "0")
        master.write_text(manage(self.env, "simulate", "zerodha", "--symbols", str(symbols), "--master"))
        manage(self.env, "sync_instruments", "zerodha", "--file", str(master))
        manage(self.env, "shell", "-c", ACCOUNT)
        self.key = manage(self.env, "create_api_key", "e2e").strip()


_FOREIGN = {"DATABASE_URL", "REDIS_URL", "THROTTLE_MS", "SLOW_CLIENT_S", "TICK_LANES"}


def _point_account_at(port: int) -> str:
    return f"from brokers.models import BrokerAccount as A; A.objects.update(endpoint='ws://127.0.0.1:{port}')"


def listens(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def manage(env: dict[str, str], *arguments: str) -> str:
    """A `manage.py` command with exactly this environment; fails with its own words unless it succeeds."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """The test bench's own waiting, with the patience that whole processes need."""
    conftest.wait_until(condition, what, patience_s)


async def wait_until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """As `wait_for`, while other tasks go on."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, f"Waited {patience_s} s in vain for {what}."
        await asyncio.sleep(0.01)
