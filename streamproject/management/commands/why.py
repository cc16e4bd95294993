"""`manage.py why NSE:SBIN`: which hop keeps an instrument silent, and what to do about it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import threading
import time
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.db.models import Max
from django.utils import timezone
from rich.table import Table
from rich.text import Text

from brokers import catalog, registry
from brokers.feed.accounts import Account, load_accounts
from brokers.feed.pickup import gone
from brokers.feed.plan import Instrument as Wish
from brokers.feed.report import NoAnswer, ask_key
from brokers.management.console import console
from brokers.models import Instrument, InstrumentMaster
from marketdata import probe
from marketdata.report import ClientsReport, KeyReport, ReportError
from marketdata.ticks import EXCHANGES, Mode, Segment
from streamproject.diagnosis import AccountFact, Facts, Finding, Mark, diagnose, fault_in, verdict

SILENT, BAD_NAME = 1, 2
"""Exit codes: a hop keeps it silent; there is no such instrument."""
DATABASE_S = 3.0
"""So long the database may take."""

_SIGNS = {
    Mark.OK: ("✓", "green"),
    Mark.FAULT: ("✗", "bold red"),
    Mark.REMARK: ("!", "yellow"),
    Mark.UNKNOWN: ("–", "dim"),
}

Answers = tuple[KeyReport, KeyReport] | str
"""Two reports of the adapters' process, or why there are none."""


class Command(BaseCommand):
    """Only looks; works whatever is down."""

    help = "Say why an instrument does not tick: every hop between its name and your client, and what to do."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Which instrument, in which mode, of which feed."""
        parser.add_argument("name", metavar="EXCHANGE:SYMBOL", help="for example NSE:SBIN")
        modes = [mode.name for mode in Mode]
        parser.add_argument("--mode", type=str.upper, choices=modes, help="default: the deepest that somebody wants")
        parser.add_argument("--feed", default="", help="of API keys that are bound to one")

    def handle(self, *args: Any, **options: Any) -> None:
        """
        Prints every hop and the verdict.

        Exits with 0 where ticks flow, 1 where a hop is named, 2 where the name is none.
        """
        symbol, exchange = _split(options["name"])
        wish = Wish(symbol, exchange, options["feed"])
        facts = gather(wish, Mode[options["mode"]] if options["mode"] else None)
        findings = diagnose(facts)
        out = console(self.stdout)
        out.print(_table(findings))
        out.print(Text(verdict(facts, findings), style="bold"), soft_wrap=True)
        fault = fault_in(findings)
        if fault is not None:
            raise SystemExit(BAD_NAME if fault.hop == "Name" else SILENT)


def _split(text: str) -> tuple[str, str]:
    exchange, separator, symbol = text.strip().upper().partition(":")
    if not (exchange and separator and symbol and text.isprintable()):
        sentence = f"{text!r} is no instrument; write EXCHANGE:SYMBOL, for example NSE:SBIN."
        raise CommandError(sentence, returncode=BAD_NAME)
    return symbol, exchange


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.mark]
        shown = "dim" if finding.mark is Mark.UNKNOWN else ""
        sentence = Text(finding.sentence, style=shown)
        if finding.advice:
            sentence.append(f" {finding.advice}", style="italic")
        table.add_row(Text(sign, style=style), Text(finding.hop, style=shown), sentence)
    return table


# ---------------------------------------------------------------------------------------------------------------- facts


def gather(wish: Wish, mode: Mode | None) -> Facts:
    """Asks the database, the adapters' process and the clients' side at the same time, a few seconds at most."""
    known = _Known(wish)
    known.start()
    clients, answers = asyncio.run(_ask(wish))
    first, last = (None, None) if isinstance(answers, str) else answers
    return Facts(
        symbol=wish.symbol,
        exchange=wish.exchange,
        feed=wish.feed,
        mode=mode,
        today=timezone.localdate(),
        adapters_problem=answers if isinstance(answers, str) else "",
        first=first,
        last=last,
        clients=clients,
        **known.fields(),
    )


async def _ask(wish: Wish) -> tuple[ClientsReport, Answers]:
    look = probe.look(wish.symbol, wish.exchange, wish.feed)
    clients, answers = await asyncio.gather(look, asyncio.to_thread(_ask_adapters, wish))
    return clients, answers


def _ask_adapters(wish: Wish) -> Answers:
    try:
        return ask_key(settings.ZMQ_HOST, settings.ZMQ_PORT, wish)
    except (NoAnswer, ReportError) as error:
        return str(error)


class _Known(threading.Thread):
    """What the database knows, asked in a thread of its own: one that hangs is left behind."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(daemon=True)
        self._wish = wish
        self._end_s = time.monotonic() + DATABASE_S
        self._fields: dict[str, Any] = {"database_problem": f"The database does not answer within {DATABASE_S:g} s."}

    def run(self) -> None:
        try:
            self._fields = _from_database(self._wish)
        except DatabaseError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            self._fields = {"database_problem": f"The database does not answer ({reason})."}
        finally:
            connection.close()

    def fields(self) -> dict[str, Any]:
        """Fields of the Facts, with what is known by now or a moment later."""
        self.join(max(self._end_s - time.monotonic(), 0))
        return self._fields


def _from_database(wish: Wish) -> dict[str, Any]:
    """Raises django.db.DatabaseError."""
    name = {"symbol": wish.symbol, "exchange": wish.exchange}
    listed = dict(Instrument.objects.filter(**name).order_by("broker__priority").values_list("broker__slug", "segment"))
    dated = InstrumentMaster.objects.filter(broker__slug__in=listed).order_by().values_list("broker__slug")
    dates: dict[str, dt.date] = dict(dated.annotate(Max("dated")))
    modes = {slug: _modes(slug, Segment(segment)) for slug, segment in listed.items()}
    fields: dict[str, Any] = {
        "has_instruments": bool(listed) or Instrument.objects.exists(),
        "listed_by": {slug: dates.get(slug) for slug in listed},
        "accounts": [_account(account, modes) for account in load_accounts(time.time_ns() // 1_000_000)],
    }
    return fields if listed or wish.exchange not in EXCHANGES else fields | _instead(wish)


def _account(account: Account, modes: dict[str, frozenset[Mode]]) -> AccountFact:
    return AccountFact(
        broker=account.broker,
        name=account.name,
        feed=account.feed,
        simulated=account.simulated,
        is_on=account.is_on,
        trouble=account.trouble.message if account.trouble is not None else "",
        lists=account.broker in modes,
        modes=modes.get(account.broker, frozenset()),
    )


def _modes(slug: str, segment: Segment) -> frozenset[Mode]:
    try:
        feeds = registry.load(slug).spec.feeds
    except registry.UnknownBroker:
        return frozenset()
    return frozenset(mode for feed in feeds for mode in feed.modes_for(segment))


def _instead(wish: Wish) -> dict[str, Any]:
    """What to say of a name that nobody lists."""
    symbol, exchange, _ = wish
    today = timezone.localdate()
    suggestions = catalog.suggest(symbol, exchange, today=today)
    with contextlib.suppress(catalog.QueryError):  # a symbol need not be a query
        suggestions = suggestions or catalog.did_you_mean(symbol, exchange=exchange, today=today)
    expired = gone((symbol, exchange), timezone.now()).message
    return {
        "flaw": catalog.flaw(symbol, exchange),
        "gone": expired if expired.startswith("It expired") else "",
        "suggestions": suggestions,
    }
