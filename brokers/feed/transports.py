"""
How bytes travel to and from a broker: one opener for each `contract.Transport`, all with the same face.

What a library raises is turned into three words here: refused before it stood, closed, or OSError. No text made here
holds a URL or a header: they carry tokens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    WebSocketException,
)
from websockets.http11 import USER_AGENT
from websockets.typing import Subprotocol

from brokers.contract import Feed, Frame, Handshake, Transport
from brokers.models import is_loopback

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
PONG_TIMEOUT_S = 10.0
"""A ping unanswered for so long means the socket is dead."""
MAX_FRAME_BYTES = 16 * 1024 * 1024


class Closed(Exception):
    """The socket is closed, by whomever; `code` 1006 is "without a word"."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with code {code}{f' ({reason})' if reason else ''}")
        self.code = code
        self.reason = reason


class UpgradeRefused(Exception):
    """The server answered HTTP instead of opening the socket."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


class Unspeakable(Exception):
    """The other end does not speak the transport's protocol, or the address is none of it."""


class Socket(Protocol):
    """An open socket."""

    async def recv(self) -> Frame:
        """The next frame. Raises Closed."""

    async def send(self, frame: Frame) -> None:
        """Sends a frame. Raises Closed."""

    async def close(self) -> None:
        """Says goodbye; waits `CLOSE_TIMEOUT_S` at most."""

    def abort(self) -> None:
        """Ends it without a word, for sockets that are dead anyway."""


Opener = Callable[[Handshake, Feed], Awaitable[Socket]]


class _Connect(connect):
    """Follows no redirect: the credentials are for the address they were made for."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def open_websocket(handshake: Handshake, feed: Feed) -> Socket:
    """
    A WebSocket by a handshake.

    Raises UpgradeRefused, Unspeakable, or OSError (TimeoutError is one): nobody there.
    """
    has_agent = any(name.lower() == "user-agent" for name in handshake.headers)
    try:
        connection = await _Connect(
            handshake.url,
            additional_headers=dict(handshake.headers),
            subprotocols=[Subprotocol(name) for name in handshake.subprotocols] or None,
            # A proxy of the environment is for the way out, not for a simulator beside us.
            proxy=None if is_loopback(urlsplit(handshake.url).hostname or "") else True,
            compression=None,
            max_size=MAX_FRAME_BYTES,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=feed.ping_s,
            ping_timeout=PONG_TIMEOUT_S,
            user_agent_header=None if has_agent else USER_AGENT,
        )
    except InvalidStatus as refusal:
        raise UpgradeRefused(refusal.response.status_code, bytes(refusal.response.body)) from None
    except (InvalidMessage, ProxyError):
        raise ConnectionError("the other end, or a proxy before it, hung up before it answered") from None
    except InvalidURI:
        raise Unspeakable("the address is no WebSocket address") from None
    except WebSocketException as error:
        raise Unspeakable(f"the other end speaks no WebSocket ({type(error).__name__})") from None
    return _WebSocket(connection)


class _WebSocket:
    """A `websockets` connection with the face of `Socket`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def recv(self) -> Frame:
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            raise self._closed() from None

    async def send(self, frame: Frame) -> None:
        try:
            await self._connection.send(frame)
        except ConnectionClosed:
            raise self._closed() from None

    async def close(self) -> None:
        await self._connection.close()

    def abort(self) -> None:
        self._connection.transport.abort()

    def _closed(self) -> Closed:
        code, reason = self._connection.close_code, self._connection.close_reason
        return Closed(1006 if code is None else code, reason or "")


OPENERS: Mapping[Transport, Opener] = {Transport.WEBSOCKET: open_websocket}
