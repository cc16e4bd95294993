"""What a client asked for, made into keys and refusals, on the rows of real masters."""

from __future__ import annotations

import pytest
from django.utils import timezone

from marketdata.dialects.base import Item
from marketdata.resolution import SUGGESTED_ITEMS, resolve
from marketdata.ticks import Key, Mode
from tests.brokers.instruments_of import OTHERS, TODAY, load, rows, sample


@pytest.fixture
def market(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two brokers with accounts, on a day on which nothing has expired."""
    load("zerodha", sample())
    load("upstox", rows(OTHERS))
    monkeypatch.setattr(timezone, "localdate", lambda: TODAY)


def refusal(symbol: str, exchange: str) -> tuple[str, str]:
    [rejected] = resolve([Item(symbol, exchange, Mode.LTP)], "").rejected
    return rejected.error.name, rejected.error.message


def test_what_somebody_lists_becomes_a_key(market: None) -> None:
    items = [Item("SBIN", "NSE", Mode.LTP), Item("NIFTY", "NSE_INDEX", None), Item("SBIN", "NSE", Mode.LTP)]
    found = resolve(items, "desk")
    assert found.keys == (Key("SBIN", "NSE", Mode.LTP, "desk"), Key("NIFTY", "NSE_INDEX", Mode.LTP, "desk"))
    assert found.rejected == ()


@pytest.mark.parametrize(
    ("symbol", "exchange", "end"),
    [
        ("RELAINCE", "NSE", "on this exchange. Did you mean RELIANCE or RELIANCE on BSE?"),
        ("IDEA", "NSE", "on this exchange. Did you mean IDEA-BE?"),
        ("NIFTY", "NSE", "Did you mean NIFTY on NSE_INDEX or NIFTYBEES or INFY?"),
        ("NIFTY25MAR2624850CE", "NFO", "Did you mean NIFTY31MAR2624850CE or NIFTY10MAR2624850CE"),
        (
            "NIFTY31FEB2624850CE",
            "NFO",
            "NIFTY31FEB2624850CE on NFO expires on 31FEB26, which is no date; write the last",
        ),
        ("SBIN-EQ", "NSE", "says the series EQ, which is left out; write SBIN. Did you mean SBIN"),
        ("ZZZZZZ", "NSE", "on this exchange."),
    ],
)
def test_an_unknown_symbol_is_told_what_may_have_been_meant(market: None, symbol: str, exchange: str, end: str) -> None:
    name, message = refusal(symbol, exchange)
    assert name == "unknown_symbol"
    assert message.startswith("No configured broker has this symbol on this exchange.")
    assert end in message


def test_exchanges_that_there_are_not_or_nobody_serves_are_told_apart(market: None) -> None:
    assert refusal("SBIN", "NSEX")[0] == "unknown_exchange"
    assert refusal("USDINR27MAR26FUT", "BCD")[0] == "exchange_not_served"


def test_only_the_first_refusals_of_a_request_cost_a_search(market: None) -> None:
    items = [Item("RELAINCE", "NSE", Mode(mode)) for mode in [1] * (SUGGESTED_ITEMS + 5)]
    messages = [rejected.error.message for rejected in resolve(items, "").rejected]
    assert ["Did you mean" in message for message in messages] == [True] * SUGGESTED_ITEMS + [False] * 5
