"""`manage.py sync_instruments [BROKER…]`: brokers' instrument masters into the database."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stamina.instrumentation
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TransferSpeedColumn

from brokers import registry
from brokers.instruments import sync
from brokers.instruments.store import Bad, Report
from brokers.models import InstrumentMaster

SHOWN = 3
"""So many names or bad rows are named in a sentence."""
NICENESS = 10

_PR_SET_PDEATHSIG = 1


class Command(BaseCommand):
    """Downloads, checks row by row, and replaces all of a broker's instruments at once; on any fault the old stay."""

    help = (
        "Import instrument masters, so that symbols find their tokens. Without a broker: every broker with an account."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Brokers, or one broker and one file."""
        parser.add_argument("brokers", nargs="*", metavar="BROKER", help="slug of a broker, for example zerodha")
        parser.add_argument("--file", type=Path, help="read this file (plain, gzip or zip) instead of downloading")
        parser.add_argument("--url", default="", help="download from this address instead of the broker's own")
        parser.add_argument(
            "--segment", default="", help="which of the broker's files --file or --url is; the others stay as they are"
        )
        parser.add_argument(
            "--force", action="store_true", help="import also what is unchanged, or much smaller than the last one"
        )
        parser.add_argument(
            "--background",
            action="store_true",
            help="at a lower priority, and no longer than what started it",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints a sentence for each broker; exit code 1 if one failed. Raises CommandError with one sentence."""
        # The check is registered on the clients' side, which must not be imported from here: its tag is enough.
        self.check(tags=["migrations"], include_deployment_checks=True)
        if options["background"]:
            step_back()
        choice = sync.Choice(
            file=options["file"], url=options["url"], segment=options["segment"], force=options["force"]
        )
        slugs = list(dict.fromkeys(options["brokers"]))
        _check_choice(choice, slugs)
        self._failed = False
        stamina.instrumentation.set_on_retry_hooks([])  # further attempts are no news unless the last one fails
        try:
            orders = self._orders(slugs or _in_use(), choice)
            with contextlib.suppress(ValueError):  # not the main thread: whoever runs us ends us
                signal.signal(signal.SIGTERM, signal.default_int_handler)
            asyncio.run(self._carry_out(orders))
        except DatabaseError as error:
            raise CommandError(sync.database_sentence(error)) from None
        except KeyboardInterrupt:
            self.stderr.write("Stopped; what was not finished is as it was.")
            raise SystemExit(130) from None
        if self._failed:
            raise SystemExit(1)

    def _orders(self, slugs: Sequence[str], choice: sync.Choice) -> list[sync.Order]:
        orders = []
        for slug in slugs:
            try:
                orders.append(sync.order(slug, choice))
            except (registry.UnknownBroker, sync.NotSyncable) as error:
                sync.note_problem(slug, str(error))
                self._fail(slug, str(error))
        return orders

    async def _carry_out(self, orders: Sequence[sync.Order]) -> None:
        console = Console(stderr=True)
        with Bars(console) as bars:
            async for outcome in sync.sync(orders, bars):
                if outcome.problem:
                    self._fail(outcome.slug, outcome.problem)
                else:
                    self.stdout.write(f"{outcome.slug}: {await asyncio.to_thread(_sentence, outcome)}")

    def _fail(self, slug: str, problem: str) -> None:
        self._failed = True
        self.stderr.write(f"{slug}: {problem}")


def step_back() -> None:
    """The feed, which started this, goes first; and when it dies, the kernel ends this, too, where it can."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _check_choice(choice: sync.Choice, slugs: Sequence[str]) -> None:
    if choice.file and choice.url:
        raise CommandError("Give --file or --url, not both.")
    if choice.is_one_file and len(slugs) != 1:
        raise CommandError("--file and --url go with exactly one broker.")
    if choice.segment and not choice.is_one_file:
        raise CommandError("--segment says which file --file or --url is; give one of these, too.")


def _in_use() -> list[str]:
    slugs = [broker.slug for broker in sync.brokers_in_use()]
    if not slugs:
        raise CommandError("No broker has an enabled account; name one, for example: sync_instruments zerodha.")
    return slugs


# ------------------------------------------------------------------------------------------------------------ sentences


def _sentence(outcome: sync.Outcome) -> str:
    if outcome.report is not None:
        return report_sentence(outcome.report)
    assert outcome.unchanged_since is not None
    masters = InstrumentMaster.objects.filter(broker__slug=outcome.slug)
    rows = sum(masters.values_list("rows", flat=True))
    return f"unchanged since {timezone.localtime(outcome.unchanged_since):%d %b %Y %H:%M}; {rows:,} instruments."


def report_sentence(report: Report) -> str:
    """
    What an import did, for people.

    >>> report_sentence(Report(rows=9, written=2, deleted=1, bad_rows=1, bad=[Bad("", 7, "token 5 is there twice")]))
    '9 instruments; 2 written, 1 removed. 1 bad row passed over (line 7: token 5 is there twice).'
    """
    parts = [f"{report.rows:,} instruments; {_changes(report)}."]
    news = _news(report)
    if news:
        parts.append(f"{news}.")
    if report.bad_rows:
        rows = "row" if report.bad_rows == 1 else "rows"
        reasons = _some([_bad(bad) for bad in report.bad], report.bad_rows)
        parts.append(f"{report.bad_rows:,} bad {rows} passed over ({reasons}).")
    return " ".join(parts)


def _changes(report: Report) -> str:
    return f"{report.written:,} written, {report.deleted:,} removed" if report.is_changed else "nothing changed"


def _news(report: Report) -> str:
    renamed = [f"{old.symbol} → {new.symbol}" for old, new in report.renamed]
    lists = {
        "renamed": renamed,
        "with another token": [name.symbol for name in report.moved],
        "gone": [name.symbol for name in report.gone],
    }
    return ", ".join(f"{len(names):,} {what} ({_some(names, len(names))})" for what, names in lists.items() if names)


def _bad(bad: Bad) -> str:
    return f"{f'{bad.segment} ' if bad.segment else ''}line {bad.line}: {bad.reason}"


def _some(texts: Sequence[str], count: int) -> str:
    return f"{'; '.join(texts[:SHOWN])}{' …' if count > SHOWN else ''}"


# ----------------------------------------------------------------------------------------------------------------- bars


class Bars:
    """A progress bar a file on the terminal; nothing where there is none."""

    def __init__(self, console: Console) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[rows]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def downloading(self, slug: str, segment: str, done: int, total: int | None) -> None:
        """So many bytes of a file are there."""
        self._progress.update(self._task(slug, segment), completed=done, total=total)

    def storing(self, slug: str, segment: str, rows: int) -> None:
        """So many rows of a file were read."""
        self._progress.update(self._task(slug, segment), rows=f"{rows:,} rows")

    def finished(self, slug: str) -> None:
        """No more of this broker."""
        for key in [key for key in self._tasks if key[0] == slug]:
            self._progress.remove_task(self._tasks.pop(key))

    def _task(self, slug: str, segment: str) -> TaskID:
        task = self._tasks.get((slug, segment))
        if task is None:
            task = self._progress.add_task(f"{slug} {segment}".strip(), total=None, rows="")
            self._tasks[slug, segment] = task
        return task
