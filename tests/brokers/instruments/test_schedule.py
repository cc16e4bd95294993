"""When syncs are due, whatever happened before. No clock, no database."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from brokers.india import INDIA
from brokers.instruments.schedule import APART, LONGEST_WAIT, next_sync

HALF_PAST_EIGHT = dt.time(8, 30)
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
JITTER = 3 * MINUTE


def at(day: int, hour: int, minute: int = 0) -> dt.datetime:
    return dt.datetime(2024, 3, day, hour, minute, tzinfo=INDIA)


def due(
    now: dt.datetime,
    current_at: dt.datetime | None,
    tried_at: dt.datetime | None = None,
    failures: int = 0,
    renewed_at: dt.datetime | None = None,
) -> dt.datetime:
    return next_sync(
        now,
        published=HALF_PAST_EIGHT,
        current_at=current_at,
        tried_at=tried_at,
        failures=failures,
        jitter=JITTER,
        renewed_at=renewed_at,
    )


def test_nothing_stored_is_synced_at_once() -> None:
    assert due(at(21, 15), None) < at(21, 15)
    assert due(at(21, 3), None) < at(21, 3)


def test_what_is_of_today_is_synced_tomorrow_and_what_is_of_yesterday_after_the_publishing_time() -> None:
    assert due(at(21, 15), at(21, 8, 40)) == at(22, 8, 33)
    assert due(at(21, 7), at(20, 9)) == at(21, 8, 33)
    assert due(at(21, 8, 31), at(20, 9)) == at(21, 8, 33)
    assert due(at(21, 8, 31), at(21, 8, 29)) == at(21, 8, 33), "a sync by hand just before counts as yesterday's"


def test_a_machine_that_was_off_syncs_when_it_starts() -> None:
    assert due(at(21, 15), at(19, 9)) < at(21, 15)


def test_failures_are_retried_with_rising_waits() -> None:
    tried_at = at(21, 9)
    waits = [due(at(21, 9, 1), at(20, 9), tried_at, failures) - tried_at for failures in (1, 2, 3, 4, 5, 99)]
    assert [wait // MINUTE for wait in waits] == [10, 20, 40, 80, 80, 80]


def test_a_new_login_begins_the_waits_anew() -> None:
    failed_at = at(21, 9)
    assert due(at(21, 9, 30), at(20, 9), failed_at, 6, renewed_at=at(21, 9, 25)) == at(21, 9, 10)
    assert due(at(21, 9, 30), at(20, 9), failed_at, 6, renewed_at=at(20, 9, 25)) == failed_at + LONGEST_WAIT
    assert due(at(21, 7), at(20, 9), at(20, 9), 0, renewed_at=at(21, 6, 55)) == at(21, 8, 33), "nothing new to have"


def test_another_time_zone_is_the_same_instant() -> None:
    now = at(21, 8, 31).astimezone(dt.UTC)
    assert due(now, at(20, 9).astimezone(dt.UTC)) == at(21, 8, 33)


instants = st.datetimes(dt.datetime(2024, 3, 1), dt.datetime(2024, 4, 30), timezones=st.just(INDIA))


@given(instants, st.none() | instants, st.none() | instants, st.integers(0, 99), st.none() | instants, st.times())
def test_a_broker_is_never_asked_twice_within_ten_minutes_nor_left_alone_for_more_than_a_day(
    now: dt.datetime,
    current_at: dt.datetime | None,
    tried_at: dt.datetime | None,
    failures: int,
    renewed_at: dt.datetime | None,
    published: dt.time,
) -> None:
    found = next_sync(
        now,
        published=published,
        current_at=current_at,
        tried_at=tried_at,
        failures=failures,
        jitter=JITTER,
        renewed_at=renewed_at,
    )
    is_current = current_at is not None and current_at + DAY >= now
    if tried_at is not None and not is_current:
        assert found >= tried_at + APART
    assert found <= max(now, tried_at or now) + DAY + JITTER


@given(st.integers(0, 3 * 24 * 60), st.lists(st.booleans(), min_size=1, max_size=300))
def test_attempts_over_days_keep_their_distance_and_end_with_success(start: int, succeeds: list[bool]) -> None:
    """Plays a broker that fails and succeeds as drawn, looked at every minute of three days."""
    now, current_at, tried_at, failures = at(1, 0) + start * MINUTE, None, None, 0
    attempts: list[dt.datetime] = []
    outcomes = iter(succeeds)
    for _ in range(3 * 24 * 60):
        if due(now, current_at, tried_at, failures) <= now:
            attempts.append(now)
            tried_at = now
            if next(outcomes, True):
                current_at, failures = now, 0
            else:
                failures += 1
        now += MINUTE
    assert all(later - earlier >= APART for earlier, later in pairwise(attempts))
    assert current_at is None or now - current_at < DAY + HOUR or failures
