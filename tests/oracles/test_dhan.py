"""
The same bytes through dhanhq's parsers and through our decoders give the same values; and its clients, against our
simulator, get what the simulator sends.

Frames are generated, of every packet kind. Where the two differ on purpose a test below says so.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.contract import Notice, Update
from brokers.families.dhan import market
from brokers.families.dhan.depth import Depth20Session, Depth200Session
from brokers.simulators.dhan import DhanSimulator
from tests.oracles.oracle import Oracle

MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CODES = {segment: number for number, segment in market.SEGMENTS.items()}
TWO_DECIMALS = st.sampled_from([0, 1, 2, 4, 5, 8])
IDS = st.integers(1, 2**31 - 1)
U32 = st.one_of(st.integers(0, 10**6), st.integers(0, 2**32 - 1), st.just(2**32 - 1))
U16 = st.integers(0, 65535)
SECONDS = st.integers(19801, 2**32 - 1)
F32 = st.one_of(
    st.integers(0, 10**7).map(lambda paise: paise / 100), st.floats(width=32, allow_nan=False, allow_infinity=False)
)
F64 = st.one_of(st.integers(0, 10**9).map(lambda paise: paise / 100), st.floats(-1e9, 1e9))
ROWS5 = st.lists(st.tuples(U32, U32, U16, U16, F32, F32), min_size=5, max_size=5)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """The SDK, once for all frames."""
    dhan = Oracle("dhan")
    yield dhan
    dhan.close()


# --------------------------------------------------------------------------------------------------------- market feed


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """A packet of any kind, of a segment whose prices have two decimals."""
    code, segment, number = draw(st.sampled_from([2, 3, 4, 5, 6, 8])), draw(TWO_DECIMALS), draw(IDS)
    prices = [draw(F32) for _ in range(6)]
    trades = struct.pack("<fHIfIII", prices[0], draw(U16), draw(SECONDS), prices[1], draw(U32), draw(U32), draw(U32))
    rows = b"".join(struct.pack("<IIHHff", *row) for row in draw(ROWS5))
    body = {
        2: struct.pack("<fI", prices[0], draw(SECONDS)),
        3: struct.pack("<f", prices[0]) + rows,
        4: trades + struct.pack("<ffff", *prices[2:]),
        5: struct.pack("<I", draw(U32)),
        6: struct.pack("<fI", prices[0], draw(U32)),
        8: trades + struct.pack("<III", draw(U32), draw(U32), draw(U32)) + struct.pack("<ffff", *prices[2:]) + rows,
    }[code]
    return struct.pack("<BHBI", code, 8 + len(body), segment, number) + body


def as_dhan(update: Update) -> dict[str, Any]:
    """An update under the names that dhanhq uses; prices as numbers, what is absent left out."""
    found = {
        "exchange_segment": CODES[update.token.segment],
        "security_id": int(update.token.number),
        "LTP": update.ltp,
        "LTQ": update.ltq,
        "LTT": None if update.last_trade_ms is None else clock(update.last_trade_ms),
        "avg_price": update.average_price,
        "volume": update.volume,
        "total_sell_quantity": update.total_sell_quantity,
        "total_buy_quantity": update.total_buy_quantity,
        "OI": update.oi,
        "open": update.open,
        "close": update.close if update.ltp is not None else None,
        "prev_close": update.close if update.ltp is None else None,
        "high": update.high,
        "low": update.low,
    }
    if update.depth is not None:
        found["depth"] = [
            {
                "bid_quantity": bid.quantity,
                "ask_quantity": ask.quantity,
                "bid_orders": bid.orders,
                "ask_orders": ask.orders,
                "bid_price": bid.price,
                "ask_price": ask.price,
            }
            for bid, ask in zip(update.depth.buy, update.depth.sell, strict=True)
        ]
    return {name: value for name, value in found.items() if value is not None}


def clock(instant_ms: int) -> str:
    """India's time of day, which is what the SDK prints."""
    return (dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=instant_ms, hours=5, minutes=30)).strftime("%H:%M:%S")


def theirs(packet: dict[str, Any]) -> dict[str, Any]:
    """The SDK's packet with its texts of prices as numbers, without what we leave out."""
    left_out = {"type", "prev_OI", "oi_day_high", "oi_day_low"}
    found = {name: number(name, value) for name, value in packet.items() if name not in left_out}
    if "depth" in packet:
        found["depth"] = [{name: number(name, value) for name, value in row.items()} for row in packet["depth"]]
    return found


def number(name: str, value: Any) -> Any:
    if name == "LTT" or isinstance(value, int | list):
        return value
    return float(value) if isinstance(value, str) else float(f"{value:.2f}")  # packet 3's last price is not rounded


@given(packets())
@MANY
def test_every_field_of_every_packet_is_what_the_sdk_reads(oracle: Oracle, packet: bytes) -> None:
    [update] = market.decode(packet)
    [dhan] = oracle.ask(f"market {packet.hex()}")["packets"]
    assert isinstance(update, Update)
    assert as_dhan(update) == theirs(dhan)


@pytest.mark.parametrize(("segment", "price"), [(3, 87.9125), (7, 102.4425)])
def test_a_currency_has_four_decimals_here_and_two_there(oracle: Oracle, segment: int, price: float) -> None:
    """NSE's and BSE's currencies trade in steps of 0.0025 rupees; the SDK prints every price with two decimals."""
    packet = struct.pack("<BHBIfI", 2, 16, segment, 1229, price, 1713540596)
    [update] = market.decode(packet)
    assert isinstance(update, Update)
    assert update.ltp == price
    assert oracle.ask(f"market {packet.hex()}")["packets"][0]["LTP"] == f"{price:.2f}"


def test_of_a_frame_with_two_packets_the_sdk_reads_the_first(oracle: Oracle) -> None:
    packet = struct.pack("<BHBIfI", 2, 16, 1, 1333, 1656.0, 1713540596)
    assert len(oracle.ask(f"market {(packet * 2).hex()}")["packets"]) == 1
    assert len(market.decode(packet * 2)) == 2


def test_a_market_status_has_no_content_here_and_a_fixed_text_there(oracle: Oracle) -> None:
    """The documentation gives packet 7 a header and nothing else."""
    packet = struct.pack("<BHBI", 7, 8, 1, 0)
    assert oracle.ask(f"market {packet.hex()}")["packets"] == ["Markets Open"]
    assert market.decode(packet) == []


@pytest.mark.parametrize(
    ("reason", "there", "here"),
    [
        (805, "No. of active websocket connections exceeded", "more connections"),
        (806, "Subscribe to Data APIs", "no Data API plan"),
        (807, "Access Token is expired", "expired"),
        (808, "Invalid Client ID", "the client ID or the access token is wrong"),
        (809, "Authentication Failed", "the access token is invalid"),
    ],
)
def test_a_disconnect_has_the_annexures_reason(oracle: Oracle, reason: int, there: str, here: str) -> None:
    """
    808 and 809 are "Authentication Failed" and "Access token is invalid" in the documentation's annexure (Data API
    Error, https://dhanhq.co/docs/v2/annexure/); the SDK prints them otherwise. All of them end a login either way.
    """
    packet = struct.pack("<BHBIH", 50, 10, 0, 0, reason)
    [notice] = market.decode(packet)
    assert isinstance(notice, Notice)
    assert here in notice.text
    assert there in oracle.ask(f"market {packet.hex()}")["said"]


# --------------------------------------------------------------------------------------------------------------- depth


@st.composite
def sides(draw: st.DrawFn, levels: int) -> tuple[bytes, bytes]:
    """The bid and the ask packet of an instrument; for 200 levels with rows that its header may not count right."""
    number, segment = draw(IDS), draw(st.sampled_from([1, 2]))
    made = []
    for code in (41, 51):
        count = levels if levels == 20 else draw(st.integers(0, 40) | st.just(200))
        rows = [(draw(F64), draw(U32), draw(U32)) for _ in range(min(count, 12))]
        body = b"".join(struct.pack("<dII", *rows[place % len(rows)]) for place in range(count))
        word = draw(U32) if levels == 20 else draw(st.just(count) | st.integers(0, 300))
        made.append(struct.pack("<HBBII", 12 + len(body), code, segment, number, word) + body)
    return made[0], made[1]


@pytest.mark.parametrize("levels", [20, 200])
@given(data=st.data())
@settings(MANY, max_examples=150)
def test_every_row_of_a_book_is_what_the_sdk_reads(oracle: Oracle, levels: int, data: st.DataObject) -> None:
    frame = b"".join(data.draw(sides(levels)))
    bids, asks = oracle.ask(f"depth{levels} {frame.hex()}")["packets"]
    [update] = (Depth20Session() if levels == 20 else Depth200Session()).decode(frame)
    assert isinstance(update, Update)
    assert update.depth is not None
    for side, ours in ((bids, update.depth.buy), (asks, update.depth.sell)):
        assert (side["exchange_segment"], side["security_id"]) == (
            CODES[update.token.segment],
            int(update.token.number),
        )
        assert [(row["price"], row["quantity"], row["orders"]) for row in side["depth"]] == [
            (level.price, level.quantity, level.orders) for level in ours
        ]


def test_the_reason_of_a_depth_disconnect_is_behind_the_header_here_and_in_it_there(oracle: Oracle) -> None:
    """
    "Feed Disconnect" of https://dhanhq.co/docs/v2/full-market-depth/ has the code in bytes 13 and 14, behind a header
    of twelve bytes. The SDK looks at the header's last word, and says nothing of a packet made so.
    """
    documented = struct.pack("<HBBIIH", 14, 50, 0, 0, 0, 807)
    [notice] = Depth20Session().decode(documented)
    assert isinstance(notice, Notice)
    assert "expired" in notice.text
    assert oracle.ask(f"depth20 {documented.hex()}") == {"packets": [None], "said": ""}
    in_header = struct.pack("<HBBIIH", 14, 50, 0, 0, 807, 0)
    assert "expired" in oracle.ask(f"depth20 {in_header.hex()}")["said"]


# ----------------------------------------------------------------------------------------------- the SDK's own clients


def order(sim: DhanSimulator, **rest: object) -> str:
    return json.dumps({"url": sim.url, "client_id": "demo", "token": "demo-token", **rest})


async def test_the_sdks_market_client_gets_ticks_of_every_mode(oracle: Oracle) -> None:
    async with DhanSimulator(rate=0, symbols=None, seed=1, packets_per_frame=1) as sim:
        share, index = sim.market.find("SBIN"), sim.market.find("NIFTY")
        future = next(quote for quote in sim.market.quotes if quote.listing.kind == "FUT")
        instruments = [[0, "13", 15], [2, str(future.listing.code), 17], [1, "3045", 21]]
        answer = await asyncio.to_thread(oracle.ask, order(sim, instruments=instruments, count=7))
        found = {(packet["type"], packet["security_id"]): packet for packet in answer["packets"]}
        assert set(found) == {
            ("Ticker Data", 13),
            ("Quote Data", future.listing.code),
            ("OI Data", future.listing.code),
            ("Full Data", 3045),
            ("Previous Close", 13),
            ("Previous Close", future.listing.code),
            ("Previous Close", 3045),
        }
        assert found["Ticker Data", 13]["LTP"] == f"{index.ltp / 100:.2f}"
        assert found["OI Data", future.listing.code]["OI"] == future.oi
        assert found["Quote Data", future.listing.code]["volume"] == future.volume
        full = found["Full Data", 3045]
        assert (full["LTP"], full["close"]) == (f"{share.ltp / 100:.2f}", f"{share.close / 100:.2f}")
        assert [row["ask_price"] for row in full["depth"]] == [f"{row[0] / 100:.2f}" for row in share.book()[1]]
        assert sim.stats()["errors"] == sim.stats()["limit_violations"] == 0
        assert len(sim.entries("unsubscribe")) == 3


@pytest.mark.parametrize("levels", [20, 200])
async def test_the_sdks_depth_client_gets_a_book(oracle: Oracle, levels: int) -> None:
    async with DhanSimulator(rate=0, symbols=None, seed=1) as sim:
        answer = await asyncio.to_thread(oracle.ask, order(sim, instruments=[[1, "3045"]], levels=levels))
        [book] = answer["packets"]
        assert book["security_id"] == 3045
        assert len(book["depth"]) == levels
        bids, asks = sim.market.find("SBIN").deep_book(levels)
        for line, bid, ask in zip(book["depth"], bids, asks, strict=True):
            assert f"bid : {{price:{bid[0] / 100:.2f}, quantity:{bid[1]}, no_of_orders:{bid[2]}}}" in line
            assert f"ask : {{price:{ask[0] / 100:.2f}, quantity:{ask[1]}, no_of_orders:{ask[2]}}}" in line


async def test_the_sdks_client_is_told_of_a_wrong_token(oracle: Oracle) -> None:
    async with DhanSimulator(rate=0, symbols=10, seed=1) as sim:
        wrong = json.loads(order(sim, instruments=[], count=1)) | {"token": "yesterday's"}
        answer = await asyncio.to_thread(oracle.ask, json.dumps(wrong))
        assert "Disconnected: Authentication Failed" in answer["said"]
