"""
The brokers' instruments, kept up to date beside the feed: each broker at its own time of day, by a child process.

Parsing a master in the feed's own process would stall its ticks; the child, with a lower priority, does not. What it
changed the feed notices in the database, as it does after a sync by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import subprocess
import sys
from pathlib import Path

import structlog
from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError
from django.db.models import Max, Q
from django.utils import timezone

from brokers import registry
from brokers.contract import Spec
from brokers.instruments.schedule import APART, next_sync, publishing_time
from brokers.instruments.sync import NotSyncable, brokers_in_use, logins, simulator_of
from brokers.models import Broker, InstrumentMaster

log = structlog.get_logger(__name__)

LOOK_S = 5.0
"""How often it is looked whether a sync is due: a login is followed by one within so long."""
JITTER_S = 240.0
"""An installation syncs up to so long after the publishing time: not all of them in the same second."""
CHILD_S = 1800.0
"""A sync that takes longer is ended."""
STOP_S = 1.0
"""How long a child is given to end before it is killed."""


async def keep_current() -> None:
    """Syncs brokers as they become due, one after the other, until it is cancelled."""
    jitters: dict[str, dt.timedelta] = {}
    while True:
        # Without the database nothing is due; the feed's own look at it tells.
        with contextlib.suppress(DatabaseError):
            for slug in await database_sync_to_async(due)(timezone.now(), jitters):
                if await database_sync_to_async(claim)(slug, timezone.now()):
                    await _sync(slug)
        await asyncio.sleep(LOOK_S)


def due(now: dt.datetime, jitters: dict[str, dt.timedelta]) -> list[str]:
    """
    The brokers whose sync is due, by slug; `jitters` holds each one's own and is added to.

    Raises django.db.DatabaseError.
    """
    return [broker.slug for broker in brokers_in_use() if _is_due(broker, now, jitters)]


def claim(slug: str, now: dt.datetime) -> bool:
    """
    Whether an attempt may be made now: not within ten minutes of another one, by whatever process. It is noted.

    Raises django.db.DatabaseError.
    """
    free = Q(sync_tried_at=None) | Q(sync_tried_at__lte=now - APART)
    return Broker.objects.filter(free, slug=slug).update(sync_tried_at=now) == 1


def _is_due(broker: Broker, now: dt.datetime, jitters: dict[str, dt.timedelta]) -> bool:
    try:
        spec = registry.load(broker.slug).spec
        simulated = bool(simulator_of(broker))
    except (registry.UnknownBroker, NotSyncable):
        return False
    needs_login = not simulated and any(master.needs_login for master in spec.masters)
    renewed_at = _renewed_at(spec, broker) if needs_login else None
    if not spec.masters or (needs_login and renewed_at is None):
        return False
    jitter = jitters.setdefault(broker.slug, dt.timedelta(seconds=random.uniform(0.0, JITTER_S)))
    at = next_sync(
        now,
        published=publishing_time(spec.masters),
        current_at=_current_at(broker, simulated=simulated),
        tried_at=broker.sync_tried_at,
        failures=broker.sync_failures,
        jitter=jitter,
        renewed_at=renewed_at,
    )
    return at <= now


def _renewed_at(spec: Spec, broker: Broker) -> dt.datetime | None:
    """When a login that can download was saved; None: there is none."""
    return max((account.updated_at for account in logins(spec, broker)), default=None)


def _current_at(broker: Broker, *, simulated: bool) -> dt.datetime | None:
    """When what is stored was the newest there is; None for nothing, and for a simulator's where a real is wanted."""
    masters = InstrumentMaster.objects.filter(broker=broker)
    if not masters.exists() or masters.exclude(simulated=simulated).exists():
        return None
    imported_at: dt.datetime = masters.aggregate(at=Max("imported_at"))["at"]
    return max(imported_at, broker.synced_at or imported_at)


# ------------------------------------------------------------------------------------------------------------ the child


def command(slug: str) -> list[str]:
    """What the child runs."""
    return [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "sync_instruments", slug, "--background"]


async def _sync(slug: str) -> None:
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    # Not asyncio's own: the event loop on which the bus is read cannot start processes on Windows. The command is ours.
    with subprocess.Popen(command(slug), stdin=none, stdout=pipe, stderr=pipe) as child:  # noqa: ASYNC220, S603
        try:
            async with asyncio.timeout(CHILD_S):
                said, complaints = await asyncio.to_thread(child.communicate)
        except TimeoutError:
            log.warning("instruments_not_synced", broker=slug, reason=f"It was not done within {CHILD_S:g} s.")
            return
        finally:
            await _end(child)
    words = (said if child.returncode == 0 else complaints).decode(errors="replace").strip()
    last = words.rpartition("\n")[2].removeprefix(f"{slug}: ")
    if child.returncode == 0:
        log.info("instruments_synced", broker=slug, result=last)
    else:
        log.warning("instruments_not_synced", broker=slug, reason=last)


async def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(child.wait, STOP_S)
    finally:  # also when we are told to end meanwhile
        if child.poll() is None:
            child.kill()
