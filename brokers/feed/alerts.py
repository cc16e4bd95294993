"""
When a person must be told of an account, and when it is over. Pure: instants and the market are arguments.

Two kinds, each raised once and cleared once:

- login_missing: the account cannot log in, and its market opens within half an hour or is open.
- feed_down: its market is open, and it was not connected for a minute without a break. Where the login is missing,
  that is the news, and this is not told beside it.

An alert ends with a word when what was missing came: a login, or ten seconds of connection. It ends without one when
the account was deleted or switched off, and when its market closed for the day: then nobody need do anything any more,
and "cleared" would read as if the login had come. What is missing the next morning is told anew.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple, Protocol

from brokers.india import INDIA, india_clock
from marketdata.ticks import FeedState, Segment, TokenState

DOWN_MS = 60_000
"""A feed that is down for so long, without a break, is an alert; a reconnect of seconds is none."""
WELL_MS = 10_000
"""A connection that stands for so long ends it."""
AHEAD_MS = 30 * 60_000
"""So long before its market opens, an account needs its login."""
GAP_MS = 10_000
"""Nobody looked for longer than this: the machine slept. What was seen before says nothing of the time between."""
MOST_TEXT = 500
"""So many characters of what a broker said are told on; the shortest limit of a receiver is Discord's, 2,000."""


NO_LOGIN = frozenset({TokenState.TOKEN_EXPIRED, TokenState.WAITING_FOR_LOGIN, TokenState.NOT_ENTITLED})
LOGGED_IN = frozenset({TokenState.VALID, TokenState.EXPIRING})


class Kind(enum.StrEnum):
    """What is wrong; `models.Alert.Kind` has the same words."""

    LOGIN_MISSING = "login_missing"
    FEED_DOWN = "feed_down"


class State(enum.StrEnum):
    """Which end of an alert a message tells of."""

    RAISED = "raised"
    CLEARED = "cleared"


class Market(Protocol):
    """What is asked of the trading calendar, now."""

    def is_open(self, segment: Segment) -> bool:
        """Whether it trades."""

    def next_open_ms(self, segments: Collection[Segment]) -> int | None:
        """When the first of these opens (Unix ms), or now while one is open; None: nobody knows."""


class AccountHealth(NamedTuple):
    """
    How an account is doing at one instant. `message` is a sentence for people, `wanted` how many instruments are
    demanded on it; `token` None: it needs none, or is off.
    """

    id: int
    broker: str
    name: str
    simulated: bool
    segments: frozenset[Segment]
    token: TokenState | None
    state: FeedState
    message: str
    wanted: int


class Raised(NamedTuple):
    """A new alert; `text` is a sentence for people."""

    health: AccountHealth
    kind: Kind
    text: str


class Cleared(NamedTuple):
    """The end of an alert. `is_silent`: it is over, but not because what was missing came."""

    account: int
    kind: Kind
    is_silent: bool


class _Hours(NamedTuple):
    """A market now: whether it is open, and whether it is not closed for the day; `opens_ms` where it opens soon."""

    is_open: bool
    is_due: bool
    opens_ms: int | None


class Watch:
    """
    Watches accounts; `open` are the alerts raised and not cleared.

    >>> class Always:
    ...     def is_open(self, segment): return True
    ...     def next_open_ms(self, segments): return None
    >>> nse = frozenset({Segment.NSE})
    >>> health = AccountHealth(1, "upstox", "main", False, nse, None, FeedState.RECONNECTING, "No answer.", 3)
    >>> watch = Watch()
    >>> [len(watch.look([health], Always(), second * 1000)) for second in (0, 8, 16, 24, 32, 40, 48, 56, 60, 61)]
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    """

    def __init__(self, open_: Iterable[tuple[int, Kind]] = ()) -> None:
        self.open: set[tuple[int, Kind]] = set(open_)
        self._down_ms: dict[int, int] = {}
        """Accounts that are down while their market is open, and since when."""
        self._well_ms: dict[int, int] = {}
        """Accounts that are connected, and since when."""
        self._looked_ms: int | None = None

    def look(self, healths: Iterable[AccountHealth], market: Market, now_ms: int) -> list[Raised | Cleared]:
        """
        What changed; `healths` is every account there is, `now_ms` Unix ms. To be called about every second.
        """
        if self._looked_ms is None or not 0 <= now_ms - self._looked_ms <= GAP_MS:
            self._down_ms.clear()
            self._well_ms.clear()
        self._looked_ms = now_ms
        changes: list[Raised | Cleared] = []
        there = set[int]()
        for health in healths:
            there.add(health.id)
            changes += self._judged(health, self._hours(health, market, now_ms), now_ms)
        for id_ in ({id_ for id_, _ in self.open} | self._down_ms.keys() | self._well_ms.keys()) - there:
            changes += self._forget(id_)
        for change in changes:
            self._note(change)
        return changes

    def _note(self, change: Raised | Cleared) -> None:
        if isinstance(change, Raised):
            self.open.add((change.health.id, change.kind))
        else:
            self.open.discard((change.account, change.kind))

    def _hours(self, health: AccountHealth, market: Market, now_ms: int) -> _Hours:
        if any(market.is_open(segment) for segment in health.segments):
            return _Hours(is_open=True, is_due=True, opens_ms=None)
        has_alert = any((health.id, kind) in self.open for kind in Kind)
        if health.token not in NO_LOGIN and not has_alert:
            return _Hours(is_open=False, is_due=False, opens_ms=None)  # when it opens matters to nothing, and costs
        opens_ms = market.next_open_ms(health.segments)
        is_due = opens_ms is not None and opens_ms - now_ms <= AHEAD_MS
        return _Hours(is_open=False, is_due=is_due, opens_ms=opens_ms if is_due else None)

    def _judged(self, health: AccountHealth, hours: _Hours, now_ms: int) -> Iterator[Raised | Cleared]:
        if health.state is FeedState.DISABLED:
            yield from self._forget(health.id)
        else:
            yield from self._login(health, hours)
            yield from self._feed(health, hours, now_ms)

    def _forget(self, id_: int) -> Iterator[Cleared]:
        """Of an account that is no more, or that is off."""
        self._down_ms.pop(id_, None)
        self._well_ms.pop(id_, None)
        for kind in Kind:
            if (id_, kind) in self.open:
                yield Cleared(id_, kind, is_silent=True)

    def _login(self, health: AccountHealth, hours: _Hours) -> Iterator[Raised | Cleared]:
        is_open = (health.id, Kind.LOGIN_MISSING) in self.open
        if is_open and health.token in LOGGED_IN:
            yield Cleared(health.id, Kind.LOGIN_MISSING, is_silent=False)
        elif is_open and (health.token is None or not hours.is_due):
            yield Cleared(health.id, Kind.LOGIN_MISSING, is_silent=True)
        elif not is_open and health.token in NO_LOGIN and hours.is_due:
            yield Raised(health, Kind.LOGIN_MISSING, _login_text(health, hours))

    def _feed(self, health: AccountHealth, hours: _Hours, now_ms: int) -> Iterator[Raised | Cleared]:
        down_ms, well_ms = self._timed(health, hours, now_ms)
        is_open = (health.id, Kind.FEED_DOWN) in self.open
        if is_open and well_ms is not None and now_ms - well_ms >= WELL_MS:
            yield Cleared(health.id, Kind.FEED_DOWN, is_silent=False)
        elif is_open and (health.token in NO_LOGIN or not hours.is_due):
            yield Cleared(health.id, Kind.FEED_DOWN, is_silent=True)
        elif not is_open and down_ms is not None and now_ms - down_ms >= DOWN_MS:
            yield Raised(health, Kind.FEED_DOWN, _down_text(health, down_ms))

    def _timed(self, health: AccountHealth, hours: _Hours, now_ms: int) -> tuple[int | None, int | None]:
        """Since when the account is down, and since when it is connected; None: it is not."""
        is_well = health.state is FeedState.CONNECTED
        is_idle = health.state.is_up or health.token in NO_LOGIN
        _time(self._down_ms, health.id, now_ms, runs=hours.is_open and not is_idle)
        _time(self._well_ms, health.id, now_ms, runs=is_well)
        return self._down_ms.get(health.id), self._well_ms.get(health.id)


def _time(since_ms: dict[int, int], id_: int, now_ms: int, *, runs: bool) -> None:
    if runs:
        since_ms.setdefault(id_, now_ms)
    else:
        since_ms.pop(id_, None)


# ------------------------------------------------------------------------------------------------------------- messages


def named(broker: str, account: str, *, simulated: bool) -> str:
    """
    >>> named("upstox", "main", simulated=True)
    'upstox main (SIMULATED)'
    """
    return plain(f"{broker} {account}{' (SIMULATED)' if simulated else ''}")


def plain(text: str) -> str:
    """
    Text that no receiver reads as markup, in one line and not too long: it may be a broker's words.

    >>> plain("<html>\\n no </html>")
    '‹html› no ‹/html›'
    """
    line = " ".join(text.split()).translate({ord("<"): "‹", ord(">"): "›"})
    return line if len(line) <= MOST_TEXT else f"{line[: MOST_TEXT - 1]}…"


def _who(health: AccountHealth) -> str:
    return named(health.broker, health.name, simulated=health.simulated)


def _login_text(health: AccountHealth, hours: _Hours) -> str:
    when = "its market is open" if hours.opens_ms is None else f"its market opens at {india_clock(hours.opens_ms)}"
    return f"{_who(health)} has no login, and {when}: {plain(health.message)}"


def _down_text(health: AccountHealth, down_ms: int) -> str:
    state = health.state.value.replace("_", " ")
    waiting = f"{health.wanted:,} {'instrument waits' if health.wanted == 1 else 'instruments wait'} for it"
    return f"{_who(health)} is down since {india_clock(down_ms)} ({state}; {waiting}): {plain(health.message)}"


def cleared_text(kind: Kind, who: str, raised_ms: int) -> str:
    """
    What to say when an alert raised at `raised_ms` (Unix ms) is over; `who` is as `named` makes it.

    >>> cleared_text(Kind.FEED_DOWN, "upstox main", 1_795_578_300_000)
    'upstox main is connected again; it was reported down at 09:15.'
    """
    if kind is Kind.LOGIN_MISSING:
        return f"{who} is logged in; its login was reported missing at {india_clock(raised_ms)}."
    return f"{who} is connected again; it was reported down at {india_clock(raised_ms)}."


def message(
    text: str, *, kind: str, state: State, broker: str, account: str, simulated: bool, since_ms: int, sent_ms: int
) -> dict[str, object]:
    """
    The body of a POST. `text` is there twice: Discord's name for it is `content`; nobody minds the other.

    `since_ms` is when the alert was raised, in both of its messages; instants are Unix ms and become ISO 8601.
    """
    return {
        "text": text,
        "content": text,
        "kind": kind,
        "state": state.value,
        "broker": broker,
        "account": account,
        "simulated": simulated,
        "since": iso(since_ms),
        "sent": iso(sent_ms),
    }


def iso(at_ms: int) -> str:
    """
    >>> iso(1_795_578_300_123)
    '2026-11-25T09:15:00+05:30'
    """
    return dt.datetime.fromtimestamp(at_ms / 1000, INDIA).isoformat(timespec="seconds")
