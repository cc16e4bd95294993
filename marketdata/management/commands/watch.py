"""`manage.py watch NSE:SBIN …`: live prices in the terminal, over the real WebSocket as any client."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from marketdata.errors import WRONG_KEY
from marketdata.ticks import Mode

KEY_VARIABLE = "STREAM_API_KEY"
RECONNECT_S = 1.0
REFRESHES_PER_S = 8
RISING, FALLING = "green", "red"

Message = dict[str, Any]
Name = tuple[str, str]


class Refused(Exception):
    """The server's no, in its own words; trying again would not help."""


class Command(BaseCommand):
    """Needs no database: only the address and a key."""

    help = "Watch live prices: a table in a terminal, else a line a tick."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """What to watch, and where."""
        parser.add_argument(
            "symbols", nargs="+", metavar="EXCHANGE:SYMBOL", help="for example NSE:SBIN NSE_INDEX:NIFTY"
        )
        modes = [mode.name.lower() for mode in Mode]
        parser.add_argument("--mode", default="quote", choices=modes, type=str.lower, help="default: quote")
        address = f"ws://{settings.WEBSOCKET_HOST}:{settings.WEBSOCKET_PORT}/v1"
        parser.add_argument("--url", default=address, help=f"the server (default {address})")
        parser.add_argument("--key", help=f"API key; without it {KEY_VARIABLE}, else the running demo's")
        parser.add_argument("--count", type=int, help="stop after so many ticks")

    def handle(self, *args: Any, **options: Any) -> None:
        """Watches until Ctrl-C, or `--count`. Raises CommandError with one sentence."""
        names = [_name(text) for text in options["symbols"]]
        board = Board(names, options["mode"].upper(), options["count"])
        watching = _watch(board, options["url"], _key(options["key"]))
        try:
            asyncio.run(watching)
        except KeyboardInterrupt:
            return
        except Refused as refusal:
            raise CommandError(str(refusal)) from None


class Row(NamedTuple):
    """The newest tick of a symbol, when it came, and how its price moved."""

    tick: Message
    came_s: float
    moved: float


class Board:
    """What is on show."""

    def __init__(self, names: list[Name], mode: str, count: int | None) -> None:
        self.names = names
        self.mode = mode
        self.state = "connecting …"
        self.notes: list[str] = []
        self.rows: dict[Name, Row] = {}
        self.gaps: dict[Name, int] = defaultdict(int)
        self.simulated = False
        self._left = count

    def take(self, message: Message) -> bool:
        """Takes a message in; False when enough ticks were seen."""
        if "ltp" not in message:
            self._note(message)
            return True
        name = message["exchange"], message["symbol"]
        last = self.rows.get(name)
        if last is not None and message["seq"] > last.tick["seq"] + 1 + message.get("conflated", 0):
            self.gaps[name] += 1
        moved = message["ltp"] - last.tick["ltp"] if last else 0.0
        self.rows[name] = Row(message, time.monotonic(), moved)
        self.simulated = self.simulated or message.get("simulated", False)
        if self._left is not None:
            self._left -= 1
        return self._left is None or self._left > 0

    def _note(self, message: Message) -> None:
        if message["status"] == "subscribed":
            self.state = f"connected, {message['count']} subscribed"
            self.notes = [f"{one['exchange']}:{one['symbol']}: {one['message']}" for one in message.get("rejected", [])]
            if not message["count"]:
                raise Refused(" ".join(self.notes) or "Nothing was subscribed.")
        elif message["status"] == "feed":
            source = message.get("broker") or message.get("symbol") or ""
            self.state = f"{source} {message['state']}: {message['message']}"
        elif message["status"] == "lagging":
            self.notes = [message["message"]]

    def __rich__(self) -> Group:
        title = Text(f" {self.state} ", style="dim")
        if self.simulated:
            title = Text(" SIMULATED ", style="bold black on yellow") + title
        parts: list[Any] = [title, self._table()]
        if self.mode.startswith("DEPTH"):
            parts += [_ladder(row.tick) for name in self.names if (row := self.rows.get(name)) and "depth" in row.tick]
        parts += [Text(note, style="red") for note in self.notes]
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(expand=False)
        table.add_column("Symbol")
        for heading in ("LTP", "Change", "Volume", "OI", "Bid", "Ask", "Age", "Gaps"):
            table.add_column(heading, justify="right")
        for name in self.names:
            table.add_row(*self._cells(name))
        return table

    def _cells(self, name: Name) -> list[Any]:
        row = self.rows.get(name)
        if row is None:
            return [":".join(name), *["–"] * 8]
        tick, style = row.tick, RISING if row.moved > 0 else FALLING if row.moved < 0 else ""
        bid, ask = (_best(tick, side) for side in ("buy", "sell"))
        age = "old" if tick.get("stale") else f"{time.monotonic() - row.came_s:.1f} s"
        return [
            ":".join(name),
            Text(f"{tick['ltp']:,.2f}", style=f"bold {style}"),
            _change(tick),
            f"{tick['volume']:,}" if "volume" in tick else "",
            f"{tick['oi']:,}" if tick.get("oi") else "",
            bid,
            ask,
            age,
            str(self.gaps[name] or ""),
        ]


async def _watch(board: Board, url: str, key: str) -> None:
    console = Console()
    if not console.is_terminal:
        await _follow(board, url, key, lambda message: print(_line(message), flush=True))
        return
    with Live(board, console=console, refresh_per_second=REFRESHES_PER_S):
        await _follow(board, url, key, lambda message: None)


async def _follow(board: Board, url: str, key: str, show: Any) -> None:
    """Connects, and again whenever the connection ends; the first failure to connect is final."""
    reached = False
    while True:
        try:
            async with connect(url, compression=None) as socket:
                reached = True
                if await _session(board, socket, key, show):
                    return
        except (OSError, InvalidHandshake, TimeoutError) as error:
            if not reached:
                raise Refused(f"{url} cannot be reached ({error}); start it with: python manage.py stream") from None
        except ConnectionClosed:
            pass  # Connected again below; the board says so.
        board.state = "reconnecting …"
        await asyncio.sleep(RECONNECT_S)


async def _session(board: Board, socket: ClientConnection, key: str, show: Any) -> bool:
    """One connection; True when enough was seen."""
    await socket.send(json.dumps({"action": "authenticate", "api_key": key, "status": True}))
    answer = json.loads(await socket.recv())
    if answer["status"] == "error":
        hint = f" Give it with --key or in {KEY_VARIABLE}." if answer["code"] == WRONG_KEY.code else ""
        raise Refused(f"{answer['message']}{hint}")
    board.simulated = answer.get("simulated", False)
    symbols = [{"symbol": symbol, "exchange": exchange} for exchange, symbol in board.names]
    await socket.send(json.dumps({"action": "subscribe", "symbols": symbols, "mode": board.mode}))
    async for frame in socket:
        message = json.loads(frame)
        enough = not board.take(message)
        if "ltp" in message:
            show(message)
        if enough:
            return True
    return False


def _name(text: str) -> Name:
    exchange, separator, symbol = text.strip().upper().partition(":")
    if not (exchange and separator and symbol):
        raise CommandError(f"{text!r} is no instrument; write EXCHANGE:SYMBOL, for example NSE:SBIN.")
    return exchange, symbol


def _key(given: str | None) -> str:
    if given or os.environ.get(KEY_VARIABLE):
        return given or os.environ[KEY_VARIABLE]
    demo = Path(settings.BASE_DIR) / ".demo" / "key"
    with contextlib.suppress(OSError):
        return demo.read_text().strip()
    raise CommandError(f"No API key: give --key, or set {KEY_VARIABLE}; make one with manage.py create_api_key NAME.")


def _line(message: Message) -> str:
    parts = [message["timestamp"], f"{message['exchange']}:{message['symbol']}", f"{message['ltp']:.2f}"]
    parts += [f"volume {message['volume']}"] if "volume" in message else []
    parts += [flag.upper() for flag in ("simulated", "snapshot", "stale") if message.get(flag)]
    return "  ".join(parts)


def _change(tick: Message) -> Text:
    close = tick.get("close")
    if not close:
        return Text("")
    percent = (tick["ltp"] - close) / close * 100
    return Text(f"{percent:+.2f} %", style=RISING if percent > 0 else FALLING if percent < 0 else "")


def _best(tick: Message, side: str) -> str:
    levels = tick.get("depth", {}).get(side, [])
    return f"{levels[0]['price']:,.2f}" if levels else ""


def _ladder(tick: Message) -> Table:
    table = Table(title=f"{tick['exchange']}:{tick['symbol']}", expand=False)
    for heading in ("Orders", "Quantity", "Bid", "Ask", "Quantity", "Orders"):
        table.add_column(heading, justify="right")
    buy, sell = tick["depth"]["buy"], tick["depth"]["sell"]
    for at in range(max(len(buy), len(sell))):
        bid = buy[at] if at < len(buy) else None
        ask = sell[at] if at < len(sell) else None
        table.add_row(*_side(bid, RISING), *reversed(_side(ask, FALLING)))
    return table


def _side(level: Message | None, style: str) -> list[Any]:
    if level is None:
        return ["", "", ""]
    return [str(level["orders"]), f"{level['quantity']:,}", Text(f"{level['price']:,.2f}", style=style)]
