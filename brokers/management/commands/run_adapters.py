"""`manage.py run_adapters`: holds the broker connections and publishes their ticks until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import stamina.instrumentation
import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from brokers.feed.publisher import BusError
from brokers.feed.supervisor import Supervisor
from brokers.instruments.daily import keep_current

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """One at a time: it owns the bus and the accounts' sockets."""

    help = "Connects to the brokers and publishes ticks on ZeroMQ. One at a time is enough."

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs until SIGTERM or Ctrl-C."""
        # The check is registered on the clients' side, which must not be imported from here: its tag is enough.
        self.check(tags=["migrations"], include_deployment_checks=True)
        # Plain asyncio: uvloop gains nothing for the library that reads the brokers' sockets. The selector's loop,
        # because the bus is read by its descriptor, which the loop Windows has by default cannot.
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(_run())
        except BusError as error:
            raise CommandError(str(error)) from None


async def _run() -> None:
    stamina.instrumentation.set_on_retry_hooks([])  # who retries says so, once
    supervisor = Supervisor(settings.ZMQ_HOST, settings.ZMQ_PORT)
    task = asyncio.ensure_future(supervisor.run())
    syncing = asyncio.ensure_future(_keep_current(supervisor))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
            loop.add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        syncing.cancel()
        await asyncio.wait([syncing])


async def _keep_current(supervisor: Supervisor) -> None:
    """The daily sync of instruments, once the feed stands; a mistake in it does not end the feed."""
    await supervisor.ready.wait()
    if not settings.SYNC_INSTRUMENTS:
        return
    try:
        await keep_current()
    except Exception:
        log.exception("instruments_sync_ended", consequence="the feed goes on; sync by hand, or restart")
