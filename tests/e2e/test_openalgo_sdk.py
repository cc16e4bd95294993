"""
The unmodified `openalgo` package against a running server: the feed from us, REST from a stub, one key for both.

Its newer line, which needs a newer Python than this project, is run where one is at hand; what it sends is also in
test_openalgo_transcripts.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.e2e.openalgo import IMPORTED, import_key
from tests.e2e.stack import Stack, Template
from tests.oracles.make import is_made
from tests.oracles.oracle import Oracle

PACKAGES = ["openalgo", *(["openalgo2"] if is_made("openalgo2") else [])]
SBIN = [{"exchange": "NSE", "symbol": "SBIN"}]


class Rest(http.server.BaseHTTPRequestHandler):
    """OpenAlgo's REST side as far as these tests need it: quotes, for one key."""

    asked: list[dict[str, Any]] = []

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, **order})
        answer = json.dumps({"status": "success", "data": {"ltp": 625.5, "volume": 10}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, template: Template) -> Iterator[Stack]:
    """One running stack that knows a key of OpenAlgo's."""
    running = Stack(tmp_path_factory.mktemp("openalgo"), template)
    try:
        running.start(rate=300, symbols=60, throttle_ms=0)
        import_key(running)
        yield running
    finally:
        running.stop()
        print(running.logs())


@pytest.fixture(scope="module")
def rest() -> Iterator[str]:
    """Where OpenAlgo's REST side would be."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


class Package:
    """The package in its own environment, driven step by step."""

    def __init__(self, name: str, key: str, host: str, ws_url: str) -> None:
        self.oracle = Oracle(name, runner="openalgo")
        self._opening = {"key": key, "host": host, "ws_url": ws_url}

    async def do(self, step: str, **fields: Any) -> dict[str, Any]:
        """One step; its result."""
        return await asyncio.to_thread(self.oracle.ask, json.dumps({"do": step, **fields}))

    async def open(self) -> bool:
        """Connects and authenticates; whether the package says so."""
        return bool((await self.do("open", **self._opening))["connected"])

    async def tick(self, mode: int, beyond: int = 0) -> dict[str, Any]:
        """What a mode's callback last got, once it got more than so many."""
        done = await self.do("wait", mode=mode, beyond=beyond)
        assert done["got"] > beyond, f"mode {mode} is starved"
        return dict(done["last"])

    async def counts(self) -> list[int]:
        """How often each mode's callback was called."""
        return list((await self.do("counts"))["counts"])


@pytest.fixture(params=PACKAGES)
async def package(request: pytest.FixtureRequest, stack: Stack, rest: str) -> AsyncIterator[Package]:
    """A line of the package, not connected yet, with the key that OpenAlgo gave its user."""
    one = Package(request.param, IMPORTED, rest, f"ws://127.0.0.1:{stack.port}/openalgo")
    yield one
    await asyncio.to_thread(one.oracle.close)


async def test_it_connects_ticks_in_three_modes_of_one_symbol_and_unsubscribes(package: Package) -> None:
    assert await package.open()
    for mode in (1, 2, 3):
        assert (await package.do("subscribe", mode=mode, instruments=SBIN))["sent"]
    for mode in (1, 2, 3):
        tick = await package.tick(mode, beyond=5)
        assert (tick["type"], tick["symbol"], tick["exchange"], tick["mode"]) == ("market_data", "SBIN", "NSE", mode)
        assert tick["data"]["ltp"] > 0
    for mode in (1, 2, 3):
        assert (await package.do("unsubscribe", mode=mode, instruments=SBIN))["sent"]
    other = [{"exchange": "NSE", "symbol": "RELIANCE"}]
    before = await package.counts()
    await package.do("subscribe", mode=1, instruments=other)
    last = await package.tick(1, beyond=before[0] + 20)
    after = await package.counts()
    assert last["symbol"] == "RELIANCE"
    # What was on its way when the last unsubscribe was sent may still have come.
    assert after[1] - before[1] <= 2
    assert after[2] - before[2] <= 2
    assert not (await package.do("close"))["connected"]


async def test_its_quote_has_numbers_in_every_field_it_hands_on(package: Package) -> None:
    assert await package.open()
    await package.do("subscribe", mode=2, instruments=SBIN)
    data = (await package.tick(2, beyond=3))["data"]
    for name in ("ltp", "open", "high", "low", "close", "volume", "last_trade_quantity", "avg_trade_price"):
        assert data[name] > 0, name
    assert data["low"] <= data["ltp"] <= data["high"]
    assert data["change"] == pytest.approx(data["ltp"] - data["close"], abs=0.01)
    assert data["timestamp"] > 1_600_000_000_000


async def test_what_it_keeps_can_be_polled(package: Package) -> None:
    assert await package.open()
    for mode in (1, 2, 3):
        await package.do("subscribe", mode=mode, instruments=SBIN)
        await package.tick(mode)
    stored = await package.do("stored")
    assert stored["ltp"]["ltp"]["NSE"]["SBIN"]["ltp"] > 0
    assert stored["quotes"]["quote"]["NSE"]["SBIN"]["close"] > 0
    book = stored["depth"]["depth"]["NSE"]["SBIN"]
    assert 0 < book["buyBook"]["1"]["price"] < book["sellBook"]["1"]["price"]
    assert len(book["buyBook"]) == 5


async def test_one_object_with_one_key_has_its_rest_there_and_its_feed_here(package: Package, rest: str) -> None:
    assert await package.open()
    answer = await package.do("quotes", symbol="SBIN", exchange="NSE")
    assert answer["quotes"]["data"]["ltp"] == 625.5
    assert (Rest.asked[-1]["path"], Rest.asked[-1]["apikey"]) == ("/api/v1/quotes", IMPORTED)
    await package.do("subscribe", mode=1, instruments=SBIN)
    assert (await package.tick(1))["data"]["ltp"] > 0


async def test_a_wrong_key_is_not_let_in(stack: Stack, rest: str) -> None:
    one = Package("openalgo", "nobody has this key at all", rest, f"ws://127.0.0.1:{stack.port}/openalgo")
    assert not await one.open()
    await asyncio.to_thread(one.oracle.close)


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "openalgo"])
async def test_the_newer_line_comes_back_after_a_restart_and_replays(stack: Stack, rest: str, name: str) -> None:
    one = Package(name, IMPORTED, rest, f"ws://127.0.0.1:{stack.port}/openalgo")
    assert await one.open()
    await one.do("subscribe", mode=2, instruments=SBIN)
    assert (await one.do("orders"))["sent"]
    await one.tick(2)
    stack.processes["server"].stop()
    before = await one.counts()
    stack.restart("server")
    await one.tick(2, beyond=before[1] + 3)
    await asyncio.to_thread(one.oracle.close)
