"""
What decoding costs, broker by broker: frames captured from each simulator over a real socket, decoded again and again.

One core; prices of mode LTP, QUOTE and DEPTH have a target of 50,000 packets a second, deeper books are reported.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from bench.report import CONSOLE

if TYPE_CHECKING:
    from brokers.contract import Feed, Frame, Session
    from marketdata.ticks import Mode

FRAMES = 400
INSTRUMENTS = 40
MEASURED_S = 1.0
PATIENCE_S = 20.0


class Captured(NamedTuple):
    """A session and frames it has decoded once already; and how many updates were in them."""

    session: Session
    frames: Sequence[Frame]
    updates: int


def run(options: argparse.Namespace) -> None:
    """How many packets a second each broker's decoder reads on one core."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django  # noqa: PLC0415 - the settings must be named first

    django.setup()
    from brokers import registry  # noqa: PLC0415 - needs Django

    table = Table(title="Frames of the simulated brokers, decoded on one core")
    for name in ("broker", "socket", "mode", "updates/s", "us an update", "updates a frame"):
        table.add_column(name, justify="left" if name in ("broker", "socket", "mode") else "right")
    for slug in options.only or registry.slugs():
        for feed in registry.load(slug).spec.feeds:
            for mode in feed.modes:
                captured = asyncio.run(_capture(slug, feed, mode))
                rate = _rate(captured)
                each = captured.updates / len(captured.frames)
                table.add_row(slug, feed.kind, mode.name, f"{rate:,.0f}", f"{1e6 / rate:.1f}", f"{each:.1f}")
    CONSOLE.print(table)


async def _capture(slug: str, feed: Feed, mode: Mode) -> Captured:
    from brokers import registry  # noqa: PLC0415 - needs Django
    from brokers.calls import walk  # noqa: PLC0415
    from brokers.contract import DecodeError, InstrumentRow, Reply, Update  # noqa: PLC0415
    from brokers.feed.transports import OPENERS  # noqa: PLC0415
    from brokers.simulators import rows_of, simulators  # noqa: PLC0415
    from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN  # noqa: PLC0415
    from marketdata.ticks import Token  # noqa: PLC0415

    adapter = registry.load(slug)
    async with simulators()[slug](symbols=200, rate=5000, seed=1) as simulator, asyncio.timeout(PATIENCE_S):
        credentials = simulator.credentials(DEMO_KEY, DEMO_TOKEN)
        handshake = await walk(adapter.open(feed, credentials, simulator.url, time.time_ns() // 1_000_000))
        socket, session = await OPENERS[feed.transport](handshake, feed), adapter.session(feed)
        for first in handshake.first_frames:
            await socket.send(first)
        read = (row for row in rows_of(adapter, simulator) if isinstance(row, InstrumentRow))
        rows = [row for row in read if mode in feed.modes_for(row.segment)]
        most = min(INSTRUMENTS, feed.limits.instruments_per_frame, feed.limits.at_most.get(mode, INSTRUMENTS))
        for frame in session.subscribe([Token(row.segment, row.token) for row in rows[:most]], mode):
            await socket.send(frame)
        frames: list[Frame] = []
        updates = 0
        while len(frames) < FRAMES:
            frame = await socket.recv()
            try:
                events = session.decode(frame)
            except DecodeError as error:
                events = error.events
            for event in events:
                if isinstance(event, Reply):
                    await socket.send(event.frame)
            found = sum(isinstance(event, Update) for event in events)
            if found:
                frames.append(frame)
                updates += found
        await socket.close()
    return Captured(session, frames, updates)


def _rate(captured: Captured) -> float:
    """Updates per CPU second."""
    decode, rounds = captured.session.decode, 0
    began_s, end_s = time.process_time(), time.monotonic() + MEASURED_S
    while time.monotonic() < end_s:
        for frame in captured.frames:
            decode(frame)
        rounds += 1
    return rounds * captured.updates / (time.process_time() - began_s)
