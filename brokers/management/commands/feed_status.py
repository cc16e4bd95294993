"""`manage.py feed_status`: every account and its sockets, as the running adapters' process tells it."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from brokers.feed.accounts import Account, load_accounts
from brokers.feed.report import NoAnswer, ask_feed
from brokers.india import INDIA
from brokers.management.console import console
from marketdata.report import AccountReport, ConnectionReport, FeedReport, ReportError
from marketdata.ticks import FeedState, TokenState

REFRESH_S = 1.0
BAR = 6
"""A full bar has so many blocks."""

_STYLES: Mapping[str, str] = {
    FeedState.CONNECTED: "green",
    FeedState.MARKET_CLOSED: "cyan",
    FeedState.CONNECTING: "yellow",
    FeedState.RECONNECTING: "yellow",
    FeedState.DISABLED: "dim",
    TokenState.VALID: "green",
    TokenState.EXPIRING: "yellow",
}
"""Of states; the others are red."""


class Command(BaseCommand):
    """Asks; changes nothing."""

    help = "Show every broker account: state, token, sockets, symbols against limits, reconnects."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Once or again and again; for people or programs."""
        parser.add_argument("--watch", action="store_true", help="refresh until Ctrl-C")
        parser.add_argument("--json", action="store_true", help="JSON on standard output instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints what is known. Raises CommandError with one sentence: neither process nor database answers."""
        out = console(self.stdout)
        if options["json"]:
            self.stdout.write(_json())
        elif not options["watch"]:
            out.print(_shown())
        else:
            with contextlib.suppress(KeyboardInterrupt), Live(_shown(), console=out, auto_refresh=False) as live:
                while True:
                    time.sleep(REFRESH_S)
                    live.update(_shown(), refresh=True)


def _json() -> str:
    try:
        answer: dict[str, Any] = {"running": True, **msgspec.to_builtins(_asked())}
    except (NoAnswer, ReportError) as error:
        accounts = [_stored(account) for account in _accounts()]
        answer = {"running": False, "problem": str(error), "accounts": accounts}
    return msgspec.json.format(msgspec.json.encode(answer)).decode()


def _shown() -> Group:
    try:
        report = _asked()
    except (NoAnswer, ReportError) as error:
        return _without(str(error))
    return Group(
        _account_table(report), *_sentences(report), *_connection_table(report), Text(_totals(report), style="dim")
    )


def _asked() -> FeedReport:
    return ask_feed(settings.ZMQ_HOST, settings.ZMQ_PORT)


# ----------------------------------------------------------------------------------------------------------- the report


def _account_table(report: FeedReport) -> Table:
    rows = [
        (
            _account_name(account.broker, account.name, simulated=account.simulated),
            Text(account.feed),
            _state(account.state, report.now_ms - account.since_ms),
            _filled(account.placed, account.limit) if account.limit else Text(),
            _token(account.token, account.token_ends_ms),
        )
        for account in report.accounts
    ]
    return _table(("Account", "Feed", "State", "Symbols", "Token"), rows)


def _sentences(report: FeedReport) -> Iterator[Text]:
    """What there is to say of accounts that are not just connected."""
    for account in report.accounts:
        if account.state is not FeedState.CONNECTED:
            style = _STYLES.get(account.state, "red")
            yield Text(f"{account.broker} {account.name}: ", style=style).append(account.message, style="default")


def _connection_table(report: FeedReport) -> Iterator[Table]:
    """One, unless nothing connects."""
    rows = [
        _connection_row(report, account, connection)
        for account in report.accounts
        for connection in account.connections
    ]
    headings = (
        "Connection", "State", "Symbols", "Unsaid", "Unconfirmed", "Refused", "Last frame", "Reconnects", "Bad frames"
    )  # fmt: skip
    if rows:
        yield _table(headings, rows)


def _connection_row(report: FeedReport, account: AccountReport, each: ConnectionReport) -> tuple[Text, ...]:
    silent_ms = None if each.heard_ms is None else report.now_ms - each.heard_ms
    return (
        Text(f"{account.broker} {account.name} {each.kind} {each.number}"),
        _state(each.state, report.now_ms - each.since_ms),
        _filled(each.placed, each.limit).append(_doubt(each.apparent_limit)),
        _count(each.unsaid),
        _count(each.difference - each.refused),
        _count(each.refused),
        Text("" if silent_ms is None else f"{_length(silent_ms)} ago"),
        Text(", ".join(f"{count} {cause}" for cause, count in sorted(each.reconnects.items()))),
        _count(each.decode_errors),
    )


def _totals(report: FeedReport) -> str:
    parts = [
        f"{report.wanted:,} symbols wanted",
        *(f"{count:,} not served ({reason.replace('_', ' ')})" for reason, count in sorted(report.shortage.items())),
        f"{report.published:,} ticks published in {_length(report.now_ms - report.started_ms)}",
        *(f"{count} reconnects ({cause})" for cause, count in sorted(report.reconnects.items())),
    ]
    parts += [f"{report.refusals} refusals"] if report.refusals else []
    parts += [f"{report.decode_errors:,} bad frames"] if report.decode_errors else []
    return f"{', '.join(parts)}; process {report.pid}."


# ------------------------------------------------------------------------------------------------ what is known without


def _without(problem: str) -> Group:
    """The accounts as they are stored, when nobody runs them."""
    accounts = _accounts()
    rows = [
        (
            _account_name(account.broker, account.name, simulated=account.simulated),
            Text(account.feed),
            _stored_state(account),
            _token(account.token.state if account.is_on else None, account.token.ends_ms),
        )
        for account in accounts
    ]
    table = _table(("Account", "Feed", "State", "Token"), rows)
    troubles = (f"{each.broker} {each.name}: {each.trouble.message}" for each in accounts if each.trouble is not None)
    return Group(Text(problem, style="bold red"), table, *map(Text, troubles))


def _stored_state(account: Account) -> Text:
    if account.trouble is None:
        return Text("ready", style="dim")
    state = account.trouble.state
    return Text(_words(state), style=_STYLES.get(state, "red"))


def _accounts() -> list[Account]:
    try:
        return load_accounts(time.time_ns() // 1_000_000)
    except DatabaseError as error:
        raise CommandError(f"Neither the adapters' process nor the database answers ({error}).") from None


def _stored(account: Account) -> dict[str, Any]:
    trouble = account.trouble
    return {
        "id": account.id,
        "broker": account.broker,
        "name": account.name,
        "feed": account.feed,
        "simulated": account.simulated,
        "state": None if trouble is None else trouble.state.value,
        "message": "" if trouble is None else trouble.message,
        "token": account.token.state.value if account.token.state is not None and account.is_on else None,
        "token_sentence": account.token.sentence,
        "token_ends_ms": account.token.ends_ms,
    }


# ---------------------------------------------------------------------------------------------------------------- cells


def _table(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> Table:
    """Columns in which nothing is to be seen are left out: terminals are narrow."""
    table = Table()
    shown = [at for at in range(len(headings)) if not at or any(row[at].plain not in ("", "0") for row in rows)]
    for at in shown:
        table.add_column(headings[at], overflow="fold")
    for row in rows:
        table.add_row(*(row[at] for at in shown))
    return table


def _words(state: str) -> str:
    return state.replace("_", " ")


def _account_name(broker: str, name: str, *, simulated: bool) -> Text:
    text = Text(f"{broker} {name}")
    return text.append(" SIMULATED", style="bold yellow") if simulated else text


def _state(state: FeedState, since_ms: int) -> Text:
    return Text(_words(state), style=_STYLES.get(state, "red")).append(f" {_length(since_ms)}", style="default dim")


def _token(state: TokenState | None, ends_ms: int | None) -> Text:
    if state is None:
        return Text("")
    text = Text(_words(state), style=_STYLES.get(state, "red"))
    if ends_ms is not None:
        text.append(f" to {dt.datetime.fromtimestamp(ends_ms / 1000, INDIA):%d %b %H:%M}", style="default dim")
    return text


def _filled(placed: int, limit: int) -> Text:
    """
    So many of so many, and a bar.

    >>> _filled(450, 1000).plain, _filled(1, 1000).plain, _filled(0, 1000).plain
    ('▰▰▱▱▱▱ 450/1,000', '▰▱▱▱▱▱ 1/1,000', '▱▱▱▱▱▱ 0/1,000')
    """
    blocks = min(max(placed * BAR // limit, 1 if placed else 0), BAR) if limit else 0
    style = "red" if placed >= limit else "yellow" if placed * 10 >= limit * 9 else "green"
    return Text("▰" * blocks + "▱" * (BAR - blocks), style=style).append(f" {placed:,}/{limit:,}", style="default")


def _doubt(apparent_limit: int | None) -> Text:
    """That the broker seems to serve fewer than its limit says."""
    text = "" if apparent_limit is None else f", seems to serve {apparent_limit:,}"
    return Text(text, style="red")


def _count(count: int) -> Text:
    return Text(f"{count:,}", style="yellow" if count else "dim")


def _length(ms: int) -> str:
    """
    A length of time, short.

    >>> _length(1_200), _length(65_000), _length(3 * 3_600_000 + 60_000)
    ('1.2 s', '1 min', '3 h')
    """
    seconds = max(ms, 0) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"
