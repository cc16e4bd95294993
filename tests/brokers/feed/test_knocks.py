"""How often an account may knock: a model that counts every window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokers.feed.knocks import DENIED_FIRST_MS, DENIED_MOST_MS, MINUTE_MS, WINDOWS_MS, Knocks


@given(gaps=st.lists(st.integers(0, 90_000), max_size=200), burst=st.integers(1, 12))
def test_no_window_ever_holds_more_than_it_may(gaps: list[int], burst: int) -> None:
    knocks, now_ms, made = Knocks(burst), 0, list[int]()
    for gap_ms in gaps:
        now_ms = knocks.next_ms(now_ms + gap_ms)
        knocks.add(now_ms)
        made.append(now_ms)
    for window_ms, times in WINDOWS_MS:
        for start_ms in made:
            assert sum(start_ms <= at_ms < start_ms + window_ms for at_ms in made) <= burst * times


def test_within_the_burst_nobody_waits() -> None:
    knocks = Knocks(10)
    for _ in range(10):
        assert knocks.next_ms(1000) == 1000
        knocks.add(1000)
    assert knocks.next_ms(1000) == 1000 + MINUTE_MS


def test_what_was_before_a_restart_counts() -> None:
    assert Knocks(2, [5000, 1000]).next_ms(6000) == 1000 + MINUTE_MS


def test_after_too_many_the_waits_rise_and_one_that_is_let_in_ends_them() -> None:
    knocks = Knocks(10)
    for wait_ms in (DENIED_FIRST_MS, 2 * DENIED_FIRST_MS, 4 * DENIED_FIRST_MS):
        knocks.denied(0)
        assert knocks.next_ms(0) == wait_ms
    for _ in range(20):
        knocks.denied(0)
    assert knocks.next_ms(0) == DENIED_MOST_MS
    knocks.let_in()
    assert knocks.next_ms(0) == 0


def test_a_clock_that_was_wrong_costs_minutes_not_years() -> None:
    assert Knocks(1, [10**15]).next_ms(0) == WINDOWS_MS[-1][0]
