"""`manage.py run_adapters` as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT, free_port, run_manage, wait_until


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation whose database has its tables."""
    environment = installation(tmp_path_factory.mktemp("installation"))
    assert run_manage("migrate", "-v", "0", **environment).returncode == 0
    return environment


def installation(folder: Path) -> dict[str, str]:
    return {"STREAM_DATA_DIR": str(folder), "STREAM_ENV_FILE": str(folder / ".env"), "DATABASE_URL": ""}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def running(migrated: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "run_adapters"],
        cwd=PROJECT,
        env=os.environ | migrated | {"ZMQ_PORT": str(port)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: listens(port), "the bus", timeout_s=20)
        yield process, port
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_when_it_is_asked_to(
    running: tuple[subprocess.Popen[str], int], number: signal.Signals
) -> None:
    process, _ = running
    began_s = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors
    assert time.monotonic() - began_s < 2.0
    assert "Traceback" not in errors


def test_a_second_one_is_told_which_port_is_taken(
    running: tuple[subprocess.Popen[str], int], migrated: dict[str, str]
) -> None:
    _, port = running
    done = run_manage("run_adapters", **migrated, ZMQ_PORT=str(port))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken" in done.stderr
    assert "ZMQ_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_tables_it_says_what_to_run(tmp_path: Path) -> None:
    done = run_manage("run_adapters", **installation(tmp_path), ZMQ_PORT=str(free_port()))
    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_public_bus_is_refused(migrated: dict[str, str]) -> None:
    done = run_manage("run_adapters", **migrated, ZMQ_HOST="0.0.0.0", ZMQ_PORT=str(free_port()))
    assert done.returncode == 1
    assert "ZMQ_HOST" in done.stderr
    assert "Traceback" not in done.stderr
