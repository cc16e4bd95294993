"""`manage.py run_bridge`: relays ticks from ZeroMQ into the channel layer until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from marketdata.checks import MIGRATIONS_TAG
from marketdata.layers import LaneMismatch
from marketdata.ledger import make_ledger
from marketdata.routing import make_bridge


class Command(BaseCommand):
    """Needs Redis: without it the bridge runs inside the server process."""

    help = "Relays ticks from the adapters (ZeroMQ) to the servers (Redis). One at a time is enough."

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs until SIGTERM or Ctrl-C."""
        if not settings.REDIS_URL:
            raise CommandError("REDIS_URL is not set; without Redis the bridge runs inside run_server.")
        self.check(tags=[MIGRATIONS_TAG], include_deployment_checks=True)
        if sys.platform != "win32":
            import uvloop  # noqa: PLC0415 - there is none on Windows

            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        try:
            asyncio.run(_run())
        except LaneMismatch as error:
            raise CommandError(str(error)) from None


async def _run() -> None:
    layer: Any = get_channel_layer()
    ledger = make_ledger()
    await layer.check_lanes()
    task = asyncio.ensure_future(make_bridge(layer, ledger).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
