"""
Every kind of session, run through the whole feed: a quiet, closed or auctioning market is no dead feed.

The broker says nothing at all. In open trading that is told and mended; at no other hour does anything happen.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import pytest

from brokers.contract import Adapter, Limits
from brokers.feed import calendar, hours, supervisor
from brokers.feed import pool as pool_module
from brokers.models import Broker, CalendarDay, Instrument
from marketdata.ticks import FeedState, Key, Mode, Segment
from tests.brokers.feed.bench import Toy, ToyBroker, until
from tests.brokers.feed.supervising import Bench, add_account, in_database, supervising

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

SILENT_S = 0.6
UNHEARD_S = 0.2
WATCHED_S = 3 * SILENT_S


class Moment(NamedTuple):
    """An instant in India, and the segment whose instruments are held then."""

    what: str
    at: str
    segment: str = "NSE"
    day: str = ""
    """Sessions the admin set for the day; "closed" for none."""


QUIET = [
    Moment("before the pre-open", "2026-11-25 08:30"),
    Moment("pre-open", "2026-11-25 09:05"),
    Moment("post-close", "2026-11-25 15:45"),
    Moment("evening of shares", "2026-11-25 20:00"),
    Moment("holiday", "2026-11-24 11:00"),
    Moment("weekend", "2026-11-28 11:00"),
    Moment("pre-open of Muhurat trading", "2026-11-08 18:05"),
    Moment("Muhurat trading", "2026-11-08 18:40"),
    Moment("morning of a day with an evening session only", "2026-11-24 11:00", "MCX"),
    Moment("after the evening session", "2026-11-26 02:00", "MCX"),
    Moment("currency after its close", "2026-11-25 17:30", "CDS"),
    Moment("a day of a year without a final list", "2027-06-02 11:00"),
    Moment("closed by the admin", "2026-11-25 11:00", day="closed"),
    Moment("an auction set by the admin", "2026-11-25 11:00", day="closing_auction 10:00-12:00"),
]
OPEN = [
    Moment("continuous", "2026-11-25 11:00"),
    Moment("the Sunday of the Budget", "2026-02-01 11:00"),
    Moment("evening", "2026-11-25 20:00", "MCX"),
    Moment("evening session of a holiday", "2026-11-24 20:00", "MCX"),
    Moment("a Saturday session set by the admin", "2026-11-28 11:00", day="special 10:00-12:00"),
]


def _name(moment: Moment) -> str:
    return moment.what.replace(" ", "_")


def clock_at(at: str) -> Callable[[], float]:
    """A clock that goes on from this instant in India."""
    then = dt.datetime.fromisoformat(f"{at}+05:30").timestamp() - time.time()
    return lambda: time.time() + then


def fill(slug: str, url: str, segment: str) -> None:
    broker, _ = Broker.objects.update_or_create(slug=slug, defaults={"name": slug.title(), "priority": len(slug)})
    Instrument.objects.bulk_create(
        Instrument(broker=broker, segment=segment, token=str(number), symbol=f"S{number}", exchange=segment,
                   broker_symbol=f"S{number}", broker_exchange=segment)
        for number in range(1, 7)
    )  # fmt: skip
    add_account(broker, url)


@asynccontextmanager
async def silent_market(
    moment: Moment, toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Bench, ToyBroker, ToyBroker]]:
    """Two brokers that say nothing, six instruments held at the first; the second could serve them too."""
    monkeypatch.setattr(calendar, "TELLING_MS", dict.fromkeys(calendar.TELLING_MS, int(SILENT_S * 1000)))
    for module in (hours, pool_module):
        monkeypatch.setattr(module, "NO_DATA_S", UNHEARD_S)
    monkeypatch.setattr(supervisor, "STATUS_S", 0.1)
    for slug in ("toy", "other"):
        toy = toys[slug] = Toy(slug=slug, silence_s=SILENT_S, beats=False, limits=Limits(frames_per_second=1000.0))
        toy.spec = msgspec.structs.replace(toy.spec, segments=frozenset({Segment(moment.segment)}))
    async with ToyBroker() as first, ToyBroker() as second:
        await in_database(fill, "toy", first.url, moment.segment)
        await in_database(fill, "other", second.url, moment.segment)
        if moment.day:
            day = dt.date.fromisoformat(moment.at[:10])
            sessions = "" if moment.day == "closed" else moment.day
            await CalendarDay.objects.acreate(date=day, segments=[moment.segment], sessions=sessions, reason="test")
        async with supervising(clock=clock_at(moment.at)) as bench:
            bench.sub.subscribe(*(Key(f"S{number}", moment.segment, Mode.LTP) for number in range(1, 7)))
            await until(lambda: len(first.held) == 6, "the subscriptions")
            yield bench, first, second


@pytest.mark.parametrize("moment", QUIET, ids=_name)
async def test_outside_open_trading_silence_changes_nothing(
    moment: Moment, toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with silent_market(moment, toys, monkeypatch) as (bench, first, second):
        await asyncio.sleep(WATCHED_S)
        assert first.attempts == 1, "no reconnect"
        assert second.held == {}, "no failover"
        states = {key.state for image in bench.sub.statuses[""] for key in image.keys}
        assert FeedState.NO_DATA not in states
        told = {account.state for image in bench.sub.statuses[""] for account in image.accounts}
        assert told <= {FeedState.CONNECTING, FeedState.CONNECTED, FeedState.MARKET_CLOSED}


@pytest.mark.parametrize("moment", OPEN, ids=_name)
async def test_in_open_trading_silence_is_told_and_another_connection_is_tried(
    moment: Moment, toys: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with silent_market(moment, toys, monkeypatch) as (bench, first, _):
        await until(lambda: first.attempts > 1, "a reconnect")
        await until(lambda: FeedState.NO_DATA in bench.key_states().values(), "the news of it")
