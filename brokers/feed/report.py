"""
What the adapters' process tells of itself on the bus: all accounts and sockets, or all it knows of one instrument.

`answer` makes a report of the supervisor's parts; whoever subscribes a reserved key gets it at once, and then every
second. `ask` is the other end, for commands: it waits so long and no longer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import zmq

from brokers import registry
from brokers.contract import MarketKind
from brokers.feed.accounts import Account
from brokers.feed.calendar import OPEN
from brokers.feed.connection import Condition, Connection
from brokers.feed.counters import Counters
from brokers.feed.hours import Hours
from brokers.feed.pickup import Tokens
from brokers.feed.plan import ConnectionId, Instrument, Plan, Seat, SocketKind
from brokers.feed.pool import OPENING, Pool
from brokers.feed.publisher import Line, Publisher
from marketdata.report import (
    AccountReport,
    CarrierReport,
    ConnectionReport,
    FeedReport,
    KeyReport,
    SeatReport,
    StreamReport,
    decode_feed,
    decode_key,
    encode_report,
)
from marketdata.ticks import Key, Mode, Token
from marketdata.topics import REPORT_EXCHANGE, asked_of, report_key, split, topic_of, why_key

REPEAT_S = 1.0
"""A report is sent anew so often while somebody subscribes it."""
NEIGHBOURS_MS = 10_000
"""Instruments that had a price within this time are ticking."""
APART_MS = 700
"""Two answers that shall show what moves are at least so far apart."""
PATIENCE_S = 3.0
"""So long an answer is waited for."""


class Parts(NamedTuple):
    """
    The supervisor's parts at one moment, to be read and not kept.

    `conditions` is each account's condition and since when (Unix ms) its state is so; `shortage` says why an instrument
    that the plan does not serve as wanted is not.
    """

    accounts: Mapping[int, Account]
    conditions: Mapping[int, tuple[Condition, int]]
    pools: Mapping[int, Pool]
    plan: Plan
    publisher: Publisher
    counters: Counters
    hours: Hours
    tokens: Tokens
    shortage: Callable[[Instrument], Condition]
    now_ms: int


def answer(parts: Parts, key: Key) -> bytes:
    """The payload for a reserved key: `report_key` or a `why_key`."""
    if key.exchange == REPORT_EXCHANGE:
        return encode_report(feed_report(parts))
    return encode_report(key_report(parts, Instrument(*asked_of(key), key.feed)))


async def repeat(publisher: Publisher, send: Callable[[Key], None]) -> None:
    """Sends every report that somebody subscribes, every second."""
    while True:
        await asyncio.sleep(REPEAT_S)
        for key in list(publisher.report_keys):
            send(key)


# ------------------------------------------------------------------------------------------------------------- the feed


def feed_report(parts: Parts) -> FeedReport:
    """All accounts, and what was done since the process started."""
    counters = parts.counters
    shortage = Counter(reason.name.lower() for reason in parts.plan.short().values())
    return FeedReport(
        pid=os.getpid(),
        started_ms=parts.publisher.epoch_ms,
        now_ms=parts.now_ms,
        accounts=tuple(_account(parts, account) for account in parts.accounts.values()),
        wanted=sum(1 for _ in parts.publisher.wanted()),
        shortage=shortage,
        frames=counters.frames,
        published=counters.published,
        decode_errors=counters.decode_errors,
        refusals=counters.refusals,
        reconnects={str(kind): count for kind, count in counters.reconnects.items()},
    )


def _account(parts: Parts, account: Account) -> AccountReport:
    condition, since_ms = parts.conditions.get(account.id, (account.trouble or OPENING, parts.now_ms))
    connections = tuple(_connections(parts, account))
    ordinary = account.sockets[0] if account.sockets else None
    return AccountReport(
        id=account.id,
        broker=account.broker,
        name=account.name,
        feed=account.feed,
        simulated=account.simulated,
        state=condition.state,
        message=condition.message,
        since_ms=since_ms,
        token=account.token.state if account.is_on else None,
        token_sentence=account.token.sentence,
        token_ends_ms=account.token.ends_ms,
        placed=sum(each.placed for each in connections if ordinary and each.kind == ordinary.kind),
        limit=_room(ordinary, ()) * ordinary.limits.connections_per_account if ordinary else 0,
        connections=connections,
    )


def _connections(parts: Parts, account: Account) -> Iterator[ConnectionReport]:
    """Those there are, and those planned that wait for a login."""
    planned, pool = parts.plan.assignment(account.id), parts.pools.get(account.id)
    held = pool.connections if pool is not None else {}
    kinds = [socket.kind for socket in account.sockets]
    for id_ in sorted(planned.keys() | held.keys(), key=lambda each: (kinds.index(each.kind), each.number)):
        yield _connection(parts, account, id_, held.get(id_), planned.get(id_, {}))


def _connection(
    parts: Parts, account: Account, id_: ConnectionId, connection: Connection | None, modes: Mapping[Token, Mode]
) -> ConnectionReport:
    kind = next(socket for socket in account.sockets if socket.kind == id_.kind)
    if connection is None:
        condition, since_ms = parts.conditions.get(account.id, (account.trouble or OPENING, parts.now_ms))
        if condition.state.is_up:
            condition = OPENING  # its others stand, this one is about to be opened
        return ConnectionReport(
            kind=id_.kind,
            number=id_.number,
            state=condition.state,
            message=condition.message,
            is_up=False,
            since_ms=since_ms,
            placed=len(modes),
            limit=_room(kind, modes.values()),
        )
    held, pool = connection.subscriptions, parts.pools.get(account.id)
    limit = pool.limit_of(id_, partial(_missed, parts.hours), time.monotonic()) if pool is not None else None
    return ConnectionReport(
        kind=id_.kind,
        number=id_.number,
        state=connection.condition.state,
        message=connection.condition.message,
        is_up=connection.is_up,
        since_ms=parts.now_ms - int((time.monotonic() - connection.changed_s) * 1000),
        placed=len(modes),
        limit=_room(kind, modes.values()),
        told=held.sent,
        unheard=len(held.unheard),
        refused=len(connection.refused),
        heard_ms=connection.heard_ms,
        reconnects=dict(connection.reconnects),
        decode_errors=connection.decode_errors,
        silence_s=registry.load(account.broker).spec.feed(id_.kind).silence_s,
        unsaid=held.difference(modes) if connection.is_up else len(modes),
        apparent_limit=None if limit is None else limit.at,
    )


def _missed(hours: Hours, token: Token, since_s: float) -> bool:
    return hours.misses(token.segment, since_s)


def _room(kind: SocketKind, modes: Iterable[Mode]) -> int:
    """Instruments one socket may carry; where that depends on the mode, the smallest of those in use counts."""
    return min(map(kind.limits.room, set(modes)), default=max(map(kind.limits.room, kind.modes), default=0))


# ------------------------------------------------------------------------------------------------------- an instrument


def key_report(parts: Parts, instrument: Instrument) -> KeyReport:
    """All that is known of one instrument, wanted or not."""
    plan, publisher = parts.plan, parts.publisher
    seat, reason, line = plan.seat(instrument), plan.short().get(instrument), publisher.bound().get(instrument)
    name = (instrument.symbol, instrument.exchange)
    tokens = parts.tokens.get(name)
    account = parts.accounts.get(seat.connection.account) if seat is not None else None
    segment = _token(seat, tokens)
    phase = parts.hours.phase(segment.segment) if segment is not None else None
    kind = phase.kind if phase is not None else MarketKind.UNKNOWN
    return KeyReport(
        symbol=instrument.symbol,
        exchange=instrument.exchange,
        feed=instrument.feed,
        now_ms=parts.now_ms,
        started_ms=publisher.epoch_ms,
        published=parts.counters.published,
        streams=tuple(
            StreamReport(mode=each.mode, demanded=each.demanded, since_ms=each.since_ms, seq=each.seq)
            for each in sorted(publisher.streams(instrument), key=lambda each: each.mode)
        ),
        tokens={broker: f"{token.segment}:{token.number}" for broker, token in (tokens or {}).items()},
        is_looked_up=tokens is not None,
        is_bridged=bool(publisher.status_feeds),  # every hub wants the status of its feeds, whatever its clients want
        reason=reason.name.lower() if reason is not None else "",
        shortage=parts.shortage(instrument).message if reason is not None else "",
        seat=None if seat is None else _seat(plan, seat),
        account=None if account is None else _account(parts, account),
        carriers=() if seat is None or account is None else tuple(_carriers(parts, account, seat.token, line)),
        updated_ms=_updated_ms(line),
        market=kind.value,
        is_open=kind in OPEN,
        market_sentence=phase.sentence if phase is not None else "",
    )


def _token(seat: Seat | None, tokens: Mapping[str, Token] | None) -> Token | None:
    """Any of the instrument's tokens: their segments are those of one exchange."""
    return seat.token if seat is not None else next(iter((tokens or {}).values()), None)


def _seat(plan: Plan, seat: Seat) -> SeatReport:
    id_, token = seat
    return SeatReport(
        account=id_.account,
        kind=id_.kind,
        number=id_.number,
        segment=token.segment,
        token=token.number,
        mode=plan.assignment(id_.account).get(id_, {}).get(token),
    )


def _updated_ms(line: Line | None) -> int | None:
    state = None if line is None else line.source.snapshots.state(line.token)
    return (state.received_ms or None) if state is not None else None


def _carriers(parts: Parts, account: Account, token: Token, line: Line | None) -> Iterator[CarrierReport]:
    """The sockets that carry the token: its seat, and where books come without prices the one beside it."""
    pool = parts.pools.get(account.id)
    now_s = time.monotonic()
    for id_, modes in parts.plan.assignment(account.id).items():
        if token not in modes:
            continue
        connection = pool.connections.get(id_) if pool is not None else None
        report = _connection(parts, account, id_, connection, modes)
        if connection is None:
            yield CarrierReport(connection=report, wanted=modes[token])
            continue
        held = connection.subscriptions
        told_s = held.unheard.get(token)
        heard = list(_heard_ms(line, (each for each in modes if each != token)))
        yield CarrierReport(
            connection=report,
            wanted=modes[token],
            told=held.told(token),
            unheard_s=None if told_s is None else now_s - told_s,
            refused=connection.refused.get(token, ""),
            neighbour_ms=max(heard, default=None),
            neighbours=sum(parts.now_ms - each <= NEIGHBOURS_MS for each in heard),
        )


def _heard_ms(line: Line | None, tokens: Iterable[Token]) -> Iterator[int]:
    """When the latest price of each of these tokens of the same account came, where one did."""
    if line is not None:
        for token in tokens:
            state = line.source.snapshots.state(token)
            if state is not None and state.received_ms:
                yield state.received_ms


# --------------------------------------------------------------------------------------------------------------- asking


class NoAnswer(Exception):
    """The adapters' process does not answer; the text says how that showed, and what to do."""


class Asking:
    """A question that stands: each `next` is an answer, the first at once, the others a second apart."""

    def __init__(self, socket: zmq.Socket[bytes], where: str) -> None:
        self._socket = socket
        self._where = where

    def next(self, timeout_s: float = PATIENCE_S) -> bytes:
        """Raises NoAnswer."""
        if not self._socket.poll(int(timeout_s * 1000)):
            raise NoAnswer(
                f"Something listens on {self._where}, but no report came within {timeout_s:g} s; restart "
                "manage.py run_adapters (or stream), and look whether another program has the port."
            )
        return split(self._socket.recv())[1]


@contextmanager
def asking(host: str, port: int, key: Key) -> Iterator[Asking]:
    """
    Subscribes a reserved key at the adapters' process; synchronous.

    Raises NoAnswer: nothing listens there.
    """
    where = f"{host} port {port}"
    try:
        socket.create_connection((host, port), timeout=PATIENCE_S).close()
    except OSError:
        raise NoAnswer(
            f"The adapters' process is not running (nothing listens on {where}). Start run_adapters, or stream."
        ) from None
    context = zmq.Context()
    try:
        sub = context.socket(zmq.SUB)
        sub.setsockopt(zmq.LINGER, 0)
        host = "127.0.0.1" if host == "localhost" else host
        if ":" in host:
            sub.setsockopt(zmq.IPV6, 1)
            host = f"[{host}]"
        sub.connect(f"tcp://{host}:{port}")
        sub.subscribe(topic_of(key))
        yield Asking(sub, where)
    finally:
        context.destroy(linger=0)


def ask_feed(host: str, port: int, timeout_s: float = PATIENCE_S) -> FeedReport:
    """What the adapters' process reports on all it has. Raises NoAnswer, ReportError."""
    with asking(host, port, report_key()) as question:
        return decode_feed(question.next(timeout_s))


def ask_key(host: str, port: int, instrument: Instrument) -> tuple[KeyReport, KeyReport]:
    """
    What the adapters' process knows of an instrument: the first answer, and one from a second or so later, which shows
    what moves. Where it has no seat nothing can move, and the first is both. Raises NoAnswer, ReportError.
    """
    with asking(host, port, why_key(*instrument)) as question:
        first = last = decode_key(question.next())
        while first.seat is not None and last.now_ms - first.now_ms < APART_MS:
            last = decode_key(question.next())
        return first, last
