"""Limits that a broker does not tell of: seen in the order of subscription, and only there."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.contract import Adapter, Limits
from brokers.feed import hours
from brokers.feed import pool as pool_module
from brokers.feed.apparent import ApparentLimit, apparent_limit, beyond, limit_of
from brokers.feed.report import ask_feed
from brokers.feed.subscriptions import Subscriptions
from marketdata.report import FeedReport
from marketdata.ticks import FeedState, Key, Mode
from tests.brokers.feed.bench import Toy, ToyBroker, nse, until
from tests.brokers.feed.supervising import Bench, in_database, set_up, supervising


@given(at=st.integers(3, 300), silent=st.integers(3, 100))
def test_what_is_subscribed_behind_the_limit_and_nothing_else_is_silent(at: int, silent: int) -> None:
    assert apparent_limit([True] * at + [False] * silent) == ApparentLimit(at, at + silent)


@given(count=st.integers(0, 500))
def test_where_all_are_heard_or_none_is_there_is_no_limit(count: int) -> None:
    assert apparent_limit([True] * count) is None
    assert apparent_limit([False] * count) is None


def test_a_few_that_nobody_trades_do_not_hide_it_nor_do_late_images() -> None:
    order: list[bool | None] = [number % 20 != 7 for number in range(1000)]
    order += [number % 25 == 3 for number in range(200)]
    assert apparent_limit(order) == ApparentLimit(1000, 1200)


def test_silent_ones_here_and_there_are_no_limit() -> None:
    chance = random.Random(7)
    order: list[bool | None] = [chance.random() > 0.2 for _ in range(1000)]
    assert apparent_limit(order) is None


SEEN = [(3, 3), (5, 2), (19, 1), (1, 50)]
UNSEEN = [(2, 3), (4, 2), (18, 1), (1, 9)]


@pytest.mark.parametrize(("heard", "silent"), SEEN + UNSEEN)
def test_of_a_few_it_is_said_only_where_it_can_hardly_be_chance(heard: int, silent: int) -> None:
    limit = apparent_limit([True] * heard + [False] * silent)
    assert (limit is not None) == ((heard, silent) in SEEN)


def test_those_that_cannot_be_judged_yet_count_in_the_order_and_say_nothing() -> None:
    assert apparent_limit([True] * 8 + [None] * 4 + [False] * 4 + [None] * 9) == ApparentLimit(12, 25)
    assert apparent_limit([True] * 8 + [None] * 20) is None


@given(st.lists(st.sampled_from([True, False, None]), max_size=60))
def test_whatever_came_the_limit_lies_within_and_before_it_nearly_all_were_heard(order: list[bool | None]) -> None:
    limit = apparent_limit(order)
    if limit is not None:
        head, tail = order[: limit.at], order[limit.at :]
        assert 0 < limit.at < limit.of == len(order)
        assert head.count(False) <= head.count(True)
        assert tail.count(True) <= tail.count(False)


def told(count: int) -> Subscriptions:
    held = Subscriptions()
    for number in range(count):
        held.want(nse(number), Mode.LTP)
    while held.next(Limits(), now_s=0.0):
        pass
    return held


def test_a_confirmation_is_no_price() -> None:
    held = told(30)
    held.heard(map(nse, range(30)))
    assert held.unheard == {}
    held.priced(map(nse, range(20)))
    limit = limit_of(held, (), lambda token, since_s: since_s >= 10.0, now_s=10.0)
    assert limit == ApparentLimit(20, 30)
    assert beyond(held, limit) == [nse(number) for number in range(20, 30)]
    assert limit_of(held, (), lambda token, since_s: since_s >= 10.0, now_s=9.0) is None, "it is too early to say"


def test_what_the_broker_refused_with_a_word_says_nothing_of_a_limit() -> None:
    held = told(30)
    held.priced(map(nse, range(20)))
    assert limit_of(held, {nse(number) for number in range(20, 30)}, lambda *_: True, now_s=60.0) is None


def test_the_order_is_that_of_subscription_also_after_changes() -> None:
    held = told(5)
    held.want(nse(0), Mode.QUOTE)
    held.drop(nse(1))
    while held.next(Limits(), now_s=1.0):
        pass
    held.want(nse(1), Mode.LTP)
    held.next(Limits(), now_s=2.0)
    assert [token.number for token in held.order()] == ["0", "2", "3", "4", "1"]


async def report(bench: Bench) -> FeedReport:
    return await asyncio.to_thread(ask_feed, "127.0.0.1", bench.supervisor.publisher.port)


@pytest.mark.django_db(transaction=True)
async def test_it_is_advised_in_the_report_and_to_those_who_want_the_silent_ones(
    toys: dict[str, Adapter], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "NO_DATA_S", 0.3)
    monkeypatch.setattr(hours, "NO_DATA_S", 0.3)
    toys["toy"] = Toy(limits=Limits(frames_per_second=1000.0, instruments_per_frame=1))
    keys = [Key(f"S{number}", "NSE", Mode.LTP) for number in range(30)]
    async with ToyBroker() as broker:
        await in_database(set_up, broker.url, symbols=30)
        async with supervising() as bench:
            for key in keys:
                bench.sub.subscribe(key)
            await until(lambda: len(broker.held) == 30, "the subscriptions")
            order = list(broker.held)
            await broker.send(*({"token": number, "ltp": 1.0} for number in order[:20]))
            silent = {f"S{int(number) - 100}" for number in order[20:]}
            await until(lambda: bench.key_states() == dict.fromkeys(silent, FeedState.NO_DATA), "the silent ones")
            await until(
                lambda: {key.message for key in bench.sub.statuses[""][-1].keys} == {
                    "The broker has sent nothing for it since it was subscribed; it seems to serve 20 instruments on a "
                    "connection only: lower the limit in the admin."
                },
                "the advice",
            )  # fmt: skip
            [connection] = (await report(bench)).accounts[0].connections
            assert (connection.apparent_limit, connection.unsaid) == (20, 0)
            await broker.send(*({"token": number, "ltp": 1.0} for number in order[20:]))
            await until(lambda: bench.key_states() == {}, "all is well")
            [connection] = (await report(bench)).accounts[0].connections
            assert connection.apparent_limit is None
