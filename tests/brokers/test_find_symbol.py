"""`manage.py find_symbol`, as one types it."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from brokers.models import BrokerAccount
from tests.brokers.instruments_of import OTHERS, TODAY, load, rows, sample
from tests.conftest import run_manage


@pytest.fixture
def market(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two brokers with accounts, on a day on which nothing has expired."""
    load("zerodha", sample())
    load("upstox", rows(OTHERS))
    monkeypatch.setattr(timezone, "localdate", lambda: TODAY)


def run(*arguments: str) -> tuple[str, str]:
    output, errors = io.StringIO(), io.StringIO()
    call_command("find_symbol", *arguments, stdout=output, stderr=errors)
    return output.getvalue(), errors.getvalue()


def test_a_row_has_what_one_needs_to_know(market: None) -> None:
    printed, errors = run("nifty", "24850", "ce", "31mar")
    [line] = [line for line in printed.splitlines() if "NIFTY31MAR2624850CE" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[:3] == ["NIFTY31MAR2624850CE", "NFO", "CE"]
    assert cells[4:6] == ["31 Mar 2026", "24850"]
    assert set(cells[8].split(", ")) == set(cells[9].split(", ")) == {"upstox", "zerodha"}
    assert errors == ""


def test_options_narrow(market: None) -> None:
    printed, _ = run("sbin", "--exchange=bse")
    assert [line.split("│")[2].strip() for line in printed.splitlines() if "SBIN" in line] == ["BSE"]
    printed, _ = run("nifty", "--kind=fut", "--limit=1")
    assert printed.count("FUT") == 2  # the symbol and its kind


def test_json_is_the_same_for_programs(market: None) -> None:
    printed, _ = run("itc", "412.5", "pe", "--json")
    assert json.loads(printed) == [
        {
            "symbol": "ITC31MAR26412.5PE", "exchange": "NFO", "kind": "PE", "name": "ITC", "expiry": "2026-03-31",
            "strike": 412.5, "lot_size": 1, "tick_size": 0.05, "brokers": ["upstox"], "served_by": ["upstox"],
        }
    ]  # fmt: skip


def test_without_any_account_it_finds_and_says_that_nobody_serves(market: None) -> None:
    BrokerAccount.objects.all().delete()
    printed, errors = run("reliance", "fut")
    assert "RELIANCE31MAR26FUT" in printed
    assert "No account can serve these" in errors


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["relaince"], "No instrument is called 'relaince'; did you mean RELIANCE on NSE or RELIANCE on BSE?"),
        (["zzzz", "qqqq"], "No instrument is called 'zzzz qqqq'; try fewer words, or another spelling."),
        (["24850", "ce"], "does not say of what"),
        (["sbin", "--limit=0"], "The limit is 0"),
        (["sbin", "--exchange=XX"], "There is no exchange 'XX'"),
        (["sbin", "--kind=XX"], "There is no kind 'XX'"),
    ],
)
def test_nothing_and_nonsense_are_one_sentence(market: None, words: list[str], sentence: str) -> None:
    with pytest.raises(CommandError) as caught:
        run(*words)
    assert sentence in str(caught.value)


def test_an_empty_catalogue_says_how_to_fill_it(db: None) -> None:
    with pytest.raises(CommandError, match="There are no instruments yet; load a broker's with"):
        run("sbin")


def test_nothing_is_exit_code_1_and_no_traceback(tmp_path: object) -> None:
    assert run_manage("migrate", "-v0", STREAM_DATA_DIR=str(tmp_path)).returncode == 0
    done = run_manage("find_symbol", "sbin", STREAM_DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("CommandError: There are no instruments yet")
    assert done.stderr.count("\n") == 1


def test_a_new_database_is_one_sentence(tmp_path: object) -> None:
    done = run_manage("find_symbol", "sbin", STREAM_DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "run migrate if it is new." in done.stderr
    assert "Traceback" not in done.stderr
