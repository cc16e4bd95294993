"""
The adapters' part alone: Kite frames decoded, merged, made into ticks and sent on ZeroMQ, on one core.

Run as a program (`python -m bench.adapter PORT SYMBOLS`) it is the bridge that takes them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import zmq
from rich.table import Table

from bench.processes import child, environment, python
from bench.report import CONSOLE
from marketdata.ticks import Key, Mode
from marketdata.topics import topic_of

if TYPE_CHECKING:
    from brokers.contract import Update

SYMBOLS = 1000
MODES = {"ltp": Mode.LTP, "quote": Mode.QUOTE, "full": Mode.DEPTH}
SLICE_S = 0.01


def run(options: argparse.Namespace) -> None:
    """How many packets a second the adapters' process decodes and publishes on one core."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django  # noqa: PLC0415 - the settings must be named first

    django.setup()
    table = Table(title=f"Kite frames to ZeroMQ, {SYMBOLS:,} instruments, one subscriber")
    for name in ("packets", "in a frame", "packets/s on one core", "us a packet"):
        table.add_column(name, justify="right")
    for kind in MODES:
        for size in (1, 10, 100):
            rate = asyncio.run(_measure(kind, size, min(options.seconds, 5.0)))
            table.add_row(kind, str(size), f"{rate:,.0f}", f"{1e6 / rate:.1f}")
    CONSOLE.print(table)


async def _measure(kind: str, size: int, seconds: float) -> float:
    """Packets per CPU second of this process' main thread."""
    from brokers import registry  # noqa: PLC0415 - needs Django
    from brokers.feed.plan import Instrument  # noqa: PLC0415
    from brokers.feed.publisher import Publisher  # noqa: PLC0415
    from brokers.simulators.zerodha import ZerodhaSimulator  # noqa: PLC0415

    market = ZerodhaSimulator(symbols=SYMBOLS + 250, seed=1)
    quotes = [market.market.find(f"NSE:SIM{number + 1:04d}") for number in range(SYMBOLS)]
    packets = [market.packet(quote, kind) for quote in quotes]
    frames = [market.frame(packets[start : start + size]) for start in range(0, SYMBOLS, size)]
    adapter = registry.load("zerodha")
    decode = adapter.session(adapter.spec.feeds[0]).decode
    publisher = Publisher("127.0.0.1", 0, on_demand=lambda: None, on_status_asked=lambda feed: None)
    publisher.open()
    source = publisher.source("zerodha", simulated=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [*python("bench.adapter", publisher.port, SYMBOLS), MODES[kind].name]
        with child("subscriber", command, environment(), Path(folder)):
            while len(list(publisher.wanted())) < SYMBOLS:
                await asyncio.sleep(0.05)
            for quote, packet in zip(quotes, packets, strict=True):
                [update] = decode(market.frame([packet]))
                publisher.bind(Instrument(quote.listing.symbol, "NSE", ""), source, cast("Update", update).token)
            done, cpu_s, end_s = 0, time.thread_time(), time.monotonic() + seconds
            while time.monotonic() < end_s:
                slice_end_s = time.monotonic() + SLICE_S
                while time.monotonic() < slice_end_s:
                    for frame in frames:
                        # The simulator was asked for prices only: there is nothing to sort out.
                        source.deliver(cast("list[Update]", decode(frame)), time.time_ns() // 1_000_000)
                    done += SYMBOLS
                await asyncio.sleep(0)
            cpu_s = time.thread_time() - cpu_s
    publisher.close()
    return done / cpu_s


def _take(port: int, symbols: int, mode: str) -> None:
    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.connect(f"tcp://127.0.0.1:{port}")
    for number in range(symbols):
        socket.subscribe(topic_of(Key(f"SIM{number + 1:04d}", "NSE", Mode[mode])))
    while True:
        socket.recv()


if __name__ == "__main__":
    _take(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
