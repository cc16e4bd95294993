"""
daphne with ready-made frames: a client's frames go to its transport in one write, and its back-pressure is heard.

Importing this installs Twisted's reactor on the event-loop policy of that moment: set the policy first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from autobahn.exception import Disconnected
from autobahn.websocket import ConnectionDeny
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import defer
from twisted.internet.tcp import Connection

from marketdata.peers import EXTENSION, Nothing

log = structlog.get_logger(__name__)

SEND_BUFFER_BYTES = 128 * 1024
"""Of an accepted socket. With the kernel's default, megabytes of old prices wait there before the first pause."""
MESSAGE_LIMIT_BYTES = 1024 * 1024
PING_INTERVAL_S = 20
PING_TIMEOUT_S = 30
STOP_S = 2.0
"""How long clients and leases are given when the server stops."""


class Transport:
    """What a consumer finds in `scope["extensions"]`: see `marketdata.peers.FrameTransport`."""

    def __init__(self, protocol: FrameProtocol) -> None:
        self._protocol = protocol
        self.paused = False
        self.on_pause: Nothing = _nothing
        self.on_resume: Nothing = _nothing

    def write(self, data: bytes) -> None:
        """
        Ready-made WebSocket frames, as one write; after the closing handshake began, nothing.

        Straight to the kernel where nothing waits before it: Twisted would ask the loop to call it back when the
        socket is writable, which it nearly always is, and that costs more than the write.
        """
        protocol = self._protocol
        if protocol.state != protocol.STATE_OPEN:
            return
        transport = protocol.transport
        if _is_plain(transport) and not _has_backlog(transport):
            try:
                sent = transport.socket.send(data)
            except OSError:
                sent = 0  # full, or broken: Twisted finds out which
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def listen(self, on_pause: Nothing, on_resume: Nothing) -> None:
        """Who is told when the transport's buffer is full, and when it has room again."""
        self.on_pause, self.on_resume = on_pause, on_resume

    def close(self, code: int, reason: str) -> None:
        """A closing handshake."""
        protocol = self._protocol
        if protocol.state == protocol.STATE_OPEN:
            protocol.sendClose(code=code, reason=reason)

    def abort(self) -> None:
        """Drops the TCP connection, without a close frame."""
        self._protocol.dropConnection(abort=True)


class FrameProtocol(WebSocketProtocol):  # type: ignore[misc]
    """One client's WebSocket, with its transport's pauses passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = Transport(self)
        self._denied: tuple[int, bytes] | None = None

    def onConnect(self, request: Any) -> Any:
        """Small buffers, so that pauses come early."""
        handle = self.transport.getHandle()
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return super().onConnect(request)

    def onOpen(self) -> None:
        """The HTTP channel is registered as the transport's producer still; from here on it is this protocol."""
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        super().onOpen()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """A client that goes away in the middle of the handshake is told to the application too, once."""
        self.transport.unregisterProducer()
        super().onClose(wasClean, code, reason)

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.frames.paused = True
        self.frames.on_pause()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self.frames.paused = False
        self.frames.on_resume()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.frames.paused = True

    def handle_reply(self, message: dict[str, Any]) -> None:
        """Adds ASGI's `websocket.http.response`: a handshake refused with a status and a sentence."""
        if message["type"] == "websocket.http.response.start":
            self._denied = message["status"], b""
        elif message["type"] == "websocket.http.response.body" and self._denied is not None:
            status, body = self._denied
            self._denied = status, body + message.get("body", b"")
            if not message.get("more_body", False):
                self._deny(status, self._denied[1])
        elif message["type"] == "websocket.close" and self.state != self.STATE_CONNECTING:
            self.frames.close(message.get("code") or 1000, message.get("reason") or "")
        else:
            try:
                super().handle_reply(message)
            except Disconnected:
                log.debug("message_after_disconnect", client=self.client_addr)

    def _deny(self, status: int, body: bytes) -> None:
        deferred = self.__dict__.pop("handshake_deferred", None)
        if deferred is not None:
            deny: Any = ConnectionDeny
            deferred.errback(deny(status, reason=body.decode("latin1").strip()))
            self.server.protocol_disconnected(self)


class FrameServer(Server):  # type: ignore[misc]
    """
    daphne with FrameProtocol; `on_start` and `on_stop` run in its loop before the first and after the last client.
    """

    def __init__(
        self,
        application: Any,
        endpoints: list[str],
        *,
        on_start: Callable[[], Awaitable[Any]],
        on_stop: Callable[[], Awaitable[Any]],
    ) -> None:
        self._on_start = on_start
        self._on_stop = on_stop
        super().__init__(
            application,
            endpoints=endpoints,
            websocket_timeout=-1,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            websocket_max_message_size=MESSAGE_LIMIT_BYTES,
            websocket_max_frame_size=MESSAGE_LIMIT_BYTES,
            application_close_timeout=5,
            ready_callable=self._ready,
            server_name="",
        )

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Offers our extensions to WebSocket applications."""
        if scope["type"] == "websocket":
            scope["extensions"] = {EXTENSION: protocol.frames, "websocket.http.response": {}}
        return super().create_application(protocol, scope)

    def kill_all_applications(self) -> Any:
        """Runs before the reactor stops: clients are sent away first, then what is left is cancelled."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._shut_down()))

    def _ready(self) -> None:
        self.ws_factory.protocol = FrameProtocol
        # A close frame says why, also to a client that sent too much.
        self.ws_factory.setProtocolOptions(failByDrop=False, closeHandshakeTimeout=2)
        loop = asyncio.get_event_loop()
        loop.call_soon(lambda: asyncio.ensure_future(self._start()))

    async def _start(self) -> None:
        try:
            await self._on_start()
        except Exception:
            log.exception("start_failed")
            self.stop()

    async def _shut_down(self) -> None:
        try:
            await asyncio.wait_for(self._on_stop(), STOP_S)
        except TimeoutError:
            log.warning("stop_took_too_long", limit_s=STOP_S)
        running = [details.get("application_instance") for details in self.connections.values()]
        tasks = [task for task in running if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_plain(transport: Any) -> bool:
    """Whether what is written goes to the socket as it is: TCP without TLS."""
    return isinstance(transport, Connection) and not transport.TLS


def _has_backlog(transport: Any) -> bool:
    """Whether bytes wait in Twisted's own buffers; it has no public word for that."""
    return bool(transport._tempDataBuffer) or transport.offset != len(transport.dataBuffer)


def _nothing() -> None:
    """Nobody listens yet."""
