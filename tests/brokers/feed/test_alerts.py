"""When a person is told of an account, and when it is over: a market and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.feed import alerts
from brokers.feed.alerts import AHEAD_MS, AccountHealth, Cleared, Kind, Raised, State, Watch, message
from brokers.models import Alert
from marketdata.ticks import FeedState, Segment, TokenState

OPENS_MS = 1_795_578_300_000  # 25 Nov 2026, 09:15 in India
MINUTE_MS = 60_000
NSE, MCX = frozenset({Segment.NSE}), frozenset({Segment.MCX})


class Market:
    """Open in the segments named; the others open at `opens_ms`."""

    def __init__(self, *open_: Segment, opens_ms: int | None = None) -> None:
        self.open, self.opens_ms = set(open_), opens_ms

    def is_open(self, segment: Segment) -> bool:
        return segment in self.open

    def next_open_ms(self, segments: Collection[Segment]) -> int | None:
        return self.opens_ms


class Day:
    """A watch, its market, and a clock that goes on by a second a look."""

    def __init__(self, market: Market, now_ms: int = OPENS_MS, open_: Iterable[tuple[int, Kind]] = ()) -> None:
        self.market, self.now_ms, self.watch = market, now_ms, Watch(open_)

    def look(self, *healths: AccountHealth) -> list[Raised | Cleared]:
        self.now_ms += 1000
        return self.watch.look(healths, self.market, self.now_ms)

    def pass_s(self, seconds: int, *healths: AccountHealth) -> list[Raised | Cleared]:
        """All that changed in so many looks."""
        return [change for _ in range(seconds) for change in self.look(*healths)]


def health(
    state: FeedState = FeedState.CONNECTED,
    token: TokenState | None = TokenState.VALID,
    *,
    id: int = 1,
    segments: frozenset[Segment] = NSE,
    simulated: bool = False,
    message: str = "It did not answer.",
    wanted: int = 3,
) -> AccountHealth:
    return AccountHealth(id, "upstox", "main", simulated, segments, token, state, message, wanted)


DOWN, UP = health(FeedState.RECONNECTING), health()
NO_LOGIN = health(FeedState.WAITING_FOR_LOGIN, TokenState.WAITING_FOR_LOGIN, message="It has no token yet; log in.")


def kinds(changes: Iterable[Raised | Cleared]) -> list[tuple[type[Raised | Cleared], Kind]]:
    return [(type(change), change.kind) for change in changes]


def open_day() -> Day:
    return Day(Market(Segment.NSE))


# ------------------------------------------------------------------------------------------------------ a missing login


@pytest.mark.parametrize(
    "token", [TokenState.TOKEN_EXPIRED, TokenState.WAITING_FOR_LOGIN, TokenState.NOT_ENTITLED], ids=str
)
def test_a_missing_login_is_told_half_an_hour_before_the_market_opens_and_once(token: TokenState) -> None:
    day = Day(Market(opens_ms=OPENS_MS), now_ms=OPENS_MS - AHEAD_MS - 10_000)
    found = health(FeedState.TOKEN_EXPIRED, token)
    assert day.pass_s(9, found) == []
    assert kinds(day.pass_s(1, found)) == [(Raised, Kind.LOGIN_MISSING)]
    assert day.pass_s(60, found) == []
    day.market.open.add(Segment.NSE)
    assert day.pass_s(300, found) == []


def test_the_sentence_says_what_is_missing_where_and_until_when() -> None:
    day = Day(Market(opens_ms=OPENS_MS), now_ms=OPENS_MS - 5 * MINUTE_MS)
    [raised] = day.look(NO_LOGIN)
    assert isinstance(raised, Raised)
    assert raised.text == "upstox main has no login, and its market opens at 09:15: It has no token yet; log in."
    [raised] = open_day().look(NO_LOGIN._replace(simulated=True))
    assert isinstance(raised, Raised)
    assert raised.text.startswith("upstox main (SIMULATED) has no login, and its market is open: ")


def test_nothing_is_told_in_the_night_or_where_nobody_knows_when_it_opens() -> None:
    assert Day(Market(opens_ms=OPENS_MS), now_ms=OPENS_MS - 600 * MINUTE_MS).pass_s(120, NO_LOGIN, DOWN) == []
    assert Day(Market(opens_ms=None)).pass_s(120, NO_LOGIN, DOWN) == []


def test_the_login_ends_it_with_a_word_also_where_the_market_closed_in_the_same_second() -> None:
    day = open_day()
    day.look(NO_LOGIN)
    day.market.open.clear()
    assert day.look(health(FeedState.CONNECTING, TokenState.EXPIRING)) == [
        Cleared(1, Kind.LOGIN_MISSING, is_silent=False)
    ]


def test_the_close_of_the_day_ends_it_without_a_word_and_the_next_morning_it_is_told_anew() -> None:
    day = open_day()
    day.look(NO_LOGIN)
    day.market.open.clear()
    day.market.opens_ms = day.now_ms + 18 * 60 * MINUTE_MS
    assert day.pass_s(60, NO_LOGIN) == [Cleared(1, Kind.LOGIN_MISSING, is_silent=True)]
    day.now_ms = day.market.opens_ms - AHEAD_MS
    assert kinds(day.pass_s(60, NO_LOGIN)) == [(Raised, Kind.LOGIN_MISSING)]


def test_a_market_that_opens_again_within_the_half_hour_has_not_closed_for_the_day() -> None:
    day = open_day()
    day.look(NO_LOGIN)
    day.market.open.clear()
    day.market.opens_ms = day.now_ms + 7 * MINUTE_MS
    assert day.pass_s(60, NO_LOGIN) == []


# ---------------------------------------------------------------------------------------------------------- a dead feed


def test_a_feed_that_is_down_for_a_minute_is_told_once_and_ended_by_ten_seconds_of_connection() -> None:
    day = open_day()
    assert day.pass_s(60, DOWN) == []
    [raised] = day.pass_s(600, DOWN)
    assert isinstance(raised, Raised)
    assert (
        raised.text == "upstox main is down since 09:15 (reconnecting; 3 instruments wait for it): It did not answer."
    )
    assert day.pass_s(10, UP) == []
    assert day.pass_s(60, UP) == [Cleared(1, Kind.FEED_DOWN, is_silent=False)]


def test_reconnects_and_connections_of_seconds_change_nothing() -> None:
    day = open_day()
    for _ in range(5):
        assert day.pass_s(60, DOWN) == []
        assert day.pass_s(1, UP) == []
    assert kinds(day.pass_s(61, DOWN)) == [(Raised, Kind.FEED_DOWN)]
    for _ in range(5):
        assert day.pass_s(10, UP) == []
        assert day.pass_s(1, DOWN) == []
    assert kinds(day.pass_s(11, UP)) == [(Cleared, Kind.FEED_DOWN)]


@pytest.mark.parametrize(
    "state", sorted(set(FeedState) - {FeedState.CONNECTED, FeedState.MARKET_CLOSED, FeedState.DISABLED})
)
def test_every_state_but_three_is_down(state: FeedState) -> None:
    assert kinds(open_day().pass_s(61, health(state, None))) == [(Raised, Kind.FEED_DOWN)]


@pytest.mark.parametrize("state", [FeedState.CONNECTED, FeedState.MARKET_CLOSED, FeedState.DISABLED])
def test_these_three_are_not(state: FeedState) -> None:
    assert open_day().pass_s(200, health(state)) == []


def test_the_minute_begins_with_the_market_and_one_open_segment_is_enough() -> None:
    day = Day(Market(Segment.NSE, opens_ms=OPENS_MS))
    both, commodities = (
        health(FeedState.CONNECTING, segments=NSE | MCX),
        health(FeedState.CONNECTING, id=2, segments=MCX),
    )
    [raised] = day.pass_s(120, both, commodities)
    assert isinstance(raised, Raised)
    assert raised.health.id == 1
    day.market.open.add(Segment.MCX)
    assert day.pass_s(60, both, commodities) == []
    assert kinds(day.pass_s(1, both, commodities)) == [(Raised, Kind.FEED_DOWN)]


def test_a_missing_login_is_not_told_as_a_dead_feed_too() -> None:
    assert kinds(open_day().pass_s(600, NO_LOGIN)) == [(Raised, Kind.LOGIN_MISSING)]


def test_a_token_that_dies_takes_the_place_of_the_dead_feed_and_the_feed_has_its_minute_after_the_login() -> None:
    day = open_day()
    day.pass_s(61, DOWN)
    changes = day.look(NO_LOGIN)
    assert kinds(changes) == [(Raised, Kind.LOGIN_MISSING), (Cleared, Kind.FEED_DOWN)]
    assert changes[1] == Cleared(1, Kind.FEED_DOWN, is_silent=True)
    assert day.pass_s(60, DOWN) == [Cleared(1, Kind.LOGIN_MISSING, is_silent=False)]
    assert kinds(day.pass_s(1, DOWN)) == [(Raised, Kind.FEED_DOWN)]


def test_the_close_of_the_day_ends_a_dead_feed_without_a_word() -> None:
    day = open_day()
    day.pass_s(61, DOWN)
    day.market.open.clear()
    assert day.pass_s(60, DOWN) == [Cleared(1, Kind.FEED_DOWN, is_silent=True)]


def test_a_machine_that_slept_has_seen_nothing_of_the_time_between() -> None:
    day = open_day()
    day.pass_s(59, DOWN)
    day.now_ms += 3_600_000
    assert day.pass_s(60, DOWN) == []
    day.now_ms -= 7_200_000
    assert day.pass_s(60, DOWN) == []
    assert kinds(day.pass_s(1, DOWN)) == [(Raised, Kind.FEED_DOWN)]


# ------------------------------------------------------------------------------------------------- accounts come and go


@pytest.mark.parametrize("after", [[], [health(FeedState.DISABLED, None)]], ids=["deleted", "switched off"])
def test_an_account_that_is_deleted_or_switched_off_ends_its_alerts_without_a_word(after: list[AccountHealth]) -> None:
    day = open_day()
    day.pass_s(61, DOWN)
    assert day.pass_s(60, *after) == [Cleared(1, Kind.FEED_DOWN, is_silent=True)]
    assert day.pass_s(60, DOWN) == []
    assert kinds(day.pass_s(1, DOWN)) == [(Raised, Kind.FEED_DOWN)]


def test_accounts_do_not_share_their_alerts() -> None:
    day = open_day()
    other = health(FeedState.STALE, id=2)
    day.pass_s(30, DOWN)
    day.pass_s(31, DOWN, other)
    assert day.watch.open == {(1, Kind.FEED_DOWN)}
    day.pass_s(30, UP, other)
    assert day.watch.open == {(2, Kind.FEED_DOWN)}


def test_alerts_of_an_earlier_process_are_not_raised_again_and_end_as_their_own() -> None:
    day = Day(Market(Segment.NSE), open_=[(1, Kind.FEED_DOWN), (2, Kind.LOGIN_MISSING)])
    assert day.pass_s(600, DOWN, NO_LOGIN._replace(id=2)) == []
    assert kinds(day.pass_s(11, UP, UP._replace(id=2))) == [(Cleared, Kind.LOGIN_MISSING), (Cleared, Kind.FEED_DOWN)]


# ----------------------------------------------------------------------------------------------------- whatever happens

STRETCHES = st.lists(
    st.tuples(
        st.integers(1, 90),  # seconds
        st.sampled_from(FeedState),
        st.sampled_from([None, *TokenState]),
        st.sampled_from(["open", "soon", "closed", "unknown"]),
        st.sampled_from([True, True, True, False]),  # whether the account is there
        st.sampled_from([0, 0, 0, 3_600_000, -3_600_000]),  # by how much the clock jumps before
    ),
    max_size=12,
)


@given(STRETCHES)
def test_whatever_happens_alerts_are_raised_and_cleared_in_turn_and_never_raised_while_closed(
    stretches: list[tuple[int, FeedState, TokenState | None, str, bool, int]],
) -> None:
    day, is_raised = open_day(), dict.fromkeys(Kind, False)
    for seconds, state, token, hours, is_there, jump_ms in stretches:
        day.now_ms += jump_ms
        day.market.open = {Segment.NSE} if hours == "open" else set()
        for _ in range(seconds):
            ahead_ms = {"open": 0, "soon": AHEAD_MS, "closed": AHEAD_MS + 2000}.get(hours)
            day.market.opens_ms = None if ahead_ms is None else day.now_ms + ahead_ms
            for change in day.look(*[health(state, token)] * is_there):
                assert is_raised[change.kind] != isinstance(change, Raised)
                is_raised[change.kind] = isinstance(change, Raised)
                if isinstance(change, Raised):
                    assert hours == "open" or (hours == "soon" and change.kind is Kind.LOGIN_MISSING)
                elif not change.is_silent:
                    assert state is FeedState.CONNECTED or token in alerts.LOGGED_IN
        assert not all(is_raised.values())
        assert day.watch.open == {(1, kind) for kind, raised in is_raised.items() if raised}


# ------------------------------------------------------------------------------------------------------------- messages


def test_a_message_has_the_agreed_fields_and_its_sentence_under_both_names() -> None:
    body = message(
        "upstox main is down.",
        kind=Kind.FEED_DOWN,
        state=State.RAISED,
        broker="upstox",
        account="main",
        simulated=False,
        since_ms=OPENS_MS,
        sent_ms=OPENS_MS + 61_500,
    )
    assert body == {
        "text": "upstox main is down.",
        "content": "upstox main is down.",
        "kind": "feed_down",
        "state": "raised",
        "broker": "upstox",
        "account": "main",
        "simulated": False,
        "since": "2026-11-25T09:15:00+05:30",
        "sent": "2026-11-25T09:16:01+05:30",
    }


def test_a_brokers_words_are_no_markup_have_no_lines_and_are_not_endless() -> None:
    words = "<!channel>\n" + "no " * 1000
    [raised] = open_day().look(NO_LOGIN._replace(message=words))
    assert isinstance(raised, Raised)
    assert "‹!channel› no no" in raised.text
    assert "\n" not in raised.text
    assert len(raised.text) < 700


def test_one_instrument_waits_and_several_wait() -> None:
    [raised] = open_day().pass_s(61, DOWN._replace(wanted=1))
    assert isinstance(raised, Raised)
    assert "; 1 instrument waits for it)" in raised.text


def test_the_database_knows_the_same_kinds() -> None:
    assert {kind.value for kind in Kind} == set(Alert.Kind.values)
