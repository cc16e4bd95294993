"""Tasks end although a library lost their cancellation."""

from __future__ import annotations

import asyncio
import time

import pytest

from marketdata import tasks


async def test_a_task_that_loses_its_first_cancellation_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost > 1:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.end([task]), 5)
    assert task.cancelled()
    assert lost == 2


async def test_a_task_may_clean_up_and_a_failed_one_raises_nothing() -> None:
    cleaned = asyncio.Event()

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    async def failed() -> None:
        raise ValueError

    began_s = time.monotonic()
    both = [asyncio.create_task(tidy()), asyncio.create_task(failed())]
    await asyncio.sleep(0)
    await tasks.end(both)
    assert cleaned.is_set()
    assert time.monotonic() - began_s < 3
