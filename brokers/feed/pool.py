"""One account's connections: opened when something is planned on them, closed when nothing was for a while."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial

from brokers.contract import Adapter, ErrorKind, MarketKind
from brokers.feed.accounts import Account
from brokers.feed.apparent import ApparentLimit, beyond, limit_of
from brokers.feed.connection import Condition, Connection, Route
from brokers.feed.counters import Counters
from brokers.feed.hours import NO_DATA_S
from brokers.feed.knocks import Knocks, Turn, Turns, Who
from brokers.feed.plan import ConnectionId, SocketKind
from brokers.feed.publisher import Source
from marketdata.ticks import FeedState, Mode, Segment, Token

IDLE_CLOSE_S = 10.0
"""A connection that carries nothing is closed after so long; an account's first one stays."""

MOVE_AFTER_S = 2.0
"""A connection that is down for so long gives its instruments away; shorter breaks heal by themselves."""
LOST_AFTER_S = 0.15
"""An account of which no socket stands any more gives its instruments away after so long."""
REFUGE_AFTER_S = 2.0
"""An account takes over what another lost when it stood at that moment, else when it has stood for so long: what was
lost together may as well come back together."""

LEAST_BURST = 10
"""So many attempts a minute an account may make at each kind of socket, or as many as it may have of them and a few."""
TAKEN_OVER_S = 10.0
"""A connection that shall take another's place must stand after so long; else it has to do without its help."""
HEARD_S = 2.0
"""So long it may take until each of its instruments has ticked, before it takes over."""

CHECK_S = 0.02

OPENING = Condition(FeedState.CONNECTING, "Connecting.")

Assignment = Mapping[ConnectionId, Mapping[Token, Mode | None]]
"""What each connection carries; None: no more."""

Missed = Callable[[Token, float], bool]
"""Whether an instrument of which no price came in so many seconds should have had one."""

Spawn = Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
"""Starts a task in the tree that this belongs to."""


class Pool:
    """
    The connections of one account that may connect.

    One connection is held even when nothing is wanted: the first instrument reaches the broker without waiting for a
    login, and a token that has expired is known before somebody needs it. `on_refused` is called once, when the broker
    refuses the credentials; from then on nothing connects anew. `knocks` makes the account's attempts at each kind of
    socket, remembered over restarts; `on_knock` is told of each: its kind, and what `Connection` tells. `on_fall` is
    called when a socket that stood is gone. `before` is the pool of the same account that logged in with something
    else, and whose place this one is to take (`take_over`). `on_markets` and `tells` are those of `Connection`.
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
        clock: Callable[[], float] = time.time,
        knocks: Callable[[str], Knocks] | None = None,
        on_knock: Callable[[str, int, str, str], None] = lambda kind, at_ms, outcome, reason: None,
        on_fall: Callable[[], None] = lambda: None,
        before: Pool | None = None,
        on_markets: Callable[[Mapping[Segment, MarketKind]], None] = lambda markets: None,
        tells: Callable[[Collection[Segment], float, bool], bool] = lambda segments, silent_for_s, ticked: True,
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
        self._clock = clock
        self._turns = Turns(
            [socket.kind for socket in account.sockets],
            knocks or defaultdict[str, Knocks](lambda: Knocks(burst(account))).__getitem__,
            chance=random.random,
            on_free=self._follow,
        )
        self._on_knock = on_knock
        self._on_fall = on_fall
        self._on_markets = on_markets
        self._tells = tells
        self._before = before
        """Whose place this one is taking; it keeps what stands there when the new credentials turn out to be bad."""
        self._is_forbidden = False
        """Nobody asked the broker: it is known without that."""
        self._first = ConnectionId(account.id, account.sockets[0].kind, 0)
        self._is_open = False
        self._tasks: dict[ConnectionId, asyncio.Task[None]] = {}
        self._closing: dict[ConnectionId, asyncio.TimerHandle] = {}
        self._ended: set[asyncio.Task[None]] = set()
        """Idle connections that are saying goodbye."""
        self._moving: dict[tuple[ConnectionId, Token], Mode] = {}
        """What shall tick on a connection once the broker was told that it shall not on the one where it does."""

    # -------------------------------------------------------------------------------------------------------- orders

    def open(self, assignment: Assignment) -> None:
        """Connects, and carries this and nothing else."""
        self._is_open = True
        self._connection(self._first)
        gone = {
            id_: {token: None for token in each.subscriptions.wanted() if token not in assignment.get(id_, {})}
            for id_, each in self.connections.items()
        }
        for changes in (gone, assignment):
            self.apply(changes)

    async def take_over(self, assignment: Callable[[], Assignment]) -> None:
        """
        Opens in the place of the pool `before`; `assignment` is what it shall carry now.

        Brokers count sockets. Where there is room for one more, each new connection stands before the one in whose
        place it comes is closed, and no tick is missed; where there is none, the old one goes first. When the broker
        refuses the new credentials, what stands goes on until it ends.
        """
        before = self._before
        assert before is not None, "there is nothing to take over"
        for id_ in list(before.connections):
            if self._has_room_beside(before, id_):
                await self._relieve(before, id_, assignment().get(id_, {}))
            if self.refusal is not None:
                before.forbid(self.refusal)
                return
            await before.close_one(id_)
        await before.close(forget_books=not self.connections)
        self._before = None
        self.open(assignment())
        self._on_change()

    def _has_room_beside(self, before: Pool, id_: ConnectionId) -> bool:
        """Whether the connection stands, and the account may have one more of its kind for a moment."""
        held = sum(each.kind == id_.kind for each in [*before.connections, *self.connections])
        is_same_world = before._source is self._source
        most = self._socket(id_.kind).limits.connections_per_account
        return is_same_world and before.connections[id_].is_up and held < most

    async def _relieve(self, before: Pool, id_: ConnectionId, modes: Mapping[Token, Mode | None]) -> None:
        """A connection that reads along until it knows what the other does; one that gets nowhere gets no help."""
        connection = self._made(id_)
        connection.muted = True
        for token, mode in modes.items():
            connection.want(token, mode)
        self.connections[id_] = connection
        self._tasks[id_] = self._spawn(self._run(id_, connection))
        await _within(TAKEN_OVER_S, lambda: connection.is_up or self.refusal is not None)
        if connection.is_up:
            heard = connection.subscriptions
            await _within(HEARD_S, lambda: heard.is_settled and not heard.unheard)
        if self.refusal is None:
            before.mute(id_)
            connection.muted = False

    def mute(self, id_: ConnectionId) -> None:
        """Another connection delivers what this one carries."""
        if id_ in self.connections:
            self.connections[id_].muted = True

    def forbid(self, condition: Condition) -> None:
        """The credentials are known to be worthless: nothing connects anew; sockets that stand go on until they end."""
        if self.refusal is None:
            self._is_forbidden = True
            self._bar(condition)
            self._on_change()

    def apply(self, changes: Assignment) -> None:
        """Carries what the plan says; opens connections it names for the first time. Before `open` it does nothing."""
        if self._before is not None and self.refusal is not None:
            self._before.apply(changes)
        if not self._is_open:
            return
        for id_, modes in changes.items():
            if id_ in self.connections or any(modes.values()):
                self._drop(id_, [token for token, mode in modes.items() if mode is None])
        for id_, modes in changes.items():
            if id_ in self.connections:
                self._add(id_, {token: mode for token, mode in modes.items() if mode is not None})
                self._close_when_idle(id_, self.connections[id_])

    def _drop(self, id_: ConnectionId, tokens: Iterable[Token]) -> None:
        connection, served = self._connection(id_), max(self._socket(id_.kind).modes)
        for token in tokens:
            self._moving.pop((id_, token), None)
            connection.want(token, None)
            self._source.settle(token, None, served)

    def _add(self, id_: ConnectionId, modes: Mapping[Token, Mode]) -> None:
        """What ticks on another connection of the kind is told off there first, or it would come and count twice."""
        connection, served = self.connections[id_], max(self._socket(id_.kind).modes)
        for token, mode in modes.items():
            if self._is_elsewhere(id_, token):
                self._moving[id_, token] = mode
            else:
                connection.want(token, mode)
            self._source.settle(token, mode, served)

    def _is_elsewhere(self, id_: ConnectionId, token: Token) -> bool:
        return any(
            each.is_up and each.subscriptions.told(token) is not None
            for other, each in self.connections.items()
            if other != id_ and other.kind == id_.kind
        )

    def _move_on(self) -> None:
        """Tells connections of what the broker was told off on others."""
        for (id_, token), mode in list(self._moving.items()):
            if not self._is_elsewhere(id_, token):
                del self._moving[id_, token]
                if id_ in self.connections:
                    self.connections[id_].want(token, mode)

    def set_account(self, account: Account) -> None:
        """Other limits, priorities or names of the same account; the connections stay."""
        if (account.edited_ms, account.sockets) != (self.account.edited_ms, self.account.sockets):
            self._turns.forgive()
        self.account = account
        for id_, connection in self.connections.items():
            connection.limits = self._socket(id_.kind).limits
            connection.look()

    def woke(self) -> None:
        """The machine slept: each connection looks after itself."""
        for connection in [*self.connections.values(), *(self._before.connections.values() if self._before else ())]:
            connection.woke()

    async def close_one(self, id_: ConnectionId) -> None:
        """Closes a connection; returns when it is gone."""
        timer = self._closing.pop(id_, None)
        if timer is not None:
            timer.cancel()
        if self.connections.pop(id_, None) is None:
            return
        self._gone(id_)
        task = self._tasks.pop(id_, None)  # none where it was planned after the refusal: it never tried
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def close(self, *, forget_books: bool = True) -> None:
        """Closes every connection in order; returns when they are gone."""
        if self._before is not None:
            await self._before.close(forget_books=False)
        for timer in self._closing.values():
            timer.cancel()
        tasks = {*self._tasks.values(), *self._ended}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if forget_books:
            self._source.snapshots.clear_books()

    # ------------------------------------------------------------------------------------------------------- questions

    def condition(self) -> Condition:
        """The account's state: the worst that concerns all of it, else how many connections are down."""
        if self._before is not None and self._before.stands():
            return self._before.condition()
        if self.refusal is not None and not (self._is_forbidden and self.stands()):
            return self.refusal
        conditions = [each.condition for each in self.connections.values()] or [OPENING]
        down = [each for each in conditions if each.state is not FeedState.CONNECTED]
        if not down:
            return Condition(FeedState.CONNECTED, "Connected." if self.refusal is None else self.refusal.message)
        if len(down) == len(conditions):
            return down[0]
        return Condition(
            FeedState.RECONNECTING, f"{len(down)} of {len(conditions)} connections are down: {down[0].message}"
        )

    def stands(self) -> bool:
        """Whether any of its sockets does."""
        return any(each.is_up for each in self.connections.values())

    def since_s(self) -> float | None:
        """Since when (monotonic) a socket of it stands without a break; None: none does."""
        before = self._before.since_s() if self._before is not None else None
        stand_s = [each.changed_s for each in self.connections.values() if each.is_up]
        return min(stand_s if before is None else [before, *stand_s], default=None)

    def fell_s(self) -> float | None:
        """When the last of its sockets fell; None: one stands, or none ever did."""
        if self.since_s() is not None:
            return None
        return max((each.changed_s for each in self.connections.values() if each.has_stood), default=None)

    def down(self, now_s: float) -> set[ConnectionId]:
        """
        The connections that have not worked for a while, a short one where they all were lost. Where none works, all
        the account may have: another one would not either.
        """
        if self._before is not None and self._before.stands():
            return self._before.down(now_s)
        if self.refusal is not None:
            return possible(self.account) - {id_ for id_, each in self.connections.items() if each.is_up}
        broken = {id_ for id_, each in self.connections.items() if not each.is_up}
        gone = {id_ for id_ in broken if now_s - self.connections[id_].changed_s >= MOVE_AFTER_S}
        if len(broken) < len(self.connections):
            return gone
        fell_s = self.fell_s()
        is_lost = fell_s is not None and now_s - fell_s >= LOST_AFTER_S
        return possible(self.account) if gone or is_lost else gone

    def refused_tokens(self) -> dict[Token, str]:
        """Instruments the broker said no to, and its words."""
        return {token: text for each in self.connections.values() for token, text in each.refused.items()}

    def silent_tokens(self, now_s: float) -> dict[Token, float]:
        """Instruments subscribed for so many seconds on a connection that stands, of which nothing ever came."""
        return {
            token: now_s - since_s
            for connection in self.connections.values()
            if connection.is_up
            for token, since_s in connection.subscriptions.unheard.items()
            if now_s - since_s >= NO_DATA_S
        }

    def limit_of(self, id_: ConnectionId, missed: Missed, now_s: float) -> ApparentLimit | None:
        """
        How many instruments the broker seems to serve on a connection at most, where it says nothing of it. `missed`
        says whether one of which no price came in so many seconds should have had one.
        """
        connection = self.connections.get(id_)
        if connection is None or not connection.is_up:
            return None
        return limit_of(connection.subscriptions, connection.refused, missed, now_s=now_s)

    def beyond(self, missed: Missed, now_s: float) -> dict[Token, ApparentLimit]:
        """The instruments of which nothing came because of such a limit, as it seems."""
        return {
            token: limit
            for id_, connection in self.connections.items()
            if (limit := self.limit_of(id_, missed, now_s)) is not None
            for token in beyond(connection.subscriptions, limit)
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
        who = Who(id_.kind, id_.number)
        self._turns.joins(who)
        return Connection(
            f"{account.broker} {account.name} {id_.kind} {id_.number}",
            Route(self._adapter, feed, account.credentials, account.endpoint),
            self._socket(id_.kind).limits,
            deliver=self._source.deliver,
            on_change=partial(self._changed, id_),
            on_lost=self._lost,
            on_dropped=self._move_on,
            counters=self._counters,
            clock=self._clock,
            turn=Turn(self._turns, who),
            on_knock=partial(self._on_knock, id_.kind),
            on_markets=self._on_markets,
            tells=self._tells,
        )

    async def _run(self, id_: ConnectionId, connection: Connection) -> None:
        await connection.run()
        if connection.refusal is not None and self.refusal is None:
            self._refuse(connection.refusal, connection.condition)

    def _refuse(self, kind: ErrorKind, condition: Condition) -> None:
        """The broker says that the credentials are no good."""
        self._bar(condition)
        self._on_refused(kind)
        self._on_change()

    def _bar(self, condition: Condition) -> None:
        """Nobody tries the credentials again. Sockets that still stand go on until they end."""
        self.refusal = condition
        for id_, connection in self.connections.items():
            connection.forbid(condition)
            if not connection.is_up and self._tasks[id_] is not asyncio.current_task():
                self._tasks[id_].cancel()

    def _follow(self, who: Who) -> None:
        connection = self.connections.get(ConnectionId(self.account.id, *who))
        if connection is not None and not connection.is_up:
            connection.follow()

    def _lost(self, tokens: Iterable[Token]) -> None:
        self._source.clear_books(tokens)
        self._move_on()
        self._on_fall()

    def _gone(self, id_: ConnectionId) -> None:
        """The connection is no longer one of ours."""
        self._turns.leaves(Who(id_.kind, id_.number))
        self._move_on()

    def _changed(self, id_: ConnectionId) -> None:
        connection = self.connections.get(id_)
        if connection is not None:
            self._close_when_idle(id_, connection)
        self._on_change()

    def _close_when_idle(self, id_: ConnectionId, connection: Connection) -> None:
        """One that is down is not closed: its waits must not begin anew with a fresh one."""
        is_empty = not len(connection.subscriptions) and not any(held == id_ for held, _ in self._moving)
        idle = is_empty and connection.is_up
        if idle and id_ not in self._closing and id_ != self._first:
            loop = asyncio.get_running_loop()
            self._closing[id_] = loop.call_later(self._idle_close_s, self._close_idle, id_)
        elif not idle and id_ in self._closing:
            self._closing.pop(id_).cancel()

    def _close_idle(self, id_: ConnectionId) -> None:
        del self._closing[id_]
        del self.connections[id_]
        self._gone(id_)
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


def burst(account: Account) -> int:
    """How many attempts a minute the account may make at each kind of socket."""
    return max([LEAST_BURST, *(socket.limits.connections_per_account + 5 for socket in account.sockets)])


async def _within(timeout_s: float, is_so: Callable[[], bool]) -> bool:
    """Waits until something is so, so long at most; whether it is."""
    end_s = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < end_s:  # noqa: ASYNC110 - what it waits for tells nobody
        await asyncio.sleep(CHECK_S)
    return is_so()
