"""`manage.py run_server`: daphne with the clients' WebSocket and the pages, and the bridge where there is no Redis."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from contextlib import closing
from typing import Any

from channels.layers import get_channel_layer
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from marketdata.checks import MIGRATIONS_TAG
from marketdata.layers import LaneMismatch
from marketdata.routing import edge


class Command(BaseCommand):
    """One server process; `stream --workers N` starts several on one port."""

    help = "Serve clients (WebSocket, admin) on WEBSOCKET_HOST:WEBSOCKET_PORT."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """An inherited socket instead of an address of its own."""
        parser.add_argument("--fd", type=int, help="serve on this inherited listening socket")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serves until SIGTERM or Ctrl-C. Raises CommandError with one sentence, before anything is served."""
        self.check(tags=[MIGRATIONS_TAG], include_deployment_checks=True)
        if options["fd"] is None:
            _check_port(settings.WEBSOCKET_HOST, settings.WEBSOCKET_PORT)
        if sys.platform != "win32":
            import uvloop  # noqa: PLC0415 - there is none on Windows

            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        # Only now: importing daphne's server makes the reactor, on the loop of the policy that is set.
        from marketdata.server import FrameServer  # noqa: PLC0415

        failure: list[str] = []

        async def start() -> None:
            try:
                layer: Any = get_channel_layer()
                await _check_lanes(layer)
            except LaneMismatch as error:
                failure.append(str(error))
                server.stop()
                return
            await edge.start()

        endpoint = _endpoint(options["fd"])
        application = import_string(settings.ASGI_APPLICATION)
        server = FrameServer(application, [endpoint], on_start=start, on_stop=edge.stop)
        server.run()
        if failure:
            raise CommandError(failure[0])


async def _check_lanes(layer: Any) -> None:
    try:
        await layer.check_lanes()
    except (OSError, ConnectionError):
        return  # Redis is away; clients may connect all the same, and ticks come when it is back.


def _check_port(host: str, port: int) -> None:
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"{host}:{port} cannot be used ({error.strerror}). Stop what listens there (OpenAlgo uses the same "
                "port), or set WEBSOCKET_PORT to another."
            ) from None


def _endpoint(descriptor: int | None) -> str:
    """Twisted's description of where to listen."""
    if descriptor is not None:
        return f"fd:fileno={descriptor}"
    host = settings.WEBSOCKET_HOST.replace(":", r"\:")
    if settings.TLS_CERT:
        keys = f"privateKey={settings.TLS_KEY}:certKey={settings.TLS_CERT}"
        return f"ssl:{settings.WEBSOCKET_PORT}:interface={host}:{keys}"
    return f"tcp:port={settings.WEBSOCKET_PORT}:interface={host}"
