"""The bundled files are whole, and a bad one is named; so are the days set in the admin."""

from __future__ import annotations

import datetime as dt
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from structlog.testing import capture_logs

from brokers.feed import calendar_store
from brokers.feed.calendar import FAMILY, Kind, Span
from brokers.feed.calendar_store import FOLDER, load_days, load_facts
from brokers.india import INDIA_MS
from brokers.models import CalendarDay
from marketdata.ticks import Segment


def test_the_bundled_years_have_sources_and_say_what_is_not_final() -> None:
    facts = load_facts()
    assert [(year.year, year.provisional) for year in facts.years] == [(2025, False), (2026, False), (2027, True)]
    assert all(year.sources for year in facts.years)
    tentative = {
        entry.name for year in facts.years[:2] for entry in (*year.holidays, *year.specials) if entry.tentative
    }
    assert tentative == {"Diwali Laxmi Pujan"}


def test_the_bundled_hours_cover_every_segment_that_has_some() -> None:
    assert {segment for hours in load_facts().rules.hours for segment in hours.segments} == set(FAMILY)


def test_no_day_is_listed_twice_and_all_are_in_order() -> None:
    for year in load_facts().years:
        days = [holiday.date for holiday in year.holidays]
        assert days == sorted(set(days))
        specials = Counter((special.date, segment) for special in year.specials for segment in special.segments)
        assert set(specials.values()) <= {1}


@pytest.mark.parametrize(
    ("content", "message"),
    [("year = ", "2026.toml"), ("year = 2026\n", "2026.toml: .*provisional"), ('year = "x"\n', "2026.toml")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    shutil.copy(FOLDER / "rules.toml", tmp_path)
    (tmp_path / "2026.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_facts(tmp_path)


def today() -> dt.date:
    """In India."""
    return (timezone.now().astimezone(dt.UTC) + dt.timedelta(milliseconds=INDIA_MS)).date()


def day(ahead: int = 0, **fields: Any) -> CalendarDay:
    defaults: dict[str, Any] = {"segments": ["NSE"], "sessions": "", "reason": "cyclone"}
    return CalendarDay.objects.create(date=today() + dt.timedelta(days=ahead), **defaults | fields)


@pytest.mark.django_db
def test_a_set_day_counts_for_each_of_its_segments() -> None:
    row = day(segments=["NSE", "NFO"], sessions="special 9:15-12:30")
    shares, futures = load_days()
    assert (shares.segment, futures.segment) == (Segment.NSE, Segment.NFO)
    assert (shares.date, shares.spans, shares.reason) == (
        today(),
        (Span(Kind.SPECIAL, "09:15", "12:30"),),
        "cyclone",
    )
    assert shares.set_ms == int(row.set_at.timestamp() * 1000)


@pytest.mark.django_db
def test_days_that_are_over_are_not_loaded_but_for_yesterday() -> None:
    for ahead in (-2, -1, 0, 400):
        day(ahead)
    assert [(each.date - today()).days for each in load_days()] == [-1, 0, 400]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"sessions": "lunch 12:00-13:00"}, "Line 1: “lunch” is no kind of session"),
        ({"segments": ["NSE", "MOON"]}, "'MOON' is not a valid Segment"),
        ({"segments": [["NSE"]]}, "is not a valid Segment"),
        ({"segments": {"NSE": 1}}, "no list"),
        ({"segments": 7}, "no list"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_once_and_costs_only_itself(
    fields: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calendar_store, "_told", set())  # another test's row may have had the same number
    bad = day(**fields)
    good = day(1)
    with capture_logs() as logs:
        for _ in range(3):
            assert [each.date for each in load_days()] == [good.date], "nothing of it, also not its other segment"
    [entry] = logs
    assert (entry["event"], entry["row"]) == ("calendar_day_unusable", bad.pk)
    assert problem in entry["reason"]
