"""
The adapters' process: demand from the bus, accounts from the database, a plan from both, pools that carry it out.

All state lives on one event loop; the database is read in a thread. What changes in the database takes effect within a
second or so, without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial

import structlog
from channels.db import database_sync_to_async
from django.db import DatabaseError
from django.utils import timezone

from brokers import registry
from brokers.contract import ErrorKind
from brokers.feed.account_tokens import DEAD
from brokers.feed.accounts import Account, load_accounts, mark_refused
from brokers.feed.alerting import Alerting
from brokers.feed.calendar import DayOverride
from brokers.feed.calendar_store import load_calendar, load_days
from brokers.feed.connection import Condition
from brokers.feed.counters import Counters
from brokers.feed.door import Door
from brokers.feed.hours import Hours
from brokers.feed.keeper import Keeper
from brokers.feed.pickup import Name, Tokens, look_up
from brokers.feed.plan import ConnectionId, Instrument, Plan, Reason
from brokers.feed.pool import LOST_AFTER_S, REFUGE_AFTER_S, Pool, burst, possible
from brokers.feed.publisher import LINGER_S, Publisher, Source
from brokers.feed.report import answer, repeat
from brokers.feed.telling import Telling
from brokers.models import instrument_editions
from marketdata.ticks import Key

log = structlog.get_logger(__name__)

CHUNK = 500
"""New demand is planned in portions of this size, so that ticks do not wait for all of it."""
GATHER_S = 0.01
"""New demand is gathered for so long before it is looked up: it comes in bursts."""
POLL_S = 1.0
"""How often the database is looked at."""
WAKE_S = 5.0
"""A clock that jumps by more than this means that the machine slept, or that this process stood still."""
STATUS_S = 5.0
STATUS_GATHER_S = 0.1
"""Changes of state are gathered for so long before they are published."""


class Supervisor:
    """
    Runs the feed until it is cancelled.

    `ready` is set once the bus is open and the accounts are known. `clock` gives Unix seconds: by it tokens end,
    markets open and attempts are counted. `run` raises BusError: the bus cannot be opened.
    """

    def __init__(
        self, host: str, port: int, *, linger_s: float = LINGER_S, clock: Callable[[], float] = time.time
    ) -> None:
        self.hours = Hours(load_calendar(), clock)
        self.counters = Counters()
        self.ready = asyncio.Event()
        self.plan = Plan()
        self.pools: dict[int, Pool] = {}
        """By account; only those that may connect, or could until the broker refused them."""
        self.publisher = Publisher(
            host,
            port,
            on_demand=self._on_demand,
            on_status_asked=self._publish_status,
            on_report_asked=self._report,
            counters=self.counters,
            linger_s=linger_s,
        )
        self._accounts: dict[int, Account] = {}
        self._sources: dict[int, Source] = {}
        self._tokens: Tokens = {}
        self._brokers: frozenset[str] = frozenset()
        """The brokers that `_tokens` was looked up for."""
        self._editions: dict[str, int] = {}
        """Of the instruments of these brokers: `_tokens` is at least as new."""
        self._fates: dict[Name, Condition] = {}
        """What became of names that some broker does not list any more; told where no other does."""
        self._has_missed = False
        """Whether something is wanted that could not be looked up."""
        self._demand = asyncio.Event()
        self._status_due = asyncio.Event()
        self._unmarked: dict[int, tuple[Account, ErrorKind]] = {}
        """Refusals that are not in the database yet."""
        self._shortage: Mapping[Reason, int] = {}
        self._group: asyncio.TaskGroup
        self._is_database_lost = False
        self._polling = asyncio.Lock()
        self._clock = clock
        self._poll_due = asyncio.Event()
        self._fallen = asyncio.Event()
        """A socket that stood is gone."""
        self._keeper = Keeper(self.hours, clock=clock, spawn=self._spawn, on_done=self._poll_due.set)
        self._alerting = Alerting(self.hours, clock=clock)
        self._door = Door(clock, on_news=self._poll_due.set)
        self._telling = Telling(
            accounts=self._accounts,
            sources=self._sources,
            pools=self.pools,
            plan=self.plan,
            publisher=self.publisher,
            hours=self.hours,
            tokens=self._tokens,
            fates=self._fates,
        )
        self._handing: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By account: while its connections pass from one pool to the next."""

    async def run(self) -> None:
        """The one task tree: all ends when this ends."""
        self.publisher.open()
        log.info("bus_open", port=self.publisher.port)
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._remember()
                await self._poll()
                self.ready.set()
                for part in (
                    self._follow_demand(),
                    self._follow_database(),
                    self._follow_losses(),
                    self._follow_clock(),
                    self._publish_changes(),
                    self._repeat_status(),
                    repeat(self.publisher, self._report),
                    self._alerting.run(),
                ):
                    self._group.create_task(part)
        finally:
            self.publisher.close()

    def _spawn(self, part: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._group.create_task(part)

    # ----------------------------------------------------------------------------------------------------------- demand

    def _on_demand(self) -> None:
        self._demand.set()

    async def _follow_demand(self) -> None:
        while True:
            await self._demand.wait()
            await asyncio.sleep(GATHER_S)
            self._demand.clear()
            changed = self.publisher.take_changes()
            new = {_name(each) for each in changed if self.publisher.mode(each) is not None} - self._tokens.keys()
            if new:
                await self._look_up(new)
            for start in range(0, len(changed), CHUNK):
                self._replan(changed[start : start + CHUNK])
                await asyncio.sleep(0)

    def _replan(self, instruments: Iterable[Instrument]) -> None:
        """
        Tells the plan what is wanted of these now, and the pools and the publisher what became of it.

        What could not be looked up waits for the next look-up.
        """
        for instrument in instruments:
            mode, tokens = self.publisher.mode(instrument), self._tokens.get(_name(instrument))
            if mode is None:
                self.plan.drop(instrument)
                self._forget(_name(instrument))
            elif tokens is not None:
                self.plan.want(instrument, mode, tokens)
        self._carry_out()
        self._status_due.set()

    def _carry_out(self) -> None:
        changes = self.plan.take_changes()
        for instrument in self.plan.take_moved():
            self._bind(instrument)
        for id_, modes in changes.items():
            pool = self.pools.get(id_.account)
            if pool is not None:
                pool.apply({id_: modes})

    def _bind(self, instrument: Instrument) -> None:
        seat = self.plan.seat(instrument)
        if seat is None:
            self.publisher.unbind(instrument)
        else:
            self.publisher.bind(instrument, self._sources[seat.connection.account], seat.token)

    def _report_shortage(self) -> None:
        shortage = Counter(self.plan.short().values())
        if shortage != self._shortage:
            self._shortage = shortage
            log.info("instruments_not_served", **{reason.name.lower(): shortage[reason] for reason in Reason})

    # ---------------------------------------------------------------------------------------------------------- look-up

    async def _look_up(self, names: Collection[Name]) -> bool:
        """Asks for the tokens of these instruments, at every broker that may serve; False: the database is away."""
        brokers: frozenset[str] | None = None
        while brokers != self._brokers:  # they may change while we ask
            brokers = self._brokers
            known = {name: self._tokens.get(name, {}) for name in names}
            try:
                tokens, news = await database_sync_to_async(look_up)(brokers, known, timezone.now())
            except DatabaseError as error:
                self._has_missed = True
                self._database_lost(error)
                return False
        self._tokens |= tokens
        self._fates |= news
        return True

    async def _follow_editions(self, editions: dict[str, int]) -> None:
        """What an import changed, by whatever process, takes effect at once; so does what could not be looked up."""
        ours = {slug: edition for slug, edition in editions.items() if slug in self._brokers}
        if ours == self._editions and not self._has_missed:
            return
        self._has_missed = False
        if await self._pick_up():
            self._editions = ours

    async def _pick_up(self) -> bool:
        """Looks up again all that is wanted; only what has another token now is moved. False: the database is away."""
        wanted = [instrument for instrument, _ in self.publisher.wanted()]
        before = {name: self._tokens.get(name) for name in map(_name, wanted)}
        if before and not await self._look_up(before.keys()):
            return False
        changed = [each for each in wanted if self._tokens.get(_name(each)) != before[_name(each)]]
        self._unbind_moved(changed)
        for start in range(0, len(changed), CHUNK):
            self._replan(changed[start : start + CHUNK])
            await asyncio.sleep(0)
        if changed:
            log.info("instruments_picked_up", changed=len(changed))
        return True

    def _unbind_moved(self, instruments: Sequence[Instrument]) -> None:
        """Takes names off tokens they no longer have before others take these over, with all that was known of them."""
        for instrument in instruments:
            seat = self.plan.seat(instrument)
            if seat is None:
                continue
            broker = self._accounts[seat.connection.account].broker
            if self._tokens.get(_name(instrument), {}).get(broker) != seat.token:
                self.publisher.unbind(instrument)

    def _forget(self, name: Name) -> None:
        """What was known of a name nobody wants any more, in whatever feed."""
        feeds = {account.feed for account in self._accounts.values()}
        if all(self.publisher.mode(Instrument(*name, feed)) is None for feed in feeds):
            self._tokens.pop(name, None)
            self._fates.pop(name, None)

    # --------------------------------------------------------------------------------------------------------- accounts

    async def _follow_database(self) -> None:
        while True:
            self._poll_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._poll_due.wait()
            await self._poll()
            self._keeper.look(self._accounts.values())

    async def _poll(self) -> None:
        async with self._polling:
            try:
                await self._mark_refusals()
                await database_sync_to_async(self._door.write)()
                accounts, editions, days = await database_sync_to_async(_look)(self._now_ms())
            except DatabaseError as error:
                self._database_lost(error)
                return
            if self._is_database_lost:
                self._is_database_lost = False
                log.info("database_back")
            self.hours.set_days(days)
            if accounts != list(self._accounts.values()):
                await self._set_accounts({account.id: account for account in accounts})
            await self._follow_editions(editions)
            self._flee()

    def _database_lost(self, error: DatabaseError) -> None:
        if not self._is_database_lost:
            self._is_database_lost = True
            log.error("database_lost", reason=str(error), consequence="the feed goes on with what it knows")

    async def _remember(self) -> None:
        try:
            await database_sync_to_async(self._door.remember)()
        except DatabaseError as error:
            self._database_lost(error)

    async def _mark_refusals(self) -> None:
        for id_, (account, kind) in list(self._unmarked.items()):
            await database_sync_to_async(mark_refused)(account, kind, self._now_ms())
            del self._unmarked[id_]

    async def _set_accounts(self, accounts: dict[int, Account]) -> None:
        before = dict(self._accounts)
        self._accounts.clear()
        self._accounts.update(accounts)
        for account in accounts.values():
            self._renew_source(account, before.get(account.id))
        await self._set_brokers(frozenset(account.broker for account in accounts.values() if account.is_on))
        self.plan.set_offers(account.offer() for account in accounts.values() if account.is_on)
        self._carry_out()
        for id_ in before.keys() - accounts.keys():
            self._close(self.pools.pop(id_, None))
            del self._sources[id_]
        for account in accounts.values():
            self._renew_pool(account, before.get(account.id))
        self._status_due.set()

    async def _set_brokers(self, brokers: frozenset[str]) -> None:
        if brokers != self._brokers:
            self._brokers = brokers
            wanted = [instrument for instrument, _ in self.publisher.wanted()]
            await self._look_up(set(map(_name, wanted)))
            self._replan(wanted)

    def _renew_source(self, account: Account, before: Account | None) -> None:
        """Another endpoint is another world: nothing known from the one is shown as the other's."""
        if before is not None and (before.broker, before.endpoint) == (account.broker, account.endpoint):
            return
        old, new = self._sources.get(account.id), self.publisher.source(account.broker, simulated=account.simulated)
        self._sources[account.id] = new
        if old is not None:
            for token, line in list(old.lines.items()):
                for instrument in list(line.guests):
                    self.publisher.bind(instrument, new, token, afresh=True)

    def _renew_pool(self, account: Account, before: Account | None) -> None:
        pool = self.pools.get(account.id)
        if account.trouble is not None and account != before:
            log.info("account_waits", broker=account.broker, account=account.name, reason=account.trouble.message)
        stays = before is not None and account.login == before.login and not _is_forgiven(account, before)
        if pool is not None and stays and (account.trouble is None or _is_dead(account)):
            pool.set_account(account)
            if account.trouble is not None:
                pool.forbid(account.trouble)
            return
        self.pools.pop(account.id, None)
        if account.trouble is None:
            self._open(account, after=pool)
        else:
            self._close(pool)

    def _open(self, account: Account, after: Pool | None) -> None:
        pool = self.pools[account.id] = Pool(
            account,
            registry.load(account.broker),
            self._sources[account.id],
            spawn=self._spawn,
            on_change=self._status_due.set,
            on_refused=partial(self._refused, account),
            counters=self.counters,
            clock=self._clock,
            knocks=partial(self._door.knocks, account.id, burst(account)),
            on_knock=partial(self._door.knocked, account.id),
            on_fall=self._fallen.set,
            before=after,
            on_markets=(lambda markets: None) if account.simulated else partial(self.hours.heard, account.broker),
            tells=self.hours.tells,
        )
        self._spawn(self._start(pool, after))

    async def _start(self, pool: Pool, after: Pool | None) -> None:
        """One pool of an account after the other: a login that comes while another is taking over waits for it."""
        id_ = pool.account.id
        async with self._handing[id_]:
            if self.pools.get(id_) is not pool:
                self._close(after)
            elif after is None:
                pool.open(self.plan.assignment(id_))
            else:
                await pool.take_over(partial(self.plan.assignment, id_))

    def _close(self, pool: Pool | None) -> None:
        if pool is not None:
            self._spawn(self._close_in_turn(pool))

    async def _close_in_turn(self, pool: Pool) -> None:
        async with self._handing[pool.account.id]:
            await pool.close()

    def _refused(self, account: Account, kind: ErrorKind) -> None:
        self._unmarked[account.id] = account, kind
        self._spawn(self._poll())

    def _down(self) -> set[ConnectionId]:
        """The connections on which nothing can come now; those of an account that waits for a login are all."""
        now_s, down = time.monotonic(), set[ConnectionId]()
        for account in self._accounts.values():
            pool = self.pools.get(account.id)
            down |= possible(account) if pool is None else pool.down(now_s)
        return down

    def _refuges(self) -> set[int]:
        """The accounts that may take over what others lost: those that stood when the latest of these was lost."""
        fell_s = max((each for pool in self.pools.values() if (each := pool.fell_s()) is not None), default=0.0)
        latest_s = max(fell_s, time.monotonic() - REFUGE_AFTER_S)
        stand_s = {id_: pool.since_s() for id_, pool in self.pools.items()}
        return {id_ for id_, since_s in stand_s.items() if since_s is not None and since_s <= latest_s}

    def _flee(self) -> None:
        """Takes instruments off what does not work."""
        self.plan.set_down(self._down(), self._refuges())
        self._carry_out()

    async def _follow_losses(self) -> None:
        """What an account lost with all its sockets is moved at once; to look every second would be late."""
        while True:
            await self._fallen.wait()
            self._fallen.clear()
            await asyncio.sleep(LOST_AFTER_S)
            self._flee()
            self._status_due.set()

    # ------------------------------------------------------------------------------------------------------------ clock

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _follow_clock(self) -> None:
        """
        Notices that the machine slept, or that this process stood still; and looks for what a person must know of, here
        because the database, which may be slow, is not asked.
        """
        while True:
            before_s = self._clock()
            await asyncio.sleep(POLL_S)
            gap_s = self._clock() - before_s - POLL_S
            if gap_s > WAKE_S:
                log.warning("woke_up", gap_s=round(gap_s))
                for pool in self.pools.values():
                    pool.woke()
            self._alerting.look(list(self._telling.healths()))

    # ----------------------------------------------------------------------------------------------------------- status

    async def _publish_changes(self) -> None:
        while True:
            await self._status_due.wait()
            await asyncio.sleep(STATUS_GATHER_S)
            self._status_due.clear()
            self._report_shortage()
            self._publish_all()

    async def _repeat_status(self) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            self._publish_all()

    def _publish_all(self) -> None:
        for feed in list(self.publisher.status_feeds):
            self._publish_status(feed)

    def _publish_status(self, feed: str) -> None:
        self.publisher.send_status(feed, self._telling.status(feed))

    def _report(self, key: Key) -> None:
        """Answers somebody who asks how all accounts, or one instrument, are doing."""
        self.publisher.send_report(key, answer(self._telling.parts(), key))


def _name(instrument: Instrument) -> Name:
    return instrument.symbol, instrument.exchange


def _look(now_ms: int) -> tuple[list[Account], dict[str, int], tuple[DayOverride, ...]]:
    """The accounts there are, which edition of its instruments each broker has, and the admin's calendar days."""
    return load_accounts(now_ms), instrument_editions(), load_days()


def _is_dead(account: Account) -> bool:
    """Whether its token is of no use; sockets that still stand with it may go on."""
    return account.trouble is not None and account.trouble.state in DEAD.values()


def _is_forgiven(account: Account, before: Account) -> bool:
    """Whether the refusal of these same credentials was taken back: somebody wants them tried again."""
    return account.trouble is None and _is_dead(before)
