"""
The trading calendar: days that somebody sets over the bundled ones, and above their list what the next days will be.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cache
from typing import Any, NamedTuple, cast

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from brokers.feed.calendar import Calendar, Outlook, Overrides, parse_spans
from brokers.feed.calendar_store import load_calendar, load_days
from brokers.india import india_clock, india_date
from brokers.models import CalendarDay
from marketdata.ticks import Segment

AHEAD_DAYS = 14
"""So many days are shown above the list, today first."""

EXCHANGES: Mapping[str, tuple[Segment, ...]] = {
    "NSE": (Segment.NSE, Segment.NFO, Segment.CDS, Segment.NCO, Segment.NSE_INDEX),
    "BSE": (Segment.BSE, Segment.BFO, Segment.BCD, Segment.BSE_INDEX),
    "MCX": (Segment.MCX, Segment.MCX_INDEX),
    "NCDEX": (Segment.NCDEX,),
    "Others": (Segment.INDEX, Segment.GLOBAL_INDEX, Segment.CRYPTO),
}
"""Every segment, beside those of the same exchange."""

MEANINGS: Mapping[Segment, str] = {
    Segment.NSE: "shares",
    Segment.NFO: "futures and options",
    Segment.CDS: "currency",
    Segment.NCO: "commodities",
    Segment.NSE_INDEX: "indices",
    Segment.BSE: "shares",
    Segment.BFO: "futures and options",
    Segment.BCD: "currency",
    Segment.BSE_INDEX: "indices",
    Segment.MCX: "commodities",
    Segment.MCX_INDEX: "indices",
    Segment.NCDEX: "agricultural goods",
    Segment.INDEX: "indices of brokers that do not say whose",
    Segment.GLOBAL_INDEX: "indices abroad",
    Segment.CRYPTO: "crypto",
}

FAMILIES: Mapping[str, tuple[Segment, ...]] = {
    "NSE and BSE shares": (Segment.NSE, Segment.BSE, Segment.NSE_INDEX, Segment.BSE_INDEX, Segment.INDEX),
    "NSE and BSE futures and options": (Segment.NFO, Segment.BFO),
    "Currency": (Segment.CDS, Segment.BCD),
    "Commodities (MCX)": (Segment.MCX, Segment.MCX_INDEX, Segment.NCO),
    "Agricultural (NCDEX)": (Segment.NCDEX,),
}
"""The columns of what lies ahead: segments that keep the same hours unless somebody sets them other ones."""


class Line(NamedTuple):
    """Segments of a family that have the same day: their names where others of it differ, what trades, why."""

    names: str
    hours: str
    title: str


class Cell(NamedTuple):
    """
    A family's day.

    Its state is "open" as on most days, "partial" at other hours, "closed", "weekend" (closed as on each), or "mixed"
    where it is closed for some.
    """

    state: str
    lines: tuple[Line, ...]
    is_set: bool
    is_provisional: bool


class Row(NamedTuple):
    """A day of all families."""

    date: dt.date
    is_today: bool
    cells: tuple[Cell, ...]


@cache
def bundled() -> Calendar:
    """The files are read once a process."""
    return load_calendar()


def ahead(today: dt.date) -> Iterator[Row]:
    """What the calendar says of the next days, with those that are set; brokers' words are of the moment only."""
    overrides = Overrides(days=load_days())
    for number in range(AHEAD_DAYS):
        day = today + dt.timedelta(days=number)
        cells = (
            _cell([bundled().outlook(segment, day, overrides) for segment in segments])
            for segments in FAMILIES.values()
        )
        yield Row(day, number == 0, tuple(cells))


def _cell(outlooks: Sequence[Outlook]) -> Cell:
    alike: dict[object, list[Outlook]] = {}
    for outlook in outlooks:
        alike.setdefault((outlook.trades, outlook.is_set), []).append(outlook)
    return Cell(
        state=_state_of_all({_state(outlook) for outlook in outlooks}),
        lines=tuple(_line(group, is_named=len(alike) > 1) for group in alike.values()),
        is_set=any(outlook.is_set for outlook in outlooks),
        is_provisional=any(outlook.is_provisional for outlook in outlooks),
    )


def _state(outlook: Outlook) -> str:
    if not outlook.trades:
        return "weekend" if outlook.is_ordinary else "closed"
    return "open" if outlook.is_ordinary else "partial"


def _state_of_all(states: Set[str]) -> str:
    """
    That of a family by those of its segments.

    >>> _state_of_all({"open"}), _state_of_all({"open", "partial"}), _state_of_all({"open", "closed"})
    ('open', 'partial', 'mixed')
    """
    if len(states) == 1:
        return next(iter(states))
    return "mixed" if states & {"closed", "weekend"} else "partial"


def _line(alike: Sequence[Outlook], *, is_named: bool) -> Line:
    names = ", ".join(outlook.segment for outlook in alike) if is_named else ""
    trades = (f"{india_clock(each.start_ms)}–{india_clock(each.end_ms)}" for each in alike[0].trades)
    return Line(names, " and ".join(trades) or "closed", alike[0].sentence)


def segment_choices() -> list[tuple[str, list[tuple[str, str]]]]:
    """Every segment with its meaning, grouped by exchange."""
    return [
        (exchange, [(segment.value, f"{segment}: {MEANINGS[segment]}") for segment in segments])
        for exchange, segments in EXCHANGES.items()
    ]


class CalendarDayForm(forms.ModelForm):  # type: ignore[type-arg]  # generic for the checker only
    """Segments as boxes to tick, sessions as lines of text."""

    segments = forms.MultipleChoiceField(
        choices=segment_choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="Those that keep these sessions on that day. The others keep the calendar.",
        error_messages={"required": "Tick at least one segment."},
    )

    class Meta:
        model = CalendarDay
        fields = ("date", "segments", "sessions", "reason")
        widgets = {"sessions": forms.Textarea({"rows": 4, "cols": 40, "placeholder": "continuous 09:15-12:30"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cast(forms.CharField, self.fields["sessions"]).strip = False  # the lines are counted as they are seen

    def clean_sessions(self) -> str:
        """One session a line, as `parse_spans` reads them."""
        text: str = self.cleaned_data["sessions"]
        try:
            parse_spans(text)
        except ValueError as problem:
            raise forms.ValidationError(str(problem)) from None
        return text


@admin.register(CalendarDay)
class CalendarDayAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the checker only
    """Days over the bundled calendar. They take effect within a second or so, without a restart."""

    form = CalendarDayForm
    list_display = ("date", "segment_names", "session_lines", "reason", "set_at")
    search_fields = ("reason",)
    date_hierarchy = "date"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """With the next days above the list."""
        today = india_date(int(timezone.now().timestamp() * 1000))
        context = {"families": list(FAMILIES), "ahead": list(ahead(today)), **(extra_context or {})}
        return super().changelist_view(request, context)

    def save_model(self, request: HttpRequest, obj: CalendarDay, form: Any, change: bool) -> None:
        """Saves; says so where it changes nothing any more."""
        super().save_model(request, obj, form, change)
        if obj.date < india_date(int(timezone.now().timestamp() * 1000)):
            messages.warning(request, f"{obj.date:%d %b %Y} is over: what you set for it changes nothing any more.")

    @admin.display(description="Segments")
    def segment_names(self, day: CalendarDay) -> str:
        """As one text."""
        return ", ".join(map(str, day.segments))

    @admin.display(description="Sessions")
    def session_lines(self, day: CalendarDay) -> str:
        """As one text."""
        return "; ".join(line.strip() for line in day.sessions.splitlines() if line.strip()) or "closed all day"
