"""
The WebSocket side of the ASGI application: which path speaks which dialect, whom to let in, and the edge behind it.

The edge (a hub and, without Redis, the bridge beside it) is made when a loop first needs it, so the same application
runs under `run_server`, plain daphne and uvicorn.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import structlog
from channels.layers import get_channel_layer
from django.conf import settings

from marketdata import auth
from marketdata.bridge import Bridge
from marketdata.consumers import StreamConsumer
from marketdata.dialects import NATIVE, OPENALGO, Dialect
from marketdata.hub import Hub
from marketdata.ledger import make_ledger
from marketdata.tasks import end

log = structlog.get_logger(__name__)

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (NATIVE, OPENALGO)}
"""The client protocols by their names in the settings."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Edge:
    """What stands between the channel layer and the clients of one process."""

    def __init__(self) -> None:
        self.hub: Hub | None = None
        self._bridge: asyncio.Task[None] | None = None

    async def start(self) -> Hub:
        """The running hub; made, with the in-process bridge where there is no Redis, at the first call."""
        if self.hub is None:
            layer, ledger = get_channel_layer(), make_ledger()
            self.hub = Hub(layer, ledger, revoked=auth.revoked, slow_client_s=settings.SLOW_CLIENT_S)
            self.hub.start()
            log.info("streams", **{name: _paths_of(dialect) for name, dialect in DIALECTS.items()})
            if not settings.REDIS_URL:
                self._bridge = asyncio.ensure_future(make_bridge(layer, ledger).run())
        return self.hub

    async def stop(self) -> None:
        """Sends the clients away, gives the lease back, ends the bridge."""
        if self.hub is not None:
            await self.hub.stop()
        if self._bridge is not None:
            await end([self._bridge])


edge = Edge()


def make_bridge(layer: Any, ledger: Any) -> Bridge:
    """The bridge the settings describe."""
    address = f"tcp://{settings.ZMQ_HOST}:{settings.ZMQ_PORT}"
    return Bridge(layer, ledger, address, throttle_ms=settings.THROTTLE_MS)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application for `scope["type"] == "websocket"`."""
    dialect = streams().get(scope["path"].rstrip("/") or "/")
    origin = _header(scope, b"origin")
    if dialect is None:
        await _deny(scope, receive, send, 404, f"There is no stream here; use one of {', '.join(streams())}.")
    elif origin is not None and not is_allowed(origin, _header(scope, b"host")):
        log.warning("origin_refused", origin=origin)
        await _deny(scope, receive, send, 403, "This origin may not connect; add it to ALLOWED_ORIGINS.")
    else:
        hub = await edge.start()
        consumer: Any = StreamConsumer(hub, dialect)
        await consumer(scope, receive, send)


def streams() -> dict[str, Dialect]:
    """
    Path to dialect. A path without its trailing slash means the same; no other path has a stream.

    >>> {path: dialect.name for path, dialect in streams().items()}
    {'/': 'native', '/v1': 'native', '/openalgo': 'openalgo'}
    """
    aliases = dict.fromkeys((path.rstrip("/") for path in settings.OPENALGO_PATHS), OPENALGO)
    return {"/": DIALECTS[settings.ROOT_DIALECT], "/v1": NATIVE, "/openalgo": OPENALGO, **aliases}


def _paths_of(dialect: Dialect) -> list[str]:
    return [path for path, spoken in streams().items() if spoken is dialect]


def is_allowed(origin: str, host: str | None) -> bool:
    """
    Whether a page of this origin may open a stream: loopback, ALLOWED_ORIGINS, and our own host by its allowed name.

    A handshake without an Origin header (every client that is no browser) is not asked here.
    """
    parts = urlsplit(origin)
    if parts.hostname in _LOOPBACK or origin in settings.ALLOWED_ORIGINS:
        return True
    return host is not None and parts.netloc == host and parts.hostname in settings.ALLOWED_HOSTS


def _header(scope: dict[str, Any], name: bytes) -> str | None:
    for header, value in scope["headers"]:
        if header == name:
            text: str = value.decode("latin1")
            return text
    return None


async def _deny(scope: dict[str, Any], receive: Any, send: Any, status: int, sentence: str) -> None:
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": f"{sentence}\n".encode()})
    else:
        await send({"type": "websocket.close", "code": 4000 + status})
