"""
The clients' side seen from outside: Redis, the leases in it, the bridge's sign of life, a server's answer.

For commands that look on: nothing is changed, and nothing takes longer than a few seconds, whatever is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence

import msgspec
from django.conf import settings
from redis import asyncio as aioredis
from redis.exceptions import RedisError

from marketdata.addresses import reachable
from marketdata.ledger import Census, LedgerUnavailable, RedisLedger
from marketdata.report import BridgeReport, ClientsReport, ReportError, decode_bridge
from marketdata.ticks import Key, Mode
from marketdata.topics import topic_of

PATIENCE_S = 3.0
"""So long each hop may take to answer."""
LANES_KEY = "asgi:lanes"
"""Where the channel layer keeps the number of lanes; see `layers`."""

_REQUEST = b"GET /admin/login/ HTTP/1.0\r\nHost: localhost\r\n\r\n"


async def look(symbol: str, exchange: str, feed: str) -> ClientsReport:
    """Everything that can be seen, of one instrument's leases among the rest. What is down is told, not raised."""
    server, behind = await asyncio.gather(_server_problem(), _behind_redis(symbol, exchange, feed))
    return msgspec.structs.replace(behind, server_problem=server, throttle_ms=settings.THROTTLE_MS)


# --------------------------------------------------------------------------------------------------------------- Redis


async def _behind_redis(symbol: str, exchange: str, feed: str) -> ClientsReport:
    if not settings.REDIS_URL:
        return ClientsReport(uses_redis=False)
    topics = {topic_of(Key(symbol, exchange, mode, feed)): mode for mode in Mode}
    try:
        async with asyncio.timeout(PATIENCE_S):
            census, lanes_problem = await asyncio.gather(_census(list(topics)), _lanes_problem())
    except (LedgerUnavailable, RedisError, OSError, TimeoutError) as error:
        # A time-out has no words of its own. None of these texts holds the address, which may hold a password.
        reason = str(error) or f"no answer within {PATIENCE_S:g} s"
        return ClientsReport(uses_redis=True, redis_problem=f"Redis does not answer: {_bare(reason)}.")
    return ClientsReport(
        uses_redis=True,
        lanes_problem=lanes_problem,
        hubs=census.hubs,
        wanted={topics[topic]: count for topic, count in census.wanted.items() if count},
        bridge=_bridge(census),
    )


async def _census(topics: Sequence[bytes]) -> Census:
    ledger = RedisLedger(settings.REDIS_URL)
    try:
        return await ledger.census(topics)
    finally:
        await ledger.close()


async def _lanes_problem() -> str:
    """Whether the processes on this Redis have another number of lanes than the settings; "": no."""
    async with aioredis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=PATIENCE_S) as redis:
        stored = await redis.get(LANES_KEY)
    if stored is None or int(stored) == settings.TICK_LANES:
        return ""
    return (
        f"The processes on this Redis have TICK_LANES={int(stored)}, the settings say {settings.TICK_LANES}; they do "
        f"not hear each other. Set TICK_LANES={int(stored)}, or stop everything and delete the key {LANES_KEY}."
    )


def _bridge(census: Census) -> BridgeReport | None:
    if census.life is None:
        return None
    with contextlib.suppress(ReportError):  # a bridge of another version: what it says is not for us
        return decode_bridge(census.life)
    return None


def _bare(reason: str) -> str:
    return reason.removeprefix("Redis does not answer: ").rstrip(".")


# -------------------------------------------------------------------------------------------------------------- server


async def _server_problem() -> str:
    """Why no server can be reached where clients connect; "": one answers."""
    host, port = reachable(settings.WEBSOCKET_HOST), settings.WEBSOCKET_PORT
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = await _first_line(host, port)
    except TimeoutError:
        return f"What listens on {host} port {port} does not answer within {PATIENCE_S:g} s."
    except OSError:
        return f"Nothing listens on {host} port {port}, where clients connect."
    if not line.startswith(b"HTTP/"):
        return f"What listens on {host} port {port} is no server of ours: it does not speak HTTP."
    return ""


async def _first_line(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, ssl=_encryption())
    try:
        writer.write(_REQUEST)
        return await reader.readline()
    finally:
        writer.close()


def _encryption() -> ssl.SSLContext | None:
    """As the server has it. Its name is not checked: nothing secret is said, and it is asked for by its address."""
    if not settings.TLS_CERT:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
