"""Two programs with one login: what counts as an eviction, how long is waited, and what ends it."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.contract import ErrorKind
from brokers.feed import evictions as module
from brokers.feed.backoff import POLICY, Waits
from brokers.feed.connection import OWN_TROUBLE
from brokers.feed.evictions import CALM_S, TIMES, TOGETHER_MS, WAITS_MS, WINDOW_MS, Ending, Evictions
from brokers.feed.knocks import Hold, Knocks, Turns, Who
from marketdata.ticks import FeedState, Mode
from tests.brokers.feed.bench import nse, until
from tests.brokers.feed.test_pool import FIRST, SECOND, THIRD, Bench, edited, pooling

MINUTE_MS = 60_000
NOON_MS = 1_795_588_200_000
"""25 November 2026, 12:00 in India."""
OLDEST = Ending(ErrorKind.LIMIT, "this was the oldest", lived_s=20.0, is_said=True)
GOODBYE = Ending(ErrorKind.NETWORK, "closed with code 1000", lived_s=20.0, is_said=True)


def fresh() -> Evictions:
    return Evictions(lambda: 0.5)  # waits as they are written


def begun(held: Evictions, ending: Ending, *minutes: float) -> list[bool]:
    return [held.ended(ending, NOON_MS + int(minute * MINUTE_MS)) for minute in minutes]


def wait_ms(held: Evictions, minute: float) -> int:
    return held.until_ms - NOON_MS - int(minute * MINUTE_MS)


# --------------------------------------------------------------------------------------------------------- what counts


@pytest.mark.parametrize("ending", [OLDEST, GOODBYE, OLDEST._replace(lived_s=3000.0, is_said=False)])
def test_the_third_within_ten_minutes_begins_a_wait_and_says_so(ending: Ending) -> None:
    held = fresh()
    assert begun(held, ending, 0, 2, 4) == [False, False, True]
    assert wait_ms(held, 4) == 5 * MINUTE_MS
    assert held.sentence() == (
        "Another program seems to be connected with the same account: the broker ended our connection 3 times in "
        "4 min. Stop that program, or give it another login; trying again at 12:09."
    )


@pytest.mark.parametrize(
    "ending",
    [
        OLDEST._replace(lived_s=0.0),  # not let in: that is what the door's own waits are for
        GOODBYE._replace(lived_s=60.0),
        GOODBYE._replace(is_said=False),  # the line broke
        GOODBYE._replace(kind=ErrorKind.PROTOCOL),
        GOODBYE._replace(kind=ErrorKind.AUTH),
    ],
)
def test_what_may_have_another_reason_does_not_count(ending: Ending) -> None:
    held = fresh()
    assert not any(begun(held, ending, 0, 1, 2, 3, 4, 5))
    assert held.until_ms == 0


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013])
def test_a_server_that_goes_away_or_has_trouble_says_nothing_of_another_program(code: int) -> None:
    assert code in OWN_TROUBLE


def test_three_in_more_than_ten_minutes_are_chance() -> None:
    assert not any(begun(fresh(), OLDEST, 0, 5, 10.1, 15.2, 20.3))


def test_different_words_are_different_reasons() -> None:
    held = fresh()
    assert begun(held, GOODBYE, 0, 1) == [False, False]
    assert begun(held, GOODBYE._replace(reason="closed with code 4000"), 2, 3) == [False, False]
    assert begun(held, GOODBYE, 4) == [True]


def test_connections_that_end_together_are_one_eviction() -> None:
    held = fresh()
    assert not any(held.ended(OLDEST, NOON_MS + number * 100) for number in range(12))
    assert begun(held, OLDEST, 1, 2) == [False, True]


# --------------------------------------------------------------------------------------------------------------- waits


def test_the_next_waits_are_longer_and_each_further_eviction_begins_one() -> None:
    held = fresh()
    begun(held, OLDEST, 0, 1, 2)
    assert begun(held, OLDEST, 8) == [True]
    assert wait_ms(held, 8) == 15 * MINUTE_MS
    assert "4 times in 8 min" in held.sentence()
    for minute in (24, 60, 100):
        assert begun(held, OLDEST, minute) == [True]
        assert wait_ms(held, minute) == 30 * MINUTE_MS


def test_what_still_stood_and_ends_while_it_is_waited_changes_nothing() -> None:
    held = fresh()
    begun(held, OLDEST, 0, 1, 2)
    assert begun(held, OLDEST, 4, 6) == [False, False]
    assert wait_ms(held, 2) == 5 * MINUTE_MS


def test_a_connection_that_stood_for_ten_minutes_after_the_wait_ends_it() -> None:
    held = fresh()
    begun(held, OLDEST, 0, 1, 2)
    assert begun(held, OLDEST._replace(lived_s=CALM_S), 20, 21, 22) == [False, False, True]
    assert wait_ms(held, 22) == 5 * MINUTE_MS


def test_one_that_had_stood_all_the_time_does_not_end_it() -> None:
    held = fresh()
    begun(held, OLDEST, 0, 1, 2)
    assert begun(held, OLDEST._replace(lived_s=3600.0), 8) == [True]


def test_somebody_who_changed_something_ends_it() -> None:
    held = fresh()
    begun(held, OLDEST, 0, 1, 2)
    held.forgive()
    assert held.until_ms == 0
    assert begun(held, OLDEST, 3, 4, 5) == [False, False, True]


ENDINGS = st.builds(
    Ending,
    st.sampled_from(ErrorKind),
    st.sampled_from(["one", "two"]),
    st.sampled_from([0.0, 5.0, 59.0, 61.0, CALM_S]),
    st.booleans(),
)


@given(st.lists(st.tuples(ENDINGS, st.integers(0, 4 * MINUTE_MS)), max_size=80), st.floats(0, 1))
def test_whatever_happens_waits_are_those_three_and_never_begin_before_the_third(
    happened: list[tuple[Ending, int]], chance: float
) -> None:
    held, now_ms, ended = Evictions(lambda: chance), NOON_MS, list[int]()
    for ending, gap_ms in happened:
        now_ms += gap_ms
        ended.append(now_ms)
        waited = now_ms < held.until_ms
        if held.ended(ending, now_ms):
            assert not waited, "one wait at a time"
            assert len(ended) >= TIMES
            assert any(0.9 * each <= held.until_ms - now_ms <= 1.1 * each for each in WAITS_MS)
            assert held.times >= TIMES
            assert held.sentence().endswith(".")
        assert held.until_ms <= now_ms + 1.1 * WAITS_MS[-1]


@given(st.lists(st.integers(TOGETHER_MS, WINDOW_MS), min_size=3, max_size=30))
def test_a_first_wait_needs_three_within_the_window(gaps: list[int]) -> None:
    held, now_ms, made = fresh(), NOON_MS, list[int]()
    for gap_ms in gaps:
        now_ms += gap_ms
        made.append(now_ms)
        if held.ended(OLDEST, now_ms):
            assert sum(now_ms - each < WINDOW_MS for each in made) >= TIMES
            break
        assert sum(now_ms - each < WINDOW_MS for each in made) < TIMES


# -------------------------------------------------------------------------------------------- an account's connections

DOOR = {"market": 3, "depth20": 2}
WHOS = [Who(kind, number) for kind, count in DOOR.items() for number in range(count)]
AWAY = Ending(ErrorKind.NETWORK, "no answer")


class Line:
    """The connections of one account, all of which wish to try."""

    def __init__(self) -> None:
        self.followers: list[Who] = []
        self.knocks = {kind: Knocks(100) for kind in DOOR}
        self.turns = Turns(list(DOOR), self.knocks.__getitem__, chance=lambda: 0.5, on_free=self.followers.append)
        for who in WHOS:
            self.turns.joins(who)

    def free(self, now_ms: int = NOON_MS, but: Collection[Who] = ()) -> list[Who]:
        return [who for who in WHOS if who not in but and self.turns.hold(who, now_ms) is None]

    def all_fail(self, ending: Ending, kinds: tuple[str, ...] = tuple(DOOR)) -> None:
        for who in WHOS:
            if who.kind in kinds:
                self.turns.tries(who, NOON_MS)
                self.turns.ended(who, ending, NOON_MS)


def test_before_anything_failed_all_may_try_at_once() -> None:
    assert Line().free() == WHOS


def test_while_the_broker_is_away_one_tries_at_a_time_and_when_it_stands_the_others_follow() -> None:
    line = Line()
    line.all_fail(AWAY)
    first = WHOS[0]
    for _ in range(3):
        assert line.free() == [first]
        line.turns.tries(first, NOON_MS)
        assert line.free() == []
        line.turns.ended(first, AWAY, NOON_MS)
    line.turns.tries(first, NOON_MS)
    line.turns.stands(first)
    assert line.followers == WHOS[1:]
    assert line.free(but=[first]) == WHOS[1:]


def test_the_next_in_line_tries_when_the_first_is_wanted_no_more() -> None:
    line = Line()
    line.all_fail(AWAY)
    line.turns.leaves(WHOS[0])
    assert line.turns.hold(WHOS[1], NOON_MS) is None
    assert line.turns.hold(WHOS[2], NOON_MS) is not None


def test_while_one_stands_those_that_fell_try_by_themselves() -> None:
    line = Line()
    for who in WHOS:
        line.turns.tries(who, NOON_MS)
        line.turns.stands(who)
    for who in (WHOS[1], WHOS[2]):
        line.turns.ended(who, Ending(ErrorKind.NETWORK, "gone", 100.0), NOON_MS)
    assert line.free(but=[WHOS[0], *WHOS[3:]]) == WHOS[1:3]


def test_too_many_at_one_kind_of_socket_is_nothing_to_the_other() -> None:
    line = Line()
    line.all_fail(Ending(ErrorKind.PROTOCOL, "nonsense"), kinds=("market",))
    assert line.free() == [Who("market", 0), Who("depth20", 0), Who("depth20", 1)]


def test_a_kind_that_waits_for_another_program_does_not_hold_up_the_others() -> None:
    line = Line()
    for minute in range(3):
        line.turns.ended(WHOS[0], OLDEST, NOON_MS + minute * MINUTE_MS)
    line.all_fail(AWAY, kinds=("depth20",))
    assert line.free(NOON_MS + 3 * MINUTE_MS) == [Who("depth20", 0)]
    hold = line.turns.hold(WHOS[1], NOON_MS + 3 * MINUTE_MS)
    assert hold is not None
    assert hold.text.startswith("Another program seems")
    line.turns.forgive()
    assert line.free(NOON_MS + 3 * MINUTE_MS) == [WHOS[0]], "the account as a whole is still away"


def test_the_doors_own_waits_hold_those_that_follow_too() -> None:
    line = Line()
    line.knocks["market"].burst = 1
    line.knocks["market"].add(NOON_MS)
    hold = line.turns.hold(WHOS[0], NOON_MS)
    assert isinstance(hold, Hold)
    assert (hold.ms, hold.text[:12]) == (MINUTE_MS, "Waiting 60 s")


EVENTS = st.tuples(st.integers(0, len(WHOS) - 1), st.sampled_from(["try", "stand", "fail", "leave"]))


@given(st.lists(EVENTS, max_size=60))
def test_while_the_broker_is_away_there_is_one_attempt_at_a_time_and_always_somebody_who_may_make_it(
    happened: list[tuple[int, str]],
) -> None:
    line, trying, standing, there = Line(), set[Who](), set[Who](), set(WHOS)
    line.all_fail(AWAY)
    is_away = True
    for number, what in happened:
        who = WHOS[number]
        if what == "try" and who in there - trying - standing and line.turns.hold(who, NOON_MS) is None:
            line.turns.tries(who, NOON_MS)
            trying.add(who)
        elif what == "stand" and who in trying:
            line.turns.stands(who)
            trying.discard(who)
            standing.add(who)
            is_away = False
        elif what == "fail" and who in trying | standing:
            line.turns.ended(who, AWAY._replace(lived_s=10.0 if who in standing else 0.0), NOON_MS)
            trying.discard(who)
            standing.discard(who)
            is_away = is_away or not standing
        elif what == "leave" and who in there:
            line.turns.leaves(who)
            for each in (there, trying, standing):
                each.discard(who)
        waiting = there - trying - standing
        may_try = [each for each in waiting if line.turns.hold(each, NOON_MS) is None]
        if is_away:
            assert len(may_try) == (0 if trying or not waiting else 1)
        for kind in {each.kind for each in standing}:
            assert {each for each in waiting if each.kind == kind} <= set(may_try), "those fell one by one"


# ------------------------------------------------------------------------------------------------- with a real broker


async def evict(bench: Bench, times: int) -> None:
    """The broker ends each connection in so many words, as often as it is opened anew."""
    for _ in range(times):
        await until(lambda: bench.up() and bench.broker.sockets, "a connection")
        await bench.broker.send({"error": "limit", "text": "One too many; this was the oldest.", "fatal": True})
        await until(lambda: not bench.up(), "the end of it")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evictions need not be seconds apart to count, and a limit is waited for a moment only."""
    monkeypatch.setattr(module, "TOGETHER_MS", 0)
    for kind in (ErrorKind.LIMIT, ErrorKind.NETWORK):
        monkeypatch.setitem(POLICY, kind, Waits(0.05, 0.05))


async def test_an_account_that_is_evicted_again_and_again_waits_says_why_and_tries_at_once_when_it_is_edited(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        await evict(bench, 3)
        await until(lambda: "Another program" in bench.pool.condition().message, "the reason")
        assert bench.pool.condition().state is FeedState.RECONNECTING
        assert "3 times in 0 s" in bench.pool.condition().message
        bench.pool.apply({SECOND: {nse(2): Mode.LTP}})
        await until(lambda: SECOND in bench.pool.connections, "another connection of the kind")
        await until(lambda: "Another program" in bench.pool.connections[SECOND].condition.message, "it waits too")
        assert bench.broker.attempts == 3
        assert caplog.text.count("feed_evicted") == 1
        bench.pool.set_account(bench.pool.account)
        assert "Another program" in bench.pool.condition().message, "nothing was edited"
        bench.pool.set_account(edited(bench.pool.account))
        await until(lambda: bench.up() == {FIRST, SECOND}, "both")
        assert bench.pool.condition().state is FeedState.CONNECTED


async def test_an_account_that_is_evicted_tries_at_once_with_a_new_token(hasty: None) -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        await evict(bench, 3)
        await until(lambda: "Another program" in bench.pool.condition().message, "the reason")
        bench.broker.tokens.add("new")
        _, pool = bench.next("new")
        await pool.take_over(lambda: {FIRST: {nse(1): Mode.LTP}})
        await until(lambda: bench.up() == {FIRST}, "the connection")


async def test_sockets_closed_in_order_again_and_again_are_evictions_and_lines_that_break_are_not(hasty: None) -> None:
    async with pooling() as bench:
        bench.pool.open({FIRST: {nse(1): Mode.LTP}})
        for number in range(4):
            await until(lambda: bench.up() and bench.broker.sockets, "a connection")
            bench.broker.drop()
            await until(lambda: not bench.up(), "the end of it")
            assert "Another program" not in bench.pool.condition().message, number
        for _ in range(3):
            await until(lambda: bench.up() and bench.broker.sockets, "a connection")
            await bench.broker.close(1000)
            await until(lambda: not bench.up(), "the end of it")
        await until(lambda: "Another program" in bench.pool.condition().message, "the reason")


async def test_an_outage_costs_one_attempt_a_wait_and_all_are_back_when_the_first_is() -> None:
    async with pooling(connections=3) as bench:
        wanted = {each: {nse(number): Mode.LTP} for number, each in enumerate((FIRST, SECOND, THIRD))}
        bench.pool.open(wanted)
        await until(lambda: bench.up() == set(wanted) and len(bench.broker.sockets) == 3, "three")
        bench.broker.tokens.clear()
        bench.broker.status = 503
        bench.broker.attempts = 0
        bench.broker.drop()
        await until(lambda: not bench.up(), "none")
        await until(lambda: bench.broker.attempts == 3, "three attempts")
        waited = [each.condition.message for each in bench.pool.connections.values()]
        assert sum("one of them tries" in text for text in waited) == 2
        assert "one of them tries" not in bench.pool.condition().message
        bench.broker.tokens.add("good")
        await until(lambda: bench.up() == set(wanted), "all three")
        assert bench.broker.attempts <= 3 + 1 + 3, "one more at most before the first is let in"
        fell = [each.changed_s for each in bench.pool.connections.values()]
        assert max(fell) - min(fell) < 0.5
