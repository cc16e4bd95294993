"""What `feed_status` shows of a report."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from brokers.management.commands import feed_status
from marketdata.report import AccountReport, ConnectionReport, FeedReport
from marketdata.ticks import FeedState


def shown(monkeypatch: pytest.MonkeyPatch, connection: ConnectionReport) -> str:
    account = AccountReport(
        id=1, broker="zerodha", name="main", feed="", simulated=False, state=FeedState.CONNECTED, message="",
        since_ms=0, placed=connection.placed, limit=3000, connections=(connection,),
    )  # fmt: skip
    report = FeedReport(pid=1, started_ms=0, now_ms=10_000, accounts=(account,))
    monkeypatch.setattr(feed_status, "_asked", lambda: report)
    out = io.StringIO()
    Console(file=out, width=200).print(feed_status._shown())
    return out.getvalue()


def test_a_socket_tells_what_is_unsaid_and_unconfirmed_and_how_much_the_broker_seems_to_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(monkeypatch, ConnectionReport(
        kind="market", number=0, state=FeedState.CONNECTED, message="", is_up=True, since_ms=0, placed=1010,
        limit=3000, told=1003, unheard=3, unsaid=7, apparent_limit=1000,
    ))  # fmt: skip
    [headings] = [line for line in text.splitlines() if "Connection" in line]
    assert [each.strip() for each in headings.strip("┃").split("┃")] == [
        "Connection", "State", "Symbols", "Unsaid", "Unconfirmed"
    ]  # fmt: skip
    [row] = [line for line in text.splitlines() if "market 0" in line]
    assert [each.strip() for each in row.strip("│").split("│")][2:] == [
        "▰▰▱▱▱▱ 1,010/3,000, seems to serve 1,000",
        "7",
        "10",
    ]


def test_where_all_is_said_and_confirmed_there_are_no_such_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, ConnectionReport(
        kind="market", number=0, state=FeedState.CONNECTED, message="", is_up=True, since_ms=0, placed=3, limit=3000,
        told=3,
    ))  # fmt: skip
    assert "Unsaid" not in text
    assert "Unconfirmed" not in text
    assert "seems" not in text
