"""Angel One's wire and manners, seen by a client that follows the documentation; and by the product's own feed."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import Sequence

import pytest
import websockets

from brokers import registry
from brokers.contract import InstrumentRow, Update
from brokers.feed import supervisor as supervisor_module
from brokers.feed.connection import Connection, Route
from brokers.feed.counters import Counters
from brokers.simulators.angel import AngelSimulator
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN
from marketdata.ticks import Key, Mode, Segment, Token
from tests.adapters.feeding import feeding
from tests.brokers.feed.bench import Got, until
from tests.brokers.simulators.kite import eventually
from tests.brokers.simulators.smartstream import HEADERS, SIZES, f64, five, i64, smartstream, token_of, twenty

TODAY = dt.date(2026, 3, 2)
WORDS = {Mode.LTP: "ltp", Mode.QUOTE: "quote", Mode.DEPTH: "snap", Mode.DEPTH20: "snap+depth20"}
"""The simulator's words for what each mode makes tick."""
SBIN, RELIANCE, NIFTY, SENSEX = 3045, 2885, 99926000, 99919000
SHARE = {
    "ltp": 812.35, "ltq": 17, "average_price": 810.05, "volume": 4_000_000_001, "total_buy_quantity": 3_000_000_000,
    "total_sell_quantity": 222_222, "open": 808.1, "high": 815.5, "low": 801.45, "close": 805.9,
    "last_trade_ms": 1_762_141_000_500, "exchange_ms": 1_762_141_001_123,
    "buy": [[812.3, 100, 1], [812.25, 200, 2], [812.2, 300, 3], [812.15, 400, 4], [812.1, 500, 65535]],
    "sell": [[812.35, 600, 6], [812.4, 700, 7], [812.45, 800, 8]],
}  # fmt: skip


def quiet(**options: object) -> AngelSimulator:
    return AngelSimulator(**{"rate": 0, "symbols": None, "seed": 1, "today": TODAY, **options})


# --------------------------------------------------------------------------------------------------------------- login


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("x-client-code", "Client Code"),
        ("x-feed-token", "Feed Token"),
        ("Authorization", "Auth token"),
        ("x-api-key", "API Key"),
    ],
)
async def test_a_wrong_credential_is_refused_with_its_name_in_a_header(header: str, reason: str) -> None:
    async with quiet() as sim:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with smartstream(sim.url, HEADERS | {header: "wrong"}):
                pass
        assert refusal.value.response.status_code == 401
        assert refusal.value.response.headers["x-error-message"] == f"Invalid Header - Invalid {reason}"
        assert sim.stats()["refused_logins"] == 1


async def test_the_query_will_do_and_so_will_two_headers() -> None:
    async with quiet() as sim:
        query = "/smart-stream?clientCode=demo&feedToken=feed-demo-token&apiKey=key-demo"
        async with smartstream(sim.url, {}, query):
            pass
        async with smartstream(sim.url, {name: HEADERS[name] for name in ("x-client-code", "x-feed-token")}):
            pass
        assert len(sim.entries("connect")) == 2


async def test_an_expired_token_bars_the_door_until_a_new_one_comes() -> None:
    async with quiet() as sim:
        async with smartstream(sim.url) as client:
            assert await sim.expire() == 1
            await client.until(lambda: client.ended)
        with pytest.raises(websockets.InvalidStatus):
            async with smartstream(sim.url):
                pass
        sim.set_token("fresh")
        fresh = {"Authorization": "fresh", "x-feed-token": "feed-fresh"}
        async with smartstream(sim.url, HEADERS | fresh):
            pass


async def test_a_fourth_socket_of_a_client_code_is_refused() -> None:
    async with quiet() as sim, smartstream(sim.url), smartstream(sim.url), smartstream(sim.url):
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with smartstream(sim.url):
                pass
        assert refusal.value.response.status_code == 429


# ------------------------------------------------------------------------------------------------------------- packets


async def test_every_mode_has_the_documented_packet() -> None:
    async with quiet() as sim, smartstream(sim.url) as client:
        for mode in SIZES:
            await client.ask(1, mode, (1, [SBIN]))
        await eventually(lambda: sim.subscribed() == {"NSE:SBIN": ["ltp+quote+snap+depth20"]})
        client.packets.clear()
        sim.emit("SBIN", **SHARE)
        await client.until(lambda: len(client.packets) == 4)
    ltp, quote, snap, book = client.packets
    assert {packet[0]: len(packet) for packet in client.packets} == SIZES
    assert all((packet[1], token_of(packet)) == (1, "3045") for packet in client.packets)
    assert [i64(ltp, at) for at in (35, 43)] == [1_762_141_001_123, 81235]
    assert [i64(quote, at) for at in (51, 59, 67)] == [17, 81005, 4_000_000_001]
    assert [f64(quote, at) for at in (75, 83)] == [3_000_000_000.0, 222_222.0]
    assert [i64(quote, at) for at in (91, 99, 107, 115)] == [80810, 81550, 80145, 80590]
    assert snap[35:51] == quote[35:51]
    assert snap[51:123] == quote[51:123]
    assert i64(snap, 123) == 1_762_141_000
    assert five(snap)[:5] == [
        (1, 100, 81230, 1), (1, 200, 81225, 2), (1, 300, 81220, 3), (1, 400, 81215, 4), (1, 500, 81210, 65535),
    ]  # fmt: skip
    assert five(snap)[5:] == [(0, 600, 81235, 6), (0, 700, 81240, 7), (0, 800, 81245, 8), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert i64(book, 27) == 1_762_141_001_123
    assert [price for _, price, _ in twenty(book, 43)[:5]] == [81230, 81225, 81220, 81215, 81210]
    assert [price for _, price, _ in twenty(book, 243)[:3]] == [81235, 81240, 81245]


async def test_an_index_is_zero_in_all_that_is_no_price() -> None:
    async with quiet() as sim, smartstream(sim.url) as client:
        await client.ask(1, 3, (1, [NIFTY]), (3, [SENSEX]))
        await client.until(lambda: len(client.packets) == 2)
        sim.emit("NIFTY", ltp=24800.1, open=24850.0, close=24850.55)
        await client.until(lambda: len(client.of(NIFTY, 3)) == 2)
    packet = client.of(NIFTY, 3)[-1]
    assert [i64(packet, at) for at in (27, 43, 91, 115)] == [0, 2_480_010, 2_485_000, 2_485_055]
    assert not any(packet[51:91])
    assert not any(packet[123:])
    assert client.of(SENSEX, 3)[0][1] == 3


async def test_a_currency_counts_in_ten_millionths_of_a_rupee() -> None:
    async with quiet() as sim, smartstream(sim.url) as client:
        dollar = next(quote for quote in sim.market.quotes if quote.listing.exchange == "CDS")
        await client.ask(1, 1, (13, [dollar.listing.code]))
        await client.until(lambda: client.packets)
        sim.emit(dollar.listing.key, ltp=87.9175)
        await client.until(lambda: len(client.packets) == 2)
    assert i64(client.packets[-1], 43) == 879_175_000


async def test_a_stamped_quantity_is_the_clock_in_microseconds() -> None:
    async with quiet(stamp=True) as sim, smartstream(sim.url) as client:
        before = time.time_ns() // 1000
        await client.ask(1, 2, (1, [SBIN]))
        await client.until(lambda: client.packets)
        after = time.time_ns() // 1000
    assert (i64(client.packets[0], 51) - before) % 2**32 <= after - before


# ------------------------------------------------------------------------------------------------------- subscriptions


async def test_a_mode_ends_only_by_its_own_name() -> None:
    async with quiet() as sim, smartstream(sim.url) as client:
        await client.ask(1, 1, (1, [SBIN, RELIANCE]))
        await client.ask(1, 3, (1, [SBIN]))
        await client.ask(0, 2, (1, [SBIN, RELIANCE]))
        await client.ask(0, 1, (1, [SBIN]))
        await eventually(lambda: sim.subscribed() == {"NSE:RELIANCE": ["ltp"], "NSE:SBIN": ["snap"]})
        await client.ask(0, 1, (1, [RELIANCE]))
        await client.ask(0, 3, (1, [SBIN]))
        await eventually(lambda: sim.subscribed() == {})
        assert client.errors() == []


async def test_each_mode_of_an_instrument_counts_and_a_repeated_one_does_not() -> None:
    async with quiet(instruments_per_socket=3) as sim, smartstream(sim.url) as client:
        await client.ask(1, 1, (1, [SBIN, RELIANCE]))
        await client.ask(1, 1, (1, [SBIN, RELIANCE]))
        await client.ask(1, 2, (1, [SBIN, RELIANCE]), name="0000000007")
        await client.until(client.errors)
        [error] = client.errors()
        assert (error["correlationID"], error["errorCode"]) == ("0000000007", "E1002")
        assert sim.subscribed() == {"NSE:SBIN": ["ltp+quote"], "NSE:RELIANCE": ["ltp"]}
        assert sim.stats()["limit_violations"] == 1


async def test_20_levels_are_for_50_shares_of_nse() -> None:
    async with quiet(symbols=400) as sim, smartstream(sim.url) as client:
        shares = [quote.listing.code for quote in sim.market.quotes if quote.listing.exchange == "NSE"][:51]
        await client.ask(1, 4, (1, shares))
        await client.until(client.errors)
        assert client.errors()[0]["errorCode"] == "E1002"
        assert len(sim.subscribed()) == 50
        await client.ask(1, 4, (3, [500112]))
        await client.ask(1, 4, (1, [NIFTY]))
        await client.until(lambda: len(client.errors()) == 3)
        assert [error["errorCode"] for error in client.errors()[1:]] == ["E1001", "E1001"]


@pytest.mark.parametrize(
    "request_",
    [
        "no json",
        '{"action": 1}',
        '{"action": 2, "params": {"mode": 1, "tokenList": []}}',
        '{"action": 1, "params": {"mode": 5, "tokenList": []}}',
        '{"action": 1, "params": {"mode": 1, "tokenList": [{"exchangeType": 6, "tokens": ["1"]}]}}',
        '{"action": 1, "params": {"mode": 1, "tokenList": [{"exchangeType": 1, "tokens": [3045]}]}}',
        '{"action": 1, "params": {"mode": 1, "tokenList": [{"exchangeType": 1, "tokens": ["SBIN"]}]}}',
    ],
)
async def test_a_request_that_is_none_is_an_error_and_the_socket_lives(request_: str) -> None:
    async with quiet() as sim, smartstream(sim.url) as client:
        await client.socket.send(request_)
        await client.socket.send("ping")
        await client.until(lambda: "pong" in client.texts)
        [error] = client.errors()
        assert error["errorCode"] == "E1001"


async def test_a_drop_ends_and_a_silence_answers_no_heartbeat() -> None:
    async with quiet() as sim, smartstream(sim.url) as client:
        sim.silence()
        await client.socket.send("ping")
        await (await client.socket.ping())
        assert client.texts == []
        await sim.drop()
        await client.until(lambda: client.ended)


@pytest.mark.parametrize("kind", AngelSimulator.damages)
async def test_every_kind_of_spoilt_frame_is_no_valid_one(kind: str) -> None:
    async with quiet() as sim, smartstream(sim.url) as client:
        sim.malformed(kind, count=20)
        await client.until(lambda: len(client.packets) + len(client.texts) == 20)
    for packet in client.packets:
        whole = len(packet) >= SIZES.get(packet[0], 1 << 30)
        assert not (whole and 0 < packet[1] < 14 and packet[2] and f64(packet, 75) >= 0)
    for text in client.texts:
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(text)


# ------------------------------------------------------------------------------------------------ the product's own eye


def test_the_master_agrees_with_the_market() -> None:
    sim = quiet()
    rows = list(registry.load("angel").parse_instruments(sim.master().encode()))
    found = {(row.exchange, row.symbol): row for row in rows if isinstance(row, InstrumentRow)}
    listed = [quote for quote in sim.market.quotes if quote.listing.exchange not in {"BCD", "NCO", "GLOBAL_INDEX"}]
    assert len(rows) == len(found) == len(listed)
    for quote in listed:
        one = quote.listing
        row = found[one.exchange, one.symbol]
        assert row.token == str(quote.wire_id & 0xFFFFFFFF)
        assert row.kind == one.kind
        assert row.strike == one.strike
        assert row.expiry == (one.expiry.isoformat() if one.expiry else "")
        assert (row.lot_size, row.tick_size) == (one.lot_size, one.tick_size)
    assert json.loads(sim.master("MCX"))
    assert sim.master("NCO") == ""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "POLL_S", 0.1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
async def test_the_feed_ticks_in_every_mode() -> None:
    async with feeding("angel", symbols=None, rate=0) as bench:
        for mode, word in WORDS.items():
            key = Key("SBIN", "NSE", mode)
            bench.sub.subscribe(key)
            await until(lambda word=word: bench.simulator.subscribed() == {"NSE:SBIN": [word]}, f"mode {word}")
            bench.simulator.emit("SBIN", **SHARE)
            await until(lambda key=key: is_whole(bench.sub.of(key)), f"a whole tick of {key}")
            tick = bench.sub.of(key)[-1].tick
            assert (tick.ltp, tick.exchange_ms) == (812.35, 1_762_141_001_123)
            if mode is not Mode.LTP:
                assert (tick.close, tick.volume, tick.total_buy_quantity) == (805.9, 4_000_000_001, 3_000_000_000)
            if mode >= Mode.DEPTH:
                assert tick.depth is not None
                assert tick.depth.buy[0].price == 812.3
                assert (tick.oi, tick.last_trade_ms) == (None, 1_762_141_000_000)
        assert bench.simulator.stats()["errors"] == 0


def is_whole(ticks: Sequence[Got]) -> bool:
    """Whether the latest has the price and the levels that were sent; before it there are the images."""
    if not ticks or ticks[-1].tick.ltp != SHARE["ltp"]:
        return False
    tick = ticks[-1].tick
    return tick.mode < Mode.DEPTH or (tick.depth is not None and len(tick.depth.buy) == tick.mode.depth_levels)


async def test_a_connection_goes_up_and_down_between_the_modes_without_an_error() -> None:
    adapter = registry.load("angel")
    [feed] = adapter.spec.feeds
    updates: list[Update] = []
    async with quiet() as sim:
        route = Route(adapter, feed, sim.credentials(DEMO_KEY, DEMO_TOKEN), sim.url)
        connection = Connection(
            "angel",
            route,
            feed.limits,
            deliver=lambda got, _: updates.extend(got),
            on_change=lambda: None,
            on_lost=lambda _: None,
            counters=Counters(),
        )
        running = asyncio.create_task(connection.run())
        share, index = Token(Segment.NSE, "3045"), Token(Segment.NSE, "99926000")
        for mode in (*WORDS, *reversed(WORDS)):
            connection.want(share, mode)
            connection.want(index, mode)
            on_index = WORDS[min(mode, Mode.DEPTH)]
            await eventually(
                lambda mode=mode, on_index=on_index: (
                    sim.subscribed() == {"NSE:SBIN": [WORDS[mode]], "NSE_INDEX:NIFTY": [on_index]}
                )
            )
            updates.clear()
            sim.emit("SBIN", **SHARE)
            sim.emit("NIFTY", ltp=24800.1)
            await eventually(lambda: {update.token for update in updates if update.ltp} == {share, index})
            assert {update.mode for update in updates if update.token == share} == {mode}
        connection.want(share, None)
        connection.want(index, None)
        await eventually(lambda: sim.subscribed() == {})
        assert sim.stats()["errors"] == 0
        running.cancel()
        await asyncio.wait([running])
