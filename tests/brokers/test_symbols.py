"""The symbol grammar: round-trips both ways, and refusals that say what to do."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.symbols import (
    CASH_EXCHANGES,
    CRYPTO_EXCHANGES,
    DERIVATIVE_EXCHANGES,
    INDEX_EXCHANGES,
    GrammarError,
    Kind,
    Name,
    parse,
    strike_text,
    symbol_of,
)
from marketdata.ticks import EXCHANGES

BASES = st.from_regex(r"[A-Z0-9][A-Z0-9&]{0,11}", fullmatch=True) | st.sampled_from(
    ["M&M", "BAJAJ-AUTO", "NIFTY", "726GS2033", "91DTB", "GOLD10GM", "1000SHIB", "NAM-INDIA", "28MAR24", "NIFTY28MAR24"]
)
DATES = st.dates(dt.date(2000, 1, 1), dt.date(2099, 12, 31))
STRIKES = st.integers(1, 10**9).map(lambda ten_thousandths: ten_thousandths / 10_000) | st.integers(1, 200_000)


def names(exchange: str) -> st.SearchStrategy[Name]:
    """Names of every kind the exchange has."""
    nothing = st.just("")
    if exchange in INDEX_EXCHANGES:
        return made(exchange, st.just(Kind.INDEX), BASES)
    if exchange in CASH_EXCHANGES:
        series = st.sampled_from(["", "BE", "SM", "T0", "GB"]) if exchange == "NSE" else nothing
        return made(exchange, st.just(Kind.EQUITY), BASES, series)
    futures = made(exchange, st.just(Kind.FUTURE), BASES, nothing, DATES)
    options = made(exchange, st.sampled_from([Kind.CALL, Kind.PUT]), BASES, nothing, DATES, STRIKES)
    if exchange in CRYPTO_EXCHANGES:
        pairs = st.sampled_from(["BTCUSDT", "BTCINR", "1000SHIBUSDT", "MV-BTC-62000-280225"])
        return futures | options | made(exchange, st.sampled_from([Kind.SPOT, Kind.PERPETUAL]), pairs)
    return futures | options


def made(exchange: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Name]:
    return st.tuples(st.just(exchange), *parts).map(lambda values: Name(*values))


ANY_NAME = st.sampled_from(sorted(EXCHANGES)).flatmap(names)
TEXTS = st.text(max_size=120) | st.text("ABCEFNPTUR0123456789.-& ", max_size=30)


def is_one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and ". " not in text and text[0] != " " and "  " not in text


def test_every_exchange_is_of_exactly_one_sort() -> None:
    sorts = (CASH_EXCHANGES, INDEX_EXCHANGES, DERIVATIVE_EXCHANGES, CRYPTO_EXCHANGES)
    assert sum(map(len, sorts)) == len(EXCHANGES)
    assert frozenset.union(*sorts) == EXCHANGES


@given(ANY_NAME)
def test_a_name_that_can_be_written_is_read_back(name: Name) -> None:
    try:
        symbol = symbol_of(name)
    except GrammarError as error:
        assert is_one_sentence(str(error))
    else:
        assert parse(symbol, name.exchange) == name


@given(names("NFO") | names("MCX") | names("CDS"))
def test_every_contract_can_be_written(name: Name) -> None:
    assert parse(symbol_of(name), name.exchange) == name


@given(TEXTS | ANY_NAME.map(lambda name: f"{name.base}28MAR24{name.kind}"), st.sampled_from(sorted(EXCHANGES)))
def test_a_symbol_that_can_be_read_is_written_back_and_every_refusal_is_one_sentence(text: str, exchange: str) -> None:
    try:
        name = parse(text, exchange)
    except GrammarError as error:
        assert is_one_sentence(str(error)), str(error)
    else:
        assert symbol_of(name) == text


@given(TEXTS, TEXTS)
def test_any_exchange_that_there_is_not_is_refused_in_one_sentence(symbol: str, exchange: str) -> None:
    if exchange not in EXCHANGES:
        with pytest.raises(GrammarError) as caught:
            parse(symbol, exchange)
        assert is_one_sentence(str(caught.value))


@given(ANY_NAME, st.data())
def test_a_symbol_with_lower_case_or_a_blank_never_parses(name: Name, data: st.DataObject) -> None:
    symbol = f"A{name.base}28MAR24FUT"
    place = data.draw(st.integers(0, len(symbol) - 1))
    spoilt = data.draw(st.sampled_from([" ", "\t", "\n", "\N{NO-BREAK SPACE}", "a", "z", "ä"]))
    with pytest.raises(GrammarError):
        parse(f"{symbol[:place]}{spoilt}{symbol[place:]}", name.exchange)


@given(names("NFO"))
def test_a_contract_is_refused_on_an_exchange_without_contracts(name: Name) -> None:
    for exchange in CASH_EXCHANGES | INDEX_EXCHANGES:
        with pytest.raises(GrammarError, match="only; ask for it on an exchange of derivatives"):
            parse(symbol_of(name), exchange)


@pytest.mark.parametrize(
    ("symbol", "exchange", "name"),
    [
        ("SBIN", "NSE", ("EQ", "SBIN", "", None, None)),
        ("BAJAJ-AUTO", "NSE", ("EQ", "BAJAJ-AUTO", "", None, None)),
        ("IDEA-BE", "NSE", ("EQ", "IDEA", "BE", None, None)),
        ("IDEA-BE", "BSE", ("EQ", "IDEA-BE", "", None, None)),
        ("NIFTY", "NSE_INDEX", ("INDEX", "NIFTY", "", None, None)),
        ("M&M25APR24FUT", "NFO", ("FUT", "M&M", "", dt.date(2024, 4, 25), None)),
        ("VEDL25APR24292.5CE", "NFO", ("CE", "VEDL", "", dt.date(2024, 4, 25), 292.5)),
        ("USDINR19APR2483.25PE", "CDS", ("PE", "USDINR", "", dt.date(2024, 4, 19), 83.25)),
        ("726GS203325APR24FUT", "CDS", ("FUT", "726GS2033", "", dt.date(2024, 4, 25), None)),
        ("726GS203225APR2499.5CE", "CDS", ("CE", "726GS2032", "", dt.date(2024, 4, 25), 99.5)),
        ("91DTB30MAY24FUT", "CDS", ("FUT", "91DTB", "", dt.date(2024, 5, 30), None)),
        ("CRUDEOIL17APR246750CE", "MCX", ("CE", "CRUDEOIL", "", dt.date(2024, 4, 17), 6750)),
        ("GOLD10GM27NOV26FUT", "NCO", ("FUT", "GOLD10GM", "", dt.date(2026, 11, 27), None)),
        ("BTCUSDT", "CRYPTO", ("SPOT", "BTCUSDT", "", None, None)),
        ("BTCUSDFUT", "CRYPTO", ("PERPFUT", "BTCUSD", "", None, None)),
        ("BTC28FEB25FUT", "CRYPTO", ("FUT", "BTC", "", dt.date(2025, 2, 28), None)),
        ("BTC28FEB2562000PE", "CRYPTO", ("PE", "BTC", "", dt.date(2025, 2, 28), 62000)),
    ],
)
def test_every_class_of_symbol_is_read_and_written(symbol: str, exchange: str, name: tuple[object, ...]) -> None:
    read = parse(symbol, exchange)
    assert tuple(read[1:]) == name
    assert symbol_of(read) == symbol


@pytest.mark.parametrize(
    ("symbol", "exchange", "part", "remedy"),
    [
        ("sbin", "NSE", "holds lower case", "write SBIN"),
        ("BAJAJ AUTO", "NSE", "BAJAJ␣AUTO holds a blank", "write it without"),
        ("SBİN", "NSE", "not plain ASCII", "write it without"),
        ("", "NSE", "is empty", "such as SBIN"),
        ("A" * 101, "NSE", "longer than 100", "exchange's own name"),
        ("SBIN", "NSEX", "no exchange NSEX", "use one of BCD, BFO"),
        ("SBIN-EQ", "NSE", "says the series EQ", "write SBIN"),
        ("NIFTY28MAR2420800CE", "NSE", "is an option, and NSE has shares only", "such as NFO"),
        ("SENSEX28MAR24FUT", "BSE_INDEX", "is a future, and BSE_INDEX has indices only", "such as BFO"),
        ("NIFTY31FEB26FUT", "NFO", "expires on 31FEB26, which is no date", "as DDMMMYY"),
        ("NIFTY00JAN26FUT", "NFO", "expires on 00JAN26, which is no date", "as DDMMMYY"),
        ("NIFTY28MRZ26FUT", "NFO", "expires in MRZ, which is no month", "use one of JAN, FEB"),
        ("28MAR26FUT", "NFO", "nothing before its expiry", "such as NIFTY"),
        ("NIFTYFUT", "NFO", "has no expiry", "as DDMMMYY before the FUT"),
        ("NIFTY26MARFUT", "NFO", "has no expiry", "as in 28MAR24"),
        ("NIFTY24500CE", "NFO", "has no expiry", "before the strike and CE"),
        ("NIFTY28MAR26CE", "NFO", "has no strike", "as in 20800CE"),
        ("NIFTY28MAR2624500FUT", "NFO", "has 24500 between its expiry and FUT", "leave it out"),
        ("VEDL28MAR26292.50CE", "NFO", "has the strike 292.50", "write it as 292.5,"),
        ("VEDL28MAR26292.0CE", "NFO", "has the strike 292.0", "write it as 292,"),
        ("VEDL28MAR260292CE", "NFO", "has the strike 0292", "write it as 292,"),
        ("VEDL28MAR261.23456CE", "NFO", "has the strike 1.23456", "write it as 1.2346,"),
        ("VEDL28MAR260CE", "NFO", "has the strike 0", "above 0"),
        ("VEDL28MAR261.2.3CE", "NFO", "which is no number", "as 187.5 or 20800"),
        ("NIFTY28MAR2624500", "NFO", "ends neither with FUT nor", "NIFTY28MAR24FUT"),
        ("RELIANCE", "NFO", "ends neither with FUT nor", "NIFTY28MAR2420800CE"),
        ("BTC31FEB25FUT", "CRYPTO", "31FEB25, which is no date", "as DDMMMYY"),
        ("BTC28FEB25CE", "CRYPTO", "has no strike", "as in 20800CE"),
    ],
)
def test_a_refusal_names_the_part_and_what_to_do(symbol: str, exchange: str, part: str, remedy: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse(symbol, exchange)
    sentence = str(caught.value)
    assert part in sentence
    assert remedy in sentence
    assert is_one_sentence(sentence)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (Name("NFO", Kind.FUTURE, "NIFTY"), "has to expire"),
        (Name("NFO", Kind.CALL, "NIFTY", expiry=dt.date(2026, 3, 28)), "needs a strike"),
        (Name("NFO", Kind.FUTURE, "", expiry=dt.date(2026, 3, 28)), "has no base"),
        (Name("NFO", Kind.FUTURE, "nifty", expiry=dt.date(2026, 3, 28)), "lower case"),
        (Name("NFO", Kind.FUTURE, "NIFTY", expiry=dt.date(2126, 3, 28)), "expiry 2026-03-28 instead of 2126-03-28"),
        (
            Name("NFO", Kind.CALL, "X", expiry=dt.date(2026, 3, 28), strike=0.123456),
            "strike 0.1235 instead of 0.123456",
        ),
        (Name("NFO", Kind.EQUITY, "NIFTY"), "ends neither with"),
        (Name("NSE", Kind.EQUITY, "IDEA-BE"), "base IDEA instead of IDEA-BE"),
        (Name("BSE", Kind.EQUITY, "IDEA", "BE"), "base IDEA-BE instead of IDEA"),
        (Name("NSE", Kind.EQUITY, "IDEA", "EQ"), "says the series EQ"),
        (Name("CRYPTO", Kind.SPOT, "BTCUSDFUT"), "kind PERPFUT instead of SPOT"),
    ],
)
def test_parts_that_no_symbol_can_say_are_refused(name: Name, part: str) -> None:
    with pytest.raises(GrammarError) as caught:
        symbol_of(name)
    assert part in str(caught.value)
    assert is_one_sentence(str(caught.value))


def test_strikes_have_no_needless_zeros() -> None:
    assert [strike_text(strike) for strike in (20800.0, 292.5, 83.25, 0.0025)] == ["20800", "292.5", "83.25", "0.0025"]
