"""Upstox's wire and manners, seen by a client of a few lines, and by the product's own connection."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import websockets
from google.protobuf.message import DecodeError as ProtobufError

from brokers.adapters.upstox import ADAPTER
from brokers.contract import Feed, InstrumentRow, Update
from brokers.feed.connection import Connection, Route
from brokers.feed.counters import Counters
from brokers.schemas import upstox_pb2 as schema
from brokers.simulators.universe import Listing
from brokers.simulators.upstox import UpstoxSimulator, instrument_key
from marketdata.ticks import FeedState, Mode, Token
from tests.brokers.feed.bench import until

FEED = ADAPTER.spec.feeds[0]
TODAY = dt.date(2025, 11, 3)
BEARER = {"Authorization": "Bearer demo-token"}
AUTHORIZE = "/v3/feed/market-data-feed/authorize"
SBIN, NIFTY = "NSE_EQ|INE062A01020", "NSE_INDEX|Nifty 50"


def quiet(**options: object) -> UpstoxSimulator:
    return UpstoxSimulator(**{"rate": 0, "symbols": None, "seed": 1, "today": TODAY, **options})


class Client:
    """One socket: sends requests, reads messages."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def ask(self, method: str, keys: list[str], mode: str = "") -> None:
        data: dict[str, Any] = {"instrumentKeys": keys} | ({"mode": mode} if mode else {})
        await self.socket.send(json.dumps({"guid": "g", "method": method, "data": data}).encode())

    async def message(self) -> schema.FeedResponse:
        async with asyncio.timeout(5):
            frame = await self.socket.recv()
        assert isinstance(frame, bytes)
        return schema.FeedResponse.FromString(frame)

    async def error(self) -> dict[str, str]:
        async with asyncio.timeout(5):
            frame = await self.socket.recv()
        assert isinstance(frame, str)
        refusal: dict[str, str] = json.loads(frame)
        return refusal

    async def done(self) -> None:
        """Returns when everything sent before has been acted on and what that brought has arrived."""
        await (await self.socket.ping())


async def address(sim: UpstoxSimulator, headers: dict[str, str] | None = None) -> str:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{sim.http_url}{AUTHORIZE}", headers=BEARER if headers is None else headers)
    answer.raise_for_status()
    found: str = answer.json()["data"]["authorized_redirect_uri"]
    return found


@asynccontextmanager
async def client(sim: UpstoxSimulator) -> AsyncIterator[Client]:
    async with websockets.connect(await address(sim), max_queue=None, close_timeout=1) as socket:
        one = Client(socket)
        assert (await one.message()).type == schema.market_info
        yield one


# --------------------------------------------------------------------------------------------------------------- login


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "demo"}])
async def test_a_wrong_token_gets_no_address_and_no_socket(headers: dict[str, str]) -> None:
    async with quiet() as sim:
        with pytest.raises(httpx.HTTPStatusError) as refusal:
            await address(sim, headers)
        assert refusal.value.response.status_code == 401
        assert refusal.value.response.json()["errors"][0]["errorCode"] == "UDAPI100050"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{sim.url}/v3/feed/market-data-feed", additional_headers=headers)
        assert refused.value.response.status_code == 401
        assert sim.stats()["refused_logins"] == 2


async def test_an_address_is_good_for_one_socket() -> None:
    async with quiet() as sim:
        url = await address(sim)
        async with websockets.connect(url):
            with pytest.raises(websockets.InvalidStatus) as refusal:
                await websockets.connect(url)
        assert refusal.value.response.status_code == 403


async def test_the_token_in_the_upgrades_header_is_redirected_to_an_address() -> None:
    async with quiet() as sim:
        entrance = f"{sim.url}/v3/feed/market-data-feed"
        async with websockets.connect(entrance, additional_headers=BEARER) as socket:
            assert (await Client(socket).message()).type == schema.market_info


async def test_a_third_socket_is_refused_and_an_expired_token_bars_the_door() -> None:
    async with quiet() as sim:
        async with client(sim), client(sim):
            with pytest.raises(websockets.InvalidStatus) as refusal:
                await websockets.connect(await address(sim))
            assert refusal.value.response.status_code == 429
            unused = await address(sim)
            assert await sim.expire() == 2
        with pytest.raises(httpx.HTTPStatusError):
            await address(sim)
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(unused)


async def test_the_first_message_is_the_state_of_the_market() -> None:
    async with quiet() as sim, websockets.connect(await address(sim)) as socket:
        message = await Client(socket).message()
    assert message.marketInfo.segmentStatus["NSE_EQ"] == schema.NORMAL_OPEN
    assert abs(message.currentTs - time.time() * 1000) < 5000


# ------------------------------------------------------------------------------------------------------------ messages


async def test_a_subscription_is_answered_by_a_snapshot_then_live_messages() -> None:
    async with quiet() as sim, client(sim) as one:
        await one.ask("sub", [SBIN, NIFTY], "full")
        first = await one.message()
        assert first.type == schema.initial_feed
        assert set(first.feeds) == {SBIN, NIFTY}
        assert first.feeds[NIFTY].fullFeed.WhichOneof("FullFeedUnion") == "indexFF"
        sim.emit("SBIN", ltp=812.35, ltq=17, volume=4_000_000_001, close=805.9, total_buy_quantity=0)
        live = await one.message()
    assert live.type == schema.live_feed
    [(key, feed)] = live.feeds.items()
    full = feed.fullFeed.marketFF
    assert (key, feed.requestMode, len(full.marketLevel.bidAskQuote)) == (SBIN, schema.full_d5, 5)
    assert (full.ltpc.ltp, full.ltpc.ltq, full.ltpc.cp) == (812.35, 17, 805.9)
    assert (full.vtt, full.tbq) == (4_000_000_001, 0)
    day, minute = full.marketOHLC.ohlc
    assert (day.interval, day.close, minute.interval) == ("1d", 812.35, "I1")
    assert dt.datetime.fromtimestamp(day.ts / 1000, dt.UTC).isoformat() == "2025-11-02T18:30:00+00:00"


@pytest.mark.parametrize(
    ("mode", "kind", "levels"),
    [
        ("ltpc", "ltpc", 0),
        ("full", "fullFeed", 5),
        ("full_d30", "fullFeed", 30),
        ("option_greeks", "firstLevelWithGreeks", 0),
    ],
)
async def test_each_mode_has_its_kind_of_feed(mode: str, kind: str, levels: int) -> None:
    async with quiet() as sim, client(sim) as one:
        await one.ask("sub", [SBIN], mode)
        feed = (await one.message()).feeds[SBIN]
    assert feed.WhichOneof("FeedUnion") == kind
    assert len(feed.fullFeed.marketFF.marketLevel.bidAskQuote) == levels


async def test_a_key_has_one_mode_whichever_request_changed_it_last() -> None:
    async with quiet() as sim, client(sim) as one:
        await one.ask("sub", [SBIN])
        await one.done()
        assert sim.subscribed() == {"NSE:SBIN": ["ltpc"]}
        await one.ask("change_mode", [SBIN, NIFTY], "full_d30")
        await one.done()
        assert sim.subscribed() == {"NSE:SBIN": ["full_d30"]}, "only what is subscribed changes"
        await one.ask("sub", [SBIN, NIFTY], "full")
        await one.done()
        assert sim.subscribed() == {"NSE:SBIN": ["full"], "NSE_INDEX:NIFTY": ["full"]}
        await one.ask("unsub", [SBIN, NIFTY])
        await one.done()
        assert sim.subscribed() == {}


async def test_requests_that_are_none_are_refused_and_text_frames_not_answered() -> None:
    async with quiet() as sim, client(sim) as one:
        await one.socket.send(json.dumps({"guid": "g", "method": "sub", "data": {"instrumentKeys": [SBIN]}}))
        await one.done()
        assert sim.subscribed() == {}
        await one.socket.send(b"no json")
        assert (await one.error())["status"] == "failed"
        await one.ask("sub", [SBIN], "full_d20")
        assert "full_d20" in (await one.error())["error"]
        await one.ask("buy", [SBIN])
        assert await one.error() == {"status": "failed", "method": "buy", "error": "The method 'buy' is unknown."}
        await one.ask("sub", ["NSE_EQ|NOWHERE"])
        await one.done()
        assert sim.entries("unknown")[0]["keys"] == ["NSE_EQ|NOWHERE"]


async def test_each_modes_limit_holds_alone_and_the_combined_one_when_mixed() -> None:
    async with quiet(symbols=2100) as sim, client(sim) as one:
        keys = [instrument_key(quote.listing) for quote in sim.market.quotes]
        held = sim.clients[1].modes
        await one.ask("sub", keys, "full")
        await one.done()
        assert len(held) == 2000
        await one.ask("change_mode", keys[:51], "full_d30")
        await one.done()
        assert list(held.values()).count("full_d30") == 0, "2000 are more than modes together may have"
        await one.ask("unsub", keys[1000:])
        await one.ask("change_mode", keys[:51], "full_d30")
        await one.ask("sub", keys[1000:], "ltpc")
        await one.done()
        counts = {mode: list(held.values()).count(mode) for mode in ("full_d30", "full", "ltpc")}
        assert counts == {"full_d30": 50, "full": 950, "ltpc": 500}
        assert sim.stats()["limit_violations"] == 100 + 51 + 1 + 600


async def test_the_stamp_is_the_clock_in_microseconds() -> None:
    async with quiet(stamp=True) as sim, client(sim) as one:
        before = time.time_ns() // 1000
        await one.ask("sub", [SBIN], "ltpc")
        stamp = (await one.message()).feeds[SBIN].ltpc.ltq
        assert (stamp - before) % 2**32 <= time.time_ns() // 1000 - before


@pytest.mark.parametrize("kind", UpstoxSimulator.damages)
async def test_every_kind_of_spoilt_frame_is_none_and_the_socket_lives(kind: str) -> None:
    async with quiet() as sim, client(sim) as one:
        assert sim.malformed(kind, count=10) == 10
        for _ in range(10):
            frame = await one.socket.recv()
            if isinstance(frame, str):
                with pytest.raises(ValueError, match="Expecting"):
                    json.loads(frame)
            elif kind in ("truncated", "random"):
                with pytest.raises(ProtobufError):
                    schema.FeedResponse.FromString(frame)
        await one.ask("sub", [SBIN], "ltpc")
        assert set((await one.message()).feeds) == {SBIN}


# -------------------------------------------------------------------------------------------------------------- master


def test_the_master_parses_and_its_rows_are_the_market() -> None:
    sim = quiet()
    rows = list(ADAPTER.parse_instruments(sim.master().encode()))
    listings = [quote.listing for quote in sim.market.quotes if quote.listing.exchange != "MCX_INDEX"]
    assert len(rows) == len(listings) == len({row.token for row in rows if isinstance(row, InstrumentRow)})
    for row, one in zip(rows, listings, strict=True):
        assert isinstance(row, InstrumentRow)
        assert (row.symbol, row.exchange, row.kind) == (one.symbol, one.exchange, one.kind)
        assert (row.expiry, row.strike) == (one.expiry.isoformat() if one.expiry else "", one.strike)
        assert row.lot_size == one.lot_size
        assert row.tick_size == pytest.approx(one.tick_size)
        assert row.token == instrument_key(one)
    assert len(json.loads(sim.master("NCD_FO"))) == sum(one.exchange == "CDS" for one in listings)
    assert sim.master("LSE_EQ") == ""


# -------------------------------------------------------------------------------------------- the product's connection


class Bench:
    """The product's connection to a simulator."""

    def __init__(self, sim: UpstoxSimulator, feed: Feed) -> None:
        self.sim = sim
        self.updates: list[Update] = []
        self.counters = Counters()
        self.connection = Connection(
            "upstox demo market 0",
            Route(ADAPTER, feed, sim.credentials("demo", "demo-token"), sim.url),
            feed.limits,
            deliver=self._deliver,
            on_change=lambda: None,
            on_lost=lambda tokens: None,
            counters=self.counters,
            chance=lambda: 0.0,
        )
        self.tokens = {
            row.symbol: Token(row.segment, row.token)
            for row in ADAPTER.parse_instruments(sim.master().encode())
            if isinstance(row, InstrumentRow) and row.exchange != "BSE"
        }

    def _deliver(self, updates: Collection[Update], received_ms: int) -> None:
        self.updates += updates

    def of(self, symbol: str) -> list[Update]:
        return [update for update in self.updates if update.token == self.tokens[symbol]]


@asynccontextmanager
async def connecting(feed: Feed = FEED) -> AsyncIterator[Bench]:
    async with quiet() as sim:
        bench = Bench(sim, feed)
        task = asyncio.create_task(bench.connection.run())
        try:
            yield bench
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=3)
            assert task.done()


@pytest.mark.parametrize(
    ("mode", "word", "kind", "levels"),
    [
        (Mode.LTP, "ltpc", Mode.LTP, 0),
        (Mode.QUOTE, "full", Mode.DEPTH, 5),
        (Mode.DEPTH, "full", Mode.DEPTH, 5),
        (Mode.DEPTH30, "full_d30", Mode.DEPTH30, 30),
    ],
)
async def test_the_products_connection_ticks_in_every_mode(mode: Mode, word: str, kind: Mode, levels: int) -> None:
    async with connecting() as bench:
        for symbol in ("SBIN", "NIFTY"):
            bench.connection.want(bench.tokens[symbol], mode)
        await until(
            lambda: bench.sim.subscribed() == {"NSE:SBIN": [word], "NSE_INDEX:NIFTY": [word]}, "the subscriptions"
        )
        bench.sim.emit("SBIN", ltp=812.35, close=805.9, exchange_ms=1_762_141_001_999)
        bench.sim.emit("NIFTY", ltp=24800.1, close=24850.55)
        await until(lambda: bench.of("NIFTY") and bench.of("NIFTY")[-1].ltp == 24800.1, "the index")
        share, index = bench.of("SBIN")[-1], bench.of("NIFTY")[-1]
        assert (share.ltp, share.close, share.exchange_ms, share.mode) == (812.35, 805.9, 1_762_141_001_999, kind)
        assert (index.close, index.mode, index.depth) == (24850.55, kind, None)
        assert (0 if share.depth is None else len(share.depth.buy)) == levels
        assert bench.counters.decode_errors == 0


async def test_a_book_left_out_of_a_live_message_is_no_news() -> None:
    async with connecting() as bench:
        bench.connection.want(bench.tokens["SBIN"], Mode.DEPTH)
        await until(lambda: bench.of("SBIN"), "the snapshot")
        bench.sim.omits_books = True
        bench.sim.emit("SBIN", ltp=812.35)
        await until(lambda: len(bench.of("SBIN")) == 2, "the tick")
        assert [update.depth is None for update in bench.of("SBIN")] == [False, True]


async def test_every_instrument_of_the_market_ticks_and_agrees() -> None:
    async with connecting() as bench:
        for token in bench.tokens.values():
            bench.connection.want(token, Mode.DEPTH)
        await until(lambda: len({update.token for update in bench.updates}) == len(bench.tokens), "a tick of each")
        by_key: dict[str, Listing] = {instrument_key(quote.listing): quote.listing for quote in bench.sim.market.quotes}
        for update in bench.updates:
            assert update.token.segment == by_key[update.token.number].exchange
            assert update.close == by_key[update.token.number].price


async def test_after_a_drop_it_asks_for_a_new_address_and_subscribes_again() -> None:
    async with connecting() as bench:
        bench.connection.want(bench.tokens["SBIN"], Mode.DEPTH)
        await until(lambda: bench.of("SBIN"), "the first")
        await bench.sim.drop()
        bench.updates.clear()
        await until(lambda: bench.of("SBIN"), "the second")
        assert len(bench.sim.entries("connect")) == 2
        assert bench.sim.stats()["refused_logins"] == 0


async def test_an_expired_token_is_not_tried_again() -> None:
    async with connecting() as bench:
        await until(lambda: bench.connection.is_up, "the connection")
        await bench.sim.expire()
        await until(lambda: bench.connection.condition.state is FeedState.TOKEN_EXPIRED, "the end")
        assert "UDAPI100050" in bench.connection.condition.message
        assert bench.sim.stats()["refused_logins"] == 1


async def test_malformed_frames_are_counted_and_the_connection_goes_on() -> None:
    async with connecting() as bench:
        await until(lambda: bench.connection.is_up, "the connection")
        for kind in bench.sim.damages:
            bench.sim.malformed(kind, count=2)
        bench.connection.want(bench.tokens["SBIN"], Mode.LTP)
        await until(lambda: bench.of("SBIN"), "a tick")
        assert bench.counters.decode_errors == 2 * len(bench.sim.damages)
        assert len(bench.sim.entries("connect")) == 1


async def test_silence_ends_the_connection_and_a_new_one_is_made() -> None:
    async with connecting(msgspec.structs.replace(FEED, silence_s=0.3)) as bench:
        bench.connection.want(bench.tokens["NIFTY"], Mode.LTP)  # a share may rest for long, an index says something
        await until(lambda: bench.of("NIFTY"), "the snapshot")
        bench.sim.silence()
        await until(lambda: len(bench.sim.entries("connect")) == 2, "another socket")
