"""The price engine: walks that stay consistent, repeatable and exact where told."""

from __future__ import annotations

import datetime as dt

import pytest

from brokers.simulators.market import Market, Quote, UnknownSymbol
from brokers.simulators.universe import listings

TODAY = dt.date(2025, 11, 3)
NOW_MS = 1_762_140_000_000


def market(seed: int = 7, count: int | None = None) -> Market:
    listed = {one.key: number for number, one in enumerate(listings(count, TODAY))}
    return Market(
        listings(count, TODAY), wire_id=lambda one: listed[one.key], scale=lambda _: 10_000, seed=seed, now_ms=NOW_MS
    )


def assert_consistent(quote: Quote) -> None:
    assert quote.lower_circuit <= quote.low <= quote.ltp <= quote.high <= quote.upper_circuit
    assert quote.low <= quote.open <= quote.high
    assert quote.ltp % quote.tick == 0
    if quote.is_index:
        return
    assert quote.low <= quote.average_price <= quote.high
    bids, asks = quote.book()
    assert len(bids) == len(asks) == 5
    assert quote.ltp in (bids[0][0], asks[0][0])
    assert bids[0][0] < asks[0][0]
    assert [row[0] for row in bids] == [bids[0][0] - quote.tick * n for n in range(5)]
    assert [row[0] for row in asks] == [asks[0][0] + quote.tick * n for n in range(5)]
    assert all(quantity > 0 and orders > 0 for _, quantity, orders in (*bids, *asks))
    assert sum(row[1] for row in bids) <= quote.total_buy_quantity
    assert sum(row[1] for row in asks) <= quote.total_sell_quantity
    assert (quote.oi_low <= quote.oi <= quote.oi_high) if quote.has_oi else quote.oi == 0


def test_every_kind_of_instrument_stays_consistent_over_thousands_of_ticks() -> None:
    for quote in market().quotes:
        volume, start = quote.volume, quote.ltp
        prices = set()
        for _ in range(2000):
            quote.walk(NOW_MS)
            assert_consistent(quote)
            assert quote.is_index or quote.volume > volume
            volume = quote.volume
            prices.add(quote.ltp)
        assert len(prices) > 5, (quote.listing.key, start)


def test_the_nth_price_is_the_same_for_the_same_seed_whatever_else_ticked() -> None:
    one, other, third = market(7), market(7), market(8)
    for quote in other.quotes[10:]:
        quote.walk(NOW_MS)
    walks = []
    for made in (one, other, third):
        sbin = made.find("SBIN")
        prices = []
        for _ in range(200):
            sbin.walk(NOW_MS)
            prices.append((sbin.ltp, sbin.ltq, sbin.book()))
        walks.append(prices)
    assert walks[0] == walks[1] != walks[2]


def test_exact_values_are_put_and_the_rest_stays() -> None:
    quote = market().find("NSE:SBIN")
    before = (quote.open, quote.close, quote.ltq, quote.low)
    quote.put({"ltp": 830.05, "volume": 4_000_000_000, "average_price": 801.25, "oi": 5}, NOW_MS + 5)
    assert (quote.ltp, quote.volume, quote.average_price, quote.oi) == (8_300_500, 4_000_000_000, 8_012_500, 5)
    assert (quote.open, quote.close, quote.ltq, quote.low) == before
    assert quote.high == quote.ltp
    assert quote.exchange_ms == NOW_MS + 5


def test_a_price_put_far_away_walks_back_into_its_range() -> None:
    quote = market().find("NSE:SBIN")
    quote.put({"ltp": 2000}, NOW_MS)
    for _ in range(30_000):
        quote.walk(NOW_MS)
    assert quote.ltp <= quote.upper_circuit


def test_a_book_that_was_put_lasts_until_the_next_tick() -> None:
    quote = market().find("NSE:SBIN")
    quote.put({"buy": [[812.4, 10, 1]], "sell": []}, NOW_MS)
    bids, asks = quote.book()
    assert list(bids) == [(8_124_000, 10, 1)] + [(0, 0, 0)] * 4
    assert list(asks) == [(0, 0, 0)] * 5
    quote.walk(NOW_MS)
    assert_consistent(quote)


def test_an_instrument_that_never_traded_is_zero_in_every_field_until_it_gets_a_price() -> None:
    quote = market().find("NFO:NIFTY25NOV25FUT")
    quote.never_traded()
    for _ in range(10):
        quote.walk(NOW_MS + 1)
    assert not any((quote.ltp, quote.ltq, quote.volume, quote.average_price, quote.oi, quote.oi_high, quote.oi_low))
    assert not any((quote.open, quote.high, quote.low, quote.close, quote.last_trade_ms))
    assert not any((quote.total_buy_quantity, quote.total_sell_quantity))
    assert quote.book() == ([(0, 0, 0)] * 5, [(0, 0, 0)] * 5)
    quote.put({"ltp": 24900.0}, NOW_MS + 2)
    assert (quote.low, quote.high, quote.untraded) == (quote.ltp, quote.ltp, False)


def test_trading_again_brings_a_consistent_session() -> None:
    quote = market().find("SBIN")
    quote.never_traded()
    quote.never_traded(False)
    assert_consistent(quote)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"price": 1}, "'price' is no field of a tick; known are ltp"),
        ({"ltp": "812"}, "ltp must be a number"),
        ({"ltp": float("nan")}, "ltp must be a number"),
        ({"ltp": 1e9}, "does not fit the wire's 32-bit price"),
        ({"volume": -1}, "volume must fit an unsigned 32-bit field"),
        ({"buy": [[1, 2]]}, "rows of"),
        ({"sell": [[1, 2, 3]] * 6}, "up to 5 rows"),
        ({"sell": [[1, True, 3]]}, "rows of"),
        ({"sell": [[1, 2**32, 3]]}, "rows of"),
        ({"sell": [[1, 2, 65536]]}, "rows of"),
    ],
)
def test_a_bad_field_is_refused_with_a_sentence_and_changes_nothing(fields: dict[str, object], words: str) -> None:
    quote = market().find("SBIN")
    before = (quote.ltp, quote.high, quote.volume, quote.book(), quote.exchange_ms)
    with pytest.raises(ValueError, match=words):
        quote.put({"ltp": 100, **fields}, NOW_MS + 1)
    assert (quote.ltp, quote.high, quote.volume, quote.book(), quote.exchange_ms) == before


def test_a_bare_symbol_means_its_first_listing_and_an_unknown_one_is_a_sentence() -> None:
    made = market()
    assert made.find("sbin").listing.exchange == "NSE"
    assert made.find("BSE:SBIN").listing.exchange == "BSE"
    with pytest.raises(UnknownSymbol, match="'NOPE' is not quoted here; name an instrument as NSE:SBIN"):
        made.find("NOPE")
