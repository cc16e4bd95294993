"""`manage.py sync_instruments [BROKER…]`: a broker's instrument master into the database."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from brokers import registry
from brokers.contract import Adapter, MasterError
from brokers.instruments.download import DownloadError, download, read, unpacked
from brokers.instruments.store import MostlyBad, Report, replace_instruments
from brokers.models import Broker, BrokerAccount


class Command(BaseCommand):
    """Downloads, checks row by row, and replaces all of a broker's instruments at once; on any fault the old stay."""

    help = (
        "Import instrument masters, so that symbols find their tokens. Without a broker: every broker with an account."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Brokers, or one broker and a file."""
        parser.add_argument("brokers", nargs="*", metavar="BROKER", help="slug of a broker, for example zerodha")
        parser.add_argument("--file", type=Path, help="read this file (plain or gzip) instead of downloading")

    def handle(self, *args: Any, **options: Any) -> None:
        """Imports one broker after another. Raises CommandError with one sentence."""
        slugs = options["brokers"] or _with_accounts()
        if not slugs:
            raise CommandError("No broker has an enabled account; name one, for example: sync_instruments zerodha.")
        if options["file"] and len(slugs) != 1:
            raise CommandError("--file goes with exactly one broker.")
        console = Console(stderr=True)
        for slug in slugs:
            try:
                self.stdout.write(_sentence(slug, _sync(slug, options["file"], console)))
            except (registry.UnknownBroker, DownloadError, MasterError, MostlyBad) as error:
                raise CommandError(f"{slug}: {error}") from None
            except DatabaseError as error:
                raise CommandError(f"{slug}: The database refused the rows ({error}); the old ones stay.") from None


def _with_accounts() -> list[str]:
    slugs = BrokerAccount.objects.filter(enabled=True).order_by("broker__slug").values_list("broker__slug", flat=True)
    return list(slugs.distinct())


def _sync(slug: str, file: Path | None, console: Console) -> Report:
    adapter = registry.load(slug)
    broker, _ = Broker.objects.get_or_create(slug=slug, defaults={"name": adapter.spec.name})
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{slug}: reading", total=None)
        rows = [
            row
            for segment, body in _bodies(adapter, broker, file, progress)
            for row in adapter.parse_instruments(unpacked(body), segment)
        ]
        progress.update(task, description=f"{slug}: storing {len(rows):,} rows")
        return replace_instruments(broker, rows)


def _bodies(adapter: Adapter, broker: Broker, file: Path | None, progress: Progress) -> list[tuple[str, bytes]]:
    if file is not None:
        return [("", read(file))]
    account = broker.accounts.filter(enabled=True).first()
    bodies = []
    for master in adapter.spec.masters:
        task = progress.add_task(f"{adapter.spec.slug}: downloading {master.segment}", total=None)

        def show(done: int, total: int | None, task: Any = task) -> None:
            progress.update(task, completed=done, total=total)

        request = adapter.master_request(master, account.credentials if account else {})
        bodies.append((master.segment, download(request, show)))
    return bodies


def _sentence(slug: str, report: Report) -> str:
    text = f"{slug}: {report.rows:,} instruments; {report.written:,} written, {report.deleted:,} removed."
    if report.bad_rows:
        shown = "; ".join(f"line {row.line}: {row.reason}" for row in report.bad[:5])
        text += f" {report.bad_rows:,} bad rows passed over ({shown}{' …' if report.bad_rows > 5 else ''})."
    return text
