"""Clients of a simulator, closed after the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import websockets

from brokers.simulators.engine import Simulator
from tests.brokers.simulators.kite import DEMO, Kite

Connect = Callable[..., Awaitable[Kite]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens clients; raises websockets.InvalidStatus where the broker refuses."""
    async with AsyncExitStack() as stack:

        async def open_one(simulator: Simulator, query: str = DEMO) -> Kite:
            socket = await websockets.connect(f"{simulator.url}/?{query}", max_queue=None, close_timeout=1)
            stack.push_async_callback(socket.close)
            kite = Kite(socket)
            reader = asyncio.create_task(kite.read())
            stack.callback(reader.cancel)
            return kite

        yield open_one
