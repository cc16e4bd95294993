"""One account's connections: opened when something is planned on them, closed when nothing was for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial

from brokers.contract import Adapter, ErrorKind
from brokers.feed.accounts import Account
from brokers.feed.connection import Condition, Connection, Route
from brokers.feed.counters import Counters
from brokers.feed.plan import ConnectionId, SocketKind
from brokers.feed.publisher import Source
from marketdata.ticks import FeedState, Mode, Token

IDLE_CLOSE_S = 10.0
"""A connection that carries nothing is closed after so long; an account's first one stays."""
NO_DATA_S = 10.0
"""An instrument of which nothing came for so long after it was subscribed is reported."""

MOVE_AFTER_S = 2.0
"""A connection that is down for so long gives its instruments away; shorter breaks heal by themselves."""

OPENING = Condition(FeedState.CONNECTING, "Connecting.")

Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
"""Starts a task in the tree that this belongs to."""


class Pool:
    """
    The connections of one account that may connect.

    One connection is held even when nothing is wanted: the first instrument reaches the broker without waiting for a
    login, and a token that has expired is known before somebody needs it. `on_refused` is called once, when the broker
    refuses the credentials; from then on nothing connects anew.
    """

    def __init__(
        self,
        account: Account,
        adapter: Adapter,
        source: Source,
        *,
        spawn: Spawn,
        on_change: Callable[[], None],
        on_refused: Callable[[ErrorKind], None],
        counters: Counters,
        idle_close_s: float = IDLE_CLOSE_S,
    ) -> None:
        self.account = account
        self.connections: dict[ConnectionId, Connection] = {}
        self.refusal: Condition | None = None
        """Set when the broker refused the credentials."""
        self._adapter = adapter
        self._source = source
        self._spawn = spawn
        self._on_change = on_change
        self._on_refused = on_refused
        self._counters = counters
        self._idle_close_s = idle_close_s
        self._first = ConnectionId(account.id, account.sockets[0].kind, 0)
        self._is_open = False
        self._tasks: dict[ConnectionId, asyncio.Task[None]] = {}
        self._closing: dict[ConnectionId, asyncio.TimerHandle] = {}
        self._ended: set[asyncio.Task[None]] = set()
        """Idle connections that are saying goodbye."""

    # -------------------------------------------------------------------------------------------------------- orders

    def open(self, assignment: Mapping[ConnectionId, Mapping[Token, Mode | None]]) -> None:
        """Connects, and carries this from the start."""
        self._is_open = True
        self._connection(self._first)
        self.apply(assignment)

    def apply(self, changes: Mapping[ConnectionId, Mapping[Token, Mode | None]]) -> None:
        """Carries what the plan says; opens connections it names for the first time. Before `open` it does nothing."""
        if not self._is_open:
            return
        for id_, modes in changes.items():
            if id_ not in self.connections and not any(modes.values()):
                continue
            connection = self._connection(id_)
            served = max(self._socket(id_.kind).modes)
            for token, mode in modes.items():
                connection.want(token, mode)
                self._source.settle(token, mode, served)
            self._close_when_idle(id_, connection)

    def set_account(self, account: Account) -> None:
        """Other limits, priorities or names of the same account; the connections stay."""
        self.account = account
        for id_, connection in self.connections.items():
            connection.limits = self._socket(id_.kind).limits

    def woke(self) -> None:
        """The machine slept: each connection looks after itself."""
        for connection in self.connections.values():
            connection.woke()

    async def close(self) -> None:
        """Closes every connection in order; returns when they are gone."""
        for timer in self._closing.values():
            timer.cancel()
        tasks = {*self._tasks.values(), *self._ended}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._source.snapshots.clear_books()

    # ------------------------------------------------------------------------------------------------------- questions

    def condition(self) -> Condition:
        """The account's state: the worst that concerns all of it, else how many connections are down."""
        if self.refusal is not None:
            return self.refusal
        conditions = [each.condition for each in self.connections.values()] or [OPENING]
        down = [each for each in conditions if each.state is not FeedState.CONNECTED]
        if not down:
            return Condition(FeedState.CONNECTED, "Connected.")
        if len(down) == len(conditions):
            return down[0]
        return Condition(
            FeedState.RECONNECTING, f"{len(down)} of {len(conditions)} connections are down: {down[0].message}"
        )

    def down(self, now_s: float) -> set[ConnectionId]:
        """
        The connections that have not worked for a while. Where none works, all the account may have: another one would
        not either.
        """
        if self.refusal is not None:
            return possible(self.account) - {id_ for id_, each in self.connections.items() if each.is_up}
        broken = {id_ for id_, each in self.connections.items() if not each.is_up}
        gone = {id_ for id_ in broken if now_s - self.connections[id_].changed_s >= MOVE_AFTER_S}
        return possible(self.account) if gone and len(broken) == len(self.connections) else gone

    def refused_tokens(self) -> dict[Token, str]:
        """Instruments the broker said no to, and its words."""
        return {token: text for each in self.connections.values() for token, text in each.refused.items()}

    def silent_tokens(self, now_s: float) -> set[Token]:
        """Instruments subscribed for a while on a connection that stands, of which nothing ever came."""
        return {
            token
            for connection in self.connections.values()
            if connection.is_up
            for token, since_s in connection.subscriptions.unheard.items()
            if now_s - since_s >= NO_DATA_S
        }

    # ----------------------------------------------------------------------------------------------------- connections

    def _connection(self, id_: ConnectionId) -> Connection:
        connection = self.connections.get(id_)
        if connection is None:
            connection = self.connections[id_] = self._made(id_)
            if self.refusal is None:
                self._tasks[id_] = self._spawn(self._run(id_, connection))
            else:
                connection.forbid(self.refusal)
        return connection

    def _made(self, id_: ConnectionId) -> Connection:
        account, feed = self.account, self._adapter.spec.feed(id_.kind)
        return Connection(
            f"{account.broker} {account.name} {id_.kind} {id_.number}",
            Route(self._adapter, feed, account.credentials, account.endpoint),
            self._socket(id_.kind).limits,
            deliver=self._source.deliver,
            on_change=partial(self._changed, id_),
            on_lost=self._source.clear_books,
            counters=self._counters,
        )

    async def _run(self, id_: ConnectionId, connection: Connection) -> None:
        await connection.run()
        if connection.refusal is not None and self.refusal is None:
            self._refuse(connection.refusal, connection.condition)

    def _refuse(self, kind: ErrorKind, condition: Condition) -> None:
        """The credentials are no good: nobody tries them again. Sockets that still stand go on until they end."""
        self.refusal = condition
        for id_, connection in self.connections.items():
            connection.forbid(condition)
            if not connection.is_up and self._tasks[id_] is not asyncio.current_task():
                self._tasks[id_].cancel()
        self._on_refused(kind)
        self._on_change()

    def _changed(self, id_: ConnectionId) -> None:
        connection = self.connections.get(id_)
        if connection is not None:
            self._close_when_idle(id_, connection)
        self._on_change()

    def _close_when_idle(self, id_: ConnectionId, connection: Connection) -> None:
        """One that is down is not closed: its waits must not begin anew with a fresh one."""
        idle = not len(connection.subscriptions) and connection.is_up
        if idle and id_ not in self._closing and id_ != self._first:
            loop = asyncio.get_running_loop()
            self._closing[id_] = loop.call_later(self._idle_close_s, self._close_idle, id_)
        elif not idle and id_ in self._closing:
            self._closing.pop(id_).cancel()

    def _close_idle(self, id_: ConnectionId) -> None:
        del self._closing[id_]
        del self.connections[id_]
        task = self._tasks.pop(id_)
        task.cancel()
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)
        self._on_change()

    def _socket(self, kind: str) -> SocketKind:
        return next(socket for socket in self.account.sockets if socket.kind == kind)


def possible(account: Account) -> set[ConnectionId]:
    """Every connection an account may have."""
    return {
        ConnectionId(account.id, socket.kind, number)
        for socket in account.sockets
        for number in range(socket.limits.connections_per_account)
    }
