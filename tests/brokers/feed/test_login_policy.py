"""When an account logs in by itself: once, in time, and never so that a broker locks it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokers.feed.login_policy import (
    LASTING_MS,
    LEAD_MS,
    OK,
    REFUSED,
    UNREACHED,
    UNREACHED_MS,
    Try,
    may_renew,
    next_login,
)

NOW = 1_795_578_300_000


def tried(outcome: str, *, token: str = "t", login: str = "l", ago_ms: int = 1000, automatic: bool = True) -> Try:
    return Try(NOW - ago_ms, outcome, token, login, automatic)


def at_ms(*tries: Try, token: str = "t", login: str = "l", opens_ms: int | None = NOW) -> int | None:
    return next_login(token, login, tries, now_ms=NOW, opens_ms=opens_ms).at_ms


def test_it_logs_in_at_once_while_a_market_is_open_or_about_to() -> None:
    assert at_ms(opens_ms=NOW - 1) == 0
    assert at_ms(opens_ms=NOW + LEAD_MS) == 0


def test_in_the_night_it_waits_until_some_time_before_the_opening() -> None:
    opens_ms = NOW + 3 * LEAD_MS
    assert at_ms(opens_ms=opens_ms) == opens_ms - LEAD_MS


def test_an_account_that_never_had_a_token_logs_in_as_soon_as_it_can() -> None:
    assert at_ms(token="", opens_ms=NOW + 3 * LEAD_MS) == 0


def test_one_try_for_each_dead_token_whatever_came_of_it() -> None:
    for outcome in ("begun", "failed", OK):
        assert at_ms(tried(outcome, ago_ms=LASTING_MS)) is None
        assert at_ms(tried(outcome, token="another", ago_ms=LASTING_MS)) == 0


def test_what_the_broker_refused_is_never_tried_again_until_it_is_changed() -> None:
    refused = tried(REFUSED, token="an old one", ago_ms=30 * LASTING_MS)
    assert at_ms(refused) is None
    assert at_ms(refused, login="with a new PIN") == 0


def test_a_login_by_a_person_that_worked_makes_good_again_what_was_refused() -> None:
    assert at_ms(tried(OK, automatic=False), tried(REFUSED, token="an old one", ago_ms=2000)) == 0


def test_a_login_by_a_person_that_was_refused_counts_too() -> None:
    assert at_ms(tried(REFUSED, automatic=False, token="x")) is None


def test_a_token_that_did_not_last_is_not_followed_by_another_login() -> None:
    assert at_ms(tried(OK, token="the one before", ago_ms=LASTING_MS - 1)) is None
    assert at_ms(tried(OK, token="the one before", ago_ms=LASTING_MS)) == 0


def test_one_that_did_not_reach_the_broker_is_made_again_after_a_while() -> None:
    assert at_ms(tried(UNREACHED, ago_ms=UNREACHED_MS - 1)) == NOW + 1
    assert at_ms(tried(UNREACHED, ago_ms=UNREACHED_MS)) == 0


def test_a_token_is_renewed_once() -> None:
    assert may_renew("t", [tried(OK, token="another")])
    assert not may_renew("t", [tried("failed")])
    assert may_renew("t", [tried(UNREACHED)])


OUTCOMES = st.sampled_from(["failed", REFUSED, OK, UNREACHED])


@given(outcomes=st.lists(OUTCOMES, max_size=30), opens=st.lists(st.booleans(), min_size=30, max_size=30))
def test_whatever_comes_of_them_a_broker_sees_at_most_one_wrong_login(outcomes: list[str], opens: list[bool]) -> None:
    """Each login that works makes another token, which dies a day later."""
    tries: list[Try] = []
    token, now_ms = "t0", NOW
    for outcome, is_open in zip(outcomes, opens, strict=False):
        now_ms += 24 * 3_600_000
        opens_ms = now_ms if is_open else None
        if next_login(token, "l", tries, now_ms=now_ms, opens_ms=opens_ms).at_ms != 0:
            continue
        tries.insert(0, Try(now_ms, outcome, token, "l", True))
        if outcome == OK:
            token = f"t{len(tries)}"
    assert sum(each.outcome == REFUSED for each in tries) <= 1
    seen = [(each.token, each.login) for each in tries if each.outcome != UNREACHED]
    assert len(seen) == len(set(seen))
