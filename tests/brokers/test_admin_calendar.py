"""Calendar days in the admin, as a staff member sets them, and what lies ahead above their list."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from brokers.admin.calendar import AHEAD_DAYS, EXCHANGES, FAMILIES, MEANINGS, Cell, ahead
from brokers.feed.calendar import FAMILY
from brokers.india import india_date
from brokers.models import CalendarDay
from marketdata.ticks import Segment

LIST, ADD = "/admin/brokers/calendarday/", "/admin/brokers/calendarday/add/"
SHARES, FUTURES, CURRENCY, COMMODITIES, AGRI = FAMILIES


def today() -> dt.date:
    return india_date(int(timezone.now().timestamp() * 1000))


def form(**changes: Any) -> dict[str, Any]:
    ordinary = {"date": (today() + dt.timedelta(days=3)).isoformat(), "segments": ["NSE", "NFO"], "reason": "cyclone"}
    return ordinary | {"sessions": ""} | changes


def errors_of(answer: Any) -> dict[str, list[str]]:
    errors: dict[str, list[str]] = answer.context["adminform"].form.errors
    return errors


def cells(day: dt.date) -> dict[str, Cell]:
    """By family."""
    row = next(ahead(day))
    assert row.date == day
    return dict(zip(FAMILIES, row.cells, strict=True))


# --------------------------------------------------------------------------------------------------------- setting days


def test_a_day_is_set_for_the_segments_that_were_ticked(admin_client: Client) -> None:
    admin_client.post(ADD, form(sessions="special 9:15-12:30"))
    [day] = CalendarDay.objects.all()
    assert (day.segments, day.sessions, day.reason) == (["NSE", "NFO"], "special 9:15-12:30", "cyclone")
    page = admin_client.get(f"{LIST}{day.pk}/change/").content.decode()
    ticked = [name for name in Segment if f'value="{name}"' in page and _is_ticked(page, name)]
    assert ticked == [Segment.NSE, Segment.NFO]


def _is_ticked(page: str, name: str) -> bool:
    tag = page[page.index(f'value="{name}"') :].partition(">")[0]
    return "checked" in tag


def test_every_segment_can_be_ticked_under_its_exchange_and_has_a_meaning() -> None:
    offered = [segment for segments in EXCHANGES.values() for segment in segments]
    assert sorted(offered) == sorted(Segment) == sorted(MEANINGS)
    assert sorted(segment for segments in FAMILIES.values() for segment in segments) == sorted(FAMILY)


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"sessions": "\nlunch 12:00-13:00"}, "sessions", "Line 2: “lunch” is no kind of session"),
        ({"sessions": "special 9:15"}, "sessions", "Line 1, “special 9:15”, is no session"),
        ({"segments": []}, "segments", "Tick at least one segment."),
        ({"segments": ["MOON"]}, "segments", "MOON is not one of the available choices."),
        ({"reason": ""}, "reason", "This field is required."),
    ],
)
def test_a_mistake_is_told_in_one_sentence_and_nothing_is_stored(
    admin_client: Client, changes: dict[str, Any], field: str, sentence: str
) -> None:
    [error] = errors_of(admin_client.post(ADD, form(**changes)))[field]
    assert sentence in error
    assert not CalendarDay.objects.exists()


def test_one_is_warned_that_a_day_is_over(admin_client: Client) -> None:
    yesterday = today() - dt.timedelta(days=1)
    page = admin_client.post(ADD, form(date=yesterday.isoformat()), follow=True).content.decode()
    assert f"{yesterday:%d %b %Y} is over: what you set for it changes nothing any more." in page
    page = admin_client.post(ADD, form(date=today().isoformat()), follow=True).content.decode()
    assert "is over" not in page


def test_only_those_with_the_right_see_the_calendar(client: Client, db: None) -> None:
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(LIST).status_code == client.get(ADD).status_code == 403


# --------------------------------------------------------------------------------------------------------------- ahead


def test_the_list_shows_the_next_two_weeks_first(admin_client: Client) -> None:
    admin_client.post(ADD, form(reason="<b>storm</b>"))
    answer = admin_client.get(LIST)
    rows = answer.context["ahead"]
    assert [row.date for row in rows] == [today() + dt.timedelta(days=number) for number in range(AHEAD_DAYS)]
    assert [row.is_today for row in rows] == [True] + [False] * (AHEAD_DAYS - 1)
    page = answer.content.decode()
    assert page.index("set here") < page.index('id="changelist"')
    assert "NSE is closed: &lt;b&gt;storm&lt;/b&gt;." in page
    assert "<b>storm" not in page


@pytest.mark.django_db
def test_an_ordinary_day_a_weekend_and_a_holiday_look_different() -> None:
    ordinary, weekend, holiday = (cells(dt.date(2026, 11, number)) for number in (25, 28, 24))
    assert {cell.state for cell in ordinary.values()} == {"open"}
    assert [line.hours for line in ordinary[SHARES].lines] == ["09:15–15:15"]
    assert {cell.state for cell in weekend.values()} == {"weekend"}
    assert [holiday[each].state for each in FAMILIES] == ["closed", "closed", "closed", "partial", "closed"]
    [line] = holiday[COMMODITIES].lines
    assert line.hours == "17:00–23:55"
    assert line.title == "MCX trades from 17:00 to 23:55; else it is closed: Guru Nanak Jayanti."
    assert not any(cell.is_set or cell.is_provisional for day in (ordinary, weekend, holiday) for cell in day.values())


@pytest.mark.django_db
def test_special_sessions_and_days_that_are_not_certain_are_marked() -> None:
    budget, muhurat, holi = (cells(dt.date(*day)) for day in ((2026, 2, 1), (2026, 11, 8), (2027, 3, 22)))
    assert (budget[SHARES].state, budget[CURRENCY].state) == ("partial", "weekend")
    assert (muhurat[SHARES].state, muhurat[SHARES].is_provisional) == ("partial", True)
    assert (holi[SHARES].state, holi[SHARES].is_provisional) == ("open", True)
    assert "It may be a holiday: Holi." in holi[SHARES].lines[0].title


@pytest.mark.django_db
def test_a_set_day_stands_out_and_names_the_segments_it_is_set_for() -> None:
    day = today() + dt.timedelta(days=2)
    CalendarDay.objects.create(date=day, segments=["BSE"], sessions="special 10:00-11:00", reason="test")
    CalendarDay.objects.create(date=day, segments=["CDS", "BCD"], sessions="", reason="cyclone")
    found = cells(day)
    bse = next(line for line in found[SHARES].lines if line.names == "BSE")
    assert (bse.hours, bse.title) == ("10:00–11:00", "BSE trades from 10:00 to 11:00 (test).")
    assert found[SHARES].is_set
    assert [line.names for line in found[CURRENCY].lines] == [""], "the same for all of them"
    assert (found[CURRENCY].lines[0].title, found[CURRENCY].is_set) == ("CDS is closed: cyclone.", True)
    assert not found[FUTURES].is_set
    assert not found[AGRI].is_set
