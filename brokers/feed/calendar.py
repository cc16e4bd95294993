"""
When India's exchanges trade, and whether the silence of a feed says anything about the feed. Pure.

The facts (hours, holidays, special sessions) are passed in as `Facts`; `calendar_store` reads the bundled ones.
Instants are Unix milliseconds UTC; dates and times of day are Indian, UTC+05:30 in every season, computed without the
machine's zone. Sessions and phases begin at their first millisecond and end before `end_ms` or `until_ms`.

How sure an answer is. A year with a final list is certain. A year that is not bundled, one that is marked provisional
and a day that is marked tentative are not: such a day keeps the sessions it would have as an ordinary day, says so
(`is_provisional`), and silence on it is judged only after a price came in the same session, because then the market is
open whatever the list says.

What comes on top of the facts (`Overrides`), strongest first:

1. A day as the admin set it: closed, or with these sessions. It is final for that segment and date; the newest counts,
   and brokers' words on that day are not listened to.
2. A broker's word ("NSE is closed now"). It speaks of the phase in which it was said and ends with it: a "closed" that
   was said before the opening cannot hold the market shut after it. Within the phase the newest word wins. One broker
   is enough to close or halt a market and to open one outside its hours on a trading day; where the calendar has a
   reason to be closed (a holiday, a weekend), two brokers must say "open", each with its latest word. "Open" said of an
   auction changes nothing: many brokers call the whole day that. Silence in hours that only words opened is not judged.
3. The facts.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, NamedTuple

import msgspec

from brokers.contract import MarketKind as Kind
from brokers.india import DAY_MS, india_clock, india_date, india_ms
from marketdata.ticks import Segment

AHEAD_DAYS = 31
"""How many days the next opening is looked for; no closure of an exchange came near it."""

OPEN_MARGIN_MS = 60_000
"""So long after an opening, or a change of session, silence is not counted: the first prices may be late."""

CLOSE_MARGIN_MS = 15_000
"""So long before an end silence is not judged: the exchange's clock and ours differ."""

TELLING_MS: Mapping[Segment, int] = {
    Segment.NSE: 30_000,
    Segment.BSE: 60_000,
    Segment.NFO: 30_000,
    Segment.BFO: 60_000,
    Segment.MCX: 60_000,
    Segment.NSE_INDEX: 30_000,
    Segment.BSE_INDEX: 30_000,
    Segment.CRYPTO: 60_000,
}
"""
How long a whole feed of the segment must be silent in open trading before that is news.

Segments that are not here trade too thinly (currency, agricultural goods, NSE's commodities, MCX's indices) or at hours
that are not known (global indices, indices of an exchange that is not named): their silence never says anything.
"""


# ----------------------------------------------------------------------------------------------------------- vocabulary


OPEN: frozenset[Kind] = frozenset({Kind.CONTINUOUS, Kind.EVENING, Kind.MUHURAT, Kind.SPECIAL})
"""Trading in which prices come one after the other."""

JUDGED: frozenset[Kind] = OPEN - {Kind.MUHURAT}
"""Where silence may say something; Muhurat is a ceremony of an hour that nobody need attend."""


class Family(enum.StrEnum):
    """Segments that share their holidays; AGRI is NCDEX, which has no evening where MCX has only that."""

    EQUITY = "equity"
    CURRENCY = "currency"
    COMMODITY = "commodity"
    AGRI = "agri"


FAMILY: Mapping[Segment, Family] = {
    Segment.NSE: Family.EQUITY,
    Segment.BSE: Family.EQUITY,
    Segment.NFO: Family.EQUITY,
    Segment.BFO: Family.EQUITY,
    Segment.NSE_INDEX: Family.EQUITY,
    Segment.BSE_INDEX: Family.EQUITY,
    Segment.INDEX: Family.EQUITY,
    Segment.CDS: Family.CURRENCY,
    Segment.BCD: Family.CURRENCY,
    Segment.MCX: Family.COMMODITY,
    Segment.NCO: Family.COMMODITY,
    Segment.MCX_INDEX: Family.COMMODITY,
    Segment.NCDEX: Family.AGRI,
}
"""CRYPTO is open at every hour, GLOBAL_INDEX keeps hours of its own: neither has holidays here."""


class Part(enum.StrEnum):
    """What a holiday takes of the day: all of it, its evening session, or what comes before that."""

    DAY = "day"
    MORNING = "morning"
    EVENING = "evening"


# ---------------------------------------------------------------------------------------------------------------- facts

Clock = Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
"""A time of day in India: "09:15"."""


class Span(msgspec.Struct, frozen=True, array_like=True):
    """
    A session of some day: its kind, its start and its end, which is not part of it.

    `winter_end` is the end while New York keeps winter time, where that differs.
    """

    kind: Kind
    start: Clock
    end: Clock
    winter_end: Clock | None = None

    def __post_init__(self) -> None:
        if self.kind in (Kind.CLOSED, Kind.UNKNOWN):
            raise ValueError(f"A session cannot be of the kind {self.kind}.")
        if not self.start < min(self.end, self.winter_end or self.end):
            raise ValueError(f"A session from {self.start} to {self.end} is none.")


class Hours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ordinary day of some segments, from a date on until a later entry takes over."""

    segments: tuple[Segment, ...]
    since: date
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        check_order(self.spans)


class Fixed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A holiday that falls on the same date every year; used for years without a list."""

    month: int
    day: int
    name: str
    closes: dict[Family, Part]


class Holiday(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A day on which families are shut, or a part of their day. A tentative one may be a holiday, and shuts nothing."""

    date: date
    name: str
    closes: dict[Family, Part]
    tentative: bool = False


class Special(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sessions of some segments on one day, in place of the ordinary ones: a Budget Sunday, a Muhurat hour."""

    date: date
    name: str
    segments: tuple[Segment, ...]
    spans: tuple[Span, ...]
    tentative: bool = False

    def __post_init__(self) -> None:
        check_order(self.spans)


class Year(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the exchanges announced for a year; provisional before they did."""

    year: int
    provisional: bool
    sources: tuple[str, ...]
    holidays: tuple[Holiday, ...]
    specials: tuple[Special, ...] = ()

    def __post_init__(self) -> None:
        entries: tuple[Holiday | Special, ...] = (*self.holidays, *self.specials)
        for entry in entries:
            if entry.date.year != self.year:
                raise ValueError(f"{entry.name} on {entry.date} is not of {self.year}.")


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds in every year."""

    sources: tuple[str, ...]
    hours: tuple[Hours, ...]
    fixed: tuple[Fixed, ...]


class Facts(msgspec.Struct, frozen=True):
    """All a `Calendar` knows."""

    rules: Rules
    years: tuple[Year, ...]


def check_order(spans: Sequence[Span]) -> None:
    """
    Raises ValueError: a session begins before the one ahead of it ended.

    >>> check_order([Span(Kind.PRE_OPEN, "09:00", "09:15"), Span(Kind.CONTINUOUS, "09:15", "15:30")])
    """
    for earlier, later in itertools.pairwise(spans):
        if max(earlier.end, earlier.winter_end or earlier.end) > later.start:
            raise ValueError(f"The session at {later.start} begins before that of {earlier.start} ended.")


_LINE = re.compile(r"(?P<kind>.*?)[\s:]*(?P<start>\d{1,2}:\d\d)\s*(?:-|–|to)\s*(?P<end>\d{1,2}:\d\d)", re.IGNORECASE)
KINDS = tuple(kind for kind in Kind if kind not in (Kind.CLOSED, Kind.UNKNOWN))
"""What a session may be."""


def parse_spans(text: str) -> tuple[Span, ...]:
    """
    Sessions as a person writes them, one a line: its kind, its start and its end in India. Empty lines are passed over.

    Raises ValueError: one sentence that names the line.

    >>> spans = parse_spans("Pre-open 9:00 - 9:15\\n\\nspecial 09:15-12:30")
    >>> [(str(span.kind), span.start, span.end) for span in spans]
    [('pre_open', '09:00', '09:15'), ('special', '09:15', '12:30')]
    >>> parse_spans("continuous 09:00-17:00\\nevening 16:30-20:00")
    Traceback (most recent call last):
    ValueError: Line 2 begins at 16:30, before the one above it ends at 17:00; write sessions in order, without overlap.
    """
    spans: list[Span] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        span = _parse_span(number, line.strip())
        if spans and span.start < spans[-1].end:
            raise ValueError(
                f"Line {number} begins at {span.start}, before the one above it ends at {spans[-1].end}; "
                "write sessions in order, without overlap."
            )
        spans.append(span)
    return tuple(spans)


def _parse_span(number: int, line: str) -> Span:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(
            f"Line {number}, “{line[:40]}”, is no session; write its kind, its start and its end, such as "
            "“muhurat 18:00-19:00”, or leave all empty for a closed day."
        )
    word = found["kind"].strip().lower().replace("-", "_").replace(" ", "_")
    kind = next((kind for kind in KINDS if kind == word), None)
    if kind is None:
        raise ValueError(f"Line {number}: “{found['kind'][:40]}” is no kind of session; use one of {', '.join(KINDS)}.")
    start, end = (_clock(number, found[name]) for name in ("start", "end"))
    if start >= end:
        raise ValueError(f"Line {number}: a session from {start} to {end} does not end after it begins.")
    return Span(kind, start, end)


def _clock(number: int, text: str) -> str:
    hour, minute = text.split(":")
    if int(hour) > 23 or int(minute) > 59:
        raise ValueError(f"Line {number}: {text} is no time of day; write one from 00:00 to 23:59.")
    return f"{int(hour):02}:{minute}"


# -------------------------------------------------------------------------------------------------------------- answers


class Session(msgspec.Struct, frozen=True):
    """A stretch of one kind on one day."""

    kind: Kind
    start_ms: int
    end_ms: int


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a market is doing at an instant, with a sentence for people.

    `since_ms` is when it began (a closed phase: at the earliest at midnight), `until_ms` when the next one begins; None
    where that is not known. `is_provisional`: it rests on a list that is not final, or on a broker's word. `reason` is
    what shuts a closed market beyond its ordinary hours: a holiday, a weekend, a broker's word; "" for none.
    """

    segment: Segment
    kind: Kind
    since_ms: int
    until_ms: int | None
    sentence: str
    is_provisional: bool = False
    reason: str = ""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """
    A segment's whole day, with a sentence for people.

    `trades` are the stretches of open trading, those without a break between them joined. `is_ordinary`: such a day as
    most are, or a weekend. `is_set`: somebody with authority set it.
    """

    segment: Segment
    date: date
    trades: tuple[Session, ...]
    sentence: str
    is_ordinary: bool
    is_provisional: bool
    is_set: bool


# ------------------------------------------------------------------------------------------------------------ overrides


class DayOverride(msgspec.Struct, frozen=True, kw_only=True):
    """A day as somebody with authority set it; without spans it is closed. `set_ms` says which of two is newer."""

    segment: Segment
    date: date
    spans: tuple[Span, ...] = ()
    reason: str = ""
    set_ms: int = 0

    def __post_init__(self) -> None:
        check_order(self.spans)


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker says a segment is doing, as of `said_ms`; `source` is the broker's slug."""

    segment: Segment
    source: str
    kind: Kind
    said_ms: int


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beyond the facts, in any order; see the module's text for what wins."""

    days: tuple[DayOverride, ...] = ()
    words: tuple[Word, ...] = ()


NOTHING = Overrides()


# ----------------------------------------------------------------------------------------------------------------- time


def is_us_summer(day: date) -> bool:
    """
    Whether New York keeps summer time in the Indian evening of a day.

    It does from the second Sunday of March to the first Sunday of November (Energy Policy Act of 2005); MCX ends at
    23:30 then, at 23:55 else.

    >>> [is_us_summer(date(2026, month, number)) for month, number in ((3, 6), (3, 9), (10, 30), (11, 2))]
    [False, True, True, False]
    """
    return _sunday(day.year, 3, 2) <= day < _sunday(day.year, 11, 1)


def _sunday(year: int, month: int, number: int) -> date:
    """The first, second … Sunday of a month."""
    first = date(year, month, 1)
    return first.replace(day=1 + (6 - first.weekday()) % 7 + 7 * (number - 1))


# ------------------------------------------------------------------------------------------------------------- calendar


class _Day(NamedTuple):
    """A segment's day: its sessions, why they are not the ordinary ones, and how sure that is."""

    sessions: tuple[Session, ...]
    special: str = ""
    """What the special sessions are for."""
    holiday: str = ""
    """The holiday or weekend that shuts it, wholly or in part."""
    doubt: str = ""
    """A sentence on what is not certain."""
    is_set: bool = False
    """The admin's: nothing else is listened to."""

    def shut_by(self, now_ms: int) -> str:
        """What shuts it at an instant outside its sessions: "" on an ordinary day, and beside the shut part of one."""
        before = all(now_ms < session.start_ms for session in self.sessions)
        after = all(session.end_ms <= now_ms for session in self.sessions)
        in_evening = any(session.kind is Kind.EVENING for session in self.sessions)
        shut_now = before if in_evening else after
        return self.holiday if not self.sessions or self.special or shut_now else ""


class Calendar:
    """Answers of one set of facts; it has no state but them."""

    def __init__(self, facts: Facts) -> None:
        self._fixed = facts.rules.fixed
        hours = sorted(facts.rules.hours, key=lambda entry: entry.since)
        self._hours = {segment: [entry for entry in hours if segment in entry.segments] for segment in Segment}
        self._years = {year.year: year for year in facts.years}
        self._holidays = {
            (family, holiday.date): holiday
            for year in facts.years
            for holiday in year.holidays
            for family in holiday.closes
        }
        self._specials = {
            (segment, special.date): special
            for year in facts.years
            for special in year.specials
            for segment in special.segments
        }

    def sessions(self, segment: Segment, day: date, overrides: Overrides = NOTHING) -> tuple[Session, ...]:
        """The sessions of a day in India, in order; brokers' words, which are of the moment, change none."""
        return self._day(segment, day, overrides).sessions

    def is_trading_day(self, segment: Segment, day: date, overrides: Overrides = NOTHING) -> bool:
        """Whether there is any open trading on a day, be it only an evening or a Muhurat hour."""
        return any(session.kind in OPEN for session in self.sessions(segment, day, overrides))

    def is_provisional(self, segment: Segment, day: date, overrides: Overrides = NOTHING) -> bool:
        """Whether the exchanges' list may still make another day of it."""
        return bool(self._day(segment, day, overrides).doubt)

    def phase(self, segment: Segment, now_ms: int, overrides: Overrides = NOTHING) -> Phase:
        """What the market is doing at an instant."""
        return self.phases(segment, now_ms, overrides)[1]

    def phases(self, segment: Segment, now_ms: int, overrides: Overrides = NOTHING) -> tuple[Phase, Phase]:
        """The phase by facts and set days, and what brokers' words make of it."""
        day = self._day(segment, india_date(now_ms), overrides)
        scheduled = self._scheduled(segment, now_ms, day, overrides)
        if day.is_set or segment is Segment.GLOBAL_INDEX:
            return scheduled, scheduled
        words = _words(segment, scheduled.since_ms, now_ms, overrides.words)
        if not words:
            return scheduled, scheduled
        return scheduled, _heard(scheduled, words, now_ms, needs_two=bool(day.shut_by(now_ms)))

    def outlook(self, segment: Segment, day: date, overrides: Overrides = NOTHING) -> Outlook:
        """What a day will be like, as far as facts and set days tell."""
        entry = self._day(segment, day, overrides)
        trades = _joined(entry.sessions)
        usual = self._usual(segment, day)
        return Outlook(
            segment=segment,
            date=day,
            trades=trades,
            sentence=f"{_day_sentence(segment, entry, trades)} {entry.doubt}".rstrip(),
            is_ordinary=trades == (usual if day.weekday() < 5 else ()),
            is_provisional=bool(entry.doubt),
            is_set=entry.is_set,
        )

    def next_open_ms(self, segment: Segment, now_ms: int, overrides: Overrides = NOTHING) -> int | None:
        """
        From when there is open trading: now itself while there is, else the start of the next; None if none is known.
        """
        if self.phase(segment, now_ms, overrides).kind in OPEN:
            return now_ms
        return self._next_start(segment, now_ms, overrides, OPEN.__contains__)

    def expected_quiet(self, segment: Segment, now_ms: int, overrides: Overrides = NOTHING) -> bool:
        """Whether no price is nothing to wonder at: outside open trading, and always where trading is thin."""
        return is_quiet(self.phase(segment, now_ms, overrides))

    def judges_silence(
        self,
        segment: Segment,
        now_ms: int,
        silent_for_ms: int,
        *,
        ticked: bool = True,
        overrides: Overrides = NOTHING,
    ) -> bool:
        """
        Whether the silence of a whole feed in a segment says something about the feed.

        `silent_for_ms` is the time since the last price of any of its instruments in this segment; where none has come,
        since they were subscribed, and then `ticked` is False. Silence counts only inside one stretch of open trading,
        from OPEN_MARGIN_MS after its start, and must last as long as TELLING_MS says. So a feed is never blamed for a
        closed, quiet or auctioning market. It is the caller who knows whether the instruments are busy ones.
        """
        scheduled, phase = self.phases(segment, now_ms, overrides)
        return is_telling(segment, counted_ms(scheduled, phase, now_ms, silent_for_ms, ticked=ticked))

    # ------------------------------------------------------------------------------------------------------- of one day

    def _day(self, segment: Segment, day: date, overrides: Overrides) -> _Day:
        setting = max(
            (entry for entry in overrides.days if entry.segment is segment and entry.date == day),
            key=lambda entry: entry.set_ms,
            default=None,
        )
        if setting is not None:
            sessions = _sessions(setting.spans, day)
            return _Day(sessions, setting.reason, "" if sessions else setting.reason, is_set=True)
        if segment is Segment.CRYPTO:
            return _Day((Session(Kind.CONTINUOUS, india_ms(day), india_ms(day) + DAY_MS),))
        family = FAMILY.get(segment)
        return _Day(()) if family is None else self._exchange_day(segment, family, day)

    def _exchange_day(self, segment: Segment, family: Family, day: date) -> _Day:
        doubt = self._doubt(day)
        holiday = self._holiday(family, day)
        special = self._specials.get((segment, day))
        if special is not None:
            name = holiday.name if holiday else ""
            unsure = "Its times are not confirmed." if special.tentative else doubt
            return _Day(_sessions(special.spans, day), special.name, name, unsure)
        if day.weekday() >= 5:
            return _Day((), "", holiday.name if holiday else "weekend", doubt)
        spans = self._ordinary(segment, day)
        if holiday is None:
            return _Day(_sessions(spans, day), doubt=doubt)
        if holiday.tentative:
            return _Day(_sessions(spans, day), doubt=f"It may be a holiday: {holiday.name}.")
        return _Day(_sessions(_left(spans, holiday.closes[family]), day), "", holiday.name, doubt)

    def _holiday(self, family: Family, day: date) -> Holiday | None:
        if day.year in self._years:
            return self._holidays.get((family, day))
        for fixed in self._fixed:
            if (fixed.month, fixed.day) == (day.month, day.day) and family in fixed.closes:
                return Holiday(day, fixed.name, fixed.closes)
        return None

    def _doubt(self, day: date) -> str:
        year = self._years.get(day.year)
        if year is None:
            return f"The holidays of {day.year} are not known here, only those that fall on the same date every year."
        if year.provisional:
            return f"The exchanges' list of holidays for {day.year} was not out when this one was made."
        return ""

    def _usual(self, segment: Segment, day: date) -> tuple[Session, ...]:
        """The stretches of open trading of a day on which nothing is the matter."""
        if segment is Segment.CRYPTO:
            return self._day(segment, day, NOTHING).sessions
        return _joined(_sessions(self._ordinary(segment, day), day)) if segment in FAMILY else ()

    def _ordinary(self, segment: Segment, day: date) -> tuple[Span, ...]:
        """The ordinary hours at a date; before the first that are known, those."""
        known = self._hours[segment]
        past = [hours for hours in known if hours.since <= day]
        return (past[-1:] or known[:1])[0].spans if known else ()

    # --------------------------------------------------------------------------------------------------- of one instant

    def _scheduled(self, segment: Segment, now_ms: int, day: _Day, overrides: Overrides) -> Phase:
        """The phase by facts and set days alone."""
        for session in day.sessions:
            if session.start_ms <= now_ms < session.end_ms:
                sentence = _open_sentence(segment, session, day)
                return Phase(
                    segment=segment,
                    kind=session.kind,
                    since_ms=session.start_ms,
                    until_ms=session.end_ms,
                    sentence=f"{sentence} {day.doubt}".rstrip(),
                    is_provisional=bool(day.doubt),
                )
        return self._outside(segment, now_ms, day, overrides)

    def _outside(self, segment: Segment, now_ms: int, day: _Day, overrides: Overrides) -> Phase:
        """The phase between sessions."""
        midnight_ms = india_ms(india_date(now_ms))
        since_ms = max((session.end_ms for session in day.sessions if session.end_ms <= now_ms), default=midnight_ms)
        opens_ms = self._next_start(segment, now_ms, overrides, OPEN.__contains__)
        kind, sentence = Kind.CLOSED, _closed_sentence(segment, now_ms, opens_ms, day)
        if segment is Segment.GLOBAL_INDEX and not day.is_set:
            kind, sentence = Kind.UNKNOWN, "Global indices keep their own exchanges' hours, which are not known here."
        return Phase(
            segment=segment,
            kind=kind,
            since_ms=since_ms,
            until_ms=self._next_start(segment, now_ms, overrides, lambda kind: True),
            sentence=f"{sentence} {day.doubt}".rstrip(),
            is_provisional=bool(day.doubt),
            reason=day.shut_by(now_ms),
        )

    def _next_start(
        self, segment: Segment, now_ms: int, overrides: Overrides, wanted: Callable[[Kind], bool]
    ) -> int | None:
        """When the next session of a wanted kind begins, after an instant."""
        for session in self._ahead(segment, india_date(now_ms), overrides):
            if session.start_ms > now_ms and wanted(session.kind):
                return session.start_ms
        return None

    def _ahead(self, segment: Segment, day: date, overrides: Overrides) -> Iterator[Session]:
        for ordinal in range(day.toordinal(), min(day.toordinal() + AHEAD_DAYS, date.max.toordinal() + 1)):
            yield from self.sessions(segment, date.fromordinal(ordinal), overrides)


# ------------------------------------------------------------------------------------------------- answers from phases


def is_quiet(phase: Phase) -> bool:
    """See `Calendar.expected_quiet`."""
    return phase.segment not in TELLING_MS or phase.kind not in OPEN


def counted_ms(scheduled: Phase, phase: Phase, now_ms: int, silent_for_ms: int, *, ticked: bool) -> int:
    """How much of a silence counts as one in open trading (ms), as `Calendar.judges_silence` says; 0: none."""
    if scheduled.kind not in JUDGED or phase.kind not in JUDGED:
        return 0
    silent_since_ms = now_ms - silent_for_ms
    if phase.is_provisional and not (ticked and silent_since_ms >= phase.since_ms):
        return 0
    if phase.until_ms is not None and now_ms >= phase.until_ms - CLOSE_MARGIN_MS:
        return 0
    return max(now_ms - max(silent_since_ms, phase.since_ms + OPEN_MARGIN_MS), 0)


def is_telling(segment: Segment, silence_ms: int) -> bool:
    """Whether so much silence that counts is news in a segment."""
    return segment in TELLING_MS and silence_ms >= TELLING_MS[segment]


def closed_sentence(phases: Sequence[Phase], opens_ms: Sequence[int | None], now_ms: int) -> str | None:
    """
    One sentence on markets that are all closed, with the next opening of each beside it; None: one is not, or is not
    known to be.

    >>> now_ms = india_ms(date(2026, 11, 25), "20:00")
    >>> night = [Phase(segment=each, kind=Kind.CLOSED, since_ms=0, until_ms=None, sentence="")
    ...          for each in (Segment.NSE, Segment.NFO)]
    >>> from brokers.india import MINUTE_MS
    >>> closed_sentence(night, [now_ms + DAY_MS] * 2, now_ms)
    'NSE and NFO are closed; they open on 26 Nov at 20:00.'
    >>> closed_sentence(night, [now_ms + DAY_MS, now_ms + MINUTE_MS], now_ms)
    'NSE and NFO are closed; NFO opens first, at 20:01.'
    """
    if not phases or any(phase.kind is not Kind.CLOSED for phase in phases):
        return None
    names = [str(phase.segment) for phase in phases]
    is_one = len(names) == 1
    reasons = {phase.reason for phase in phases}
    reason = f": {reasons.pop()}" if len(reasons) == 1 and reasons != {""} else ""
    known = [(then_ms, name) for then_ms, name in zip(opens_ms, names, strict=True) if then_ms is not None]
    opening = ""
    if known:
        first_ms, first = min(known, key=lambda each: each[0])
        together = {then_ms for then_ms in opens_ms if then_ms != first_ms} == set()
        subject = ("it opens" if is_one else "they open") if together else f"{first} opens first,"
        opening = f"; {subject} {_when(first_ms, now_ms)}"
    listed = names[0] if is_one else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{listed} {'is' if is_one else 'are'} closed{reason}{opening}."


# ----------------------------------------------------------------------------------------------------- parts of answers


def _sessions(spans: Sequence[Span], day: date) -> tuple[Session, ...]:
    winter = not is_us_summer(day)
    return tuple(
        Session(span.kind, india_ms(day, span.start), india_ms(day, (winter and span.winter_end) or span.end))
        for span in spans
    )


def _left(spans: Sequence[Span], shut: Part) -> tuple[Span, ...]:
    """
    What a holiday leaves of the ordinary sessions.

    >>> day = (Span(Kind.CONTINUOUS, "09:00", "17:00"), Span(Kind.EVENING, "17:00", "23:30"))
    >>> [[span.kind.value for span in _left(day, part)] for part in Part]
    [[], ['evening'], ['continuous']]
    """
    if shut is Part.DAY:
        return ()
    return tuple(span for span in spans if (span.kind is Kind.EVENING) is (shut is Part.MORNING))


def _joined(sessions: Sequence[Session]) -> tuple[Session, ...]:
    """The open ones, those that follow one another without a break as one of the first one's kind."""
    joined: list[Session] = []
    for session in sessions:
        if session.kind not in OPEN:
            continue
        if joined and joined[-1].end_ms == session.start_ms:
            first = joined.pop()
            joined.append(Session(first.kind, first.start_ms, session.end_ms))
        else:
            joined.append(session)
    return tuple(joined)


_DOING: Mapping[Kind, str] = {
    Kind.CLOSED: "is closed",
    Kind.UNKNOWN: "keeps hours that are not known",
    Kind.PRE_OPEN: "is in its pre-open session",
    Kind.CONTINUOUS: "is open",
    Kind.CLOSING_AUCTION: "is in its closing auction",
    Kind.POST_CLOSE: "is in its post-close session",
    Kind.EVENING: "is open for its evening session",
    Kind.MUHURAT: "is open for Muhurat trading",
    Kind.SPECIAL: "is open for a special session",
}


def _open_sentence(segment: Segment, session: Session, day: _Day) -> str:
    if segment is Segment.CRYPTO and not day.is_set:
        return "CRYPTO is open at every hour."
    purpose = f" ({day.special})" if day.special else ""
    return f"{segment} {_DOING[session.kind]}{purpose} until {india_clock(_stretch_end_ms(session, day.sessions))}."


def _stretch_end_ms(session: Session, sessions: Sequence[Session]) -> int:
    """When trading stops, where one open session follows another without a break; else the session's own end."""
    end_ms = session.end_ms
    for later in sessions:
        if session.kind in OPEN and later.kind in OPEN and later.start_ms == end_ms:
            end_ms = later.end_ms
    return end_ms


def _closed_sentence(segment: Segment, now_ms: int, opens_ms: int | None, day: _Day) -> str:
    shut_by = day.shut_by(now_ms)
    reason = f": {shut_by}" if shut_by else ""
    return f"{segment} is closed{reason}{'; it opens ' + _when(opens_ms, now_ms) if opens_ms else ''}."


def _day_sentence(segment: Segment, day: _Day, trades: Sequence[Session]) -> str:
    """
    A whole day: "NSE trades from 09:15 to 15:15.", "NSE is closed: Christmas."

    Where a holiday leaves a part of the day, or a special session is on one, it is named.
    """
    if segment is Segment.GLOBAL_INDEX and not day.is_set:
        return "Global indices keep their own exchanges' hours, which are not known here."
    if not trades:
        return f"{segment} is closed{f': {day.holiday}' if day.holiday else ''}."
    if segment is Segment.CRYPTO and not day.is_set:
        return "CRYPTO trades at every hour."
    stretches = " and ".join(f"from {india_clock(each.start_ms)} to {india_clock(each.end_ms)}" for each in trades)
    purpose = f" ({day.special})" if day.special else ""
    rest = f"; else it is closed: {day.holiday}" if day.holiday and day.holiday != day.special else ""
    return f"{segment} trades {stretches}{purpose}{rest}."


def _when(then_ms: int, now_ms: int) -> str:
    """
    A coming instant as people say it: "at 09:15", "on 26 Nov at 09:15", "on 1 Jan 2027 at 09:15".

    >>> from brokers.india import MINUTE_MS
    >>> now_ms = india_ms(date(2026, 12, 31), "20:00")
    >>> _when(now_ms + MINUTE_MS, now_ms), _when(now_ms + DAY_MS, now_ms)
    ('at 20:01', 'on 1 Jan 2027 at 20:00')
    """
    then, today = india_date(then_ms), india_date(now_ms)
    clock = f"at {india_clock(then_ms)}"
    if then == today:
        return clock
    year = f" {then.year}" if then.year != today.year else ""
    return f"on {then.day} {_MONTHS[then.month - 1]}{year} {clock}"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# ------------------------------------------------------------------------------------------------------- brokers' words


def _words(segment: Segment, since_ms: int, now_ms: int, words: Sequence[Word]) -> list[Word]:
    """What was said of a segment since an instant, oldest first."""
    said = [word for word in words if word.segment is segment and since_ms <= word.said_ms <= now_ms]
    return sorted((word for word in said if word.kind is not Kind.UNKNOWN), key=lambda word: word.said_ms)


def _heard(scheduled: Phase, words: Sequence[Word], now_ms: int, *, needs_two: bool) -> Phase:
    """The phase after what brokers said within it, oldest word first; with `needs_two`, two must agree to open it."""
    newest = words[-1]
    since_ms = _run_since_ms(words)
    if _same(newest.kind, scheduled.kind):
        was_another = since_ms > words[0].said_ms
        return msgspec.structs.replace(scheduled, since_ms=since_ms) if was_another else scheduled
    if newest.kind in OPEN and scheduled.kind is not Kind.CLOSED:
        return scheduled
    if newest.kind is not Kind.CLOSED and needs_two and len(_sources_of_no_closure(words)) < 2:
        return scheduled
    kind = Kind.SPECIAL if newest.kind in OPEN else newest.kind
    midnight_ms = india_ms(india_date(now_ms)) + DAY_MS
    return Phase(
        segment=scheduled.segment,
        kind=kind,
        since_ms=since_ms,
        until_ms=min(scheduled.until_ms or midnight_ms, midnight_ms),
        sentence=f"{newest.source} says that {scheduled.segment} {_DOING[kind]}.",
        is_provisional=True,
        reason=f"{newest.source} says so" if kind is Kind.CLOSED else "",
    )


def _same(one: Kind, other: Kind) -> bool:
    """Whether two kinds agree as far as brokers tell them apart: all open trading is one to them."""
    return one is other or (one in OPEN and other in OPEN)


def _run_since_ms(words: Sequence[Word]) -> int:
    """When the newest state was first said: since then no word was another."""
    since_ms = words[-1].said_ms
    for word in reversed(words):
        if not _same(word.kind, words[-1].kind):
            break
        since_ms = word.said_ms
    return since_ms


def _sources_of_no_closure(words: Sequence[Word]) -> set[str]:
    """The brokers whose latest word is not "closed"."""
    latest = {word.source: word.kind for word in words}
    return {source for source, kind in latest.items() if kind is not Kind.CLOSED}
