"""
The same bytes through kiteconnect's `KiteTicker._parse_binary` and through our decoder give the same values.

Frames are generated, of every packet kind and segment, several packets a frame. Where the two differ on purpose a test
below says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.adapters.zerodha import codec
from brokers.contract import DecodeError, Update
from tests.oracles.oracle import Oracle, OracleError

SEGMENTS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 12])
PRICES = st.integers(1, 2**31 - 1)
UNITS = st.integers(0, 2**32 - 1)
SECONDS = st.integers(1, 2**31 - 1)
CODES = st.integers(1, 2**24 - 1)


def packed(*packets: bytes) -> bytes:
    """Packets as one frame."""
    return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(one)) + one for one in packets)


@st.composite
def ltp_packets(draw: st.DrawFn) -> bytes:
    return struct.pack(">Ii", draw(CODES) << 8 | draw(st.one_of(SEGMENTS, st.just(9))), draw(PRICES))


@st.composite
def index_packets(draw: st.DrawFn) -> bytes:
    prices = [draw(PRICES) for _ in range(5)]
    packet = struct.pack(">I5ii", draw(CODES) << 8 | 9, *prices, draw(st.integers(-(2**31), 2**31 - 1)))
    return packet + struct.pack(">I", draw(SECONDS)) if draw(st.booleans()) else packet


@st.composite
def quote_packets(draw: st.DrawFn) -> bytes:
    fields = [draw(PRICES), draw(UNITS), draw(PRICES), draw(UNITS), draw(UNITS), draw(UNITS)]
    return struct.pack(">IiIiIII4i", draw(CODES) << 8 | draw(SEGMENTS), *fields, *(draw(PRICES) for _ in range(4)))


@st.composite
def full_packets(draw: st.DrawFn) -> bytes:
    tail = struct.pack(">5I", draw(SECONDS), draw(UNITS), draw(UNITS), draw(UNITS), draw(SECONDS))
    rows = b"".join(
        struct.pack(">IiHH", draw(UNITS), draw(PRICES), draw(st.integers(0, 65535)), draw(st.integers(0, 65535)))
        for _ in range(10)
    )
    return draw(quote_packets()) + tail + rows


PACKETS = st.one_of(ltp_packets(), index_packets(), quote_packets(), full_packets())


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """The SDK, once for all frames."""
    kite = Oracle("zerodha")
    yield kite
    kite.close()


def ours(frame: bytes) -> list[dict[str, Any]]:
    """Our updates in the SDK's words."""
    return [as_kite(update) for update in codec.decode(frame) if isinstance(update, Update)]


def as_kite(update: Update) -> dict[str, Any]:
    """One update under the names that kiteconnect uses."""
    packet: dict[str, Any] = {"instrument_token": int(update.token.number), "last_price": update.ltp}
    named = {
        "last_traded_quantity": update.ltq,
        "average_traded_price": update.average_price,
        "volume_traded": update.volume,
        "total_buy_quantity": update.total_buy_quantity,
        "total_sell_quantity": update.total_sell_quantity,
        "oi": update.oi,
        "last_trade_time": update.last_trade_ms and update.last_trade_ms // 1000,
        "exchange_timestamp": update.exchange_ms and update.exchange_ms // 1000,
    }
    packet |= {name: value for name, value in named.items() if value is not None}
    if update.open is not None:
        packet["ohlc"] = {"open": update.open, "high": update.high, "low": update.low, "close": update.close}
    if update.depth is not None:
        packet["depth"] = {
            side: [{"quantity": one.quantity, "price": one.price, "orders": one.orders} for one in levels]
            for side, levels in (("buy", update.depth.buy), ("sell", update.depth.sell))
        }
    return packet


def theirs(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The SDK's packets without what it derives (change), knows of us (mode, tradable), or we leave out (OI's day)."""
    left_out = {"change", "mode", "tradable", "oi_day_high", "oi_day_low"}
    return [{name: value for name, value in packet.items() if name not in left_out} for packet in packets]


@given(st.lists(PACKETS, min_size=1, max_size=6))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_field_of_every_packet_is_what_the_sdk_reads(oracle: Oracle, packets: list[bytes]) -> None:
    frame = packed(*packets)
    assert ours(frame) == theirs(oracle.parse(frame))


ODD_PACKETS = (
    st.integers(9, 200)
    .filter(lambda size: size not in {28, 32, 44, 184})
    .flatmap(lambda size: st.binary(min_size=size, max_size=size))
)


@given(ODD_PACKETS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packets_of_other_lengths_are_passed_over_by_both(oracle: Oracle, packet: bytes) -> None:
    known = packet[:3] + b"\x01" + packet[4:]
    assert ours(packed(known)) == theirs(oracle.parse(packed(known))) == []


def test_no_time_is_absent_here_and_none_there(oracle: Oracle) -> None:
    packet = struct.pack(">IiIiIII4i", 408065, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1) + bytes(20 + 120)
    [kite] = oracle.parse(packed(packet))
    [update] = codec.decode(packed(packet))
    assert isinstance(update, Update)
    assert (kite["last_trade_time"], update.last_trade_ms) in ((None, None), (0, None))


def test_a_frame_cut_short_keeps_its_good_packets_and_is_named_as_damaged_here(oracle: Oracle) -> None:
    """The SDK passes over a packet cut in its body without a word, and raises for one cut in its length."""
    good = struct.pack(">Ii", 408065, 12345)
    for cut in (3, 9):
        frame = packed(good, good)[:-cut]
        with pytest.raises(DecodeError) as damage:
            codec.decode(frame)
        assert len(damage.value.events) == 1
    assert len(oracle.parse(packed(good, good)[:-3])) == 1
    with pytest.raises(OracleError):
        oracle.parse(packed(good, good)[:-9])


def test_a_negative_price_is_read_as_signed_here_and_as_huge_there(oracle: Oracle) -> None:
    """The documentation calls every field int32; the SDK reads unsigned. A commodity's price can be below zero."""
    frame = packed(struct.pack(">Ii", 55047 << 8 | 7, -3712))
    [update] = codec.decode(frame)
    assert isinstance(update, Update)
    assert update.ltp == -37.12
    assert oracle.parse(frame)[0]["last_price"] == (2**32 - 3712) / 100
