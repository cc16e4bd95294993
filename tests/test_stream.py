"""The one command, as a user starts it: the demo comes up, heals, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from brokers import registry
from brokers.india import INDIA
from brokers.simulators.universe import listings
from tests.conftest import PROJECT, free_port, run_manage
from tests.e2e.client import Client
from tests.e2e.stack import wait_for, wait_until

READY_S = 60.0
BACK_S = 15.0
"""Three times the promised 5 s from a kill to the next tick."""


class Demo:
    """`manage.py stream --demo` on ports and in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port, self.zmq_port = free_port(), free_port()
        self.folder = folder
        self.log = folder / "stream.log"
        env = os.environ | {"WEBSOCKET_PORT": str(self.port), "ZMQ_PORT": str(self.zmq_port), "REDIS_URL": ""}
        words = ("stream", "--demo", "--symbols", "50", "--demo-folder", str(folder / "demo"), *arguments)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", *words], cwd=PROJECT, env=env, stdout=log, stderr=subprocess.STDOUT
            )

    def ready(self) -> None:
        """Waits for the welcome."""
        wait_for(lambda: "Ready after" in self.text() or self.process.poll() is not None, "the demo", READY_S)
        assert self.process.poll() is None, self.text()

    def text(self) -> str:
        """All it has printed."""
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def key(self) -> str:
        """The key it printed."""
        found = re.search(r"API key\s+(\S+)", self.text())
        assert found
        return found[1]

    def child(self, word: str) -> psutil.Process:
        """The child with this word on its command line."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if any(word in part for part in child.cmdline()):
                return child
        raise AssertionError(f"There is no child {word!r}: {self.text()}")


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Demo]:
    """A demo, with the arguments of the test's parameter."""
    own = Demo(tmp_path, *getattr(request, "param", ()))
    try:
        own.ready()
        yield own
    finally:
        if own.process.poll() is None:
            own.process.send_signal(signal.SIGINT)
            own.process.wait(20)
        print(own.text())


@pytest.mark.parametrize("demo", [(), ("--workers", "2"), ("--in-process",)], ids=str, indirect=True)
async def test_the_demo_ticks_and_ctrl_c_leaves_no_process(demo: Demo) -> None:
    async with Client(demo.url, demo.key) as client:
        await client.subscribe("NSE:SBIN")
        assert (await client.tick("NSE:SBIN", beyond=3))["simulated"] is True
    children = psutil.Process(demo.process.pid).children(recursive=True)
    assert len(children) >= 3
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(20) == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert "SIMULATED" in demo.text()
    assert "Traceback" not in demo.text()


ALL_BROKERS = ("--broker", "all", "--symbols", "300", "--rate", "2000")


@pytest.mark.parametrize("demo", [ALL_BROKERS], ids=["all"], indirect=True)
async def test_all_brokers_at_once_give_what_each_of_them_has(demo: Demo) -> None:
    async with Client(demo.url, demo.key, status=True) as client:

        def connected() -> set[str]:
            up = ("connected", "market_closed")  # the hour of the day decides which
            return {told["broker"] for told in client.statuses if told.get("state") in up and "broker" in told}

        await wait_until(lambda: connected() >= set(registry.slugs()), "every broker to be connected", READY_S)
        some_only = ["GLOBAL_INDEX:GIFTNIFTY", "BCD:" + contract("BCD"), "MCX:" + contract("MCX"), "NSE:SBIN"]
        ack = await client.subscribe(*some_only)
        assert ack["count"] == len(some_only), ack
        for name in some_only:
            assert (await client.tick(name, beyond=1))["simulated"] is True
        for levels, brokers in ((20, {"angel", "dhan", "dhan_sandbox"}), (50, {"fyers"})):
            mode = f"DEPTH{levels}"
            ack = await client.subscribe("NSE:RELIANCE", mode="DEPTH", depth_levels=levels)
            assert ack["granted"] == [{"symbol": "RELIANCE", "exchange": "NSE", "mode": mode, "depth_levels": levels}]
            tick = await client.tick("NSE:RELIANCE", mode, beyond=2)
            assert len(tick["depth"]["buy"]) == len(tick["depth"]["sell"]) == levels
            assert tick["broker"] in brokers, tick
            assert tick["ltp"] > 0
            async with Client(demo.url, demo.key) as shallow:
                await shallow.subscribe("NSE:RELIANCE", mode="DEPTH")
                five = await shallow.tick("NSE:RELIANCE", "DEPTH", beyond=2)
                assert len(five["depth"]["buy"]) == len(five["depth"]["sell"]) == 5
        ack = await client.subscribe("BSE:SENSEX-NOT-THERE", "NSE:RELAINCE", mode="LTP")
        assert ack["count"] == 0
        assert "RELIANCE" in ack["rejected"][1]["message"]
        assert not client.jumps
    assert "Traceback" not in demo.text()


def contract(exchange: str) -> str:
    """A future that the simulated brokers quote on this exchange."""
    listed = listings(None, dt.datetime.now(INDIA).date())
    return next(one.symbol for one in listed if one.exchange == exchange and one.kind == "FUT")


async def test_whatever_is_killed_is_started_again_and_ticks_are_back(demo: Demo) -> None:
    async with Client(demo.url, demo.key) as client:
        await client.subscribe("NSE:SBIN")
        await client.tick("NSE:SBIN", beyond=3)
        ticks = client.ticks["NSE", "SBIN", "LTP"]
        for victim in ("run_adapters", "run_bridge", "valkey-server"):
            child = demo.child(victim)
            child.kill()
            killed_ms = time.time() * 1000
            await wait_until(
                lambda killed_ms=killed_ms: ticks[-1]["received_ms"] > killed_ms + 500,  # type: ignore[misc]
                f"ticks after the end of {victim}",
                BACK_S,
            )
        assert client.closed is None
        demo.child("run_server").kill()
    end_s = time.monotonic() + BACK_S
    while True:
        try:
            async with Client(demo.url, demo.key) as client:
                await client.subscribe("NSE:SBIN")
                await client.tick("NSE:SBIN", beyond=1)
            break
        except (OSError, AssertionError, EOFError):
            assert time.monotonic() < end_s, "The server did not come back."
            await asyncio.sleep(0.1)


async def test_a_killed_stream_leaves_no_orphan(demo: Demo) -> None:
    children = psutil.Process(demo.process.pid).children(recursive=True)
    demo.process.kill()
    demo.process.wait(10)
    await wait_until(
        lambda: not [one for one in children if one.is_running() and one.status() != psutil.STATUS_ZOMBIE],
        "the children to end",
        15,
    )


async def test_watch_shows_prices_and_says_what_is_wrong(demo: Demo) -> None:
    def watch(*words: str) -> subprocess.CompletedProcess[str]:
        return run_manage("watch", *words, "--url", demo.url)

    done = await asyncio.to_thread(watch, "NSE:SBIN", "NSE:RELIANCE", "--key", demo.key, "--count", "5")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5
    assert "SIMULATED" in done.stdout
    for words, sentence in (
        (("SBIN", "--key", demo.key), "EXCHANGE:SYMBOL"),
        (("NSE:SBINN", "--key", demo.key), "Did you mean SBIN"),
        (("NSE:SBIN", "--key", "sk_this_is_nobodys_key"), "API key is unknown"),
    ):
        wrong = await asyncio.to_thread(watch, *words)
        assert wrong.returncode != 0
        assert sentence in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_watch_without_a_server_says_how_to_start_one() -> None:
    done = run_manage("watch", "NSE:SBIN", "--key", "x" * 20, "--url", f"ws://127.0.0.1:{free_port()}/")
    assert done.returncode != 0
    assert "manage.py stream" in done.stderr


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_manage("stream", "--demo", "--demo-folder", str(tmp_path / "demo"), WEBSOCKET_PORT=port)
    assert done.returncode != 0
    assert port in done.stderr
    assert "WEBSOCKET_PORT" in done.stderr
    assert not (tmp_path / "demo").exists()
