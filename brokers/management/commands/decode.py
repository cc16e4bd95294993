"""`manage.py decode BROKER`: captured frames, one a line, as the ticks in them."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from brokers import registry
from brokers.contract import DecodeError, Event, Frame, Session, Update
from brokers.feed.snapshots import Snapshots, State
from marketdata.ticks import Depth

FIELDS = (
    "ltp", "ltq", "open", "high", "low", "close", "volume", "average_price", "oi", "total_buy_quantity",
    "total_sell_quantity", "upper_circuit", "lower_circuit", "depth", "exchange_ms", "last_trade_ms",
)  # fmt: skip

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")


class Command(BaseCommand):
    """Reads no database and needs no account: for diagnosing frames somebody captured."""

    help = (
        "Decode captured frames, one a line (hex for binary ones, else text), into one JSON line each: "
        '{"ticks": […]} or {"error": …}, both where good packets precede the damage.'
    )
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The broker, where the frames are, and whether lines carry state."""
        parser.add_argument("broker", help="slug of the broker, for example zerodha")
        parser.add_argument("--file", type=Path, help="read frames from this file instead of standard input")
        parser.add_argument("--feed", help="kind of the broker's feed (default: its first)")
        parser.add_argument("--merge", action="store_true", help="carry each instrument's state from line to line")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints a line a frame. Raises CommandError with one sentence."""
        session = _session(options["broker"], options["feed"])
        snapshots = Snapshots() if options["merge"] else None
        try:
            for line in _lines(options["file"]):
                if text := line.strip():
                    print(_answer(session, _frame(text), snapshots), flush=True)
        except BrokenPipeError:
            # The reader (`| head`) has enough; without this Python complains once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _session(slug: str, kind: str | None) -> Session:
    try:
        adapter = registry.load(slug)
        feed = adapter.spec.feed(kind) if kind else adapter.spec.feeds[0]
    except LookupError as error:
        raise CommandError(str(error.args[0])) from None
    return adapter.session(feed)


def _lines(path: Path | None) -> Iterable[str]:
    if path is None:
        return sys.stdin
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}.") from None


def _frame(text: str) -> Frame:
    return bytes.fromhex(text) if _HEX.fullmatch(text) else text


def _answer(session: Session, frame: Frame, snapshots: Snapshots | None) -> str:
    error = ""
    try:
        events = session.decode(frame)
    except DecodeError as damage:
        events, error = damage.events, str(damage)
    answer: dict[str, object] = {}
    ticks = [_tick(event, snapshots) for event in _updates(events)]
    if ticks or not error:
        answer["ticks"] = ticks
    if error:
        answer["error"] = error
    return msgspec.json.encode(answer).decode()


def _updates(events: Iterable[Event]) -> Iterable[Update]:
    return (event for event in events if isinstance(event, Update))


def _tick(update: Update, snapshots: Snapshots | None) -> dict[str, object]:
    shown: Update | State = update if snapshots is None else snapshots.merge(update)
    fields = {name: value for name in FIELDS if (value := getattr(shown, name)) is not None}
    if isinstance(depth := fields.get("depth"), Depth):
        fields["depth"] = {"buy": depth.buy, "sell": depth.sell}
    return {"token": update.token.number, "segment": update.token.segment, **fields}
