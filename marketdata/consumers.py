"""
One client connection: the handshake, commands in strict order, answers out. Ticks pass by it: the hub writes them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import structlog
from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from django.db import Error as DatabaseError
from msgspec import UNSET

from brokers import catalog
from marketdata import auth
from marketdata.dialects.base import (
    About,
    Authenticate,
    BadCommandError,
    Command,
    Dialect,
    GetSubscriptions,
    Ping,
    Question,
    Rejected,
    RequestId,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from marketdata.errors import (
    ALREADY_AUTHENTICATED,
    BINARY_FRAME,
    CLOSE_AUTH_TIMEOUT,
    CLOSE_FLOOD,
    CLOSE_TOO_BIG,
    CLOSE_TOO_MANY_CONNECTIONS,
    INTERNAL,
    MESSAGE_TOO_BIG,
    NOT_AUTHENTICATED,
    TOO_MANY_COMMANDS,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_FAILURES,
    TOO_MANY_SYMBOLS,
    UNAVAILABLE,
    WRONG_KEY,
    ClientError,
    CloseCode,
)
from marketdata.hub import Hub, Session
from marketdata.peers import EXTENSION, FramePeer, MessagePeer
from marketdata.ratelimit import TokenBucket
from marketdata.resolution import resolve
from marketdata.ticks import BOOKS, FeedState, Key

log = structlog.get_logger(__name__)

AUTH_DEADLINE_S = 15.0
MESSAGE_LIMIT_BYTES = 1024 * 1024
COMMANDS_PER_S = 200.0
COMMAND_BURST = 5000
REFUSALS_BEFORE_CLOSE = 200
FIRST_REPORT_S = 1.5
"""The accounts report once a second; a dialect that names them waits so long for the first report after a start."""


class StreamConsumer(AsyncConsumer):
    """A client of the hub, in the dialect its path chose."""

    channel_layer_alias: ClassVar[str] = ""
    """No channel of its own: the hub is the member of groups, and a client can connect while Redis is down."""

    def __init__(self, hub: Hub, dialect: Dialect) -> None:
        self._hub = hub
        self._dialect = dialect
        self._bucket = TokenBucket(COMMANDS_PER_S, COMMAND_BURST)
        self._refused = 0
        self._simulated = False
        self._deadline: asyncio.TimerHandle | None = None
        self._session: Session | None = None

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Channels' own takes a thread hop for the database at every message; only commands that need it do here."""
        match message["type"]:
            case "websocket.connect":
                await self._connect()
            case "websocket.receive":
                await self._receive(message)
            case "websocket.disconnect":
                self._disconnect()
                raise StopConsumer

    # -------------------------------------------------------------------------------------------------------- handshake

    async def _connect(self) -> None:
        scope: Any = self.scope
        send: Any = self.base_send
        await send({"type": "websocket.accept"})
        transport = scope.get("extensions", {}).get(EXTENSION)
        peer = FramePeer(transport) if transport is not None else MessagePeer(send)
        self._session = Session(peer, self._dialect, (scope.get("client") or ["unknown"])[0])
        self._hub.open(self._session)
        self._deadline = asyncio.get_running_loop().call_later(AUTH_DEADLINE_S, self._end, CLOSE_AUTH_TIMEOUT)

    def _disconnect(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._session is not None:
            self._hub.close(self._session)
            if isinstance(self._session.peer, MessagePeer):
                self._session.peer.stop()

    def _end(self, code: CloseCode) -> None:
        assert self._session is not None
        self._session.peer.close(code)
        self._hub.close(self._session)

    # --------------------------------------------------------------------------------------------------------- commands

    async def _receive(self, message: dict[str, Any]) -> None:
        session = self._session
        if session is None or session not in self._hub.sessions:
            return
        if not self._bucket.take(time.monotonic()):
            self._refuse_flood()
            return
        text = message.get("text")
        if text is None:
            self._error(BINARY_FRAME)
        elif len(text) > MESSAGE_LIMIT_BYTES:
            self._error(MESSAGE_TOO_BIG)
            self._end(CLOSE_TOO_BIG)
        else:
            await self._obey(session, text)

    def _refuse_flood(self) -> None:
        self._refused += 1
        self._error(TOO_MANY_COMMANDS)
        if self._refused >= REFUSALS_BEFORE_CLOSE:
            self._end(CLOSE_FLOOD)

    async def _obey(self, session: Session, text: str) -> None:
        try:
            command = self._dialect.parse(text)
        except BadCommandError as bad:
            self._error(bad.error, bad.request_id)
            return
        try:
            await self._carry_out(session, command)
        except DatabaseError:
            log.exception("database_error", address=session.address)
            self._error(UNAVAILABLE, command.request_id)
        except Exception:
            log.exception("command_failed", address=session.address, command=type(command).__name__)
            self._error(INTERNAL, command.request_id)

    async def _carry_out(self, session: Session, command: Command) -> None:
        if isinstance(command, Ping):
            session.tell(self._dialect.pong(command, int(time.time() * 1000)))
        elif isinstance(command, Authenticate):
            await self._authenticate(session, command)
        elif isinstance(command, Question) and (command.is_open or session.grant is not None):
            session.tell(command.answer(await self._about(session)))
        elif session.grant is None:
            self._error(NOT_AUTHENTICATED, command.request_id)
        elif isinstance(command, Subscribe):
            await self._subscribe(session, command)
        elif isinstance(command, Unsubscribe):
            await self._unsubscribe(session, command)
        elif isinstance(command, GetSubscriptions):
            session.tell(self._dialect.subscriptions(command, self._hub.held(session)))

    async def _authenticate(self, session: Session, command: Authenticate) -> None:
        try:
            grant = await auth.authenticate(command.api_key, session.address)
        except auth.TooManyFailures:
            self._error(TOO_MANY_FAILURES, command.request_id)
            return
        if session not in self._hub.sessions:
            return
        if grant is None:
            log.info("wrong_key", address=session.address)
            self._error(WRONG_KEY, command.request_id)
        elif session.grant is not None and session.grant.key_id != grant.key_id:
            self._error(ALREADY_AUTHENTICATED, command.request_id)
        elif not self._hub.admit(session, grant, batch=command.batch, status=command.status):
            self._error(TOO_MANY_CONNECTIONS, command.request_id)
            self._end(CLOSE_TOO_MANY_CONNECTIONS)
        else:
            self._simulated = await database_sync_to_async(catalog.is_simulated)(grant.feed)
            await self._admitted(session, command)

    async def _admitted(self, session: Session, command: Authenticate) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        patience_s = FIRST_REPORT_S if self._dialect.names_brokers else 0.0
        about = await self._about(session, patience_s=patience_s)
        session.tell(self._dialect.authenticated(command, simulated=self._simulated, about=about))
        self._hub.tell_status(session)

    async def _about(self, session: Session, *, patience_s: float = 0.0) -> About:
        user, feed = (session.grant.name, session.grant.feed) if session.grant else ("", "")
        accounts = await self._hub.accounts(feed, patience_s=patience_s)
        states = [account.state for account in accounts if account.state is not FeedState.DISABLED]
        brokers = {account.broker for account in accounts if account.state is not FeedState.DISABLED}
        best = next((state for state in states if state.is_up), states[0] if states else None)
        return About(user, tuple(sorted(brokers)), best)

    async def _subscribe(self, session: Session, command: Subscribe) -> None:
        assert session.grant is not None
        found = await database_sync_to_async(resolve)(command.items, session.grant.feed)
        if session not in self._hub.sessions:
            return
        if command.replace:
            wanted = set(found.keys)
            self._hub.unsubscribe(session, [key for key in session.held if key not in wanted])
        throttle_ms = command.throttle_ms or 0
        granted: list[Key] = []
        over: list[Key] = []
        for key in found.keys:
            if self._hub.subscribe(session, key, throttle_ms):
                self._close_other_books(session, key)
                granted.append(key)
            else:
                over.append(key)
        refused = tuple(Rejected(key.symbol, key.exchange, TOO_MANY_SYMBOLS) for key in over)
        outcome = Subscribed(
            command=command,
            granted=tuple(granted),
            rejected=(*command.rejected, *found.rejected, *refused),
            throttle_ms=throttle_ms,
            simulated=self._simulated,
            about=await self._about(session),
            brokers=self._hub.serving(session, granted),
        )
        session.tell(self._dialect.subscribed(outcome))

    def _close_other_books(self, session: Session, key: Key) -> None:
        if self._dialect.one_book and key.mode.depth_levels:
            others = [key._replace(mode=mode) for mode in BOOKS if mode is not key.mode]
            self._hub.unsubscribe(session, others)

    async def _unsubscribe(self, session: Session, command: Unsubscribe) -> None:
        if command.items is None:
            keys = list(session.held)
        else:
            asked = {(item.symbol, item.exchange, item.mode) for item in command.items}
            keys = [
                key
                for key in session.held
                if (key.symbol, key.exchange, key.mode) in asked or (key.symbol, key.exchange, None) in asked
            ]
        count, about = self._hub.unsubscribe(session, keys), await self._about(session)
        session.tell(self._dialect.unsubscribed(command, count, ended=keys, about=about))

    def _error(self, error: ClientError, request_id: RequestId = UNSET) -> None:
        assert self._session is not None
        self._session.tell(self._dialect.error(error, request_id))
