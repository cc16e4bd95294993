"""
What is told of the feed: how each account and each instrument that is not well is doing, with a sentence for people.

It reads the supervisor's parts and changes none of them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping

from django.utils import timezone

from brokers.contract import MarketKind
from brokers.feed.account_tokens import DEAD
from brokers.feed.accounts import Account
from brokers.feed.alerts import AccountHealth
from brokers.feed.apparent import ApparentLimit
from brokers.feed.calendar import OPEN
from brokers.feed.connection import Condition
from brokers.feed.hours import Hours
from brokers.feed.pickup import Name, Tokens, gone
from brokers.feed.plan import Instrument, Plan, Reason
from brokers.feed.pool import OPENING, Pool
from brokers.feed.publisher import Line, Publisher, Source
from brokers.feed.report import Parts
from marketdata.ticks import AccountStatus, FeedState, FeedStatus, KeyStatus, Segment, Token

TICKING_S = 60.0
"""An account of which something came so lately is no closed market, whatever the calendar says."""

_SHORT: dict[Reason, Condition] = {
    Reason.NO_ACCOUNT: Condition(FeedState.DISABLED, "No account of this feed is switched on; add one in the admin."),
    Reason.MODE_NOT_SERVED: Condition(FeedState.NO_CAPACITY, "No broker of this feed streams so deep a book for it."),
    Reason.NO_CAPACITY: Condition(
        FeedState.NO_CAPACITY, "All connections are full; drop some instruments, or raise the limits in the admin."
    ),
}


class Telling:
    """
    Reads what these parts of the supervisor hold at the moment it is asked.

    `fates` has what became of names that some broker does not list any more.
    """

    def __init__(
        self,
        *,
        accounts: Mapping[int, Account],
        sources: Mapping[int, Source],
        pools: Mapping[int, Pool],
        plan: Plan,
        publisher: Publisher,
        hours: Hours,
        tokens: Tokens,
        fates: Mapping[Name, Condition],
    ) -> None:
        self._accounts = accounts
        self._sources = sources
        self._pools = pools
        self._plan = plan
        self._publisher = publisher
        self._hours = hours
        self._tokens = tokens
        self._fates = fates
        self._since: dict[object, tuple[Condition, int]] = {}
        """For accounts and instruments: the condition last told, and since when (Unix ms) its state is so."""

    def status(self, feed: str) -> FeedStatus:
        """The state of a feed now: its accounts, and every demanded instrument that is not well."""
        now_ms = time.time_ns() // 1_000_000
        accounts = tuple(
            AccountStatus(
                broker=account.broker,
                account=account.name,
                state=condition.state,
                message=condition.message,
                since_ms=self._since_ms(account.id, condition, now_ms),
                feed=feed,
                simulated=account.simulated,
                token=account.token.state if account.is_on else None,
                token_ends_ms=account.token.ends_ms,
            )
            for account in self._accounts.values()
            if account.feed == feed
            for condition in [self.condition(account)]
        )
        unwell = dict(self._unwell(feed))
        keys = tuple(
            KeyStatus(
                symbol=instrument.symbol,
                exchange=instrument.exchange,
                state=condition.state,
                message=condition.message,
                since_ms=self._since_ms(instrument, condition, now_ms),
                feed=feed,
            )
            for instrument, condition in unwell.items()
        )
        self._forget_well(feed, unwell)
        return FeedStatus(accounts=accounts, keys=keys, received_ms=now_ms)

    def condition(self, account: Account) -> Condition:
        """How an account is doing, and who serves for it."""
        condition, elsewhere = self._own_condition(account), self._plan.elsewhere(account.id)
        if not elsewhere:
            return condition
        counts = [(self._accounts[id_], count) for id_, count in elsewhere.most_common() if id_ in self._accounts]
        told = ", ".join(f"{count:,} by {other.broker} {other.name}" for other, count in counts)
        count = sum(count for _, count in counts)
        served = f"{count:,} of its instruments {'is' if count == 1 else 'are'} served elsewhere now: {told}."
        return Condition(condition.state, f"{condition.message} {served}" if count else condition.message)

    def _own_condition(self, account: Account) -> Condition:
        pool = self._pools.get(account.id)
        condition = (account.trouble or OPENING) if pool is None else pool.condition()
        if condition.state is FeedState.CONNECTED:
            return self._closed(account) or condition
        if account.trouble is not None and condition.state in DEAD.values():
            return account.trouble
        return condition

    def _closed(self, account: Account) -> Condition | None:
        """That the markets of what is wanted, or of all it serves, are closed, where nothing comes either."""
        source = self._sources[account.id]
        if time.time() * 1000 - source.heard_ms < TICKING_S * 1000:
            return None
        segments = {token.segment for token in source.lines} or account.segments
        kept = self._kept(segments)
        sentence = self._hours.closed_sentence(kept) if kept else None
        return None if sentence is None else Condition(FeedState.MARKET_CLOSED, sentence)

    def parts(self) -> Parts:
        """All there is to know at this moment, for a report."""
        now_ms = time.time_ns() // 1_000_000
        conditions = {id_: self.condition(account) for id_, account in self._accounts.items()}
        return Parts(
            accounts=self._accounts,
            conditions={id_: (each, self._since_ms(id_, each, now_ms)) for id_, each in conditions.items()},
            pools=self._pools,
            plan=self._plan,
            publisher=self._publisher,
            counters=self._publisher.counters,
            hours=self._hours,
            tokens=self._tokens,
            shortage=self._shortage_of,
            now_ms=now_ms,
        )

    def _shortage_of(self, instrument: Instrument) -> Condition:
        return _SHORT.get(self._plan.short()[instrument]) or self._fate((instrument.symbol, instrument.exchange))

    def _kept(self, segments: Iterable[Segment]) -> set[Segment]:
        """Those whose hours are known."""
        return {each for each in segments if self._hours.phase(each).kind is not MarketKind.UNKNOWN}

    def healths(self) -> Iterator[AccountHealth]:
        for account in self._accounts.values():
            condition = self.condition(account)
            yield AccountHealth(
                id=account.id,
                broker=account.broker,
                name=account.name,
                simulated=account.simulated,
                segments=frozenset(self._kept(account.segments)),
                token=account.token.state if account.is_on else None,
                state=condition.state,
                message=condition.message,
                wanted=len(self._sources[account.id].lines),
            )

    def _unwell(self, feed: str) -> Iterator[tuple[Instrument, Condition]]:
        for instrument in self._plan.short():
            if instrument.feed == feed and self._publisher.is_demanded(instrument):
                yield instrument, self._shortage_of(instrument)
        for id_, pool in self._pools.items():
            if pool.account.feed == feed:
                yield from self._unwell_of(pool, self._sources[id_].lines)

    def _fate(self, name: Name) -> Condition:
        return self._fates.get(name) or gone(name, timezone.now())

    def _unwell_of(self, pool: Pool, lines: Mapping[Token, Line]) -> Iterator[tuple[Instrument, Condition]]:
        now_s = time.monotonic()
        silent = pool.silent_tokens(now_s)
        quiet = {token: self._quiet(token, since_s, lines) for token, since_s in silent.items()}
        quiet |= {token: _beyond(limit) for token, limit in pool.beyond(self._missed, now_s).items()}
        words = {token: Condition(FeedState.NOT_ENTITLED, text) for token, text in pool.refused_tokens().items()}
        for token, news in (quiet | words).items():
            line = lines.get(token)
            for instrument in line.guests if line is not None else ():
                condition = news or self._told(instrument)
                if condition is not None and self._publisher.is_demanded(instrument):
                    yield instrument, condition

    def _quiet(self, token: Token, since_s: float, lines: Mapping[Token, Line]) -> Condition | None:
        """What to say of an instrument of which nothing came in so many seconds; None: that is nothing to wonder at."""
        phase = self._hours.phase(token.segment)
        ticked = phase.is_provisional and _has_ticked(lines, token.segment, phase.since_ms)
        if self._hours.misses(token.segment, since_s, ticked=ticked):
            return Condition(FeedState.NO_DATA, "The broker has sent nothing for it since it was subscribed.")
        is_idle = phase.kind not in OPEN and phase.kind is not MarketKind.UNKNOWN
        return Condition(FeedState.MARKET_CLOSED, phase.sentence) if is_idle else None

    def _missed(self, token: Token, since_s: float) -> bool:
        return self._hours.misses(token.segment, since_s)

    def _told(self, instrument: Instrument) -> Condition | None:
        """What was last told of one of which nothing came: in an opening's first minute that goes on being so."""
        known = self._since.get(instrument)
        told = (FeedState.NO_DATA, FeedState.MARKET_CLOSED)
        return known[0] if known is not None and known[0].state in told else None

    def _since_ms(self, what: object, condition: Condition, now_ms: int) -> int:
        known = self._since.get(what)
        since_ms = known[1] if known is not None and known[0].state == condition.state else now_ms
        self._since[what] = condition, since_ms
        return since_ms

    def _forget_well(self, feed: str, unwell: Collection[Instrument]) -> None:
        for what in list(self._since):
            if isinstance(what, Instrument) and what.feed == feed and what not in unwell:
                del self._since[what]


def _beyond(limit: ApparentLimit) -> Condition:
    return Condition(
        FeedState.NO_DATA,
        f"The broker has sent nothing for it since it was subscribed; it seems to serve {limit.at:,} instruments on a "
        "connection only: lower the limit in the admin.",
    )


def _has_ticked(lines: Mapping[Token, Line], segment: Segment, since_ms: int) -> bool:
    """Whether any of these instruments that is of the segment had a price since then (Unix ms)."""
    states = (line.source.snapshots.state(token) for token, line in lines.items() if token.segment is segment)
    return any(state is not None and state.received_ms >= since_ms for state in states)
