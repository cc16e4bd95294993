"""`manage.py find_symbol nifty 24500 ce`: how instruments are called here, and which brokers have them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone
from rich.table import Table

from brokers import catalog
from brokers.management.console import console
from brokers.models import Instrument


class Command(BaseCommand):
    """Needs no account: whatever was synced is found."""

    help = "Find instruments by parts of their names, in any order: sbin, nifty 24500 ce, reliance fut, state bank."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """What to look for, and how to show it."""
        parser.add_argument("words", nargs="+", metavar="WORD", help="for example: nifty 24500 ce 28nov")
        parser.add_argument("--exchange", default="", help="only of this one, for example NFO")
        parser.add_argument("--kind", default="", help=f"only of this kind: {', '.join(catalog.KINDS)}")
        parser.add_argument("--limit", type=int, default=20, help="the most rows (default 20)")
        parser.add_argument("--json", action="store_true", help="JSON on standard output instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints what was found. Raises CommandError with one sentence: nothing was, or the query makes no sense."""
        query, exchange, today = " ".join(options["words"]), options["exchange"], timezone.localdate()
        try:
            found = catalog.search(query, exchange=exchange, kind=options["kind"], limit=options["limit"], today=today)
            if not found:
                raise CommandError(_nothing(query, catalog.did_you_mean(query, exchange=exchange, today=today)))
        except catalog.QueryError as error:
            raise CommandError(str(error)) from None
        except DatabaseError as error:
            raise CommandError(f"The database does not answer ({error}); run migrate if it is new.") from None
        if options["json"]:
            self.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode())
            return
        console(self.stdout).print(_table(found))
        if not any(each.served_by for each in found):
            self.stderr.write("No account can serve these: add one in the admin, and enable it.")


def _nothing(query: str, suggestions: Sequence[str]) -> str:
    if not Instrument.objects.exists():
        return "There are no instruments yet; load a broker's with manage.py sync_instruments zerodha."
    hint = f"did you mean {' or '.join(suggestions)}?" if suggestions else "try fewer words, or another spelling."
    return f"No instrument is called {query[:60]!r}; {hint}"


def _table(found: Sequence[catalog.Found]) -> Table:
    table = Table()
    for name in ("Symbol", "Exchange", "Kind", "Name", "Expiry"):
        table.add_column(name, overflow="fold")
    for name in ("Strike", "Lot", "Tick"):
        table.add_column(name, justify="right")
    for name in ("Listed by", "Served by"):
        table.add_column(name, overflow="fold")
    for row in found:
        table.add_row(
            row.symbol, row.exchange, row.kind, row.name, f"{row.expiry:%d %b %Y}" if row.expiry else "",
            "" if row.strike is None else f"{row.strike:g}", f"{row.lot_size:,}", f"{row.tick_size:g}",
            ", ".join(row.brokers), ", ".join(row.served_by),
        )  # fmt: skip
    return table
