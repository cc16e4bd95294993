"""Looking instruments up: exactly and from memory, as people type, as chains, and what was meant by a misspelt name."""

from __future__ import annotations

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from brokers import catalog
from brokers.catalog import lookup
from brokers.catalog.directory import read_directory
from brokers.catalog.query import readings
from brokers.instruments.check import check
from brokers.instruments.store import replace_instruments
from brokers.models import Broker, BrokerAccount, Instrument
from marketdata.ticks import Mode, Segment, Token
from tests.brokers.instruments_of import OTHERS, TODAY, load, row, rows, sample
from tests.conftest import run_manage

SBIN = ("SBIN", "NSE")


@pytest.fixture
def market(db: None) -> None:
    """Two brokers with accounts."""
    load("zerodha", sample())
    load("upstox", rows(OTHERS))


def symbols(query: str, **options: Any) -> list[str]:
    found = catalog.search(query, today=TODAY, **options)
    return [f"{each.symbol}@{each.exchange}" for each in found]


# ---------------------------------------------------------------------------------------------------------------- exact


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time stands still, and the process has looked nothing up."""
    clock = Clock()
    monkeypatch.setattr(lookup.memory, "_clock", clock)
    return clock


def test_every_broker_that_can_serve_is_found(market: None) -> None:
    found = catalog.find({SBIN, ("NIFTY31MAR2624850CE", "NFO"), ("NOSUCH", "NSE"), ("SBIN", "NFO")})
    assert set(found) == {SBIN, ("NIFTY31MAR2624850CE", "NFO")}
    assert {(each.broker, each.token) for each in found[SBIN]} == {
        ("zerodha", Token(Segment.NSE, "779521")),
        ("upstox", Token(Segment.NSE, "1")),
    }
    assert all({Mode.LTP, Mode.QUOTE, Mode.DEPTH} <= each.modes for each in found[SBIN])


def test_a_name_no_database_can_hold_is_simply_unknown(market: None) -> None:
    assert catalog.find([("SB\0IN", "NSE"), ("\ud800", "NSE"), ("SBIN", "N\0SE")]) == {}
    assert catalog.suggest("SB\0IN", "NSE", today=TODAY)[:1] == ["SBIN"]
    assert catalog.suggest("\ud800", "NSE", today=TODAY) == []


def test_the_second_look_up_asks_the_database_nothing(transactional_db: None, clock: Clock) -> None:
    load("upstox", rows(OTHERS))
    names = {(name.split("@")[0], name.split("@")[1]) for name in OTHERS} | {("NOSUCH", "NSE")}
    first = catalog.find(names)
    assert len(first) == len(OTHERS)
    with CaptureQueriesContext(connection) as queries:
        assert catalog.find(names) == first
        clock.now_s += 0.9
        assert catalog.find(names) == first
        catalog.served_exchanges()
        assert catalog.served_exchanges() == {name.split("@")[1] for name in OTHERS}
    assert len(queries) == 1


def test_an_answer_is_the_callers_own(transactional_db: None, clock: Clock) -> None:
    load("upstox", rows(OTHERS))
    catalog.find([SBIN])[SBIN].clear()
    catalog.served_exchanges().clear()
    assert len(catalog.find([SBIN])[SBIN]) == 1
    assert catalog.served_exchanges()


def upstox() -> Broker:
    return Broker.objects.get(slug="upstox")


CHANGES = {
    "an import": lambda: replace_instruments(upstox(), rows(["TCS@NSE"])),
    "a row added by hand": lambda: Instrument.objects.create(
        broker=upstox(), segment="NSE", token="99", symbol="TCS", exchange="NSE", broker_symbol="", broker_exchange=""
    ),
    "a broker more": lambda: load("zerodha", rows(["TCS@NSE"])),
    "an account more": lambda: BrokerAccount.objects.create(broker=Broker.objects.get(slug="angel"), name="main"),
    "an account less": lambda: BrokerAccount.objects.update(enabled=False),
    "a broker switched off": lambda: Broker.objects.update(enabled=False),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen_a_second_later(transactional_db: None, clock: Clock, change: Any) -> None:
    load("upstox", rows(["SBIN@NSE"]))
    load("angel", rows(["TCS@NSE"]), account=False)
    names = [SBIN, ("TCS", "NSE")]
    before = catalog.find(names)
    assert set(before) == {SBIN}
    change()
    assert catalog.find(names) == before
    clock.now_s += lookup.LOOK_EVERY_S
    after = catalog.find(names)
    assert after != before
    catalog.forget()
    assert catalog.find(names) == after


def test_what_a_transaction_sees_is_its_own(transactional_db: None, clock: Clock) -> None:
    load("upstox", rows(["SBIN@NSE"]))
    assert set(catalog.find([SBIN, ("TCS", "NSE")])) == {SBIN}
    with transaction.atomic():
        load("zerodha", rows(["TCS@NSE"]))
        assert set(catalog.find([SBIN, ("TCS", "NSE")])) == {SBIN, ("TCS", "NSE")}
        assert [each.symbol for each in catalog.search("tcs", today=TODAY)] == ["TCS"]
        transaction.set_rollback(True)
    clock.now_s += lookup.LOOK_EVERY_S
    assert set(catalog.find([SBIN, ("TCS", "NSE")])) == {SBIN}
    assert catalog.search("tcs", today=TODAY) == []


def test_memory_is_bounded_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "CAPACITY", 10)
    known = lookup.Known(lookup.Edition(((), 0), ()))
    for number in range(25):
        known.remember({(f"S{number}", "NSE"): ()})
    assert [name for name, _ in known.listings] == [f"S{number}" for number in range(15, 25)]


def test_what_was_read_under_an_old_edition_is_not_believed_under_the_next(
    transactional_db: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("upstox", rows(["SBIN@NSE"]))
    read = lookup._read

    def slow(names: Any, known: lookup.Known) -> Any:
        answer = read(names, known)
        replace_instruments(upstox(), rows(["TCS@NSE"]))
        clock.now_s += lookup.LOOK_EVERY_S
        monkeypatch.setattr(lookup, "_read", read)
        assert set(catalog.find([("TCS", "NSE")])) == {("TCS", "NSE")}  # another thread, meanwhile
        return answer

    monkeypatch.setattr(lookup, "_read", slow)
    assert set(catalog.find([SBIN])) == {SBIN}
    assert set(catalog.find([SBIN, ("TCS", "NSE")])) == {("TCS", "NSE")}


def test_threads_may_share_what_is_known() -> None:
    known = lookup.Known(lookup.Edition(((), 0), ()))

    def work(offset: int) -> None:
        for number in range(300):
            known.remember({(f"S{number + offset}", "NSE"): ()})
            known.listings.get((f"S{number}", "NSE"))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(0, 1200, 300)))
    assert len(known.listings) == 1200


def test_tokens_are_those_of_one_broker(market: None) -> None:
    assert catalog.tokens_for("upstox", [SBIN, ("INFY", "NSE")]) == {SBIN: Token(Segment.NSE, "1")}


def test_served_exchanges_are_those_of_brokers_with_accounts(market: None) -> None:
    assert catalog.served_exchanges() == {
        "NSE", "BSE", "NFO", "BFO", "CDS", "MCX", "NCO", "CRYPTO", "NSE_INDEX", "BSE_INDEX", "GLOBAL_INDEX", "MCX_INDEX"
    }  # fmt: skip
    BrokerAccount.objects.filter(broker__slug="upstox").delete()
    assert catalog.served_exchanges() == {"NSE", "NFO", "NSE_INDEX", "BSE_INDEX", "GLOBAL_INDEX", "MCX_INDEX"}
    BrokerAccount.objects.all().delete()
    assert catalog.served_exchanges() == set()


# ------------------------------------------------------------------------------------------------------------ directory


def test_the_directory_has_every_series_once_also_where_names_begin_alike(market: None) -> None:
    directory = read_directory()
    expected = {
        (
            each.exchange,
            each.symbol[: -len("DDMMMYYFUT")] if each.kind == "FUT" else each.symbol.split(f"{each.expiry:%d}")[0],
        )
        for each in Instrument.objects.exclude(expiry=None)
        if each.expiry
    }
    assert {(exchange, base) for base, exchange in directory.contracts} == expected
    assert [series.expiry.day for series in directory.contracts["GOLD", "NCO"]] == [3]
    assert [series.expiry.day for series in directory.contracts["GOLD10GM", "NCO"]] == [27]
    assert directory.contracts["NIFTY", "NFO"] == [
        (dt.date(2026, 2, 24), True),
        (dt.date(2026, 3, 10), True),
        (dt.date(2026, 3, 31), True),
        (dt.date(2026, 4, 28), False),
    ]
    assert {entry.symbol for entry in directory.entries if entry.exchange == "CRYPTO"} == {"BTCUSDFUT", "BTCUSDT"}


# --------------------------------------------------------------------------------------------------------------- search


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sbin", ["SBIN@NSE", "SBIN@BSE"]),
        ("SBIN", ["SBIN@NSE", "SBIN@BSE"]),
        ("nifty 24850 ce", ["NIFTY10MAR2624850CE@NFO", "NIFTY31MAR2624850CE@NFO"]),
        ("24,850 CE nifty", ["NIFTY10MAR2624850CE@NFO", "NIFTY31MAR2624850CE@NFO"]),
        ("nifty24850ce", ["NIFTY10MAR2624850CE@NFO", "NIFTY31MAR2624850CE@NFO"]),
        ("nifty 24850 ce 31mar", ["NIFTY31MAR2624850CE@NFO"]),
        ("nifty 24850 ce 31 mar 2026", ["NIFTY31MAR2624850CE@NFO"]),
        ("nifty 24850 call 31-MAR-26", ["NIFTY31MAR2624850CE@NFO"]),
        ("nifty 24850 put 2026-03-31", ["NIFTY31MAR2624850PE@NFO"]),
        ("NIFTY31MAR2624850CE", ["NIFTY31MAR2624850CE@NFO"]),
        ("nifty fut", ["NIFTY31MAR26FUT@NFO", "NIFTY28APR26FUT@NFO", "BANKNIFTY31MAR26FUT@NFO"]),
        ("nifty fut apr", ["NIFTY28APR26FUT@NFO", "BANKNIFTY28APR26FUT@NFO"]),
        ("reliance fut", ["RELIANCE31MAR26FUT@NFO", "RELIANCE28APR26FUT@NFO"]),
        ("april reliance", ["RELIANCE28APR26FUT@NFO"]),
        ("itc 412.50", ["ITC31MAR26412.5CE@NFO", "ITC31MAR26412.5PE@NFO"]),
        ("crude", ["CRUDEOIL19MAR26FUT@MCX", "CRUDEOILM19MAR26FUT@MCX", "CRUDEOIL17APR26FUT@MCX"]),
        ("crude oil fut 19mar", ["CRUDEOIL19MAR26FUT@MCX", "CRUDEOILM19MAR26FUT@MCX"]),
        ("mcx gold", ["GOLD03APR26FUT@MCX"]),
        ("mcx", ["MCX@NSE", "MCXBULLDEX@MCX_INDEX"]),
        ("state bank", ["SBIN@NSE"]),
        ("bank of india state", ["SBIN@NSE"]),
        ("nifty 50", ["NIFTY@NSE_INDEX"]),
        ("nifty 100", ["NIFTY100@NSE_INDEX"]),
        ("nifty bank", ["BANKNIFTY@NSE_INDEX", "BANKNIFTY31MAR26FUT@NFO", "BANKNIFTY28APR26FUT@NFO"]),
        ("bajaj auto", ["BAJAJ-AUTO@NSE", "BAJAJ-AUTO31MAR26FUT@NFO"]),
        ("m&m", ["M&M@NSE", "M&M31MAR26FUT@NFO"]),
        ("mahindra & mahindra fut", ["M&M31MAR26FUT@NFO"]),
        ("idea", ["IDEA-BE@NSE"]),
        ("726gs2033", ["726GS203326MAR26FUT@CDS"]),
        ("usdinr 87.25 ce", ["USDINR27MAR2687.25CE@CDS"]),
        ("btc 62000 ce", ["BTC27MAR2662000CE@CRYPTO"]),
        ("btcusd fut", ["BTCUSDFUT@CRYPTO"]),
        ("nifty weekly 24850 pe", ["NIFTY10MAR2624850PE@NFO"]),
        ("nifty monthly 24850 pe", ["NIFTY31MAR2624850PE@NFO"]),
        ("nifty 24fab", []),
        ("nifty feb", []),
        ("no such thing", []),
    ],
)  # fmt: skip
def test_parts_of_a_name_in_any_order_find_it(market: None, query: str, expected: list[str]) -> None:
    assert symbols(query)[: max(len(expected), 1)] == expected


def test_exact_comes_before_prefix_before_company_and_cash_before_contracts(market: None) -> None:
    assert symbols("nifty")[:5] == [
        "NIFTY@NSE_INDEX", "NIFTY100@NSE_INDEX", "NIFTYBEES@NSE", "NIFTYNXT50@NSE_INDEX", "FINNIFTY@NSE_INDEX"
    ]  # fmt: skip
    assert symbols("bse")[0] == "BSE@NSE"
    kinds = [found.kind for found in catalog.search("reliance", today=TODAY)]
    assert kinds == ["EQ", "EQ", "FUT", "FUT"]


def test_options_without_a_strike_begin_in_the_middle_of_the_listed_ones(market: None) -> None:
    assert symbols("nifty pe 10mar", limit=3) == [
        "NIFTY10MAR2624850PE@NFO", "NIFTY10MAR2624800PE@NFO", "NIFTY10MAR2624900PE@NFO"
    ]  # fmt: skip


def test_what_has_expired_is_never_found(market: None) -> None:
    later = dt.date(2026, 4, 1)
    assert [each.symbol for each in catalog.search("nifty fut", today=later)][:1] == ["NIFTY28APR26FUT"]
    assert catalog.search("NIFTY31MAR2624850CE", today=later) == []
    assert catalog.search("NIFTY31MAR2624850CE", today=dt.date(2026, 3, 31)) != []


def test_a_row_says_who_lists_it_and_who_can_serve_it(market: None) -> None:
    BrokerAccount.objects.filter(broker__slug="upstox").update(enabled=False)
    [found] = catalog.search("NIFTY31MAR2624850CE", today=TODAY)
    assert set(found.brokers) == {"zerodha", "upstox"}
    assert found.served_by == ("zerodha",)
    assert (found.kind, found.expiry, found.strike) == ("CE", dt.date(2026, 3, 31), 24850.0)
    BrokerAccount.objects.all().delete()
    [found] = catalog.search("NIFTY31MAR2624850CE", today=TODAY)
    assert (len(found.brokers), found.served_by) == (2, ())


def test_the_first_broker_by_priority_tells_lot_and_tick(market: None) -> None:
    for first, second, lot_size in (("zerodha", "upstox", 75), ("upstox", "zerodha", 1)):
        Broker.objects.filter(slug=first).update(priority=1)
        Broker.objects.filter(slug=second).update(priority=2)
        [found] = catalog.search("NIFTY31MAR2624850CE", today=TODAY)
        assert (found.brokers, found.lot_size, found.tick_size) == ((first, second), lot_size, 0.05)


def test_exchange_kind_and_limit_narrow(market: None) -> None:
    assert symbols("sbin", exchange="bse") == ["SBIN@BSE"]
    assert symbols("nifty", kind="index", limit=2) == ["NIFTY@NSE_INDEX", "NIFTY100@NSE_INDEX"]
    assert symbols("nifty", kind="FUT", exchange="NFO")[0] == "NIFTY31MAR26FUT@NFO"
    assert symbols("nifty ce", kind="PE") == []
    assert {each[-6:-4] for each in symbols("nifty ce", kind="OPT")} == {"CE"}
    assert len(symbols("nifty", kind="OPT", limit=7)) == 7


@pytest.mark.parametrize(
    ("query", "options", "sentence"),
    [
        ("", {}, "The query is empty"),
        (" ,; ", {}, "The query is empty"),
        ("24850 ce", {}, "does not say of what"),
        ("x" * 101, {}, "longer than 100"),
        ("sbin", {"exchange": "NSEX"}, "There is no exchange 'NSEX'; use one of BCD, BFO"),
        ("sbin", {"kind": "SHARE"}, "There is no kind 'SHARE'; use one of EQ, INDEX"),
        ("sbin", {"limit": 0}, "The limit is 0; use a number from 1 to 200."),
        ("sbin", {"limit": 201}, "The limit is 201"),
    ],
)
def test_a_query_without_an_answer_is_one_sentence(
    market: None, query: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(catalog.QueryError) as caught:
        catalog.search(query, today=TODAY, **options)
    assert sentence in str(caught.value)
    assert str(caught.value).count(". ") == 0
    assert str(caught.value).endswith(".")


def test_a_search_works_on_an_empty_database(db: None) -> None:
    assert catalog.search("sbin", today=TODAY) == []
    assert catalog.did_you_mean("sbin", today=TODAY) == []
    assert catalog.suggest("SBIN", "NSE", today=TODAY) == []


@pytest.mark.parametrize(
    "query", ["nov", "nifty 31", "28 nov", "mcx nse", "ce pe fut", "0", "1.", "&", "% _", "'; --", "🙂"]
)
def test_odd_queries_are_answered_or_refused(market: None, query: str) -> None:
    try:
        catalog.search(query, today=TODAY)
        catalog.did_you_mean(query, today=TODAY)
    except catalog.QueryError as error:
        assert str(error).endswith(".")


def test_a_day_may_stand_beside_its_month() -> None:
    [wish] = readings("idea 8 ce 27 november")
    assert (wish.words, wish.strike, wish.day, wish.month) == (["IDEA"], 8.0, 27, 11)


# ---------------------------------------------------------------------------------------------------------------- chain


def test_a_chain_has_its_expiries_and_both_sides_of_each_strike(market: None) -> None:
    chain = catalog.option_chain("NIFTY", "NFO", today=TODAY)
    assert (chain.underlying, chain.exchange, chain.expiry) == ("NIFTY", "NFO", dt.date(2026, 3, 10))
    assert chain.expiries == (dt.date(2026, 3, 10), dt.date(2026, 3, 31))
    assert [each.strike for each in chain.strikes] == [24550 + 50 * number for number in range(13)]
    assert chain.strikes[0].call == "NIFTY10MAR2624550CE"
    assert chain.strikes[0].put == "NIFTY10MAR2624550PE"


def test_a_chain_around_a_price_has_so_many_strikes_on_each_side(market: None) -> None:
    chain = catalog.option_chain("nifty 50", expiry=dt.date(2026, 3, 31), around=24_862.5, count=2, today=TODAY)
    assert [each.strike for each in chain.strikes] == [24750, 24800, 24850, 24900, 24950]
    far = catalog.option_chain("NIFTY", around=1e9, count=2, today=TODAY)
    assert [each.strike for each in far.strikes] == [25050, 25100, 25150]


def test_a_strike_without_a_put_says_none(market: None) -> None:
    [strike] = catalog.option_chain("SENSEX", today=TODAY).strikes
    assert (strike.call, strike.put) == ("SENSEX12MAR2681500CE", None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"underlying": "NITFY"}, "There are no options of 'NITFY'; did you mean NIFTY"),
        ({"underlying": "BANKNIFTY"}, "There are no options of 'BANKNIFTY'"),
        ({"underlying": "NIFTY", "exchange": "BFO"}, "There are no options of 'NIFTY' on BFO; "),
        ({"underlying": "NIFTY", "expiry": dt.date(2026, 3, 11)}, "the next ones do on 2026-03-10, 2026-03-31."),
        ({"underlying": "NIFTY", "exchange": "X"}, "There is no exchange 'X'"),
        ({"underlying": "NIFTY", "count": -1}, "The count is -1; use a number from 0 to 500."),
    ],
)
def test_a_chain_that_there_is_not_is_one_sentence(market: None, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(catalog.QueryError) as caught:
        catalog.option_chain(**arguments, today=TODAY)
    assert sentence in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- suggestions


@pytest.mark.parametrize(
    ("symbol", "exchange", "first"),
    [
        ("RELAINCE", "NSE", "RELIANCE"),
        ("ELIANCE", "NSE", "RELIANCE"),
        ("SBNI", "NSE", "SBIN"),
        ("HDFC BANK", "NSE", "HDFCBANK"),
        ("TATAMOTOR", "NSE", "TATAMOTORS"),
        ("SBIN-EQ", "NSE", "SBIN"),
        ("SBIN-BE", "NSE", "SBIN"),
        ("IDEA", "NSE", "IDEA-BE"),
        ("VODAFONE", "NSE", "VODAFONE on BSE"),
        ("NIFTY", "NSE", "NIFTY on NSE_INDEX"),
        ("NIFTY50", "NSE_INDEX", "NIFTY"),
        ("NIFTY BANK", "NSE", "BANKNIFTY on NSE_INDEX"),
        ("SENSEX", "NSE_INDEX", "SENSEX on BSE_INDEX"),
        ("NIFTY", "NFO", "NIFTY on NSE_INDEX"),
        ("CRUDEOIL", "MCX", "CRUDEOIL19MAR26FUT"),
        ("NIFTY24MAR2624850CE", "NFO", "NIFTY31MAR2624850CE"),
        ("NIFTY12MAR2624850CE", "NFO", "NIFTY10MAR2624850CE"),
        ("NIFTY31MAR2624825CE", "NFO", "NIFTY31MAR2624800CE"),
        ("NITFY31MAR2624850PE", "NFO", "NIFTY31MAR2624850PE"),
        ("NIFTY26MAR24850CE", "NFO", "NIFTY31MAR2624850CE"),
        ("NIFTY2631024850PE", "NFO", "NIFTY10MAR2624850PE"),
        ("RELIANCE26APRFUT", "NFO", "RELIANCE28APR26FUT"),
        ("NIFTYFUT", "NFO", "NIFTY31MAR26FUT"),
        ("NIFTY24FEB26FUT", "NFO", "NIFTY31MAR26FUT"),
        ("NIFTY31MAR26FUT", "NSE", "NIFTY31MAR26FUT on NFO"),
        ("CRUDEOIL19MAR26FUT", "NFO", "CRUDEOIL19MAR26FUT on MCX"),
        ("CRUDOIL19MAR26FUT", "MCX", "CRUDEOIL19MAR26FUT"),
        ("sbin", "NSE", "SBIN"),
    ],
)
def test_what_was_meant_is_suggested_first(market: None, symbol: str, exchange: str, first: str) -> None:
    suggestions = catalog.suggest(symbol, exchange, today=TODAY)
    assert suggestions[:1] == [first]
    assert len(suggestions) <= 3
    assert len(set(suggestions)) == len(suggestions)


def test_only_what_can_be_served_is_suggested(market: None) -> None:
    BrokerAccount.objects.filter(broker__slug="zerodha").delete()
    assert catalog.suggest("RELAINCE", "NSE", today=TODAY) == ["RELIANCE on BSE"]
    assert catalog.suggest("ZZZZZZ", "NSE", today=TODAY) == []


def test_a_search_that_found_nothing_has_suggestions_whoever_can_serve_them(market: None) -> None:
    BrokerAccount.objects.all().delete()
    assert catalog.did_you_mean("relaince", today=TODAY) == ["RELIANCE on NSE", "RELIANCE on BSE"]
    assert catalog.did_you_mean("nifty 24851 ce", today=TODAY)[0] == "NIFTY10MAR2624850CE on NFO"
    assert catalog.did_you_mean("nitfy fut may", today=TODAY)[0] == "NIFTY28APR26FUT on NFO"
    assert catalog.did_you_mean("zzzz", today=TODAY) == []


def test_flaws_are_those_of_the_grammar() -> None:
    assert catalog.flaw("SBIN", "NSE") == ""
    assert "which is no date" in catalog.flaw("NIFTY31FEB26FUT", "NFO")


def test_a_row_beside_the_grammar_is_found_by_its_name(db: None) -> None:
    odd = row("NIFTY31MAR26FUT@NFO", 1, symbol="NIFTYMARCHFUTURE", kind="FUT")
    load("upstox", [odd, *rows(["TCS@NSE"])])
    assert symbols("niftymarch") == ["NIFTYMARCHFUTURE@NFO"]
    assert catalog.search("niftymarch", today=dt.date(2026, 4, 1)) == []


# ----------------------------------------------------------------------------------------------------------- PostgreSQL

ANSWERS = """
import json
from django.db import connection
from brokers import catalog
from brokers.instruments.check import check
from brokers.models import BrokerAccount, Instrument
from tests.brokers.instruments_of import OTHERS, load, rows, sample
from tests.brokers.test_catalog import answers
BrokerAccount.objects.all().delete()
load("zerodha", sample())
load("upstox", rows(OTHERS))
print(json.dumps([connection.vendor, answers()]))
BrokerAccount.objects.all().delete()
Instrument.objects.all().delete()
"""


def answers() -> dict[str, Any]:
    """What every part of the catalogue says of the market there is, as JSON has it."""
    queries = ("nifty", "nifty 24850 ce", "crude", "state bank", "mcx gold", "reliance fut", "nifty pe 10mar", "n", "b")
    unknown = (("RELAINCE", "NSE"), ("NIFTY", "NSE"), ("NIFTY12MAR2624850CE", "NFO"), ("NITFY31MAR2624850PE", "NFO"))
    names = [("SBIN", "NSE"), ("NIFTY31MAR2624850CE", "NFO"), ("NOSUCH", "NSE")]
    contracts = read_directory().contracts
    answer = {
        "find": {symbol: sorted(each.broker for each in found) for (symbol, _), found in catalog.find(names).items()},
        "served": sorted(catalog.served_exchanges()),
        "series": sorted([*key, [str(series.expiry) for series in its]] for key, its in contracts.items()),
        "searches": [catalog.search(query, today=TODAY) for query in queries],
        "chain": catalog.option_chain("NIFTY", around=24850, count=3, today=TODAY),
        "suggestions": [catalog.suggest(*name, today=TODAY) for name in unknown],
        "check": check([], 100),
    }
    plain: dict[str, Any] = json.loads(msgspec.json.encode(answer))
    return plain


@pytest.mark.parametrize("locale", ["its own", "en-US"])
def test_postgresql_answers_as_sqlite_does_also_where_it_sorts_as_dictionaries_do(
    market: None, postgres_url: str, locale: str
) -> None:
    url = postgres_url
    if locale != "its own":
        url = f"{postgres_url.rpartition('/')[0]}/dictionary"
        with psycopg.connect(postgres_url, autocommit=True) as server:
            server.execute(
                f"CREATE DATABASE dictionary TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE '{locale}' LOCALE 'C'"
            )
    assert run_manage("migrate", "-v0", DATABASE_URL=url).returncode == 0
    done = run_manage("shell", "-v0", "-c", ANSWERS, DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["postgresql", answers()]
