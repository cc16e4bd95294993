"""The exchanges' days at every edge, and what the silence of a feed says on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.feed.calendar import (
    CLOSE_MARGIN_MS,
    FAMILY,
    JUDGED,
    OPEN,
    OPEN_MARGIN_MS,
    TELLING_MS,
    DayOverride,
    Hours,
    Kind,
    Overrides,
    Session,
    Span,
    Word,
    Year,
    is_us_summer,
    parse_spans,
)
from brokers.feed.calendar_store import load_calendar
from brokers.india import DAY_MS, INDIA_MS, MINUTE_MS, india_clock, india_date, india_ms
from marketdata.ticks import Segment

CALENDAR = load_calendar()
CASH = (Segment.NSE, Segment.BSE, Segment.NSE_INDEX, Segment.BSE_INDEX, Segment.INDEX)
DERIVATIVES = (Segment.NFO, Segment.BFO)
CURRENCY = (Segment.CDS, Segment.BCD)
COMMODITY = (Segment.MCX, Segment.NCO, Segment.MCX_INDEX)
INSTANTS = st.integers(india_ms(date(2024, 6, 1)), india_ms(date(2029, 6, 1)))
ORDINARY = "2026-07-15"
AUCTIONED = "2026-11-25"


def at(day: str, clock: str) -> int:
    """The instant of an Indian date and time of day."""
    return india_ms(date.fromisoformat(day), clock)


def spans(segment: Segment, day: str, overrides: Overrides | None = None) -> list[str]:
    """The sessions of a day as text."""
    return [
        f"{session.kind} {india_clock(session.start_ms)}-{india_clock(session.end_ms)}"
        for session in CALENDAR.sessions(segment, date.fromisoformat(day), overrides or Overrides())
    ]


def kind(segment: Segment, now_ms: int, overrides: Overrides | None = None) -> Kind:
    """What the market is doing."""
    return CALENDAR.phase(segment, now_ms, overrides or Overrides()).kind


def word(source: str, said: Kind, day: str, clock: str, segment: Segment = Segment.NSE) -> Word:
    """A broker's word."""
    return Word(segment=segment, source=source, kind=said, said_ms=at(day, clock))


# ----------------------------------------------------------------------------------------------------------------- time


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that keeps another zone's time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_new_york")
def test_indian_time_does_not_know_the_machines_zone() -> None:
    assert at("1970-01-01", "05:30") == 0
    assert (india_date(-1), india_clock(-1)) == (date(1970, 1, 1), "05:29")
    assert (india_date(-INDIA_MS - 1), india_clock(-INDIA_MS - 1)) == (date(1969, 12, 31), "23:59")


@given(INSTANTS)
def test_an_instant_is_its_date_and_its_time_of_day(now_ms: int) -> None:
    assert india_ms(india_date(now_ms), india_clock(now_ms)) == now_ms - now_ms % MINUTE_MS


@pytest.mark.parametrize(
    ("summer_from", "winter_from"),
    [("2025-03-09", "2025-11-02"), ("2026-03-08", "2026-11-01"), ("2027-03-14", "2027-11-07")],
)
def test_new_yorks_summer_time_begins_and_ends_on_sundays(summer_from: str, winter_from: str) -> None:
    first, last = date.fromisoformat(summer_from), date.fromisoformat(winter_from)
    assert not is_us_summer(first.replace(day=first.day - 1))
    assert is_us_summer(first)
    assert not is_us_summer(last)
    assert is_us_summer(date.fromordinal(last.toordinal() - 1))


# ------------------------------------------------------------------------------------------------------- ordinary days


@pytest.mark.parametrize("segment", CASH)
def test_the_cash_market_has_a_closing_auction_from_august_2026(segment: Segment) -> None:
    old = ["pre_open 09:00-09:15", "continuous 09:15-15:30", "post_close 15:40-16:00"]
    new = ["pre_open 09:00-09:15", "continuous 09:15-15:15", "closing_auction 15:15-15:35", "post_close 15:50-16:00"]
    assert spans(segment, "2026-07-31") == old
    assert spans(segment, "2026-08-03") == new


@pytest.mark.parametrize("segment", DERIVATIVES)
def test_derivatives_got_a_pre_open_session_and_then_ten_minutes_more(segment: Segment) -> None:
    assert spans(segment, "2025-12-05") == ["continuous 09:15-15:30"]
    assert spans(segment, "2025-12-08") == ["pre_open 09:00-09:15", "continuous 09:15-15:30"]
    assert spans(segment, "2026-07-31") == ["pre_open 09:00-09:15", "continuous 09:15-15:30"]
    assert spans(segment, "2026-08-03") == ["pre_open 09:00-09:15", "continuous 09:15-15:40"]


@pytest.mark.parametrize("segment", COMMODITY)
def test_commodities_end_later_while_new_york_keeps_winter_time(segment: Segment) -> None:
    assert spans(segment, "2026-03-06") == ["continuous 09:00-17:00", "evening 17:00-23:55"]
    assert spans(segment, "2026-03-09") == ["continuous 09:00-17:00", "evening 17:00-23:30"]
    assert spans(segment, "2026-10-30") == ["continuous 09:00-17:00", "evening 17:00-23:30"]
    assert spans(segment, "2026-11-02") == ["continuous 09:00-17:00", "evening 17:00-23:55"]


def test_currency_and_ncdex_keep_their_own_hours() -> None:
    assert [spans(segment, ORDINARY) for segment in CURRENCY] == [["continuous 09:00-17:00"]] * 2
    assert spans(Segment.NCDEX, ORDINARY) == ["continuous 09:00-17:00", "evening 17:00-21:00"]


@pytest.mark.parametrize(
    ("segment", "day", "clock", "before", "after"),
    [
        (Segment.NSE, ORDINARY, "09:00", Kind.CLOSED, Kind.PRE_OPEN),
        (Segment.NSE, ORDINARY, "09:15", Kind.PRE_OPEN, Kind.CONTINUOUS),
        (Segment.NSE, ORDINARY, "15:30", Kind.CONTINUOUS, Kind.CLOSED),
        (Segment.NSE, ORDINARY, "15:40", Kind.CLOSED, Kind.POST_CLOSE),
        (Segment.NSE, ORDINARY, "16:00", Kind.POST_CLOSE, Kind.CLOSED),
        (Segment.BSE, AUCTIONED, "15:15", Kind.CONTINUOUS, Kind.CLOSING_AUCTION),
        (Segment.BSE, AUCTIONED, "15:35", Kind.CLOSING_AUCTION, Kind.CLOSED),
        (Segment.BSE, AUCTIONED, "15:50", Kind.CLOSED, Kind.POST_CLOSE),
        (Segment.BSE, AUCTIONED, "16:00", Kind.POST_CLOSE, Kind.CLOSED),
        (Segment.NFO, AUCTIONED, "15:40", Kind.CONTINUOUS, Kind.CLOSED),
        (Segment.CDS, ORDINARY, "09:00", Kind.CLOSED, Kind.CONTINUOUS),
        (Segment.CDS, ORDINARY, "17:00", Kind.CONTINUOUS, Kind.CLOSED),
        (Segment.MCX, ORDINARY, "09:00", Kind.CLOSED, Kind.CONTINUOUS),
        (Segment.MCX, ORDINARY, "17:00", Kind.CONTINUOUS, Kind.EVENING),
        (Segment.MCX, ORDINARY, "23:30", Kind.EVENING, Kind.CLOSED),
        (Segment.MCX, AUCTIONED, "23:55", Kind.EVENING, Kind.CLOSED),
        (Segment.NSE, "2026-02-01", "09:00", Kind.CLOSED, Kind.PRE_OPEN),
        (Segment.NSE, "2026-02-01", "09:15", Kind.PRE_OPEN, Kind.SPECIAL),
        (Segment.NSE, "2026-02-01", "15:30", Kind.SPECIAL, Kind.CLOSED),
        (Segment.MCX, "2026-02-01", "17:00", Kind.SPECIAL, Kind.CLOSED),
        (Segment.NSE, "2025-10-21", "13:30", Kind.CLOSED, Kind.PRE_OPEN),
        (Segment.NSE, "2025-10-21", "13:45", Kind.PRE_OPEN, Kind.MUHURAT),
        (Segment.NSE, "2025-10-21", "14:45", Kind.MUHURAT, Kind.CLOSED),
        (Segment.MCX, "2026-11-24", "17:00", Kind.CLOSED, Kind.EVENING),
        (Segment.MCX, "2026-01-01", "17:00", Kind.CONTINUOUS, Kind.CLOSED),
    ],
)
def test_a_phase_changes_at_the_millisecond(segment: Segment, day: str, clock: str, before: Kind, after: Kind) -> None:
    edge_ms = at(day, clock)
    earlier, later = CALENDAR.phase(segment, edge_ms - 1), CALENDAR.phase(segment, edge_ms)
    assert (earlier.kind, later.kind) == (before, after)
    assert earlier.until_ms == later.since_ms == edge_ms


# ------------------------------------------------------------------------------------------------ holidays and specials

EQUITY_HOLIDAYS = {
    2025: "02-26 03-14 03-31 04-10 04-14 04-18 05-01 08-15 08-27 10-02 10-22 11-05 12-25",
    2026: "01-15 01-26 03-03 03-26 03-31 04-03 04-14 05-01 05-28 06-26 09-14 10-02 10-20 11-10 11-24 12-25",
}
"""The weekdays without a session of XBOM in exchange_calendars 4.13.2 and of XNSE in pandas_market_calendars 5.5.0."""


@pytest.mark.parametrize("year", EQUITY_HOLIDAYS)
@pytest.mark.parametrize("segment", [*CASH, *DERIVATIVES])
def test_equity_is_shut_on_the_weekdays_other_calendars_name(segment: Segment, year: int) -> None:
    days = [
        date.fromordinal(number) for number in range(date(year, 1, 1).toordinal(), date(year + 1, 1, 1).toordinal())
    ]
    shut = [f"{day:%m-%d}" for day in days if day.weekday() < 5 and not CALENDAR.is_trading_day(segment, day)]
    assert shut == EQUITY_HOLIDAYS[year].split()


@pytest.mark.parametrize(
    ("year", "days"),
    [(2025, "02-19 04-01 05-12 09-08"), (2026, "02-19 03-19 04-01 08-26")],
)
def test_currency_is_shut_on_the_banks_holidays_too(year: int, days: str) -> None:
    for day in days.split():
        assert spans(Segment.CDS, f"{year}-{day}") == spans(Segment.BCD, f"{year}-{day}") == []
        assert CALENDAR.is_trading_day(Segment.NSE, date.fromisoformat(f"{year}-{day}"))
        assert CALENDAR.is_trading_day(Segment.MCX, date.fromisoformat(f"{year}-{day}"))
    assert spans(Segment.CDS, "2025-09-05") == ["continuous 09:00-17:00"]


@pytest.mark.parametrize(
    "day",
    ["2025-02-26", "2025-10-22", "2026-01-15", "2026-03-03", "2026-05-28", "2026-11-10", "2026-11-24"],
)
def test_mcx_opens_in_the_evening_of_most_holidays_and_ncdex_does_not(day: str) -> None:
    end = "23:30" if is_us_summer(date.fromisoformat(day)) else "23:55"
    assert [spans(segment, day) for segment in COMMODITY] == [[f"evening 17:00-{end}"]] * 3
    assert spans(Segment.NCDEX, day) == spans(Segment.NSE, day) == []


@pytest.mark.parametrize("day", ["2025-04-18", "2025-08-15", "2026-01-26", "2026-04-03", "2026-10-02", "2026-12-25"])
def test_mcx_is_shut_all_day_on_national_holidays(day: str) -> None:
    assert [spans(segment, day) for segment in (*COMMODITY, Segment.NCDEX)] == [[]] * 4


@pytest.mark.parametrize("day", ["2025-01-01", "2026-01-01", "2027-01-01"])
def test_on_new_years_day_commodities_trade_in_the_morning_only(day: str) -> None:
    assert spans(Segment.MCX, day) == spans(Segment.NCDEX, day) == ["continuous 09:00-17:00"]
    assert CALENDAR.is_trading_day(Segment.NSE, date.fromisoformat(day))


def test_the_budget_opens_a_saturday_and_a_sunday() -> None:
    assert date(2025, 2, 1).weekday() == 5
    assert date(2026, 2, 1).weekday() == 6
    cash = ["pre_open 09:00-09:15", "special 09:15-15:30", "post_close 15:40-16:00"]
    for day in ("2025-02-01", "2026-02-01"):
        assert [spans(segment, day) for segment in CASH] == [cash] * len(CASH)
        assert spans(Segment.MCX, day) == ["special 09:00-17:00"]
        assert spans(Segment.CDS, day) == spans(Segment.NCDEX, day) == []
    assert spans(Segment.NFO, "2025-02-01") == ["special 09:15-15:30"]
    assert spans(Segment.BFO, "2026-02-01") == ["pre_open 09:00-09:15", "special 09:15-15:30"]


def test_muhurat_is_an_hour_on_a_day_that_is_else_shut() -> None:
    assert spans(Segment.NSE, "2025-10-21") == ["pre_open 13:30-13:45", "muhurat 13:45-14:45"]
    for segment in (*DERIVATIVES, *CURRENCY, *COMMODITY, Segment.NCDEX):
        assert spans(segment, "2025-10-21") == ["muhurat 13:45-14:45"]
    assert spans(Segment.BSE, "2026-11-08") == ["pre_open 18:00-18:15", "muhurat 18:15-19:15"]
    assert CALENDAR.is_provisional(Segment.BSE, date(2026, 11, 8))
    assert not CALENDAR.is_provisional(Segment.BSE, date(2025, 10, 21))


# -------------------------------------------------------------------------------------------------- what is not certain


def test_2027_is_provisional_and_its_moving_feasts_shut_nothing() -> None:
    assert spans(Segment.NSE, "2027-01-26") == spans(Segment.MCX, "2027-01-26") == []
    assert spans(Segment.NSE, "2027-03-26") == []
    holi = CALENDAR.phase(Segment.NSE, at("2027-03-22", "11:00"))
    assert (holi.kind, holi.is_provisional) == (Kind.CONTINUOUS, True)
    assert holi.sentence == "NSE is open until 15:15. It may be a holiday: Holi."
    assert CALENDAR.is_provisional(Segment.NSE, date(2027, 3, 23))
    assert not CALENDAR.is_provisional(Segment.NSE, date(2026, 11, 25))


@pytest.mark.parametrize("year", [2024, 2028, 2035])
def test_a_year_that_is_not_bundled_has_weekdays_and_fixed_holidays_and_says_so(year: int) -> None:
    for month, day in ((1, 26), (4, 14), (5, 1), (8, 15), (10, 2), (12, 25)):
        assert not CALENDAR.is_trading_day(Segment.NSE, date(year, month, day))
    for number in range(date(year, 6, 1).toordinal(), date(year, 6, 30).toordinal()):
        day = date.fromordinal(number)
        assert CALENDAR.is_trading_day(Segment.NSE, day) is (day.weekday() < 5)
        assert CALENDAR.is_provisional(Segment.NSE, day)
    phase = CALENDAR.phase(Segment.MCX, at("2028-01-26", "10:00"))
    assert phase.is_provisional
    assert phase.sentence.startswith(
        "MCX is closed: Republic Day; it opens on 27 Jan at 09:00. The holidays of 2028 are"
    )
    assert spans(Segment.MCX, "2029-01-01") == ["continuous 09:00-17:00"]
    assert spans(Segment.MCX, "2029-05-01") == ["evening 17:00-23:30"]


# ---------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("segment", "day", "clock", "sentence"),
    [
        (Segment.NSE, "2026-11-24", "10:00", "NSE is closed: Guru Nanak Jayanti; it opens on 25 Nov at 09:15."),
        (Segment.NSE, "2026-11-25", "08:00", "NSE is closed; it opens at 09:15."),
        (Segment.NSE, "2026-11-28", "08:00", "NSE is closed: weekend; it opens on 30 Nov at 09:15."),
        (Segment.NSE, "2026-12-31", "20:00", "NSE is closed; it opens on 1 Jan 2027 at 09:15."),
        (Segment.NSE, "2026-11-25", "09:05", "NSE is in its pre-open session until 09:15."),
        (Segment.NSE, "2026-11-25", "15:20", "NSE is in its closing auction until 15:35."),
        (Segment.NSE, "2026-11-25", "15:55", "NSE is in its post-close session until 16:00."),
        (Segment.NSE, "2026-02-01", "11:00", "NSE is open for a special session (Union Budget) until 15:30."),
        (Segment.NSE, "2026-02-01", "18:00", "NSE is closed; it opens on 2 Feb at 09:15."),
        (Segment.NSE, "2025-10-21", "09:30", "NSE is closed: Diwali Laxmi Pujan; it opens at 13:45."),
        (Segment.NSE, "2025-10-21", "14:00", "NSE is open for Muhurat trading (Diwali Laxmi Pujan) until 14:45."),
        (Segment.MCX, "2026-11-25", "10:00", "MCX is open until 23:55."),
        (Segment.MCX, "2026-11-24", "10:00", "MCX is closed: Guru Nanak Jayanti; it opens at 17:00."),
        (Segment.MCX, "2026-11-24", "18:00", "MCX is open for its evening session until 23:55."),
        (Segment.MCX, "2026-11-24", "23:56", "MCX is closed; it opens on 25 Nov at 09:00."),
        (Segment.MCX, "2026-01-01", "18:00", "MCX is closed: New Year's Day; it opens on 2 Jan at 09:00."),
        (Segment.CRYPTO, "2026-11-28", "03:00", "CRYPTO is open at every hour."),
    ],
)
def test_a_phase_has_a_sentence_for_people(segment: Segment, day: str, clock: str, sentence: str) -> None:
    phase = CALENDAR.phase(segment, at(day, clock))
    assert (phase.sentence, phase.is_provisional) == (sentence, False)


# -------------------------------------------------------------------------------------------------------- next opening


def test_the_next_opening_is_now_while_open_and_skips_pre_open_weekends_and_holidays() -> None:
    noon_ms = at(AUCTIONED, "12:00")
    assert CALENDAR.next_open_ms(Segment.NSE, noon_ms) == noon_ms
    assert CALENDAR.next_open_ms(Segment.NSE, at(AUCTIONED, "09:05")) == at(AUCTIONED, "09:15")
    assert CALENDAR.next_open_ms(Segment.NSE, at("2026-11-20", "15:15")) == at("2026-11-23", "09:15")
    assert CALENDAR.next_open_ms(Segment.NSE, at("2026-11-23", "15:15")) == at("2026-11-25", "09:15")
    assert CALENDAR.next_open_ms(Segment.MCX, at("2026-11-24", "00:00")) == at("2026-11-24", "17:00")
    assert CALENDAR.next_open_ms(Segment.GLOBAL_INDEX, noon_ms) is None


def test_a_market_shut_for_longer_than_is_looked_ahead_has_no_next_opening() -> None:
    first = date(2026, 7, 1).toordinal()
    days = tuple(DayOverride(segment=Segment.NSE, date=date.fromordinal(first + number)) for number in range(40))
    phase = CALENDAR.phase(Segment.NSE, at("2026-07-01", "10:00"), Overrides(days=days))
    assert (phase.kind, phase.until_ms, phase.sentence) == (Kind.CLOSED, None, "NSE is closed.")
    assert CALENDAR.next_open_ms(Segment.NSE, at("2026-07-01", "10:00"), Overrides(days=days)) is None


# -------------------------------------------------------------------------------------------------------------- silence


@pytest.mark.parametrize("segment", TELLING_MS)
def test_silence_in_open_trading_is_news_once_it_lasted(segment: Segment) -> None:
    noon_ms, telling_ms = at(ORDINARY, "12:00"), TELLING_MS[segment]
    assert not CALENDAR.judges_silence(segment, noon_ms, telling_ms - 1)
    assert CALENDAR.judges_silence(segment, noon_ms, telling_ms)
    assert not CALENDAR.expected_quiet(segment, noon_ms)


@pytest.mark.parametrize("segment", [each for each in Segment if each not in TELLING_MS])
def test_thin_and_unknown_markets_are_never_judged(segment: Segment) -> None:
    for hour in range(24):
        now_ms = at(ORDINARY, f"{hour:02}:30")
        assert not CALENDAR.judges_silence(segment, now_ms, DAY_MS)
        assert CALENDAR.expected_quiet(segment, now_ms)


def test_silence_is_not_counted_from_before_the_opening_nor_just_after_it() -> None:
    open_ms, telling_ms = at(ORDINARY, "09:15"), TELLING_MS[Segment.NSE]
    first_ms = open_ms + OPEN_MARGIN_MS + telling_ms
    assert not CALENDAR.judges_silence(Segment.NSE, first_ms - 1, 20 * 3_600_000)
    assert CALENDAR.judges_silence(Segment.NSE, first_ms, 20 * 3_600_000)


def test_silence_is_not_judged_just_before_the_end() -> None:
    end_ms = at(ORDINARY, "15:30") - CLOSE_MARGIN_MS
    assert CALENDAR.judges_silence(Segment.NSE, end_ms - 1, 10 * MINUTE_MS)
    assert not CALENDAR.judges_silence(Segment.NSE, end_ms, 10 * MINUTE_MS)


def test_silence_is_not_counted_across_the_start_of_mcxs_evening() -> None:
    evening_ms = at(ORDINARY, "17:00")
    assert not CALENDAR.judges_silence(Segment.MCX, evening_ms + OPEN_MARGIN_MS, DAY_MS)
    assert CALENDAR.judges_silence(Segment.MCX, evening_ms + OPEN_MARGIN_MS + TELLING_MS[Segment.MCX], DAY_MS)


@pytest.mark.parametrize(
    ("day", "clock"),
    [
        (AUCTIONED, "09:10"),
        (AUCTIONED, "15:25"),
        (AUCTIONED, "15:40"),
        (AUCTIONED, "15:55"),
        (AUCTIONED, "20:00"),
        ("2026-11-24", "11:00"),
        ("2026-11-28", "11:00"),
        ("2025-10-21", "14:30"),
    ],
)
def test_a_closed_auctioning_or_festive_market_is_never_a_dead_feed(day: str, clock: str) -> None:
    assert not CALENDAR.judges_silence(Segment.NSE, at(day, clock), DAY_MS)


def test_auctions_and_closed_markets_are_expected_to_be_quiet_and_muhurat_is_not() -> None:
    assert CALENDAR.expected_quiet(Segment.NSE, at(AUCTIONED, "15:25"))
    assert CALENDAR.expected_quiet(Segment.NSE, at(AUCTIONED, "09:10"))
    assert CALENDAR.expected_quiet(Segment.NSE, at("2026-11-24", "11:00"))
    assert not CALENDAR.expected_quiet(Segment.NSE, at("2025-10-21", "14:30"))


@pytest.mark.parametrize("day", ["2027-03-22", "2027-03-23", "2028-06-14"])
def test_on_an_uncertain_day_silence_is_judged_only_after_a_price(day: str) -> None:
    now_ms = at(day, "11:00")
    assert CALENDAR.judges_silence(Segment.NSE, now_ms, 10 * MINUTE_MS)
    assert not CALENDAR.judges_silence(Segment.NSE, now_ms, 10 * MINUTE_MS, ticked=False)
    assert not CALENDAR.judges_silence(Segment.NSE, now_ms, 20 * 60 * MINUTE_MS)


def test_on_a_certain_day_a_feed_that_never_ticked_is_judged_too() -> None:
    assert CALENDAR.judges_silence(Segment.NSE, at(ORDINARY, "11:00"), 10 * MINUTE_MS, ticked=False)
    assert CALENDAR.judges_silence(Segment.NSE, at("2026-02-01", "11:00"), 10 * MINUTE_MS, ticked=False)


# ----------------------------------------------------------------------------------------------------------- the admin


def test_the_admin_shuts_a_day_and_gives_another_its_sessions() -> None:
    overrides = Overrides(
        days=(
            DayOverride(segment=Segment.NSE, date=date(2026, 12, 1), reason="Election"),
            DayOverride(segment=Segment.NSE, date=date(2026, 12, 5), spans=(Span(Kind.SPECIAL, "10:00", "11:30"),)),
        )
    )
    assert spans(Segment.NSE, "2026-12-01", overrides) == []
    assert spans(Segment.NFO, "2026-12-01", overrides) == ["pre_open 09:00-09:15", "continuous 09:15-15:40"]
    assert spans(Segment.NSE, "2026-12-05", overrides) == ["special 10:00-11:30"]
    phase = CALENDAR.phase(Segment.NSE, at("2026-12-01", "11:00"), overrides)
    assert phase.sentence == "NSE is closed: Election; it opens on 2 Dec at 09:15."
    assert CALENDAR.next_open_ms(Segment.NSE, at("2026-12-04", "18:00"), overrides) == at("2026-12-05", "10:00")
    assert CALENDAR.judges_silence(Segment.NSE, at("2026-12-05", "11:00"), DAY_MS, overrides=overrides)
    assert CALENDAR.is_trading_day(Segment.NSE, date(2026, 12, 5), overrides)
    assert not CALENDAR.is_provisional(Segment.NSE, date(2026, 12, 5), overrides)


def test_the_newest_setting_of_a_day_counts_and_makes_it_certain() -> None:
    shut = DayOverride(segment=Segment.NSE, date=date(2027, 3, 22), reason="Holi", set_ms=2)
    opened = DayOverride(segment=Segment.NSE, date=date(2027, 3, 22), spans=(Span(Kind.SPECIAL, "10:00", "11:00"),))
    for days in ((shut, opened), (opened, shut)):
        phase = CALENDAR.phase(Segment.NSE, at("2027-03-22", "10:30"), Overrides(days=days))
        assert (phase.kind, phase.is_provisional) == (Kind.CLOSED, False)


def test_what_the_admin_set_stands_whatever_brokers_say() -> None:
    said = tuple(word(source, Kind.CONTINUOUS, "2026-12-01", "10:00") for source in ("upstox", "fyers"))
    shut = DayOverride(segment=Segment.NSE, date=date(2026, 12, 1))
    assert kind(Segment.NSE, at("2026-12-01", "10:01"), Overrides(days=(shut,), words=said)) is Kind.CLOSED


def test_even_crypto_can_be_set_shut() -> None:
    shut = Overrides(days=(DayOverride(segment=Segment.CRYPTO, date=date(2026, 12, 1)),))
    assert kind(Segment.CRYPTO, at("2026-12-01", "10:00"), shut) is Kind.CLOSED


# ------------------------------------------------------------------------------------------------------- brokers' words


def test_one_brokers_word_halts_a_market_until_the_next_word_or_phase() -> None:
    halted = Overrides(words=(word("upstox", Kind.CLOSED, ORDINARY, "11:00"),))
    assert kind(Segment.NSE, at(ORDINARY, "11:00") - 1, halted) is Kind.CONTINUOUS
    phase = CALENDAR.phase(Segment.NSE, at(ORDINARY, "11:00"), halted)
    assert (phase.kind, phase.since_ms, phase.is_provisional) == (Kind.CLOSED, at(ORDINARY, "11:00"), True)
    assert phase.sentence == "upstox says that NSE is closed."
    assert phase.until_ms == at(ORDINARY, "15:30")
    assert not CALENDAR.judges_silence(Segment.NSE, at(ORDINARY, "12:00"), DAY_MS, overrides=halted)
    assert kind(Segment.NSE, at(ORDINARY, "15:45"), halted) is Kind.POST_CLOSE
    assert kind(Segment.BSE, at(ORDINARY, "11:30"), halted) is Kind.CONTINUOUS


def test_after_a_halt_silence_counts_from_the_reopening() -> None:
    words = (
        word("upstox", Kind.CLOSED, ORDINARY, "11:00"),
        word("upstox", Kind.PRE_OPEN, ORDINARY, "11:45"),
        word("upstox", Kind.CONTINUOUS, ORDINARY, "12:00"),
        word("upstox", Kind.CONTINUOUS, ORDINARY, "12:05"),
    )
    overrides = Overrides(words=words)
    assert kind(Segment.NSE, at(ORDINARY, "11:50"), overrides) is Kind.PRE_OPEN
    phase = CALENDAR.phase(Segment.NSE, at(ORDINARY, "12:10"), overrides)
    assert (phase.kind, phase.since_ms, phase.is_provisional) == (Kind.CONTINUOUS, at(ORDINARY, "12:00"), False)
    first_ms = at(ORDINARY, "12:00") + OPEN_MARGIN_MS + TELLING_MS[Segment.NSE]
    assert not CALENDAR.judges_silence(Segment.NSE, first_ms - 1, DAY_MS, overrides=overrides)
    assert CALENDAR.judges_silence(Segment.NSE, first_ms, DAY_MS, overrides=overrides)


def test_closed_said_before_the_opening_ends_with_it() -> None:
    early = Overrides(words=(word("upstox", Kind.CLOSED, ORDINARY, "08:00"),))
    assert kind(Segment.NSE, at(ORDINARY, "09:05"), early) is Kind.PRE_OPEN
    assert kind(Segment.NSE, at(ORDINARY, "10:00"), early) is Kind.CONTINUOUS


def test_the_newest_word_wins_whoever_says_it() -> None:
    words = (word("fyers", Kind.CONTINUOUS, ORDINARY, "11:05"), word("upstox", Kind.CLOSED, ORDINARY, "11:00"))
    assert kind(Segment.NSE, at(ORDINARY, "11:04"), Overrides(words=words)) is Kind.CLOSED
    assert kind(Segment.NSE, at(ORDINARY, "11:06"), Overrides(words=words)) is Kind.CONTINUOUS


@pytest.mark.parametrize("day", ["2026-11-24", "2026-11-28"])
def test_a_holiday_or_weekend_opens_only_when_two_brokers_agree(day: str) -> None:
    one = (word("upstox", Kind.CONTINUOUS, day, "10:00"), word("upstox", Kind.CONTINUOUS, day, "10:01"))
    two = (*one, word("fyers", Kind.CONTINUOUS, day, "10:02"))
    assert kind(Segment.NSE, at(day, "10:05"), Overrides(words=one)) is Kind.CLOSED
    phase = CALENDAR.phase(Segment.NSE, at(day, "10:05"), Overrides(words=two))
    assert (phase.kind, phase.is_provisional) == (Kind.SPECIAL, True)
    assert phase.until_ms == at(day, "00:00") + DAY_MS
    assert CALENDAR.next_open_ms(Segment.NSE, at(day, "10:05"), Overrides(words=two)) == at(day, "10:05")
    assert not CALENDAR.judges_silence(Segment.NSE, at(day, "12:00"), 10 * MINUTE_MS, overrides=Overrides(words=two))
    taken_back = (*two, word("upstox", Kind.CLOSED, day, "10:03"), word("fyers", Kind.CONTINUOUS, day, "10:04"))
    assert kind(Segment.NSE, at(day, "10:05"), Overrides(words=taken_back)) is Kind.CLOSED


def test_the_shut_morning_of_mcx_needs_two_words_as_well() -> None:
    one = (word("upstox", Kind.CONTINUOUS, "2026-11-24", "10:00", Segment.MCX),)
    two = (*one, word("fyers", Kind.EVENING, "2026-11-24", "10:00", Segment.MCX))
    assert kind(Segment.MCX, at("2026-11-24", "10:05"), Overrides(words=one)) is Kind.CLOSED
    assert kind(Segment.MCX, at("2026-11-24", "10:05"), Overrides(words=two)) is Kind.SPECIAL


def test_one_word_prolongs_a_trading_day_and_is_forgotten_at_midnight() -> None:
    prolonged = Overrides(words=(word("upstox", Kind.CONTINUOUS, ORDINARY, "16:30"),))
    assert kind(Segment.NSE, at(ORDINARY, "16:31"), prolonged) is Kind.SPECIAL
    assert not CALENDAR.judges_silence(Segment.NSE, at(ORDINARY, "17:00"), 10 * MINUTE_MS, overrides=prolonged)
    midnight_ms = at(ORDINARY, "00:00") + DAY_MS
    assert kind(Segment.NSE, midnight_ms - 1, prolonged) is Kind.SPECIAL
    assert kind(Segment.NSE, midnight_ms, prolonged) is Kind.CLOSED


def test_open_said_of_an_auction_changes_nothing() -> None:
    said = Overrides(words=(word("upstox", Kind.CONTINUOUS, AUCTIONED, "15:20"),))
    assert kind(Segment.NSE, at(AUCTIONED, "15:30"), said) is Kind.CLOSING_AUCTION


def test_words_that_agree_change_nothing_and_unknown_ones_say_nothing() -> None:
    now_ms = at(ORDINARY, "12:00")
    said = (word("upstox", Kind.CONTINUOUS, ORDINARY, "11:59"), word("upstox", Kind.UNKNOWN, ORDINARY, "12:00"))
    assert CALENDAR.phase(Segment.NSE, now_ms, Overrides(words=said)) == CALENDAR.phase(Segment.NSE, now_ms)


def test_nobody_knows_the_hours_of_global_indices() -> None:
    said = (word("upstox", Kind.CLOSED, ORDINARY, "10:00", Segment.GLOBAL_INDEX),)
    phase = CALENDAR.phase(Segment.GLOBAL_INDEX, at(ORDINARY, "12:00"), Overrides(words=said))
    assert (phase.kind, phase.until_ms) == (Kind.UNKNOWN, None)


# ----------------------------------------------------------------------------------------------------------- properties


@given(st.sampled_from(list(Segment)), INSTANTS)
def test_phase_and_sessions_agree_at_every_instant(segment: Segment, now_ms: int) -> None:
    phase = CALENDAR.phase(segment, now_ms)
    sessions = CALENDAR.sessions(segment, india_date(now_ms))
    inside = [session for session in sessions if session.start_ms <= now_ms < session.end_ms]
    assert phase.since_ms <= now_ms
    assert phase.until_ms is None or now_ms < phase.until_ms
    if inside:
        assert inside == [Session(phase.kind, phase.since_ms, phase.until_ms or 0)]
    else:
        assert phase.kind in (Kind.CLOSED, Kind.UNKNOWN)
        assert (phase.until_ms is None) is (segment is Segment.GLOBAL_INDEX)


@given(st.sampled_from([*FAMILY, Segment.CRYPTO]), INSTANTS)
def test_a_phase_is_another_one_when_it_ends(segment: Segment, now_ms: int) -> None:
    phase = CALENDAR.phase(segment, now_ms)
    assert phase.until_ms is not None
    if phase.kind is not Kind.CLOSED:
        assert CALENDAR.phase(segment, phase.until_ms - 1) == phase
    assert CALENDAR.phase(segment, phase.until_ms).since_ms == phase.until_ms


@given(st.sampled_from([*FAMILY, Segment.CRYPTO]), INSTANTS)
def test_the_next_opening_is_open_and_nothing_before_it_is(segment: Segment, now_ms: int) -> None:
    open_ms = CALENDAR.next_open_ms(segment, now_ms)
    assert open_ms is not None
    assert CALENDAR.phase(segment, open_ms).kind in OPEN
    if open_ms > now_ms:
        assert CALENDAR.phase(segment, open_ms - 1).kind not in OPEN
        assert CALENDAR.next_open_ms(segment, (now_ms + open_ms) // 2) == open_ms


@given(st.sampled_from(list(Segment)), INSTANTS, st.integers(0, 7 * DAY_MS), st.booleans())
def test_only_silence_that_is_not_expected_is_ever_judged(
    segment: Segment, now_ms: int, silent_for_ms: int, ticked: bool
) -> None:
    if CALENDAR.judges_silence(segment, now_ms, silent_for_ms, ticked=ticked):
        assert not CALENDAR.expected_quiet(segment, now_ms)
        assert CALENDAR.phase(segment, now_ms).kind in JUDGED
        assert silent_for_ms >= TELLING_MS[segment]


KINDS = st.sampled_from([item for item in Kind if item is not Kind.UNKNOWN])
SAID = st.lists(st.tuples(st.sampled_from(["upstox", "fyers", "zerodha"]), KINDS, st.integers(0, DAY_MS)), max_size=6)


@given(SAID, st.integers(0, DAY_MS - 1), st.sampled_from([ORDINARY, AUCTIONED, "2026-11-24", "2026-11-28"]))
def test_words_never_make_a_silent_feed_dead_where_the_calendar_would_not(
    said: list[tuple[str, Kind, int]], of_day_ms: int, day: str
) -> None:
    midnight_ms = at(day, "00:00")
    words = tuple(
        Word(segment=Segment.NSE, source=source, kind=what, said_ms=midnight_ms + then) for source, what, then in said
    )
    overrides, now_ms = Overrides(words=words), midnight_ms + of_day_ms
    phase = CALENDAR.phase(Segment.NSE, now_ms, overrides)
    assert phase.since_ms <= now_ms
    assert phase.until_ms is not None and now_ms < phase.until_ms
    if CALENDAR.judges_silence(Segment.NSE, now_ms, DAY_MS, overrides=overrides):
        assert CALENDAR.judges_silence(Segment.NSE, now_ms, DAY_MS)


# -------------------------------------------------------------------------------------------------- facts that are none


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        (Span, ["continuous", "15:30", "09:15"]),
        (Span, ["continuous", "09:15", "24:00"]),
        (Span, ["closed", "09:15", "15:30"]),
        (Span, ["evening", "17:00", "23:30", "16:00"]),
        (Hours, {"segments": ["NSE"], "since": "2025-01-01", "spans": [["evening", "10:00", "12:00"]] * 2}),
        (
            Year,
            {
                "year": 2027,
                "provisional": False,
                "sources": [],
                "holidays": [{"date": "2026-01-26", "name": "x", "closes": {}}],
            },
        ),
    ],
)
def test_facts_that_cannot_be_are_refused(shape: type[object], content: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(content, shape)


def test_a_day_set_with_sessions_that_overlap_is_refused() -> None:
    overlapping = (Span(Kind.SPECIAL, "10:00", "12:00"), Span(Kind.SPECIAL, "11:00", "13:00"))
    with pytest.raises(ValueError, match="begins before"):
        DayOverride(segment=Segment.NSE, date=date(2026, 12, 5), spans=overlapping)


# ----------------------------------------------------------------------------------------- what a person sees and sets


@pytest.mark.parametrize(
    "text",
    [
        "pre_open 09:00-09:15\ncontinuous 09:15-15:30",
        "  Pre-Open 9:00 – 9:15  \r\n\r\nCONTINUOUS: 9:15 to 15:30\n",
        "pre open\t09:00 -09:15\ncontinuous 09:15- 15:30",
    ],
)
def test_sessions_are_read_as_people_write_them(text: str) -> None:
    assert parse_spans(text) == (Span(Kind.PRE_OPEN, "09:00", "09:15"), Span(Kind.CONTINUOUS, "09:15", "15:30"))


def test_no_lines_are_no_sessions() -> None:
    assert parse_spans("") == parse_spans(" \n\n ") == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("closed", "Line 1, “closed”, is no session; write its kind, its start and its end, such as"),
        ("\nmuhurat 18-19", "Line 2, “muhurat 18-19”, is no session;"),
        ("muhurat 18:00-19:00 IST", "Line 1, “muhurat 18:00-19:00 IST”, is no session;"),
        ("lunch 12:00-13:00", "Line 1: “lunch” is no kind of session; use one of pre_open, continuous,"),
        ("18:00-19:00", "Line 1: “” is no kind of session;"),
        ("closed 18:00-19:00", "Line 1: “closed” is no kind of session;"),
        ("special 09:15-24:00", "Line 1: 24:00 is no time of day; write one from 00:00 to 23:59."),
        ("special 09:60-10:00", "Line 1: 09:60 is no time of day;"),
        ("special 10:00-10:00", "Line 1: a session from 10:00 to 10:00 does not end after it begins."),
        (
            "special 10:00-11:00\n\nevening 10:59-12:00",
            "Line 3 begins at 10:59, before the one above it ends at 11:00;",
        ),
    ],
)
def test_a_line_that_is_no_session_is_named_with_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as problem:
        parse_spans(text)
    assert str(problem.value).startswith(sentence)


@given(st.text(max_size=60))
def test_whatever_is_written_there_are_sessions_in_order_or_one_sentence(text: str) -> None:
    try:
        found = parse_spans(text)
    except ValueError as problem:
        assert str(problem).startswith("Line ")
    else:
        DayOverride(segment=Segment.NSE, date=date(2026, 7, 15), spans=found)


@pytest.mark.parametrize(
    ("segment", "day", "hours", "is_ordinary", "sentence"),
    [
        (Segment.NSE, ORDINARY, ["09:15-15:30"], True, "NSE trades from 09:15 to 15:30."),
        (Segment.MCX, ORDINARY, ["09:00-23:30"], True, "MCX trades from 09:00 to 23:30."),
        (Segment.NSE, "2026-11-28", [], True, "NSE is closed: weekend."),
        (Segment.NSE, "2026-12-25", [], False, "NSE is closed: Christmas."),
        (
            Segment.MCX,
            "2026-10-20",
            ["17:00-23:30"],
            False,
            "MCX trades from 17:00 to 23:30; else it is closed: Dussehra.",
        ),
        (Segment.NSE, "2026-02-01", ["09:15-15:30"], False, "NSE trades from 09:15 to 15:30 (Union Budget)."),
        (
            Segment.NSE,
            "2026-11-08",
            ["18:15-19:15"],
            False,
            "NSE trades from 18:15 to 19:15 (Diwali Laxmi Pujan). Its times are not confirmed.",
        ),
        (Segment.CRYPTO, "2026-12-25", ["00:00-00:00"], True, "CRYPTO trades at every hour."),
        (
            Segment.GLOBAL_INDEX,
            ORDINARY,
            [],
            True,
            "Global indices keep their own exchanges' hours, which are not known here.",
        ),
    ],
)
def test_a_day_has_a_sentence_for_people(
    segment: Segment, day: str, hours: list[str], is_ordinary: bool, sentence: str
) -> None:
    outlook = CALENDAR.outlook(segment, date.fromisoformat(day))
    assert [f"{india_clock(each.start_ms)}-{india_clock(each.end_ms)}" for each in outlook.trades] == hours
    assert (outlook.is_ordinary, outlook.sentence, outlook.is_set) == (is_ordinary, sentence, False)


def test_a_set_day_is_told_as_such() -> None:
    day = date.fromisoformat(ORDINARY)
    shut = Overrides(days=(DayOverride(segment=Segment.NSE, date=day, reason="cyclone"),))
    outlook = CALENDAR.outlook(Segment.NSE, day, shut)
    assert (outlook.sentence, outlook.is_set, outlook.is_ordinary) == ("NSE is closed: cyclone.", True, False)
    halves = (Span(Kind.SPECIAL, "09:15", "10:00"), Span(Kind.SPECIAL, "11:30", "12:30"))
    tested = Overrides(days=(DayOverride(segment=Segment.NSE, date=day, spans=halves, reason="test"),))
    assert (
        CALENDAR.outlook(Segment.NSE, day, tested).sentence
        == "NSE trades from 09:15 to 10:00 and from 11:30 to 12:30 (test)."
    )


def test_a_provisional_day_is_told_as_such() -> None:
    outlook = CALENDAR.outlook(Segment.NSE, date(2027, 3, 22))
    assert outlook.is_provisional
    assert outlook.is_ordinary
    assert outlook.sentence == "NSE trades from 09:15 to 15:15. It may be a holiday: Holi."


@given(st.sampled_from(sorted(FAMILY)), INSTANTS)
def test_the_outlook_of_a_day_and_its_phases_agree(segment: Segment, now_ms: int) -> None:
    outlook = CALENDAR.outlook(segment, india_date(now_ms))
    is_within = any(each.start_ms <= now_ms < each.end_ms for each in outlook.trades)
    assert (kind(segment, now_ms) in OPEN) == is_within
    assert bool(outlook.trades) == CALENDAR.is_trading_day(segment, india_date(now_ms))
