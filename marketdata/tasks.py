"""Ending background tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_AGAIN_S = 1.0
"""How long a cancelled task may take to clean up before it is cancelled once more."""


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """
    Cancels tasks until all have ended; their errors are not raised.

    Once is not always enough: up to Python 3.11 `asyncio.wait_for` loses a cancellation that comes in the moment in
    which what it waits for is done (python/cpython#86296), and redis-py sends every command through it.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        done, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)
        await asyncio.gather(*done, return_exceptions=True)
