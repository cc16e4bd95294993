"""
What a second client protocol costs: one hub, clients of each protocol on the same symbols, one core.

Ticks come as the bridge sends them, in batches through an in-process layer; a client's end only counts bytes. How often
a tick was encoded is the hub's own count.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from bench.processes import BenchError
from bench.report import CONSOLE

if TYPE_CHECKING:
    from marketdata.hub import Hub
    from marketdata.ticks import Key, Mode, Tick

SYMBOLS = 100
ROUNDS = 200
PATIENCE_S = 60.0
AUDIENCES = ((100, 0), (0, 100), (50, 50), (1, 1))
"""How many native clients and how many of OpenAlgo's hold every symbol."""


class Cost(NamedTuple):
    """Of one audience and mode: how often a tick was encoded, CPU time a tick in microseconds, and what was sent."""

    encodes: float
    tick_us: float
    bytes_a_tick: float


def run(options: argparse.Namespace) -> None:
    """How often a tick is encoded, and what it costs, with clients of both protocols on the same symbols."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django  # noqa: PLC0415 - the settings must be named first

    django.setup()
    from marketdata.ticks import Mode  # noqa: PLC0415 - after the settings, as all of ours

    table = Table(title=f"{SYMBOLS} symbols held by every client, one core")
    for name in ("mode", "native", "openalgo", "encodes a tick", "us a tick", "bytes a tick, all clients"):
        table.add_column(name, justify="left" if name == "mode" else "right")
    for mode in (Mode.LTP, Mode.QUOTE, Mode.DEPTH):
        for native, openalgo in AUDIENCES:
            cost = asyncio.run(measure(mode, native, openalgo))
            figures = (f"{cost.encodes:.2f}", f"{cost.tick_us:.1f}", f"{cost.bytes_a_tick:,.0f}")
            table.add_row(mode.name, str(native), str(openalgo), *figures)
    CONSOLE.print(table)


async def measure(mode: Mode, native: int, openalgo: int, *, rounds: int = ROUNDS) -> Cost:
    """
    So many clients of each protocol hold every symbol in one mode; every symbol ticks once a round.

    Raises BenchError: ticks were lost on the way.
    """
    from marketdata.dialects import NATIVE, OPENALGO  # noqa: PLC0415 - needs Django
    from marketdata.hub import Hub  # noqa: PLC0415
    from marketdata.layers import LocalTickLayer  # noqa: PLC0415
    from marketdata.ledger import LocalLedger  # noqa: PLC0415
    from marketdata.ticks import Key  # noqa: PLC0415
    from marketdata.topics import group_of  # noqa: PLC0415

    keys = [Key(f"SIM{number:04d}", "NSE", mode) for number in range(SYMBOLS)]
    layer = LocalTickLayer()
    hub = Hub(layer, LocalLedger(), revoked=_none)
    hub.start()
    try:
        sinks = _connect(hub, keys, [NATIVE] * native + [OPENALGO] * openalgo)
        await _until(lambda: all(group_of(key) in layer.groups for key in keys))
        batches = list(_batches(keys, rounds))
        began_s = time.process_time()
        for number, batch in enumerate(batches, start=1):
            await layer.group_send_many(batch)
            await _until(lambda number=number: hub.counters.ticks >= number * SYMBOLS)
        await _until(lambda: not any(session.outbox.waiting() for session in hub.sessions))
        took_s = time.process_time() - began_s
        ticks = hub.counters.ticks
        return Cost(hub.counters.encoded / ticks, took_s / ticks * 1e6, sum(sink.bytes for sink in sinks) / ticks)
    finally:
        await hub.stop()


def _connect(hub: Hub, keys: Sequence[Key], dialects: Sequence[Any]) -> list[Any]:
    from marketdata.auth import Grant  # noqa: PLC0415 - needs Django
    from marketdata.hub import Session  # noqa: PLC0415
    from marketdata.peers import FramePeer  # noqa: PLC0415

    grant = Grant(key_id=1, name="bench", feed="", max_symbols=100_000, max_connections=1000)
    sinks = []
    for dialect in dialects:
        sink = _Sink()
        session = Session(FramePeer(sink), dialect, "bench")
        hub.open(session)
        hub.admit(session, grant, batch=False, status=False)
        for key in keys:
            hub.subscribe(session, key, 0)
        sinks.append(sink)
    return sinks


class _Sink:
    """A socket that takes everything at once."""

    paused = False

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.bytes += len(data)

    def listen(self, on_pause: Any, on_resume: Any) -> None:
        """It never pauses."""

    def close(self, code: int, reason: str) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        """Nothing to drop."""


def _batches(keys: Sequence[Key], rounds: int) -> Iterator[dict[str, bytes]]:
    from marketdata.topics import group_of  # noqa: PLC0415 - needs Django
    from marketdata.wire import encode, pack  # noqa: PLC0415

    for number in range(1, rounds + 1):
        yield {group_of(key): pack([encode(_tick(key, number), number=number, epoch_ms=1)]) for key in keys}


def _tick(key: Key, number: int) -> Tick:
    """A tick with everything that a broker gives in its mode."""
    from marketdata.ticks import Depth, Level, Mode, Tick  # noqa: PLC0415 - needs Django

    fields: dict[str, Any] = {"ltq": 25, "exchange_ms": 1705294800000 + number, "last_trade_ms": 1705294800000}
    if key.mode >= Mode.QUOTE:
        prices = {"open": 620.0, "high": 628.0, "low": 618.5, "close": 622.0, "average_price": 624.75}
        fields |= prices | {"volume": 1500000, "oi": 0, "total_buy_quantity": 90000, "total_sell_quantity": 80000}
    if key.mode.depth_levels:
        side = tuple(Level(625.0 + place / 20, 1000 + place, place) for place in range(key.mode.depth_levels))
        fields["depth"] = Depth(side, side)
    fields |= {"received_ms": 1705294800000 + number, "seq": number}
    return Tick(symbol=key.symbol, exchange="NSE", mode=key.mode, broker="zerodha", ltp=625.5, **fields)


async def _until(condition: Any) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            raise BenchError(f"Not every tick arrived within {PATIENCE_S:g} s.")
        await asyncio.sleep(0)


async def _none(ids: Collection[int]) -> set[int]:
    return set()
