"""The markets' hours with a clock that a test sets, and what connections make of silence in each kind of session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import date
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers import registry
from brokers.contract import InstrumentRow, MarketKind, Update
from brokers.feed import connection as module
from brokers.feed import transports
from brokers.feed.calendar import DayOverride, Overrides, Word, parse_spans
from brokers.feed.calendar_store import load_calendar
from brokers.feed.connection import BUSY, Connection, Route
from brokers.feed.counters import Counters
from brokers.feed.hours import NO_DATA_S, WORDS, Hours
from brokers.india import DAY_MS, india_ms
from brokers.schemas import upstox_pb2 as schema
from brokers.simulators import rows_of, simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from marketdata.ticks import Mode, Segment, Token
from tests.brokers.feed.bench import Toy, ToyBroker, until

CALENDAR = load_calendar()
ORDINARY, SATURDAY = "2026-11-25", "2026-11-28"
CASH = (Segment.NSE, Segment.NSE_INDEX)


class Clock:
    """Stands still at an Indian date and time of day until a test moves it."""

    def __init__(self, day: str, clock: str) -> None:
        self.now_s = 0.0
        self.set(day, clock)

    def set(self, day: str, clock: str) -> None:
        minute, _, second = clock.partition(".")
        self.now_s = india_ms(date.fromisoformat(day), minute) / 1000 + int(second or 0)

    def __call__(self) -> float:
        return self.now_s


class Scene(NamedTuple):
    """A moment: where, when, and what is known beyond the calendar."""

    segment: Segment
    day: str
    clock: str
    days: tuple[DayOverride, ...] = ()
    words: Mapping[str, MarketKind] = {}
    """What brokers said half a minute before."""

    def hours(self) -> Hours:
        clock = Clock(self.day, self.clock)
        hours = Hours(CALENDAR, clock)
        hours.set_days(self.days)
        clock.now_s -= 30
        for source, kind in self.words.items():
            hours.heard(source, {self.segment: kind})
        clock.now_s += 30
        return hours


def set_day(day: str, text: str = "", segment: Segment = Segment.NSE) -> tuple[DayOverride, ...]:
    spans = parse_spans(text)
    return (DayOverride(segment=segment, date=date.fromisoformat(day), spans=spans, reason="cyclone", set_ms=1),)


QUIET = {
    "pre-open": Scene(Segment.NSE, ORDINARY, "09:05"),
    "pre-open of derivatives": Scene(Segment.NFO, ORDINARY, "09:05"),
    "the first minute": Scene(Segment.NSE, ORDINARY, "09:15.50"),
    "the last seconds": Scene(Segment.NSE, ORDINARY, "15:14.50"),
    "closing auction": Scene(Segment.NSE, ORDINARY, "15:20"),
    "between close and post-close": Scene(Segment.NSE, ORDINARY, "15:40"),
    "post-close": Scene(Segment.NSE, ORDINARY, "15:55"),
    "evening of shares": Scene(Segment.NSE, ORDINARY, "20:00"),
    "before the day": Scene(Segment.NSE, ORDINARY, "07:00"),
    "currency": Scene(Segment.CDS, ORDINARY, "11:00"),
    "agricultural goods": Scene(Segment.NCDEX, ORDINARY, "11:00"),
    "indices abroad": Scene(Segment.GLOBAL_INDEX, ORDINARY, "11:00"),
    "MCX's change of session": Scene(Segment.MCX, ORDINARY, "17:00.50"),
    "MCX's night": Scene(Segment.MCX, ORDINARY, "23:56"),
    "weekend": Scene(Segment.NSE, SATURDAY, "11:00"),
    "weekend of MCX": Scene(Segment.MCX, SATURDAY, "20:00"),
    "full holiday": Scene(Segment.NSE, "2026-12-25", "11:00"),
    "full holiday of MCX": Scene(Segment.MCX, "2026-12-25", "20:00"),
    "half-day holiday, morning": Scene(Segment.MCX, "2026-10-20", "11:00"),
    "half-day holiday, shares": Scene(Segment.NSE, "2026-10-20", "11:00"),
    "Muhurat": Scene(Segment.NSE, "2026-11-08", "18:30"),
    "before Muhurat": Scene(Segment.NSE, "2026-11-08", "11:00"),
    "a day that may be a holiday": Scene(Segment.NSE, "2027-03-22", "11:00"),
    "any day of a provisional year": Scene(Segment.NSE, "2027-04-06", "11:00"),
    "shut by the admin": Scene(Segment.NSE, ORDINARY, "11:00", set_day(ORDINARY)),
    "after what the admin set": Scene(Segment.NSE, ORDINARY, "11:00", set_day(ORDINARY, "continuous 09:15-10:00")),
    "halted by a broker's word": Scene(Segment.NSE, ORDINARY, "11:00", words={"upstox": MarketKind.CLOSED}),
    "auctioned after a halt": Scene(Segment.NSE, ORDINARY, "11:00", words={"upstox": MarketKind.PRE_OPEN}),
    "opened by one broker at night": Scene(Segment.NSE, ORDINARY, "20:00", words={"upstox": MarketKind.CONTINUOUS}),
    "opened by two on a Saturday": Scene(
        Segment.NSE, SATURDAY, "11:00", words={"upstox": MarketKind.CONTINUOUS, "fyers": MarketKind.CONTINUOUS}
    ),
}

OPEN = {
    "continuous": Scene(Segment.NSE, ORDINARY, "11:00"),
    "continuous, derivatives": Scene(Segment.NFO, ORDINARY, "15:20"),
    "MCX's morning": Scene(Segment.MCX, ORDINARY, "11:00"),
    "MCX's evening": Scene(Segment.MCX, ORDINARY, "20:00"),
    "half-day holiday, evening": Scene(Segment.MCX, "2026-10-20", "20:00"),
    "Budget Sunday": Scene(Segment.NSE, "2026-02-01", "11:00"),
    "Budget Saturday": Scene(Segment.NSE, "2025-02-01", "11:00"),
    "a special Saturday the admin set": Scene(Segment.NSE, SATURDAY, "11:00", set_day(SATURDAY, "special 9:15-12:30")),
    "a certain day of a provisional year": Scene(
        Segment.NSE, "2027-04-06", "11:00", set_day("2027-04-06", "continuous 09:15-15:15")
    ),
    "open as a broker says": Scene(Segment.NSE, ORDINARY, "11:00", words={"upstox": MarketKind.CONTINUOUS}),
}

THIN = (QUIET["currency"], QUIET["agricultural goods"])
"""Open, but a whole feed may be silent there; that nothing ever came of an instrument is told all the same."""

QUIETS = pytest.mark.parametrize("scene", QUIET.values(), ids=QUIET.keys())
OPENS = pytest.mark.parametrize("scene", OPEN.values(), ids=OPEN.keys())


# ---------------------------------------------------------------------------------------------------------------- hours


@QUIETS
def test_in_a_quiet_market_silence_says_nothing_and_nothing_is_missed(scene: Scene) -> None:
    hours = scene.hours()
    for silent_s in (0.0, 31.0, 600.0, 86_400.0):
        assert not hours.tells([scene.segment], silent_s, False)
        assert not hours.misses(scene.segment, silent_s) or scene in THIN


@OPENS
def test_in_open_trading_a_silence_that_lasts_says_something_and_a_first_price_is_missed(scene: Scene) -> None:
    hours = scene.hours()
    assert hours.is_open(scene.segment)
    assert not hours.is_quiet(scene.segment)
    assert hours.closed_sentence([scene.segment]) is None
    assert hours.tells([scene.segment], 600.0, False)
    assert not hours.tells([scene.segment], 20.0, True)
    assert hours.misses(scene.segment, NO_DATA_S)
    assert not hours.misses(scene.segment, NO_DATA_S - 0.1)


@pytest.mark.parametrize("scene", THIN)
def test_in_a_thin_market_a_first_price_is_missed_though_silence_says_nothing(scene: Scene) -> None:
    hours = scene.hours()
    assert (hours.is_open(scene.segment), hours.is_quiet(scene.segment)) == (True, True)
    assert not hours.tells([scene.segment], 86_400.0, True)
    assert hours.misses(scene.segment, NO_DATA_S)


def test_one_telling_segment_is_enough() -> None:
    hours = Hours(CALENDAR, Clock(ORDINARY, "20:00"))
    assert not hours.tells([Segment.NSE, Segment.NFO, Segment.CDS], 600.0, True)
    assert hours.tells([Segment.NSE, Segment.MCX], 600.0, True)
    assert not hours.tells([], 600.0, True)


def test_a_first_price_is_missed_only_some_time_after_the_opening() -> None:
    clock = Clock(ORDINARY, "09:16.9")
    hours = Hours(CALENDAR, clock)
    assert not hours.misses(Segment.NSE, 3600.0)
    clock.set(ORDINARY, "09:16.10")
    assert hours.misses(Segment.NSE, 3600.0)


def test_on_a_day_that_may_be_a_holiday_something_is_missed_once_others_had_prices() -> None:
    hours = QUIET["a day that may be a holiday"].hours()
    assert hours.misses(Segment.NSE, 60.0, ticked=True)
    assert hours.tells([Segment.NSE], 60.0, True)
    assert not hours.tells([Segment.NSE], 3 * 3600.0, True), "that price was of the day before"


def test_after_a_halt_silence_counts_from_the_reopening() -> None:
    clock = Clock(ORDINARY, "11:00")
    hours = Hours(CALENDAR, clock)
    hours.heard("upstox", {Segment.NSE: MarketKind.CLOSED})
    clock.set(ORDINARY, "11:45")
    assert not hours.tells(CASH[:1], 2700.0, True)
    hours.heard("upstox", {Segment.NSE: MarketKind.PRE_OPEN})
    clock.set(ORDINARY, "12:00")
    hours.heard("upstox", {Segment.NSE: MarketKind.CONTINUOUS})
    assert hours.is_open(Segment.NSE)
    clock.set(ORDINARY, "12:01")
    assert not hours.tells(CASH[:1], 3660.0, True)
    clock.set(ORDINARY, "12:01.30")
    assert hours.tells(CASH[:1], 3690.0, True)


def test_a_day_that_is_set_takes_effect_at_once_and_so_does_its_end() -> None:
    hours = Hours(CALENDAR, Clock(ORDINARY, "11:00"))
    assert hours.is_open(Segment.NSE)
    hours.set_days(set_day(ORDINARY))
    assert not hours.is_open(Segment.NSE)
    assert hours.is_open(Segment.NFO)
    hours.heard("upstox", {Segment.NSE: MarketKind.CONTINUOUS})
    hours.heard("fyers", {Segment.NSE: MarketKind.CONTINUOUS})
    assert not hours.is_open(Segment.NSE), "what the admin set is final"
    hours.set_days(())
    assert hours.is_open(Segment.NSE)


@pytest.mark.parametrize(
    ("segments", "day", "clock", "sentence"),
    [
        ([Segment.NSE], ORDINARY, "20:00", "NSE is closed; it opens on 26 Nov at 09:15."),
        ([Segment.NSE], ORDINARY, "07:00", "NSE is closed; it opens at 09:15."),
        (
            [Segment.NFO, Segment.NSE],
            SATURDAY,
            "11:00",
            "NSE and NFO are closed: weekend; they open on 30 Nov at 09:15.",
        ),
        ([Segment.NSE, Segment.NSE], "2026-12-25", "11:00", "NSE is closed: Christmas; it opens on 28 Dec at 09:15."),
        (
            [Segment.MCX, Segment.NSE],
            "2026-10-20",
            "11:00",
            "NSE and MCX are closed: Dussehra; MCX opens first, at 17:00.",
        ),
        (
            [Segment.MCX, Segment.NSE, Segment.CDS],
            ORDINARY,
            "23:58",
            "NSE, CDS and MCX are closed; CDS opens first, on 26 Nov at 09:00.",
        ),
        ([Segment.NSE, Segment.MCX], ORDINARY, "20:00", None),
        ([Segment.NSE], ORDINARY, "09:05", None),
        ([Segment.NSE], ORDINARY, "15:55", None),
        ([Segment.NSE, Segment.GLOBAL_INDEX], ORDINARY, "20:00", None),
        ([], ORDINARY, "20:00", None),
    ],
)
def test_markets_that_are_all_closed_are_told_in_one_sentence(
    segments: list[Segment], day: str, clock: str, sentence: str | None
) -> None:
    assert Hours(CALENDAR, Clock(day, clock)).closed_sentence(segments) == sentence


def test_of_a_halt_nobody_knows_the_end() -> None:
    assert QUIET["halted by a broker's word"].hours().closed_sentence([Segment.NSE]) == "NSE is closed: upstox says so."


def test_the_sentence_of_a_night_changes_at_midnight() -> None:
    clock = Clock(ORDINARY, "23:59.59")
    hours = Hours(CALENDAR, clock)
    assert "on 26 Nov at 09:15" in hours.phase(Segment.NSE).sentence
    clock.now_s += 1
    assert "opens at 09:15" in hours.phase(Segment.NSE).sentence


def test_the_next_opening_is_that_of_the_first() -> None:
    hours = Hours(CALENDAR, Clock(ORDINARY, "23:58"))
    assert hours.next_open_ms([Segment.NSE, Segment.MCX]) == india_ms(date(2026, 11, 26), "09:00")
    assert hours.next_open_ms([Segment.NSE, Segment.CRYPTO]) == india_ms(date(2026, 11, 25), "23:58")
    assert hours.next_open_ms([Segment.GLOBAL_INDEX]) is hours.next_open_ms([]) is None


class Counting:
    """The calendar, counting how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def phases(self, *arguments: object) -> object:
        self.asked += 1
        return CALENDAR.phases(*arguments)  # type: ignore[arg-type]


def test_the_calendar_is_asked_once_a_phase_and_once_after_a_change() -> None:
    clock, calendar = Clock(ORDINARY, "11:00"), Counting()
    hours = Hours(calendar, clock)  # type: ignore[arg-type]
    for _ in range(3600):
        clock.now_s += 1
        assert hours.is_open(Segment.NSE)
        hours.tells(CASH[:1], 60.0, True)
        hours.set_days(())
    assert calendar.asked == 1
    hours.heard("upstox", {Segment.NSE: MarketKind.CLOSED})
    for _ in range(60):
        clock.now_s += 1
        hours.heard("upstox", {Segment.NSE: MarketKind.CLOSED})  # nothing new
        assert not hours.is_open(Segment.NSE)
    assert calendar.asked == 2
    clock.set(ORDINARY, "15:20")
    assert hours.phase(Segment.NSE).kind is MarketKind.CLOSING_AUCTION
    assert calendar.asked == 3


def test_words_are_bounded_however_much_a_broker_talks() -> None:
    clock = Clock(ORDINARY, "10:00")
    hours = Hours(CALENDAR, clock)
    for number in range(1000):
        clock.now_s += 1
        said = MarketKind.CLOSED if number % 2 else MarketKind.CONTINUOUS
        hours.heard("upstox", dict.fromkeys(Segment, said))
    assert max(map(len, hours._words.values())) == WORDS
    assert not hours.is_open(Segment.NSE), "the last word"
    clock.set("2026-11-26", "10:00")
    hours.heard("upstox", dict.fromkeys(Segment, MarketKind.CONTINUOUS))
    assert max(map(len, hours._words.values())) == 1, "yesterday's words say nothing any more"


SAYINGS = st.lists(
    st.tuples(
        st.integers(1, DAY_MS // 12),
        st.sampled_from(["upstox", "fyers", "dhan"]),
        st.sampled_from(sorted(MarketKind)),
    ),
    max_size=WORDS,
)


@given(
    st.integers(india_ms(date(2026, 1, 1)), india_ms(date(2027, 6, 1))),
    st.sampled_from([Segment.NSE, Segment.MCX, Segment.CRYPTO]),
    SAYINGS,
)
def test_what_is_remembered_is_what_the_calendar_would_say(start_ms: int, segment: Segment, sayings: list) -> None:
    now_ms, words = start_ms, []
    hours = Hours(CALENDAR, lambda: now_ms / 1000)
    for pause_ms, source, kind in sayings:
        now_ms += pause_ms
        for when in ("before the word", "after it"):
            overrides = Overrides(words=tuple(words))
            told, right = hours.phase(segment), CALENDAR.phase(segment, now_ms, overrides)
            assert (told.kind, told.since_ms, told.until_ms) == (right.kind, right.since_ms, right.until_ms), when
            for silent_s in (29.0, 61.0, 3600.0):
                is_news = CALENDAR.judges_silence(segment, now_ms, int(silent_s * 1000), overrides=overrides)
                assert hours.tells([segment], silent_s, True) == is_news, when
            if when == "before the word":
                hours.heard(source, {segment: kind})
                words.append(Word(segment=segment, source=source, kind=kind, said_ms=now_ms))


# ---------------------------------------------------------------------------------------------------------- connections

SILENCE_S = 0.03
FASTER = 12_000.0
"""A real second of silence counts as so many: no test waits for half a minute."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.01)


class Watch:
    """A connection that does not beat, with `hours`, and how often it was about to judge a silence."""

    def __init__(self, route: Route, hours: Hours) -> None:
        self.asked = 0
        self.updates: list[Update] = []
        self.hours = hours
        self.connection = Connection(
            "main",
            route,
            route.feed.limits,
            deliver=lambda updates, received_ms: self.updates.extend(updates),
            on_change=lambda: None,
            on_lost=lambda tokens: None,
            counters=Counters(),
            chance=lambda: 0.0,
            on_markets=lambda markets: hours.heard(route.adapter.spec.slug, markets),
            tells=self._tells,
        )
        self.task = asyncio.create_task(self.connection.run())

    def _tells(self, segments: Collection[Segment], silent_for_s: float, ticked: bool) -> bool:
        self.asked += 1
        return self.hours.tells(segments, silent_for_s * FASTER, ticked)

    def want(self, segment: Segment, count: int = BUSY) -> None:
        for number in range(count):
            self.connection.want(Token(segment, str(number)), Mode.LTP)

    async def judged(self, times: int = 3) -> None:
        """Waits until it asked so often more whether a silence says anything: then it had every reason to reconnect."""
        before = self.asked
        await until(lambda: self.asked >= before + times, "judgements")


@asynccontextmanager
async def watching(hours: Hours, *, ping_s: float | None = None) -> AsyncIterator[tuple[Watch, ToyBroker]]:
    toy = Toy(silence_s=SILENCE_S, ping_s=ping_s)
    feed = msgspec.structs.replace(toy.feed, beats=False)
    async with ToyBroker() as broker:
        watch = Watch(Route(toy, feed, {"key": "k", "token": "good"}, broker.url), hours)
        try:
            await until(lambda: watch.connection.is_up, "the connection")
            yield watch, broker
        finally:
            watch.task.cancel()
            await asyncio.wait([watch.task])


@QUIETS
async def test_no_kind_of_quiet_session_causes_a_reconnect(scene: Scene) -> None:
    async with watching(scene.hours()) as (watch, broker):
        watch.want(scene.segment)
        await watch.judged()
        assert broker.attempts == 1


@OPENS
async def test_silence_in_open_trading_ends_the_connection_and_all_is_subscribed_again(scene: Scene) -> None:
    async with watching(scene.hours()) as (watch, broker):
        watch.want(scene.segment)
        await until(lambda: broker.attempts >= 2, "another connection")
        await until(lambda: len(broker.held) == BUSY, "the subscriptions again")


async def test_a_feed_that_died_overnight_is_found_when_the_market_opens() -> None:
    clock = Clock(ORDINARY, "08:00")
    async with watching(Hours(CALENDAR, clock)) as (watch, broker):
        watch.want(Segment.NSE)
        for minute in ("08:00", "09:05", "09:15.30"):
            clock.set(ORDINARY, minute)
            await watch.judged()
        assert broker.attempts == 1
        clock.set(ORDINARY, "09:17")
        await until(lambda: broker.attempts >= 2, "another connection")


async def test_a_few_shares_may_be_silent_for_long() -> None:
    async with watching(OPEN["continuous"].hours()) as (watch, broker):
        watch.want(Segment.NSE, BUSY - 1)
        await watch.judged()
        assert broker.attempts == 1


async def test_many_instruments_of_closed_markets_do_not_make_a_few_of_an_open_one_busy() -> None:
    async with watching(OPEN["MCX's evening"].hours()) as (watch, broker):
        watch.want(Segment.NSE, 50)
        watch.want(Segment.MCX, 1)
        await watch.judged()
        assert broker.attempts == 1
        watch.want(Segment.MCX, BUSY)
        await until(lambda: broker.attempts >= 2, "another connection")


async def test_an_index_alone_is_busy() -> None:
    async with watching(OPEN["continuous"].hours()) as (watch, broker):
        watch.want(Segment.NSE_INDEX, 1)
        await until(lambda: broker.attempts >= 2, "another connection")


async def test_on_a_day_that_may_be_a_holiday_an_image_of_old_prices_proves_nothing_and_a_price_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watching(QUIET["a day that may be a holiday"].hours()) as (watch, broker):
        watch.want(Segment.NSE)
        await until(lambda: len(broker.held) == BUSY, "the subscriptions")
        await broker.send({"token": 1, "ltp": 1.0})
        await until(lambda: watch.updates, "the image")
        await watch.judged()
        assert broker.attempts == 1
        monkeypatch.setattr(module, "IMAGE_S", 0.0)
        await broker.send({"token": 1, "ltp": 2.0})
        await until(lambda: broker.attempts >= 2, "another connection")


async def test_a_feed_that_beats_is_dead_when_silent_at_every_hour() -> None:
    toy = Toy(silence_s=SILENCE_S)
    async with ToyBroker() as broker:
        watch = Watch(Route(toy, toy.feed, {"key": "k", "token": "good"}, broker.url), QUIET["weekend"].hours())
        watch.want(Segment.NSE, 1)
        await until(lambda: broker.attempts >= 2, "another connection")
        assert watch.asked == 0
        watch.task.cancel()
        await asyncio.wait([watch.task])


# ------------------------------------------------------------------------------------------------------- after a sleep


@pytest.mark.parametrize(
    ("scene", "ping_s", "attempts"),
    [
        (QUIET["evening of shares"], 10.0, 1),
        (QUIET["evening of shares"], None, 2),
        (OPEN["continuous"], 10.0, 2),
    ],
    ids=["closed, with pings", "closed, without", "open"],
)
async def test_after_a_sleep_a_silent_socket_is_replaced_where_that_says_something_or_nothing_else_would_find_it(
    scene: Scene, ping_s: float | None, attempts: int
) -> None:
    async with watching(scene.hours(), ping_s=ping_s) as (watch, broker):
        watch.want(Segment.NSE, 1)
        await watch.judged()
        watch.connection._heard_ms -= 3600 * 1000  # the lid was closed for an hour
        watch.connection.woke()
        await watch.judged()
        await until(lambda: broker.attempts >= attempts, "another connection, where there should be one")
        assert broker.attempts == attempts


# ------------------------------------------------------------------------------------------------- the brokers' own way

FEEDS = [
    (slug, feed.kind)
    for slug in registry.slugs()
    for feed in registry.load(slug).spec.feeds
    if not feed.beats and not feed.beside
]


def test_the_feeds_that_do_not_beat_are_those_whose_servers_are_silent_in_a_quiet_market() -> None:
    quiet = {
        (slug, feed.kind) for slug in registry.slugs() for feed in registry.load(slug).spec.feeds if not feed.beats
    }
    kinds = ("market", "depth20", "depth200")
    dhans = {(slug, kind) for slug in ("dhan", "dhan_sandbox") for kind in kinds}
    assert quiet == {("upstox", "market"), ("fyers", "market"), *dhans}
    assert all(registry.load(slug).spec.feed(kind).ping_s for slug, kind in quiet), "pings find a dead socket"


@asynccontextmanager
async def simulated(slug: str, kind: str, clock: Clock, **changes: object) -> AsyncIterator[tuple[Watch, Simulator]]:
    """The broker's own adapter against its simulator: shares of NSE, which tick."""
    adapter = registry.load(slug)
    feed = msgspec.structs.replace(adapter.spec.feed(kind), silence_s=0.3, **changes)
    async with simulators()[slug](rate=500, symbols=60, seed=1) as simulator:
        rows = [row for row in rows_of(adapter, simulator) if isinstance(row, InstrumentRow)]
        tokens = [Token(row.segment, row.token) for row in rows if row.segment is Segment.NSE and row.kind == "EQ"]
        route = Route(adapter, feed, simulator.credentials(DEMO_KEY, DEMO_TOKEN), simulator.url)
        watch = Watch(route, Hours(CALENDAR, clock))
        for token in tokens[: 2 * BUSY]:
            watch.connection.want(token, Mode.LTP)
        try:
            await until(lambda: len({update.token for update in watch.updates}) == 2 * BUSY, "ticks of all")
            yield watch, simulator
        finally:
            watch.task.cancel()
            await asyncio.wait([watch.task])


@pytest.mark.parametrize(("slug", "kind"), FEEDS)
async def test_a_silent_broker_is_left_alone_at_night_and_replaced_in_open_trading(slug: str, kind: str) -> None:
    clock = Clock(ORDINARY, "20:00")
    async with simulated(slug, kind, clock) as (watch, simulator):
        simulator.silence()
        await watch.judged()
        assert len(simulator.entries("connect")) == 1
        clock.set("2026-11-26", "11:00")
        await until(lambda: len(simulator.entries("connect")) == 2, "another connection")
        simulator.resume()


@pytest.mark.parametrize(("slug", "kind"), FEEDS)
async def test_a_dead_socket_is_found_by_pings_at_night_too(
    slug: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "PONG_TIMEOUT_S", 0.3)
    async with simulated(slug, kind, Clock(ORDINARY, "20:00"), ping_s=0.2) as (_, simulator):
        [client] = simulator.clients
        simulator.silence(client, deaf=True)
        await until(lambda: len(simulator.entries("connect")) == 2, "another connection")


async def test_upstoxs_word_halts_a_market_and_reopens_it() -> None:
    clock = Clock(ORDINARY, "11:00")
    async with simulated("upstox", "market", clock) as (watch, simulator):
        [client] = simulator.clients.values()

        async def say(status: schema.MarketStatus) -> None:
            info = schema.MarketInfo(segmentStatus={"NSE_EQ": status})
            message = schema.FeedResponse(type=schema.market_info, marketInfo=info)
            await client.socket.send(message.SerializeToString())

        await say(schema.NORMAL_CLOSE)
        await until(lambda: not watch.hours.is_open(Segment.NSE), "the halt")
        simulator.silence()
        clock.now_s += 600
        await watch.judged()
        assert len(simulator.entries("connect")) == 1
        await say(schema.NORMAL_OPEN)
        await until(lambda: watch.hours.is_open(Segment.NSE), "the reopening")
        clock.now_s += 600
        await until(lambda: len(simulator.entries("connect")) == 2, "another connection")
