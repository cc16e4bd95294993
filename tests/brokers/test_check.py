"""Where brokers disagree about an instrument, and names that do not say what their row is."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command

from brokers.instruments.check import Count, Difference, check
from brokers.models import Instrument
from tests.brokers.instruments_of import load, row, rows, sample

NAMES = ["SBIN@NSE", "NIFTY@NSE_INDEX", "NIFTY31MAR2624850CE@NFO", "NIFTY31MAR26FUT@NFO", "BTCUSDFUT@CRYPTO"]


def change(slug: str, symbol: str, **fields: Any) -> None:
    Instrument.objects.filter(broker__slug=slug, symbol=symbol).update(**fields)


@pytest.fixture
def three(db: None) -> None:
    """Three brokers that agree."""
    for slug in ("angel", "upstox", "zerodha"):
        load(slug, rows(NAMES), account=False)


def test_brokers_that_agree_have_no_differences(three: None) -> None:
    report = check([], 10)
    assert report.is_clean
    assert (report.rows, report.shared) == (15, 15)
    assert (report.differences, report.misnamed, report.counts) == ([], [], [])


def test_a_sample_master_follows_the_grammar(db: None) -> None:
    load("zerodha", sample())
    report = check([], 10)
    assert (report.rows, report.misnamed) == (120, [])


def test_each_field_is_compared_and_each_brokers_value_told(three: None) -> None:
    change("upstox", "NIFTY31MAR2624850CE", lot_size=65)
    change("zerodha", "SBIN", tick_size=0.1, kind="ETF")
    change("angel", "NIFTY31MAR26FUT", expiry=dt.date(2026, 3, 30))
    change("angel", "SBIN", strike=5.0)
    report = check([], 10)
    assert [msgspec.structs.astuple(each) for each in report.differences] == [
        ("NIFTY31MAR2624850CE", "NFO", "lot_size", {"angel": 1, "upstox": 65, "zerodha": 1}),
        ("NIFTY31MAR26FUT", "NFO", "expiry", {"angel": "2026-03-30", "upstox": "2026-03-31", "zerodha": "2026-03-31"}),
        ("SBIN", "NSE", "strike", {"angel": 5.0, "upstox": None, "zerodha": None}),
        ("SBIN", "NSE", "tick_size", {"angel": 0.05, "upstox": 0.05, "zerodha": 0.1}),
        ("SBIN", "NSE", "kind", {"angel": "EQ", "upstox": "EQ", "zerodha": "ETF"}),
    ]
    assert report.differing == 5
    assert Count(field="lot_size", brokers=("angel", "upstox"), names=1) in report.counts
    assert Count(field="lot_size", brokers=("upstox", "zerodha"), names=1) in report.counts
    assert all(each.brokers != ("angel", "zerodha") for each in report.counts if each.field == "lot_size")


def test_the_same_number_read_from_two_texts_is_no_difference(three: None) -> None:
    change("upstox", "SBIN", tick_size=0.05 + 1e-12)
    assert check([], 10).is_clean


def test_what_is_kept_is_bounded_and_what_is_counted_is_not(three: None) -> None:
    Instrument.objects.filter(broker__slug="upstox").update(lot_size=7, kind="XX")
    report = check([], 3)
    assert (len(report.differences), report.differing) == (3, 10)
    assert (len(report.misnamed), report.misnaming, report.misnamed_by) == (3, 5, {"upstox": 5})
    assert sum(each.names for each in report.counts) == 20


def test_only_the_named_brokers_are_compared(three: None) -> None:
    change("zerodha", "SBIN", lot_size=9)
    assert check(["angel", "upstox"], 10).is_clean
    report = check(["angel", "zerodha"], 10)
    assert report.differences == [
        Difference(symbol="SBIN", exchange="NSE", field="lot_size", values={"angel": 1, "zerodha": 9})
    ]
    assert (report.rows, report.shared) == (10, 5)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (row("SBIN@NSE", 1, symbol="SBIN EQ"), "holds a blank"),
        (row("SBIN@NSE", 1, kind="INDEX"), "says the kind EQ, its row has INDEX"),
        (row("NIFTY31MAR26FUT@NFO", 1, expiry="2026-03-30"), "says the expiry 2026-03-31, its row has 2026-03-30"),
        (row("NIFTY31MAR26FUT@NFO", 1, expiry=""), "its row has nothing"),
        (row("ITC31MAR26412.5CE@NFO", 1, strike=412.0), "says the strike 412.5, its row has 412.0"),
        (row("ITC31MAR26412.5CE@NFO", 1, symbol="ITC31MAR26412.50CE"), "write it as 412.5"),
        (
            row("ITC31MAR26412.5CE@NFO", 1, symbol="ITC26MAR412.5CE"),
            "says the expiry 2041-03-26, its row has 2026-03-31",
        ),
    ],
)
def test_a_name_that_does_not_say_what_its_row_is_is_told(db: None, odd: Any, reason: str) -> None:
    load("upstox", [odd], account=False)
    report = check([], 10)
    [misnamed] = report.misnamed
    assert reason in misnamed.reason
    assert (misnamed.broker, report.misnamed_by) == ("upstox", {"upstox": 1})


# -------------------------------------------------------------------------------------------------------------- command


def run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    try:
        call_command("check_instruments", *arguments, stdout=output)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code, output.getvalue()
    return 0, output.getvalue()


def test_agreement_is_one_line_and_exit_code_0(three: None) -> None:
    code, printed = run()
    assert code == 0
    assert (
        printed == "15 listings read, 15 pairs of two brokers compared: 0 differences, 0 names outside the grammar.\n"
    )


def test_differences_are_a_table_and_exit_code_1(three: None) -> None:
    change("upstox", "SBIN", lot_size=65)
    change("zerodha", "BTCUSDFUT", kind="CE")
    code, printed = run()
    assert code == 1
    assert "Differences: 2 of 2" in printed
    assert "SBIN" in printed
    assert "angel / upstox" in printed
    assert "zerodha 1" in printed
    assert "15 pairs of two brokers compared: 2 differences, 1 names outside the grammar." in printed


def test_json_has_everything(three: None) -> None:
    change("upstox", "SBIN", lot_size=65)
    code, printed = run("upstox", "angel", "--json", "--limit=1")
    report = json.loads(printed)
    assert code == 1
    assert report["differences"] == [
        {"symbol": "SBIN", "exchange": "NSE", "field": "lot_size", "values": {"angel": 1, "upstox": 65}}
    ]
    assert report["counts"] == [{"field": "lot_size", "brokers": ["angel", "upstox"], "names": 1}]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody"], "There is no broker 'nobody'; use one of "),
        (["--limit=-1"], "--limit is -1; use 0 or more."),
        ([], "There are no instruments to check"),
    ],
)
def test_a_mistake_is_one_sentence(db: None, arguments: list[str], sentence: str) -> None:
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert sentence in str(caught.value)
