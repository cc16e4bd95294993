"""What a simulator quotes: names, order, grids and expiries."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from brokers.simulators.universe import listings

GRAMMAR = re.compile(
    r"^(.+?)(\d{2}(?:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)\d{2})(?:FUT|(\d+(?:\.\d+)?)(CE|PE))$"
)
DAYS = [dt.date(2025, 1, 1) + dt.timedelta(days=day) for day in range(0, 800, 3)]


def test_no_contract_is_near_its_expiry_whatever_the_day() -> None:
    for today in DAYS:
        contracts = [one for one in listings(None, today) if one.expiry is not None]
        assert len(contracts) > 80
        assert all((one.expiry - today).days >= 7 for one in contracts if one.expiry), today


def test_symbols_and_numbers_are_unique_within_their_exchange_on_every_day() -> None:
    for today in DAYS:
        universe = listings(None, today)
        assert len({one.key for one in universe}) == len(universe), today
        assert len({(one.exchange, one.code) for one in universe}) == len(universe), today


def test_contract_names_read_back_to_their_underlying_day_and_strike() -> None:
    for one in listings(None, dt.date(2025, 11, 3)):
        if one.expiry is None:
            continue
        match = GRAMMAR.match(one.symbol)
        assert match is not None, one.symbol
        assert match[1] == one.name
        assert dt.datetime.strptime(match[2], "%d%b%y").date() == one.expiry
        assert (match[3] is None) == (one.kind == "FUT")
        if match[3] is not None:
            assert float(match[3]) == one.strike
            assert match[4] == one.kind


def test_there_are_strikes_with_decimals_and_symbols_with_punctuation() -> None:
    symbols = {one.symbol for one in listings(None, dt.date(2025, 11, 3))}
    assert "ITC25NOV25412.5CE" in symbols
    assert {"M&M", "BAJAJ-AUTO", "M&M25NOV25FUT"} <= symbols


def test_prices_and_strikes_lie_on_the_tick_grid() -> None:
    for one in listings(3000, dt.date(2025, 11, 3)):
        assert one.price > 0
        assert abs(one.price / one.tick_size - round(one.price / one.tick_size)) < 1e-6, one


def test_artificial_names_follow_the_real_ones_and_are_plainly_artificial() -> None:
    today = dt.date(2025, 11, 3)
    real = listings(None, today)
    more = listings(len(real) + 3, today)
    assert more[: len(real)] == real
    assert [one.key for one in more[len(real) :]] == ["NSE:SIM0001", "NSE:SIM0002", "NSE:SIM0003"]
    assert all(one.name.startswith("SIMULATED") for one in more[len(real) :])
    assert not any(one.symbol.startswith("SIM0") for one in real)


def test_the_first_five_are_the_best_known() -> None:
    keys = [one.key for one in listings(5, dt.date(2025, 11, 3))]
    assert keys == ["NSE:SBIN", "NSE:RELIANCE", "NSE:INFY", "NSE_INDEX:NIFTY", "NSE_INDEX:BANKNIFTY"]


@pytest.mark.parametrize("count", [0, -1, 100_001])
def test_an_impossible_number_of_symbols_is_refused_with_the_range(count: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 100,000"):
        listings(count, dt.date(2025, 11, 3))
