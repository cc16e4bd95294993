"""
What the markets are doing now: the calendar, what is known beyond it, and a clock.

It is asked every second for each segment there is, so an answer is kept until the phase ends or something new is known.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from brokers.contract import MarketKind
from brokers.feed.calendar import (
    OPEN,
    Calendar,
    DayOverride,
    Overrides,
    Phase,
    Word,
    closed_sentence,
    counted_ms,
    is_quiet,
    is_telling,
)
from brokers.india import DAY_MS, india_date, india_ms
from marketdata.ticks import Segment

NO_DATA_S = 10.0
"""An instrument of which nothing came for so long after it was subscribed, in open trading, is reported."""

WORDS = 64
"""So many words of brokers are kept of each segment, the newest; a day has about ten."""


class _Known(NamedTuple):
    """A segment's phase by facts and set days, what brokers' words make of it, and while when (ms) both are so."""

    scheduled: Phase
    phase: Phase
    from_ms: int
    until_ms: int


class Hours:
    """
    The calendar at this moment. `clock` gives Unix seconds.

    >>> from brokers.feed.calendar_store import load_calendar
    >>> hours = Hours(load_calendar(), clock=lambda: 1795617000.0)  # 25 November 2026, 20:00 in India
    >>> hours.closed_sentence([Segment.NSE])
    'NSE is closed; it opens on 26 Nov at 09:15.'
    >>> hours.is_open(Segment.MCX), hours.closed_sentence([Segment.NSE, Segment.MCX])
    (True, None)
    """

    def __init__(self, calendar: Calendar, clock: Callable[[], float] = time.time) -> None:
        self._calendar = calendar
        self._clock = clock
        self._days: tuple[DayOverride, ...] = ()
        self._words: dict[Segment, deque[Word]] = {}
        """What brokers said of each segment, oldest first."""
        self._overrides = Overrides()
        """The days and the words, as the calendar wants them."""
        self._known: dict[Segment, _Known] = {}

    # ------------------------------------------------------------------------------------------------- what is learnt

    def set_days(self, days: tuple[DayOverride, ...]) -> None:
        """These are the days that somebody set, and no others."""
        if days != self._days:
            self._days = days
            self._renew()

    def heard(self, source: str, markets: Mapping[Segment, MarketKind]) -> None:
        """
        A broker (its slug) says what segments are doing now.

        A word that says again what is known is not kept, unless another phase began since.
        """
        now_ms = self._now_ms()
        is_news = False
        for segment, kind in markets.items():
            if kind is not MarketKind.UNKNOWN:
                word = Word(segment=segment, source=source, kind=kind, said_ms=now_ms)
                is_news |= self._keep(word, self._learn(segment).scheduled.since_ms)
        if is_news:
            self._renew()

    def _keep(self, word: Word, since_ms: int) -> bool:
        """Keeps a word beside those of this phase, which began at `since_ms`; older ones say nothing any more."""
        said = self._words.setdefault(word.segment, deque(maxlen=WORDS))
        while said and said[0].said_ms < since_ms:
            said.popleft()
        own = next((each for each in reversed(said) if each.source == word.source), None)
        if own is not None and own.kind is said[-1].kind is word.kind:
            return False
        said.append(word)
        return True

    def _renew(self) -> None:
        words = tuple(word for said in self._words.values() for word in said)
        self._overrides = Overrides(days=self._days, words=words)
        self._known.clear()

    # ------------------------------------------------------------------------------------------------------ questions

    def phase(self, segment: Segment) -> Phase:
        """What the market is doing."""
        return self._learn(segment).phase

    def is_open(self, segment: Segment) -> bool:
        """Whether prices come one after the other."""
        return self.phase(segment).kind in OPEN

    def is_quiet(self, segment: Segment) -> bool:
        """Whether no price is nothing to wonder at; see `Calendar.expected_quiet`."""
        return is_quiet(self.phase(segment))

    def next_open_ms(self, segments: Collection[Segment]) -> int | None:
        """From when one of them is open: now while one is; None: it is not known of any."""
        opens_ms = [then_ms for each in segments if (then_ms := self._next_open_ms(each)) is not None]
        return min(opens_ms, default=None)

    def closed_sentence(self, segments: Collection[Segment]) -> str | None:
        """One sentence for people where all of these are closed; None where one is not, or may not be."""
        held = sorted(set(segments), key=list(Segment).index)
        known = [self._learn(segment) for segment in held]
        if any(each.phase.kind is not MarketKind.CLOSED for each in known):
            return None
        # When a market opens again that a broker says is halted, the calendar does not know.
        is_halted = [each.scheduled.kind is not MarketKind.CLOSED for each in known]
        opens_ms = [
            None if halted else self._next_open_ms(segment) for segment, halted in zip(held, is_halted, strict=True)
        ]
        return closed_sentence([each.phase for each in known], opens_ms, self._now_ms())

    def tells(self, segments: Collection[Segment], silent_for_s: float, ticked: bool) -> bool:
        """
        Whether the silence of a feed that carries these says something about the feed; see `Calendar.judges_silence`.

        `silent_for_s` is the time since the last price; where none has come, since they were subscribed, and then
        `ticked` is False. It is the caller who knows whether the instruments are busy ones.
        """
        return any(is_telling(each, self._counted_ms(each, silent_for_s, ticked=ticked)) for each in segments)

    def misses(self, segment: Segment, since_s_ago: float, *, ticked: bool = False) -> bool:
        """
        Whether an instrument that was subscribed so long ago should have had a first price by now.

        NO_DATA_S of one stretch of open trading must have passed since then, beginning a while after the opening; in
        Muhurat trading nothing is missed. In a thin market it is told too: that nothing came is so. `ticked` says that
        other instruments of the segment had prices in this session: without that, nothing is missed on a day that may
        be a holiday.
        """
        return self._counted_ms(segment, since_s_ago, ticked=ticked) >= NO_DATA_S * 1000

    # ----------------------------------------------------------------------------------------------------------- parts

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _learn(self, segment: Segment) -> _Known:
        now_ms = self._now_ms()
        known = self._known.get(segment)
        if known is None or not known.from_ms <= now_ms < known.until_ms:
            scheduled, phase = self._calendar.phases(segment, now_ms, self._overrides)
            midnight_ms = india_ms(india_date(now_ms)) + DAY_MS  # then it is "at 09:15" instead of "on 26 Nov at 09:15"
            ends_ms = [each.until_ms for each in (scheduled, phase) if each.until_ms is not None]
            known = self._known[segment] = _Known(scheduled, phase, now_ms, min([midnight_ms, *ends_ms]))
        return known

    def _counted_ms(self, segment: Segment, silent_for_s: float, *, ticked: bool) -> int:
        known = self._learn(segment)
        return counted_ms(known.scheduled, known.phase, self._now_ms(), int(silent_for_s * 1000), ticked=ticked)

    def _next_open_ms(self, segment: Segment) -> int | None:
        return self._calendar.next_open_ms(segment, self._now_ms(), self._overrides)
