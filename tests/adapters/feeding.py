"""The feed of one account against a broker's simulator, through the real wire; the simulator is the witness."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import sync_to_async

from brokers import registry
from brokers.contract import Adapter, InstrumentRow
from brokers.feed.supervisor import Supervisor
from brokers.instruments.store import replace_instruments
from brokers.models import Broker, BrokerAccount
from brokers.simulators import simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from marketdata.ticks import FeedState, Key, Mode, Segment
from marketdata.topics import status_key
from tests.brokers.feed.bench import Subscriber, subscriber, until


class Bench:
    """The simulator, the account in the database, its instruments, and a subscriber on the bus."""

    def __init__(
        self, simulator: Simulator, account: BrokerAccount, rows: list[InstrumentRow], sub: Subscriber
    ) -> None:
        self.simulator, self.account, self.rows, self.sub = simulator, account, rows, sub

    def keys(self, count: int, mode: Mode = Mode.LTP, segments: frozenset[Segment] = frozenset()) -> list[Key]:
        """Instruments the broker lists, of these segments (empty: any)."""
        rows = [row for row in self.rows if not segments or row.segment in segments]
        return [Key(row.symbol, row.exchange, mode) for row in rows[:count]]

    @property
    def state(self) -> FeedState | None:
        """The account's, as told on the bus."""
        images = self.sub.statuses[""]
        return images[-1].accounts[0].state if images else None

    def held(self) -> int:
        """How many instruments are subscribed at the broker."""
        return len(self.simulator.subscribed())

    async def holds(self, count: int) -> None:
        """Waits until so many are."""
        await until(lambda: self.held() == count, f"{count} instruments at the broker, not {self.held()}")

    async def log_in_with(self, token: str) -> None:
        """The account gets another token."""
        self.account.credentials = self.simulator.credentials(DEMO_KEY, token)
        await self.account.asave()


def rows_of(adapter: Adapter, simulator: Simulator) -> list[InstrumentRow]:
    """The simulated master through the adapter's eyes."""
    return [
        row
        for master in adapter.spec.masters
        for row in adapter.parse_instruments(simulator.master(master.segment).encode(), master.segment)
        if isinstance(row, InstrumentRow)
    ]


@asynccontextmanager
async def feeding(slug: str, fields: dict[str, Any] | None = None, **simulated: Any) -> AsyncIterator[Bench]:
    """Everything running; `fields` are the broker's row in the admin, `simulated` the simulator's arguments."""
    adapter = registry.load(slug)
    async with simulators()[slug](**{"rate": 500, "symbols": 60, "seed": 1} | simulated) as simulator:
        rows = rows_of(adapter, simulator)
        account = await sync_to_async(_fill)(adapter, simulator, rows, fields or {})
        supervisor = Supervisor("127.0.0.1", 0)
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
