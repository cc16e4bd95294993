"""Ticks cross the bus unchanged, and damage is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata import wire
from marketdata.ticks import Depth, Level, Mode, Tick

PRICE = st.none() | st.floats(allow_nan=False, allow_infinity=False)
UNITS = st.none() | st.integers(0, 2**62)
SIDE = st.lists(st.builds(Level, st.floats(0, 1e6), st.integers(0, 2**40), st.integers(0, 999)), max_size=20).map(tuple)
TICKS = st.builds(
    Tick,
    symbol=st.text(max_size=20),
    exchange=st.just("NSE"),
    mode=st.sampled_from(Mode),
    broker=st.just("zerodha"),
    ltp=st.floats(allow_nan=False, allow_infinity=False),
    received_ms=st.integers(0, 2**50),
    seq=st.integers(0, 2**60),
    open=PRICE,
    close=PRICE,
    volume=UNITS,
    oi=UNITS,
    depth=st.none() | st.builds(Depth, SIDE, SIDE),
    simulated=st.booleans(),
)


@given(TICKS, st.integers(0, 2**40), st.integers(0, 2**31))
def test_a_tick_arrives_as_it_was_sent(tick: Tick, number: int, conflated: int) -> None:
    payload = wire.encode(tick, number=number, epoch_ms=5)
    marked = wire.marked(payload, wire.header(payload), flags=wire.SNAPSHOT, conflated=conflated)
    assert wire.decode(payload) == wire.Delivery(tick, 0, False, False, 5)
    assert wire.decode(marked) == wire.Delivery(tick, conflated, True, False, 5)
    assert wire.header(marked).number == number


@given(st.binary(max_size=80))
def test_bytes_that_are_no_payload_are_a_wire_error_or_a_tick(junk: bytes) -> None:
    try:
        wire.decode(junk)
    except wire.WireError:
        return
    assert junk[0] == wire.VERSION


def test_another_version_says_what_to_do() -> None:
    payload = b"\x09" + bytes(60)
    with pytest.raises(wire.WireError, match="restart all processes"):
        wire.header(payload)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_packed_payloads_come_apart_again(payloads: list[bytes]) -> None:
    assert list(wire.unpack(wire.pack(payloads))) == payloads
