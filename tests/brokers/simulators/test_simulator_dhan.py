"""Dhan's wire and manners, seen by a client that follows the documentation's offsets, and by our own connection."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import struct
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
import websockets

from brokers import registry
from brokers.contract import DecodeError, Feed, InstrumentRow, Update
from brokers.feed.connection import Connection, Route
from brokers.feed.counters import Counters
from brokers.simulators.dhan import SEGMENTS, DhanSimulator
from brokers.simulators.dhan_sandbox import DhanSandboxSimulator
from brokers.simulators.universe import Listing
from marketdata.ticks import FeedState, Mode, Token
from tests.brokers.feed.bench import until

ADAPTER = registry.load("dhan")
MARKET, DEPTH20, DEPTH200 = ADAPTER.spec.feeds
TODAY = dt.date(2025, 11, 3)
LOGIN = "token=demo-token&clientId=demo&authType=2"
PATHS = {"market": f"/?version=2&{LOGIN}", "depth20": f"/twentydepth?{LOGIN}", "depth200": f"/twohundreddepth?{LOGIN}"}
SBIN, NIFTY = ("NSE_EQ", "3045"), ("IDX_I", "13")
SIZES = {2: 16, 4: 50, 5: 12, 6: 16, 8: 162, 50: 10}
BOOK = [[812.3, 100, 1], [812.25, 200, 2], [812.2, 300, 3], [812.15, 400, 4], [812.1, 500, 5]]
SHARE = {
    "ltp": 812.35,
    "ltq": 70_000,
    "average_price": 810.05,
    "volume": 4_000_000_001,
    "total_buy_quantity": 3_000_000_000,
    "total_sell_quantity": 222_222,
    "open": 808.1,
    "high": 815.5,
    "low": 801.45,
    "close": 805.9,
    "last_trade_ms": 1_713_520_796_000,
    "buy": BOOK,
}


def quiet(**options: object) -> DhanSimulator:
    return DhanSimulator(**{"rate": 0, "symbols": None, "seed": 1, "today": TODAY, **options})


class Client:
    """One socket: sends requests, reads packets by their documented sizes."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def ask(self, code: int, *instruments: tuple[str, str]) -> None:
        listed = [{"ExchangeSegment": segment, "SecurityId": number} for segment, number in instruments]
        request = {"RequestCode": code, "InstrumentCount": len(listed), "InstrumentList": listed}
        await self.socket.send(json.dumps(request))

    async def ask_one(self, code: int, segment: str, number: str) -> None:
        await self.socket.send(json.dumps({"RequestCode": code, "ExchangeSegment": segment, "SecurityId": number}))

    async def frame(self) -> bytes:
        async with asyncio.timeout(5):
            frame = await self.socket.recv()
        assert isinstance(frame, bytes)
        return frame

    async def packets(self) -> list[bytes]:
        """The packets of the next frame of the market feed, whose lengths must be right."""
        frame, packets = await self.frame(), []
        while frame:
            size = SIZES[frame[0]]
            assert int.from_bytes(frame[1:3], "little") == size <= len(frame)
            packets.append(frame[:size])
            frame = frame[size:]
        return packets

    async def until(self, code: int) -> bytes:
        """The next packet of a code."""
        while True:
            for packet in await self.packets():
                if packet[0] == code:
                    return packet

    async def done(self) -> None:
        """Returns when everything sent before has been acted on."""
        await (await self.socket.ping())

    async def ended(self) -> int:
        """The reason of the disconnect packet that comes before the close."""
        with pytest.raises(websockets.ConnectionClosed):
            async with asyncio.timeout(5):
                while True:
                    last = await self.socket.recv()
        assert isinstance(last, bytes)
        return int.from_bytes(last[-2:], "little")


@asynccontextmanager
async def client(sim: DhanSimulator, path: str = PATHS["market"]) -> AsyncIterator[Client]:
    async with websockets.connect(f"{sim.url}{path}", max_queue=None, close_timeout=1) as socket:
        yield Client(socket)


# --------------------------------------------------------------------------------------------------------------- login


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ("token=wrong&clientId=demo&authType=2", 809),
        ("token=demo-token&clientId=nobody&authType=2", 810),
        ("clientId=demo&authType=2", 808),
    ],
)
async def test_a_bad_login_is_let_in_told_why_and_closed(kind: str, login: str, reason: int) -> None:
    async with quiet() as sim, client(sim, PATHS[kind].replace(LOGIN, login)) as one:
        assert await one.ended() == reason
        assert sim.stats()["refused_logins"] == 1


async def test_an_expired_token_and_a_missing_plan_have_their_own_reasons() -> None:
    async with quiet() as sim:
        await sim.expire()
        async with client(sim) as one:
            assert await one.ended() == 807
        sim.set_token("demo-token")
        sim.without_plan.add("demo")
        async with client(sim) as one:
            assert await one.ended() == 806


async def test_another_path_is_not_found() -> None:
    async with quiet() as sim:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await websockets.connect(f"{sim.url}/v1?{LOGIN}")
        assert refusal.value.response.status_code == 404


# -------------------------------------------------------------------------------------------------------------- limits


async def test_one_connection_too_many_cuts_the_oldest_of_its_kind() -> None:
    async with quiet(sockets_per_key=2) as sim, client(sim) as first, client(sim) as second:
        async with client(sim, PATHS["depth20"]), client(sim) as third:
            assert await first.ended() == 805
            for each in (second, third):
                await each.ask(15, SBIN)
                assert await each.until(2)
        assert sim.stats()["limit_violations"] == 1


async def test_instruments_over_a_limit_end_the_connection() -> None:
    async with quiet(instruments_per_socket=3, symbols=200) as sim:
        shares = [("NSE_EQ", str(quote.listing.code)) for quote in sim.market.quotes if quote.listing.exchange == "NSE"]
        async with client(sim) as one:
            await one.ask(15, *shares[:3])
            await one.ask(15, shares[3])
            assert await one.ended() == 804
        sim.set_limits(instruments=5000)
        async with client(sim) as one:
            await one.ask(15, *(shares * 3)[:101])
            assert await one.ended() == 804
        async with client(sim, PATHS["depth200"]) as one:
            await one.ask_one(23, *shares[0])
            await one.ask_one(23, *shares[1])
            assert await one.ended() == 804
        assert sim.stats()["limit_violations"] == 3


@pytest.mark.parametrize(
    "request_",
    [
        "{",
        "[]",
        '{"RequestCode":99}',
        '{"RequestCode":15,"InstrumentCount":2,"InstrumentList":[]}',
        '{"RequestCode":15,"InstrumentCount":1,"InstrumentList":[{"ExchangeSegment":"NSE_EQ","SecurityId":3045}]}',
        '{"RequestCode":23,"ExchangeSegment":"NSE_EQ","SecurityId":"3045"}',
    ],
)
async def test_a_request_that_cannot_be_read_ends_the_connection(request_: str) -> None:
    async with quiet() as sim, client(sim) as one:
        await one.socket.send(request_)
        assert await one.ended() == 814


# ------------------------------------------------------------------------------------------------------------- packets


async def test_a_full_packet_has_everything_at_its_documented_offset() -> None:
    async with quiet() as sim, client(sim) as one:
        await one.ask(21, SBIN)
        await one.until(6)
        sim.emit("SBIN", **SHARE)
        packet = await one.until(8)
        assert struct.unpack_from("<BHBI", packet) == (8, 162, 1, 3045)
        ltp, ltq, seconds, average = struct.unpack_from("<fHIf", packet, 8)
        assert (round(ltp, 2), ltq, round(average, 2)) == (812.35, 65535, 810.05)
        assert dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat() == "2024-04-19T15:29:56+00:00"
        assert struct.unpack_from("<III", packet, 22) == (4_000_000_001, 222_222, 3_000_000_000)
        assert [round(price, 2) for price in struct.unpack_from("<ffff", packet, 46)] == [808.1, 805.9, 815.5, 801.45]
        rows = [struct.unpack_from("<IIHHff", packet, 62 + 20 * row) for row in range(5)]
        assert [[round(row[4], 2), row[0], row[2]] for row in rows] == BOOK


async def test_an_index_has_a_quote_but_no_book() -> None:
    async with quiet() as sim, client(sim) as one:
        await one.ask(17, NIFTY)
        packet = await one.until(4)
        assert struct.unpack_from("<BI", packet, 3) == (0, 13)
        await one.ask(18, NIFTY)
        await one.ask(21, NIFTY)
        await one.done()
        assert sim.subscribed() == {"NSE_INDEX:NIFTY": ["full"]}
        sim.emit("NIFTY", ltp=24900.0)
        assert 8 not in [packet[0] for packet in await one.packets()]


async def test_an_instrument_in_two_modes_sends_both_kinds_until_one_is_ended() -> None:
    async with quiet() as sim, client(sim) as one:
        for code in (15, 17, 21):
            await one.ask(code, SBIN)
        await one.done()
        assert sim.subscribed() == {"NSE:SBIN": ["full+quote+ticker"]}
        sim.emit("SBIN", ltp=811.0)
        await one.ask(22, SBIN)
        await one.ask(16, SBIN)
        await one.done()
        assert sim.subscribed() == {"NSE:SBIN": ["quote"]}
        await one.ask(18, SBIN)
        await one.done()
        assert sim.subscribed() == {}


async def test_open_interest_follows_a_derivatives_quote() -> None:
    async with quiet() as sim, client(sim) as one:
        future = next(quote for quote in sim.market.quotes if quote.listing.kind == "FUT")
        await one.ask(17, ("NSE_FNO", str(future.listing.code)))
        await one.until(6)
        sim.emit(future.listing.key, oi=4711)
        quote, interest = await one.packets()
        assert (quote[0], interest[0]) == (4, 5)
        assert int.from_bytes(interest[8:], "little") == 4711


async def test_books_of_both_depths_begin_with_the_five_levels() -> None:
    async with quiet() as sim, client(sim, PATHS["depth20"]) as twenty, client(sim, PATHS["depth200"]) as deepest:
        await twenty.ask(23, SBIN)
        await deepest.ask_one(23, *SBIN)
        for one, levels in ((twenty, 20), (deepest, 200)):
            frame = await one.frame()
            size = 12 + 16 * levels
            assert struct.unpack_from("<HBBI", frame) == (size, 41, 1, 3045)
            assert struct.unpack_from("<HBBI", frame, size) == (size, 51, 1, 3045)
            assert len(frame) == 2 * size
            bids = [price / 100 for price, _, _ in sim.market.find("SBIN").book()[0]]
            assert [struct.unpack_from("<d", frame, 12 + 16 * row)[0] for row in range(5)] == bids
        await twenty.ask(25, SBIN)
        await deepest.ask_one(24, *SBIN)
        await twenty.done()
        await deepest.done()
        assert sim.subscribed() == {}


async def test_an_instrument_that_dhan_does_not_have_is_silence() -> None:
    async with quiet() as sim, client(sim) as one:
        await one.ask(15, ("NSE_EQ", "999999"), SBIN)
        assert struct.unpack_from("<I", await one.until(2), 4) == (3045,)
        assert len(sim.entries("subscribe")[0]["unknown"]) == 1


# -------------------------------------------------------------------------------------------------------- misbehaviour


@pytest.mark.parametrize("kind", DhanSimulator.damages)
async def test_every_kind_of_spoilt_frame_is_damage_on_every_kind_of_socket(kind: str) -> None:
    async with quiet() as sim, client(sim) as one:
        assert sim.malformed(kind, count=20) == 20
        for _ in range(20):
            frame = await one.socket.recv()
            for feed in ADAPTER.spec.feeds:
                with pytest.raises(DecodeError):
                    ADAPTER.session(feed).decode(frame)


async def test_a_drop_and_a_disconnect_on_demand() -> None:
    async with quiet() as sim:
        async with client(sim) as one:
            await one.done()
            assert sim.disconnect(800) == 1
            assert await one.ended() == 800
        async with client(sim) as one:
            await one.done()
            assert await sim.drop() == 1
            with pytest.raises(websockets.ConnectionClosed):
                await one.frame()


# -------------------------------------------------------------------------------------------------------------- master


@pytest.mark.parametrize("simulator", [DhanSimulator, DhanSandboxSimulator])
def test_the_adapter_reads_the_whole_master_as_the_market_is(simulator: type[DhanSimulator]) -> None:
    sim = simulator(symbols=None, seed=1, today=TODAY)
    rows = list(registry.load(sim.slug).parse_instruments(sim.master().encode()))
    listed = [quote for quote in sim.market.quotes if quote.listing.exchange in SEGMENTS]
    assert len(rows) == len(listed) > 200
    for row, quote in zip(rows, listed, strict=True):
        one: Listing = quote.listing
        assert isinstance(row, InstrumentRow)
        assert (row.symbol, row.exchange, row.kind) == (one.symbol, one.exchange, one.kind)
        assert (row.expiry, row.strike) == (one.expiry.isoformat() if one.expiry else "", one.strike)
        assert (row.lot_size, row.tick_size) == (one.lot_size, one.tick_size)
        assert int(row.token) == quote.wire_id >> 4
    assert sim.master("NSE") == ""


# ---------------------------------------------------------------------------------------------- our own connection


class Ticks:
    """A connection of the product to the simulator, and what it heard."""

    def __init__(self, sim: DhanSimulator, feed: Feed, token: str = "demo-token") -> None:
        self.updates: list[Update] = []
        self.connection = Connection(
            f"dhan {feed.kind} 0",
            Route(registry.load(sim.slug), feed, sim.credentials("demo", token), sim.url),
            feed.limits,
            deliver=self._deliver,
            on_change=lambda: None,
            on_lost=lambda tokens: None,
            counters=Counters(),
            chance=lambda: 0.0,
        )

    def _deliver(self, updates: Collection[Update], received_ms: int) -> None:
        self.updates += updates

    def of(self, token: Token, mode: Mode) -> list[Update]:
        return [update for update in self.updates if update.token == token and update.mode is mode]


@asynccontextmanager
async def ticking(sim: DhanSimulator, feed: Feed, token: str = "demo-token") -> AsyncIterator[Ticks]:
    ticks = Ticks(sim, feed, token)
    task = asyncio.create_task(ticks.connection.run())
    try:
        yield ticks
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=3)
        assert task.done()


def token_of(sim: DhanSimulator, name: str) -> Token:
    rows = {
        f"{row.exchange}:{row.symbol}": Token(row.segment, row.token)
        for row in ADAPTER.parse_instruments(sim.master().encode())
        if isinstance(row, InstrumentRow)
    }
    return rows[name]


@pytest.mark.parametrize("simulator", [DhanSimulator, DhanSandboxSimulator])
async def test_our_connection_gets_ticks_in_every_mode(simulator: type[DhanSimulator]) -> None:
    async with simulator(rate=200, symbols=None, seed=1, today=TODAY) as sim:
        sbin, nifty = token_of(sim, "NSE:SBIN"), token_of(sim, "NSE_INDEX:NIFTY")
        for feed in registry.load(sim.slug).spec.feeds:
            async with ticking(sim, feed) as ticks:
                for mode in feed.modes:
                    ticks.connection.want(sbin, mode)
                    await until(lambda mode=mode, ticks=ticks: len(ticks.of(sbin, mode)) > 3, f"ticks in {mode}")
                    assert sim.subscribed()["NSE:SBIN"] == [
                        {Mode.LTP: "ticker", Mode.QUOTE: "quote", Mode.DEPTH: "full"}.get(mode, feed.kind)
                    ]
                    last = ticks.of(sbin, mode)[-1]
                    assert (last.depth is not None) == (mode >= Mode.DEPTH)
                    if last.depth is not None:
                        assert len(last.depth.buy) == len(last.depth.sell) == mode.depth_levels
                if feed.kind == "market":
                    ticks.connection.want(nifty, Mode.DEPTH)
                    await until(lambda ticks=ticks: len(ticks.of(nifty, Mode.DEPTH)) > 3, "ticks of an index")
                    ticks.connection.want(nifty, None)
                ticks.connection.want(sbin, None)
                await until(lambda: not sim.subscribed(), "nothing subscribed")


async def test_our_connection_tells_an_expired_token_from_a_missing_plan() -> None:
    async with quiet() as sim:
        await sim.expire()
        async with ticking(sim, MARKET) as ticks:
            await until(lambda: ticks.connection.condition.state is FeedState.TOKEN_EXPIRED, "the state")
        sim.set_token("demo-token")
        sim.without_plan.add("demo")
        async with ticking(sim, DEPTH20) as ticks:
            await until(lambda: ticks.connection.condition.state is FeedState.NOT_ENTITLED, "the state")
        assert sim.stats()["refused_logins"] == 2
