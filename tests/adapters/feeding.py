"""The feed of accounts against brokers' simulators, through the real wire; the simulators are the witnesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import sync_to_async

from brokers import registry
from brokers.contract import Feed, InstrumentRow
from brokers.feed.publisher import LINGER_S
from brokers.feed.supervisor import Supervisor
from brokers.instruments.store import replace_instruments
from brokers.models import Broker, BrokerAccount
from brokers.simulators import rows_of, simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from marketdata.ticks import AccountStatus, FeedState, Key, Mode
from marketdata.topics import status_key
from tests.brokers.feed.bench import Subscriber, subscriber, trading_clock, until


class Bench:
    """A broker's simulator, its first account in the database, its instruments, and a subscriber on the bus."""

    def __init__(
        self, simulator: Simulator, account: BrokerAccount, rows: list[InstrumentRow], sub: Subscriber
    ) -> None:
        self.simulator, self.account, self.rows, self.sub = simulator, account, rows, sub

    def keys(self, count: int, mode: Mode = Mode.LTP, feed: Feed | None = None) -> list[Key]:
        """Instruments the broker lists, of those that can tick in the mode on this kind of socket."""
        rows = [row for row in self.rows if feed is None or mode in feed.modes_for(row.segment)]
        return [Key(row.symbol, row.exchange, mode) for row in rows[:count]]

    @property
    def state(self) -> FeedState | None:
        """The account's, as told on the bus."""
        return self.status().state if self.sub.statuses[self.account.feed] else None

    def status(self) -> AccountStatus:
        """The account's, as last told on the bus."""
        account = self.account
        told = self.sub.statuses[account.feed][-1].accounts
        return next(each for each in told if (each.broker, each.account) == (account.broker.slug, account.name))

    def held(self) -> int:
        """How many instruments are subscribed at the broker."""
        return len(self.simulator.subscribed())

    async def holds(self, count: int, timeout_s: float = 10.0) -> None:
        """Waits until so many are."""
        await until(lambda: self.held() == count, f"{count} instruments at the broker", timeout_s)

    async def log_in_with(self, token: str, **credentials: str) -> None:
        """The account gets another token, and other credentials where some are given."""
        key = self.account.name
        self.account.credentials = self.simulator.credentials(key, token) | credentials
        await self.account.asave()

    async def set_fields(self, **fields: Any) -> None:
        """Changes the broker's row, as the admin does."""
        for name, value in fields.items():
            setattr(self.account.broker, name, value)
        await self.account.broker.asave()


@dataclass(frozen=True, kw_only=True)
class Side:
    """
    One broker of several: its row in the admin, its simulator's arguments, and its accounts with the feed of each.

    An account's name is the key with which it logs in, and its token is made of that, as the demo's is.
    """

    slug: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    simulated: Mapping[str, Any] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=lambda: {DEMO_KEY: ""})


class Together:
    """Several brokers under one supervisor, and a subscriber who hears the status of every feed there is."""

    def __init__(self, supervisor: Supervisor, sub: Subscriber, benches: dict[str, Bench]) -> None:
        self.supervisor, self.sub, self.benches = supervisor, sub, benches

    def __getitem__(self, slug: str) -> Bench:
        return self.benches[slug]

    def shared(self, count: int, mode: Mode = Mode.LTP, feed: str = "") -> list[Key]:
        """Shares of NSE that every one of the brokers lists."""
        listed = [{row.symbol for row in bench.rows if row.exchange == "NSE"} for bench in self.benches.values()]
        first = next(iter(self.benches.values()))
        symbols = [
            row.symbol for row in first.rows if row.exchange == "NSE" and all(row.symbol in each for each in listed)
        ]
        assert len(symbols) >= count, f"only {len(symbols)} are listed by all"
        return [Key(symbol, "NSE", mode, feed) for symbol in symbols[:count]]


@asynccontextmanager
async def feeding(slug: str, fields: dict[str, Any] | None = None, **simulated: Any) -> AsyncIterator[Bench]:
    """Everything running; `fields` are the broker's row in the admin, `simulated` the simulator's arguments."""
    async with feeding_together(Side(slug=slug, fields=fields or {}, simulated=simulated)) as together:
        yield together[slug]


@asynccontextmanager
async def feeding_together(*sides: Side, linger_s: float = LINGER_S) -> AsyncIterator[Together]:
    """Everything running, each broker with its accounts; an instrument nobody wants any more lingers so long."""
    clock = trading_clock()
    async with AsyncExitStack() as stack:
        benches: dict[str, Bench] = {}
        supervisor = Supervisor("127.0.0.1", 0, clock=clock, linger_s=linger_s)
        simulated = {side.slug: await stack.enter_async_context(_simulator(side, clock)) for side in sides}
        filled = {side.slug: await sync_to_async(_fill)(side, simulated[side.slug]) for side in sides}
        task = asyncio.create_task(supervisor.run())
        await supervisor.ready.wait()
        try:
            async with subscriber(supervisor.publisher.port) as sub:
                sub.subscribe(
                    *(status_key(feed) for feed in {feed for side in sides for feed in side.accounts.values()})
                )
                benches |= {slug: Bench(simulated[slug], *filled[slug], sub) for slug in simulated}
                yield Together(supervisor, sub, benches)
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.cancelled(), task


def _simulator(side: Side, clock: Callable[[], float]) -> Simulator:
    tokens = {"accounts": {name: token_of(name) for name in side.accounts}}
    return simulators()[side.slug](
        **{"rate": 500, "symbols": 60, "seed": 1, "clock": clock} | tokens | dict(side.simulated)
    )


def token_of(name: str) -> str:
    """With which an account of this name comes in at first."""
    return DEMO_TOKEN if name == DEMO_KEY else f"{name}-token"


def _fill(side: Side, simulator: Simulator) -> tuple[BrokerAccount, list[InstrumentRow]]:
    """The broker's rows in the database; its first account, and its instruments."""
    adapter = registry.load(side.slug)
    rows = [row for row in rows_of(adapter, simulator) if isinstance(row, InstrumentRow)]
    broker, _ = Broker.objects.update_or_create(slug=side.slug, defaults={"name": adapter.spec.name, **side.fields})
    replace_instruments(broker, rows)
    accounts = [
        BrokerAccount.objects.create(
            broker=broker,
            name=name,
            feed=feed,
            endpoint=simulator.url,
            credentials=simulator.credentials(name, token_of(name)),
        )
        for name, feed in side.accounts.items()
    ]
    return accounts[0], rows
