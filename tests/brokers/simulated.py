"""A simulated broker beside a test that knows no event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brokers.models import Broker, BrokerAccount
from brokers.simulators import simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from tests.adapters.browsing import log_in_at


@contextmanager
def simulated(slug: str, **options: Any) -> Iterator[Simulator]:
    """Listens in a thread of its own, without ticks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def made() -> Simulator:
        simulator = simulators()[slug](symbols=5, rate=0, **options)
        await simulator.open()
        return simulator

    simulator = asyncio.run_coroutine_threadsafe(made(), loop).result(10)
    try:
        yield simulator
    finally:
        asyncio.run_coroutine_threadsafe(simulator.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def account_at(simulator: Simulator, name: str = "main", **credentials: str) -> BrokerAccount:
    """An account there, with the demo's credentials and what else is given."""
    held = simulator.credentials(DEMO_KEY, DEMO_TOKEN) | credentials
    broker = Broker.objects.get(slug=simulator.slug)
    return BrokerAccount.objects.create(broker=broker, name=name, credentials=held, endpoint=simulator.url)


def tokens_asked_for(simulator: Simulator) -> list[str]:
    """What came of every call that asked for a token."""
    return [
        entry["event"]
        for entry in simulator.log
        if entry["event"] in ("login_ok", "login_refused") and entry["what"] in ("token", "renewal")
    ]


def person_logs_in(page: str) -> tuple[str, dict[str, str]]:
    """A person at the broker's page: the address they are sent back to, and its parameters."""
    return asyncio.run(log_in_at(page))
