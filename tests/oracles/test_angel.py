"""
The same bytes through SmartApi's parser and through our decoder give the same values; and its streaming client,
unmodified but for its address, gets what our simulator sends.

Frames are generated, of every mode and exchange. Where the two differ on purpose a test below says so.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.adapters.angel import codec
from brokers.contract import DecodeError, Update
from brokers.simulators.angel import AngelSimulator
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN
from marketdata.ticks import Level
from tests.brokers.feed.bench import until
from tests.oracles.oracle import Oracle, OracleError

ONCE = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EXCHANGES = st.sampled_from(sorted(codec.SEGMENTS))
I64 = st.one_of(st.integers(0, 10**7), st.integers(-(2**63), 2**63 - 1))
I32 = st.one_of(st.integers(0, 10**6), st.integers(-(2**31), 2**31 - 1))
I16 = st.integers(-(2**15), 2**15 - 1)
U16 = st.integers(0, 2**16 - 1)
TOTALS = st.one_of(st.just(0.0), st.integers(0, 2**53 - 1).map(float))
INSTANTS_MS = st.integers(1, 4_102_444_799_999)
INSTANTS_S = st.integers(1, 4_102_444_799)
DIGITS = st.text("0123456789", min_size=1, max_size=25).filter(lambda text: not codec.is_index(text))
INDICES = st.integers(99_900_000, 99_999_999).map(str)
SIDES = st.sampled_from([0, 1, 1, 7])


def head(mode: int, exchange: int, token: str) -> bytes:
    return bytes([mode, exchange]) + token.encode().ljust(25, b"\0")


@st.composite
def ltp_packets(draw: st.DrawFn, mode: int = 1, tokens: st.SearchStrategy[str] = DIGITS) -> bytes:
    return head(mode, draw(EXCHANGES), draw(tokens)) + struct.pack("<qqq", draw(I64), draw(INSTANTS_MS), draw(I64))


@st.composite
def quote_packets(draw: st.DrawFn, mode: int = 2, tokens: st.SearchStrategy[str] = DIGITS) -> bytes:
    first, totals, prices = ([draw(each) for each in kind] for kind in ([I64] * 3, [TOTALS] * 2, [I64] * 4))
    return draw(ltp_packets(mode, tokens)) + struct.pack("<qqqddqqqq", *first, *totals, *prices)


@st.composite
def snap_packets(draw: st.DrawFn, tokens: st.SearchStrategy[str] = DIGITS) -> bytes:
    rows = b"".join(struct.pack("<hqqH", draw(SIDES), draw(I64), draw(I64), draw(U16)) for _ in range(10))
    interest = struct.pack("<qqd", draw(INSTANTS_S), draw(I64), draw(st.floats()))
    return draw(quote_packets(3, tokens)) + interest + rows + struct.pack("<4q", *(draw(I64) for _ in range(4)))


@st.composite
def book_packets(draw: st.DrawFn) -> bytes:
    rows = b"".join(struct.pack("<iih", draw(I32), draw(I32), draw(I16)) for _ in range(40))
    return head(4, 1, draw(DIGITS)) + struct.pack("<qq", draw(INSTANTS_MS), draw(I64)) + rows


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """The SDK, once for all frames."""
    angel = Oracle("angel")
    yield angel
    angel.close()


# ------------------------------------------------------------------------------------------- the SDK's words, in ours


def theirs(packet: dict[str, Any]) -> dict[str, Any]:
    """The SDK's integers as an update's fields; prices divided, its dummies and the year's range left out."""
    divisor = 10_000_000 if packet["exchange_type"] == 13 else 100
    prices = {
        "ltp": "last_traded_price", "average_price": "average_traded_price", "open": "open_price_of_the_day",
        "high": "high_price_of_the_day", "low": "low_price_of_the_day", "close": "closed_price",
        "upper_circuit": "upper_circuit_limit", "lower_circuit": "lower_circuit_limit",
    }  # fmt: skip
    numbers = {
        "ltq": "last_traded_quantity", "volume": "volume_trade_for_the_day", "total_buy_quantity": "total_buy_quantity",
        "total_sell_quantity": "total_sell_quantity", "exchange_ms": "exchange_timestamp",
    }  # fmt: skip
    fields = {ours: packet[name] / divisor for ours, name in prices.items() if name in packet}
    fields |= {ours: packet[name] for ours, name in numbers.items() if name in packet}
    if "last_traded_timestamp" in packet:
        fields["last_trade_ms"] = packet["last_traded_timestamp"] * 1000
        fields["buy"], fields["sell"] = (
            [(row["price"] / divisor, row["quantity"], row["no of orders"]) for row in packet[f"best_5_{side}_data"]]
            for side in ("buy", "sell")
        )
    if packet["exchange_type"] not in {1, 3} and "open_interest" in packet:
        fields["oi"] = packet["open_interest"]
    return fields | {"token": packet["token"], "mode": packet["subscription_mode"]}


def ours(update: Update) -> dict[str, Any]:
    """Our update's fields that are there."""
    fields = {
        name: getattr(update, name) for name in update.__struct_fields__ if name not in {"token", "depth", "mode"}
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    if update.depth is not None:
        fields |= {"buy": plain(update.depth.buy), "sell": plain(update.depth.sell)}
    assert update.mode is not None
    return fields | {"token": update.token.number, "mode": {1: 1, 2: 2, 5: 3, 20: 4}[update.mode]}


def plain(levels: tuple[Level, ...]) -> list[tuple[float, int, int]]:
    return [(level.price, level.quantity, level.orders) for level in levels]


# ---------------------------------------------------------------------------------------------------------------- tests


@given(st.one_of(ltp_packets(), quote_packets(), snap_packets()))
@ONCE
def test_every_field_of_every_price_packet_is_what_the_sdk_reads(oracle: Oracle, frame: bytes) -> None:
    [packet] = oracle.parse(frame)
    assert ours(codec.decode(frame)) == theirs(packet)


@given(st.one_of(ltp_packets(tokens=INDICES), quote_packets(tokens=INDICES), snap_packets(INDICES)))
@ONCE
def test_an_index_has_the_sdks_prices_and_nothing_of_what_is_no_price(oracle: Oracle, frame: bytes) -> None:
    """The documentation calls the rest of an index's packet meaningless; the SDK hands it on."""
    [packet] = oracle.parse(frame)
    kept = {"token", "mode", "ltp", "open", "high", "low", "close", "exchange_ms"}
    assert ours(codec.decode(frame)) == {name: value for name, value in theirs(packet).items() if name in kept}


@given(book_packets())
@ONCE
def test_every_row_of_a_deep_book_is_what_the_sdk_reads_and_its_instant_is_the_documented_one(
    oracle: Oracle, frame: bytes
) -> None:
    """
    The documentation puts the exchange's time at byte 27, and at 35 a time of receipt that is a dummy. The SDK reads
    byte 35 under both names.
    """
    [packet] = oracle.parse(frame)
    update = codec.decode(frame)
    assert update.depth is not None
    for side, levels in (("buy", update.depth.buy), ("sell", update.depth.sell)):
        rows = packet[f"depth_20_{side}_data"]
        assert plain(levels) == [(row["price"] / 100, row["quantity"], row["num_of_orders"]) for row in rows]
    at_27, at_35 = struct.unpack_from("<qq", frame, 27)
    assert update.exchange_ms == at_27
    assert packet["exchange_timestamp"] == packet["packet_received_time"] == at_35


def test_the_change_of_interest_is_a_double_that_the_sdk_reads_as_an_integer(oracle: Oracle) -> None:
    """It is documented as a dummy, and no field of ours."""
    frame = head(3, 2, "53590").ljust(139, b"\0") + struct.pack("<d", 1.0)
    assert oracle.parse(frame.ljust(379, b"\0"))[0]["open_interest_change_percentage"] == 0x3FF0_0000_0000_0000


@pytest.mark.parametrize("size", [50, 122, 378, 442])
def test_a_packet_cut_short_is_damage_to_both(oracle: Oracle, size: int) -> None:
    mode = {50: 1, 122: 2, 378: 3, 442: 4}[size]
    frame = head(mode, 1, "3045").ljust(size, b"\0")
    with pytest.raises(OracleError):
        oracle.parse(frame)
    with pytest.raises(DecodeError):
        codec.decode(frame)


def test_an_unknown_mode_or_exchange_is_damage_here_and_a_price_there(oracle: Oracle) -> None:
    """The documentation knows four modes and seven exchange types; the SDK looks at neither."""
    for frame in (head(9, 1, "3045"), head(1, 6, "3045")):
        assert oracle.parse(frame.ljust(51, b"\0"))[0]["token"] == "3045"
        with pytest.raises(DecodeError, match="unknown"):
            codec.decode(frame.ljust(51, b"\0"))


async def test_the_sdks_client_streams_from_the_simulator(oracle: Oracle) -> None:
    async with AngelSimulator(rate=200, symbols=5, seed=1) as sim:
        order = {
            "url": f"{sim.url}/smart-stream",
            "credentials": sim.credentials(DEMO_KEY, DEMO_TOKEN),
            "tokens": [{"exchangeType": 1, "tokens": ["3045", "2885"]}],
            "modes": [1, 2, 3, 4],
        }
        done = await asyncio.to_thread(oracle.ask, json.dumps(order))
        assert done["errors"] == []
        await until(lambda: sim.entries("disconnect"), "the end of the client")
        assert sim.stats()["errors"] == 0
        assert len(sim.entries("unsubscribe")) == 1
        quote = sim.market.find("SBIN")
        assert {packet["subscription_mode"] for packet in done["data"]} == {1, 2, 3, 4}
        assert {packet["token"] for packet in done["data"]} == {"3045", "2885"}
        snaps = [packet for packet in done["data"] if packet["subscription_mode"] == 3 and packet["token"] == "3045"]
        assert {packet["closed_price"] for packet in snaps} == {quote.close}
        assert all(quote.low <= packet["last_traded_price"] <= quote.high for packet in snaps)
        assert {len(packet[f"best_5_{side}_data"]) for packet in snaps for side in ("buy", "sell")} == {5}


async def test_the_sdks_client_is_refused_with_a_wrong_token(oracle: Oracle) -> None:
    async with AngelSimulator(rate=0, symbols=5, seed=1) as sim:
        credentials = sim.credentials(DEMO_KEY, "wrong")
        order = {"url": f"{sim.url}/smart-stream", "credentials": credentials, "tokens": [], "modes": []}
        done = await asyncio.to_thread(oracle.ask, json.dumps(order))
        assert set(done["errors"]) == {"Max retry attempt reached: Connection closed"}
        assert done["data"] == []
        assert sim.stats()["refused_logins"] == 1
