"""Throttling as promised: at most one per window, never the last one lost, every tick accounted for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from marketdata.conflation import Conflator

GAPS_MS = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 80)), max_size=200)


def run(window_ms: float, gaps: list[tuple[bytes, int]]) -> dict[bytes, list[tuple[float, int, int]]]:
    """Offers numbered messages with these pauses between them; returns per key (time, number, conflated) as sent."""
    conflator = Conflator[int](window_ms)
    sent: dict[bytes, list[tuple[float, int, int]]] = {}
    now_ms = 0.0
    for number, (key, gap_ms) in enumerate(gaps):
        for _ in range(gap_ms):
            now_ms += 1
            for due in conflator.due(now_ms):
                sent.setdefault(due.key, []).append((now_ms, due.message, due.conflated))
        if conflator.offer(key, number, now_ms):
            sent.setdefault(key, []).append((now_ms, number, 0))
    while (next_ms := conflator.next_due_ms()) is not None:
        for due in conflator.due(next_ms):
            sent.setdefault(due.key, []).append((next_ms, due.message, due.conflated))
    return sent


@given(GAPS_MS)
def test_the_last_message_of_every_key_is_sent(gaps: list[tuple[bytes, int]]) -> None:
    sent = run(50, gaps)
    last = {key: number for number, (key, _) in enumerate(gaps)}
    assert {key: rows[-1][1] for key, rows in sent.items()} == last


@given(GAPS_MS)
def test_every_message_is_sent_or_counted(gaps: list[tuple[bytes, int]]) -> None:
    sent = run(50, gaps)
    for key in {key for key, _ in gaps}:
        offered = sum(1 for other, _ in gaps if other == key)
        assert sum(1 + conflated for _, _, conflated in sent[key]) == offered


@given(GAPS_MS)
def test_two_messages_of_a_key_are_a_window_apart(gaps: list[tuple[bytes, int]]) -> None:
    for rows in run(50, gaps).values():
        times_ms = [time_ms for time_ms, _, _ in rows]
        assert all(later - earlier >= 50 for earlier, later in itertools.pairwise(times_ms))


@given(GAPS_MS)
def test_messages_of_a_key_keep_their_order(gaps: list[tuple[bytes, int]]) -> None:
    for rows in run(50, gaps).values():
        numbers = [number for _, number, _ in rows]
        assert numbers == sorted(numbers)


@given(GAPS_MS)
def test_a_window_of_zero_lets_everything_through(gaps: list[tuple[bytes, int]]) -> None:
    sent = run(0, gaps)
    assert sum(len(rows) for rows in sent.values()) == len(gaps)


def test_a_tick_after_a_quiet_window_waits_for_nothing() -> None:
    conflator = Conflator[str](50)
    assert conflator.offer(b"k", "one", 0)
    assert conflator.due(50) == []
    assert conflator.offer(b"k", "two", 51)


def test_a_quiet_key_costs_no_memory() -> None:
    conflator = Conflator[str](50)
    for number in range(1000):
        conflator.offer(b"%d" % number, "tick", 0)
    conflator.due(50)
    assert conflator.next_due_ms() is None
