"""What the fault tests share: a broker's log read as a witness, and ticks read for gaps and order."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from brokers.feed.report import ask_feed
from brokers.simulators.engine import Simulator
from brokers.simulators.keys import Denied
from marketdata.report import ConnectionReport, FeedReport
from marketdata.ticks import AccountStatus, FeedState, Key
from tests.adapters.feeding import Together
from tests.brokers.feed.bench import Got, Subscriber, until

SAFETY = 3
"""Deadlines are so many times the promised figure: test machines are shared."""
LASTS_MS = 2500
"""What was lost together may come back together: whoever stands for less than two seconds is no refuge."""


# --------------------------------------------------------------------------------------------------------- the witness


class Told(NamedTuple):
    """What a broker's log shows, read from its beginning."""

    held: dict[int, set[int]]
    """By connection that is open: the instruments it holds."""
    twice: list[str]
    """Instruments that were subscribed while the same api key held them already, on this or another connection."""
    most: int
    """The most instruments that one connection ever held."""
    most_together: int
    """The most that all connections together ever held."""


def told(simulator: Simulator) -> Told:
    """Follows the log from subscription to subscription."""
    owners: dict[int, str] = {}
    held: dict[int, set[int]] = {}
    twice: list[str] = []
    most = most_together = 0
    for entry in simulator.log:
        number = entry.get("connection", 0)
        match entry["event"]:
            case "connect":
                owners[number], held[number] = entry["api_key"], set()
            case "login":
                owners[number] = entry["api_key"]
            case "disconnect":
                del held[number]
            case "subscribe":
                same = [other for other in held if owners[other] == owners[number]]
                twice += [f"{token} on {number}" for token in entry["tokens"] if any(token in held[o] for o in same)]
                held[number].update(entry["tokens"])
            case "unsubscribe":
                held[number].difference_update(entry["tokens"])
        most = max(most, *map(len, held.values()), 0, 0)
        most_together = max(most_together, sum(map(len, held.values())))
    return Told(held, twice, most, most_together)


def assert_never_too_much(*simulators: Simulator) -> None:
    """No broker was ever asked for more than it allows, nor for the same thing twice."""
    for simulator in simulators:
        stats = simulator.stats()
        assert stats["limit_violations"] == 0, simulator.entries("error")
        assert told(simulator).twice == []


def since(simulator: Simulator, count: int, *events: str) -> list[dict[str, Any]]:
    """The log's entries of these kinds, after the first `count` of all."""
    return [entry for entry in simulator.log[count:] if entry["event"] in events]


def has_lasted(simulator: Simulator) -> bool:
    """Whether its newest connection has stood for so long that instruments may flee to it."""
    came = simulator.entries("connect")
    return bool(came) and bool(simulator.clients) and time.time() * 1000 - came[-1]["ts_ms"] >= LASTS_MS


@contextmanager
def maintenance(simulator: Simulator) -> Iterator[None]:
    """Meanwhile the broker answers every attempt to connect with 503, and its log counts them. What stands stays."""

    def refuse(*_: object) -> Any:
        raise Denied(503, "Down for maintenance.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator, "login", refuse)
        yield


async def cut(simulator: Simulator) -> float:
    """The broker's machine is gone: every socket ends without a word and nobody listens; when (Unix ms)."""
    at_ms = time.time() * 1000
    ending = asyncio.ensure_future(simulator.close())
    for client in list(simulator.clients.values()):
        client.socket.transport.abort()
    await ending
    return at_ms


# ----------------------------------------------------------------------------------------------------------- the ticks


def live(sub: Subscriber, key: Key) -> list[Got]:
    """Its ticks without the last values that were sent again."""
    return [got for got in sub.of(key) if not got.is_snapshot]


def by_key(sub: Subscriber, keys: Collection[Key]) -> dict[Key, list[Got]]:
    """The same for many, in one go."""
    found: dict[Key, list[Got]] = {key: [] for key in keys}
    for got in sub.got:
        if got.key in found and not got.is_snapshot:
            found[got.key].append(got)
    return found


def broker_now(sub: Subscriber, keys: Collection[Key]) -> dict[Key, str]:
    """Whose the latest tick of each was."""
    return {key: ticks[-1].tick.broker for key, ticks in by_key(sub, keys).items() if ticks}


class Arrivals:
    """The first tick of each key from one broker after an instant; it looks at each tick once."""

    def __init__(self, sub: Subscriber, keys: Collection[Key], broker: str) -> None:
        self._sub, self._keys, self._broker = sub, frozenset(keys), broker
        self._seen = len(sub.got)
        self.first: dict[Key, Got] = {}

    def complete(self) -> bool:
        """Whether every key has had one."""
        for got in itertools.islice(self._sub.got, self._seen, None):
            if got.key in self._keys and got.tick.broker == self._broker and not got.is_snapshot:
                self.first.setdefault(got.key, got)
        self._seen = len(self._sub.got)
        return len(self.first) == len(self._keys)

    def gap_s(self, from_ms: float) -> float:
        """From an instant (Unix ms) to the latest of these first ticks."""
        return max(got.tick.received_ms for got in self.first.values()) / 1000 - from_ms / 1000


def pauses_s(ticks: Iterable[Got]) -> Iterator[float]:
    """The time between each two."""
    return ((after.tick.received_ms - before.tick.received_ms) / 1000 for before, after in itertools.pairwise(ticks))


def assert_honest(sub: Subscriber, keys: Collection[Key]) -> None:
    """
    Of each key: every number once and none left out, no instant before an earlier one's, and never back to a broker
    that it has left.
    """
    for key, ticks in by_key(sub, keys).items():
        numbers = [got.tick.seq for got in ticks]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), key
        instants = [instant for got in ticks if (instant := got.tick.exchange_ms or got.tick.last_trade_ms)]
        back = [(before, after) for before, after in itertools.pairwise(instants) if after < before]
        assert back == [], key
        stretches = [broker for broker, _ in itertools.groupby(got.tick.broker for got in ticks)]
        assert len(stretches) == len(set(stretches)), (key, stretches)


# ---------------------------------------------------------------------------------------------------------- the status


def statuses(sub: Subscriber, broker: str, feed: str = "") -> list[AccountStatus]:
    """All that was told of a broker's accounts, in order."""
    return [each for status in sub.statuses[feed] for each in status.accounts if each.broker == broker]


def unwell(sub: Subscriber, feed: str = "") -> dict[str, FeedState]:
    """The state of each instrument that is not well, by symbol, as last told."""
    return {each.symbol: each.state for each in sub.statuses[feed][-1].keys} if sub.statuses[feed] else {}


def words(sub: Subscriber, feed: str = "") -> set[str]:
    """The sentences last told of instruments that are not well."""
    return {each.message for each in sub.statuses[feed][-1].keys} if sub.statuses[feed] else set()


# ---------------------------------------------------------------------------------------------------------- the report


async def report(together: Together) -> FeedReport:
    """What the feed says of itself, asked as `feed_status` asks."""
    return await asyncio.to_thread(ask_feed, "127.0.0.1", together.supervisor.publisher.port)


async def reconciled(together: Together, unconfirmed: int = 0, timeout_s: float = 10.0) -> FeedReport:
    """
    Waits until on every socket the difference between what is wanted and what the broker confirmed is 0 (`unconfirmed`
    in sum); then the brokers' own books must say the same.
    """
    end_s = time.monotonic() + timeout_s
    while True:
        answer = await report(together)
        differences = {f"{broker} {each.number}": each.difference for broker, each in _sockets(answer)}
        if sum(differences.values()) == unconfirmed:
            break
        assert time.monotonic() < end_s, f"It stays different: {differences}"
    placed: dict[str, int] = defaultdict(int)
    for broker, each in _sockets(answer):
        placed[broker] += each.placed
    for slug, bench in together.benches.items():
        assert sum(len(client.modes) for client in bench.simulator.clients.values()) == placed[slug]
    return answer


def _sockets(answer: FeedReport) -> Iterator[tuple[str, ConnectionReport]]:
    return ((account.broker, each) for account in answer.accounts for each in account.connections)


async def becomes_unwell(sub: Subscriber, count: int, state: FeedState, timeout_s: float = 10.0) -> None:
    """Waits until so many instruments are told to be in this state, and no other is unwell."""
    await until(
        lambda: list(unwell(sub).values()) == [state] * count,
        f"{count} instruments told as {state}",
        timeout_s,
    )
