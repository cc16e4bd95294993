"""The load generator counts right: whatever the kernel cuts, and whatever is missing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from bench.load import OVERLAP_BYTES, PRICE, QUANTITY, Checker, Reader, Report
from marketdata.dialects.native import NATIVE
from marketdata.frames import frame_of
from marketdata.ticks import Mode, Tick
from marketdata.wire import Delivery
from tests.conftest import PROJECT

NOW_MS = 1_764_000_000_000


def tick(seq: int, *, conflated: int = 0, symbol: str = "SIM0001", ltp: float = 625.5) -> bytes:
    """A frame as the product sends it."""
    made = Tick(
        symbol=symbol,
        exchange="NSE",
        mode=Mode.LTP,
        broker="zerodha",
        ltp=ltp,
        seq=seq,
        received_ms=NOW_MS,
        simulated=True,
    )
    return frame_of(NATIVE.tick(Delivery(made, conflated, snapshot=False, stale=False, epoch_ms=0)))


def feed(reader: Reader, data: bytes, sizes: list[int]) -> None:
    """Hands it the bytes in pieces of these sizes, over and over."""
    at, turn = 0, 0
    while at < len(data):
        piece = data[at : at + sizes[turn % len(sizes)]]
        reader.received(bytearray(OVERLAP_BYTES) + bytearray(piece), OVERLAP_BYTES + len(piece))
        at, turn = at + len(piece), turn + 1


def check(report: Report, data: bytes, sizes: list[int]) -> None:
    """What a checking client makes of it."""
    with socket.socket() as nothing:
        checker = Checker(0, nothing, report, PRICE)
        feed(checker, data, sizes)
    checker.analyse()


@pytest.fixture
def report() -> Report:
    return Report()


@pytest.mark.parametrize("sizes", [[10_000], [1], [7, 190], [3, 5, 1000], [16], [15], [17]])
def test_every_tick_is_counted_once_wherever_it_is_cut(report: Report, sizes: list[int]) -> None:
    lagging = frame_of(NATIVE.lagging(120, 1) or b"")
    data = b"".join(tick(seq) for seq in range(1, 21)) + lagging + tick(141)
    with socket.socket() as nothing:
        feed(Reader(0, nothing, report), data, sizes)
    assert (report.delivered, report.merged, report.received_bytes) == (21, 120, len(data))


@pytest.mark.parametrize("sizes", [[10_000], [50, 200], [1]])
def test_a_checking_client_counts_the_same(report: Report, sizes: list[int]) -> None:
    lagging = frame_of(NATIVE.lagging(120, 1) or b"")
    data = b"".join(tick(seq) for seq in range(1, 21)) + lagging + tick(141)
    check(report, data, sizes)
    assert (report.delivered, report.checked, report.merged, report.gaps, report.missing) == (21, 21, 120, 0, 0)


def test_a_missing_tick_is_a_gap_and_a_conflated_one_is_none(report: Report) -> None:
    data = tick(1) + tick(2) + tick(4) + tick(9, conflated=4) + tick(1, symbol="SIM0002")
    check(report, data, [10_000])
    assert (report.gaps, report.missing, report.conflated, report.delivered) == (1, 1, 4, 5)


def test_a_stamp_tells_its_age_also_after_its_bits_ran_over() -> None:
    assert PRICE.age_us((1 << 24) - 1, 50) == 60
    assert QUANTITY.age_us(123, (1 << 32) + 223) == 100


def test_commands_that_come_at_once_are_all_obeyed() -> None:
    plan = json.dumps({"url": "ws://127.0.0.1:1/", "protocol": "list", "clients": []})
    load = subprocess.Popen(
        [sys.executable, "-m", "bench.load"], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert load.stdin is not None
    assert load.stdout is not None
    load.stdin.write(plan + "\n")
    load.stdin.flush()
    assert json.loads(load.stdout.readline()) == {"ready": 0, "acks": 0}
    load.stdin.write("phase\nphase\nreport\n")
    load.stdin.flush()
    assert len(json.loads(load.stdout.readline())) == 3
    load.stdin.close()
    assert load.wait(10) == 0
    load.stdout.close()
