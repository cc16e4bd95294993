"""`manage.py check_instruments [BROKER…]`: whether brokers agree on what they list under one name."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Console
from rich.table import Table

from brokers.instruments.check import Report, Value, check
from brokers.management.console import console
from brokers.models import Broker


class Command(BaseCommand):
    """Exit code 1 when there is anything to report."""

    help = (
        "Compare what brokers list under one symbol and exchange (lot, tick size, expiry, strike, kind), and check "
        "that symbols follow the grammar. Without a broker: all of them."
    )
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Which brokers, and how to show what was found."""
        parser.add_argument("brokers", nargs="*", metavar="BROKER", help="slug of a broker, for example zerodha")
        parser.add_argument("--limit", type=int, default=50, help="the most rows of each table (default 50)")
        parser.add_argument("--json", action="store_true", help="JSON on standard output instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints the findings. Raises CommandError with one sentence; exits with 1 when there are findings."""
        if options["limit"] < 0:
            raise CommandError(f"--limit is {options['limit']}; use 0 or more.")
        try:
            report = check(_slugs(options["brokers"]), options["limit"])
        except DatabaseError as error:
            raise CommandError(f"The database does not answer ({error}); run migrate if it is new.") from None
        if not report.rows:
            raise CommandError("There are no instruments to check; load some with manage.py sync_instruments.")
        if options["json"]:
            self.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode())
        else:
            _print(report, console(self.stdout))
        if not report.is_clean:
            sys.exit(1)


def _slugs(named: list[str]) -> list[str]:
    known = set(Broker.objects.values_list("slug", flat=True))
    for slug in named:
        if slug not in known:
            raise CommandError(f"There is no broker {slug!r}; use one of {', '.join(sorted(known)) or 'none so far'}.")
    return named


def _print(report: Report, console: Console) -> None:
    if report.differences:
        console.print(_differences(report))
    if report.counts:
        console.print(_counts(report))
    if report.misnamed:
        console.print(_misnamed(report))
    console.print(
        f"{report.rows:,} listings read, {report.shared:,} pairs of two brokers compared: "
        f"{report.differing:,} differences, {report.misnaming:,} names outside the grammar."
    )


def _differences(report: Report) -> Table:
    brokers = sorted({slug for each in report.differences for slug in each.values})
    table = Table(title=f"Differences: {len(report.differences):,} of {report.differing:,}")
    for name in ("Symbol", "Exchange", "Field"):
        table.add_column(name)
    for slug in brokers:
        table.add_column(slug, justify="right")
    for each in report.differences:
        values = (_text(each.values[slug]) if slug in each.values else "" for slug in brokers)
        table.add_row(each.symbol, each.exchange, each.field, *values)
    return table


def _text(value: Value) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _counts(report: Report) -> Table:
    table = Table(title="Names in which two brokers differ")
    table.add_column("Field")
    table.add_column("Brokers")
    table.add_column("Names", justify="right")
    for each in report.counts:
        table.add_row(each.field, " / ".join(each.brokers), f"{each.names:,}")
    return table


def _misnamed(report: Report) -> Table:
    by_broker = ", ".join(f"{slug} {number:,}" for slug, number in report.misnamed_by.items())
    table = Table(title=f"Names outside the grammar: {len(report.misnamed):,} of {report.misnaming:,} ({by_broker})")
    for name in ("Broker", "Symbol", "Exchange", "Why"):
        table.add_column(name, overflow="fold")
    for each in report.misnamed:
        table.add_row(each.broker, each.symbol, each.exchange, each.reason)
    return table
