"""A running supervisor for a test: real database, real ZeroMQ, brokers of a few lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import sync_to_async

from brokers.feed.supervisor import Supervisor
from brokers.models import Broker, BrokerAccount, Instrument
from marketdata.ticks import AccountStatus, FeedState, Key, KeyStatus, Mode
from marketdata.topics import status_key
from tests.brokers.feed.bench import Subscriber, subscriber, trading_clock

SBIN, TCS = Key("SBIN", "NSE", Mode.LTP), Key("TCS", "NSE", Mode.LTP)


class Bench:
    """A running supervisor with its toy brokers and a subscriber."""

    def __init__(self, supervisor: Supervisor, sub: Subscriber) -> None:
        self.supervisor, self.sub = supervisor, sub

    def account(self, name: str = "main", feed: str = "") -> AccountStatus | None:
        """What was last published of an account."""
        images = self.sub.statuses[feed]
        return next((each for each in images[-1].accounts if each.account == name), None) if images else None

    def state(self, name: str = "main", feed: str = "") -> FeedState | None:
        account = self.account(name, feed)
        return account.state if account else None

    def key_states(self, feed: str = "") -> dict[str, FeedState]:
        images = self.sub.statuses[feed]
        return {key.symbol: key.state for key in images[-1].keys} if images else {}

    def key_status(self, symbol: str) -> KeyStatus:
        return next(key for key in self.sub.statuses[""][-1].keys if key.symbol == symbol)


def add_broker(slug: str = "toy", symbols: int = 0, **fields: Any) -> Broker:
    """A broker that lists SBIN (token 1), TCS (token 2) and S0, S1 … (tokens from 100)."""
    broker, _ = Broker.objects.update_or_create(slug=slug, defaults={"name": slug.title(), **fields})
    names = {"SBIN": 1, "TCS": 2} | {f"S{number}": 100 + number for number in range(symbols)}
    Instrument.objects.bulk_create(
        Instrument(broker=broker, segment="NSE", token=str(token), symbol=symbol, exchange="NSE",
                   broker_symbol=symbol, broker_exchange="NSE")
        for symbol, token in names.items()
    )  # fmt: skip
    return broker


def add_account(broker: Broker, url: str, name: str = "main", token: str = "good", **fields: Any) -> BrokerAccount:
    return BrokerAccount.objects.create(
        broker=broker, name=name, endpoint=url, credentials={"key": "k", "token": token}, **fields
    )


def set_up(url: str, symbols: int = 0, **fields: Any) -> BrokerAccount:
    return add_account(add_broker(symbols=symbols, **fields), url)


async def in_database(work: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
    return await sync_to_async(work)(*arguments, **fields)


async def change(row: Any, **fields: Any) -> None:
    """Saves as the admin does."""
    for name, value in fields.items():
        setattr(row, name, value)
    await row.asave()


@asynccontextmanager
async def supervising(
    linger_s: float = 15.0, statuses: tuple[str, ...] = ("",), clock: Callable[[], float] | None = None
) -> AsyncIterator[Bench]:
    """A supervisor that runs; by the clock it is 11:00 on a trading day, unless another one is given."""
    supervisor = Supervisor("127.0.0.1", 0, linger_s=linger_s, clock=clock or trading_clock())
    task = asyncio.create_task(supervisor.run())
    ready = asyncio.create_task(supervisor.ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    try:
        if task.done():
            task.result()
        async with subscriber(supervisor.publisher.port) as sub:
            sub.subscribe(*map(status_key, statuses))
            yield Bench(supervisor, sub)
    finally:
        ready.cancel()
        task.cancel()
        await asyncio.wait([task], timeout=5)
        assert task.cancelled(), task
