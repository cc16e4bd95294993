"""The feed of one account against a broker's simulator, through the real wire; the simulator is the witness."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import sync_to_async

from brokers import registry
from brokers.contract import Adapter, Feed, InstrumentRow
from brokers.feed.supervisor import Supervisor
from brokers.instruments.store import replace_instruments
from brokers.models import Broker, BrokerAccount
from brokers.simulators import rows_of, simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from marketdata.ticks import AccountStatus, FeedState, Key, Mode
from marketdata.topics import status_key
from tests.brokers.feed.bench import Subscriber, subscriber, trading_clock, until


class Bench:
    """The simulator, the account in the database, its instruments, and a subscriber on the bus."""

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
        return self.status().state if self.sub.statuses[""] else None

    def status(self) -> AccountStatus:
        """The account's, as last told on the bus."""
        return self.sub.statuses[""][-1].accounts[0]

    def held(self) -> int:
        """How many instruments are subscribed at the broker."""
        return len(self.simulator.subscribed())

    async def holds(self, count: int) -> None:
        """Waits until so many are."""
        await until(lambda: self.held() == count, f"{count} instruments at the broker, not {self.held()}")

    async def log_in_with(self, token: str, **credentials: str) -> None:
        """The account gets another token, and other credentials where some are given."""
        self.account.credentials = self.simulator.credentials(DEMO_KEY, token) | credentials
        await self.account.asave()


@asynccontextmanager
async def feeding(slug: str, fields: dict[str, Any] | None = None, **simulated: Any) -> AsyncIterator[Bench]:
    """Everything running; `fields` are the broker's row in the admin, `simulated` the simulator's arguments."""
    adapter = registry.load(slug)
    clock = trading_clock()
    async with simulators()[slug](**{"rate": 500, "symbols": 60, "seed": 1, "clock": clock} | simulated) as simulator:
        rows = [row for row in rows_of(adapter, simulator) if isinstance(row, InstrumentRow)]
        account = await sync_to_async(_fill)(adapter, simulator, rows, fields or {})
        supervisor = Supervisor("127.0.0.1", 0, clock=clock)
        task = asyncio.create_task(supervisor.run())
        await supervisor.ready.wait()
        try:
            async with subscriber(supervisor.publisher.port) as sub:
                sub.subscribe(status_key())
                yield Bench(simulator, account, rows, sub)
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.cancelled(), task


def _fill(adapter: Adapter, simulator: Simulator, rows: list[InstrumentRow], fields: dict[str, Any]) -> BrokerAccount:
    broker, _ = Broker.objects.update_or_create(slug=adapter.spec.slug, defaults={"name": adapter.spec.name, **fields})
    replace_instruments(broker, rows)
    return BrokerAccount.objects.create(
        broker=broker, name="demo", endpoint=simulator.url, credentials=simulator.credentials(DEMO_KEY, DEMO_TOKEN)
    )
