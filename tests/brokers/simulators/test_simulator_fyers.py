"""Fyers' two sockets, seen by a client that unpacks by the documented offsets, and by the product's own connection."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import struct
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from brokers.adapters.fyers import ADAPTER, DATA_FEED, DEPTH_FEED
from brokers.contract import BadRow, Feed, InstrumentRow, Update
from brokers.feed.connection import Connection, Route
from brokers.feed.counters import Counters
from brokers.schemas.fyers_tbt_pb2 import SocketMessage
from brokers.simulators.fyers import ACKNOWLEDGE_EVERY, FyersSimulator, access_token
from marketdata.ticks import FeedState, Mode, Token
from tests.brokers.feed.bench import until
from tests.brokers.simulators.kite import i32, u16, u32

TODAY = dt.date(2025, 11, 3)
SCRIP, BOOK, INDEX = "sf|nse_cm|3045", "dp|nse_cm|3045", "if|nse_cm|Nifty 50"
TICKER = "NSE:SBIN-EQ"
SHARE = {
    "ltp": 812.35,
    "ltq": 17,
    "average_price": 810.05,
    "volume": 4_000_000_001,
    "total_buy_quantity": 3_000_000_000,
    "total_sell_quantity": 222_222,
    "open": 808.1,
    "high": 815.5,
    "low": 801.45,
    "close": 805.9,
    "last_trade_ms": 1_762_141_000_000,
    "exchange_ms": 1_762_141_001_000,
    "buy": [[812.3, 100, 1], [812.25, 200, 2], [812.2, 300, 3], [812.15, 400, 4], [812.1, 500, 65535]],
    "sell": [[812.35, 600, 6], [812.4, 700, 7], [812.45, 800, 8]],
}


def quiet(**options: object) -> FyersSimulator:
    return FyersSimulator(**{"rate": 0, "symbols": None, "seed": 1, "today": TODAY, **options})


# -------------------------------------------------------------------------------------------------------------- client


def auth(hsm_key: str) -> bytes:
    key, source = hsm_key.encode(), b"test"
    fields = b"\x01" + struct.pack(">H", len(key)) + key + b"\x02\0\x01P\x03\0\x01\x01\x04" + struct.pack(">H", 4)
    return struct.pack(">HBB", 18 + len(key) + len(source) - 2, 1, 4) + fields + source


def request(kind: int, *topics: str) -> bytes:
    block = struct.pack(">H", len(topics)) + b"".join(bytes([len(one)]) + one.encode() for one in topics)
    body = b"\x01" + struct.pack(">H", len(block)) + block + b"\x02\0\x01\x0b"
    return struct.pack(">HBB", 9 + len(block), kind, 2) + body


def acknowledgement(number: int) -> bytes:
    return bytes.fromhex("00090301010004") + struct.pack(">I", number)


class Hsm:
    """One data socket."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def reply(self) -> bytes:
        """The next frame that is no data."""
        while True:
            frame = await self.frame()
            if frame[2] != 6:
                return frame

    async def data(self) -> bytes:
        """The next frame of data."""
        while True:
            frame = await self.frame()
            if frame[2] == 6:
                return frame

    async def frame(self) -> bytes:
        async with asyncio.timeout(5):
            frame = await self.socket.recv()
        assert isinstance(frame, bytes)
        assert u16(frame, 0) == len(frame) - 2
        return frame

    async def login(self, hsm_key: str = "demo:demo-token") -> bytes:
        await self.socket.send(auth(hsm_key))
        return await self.reply()

    async def ask(self, kind: int, *topics: str) -> None:
        await self.socket.send(request(kind, *topics))
        assert await self.reply() == bytes([0, 6, kind, 1, 1, 0, 1]) + b"K"

    async def done(self) -> None:
        """Returns when everything sent before has been acted on and what that brought has arrived."""
        await (await self.socket.ping())


@asynccontextmanager
async def hsm(sim: FyersSimulator, *, login: bool = True) -> AsyncIterator[Hsm]:
    async with websockets.connect(f"{sim.url}/hsm/v1-5/prod", max_queue=None, close_timeout=1) as socket:
        one = Hsm(socket)
        if login:
            assert (await one.login())[7:8] == b"K"
        yield one


def entry(frame: bytes) -> tuple[str, int, list[int]]:
    """Kind, topic id and values of the only entry of a frame."""
    assert u16(frame, 7) == 1
    if frame[9:10] == b"L":
        return "L", u16(frame, 10), [i32(frame, 12)]
    at = 12 if frame[9:10] == b"U" else 13 + frame[12]
    return chr(frame[9]), u16(frame, 10), [i32(frame, at + 1 + 4 * number) for number in range(frame[at])]


# --------------------------------------------------------------------------------------------------------- data socket


async def test_the_login_is_a_frame_and_says_how_often_to_acknowledge() -> None:
    async with quiet() as sim, hsm(sim, login=False) as one:
        assert await one.login() == bytes.fromhex("000d 01 02 01 0001 4b 02 0004") + struct.pack(">I", 20)
        assert [item["api_key"] for item in sim.entries("login")] == ["demo"]


@pytest.mark.parametrize("key", ["demo:wrong", "other:demo-token", "demo", ""])
async def test_a_wrong_key_is_refused_and_whatever_follows_too(key: str) -> None:
    async with quiet() as sim, hsm(sim, login=False) as one:
        assert (await one.login(key))[7:8] == b"N"
        await one.socket.send(request(4, SCRIP))
        assert await one.reply() == bytes.fromhex("0006 04 01 01 0001 4e")
        assert sim.stats()["refused_logins"] == 1
        assert sim.subscribed() == {}
        assert "wrong" not in str(sim.log).replace("is wrong or", "")


async def test_a_fourth_socket_of_a_key_is_refused_and_an_expired_token_bars_the_door() -> None:
    async with quiet() as sim:
        async with hsm(sim), hsm(sim), hsm(sim), hsm(sim, login=False) as fourth:
            with pytest.raises(ConnectionClosed) as closed:
                await fourth.login()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
            assert sim.stats()["limit_violations"] == 1
            assert await sim.expire("demo") == 3
        async with hsm(sim, login=False) as one:
            assert (await one.login())[7:8] == b"N"
            sim.set_token("fresh")
            assert (await one.login("demo:fresh"))[7:8] == b"K"


async def test_a_snapshot_has_21_fields_in_the_documented_order_and_its_scale() -> None:
    async with quiet() as sim, hsm(sim) as one:
        sim.emit("SBIN", **SHARE)
        await one.ask(4, SCRIP)
        frame = await one.data()
    assert (u32(frame, 3), u16(frame, 7), frame[9:10]) == (1, 1, b"S")
    assert frame[12] == len(SCRIP)
    assert frame[13 : 13 + frame[12]] == SCRIP.encode()
    kind, _, values = entry(frame)
    quote = sim.market.find("SBIN")
    assert (kind, values) == (
        "S",
        [
            81235, 4_000_000_001 - 2**32, 1_762_141_000, 1_762_141_001, 100, 600, 81230, 81235, 17,
            3_000_000_000 - 2**32, 222_222, 81005, 0, 80145, 81550, quote.upper_circuit, quote.lower_circuit,
            quote.lower_circuit, quote.upper_circuit, 80810, 80590,
        ],
    )  # fmt: skip
    tail = frame[13 + len(SCRIP) + 1 + 84 :]
    assert tail == b"\0\0\0\x01\x02\x06nse_cm\x043045\x07SBIN-EQ"


async def test_an_update_says_what_changed_and_marks_the_rest() -> None:
    async with quiet() as sim, hsm(sim) as one:
        await one.ask(4, SCRIP)
        await one.data()
        sim.emit("SBIN", **SHARE)
        _, id_, everything = entry(await one.data())
        sim.emit("SBIN", ltp=812.4, exchange_ms=SHARE["exchange_ms"], buy=SHARE["buy"], sell=SHARE["sell"])
        kind, again, changes = entry(await one.data())
    assert (kind, again) == ("U", id_)
    assert everything[0] == 81235
    assert changes == [81240] + [-(2**31)] * 20


async def test_a_book_has_prices_then_quantities_then_orders() -> None:
    async with quiet() as sim, hsm(sim) as one:
        sim.emit("SBIN", **SHARE)
        await one.ask(4, BOOK)
        kind, _, values = entry(await one.data())
    assert kind == "S"
    assert values[:10] == [81230, 81225, 81220, 81215, 81210, 81235, 81240, 81245, 0, 0]
    assert values[10:20] == [100, 200, 300, 400, 500, 600, 700, 800, 0, 0]
    assert values[20:] == [1, 2, 3, 4, 65535, 6, 7, 8, 0, 0]


async def test_an_index_is_subscribed_by_name_and_has_no_book() -> None:
    values = {"ltp": 24800.1, "open": 24850.0, "high": 24900.5, "low": 24750.25, "close": 24850.55}
    async with quiet() as sim, hsm(sim) as one:
        sim.emit("NIFTY", **values, exchange_ms=1_762_141_001_999)
        await one.ask(4, INDEX, "dp|nse_cm|Nifty 50", "sf|nse_cm|Nifty 50", "if|nse_cm|Nobody")
        kind, _, fields = entry(await one.data())
        assert sim.subscribed() == {"NSE_INDEX:NIFTY": ["price"]}
    assert (kind, fields) == ("S", [2480010, 2485055, 1_762_141_001, 2490050, 2475025, 2485000])


async def test_a_currency_is_divided_by_ten_thousand() -> None:
    async with quiet() as sim, hsm(sim) as one:
        quote = next(one for one in sim.market.quotes if one.listing.exchange == "CDS")
        sim.emit(quote.listing.key, ltp=87.9175)
        await one.ask(4, f"sf|cde_fo|{quote.listing.code}")
        frame = await one.data()
    assert entry(frame)[2][0] == 879_175
    at = 13 + frame[12] + 1 + 84
    assert (u16(frame, at + 2), frame[at + 4]) == (100, 2)


async def test_topics_of_an_instrument_come_and_go_one_by_one() -> None:
    async with quiet() as sim, hsm(sim) as one:
        await one.ask(4, SCRIP)
        await one.ask(4, BOOK)
        assert sim.subscribed() == {"NSE:SBIN": ["price+book"]}
        await one.ask(5, SCRIP)
        assert sim.subscribed() == {"NSE:SBIN": ["book"]}
        await one.ask(5, BOOK)
        assert sim.subscribed() == {}
        assert sim.emit("SBIN", ltp=800.0) == 0


async def test_lite_mode_brings_the_last_price_in_seven_bytes() -> None:
    async with quiet() as sim, hsm(sim) as one:
        await one.socket.send(bytes.fromhex("0000 0c 02 01 0008 0000000000000800 02 0001 4c"))
        assert await one.reply() == bytes.fromhex("0006 0c 01 01 0001 4b")
        await one.ask(4, SCRIP)
        _, id_, _ = entry(await one.data())
        sim.emit("SBIN", ltp=801.05)
        assert entry(await one.data()) == ("L", id_, [80105])


async def test_instruments_over_the_limit_are_reported_counted_and_never_sent() -> None:
    async with quiet(instruments_per_socket=2) as sim, hsm(sim) as one:
        topics = [f"sf|nse_cm|{sim.market.find(name).listing.code}" for name in ("SBIN", "INFY", "TCS")]
        await one.socket.send(request(4, *topics))
        assert (await one.reply())[2] == 4
        frame = await one.reply()
        assert (frame[2], i32(frame, 7)) == (51, 51001)
        assert b"1 instruments are over the limit of 2" in frame
        assert (sim.stats()["limit_violations"], len(sim.subscribed())) == (1, 2)


async def test_whoever_does_not_acknowledge_gets_nothing_more() -> None:
    async with quiet() as sim, hsm(sim) as one, hsm(sim) as good:
        for client in (one, good):
            await client.ask(4, SCRIP)
            await client.data()
        for number in range(2, 3 * ACKNOWLEDGE_EVERY):
            sim.emit("SBIN", ltp=800 + number / 20)
            frame = await good.data()
            assert u32(frame, 3) == number
            if number % ACKNOWLEDGE_EVERY == 0:
                await good.socket.send(acknowledgement(number))
                await good.done()
        [late] = sim.entries("unacknowledged")
        assert late["number"] == 2 * ACKNOWLEDGE_EVERY + 1
        frames = [await one.data() for _ in range(2 * ACKNOWLEDGE_EVERY)]
        assert u32(frames[-1], 3) == 2 * ACKNOWLEDGE_EVERY + 1
        assert sim.stats()["packets_skipped"] > 0


async def test_requests_that_are_none_get_a_message_and_the_socket_lives() -> None:
    async with quiet() as sim, hsm(sim) as one:
        for bad in ("text", b"\0", bytes.fromhex("0004040101"), bytes.fromhex("00020900")):
            await one.socket.send(bad)
            assert (await one.reply())[2] == 51
        await one.socket.send(bytes.fromhex("00010b"))
        await one.ask(4, SCRIP)
        assert sim.keep_alives == 1


async def test_stamped_quantities_are_the_clock_in_microseconds() -> None:
    async with quiet(stamp=True) as sim, hsm(sim) as one:
        before = time.time_ns() // 1000
        await one.ask(4, SCRIP)
        quantity = entry(await one.data())[2][8] % 2**32
    assert (quantity - before) % 2**32 <= time.time_ns() // 1000 - before + 1


# ------------------------------------------------------------------------------------------------- tick-by-tick socket

HEADER = {"Authorization": f"demo:{access_token('demo', 'demo-token')}"}


@asynccontextmanager
async def tbt(sim: FyersSimulator, *, resume: bool = True) -> AsyncIterator[websockets.ClientConnection]:
    url = f"{sim.url}/versova"
    async with websockets.connect(url, additional_headers=HEADER, max_queue=None, close_timeout=1) as socket:
        if resume:
            await socket.send(json.dumps({"type": 2, "data": {"resumeChannels": ["1"], "pauseChannels": []}}))
        yield socket


def books(subs: int, *tickers: str) -> str:
    return json.dumps({"type": 1, "data": {"subs": subs, "symbols": tickers, "mode": "depth", "channel": "1"}})


async def message(socket: websockets.ClientConnection) -> SocketMessage:
    async with asyncio.timeout(5):
        frame = await socket.recv()
    assert isinstance(frame, bytes)
    return SocketMessage.FromString(frame)


async def test_a_book_comes_whole_first_and_then_in_parts() -> None:
    async with quiet() as sim, tbt(sim) as socket:
        await socket.send(books(1, TICKER))
        whole = await message(socket)
        sim.emit("SBIN", **SHARE)
        await message(socket)
        sim.emit("SBIN", exchange_ms=1_762_141_002_000, buy=[[812.3, 111, 9], *SHARE["buy"][1:]], sell=SHARE["sell"])
        part = await message(socket)
    assert whole.snapshot
    feed = whole.feeds[TICKER]
    assert (feed.ticker, feed.token) == (TICKER, "10100000003045")
    assert [level.num.value for level in feed.depth.bids] == list(range(50))
    assert [level.num.value for level in feed.depth.asks] == list(range(50))
    assert not part.snapshot
    [level] = part.feeds[TICKER].depth.bids
    assert (level.HasField("num"), level.num.value) == (True, 0)
    assert (level.price.value, level.qty.value, level.nord.value) == (81230, 111, 9)
    assert not part.feeds[TICKER].depth.asks
    assert part.feeds[TICKER].feed_time.value == 1_762_141_002


async def test_a_channel_that_was_not_resumed_is_silent_until_it_is() -> None:
    async with quiet() as sim, tbt(sim, resume=False) as socket:
        await socket.send(books(1, TICKER))
        await socket.send("ping")
        assert await socket.recv() == "pong"
        assert sim.subscribed() == {}
        await socket.send(json.dumps({"type": 2, "data": {"resumeChannels": ["1"], "pauseChannels": []}}))
        assert (await message(socket)).snapshot


async def test_five_books_a_socket_and_only_nse_and_its_contracts() -> None:
    async with quiet() as sim, tbt(sim) as socket:
        names = [f"NSE:{name}-EQ" for name in ("SBIN", "INFY", "TCS", "ITC", "LT", "WIPRO")]
        await socket.send(books(1, "BSE:SBIN-A", "NSE:NIFTY50-INDEX", *names))
        await message(socket)
        complaint = await message(socket)
        assert complaint.error
        assert "over the limit of 5" in complaint.msg
        assert len(sim.subscribed()) == 5
        await socket.send(books(-1, *names))
        await (await socket.ping())
        assert sim.subscribed() == {}
        for bad in ("{", "[]", '{"type":9,"data":{}}'):
            await socket.send(bad)
            assert (await message(socket)).error


async def test_a_wrong_token_gets_no_address_and_no_socket() -> None:
    wrong = {"Authorization": f"demo:{access_token('demo', 'wrong')}"}
    async with quiet() as sim, httpx.AsyncClient(base_url=sim.http_url) as http:
        assert (await http.get("/indus/home/tbtws", headers=wrong)).status_code == 401
        assert (await http.get("/indus/home/tbtws")).status_code == 401
        answer = await http.get("/indus/home/tbtws", headers=HEADER)
        assert answer.json()["data"]["socket_url"] == f"{sim.url}/versova"
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await websockets.connect(f"{sim.url}/versova", additional_headers=wrong)
        assert refusal.value.response.status_code == 403
        with pytest.raises(websockets.InvalidStatus) as nowhere:
            await websockets.connect(f"{sim.url}/elsewhere")
        assert nowhere.value.response.status_code == 404


async def test_tickers_become_tokens_over_http() -> None:
    async with quiet() as sim, httpx.AsyncClient(base_url=sim.http_url, headers=HEADER) as http:
        answer = await http.post("/data/symbol-token", json={"symbols": [TICKER, "NSE:NOBODY-EQ"]})
        assert answer.json()["validSymbol"] == {TICKER: "10100000003045"}
        assert answer.json()["invalidSymbol"] == ["NSE:NOBODY-EQ"]
        assert (await http.post("/data/symbol-token", content=b"{")).status_code == 400
        names = (await http.get("/sym_details/index_hsm_mapping.json")).json()
        assert names["NSE:NIFTY50-INDEX"] == "Nifty 50"
        assert (await http.get("/sym_details/NSE_CM.csv")).text == sim.master("NSE_CM")
        assert (await http.get("/sym_details/MCX_COM_sym_master.json")).text == sim.master("MCX_COM")
        assert (await http.get("/sym_details/NOBODY.csv")).status_code != 200


# -------------------------------------------------------------------------------------------------------------- master


def rows_of(sim: FyersSimulator) -> list[InstrumentRow | BadRow]:
    return [
        row
        for master in ADAPTER.spec.masters
        for row in ADAPTER.parse_instruments(sim.master(master.segment).encode(), master.segment)
    ]


def test_the_masters_have_what_the_market_quotes() -> None:
    sim = quiet()
    rows = rows_of(sim)
    listed = {
        one.listing.key: one.listing for one in sim.market.quotes if one.listing.exchange in ADAPTER.spec.segments
    }
    found = {f"{row.exchange}:{row.symbol}": row for row in rows if isinstance(row, InstrumentRow)}
    assert len(rows) == len(found)
    assert found.keys() == listed.keys()
    for key, row in found.items():
        one = listed[key]
        assert (row.lot_size, row.tick_size, row.strike) == (one.lot_size, one.tick_size, one.strike)
        assert row.expiry == ("" if one.expiry is None else one.expiry.isoformat())
    assert FyersSimulator(symbols=3).master("MCX_COM") == "{}"
    assert sim.master("NOBODY") == ""


# ------------------------------------------------------------------------------------------------- the product's feed


class Bench:
    """The product's connection to a simulator, and all that it delivered."""

    def __init__(self, sim: FyersSimulator, feed: Feed) -> None:
        self.sim = sim
        self.updates: list[Update] = []
        self.counters = Counters()
        self.connection = Connection(
            f"fyers demo {feed.kind} 0",
            Route(ADAPTER, feed, sim.credentials("demo", "demo-token"), sim.url),
            feed.limits,
            deliver=self._deliver,
            on_change=lambda: None,
            on_lost=lambda tokens: None,
            counters=self.counters,
            chance=lambda: 0.0,
        )
        self.tokens = {
            f"{row.exchange}:{row.symbol}": Token(row.segment, row.token)
            for row in rows_of(sim)
            if isinstance(row, InstrumentRow)
        }

    def _deliver(self, updates: Collection[Update], received_ms: int) -> None:
        self.updates += updates

    def of(self, key: str) -> list[Update]:
        return [update for update in self.updates if update.token == self.tokens[key]]

    def want(self, key: str, mode: Mode | None) -> None:
        self.connection.want(self.tokens[key], mode)


@asynccontextmanager
async def connecting(feed: Feed = DATA_FEED, **options: Any) -> AsyncIterator[Bench]:
    async with quiet(**options) as sim:
        bench = Bench(sim, feed)
        task = asyncio.create_task(bench.connection.run())
        try:
            yield bench
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=5)


@pytest.mark.parametrize("mode", [Mode.LTP, Mode.QUOTE, Mode.DEPTH])
async def test_the_products_connection_gets_ticks_in_every_mode(mode: Mode) -> None:
    keys = ["NSE:SBIN", "NSE_INDEX:NIFTY", "BSE_INDEX:SENSEX", "BSE:SBIN"]
    async with connecting(rate=500) as bench:
        for key in keys:
            bench.want(key, mode)
        await until(lambda: all(len(bench.of(key)) > 5 for key in keys), "ticks of all")
        assert all(update.ltp for key in keys for update in bench.of(key) if update.depth is None)
        with_books = {key for key in keys if any(update.depth for update in bench.of(key))}
        assert with_books == ({"NSE:SBIN", "BSE:SBIN"} if mode is Mode.DEPTH else set())
        assert bench.counters.decode_errors == 0


async def test_every_value_of_the_market_arrives_and_stays_so() -> None:
    async with connecting() as bench:
        bench.want("NSE:SBIN", Mode.DEPTH)
        await until(lambda: bench.sim.subscribed() == {"NSE:SBIN": ["price+book"]}, "the subscription")
        bench.sim.emit("SBIN", **SHARE)
        bench.sim.emit("SBIN", ltp=812.4, exchange_ms=SHARE["exchange_ms"], buy=SHARE["buy"], sell=SHARE["sell"])
        await until(lambda: any(update.ltp == 812.4 for update in bench.of("NSE:SBIN")), "the price")
        prices = next(update for update in reversed(bench.of("NSE:SBIN")) if update.ltp)
        wanted = {name: value for name, value in SHARE.items() if name not in ("buy", "sell", "ltp")}
        assert {name: getattr(prices, name) for name in wanted} == wanted
        book = next(update.depth for update in reversed(bench.of("NSE:SBIN")) if update.depth)
        assert [[one.price, one.quantity, one.orders] for one in book.buy] == SHARE["buy"]
        assert [[one.price, one.quantity, one.orders] for one in book.sell] == [*SHARE["sell"], *[[0, 0, 0]] * 2]


async def test_the_products_connection_acknowledges_and_is_never_cut_off() -> None:
    async with connecting(rate=2000, packets_per_frame=1) as bench:
        bench.want("NSE:SBIN", Mode.QUOTE)
        await until(lambda: len(bench.updates) > 10 * ACKNOWLEDGE_EVERY, "many messages")
        assert bench.sim.entries("unacknowledged") == []
        numbers = [item["number"] for item in bench.sim.entries("acknowledge")]
        assert numbers == [ACKNOWLEDGE_EVERY * (at + 1) for at in range(len(numbers))]
        assert len(numbers) >= 9


async def test_fifty_levels_are_put_together_from_parts() -> None:
    async with connecting(DEPTH_FEED, rate=500) as bench:
        bench.want("NSE:SBIN", Mode.DEPTH50)
        await until(lambda: len(bench.of("NSE:SBIN")) > 50, "books")
        bench.sim.pause_ticks()
        bench.sim.emit("SBIN", ltp=812.4)
        quote = bench.sim.market.find("SBIN")
        bids, asks = quote.deep_book(50)

        def is_the_market(update: Update) -> bool:
            return (
                update.depth is not None
                and [(one.price, one.quantity, one.orders) for one in update.depth.buy]
                == [(price / 100, quantity, orders) for price, quantity, orders in bids]
                and [(one.price, one.quantity, one.orders) for one in update.depth.sell]
                == [(price / 100, quantity, orders) for price, quantity, orders in asks]
            )

        await until(lambda: is_the_market(bench.of("NSE:SBIN")[-1]), "the market's book")
        assert bench.of("NSE:SBIN")[-1].ltp is None


@pytest.mark.parametrize("feed", [DATA_FEED, DEPTH_FEED], ids=lambda feed: feed.kind)
async def test_a_refused_token_is_tried_once(feed: Feed) -> None:
    async with quiet(accounts={"demo": "another"}) as sim:
        bench = Bench(sim, feed)
        async with asyncio.timeout(5):
            await bench.connection.run()
        assert bench.connection.condition.state is FeedState.TOKEN_EXPIRED
        assert sim.stats()["refused_logins"] == 1


async def test_every_way_of_spoiling_a_frame_is_noticed() -> None:
    async with connecting() as bench:
        bench.want("NSE:SBIN", Mode.QUOTE)
        await until(lambda: bench.of("NSE:SBIN"), "the first image")
        for kind in ("truncated", "entry", "count", "text"):
            before = bench.counters.decode_errors
            bench.sim.malformed(kind)
            await until(lambda before=before: bench.counters.decode_errors == before + 1, kind)
        bench.sim.malformed("random", count=5)
        bench.sim.emit("SBIN", ltp=800.0)
        await until(lambda: bench.of("NSE:SBIN")[-1].ltp == 800.0, "the price")
