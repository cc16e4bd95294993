"""The publisher against real SUB sockets over TCP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from brokers.contract import Update
from brokers.feed.plan import Instrument
from brokers.feed.publisher import BusError, Publisher, Source
from marketdata.ticks import AccountStatus, Depth, FeedState, FeedStatus, Key, Level, Mode
from marketdata.topics import status_key
from tests.brokers.feed.bench import Subscriber, nse, subscriber, until

SBIN = Instrument("SBIN", "NSE")
LTP, QUOTE, DEPTH = (Key("SBIN", "NSE", mode) for mode in (Mode.LTP, Mode.QUOTE, Mode.DEPTH))
BOOK = Depth((Level(9.5, 10, 1),), (Level(10.5, 20, 2),))


class Bench:
    """A publisher, and what it told its owner."""

    def __init__(self, port: int, linger_s: float) -> None:
        self.asked: list[str] = []
        self.changed: list[Instrument] = []
        self.publisher = Publisher(
            "127.0.0.1", port, on_demand=self._take, on_status_asked=self.asked.append, linger_s=linger_s
        )

    def _take(self) -> None:
        self.changed += self.publisher.take_changes()

    def wanted(self) -> dict[Instrument, Mode]:
        return dict(self.publisher.wanted())

    def source(self, name: Instrument = SBIN, number: int = 1, source: Source | None = None) -> Source:
        source = source or self.publisher.source("zerodha", simulated=True)
        self.publisher.bind(name, source, nse(number))
        return source


@contextmanager
def publishing(port: int = 0, linger_s: float = 15.0) -> Iterator[Bench]:
    bench = Bench(port, linger_s)
    bench.publisher.open()
    try:
        yield bench
    finally:
        bench.publisher.close()


@asynccontextmanager
async def both(linger_s: float = 15.0) -> AsyncIterator[tuple[Bench, Subscriber]]:
    with publishing(linger_s=linger_s) as bench:
        async with subscriber(bench.publisher.port) as sub:
            yield bench, sub


async def test_a_subscription_is_the_demand() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP)
        await until(lambda: bench.wanted() == {SBIN: Mode.LTP}, "the demand")
        sub.subscribe(DEPTH, Key("SBIN", "NSE", Mode.QUOTE, "desk"))
        await until(lambda: bench.wanted() == {SBIN: Mode.DEPTH, Instrument("SBIN", "NSE", "desk"): Mode.QUOTE}, "both")
        assert bench.changed[:2] == [SBIN, SBIN]


async def test_each_demanded_mode_gets_one_tick_of_an_update_and_others_none() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP, DEPTH)
        await until(lambda: bench.wanted() == {SBIN: Mode.DEPTH}, "the demand")
        await until(lambda: bench.publisher.is_demanded(SBIN), "the demand")
        source = bench.source()
        source.deliver([Update(token=nse(1), ltp=10.0, volume=7, depth=BOOK), Update(token=nse(99), ltp=1.0)], 1234)
        await until(lambda: len(sub.got) == 2, "two ticks")
        [quick], [deep] = sub.of(LTP), sub.of(DEPTH)
        assert (quick.tick.ltp, quick.tick.volume, quick.tick.depth) == (10.0, None, None)
        assert (deep.tick.ltp, deep.tick.volume, deep.tick.depth) == (10.0, 7, BOOK)
        assert quick.tick.received_ms == deep.tick.received_ms == 1234
        assert (quick.tick.broker, quick.tick.simulated) == ("zerodha", True)
        assert bench.publisher.counters.published == 2
        assert bench.publisher.counters.unplaced == 1


async def test_sequences_begin_at_the_start_time_and_rise_by_one_for_each_key() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP, QUOTE)
        await until(lambda: bench.wanted() == {SBIN: Mode.QUOTE}, "the demand")
        source = bench.source()
        for price in range(1, 51):
            source.deliver([Update(token=nse(1), ltp=float(price))], price)
        await until(lambda: len(sub.got) == 100, "all ticks")
        for key in (LTP, QUOTE):
            seqs = [got.tick.seq for got in sub.of(key)]
            assert seqs == list(range(bench.publisher.epoch_ms + 1, bench.publisher.epoch_ms + 51))
        assert sub.numbers == list(range(1, 101))
        assert {got.header.epoch_ms for got in sub.got} == {bench.publisher.epoch_ms}


async def test_a_new_subscription_gets_the_last_value_at_once_under_its_own_number() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP)
        await until(bench.wanted, "the demand")
        source = bench.source()
        source.deliver([Update(token=nse(1), ltp=10.0, volume=5)], 1000)
        await until(lambda: sub.of(LTP), "the tick")
        sub.subscribe(QUOTE)
        await until(lambda: sub.of(QUOTE), "the last value in the new mode")
        [last] = sub.of(QUOTE)
        assert last.is_snapshot
        assert (last.tick.ltp, last.tick.volume, last.tick.received_ms) == (10.0, 5, 1000)
        assert last.tick.seq == bench.publisher.epoch_ms
        source.deliver([Update(token=nse(1), ltp=11.0)], 2000)
        await until(lambda: len(sub.of(QUOTE)) == 2, "the next tick")
        assert sub.of(QUOTE)[1].tick.seq == last.tick.seq + 1


async def test_subscribing_again_asks_for_the_state_and_counts_no_tick() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP)
        await until(bench.wanted, "the demand")
        source = bench.source()
        source.deliver([Update(token=nse(1), ltp=10.0)], 1000)
        await until(lambda: sub.got, "the tick")
        async with subscriber(bench.publisher.port) as other:
            other.subscribe(LTP)
            await until(lambda: other.got, "the last value, to a second bridge")
            assert other.got[0].is_snapshot
        await until(lambda: len(sub.got) == 2, "the same on the first")
        assert sub.got[1].tick.seq == sub.got[0].tick.seq
        assert bench.wanted() == {SBIN: Mode.LTP}


async def test_a_sequence_goes_on_and_shows_that_something_was_missed_while_nobody_wanted_the_key() -> None:
    async with both(linger_s=0.01) as (bench, sub):
        sub.subscribe(LTP)
        await until(bench.wanted, "the demand")
        bench.source().deliver([Update(token=nse(1), ltp=10.0)], 1)
        await until(lambda: sub.got, "the tick")
        sub.unsubscribe(LTP)
        await until(lambda: not bench.wanted(), "no demand")
        bench.publisher.unbind(SBIN)
        sub.subscribe(LTP)
        await until(bench.wanted, "the demand again")
        bench.source().deliver([Update(token=nse(1), ltp=11.0)], 2)
        await until(lambda: len(sub.got) == 2, "the next tick")
        assert sub.got[1].tick.seq == sub.got[0].tick.seq + 2


async def test_what_nobody_subscribes_any_more_stays_wanted_for_a_while_but_is_not_published() -> None:
    async with both(linger_s=0.3) as (bench, sub):
        sub.subscribe(DEPTH, LTP)
        await until(lambda: bench.wanted() == {SBIN: Mode.DEPTH}, "the demand")
        source = bench.source()
        loop = asyncio.get_running_loop()
        sub.unsubscribe(DEPTH)
        began_s = loop.time()
        await until(lambda: sum(stream.demanded for stream in source.lines[nse(1)].streams) == 1, "one stream less")
        source.deliver([Update(token=nse(1), ltp=10.0)], 1)
        assert bench.publisher.counters.published == 1
        assert bench.wanted() == {SBIN: Mode.DEPTH}
        await until(lambda: bench.wanted() == {SBIN: Mode.LTP}, "the lower mode")
        assert loop.time() - began_s >= 0.3
        sub.unsubscribe(LTP)
        await until(lambda: not bench.wanted(), "no demand")


async def test_ticks_that_nobody_got_while_the_key_lingered_are_seen_in_the_sequence() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP)
        await until(bench.wanted, "the demand")
        source = bench.source()
        source.deliver([Update(token=nse(1), ltp=10.0)], 1)
        await until(lambda: sub.got, "the tick")
        sub.unsubscribe(LTP)
        await until(lambda: not bench.publisher.is_demanded(SBIN), "the unsubscribe")
        for price in (11.0, 12.0, 13.0):
            source.deliver([Update(token=nse(1), ltp=price)], 2)
        sub.subscribe(LTP)
        await until(lambda: len(sub.got) == 2, "the last value")
        first, last = sub.got
        assert (last.is_snapshot, last.tick.ltp, last.tick.seq) == (True, 13.0, first.tick.seq + 3)


async def test_who_comes_back_in_time_changes_nothing() -> None:
    async with both(linger_s=0.3) as (bench, sub):
        sub.subscribe(LTP)
        await until(bench.wanted, "the demand")
        bench.source()
        sub.unsubscribe(LTP)
        await until(lambda: not bench.publisher.is_demanded(SBIN), "the unsubscribe")
        sub.subscribe(LTP)
        await until(lambda: bench.publisher.is_demanded(SBIN), "the demand again")
        bench.changed.clear()
        await asyncio.sleep(0.4)  # longer than the linger: nothing must happen
        assert bench.changed == []
        assert bench.wanted() == {SBIN: Mode.LTP}


async def test_a_killed_bridge_costs_nothing_if_it_is_back_in_time() -> None:
    with publishing(linger_s=5.0) as bench:
        async with subscriber(bench.publisher.port) as sub:
            sub.subscribe(*(Key(f"S{number}", "NSE", Mode.LTP) for number in range(100)))
            await until(lambda: len(bench.wanted()) == 100, "the demand")
        await until(lambda: not any(map(bench.publisher.is_demanded, bench.wanted())), "the unsubscribes of the dead")
        assert len(bench.wanted()) == 100


async def test_ten_thousand_keys_are_demanded_again_of_a_new_publisher_on_the_same_port() -> None:
    keys = [Key(f"S{number}", "NSE", Mode.QUOTE) for number in range(10_000)]
    with publishing() as first:
        port = first.publisher.port
        async with subscriber(port) as sub:
            sub.subscribe(*keys)
            await until(lambda: len(first.wanted()) == 10_000, "10,000 keys")
            first.publisher.close()
            with publishing(port) as second:
                await until(lambda: len(second.wanted()) == 10_000, "all of them again")
                assert set(second.wanted()) == {Instrument(key.symbol, key.exchange) for key in keys}


async def test_subscriptions_that_arrive_while_ticks_go_out_are_not_missed() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP)
        await until(bench.wanted, "the demand")
        source, count = bench.source(), 300
        for number in range(count):
            sub.subscribe(Key(f"S{number}", "NSE", Mode.LTP))
            for _ in range(20):
                source.deliver([Update(token=nse(1), ltp=1.0)], number)
            await asyncio.sleep(0)
        await until(lambda: len(bench.wanted()) == count + 1, "every subscription", timeout_s=3.0)


async def test_what_is_no_key_is_ignored_and_counted() -> None:
    async with both() as (bench, sub):
        for nonsense in (b"", b"\x1fNSE\x1fLTP\x1fSBIN", b"\xff\xfe", b"\x1fNSE\x1fFOO\x1fSBIN\0"):
            sub.subscribe_raw(nonsense)
        sub.subscribe(LTP)
        await until(lambda: bench.wanted() == {SBIN: Mode.LTP}, "the one that is a key")
        assert bench.publisher.counters.unknown_topics == 4


async def test_a_subscriber_of_the_status_is_announced_and_answered() -> None:
    status = FeedStatus(
        accounts=(
            AccountStatus(broker="zerodha", account="main", state=FeedState.CONNECTED, message="Fine.", since_ms=1),
        ),
        received_ms=5,
    )
    async with both() as (bench, sub):
        sub.subscribe(status_key("desk"))
        await until(lambda: bench.asked == ["desk"], "the question")
        assert set(bench.publisher.status_feeds) == {"desk"}
        bench.publisher.send_status("desk", status)
        await until(lambda: sub.statuses["desk"] == [status], "the answer")
        sub.unsubscribe(status_key("desk"))
        await until(lambda: not bench.publisher.status_feeds, "nobody asks any more")
        assert bench.wanted() == {}


async def test_two_names_of_one_token_both_tick() -> None:
    async with both() as (bench, sub):
        other = Instrument("SBIN", "NSE", "desk")
        sub.subscribe(LTP, Key("SBIN", "NSE", Mode.LTP, "desk"))
        await until(lambda: len(bench.wanted()) == 2, "the demand")
        source = bench.source()
        bench.source(other, source=source)
        source.deliver([Update(token=nse(1), ltp=10.0)], 1)
        await until(lambda: len(sub.got) == 2, "a tick each")
        bench.publisher.unbind(SBIN)
        source.deliver([Update(token=nse(1), ltp=11.0)], 2)
        await until(lambda: len(sub.got) == 3, "a tick for the other")
        assert sub.got[2].key.feed == "desk"


async def test_what_was_known_of_a_token_is_forgotten_with_its_last_name() -> None:
    with publishing() as bench:
        source = bench.source()
        source.deliver([Update(token=nse(1), ltp=10.0, volume=5)], 1)
        bench.publisher.unbind(SBIN)
        assert source.snapshots.state(nse(1)) is None
        assert source.lines == {}


async def test_after_a_loss_books_are_gone_and_prices_stay() -> None:
    async with both() as (bench, sub):
        sub.subscribe(DEPTH)
        await until(bench.wanted, "the demand")
        source = bench.source()
        source.deliver([Update(token=nse(1), ltp=10.0, depth=BOOK)], 1)
        source.clear_books([nse(1), nse(2)])
        source.deliver([Update(token=nse(1), volume=3)], 2)
        await until(lambda: len(sub.got) == 2, "two ticks")
        assert [got.tick.depth for got in sub.got] == [BOOK, None]
        assert sub.got[1].tick.ltp == 10.0


async def test_a_port_that_is_taken_is_named_with_the_setting_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BusError, match=rf"Port {port} .* ZMQ_PORT"), publishing(port):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.0.2.1", "example.in"])
async def test_the_bus_is_never_opened_to_other_machines(host: str) -> None:
    publisher = Publisher(host, 0, on_demand=lambda: None, on_status_asked=lambda _: None)
    with pytest.raises(BusError, match=r"ZMQ_HOST .* 127\.0\.0\.1"):
        publisher.open()


async def test_a_packet_that_is_only_a_book_is_news_for_those_who_want_the_book() -> None:
    async with both() as (bench, sub):
        sub.subscribe(LTP, QUOTE, DEPTH)
        await until(lambda: bench.wanted() == {SBIN: Mode.DEPTH}, "the demand")
        source = bench.source()
        source.deliver([Update(token=nse(1), ltp=10.0, mode=Mode.QUOTE)], 1)
        await until(lambda: len(sub.of(LTP)) == len(sub.of(QUOTE)) == 1, "prices")
        source.deliver([Update(token=nse(1), depth=BOOK, mode=Mode.DEPTH20)], 2)
        await until(lambda: len(sub.of(DEPTH)) == 1, "the book")
        assert (len(sub.of(LTP)), len(sub.of(QUOTE))) == (1, 1)
        source.settle(nse(1), Mode.QUOTE, Mode.DEPTH)
        assert source.snapshots.state(nse(1)).depth is not None, "the book comes from another kind of socket"
        source.settle(nse(1), None, Mode.DEPTH20)
        assert source.snapshots.state(nse(1)).depth is None


# ------------------------------------------------------------------------------------------------- from another source


NOW_MS = time.time_ns() // 1_000_000
MOMENT_MS = 1_795_588_200_000
"""Some instant by an exchange's clock."""


@asynccontextmanager
async def moved(last: Update, *keys: Key, simulated: bool = False) -> AsyncIterator[tuple[Bench, Subscriber, Source]]:
    """Keys that ticked once from one source, and tick from another now: that one is given."""
    async with both() as (bench, sub):
        sub.subscribe(*keys)
        await until(lambda: len(bench.publisher.streams(SBIN)) == len(keys), "the demand")
        before = bench.publisher.source("zerodha", simulated=False)
        bench.publisher.bind(SBIN, before, nse(1))
        before.deliver([last], NOW_MS)
        before.clear_books([nse(1)])
        after = bench.publisher.source("angel", simulated=simulated)
        bench.publisher.bind(SBIN, after, nse(1))
        await until(lambda: len(sub.got) == len(keys), "the first ticks")
        yield bench, sub, after


def prices(sub: Subscriber, key: Key = LTP) -> list[float]:
    return [got.tick.ltp for got in sub.of(key)]


def at(ltp: float, ago_ms: int = 0, **fields: Any) -> Update:
    return Update(token=nse(1), ltp=ltp, exchange_ms=MOMENT_MS - ago_ms, **fields)


async def test_prices_of_another_source_wait_until_they_are_not_older_than_the_last_one() -> None:
    async with moved(at(10.0), LTP) as (_, sub, after):
        for number, ago_ms in enumerate((2000, 1000, 1, 0, -500)):
            after.deliver([at(20.0 + number, ago_ms)], NOW_MS + number)
        after.deliver([at(30.0, 100)], NOW_MS + 9)
        await until(lambda: len(sub.got) == 4, "those that are not older")
        assert prices(sub) == [10.0, 23.0, 24.0, 30.0], "what comes after that is the other's own order"
        assert [got.tick.seq - sub.got[0].tick.seq for got in sub.got] == [0, 1, 2, 3], "what was held back is no loss"
        assert {got.tick.broker for got in sub.got[1:]} == {"angel"}


async def test_after_five_seconds_they_go_out_whatever_the_clocks_say() -> None:
    async with moved(at(10.0), LTP) as (_, sub, after):
        for number, later_ms in enumerate((0, 4999, 5000, 5001)):
            after.deliver([at(20.0 + number, 60_000)], NOW_MS + later_ms)
        await until(lambda: len(sub.got) == 3, "the late ones")
        assert prices(sub) == [10.0, 22.0, 23.0]


@pytest.mark.parametrize(
    ("last", "new", "is_held"),
    [
        ({"last_trade_ms": 5000}, {"last_trade_ms": 4000}, True),
        ({"last_trade_ms": 5000}, {"last_trade_ms": 5000}, False),
        ({"last_trade_ms": 5000}, {"exchange_ms": 4000}, True),
        ({"exchange_ms": 5000}, {"last_trade_ms": 4000}, False),  # the last trade may well be older than the price
        ({"exchange_ms": 5000, "last_trade_ms": 5000}, {"exchange_ms": 5000, "last_trade_ms": 4000}, False),
        ({"volume": 100}, {"volume": 99}, True),
        ({"volume": 100}, {"volume": 100}, False),
        ({"volume": 100, "exchange_ms": 5000}, {"volume": 99, "exchange_ms": 6000}, True),
        ({"volume": 100}, {}, False),
        ({}, {"exchange_ms": 1, "volume": 1}, False),
    ],
)
async def test_what_is_older_is_told_by_the_clock_or_the_last_trade_or_the_volume(
    last: dict[str, int], new: dict[str, int], is_held: bool
) -> None:
    async with moved(Update(token=nse(1), ltp=10.0, **last), LTP) as (_, sub, after):  # type: ignore[arg-type]
        after.deliver([Update(token=nse(1), ltp=20.0, **new)], NOW_MS)  # type: ignore[arg-type]
        after.deliver([Update(token=nse(1), ltp=30.0, exchange_ms=9000, last_trade_ms=9000, volume=900)], NOW_MS)
        await until(lambda: prices(sub)[-1] == 30.0, "the new ones")
        assert prices(sub) == ([10.0, 30.0] if is_held else [10.0, 20.0, 30.0])


async def test_a_last_value_does_not_step_back_either() -> None:
    async with moved(at(10.0), LTP) as (bench, sub, after):
        after.deliver([at(20.0, 1000)], time.time_ns() // 1_000_000)
        async with subscriber(bench.publisher.port) as other:
            other.subscribe(LTP, QUOTE)
            await until(lambda: other.of(QUOTE), "the last value on a key that never ticked before")
            assert other.of(LTP) == []
            after.deliver([at(21.0, -1)], time.time_ns() // 1_000_000)
            await until(lambda: prices(other) == [21.0], "the tick")
            assert prices(sub)[-1] == 21.0
            assert 20.0 not in prices(sub)


async def test_a_stream_of_books_begins_with_a_fresh_one() -> None:
    fresh = Depth((Level(8.5, 1, 1),), (Level(11.5, 2, 2),))
    async with moved(at(10.0, depth=BOOK), DEPTH, LTP) as (_, sub, after):
        after.deliver([at(11.0, -1)], NOW_MS)
        after.deliver([at(12.0, -2, depth=fresh)], NOW_MS + 1)
        await until(lambda: prices(sub, DEPTH) == [10.0, 12.0], "the tick with a book")
        assert sub.of(DEPTH)[1].tick.depth == fresh
        assert prices(sub) == [10.0, 11.0, 12.0], "who wants no book does not wait for one"


async def test_where_there_never_was_a_book_none_is_waited_for() -> None:
    async with moved(at(10.0), DEPTH) as (_, sub, after):
        after.deliver([at(11.0, -1)], NOW_MS)
        await until(lambda: prices(sub, DEPTH) == [10.0, 11.0], "the tick")


async def test_a_simulated_source_has_a_time_of_its_own() -> None:
    async with moved(at(10.0), LTP, simulated=True) as (_, sub, after):
        after.deliver([at(20.0, 1000)], NOW_MS)
        await until(lambda: prices(sub) == [10.0, 20.0], "the tick")


async def test_one_that_moves_on_and_back_before_it_ticked_goes_on_as_if_nothing_had_been() -> None:
    async with moved(at(10.0), LTP) as (bench, sub, after):
        third = bench.publisher.source("dhan", simulated=False)
        after.deliver([at(20.0, 1000)], NOW_MS)
        bench.publisher.bind(SBIN, third, nse(7))
        third.deliver([Update(token=nse(7), ltp=30.0, exchange_ms=MOMENT_MS - 500)], NOW_MS)
        bench.publisher.bind(SBIN, after, nse(1))
        after.deliver([at(21.0, 1)], NOW_MS)
        after.deliver([at(22.0, 0)], NOW_MS)
        await until(lambda: prices(sub) == [10.0, 22.0], "the first that is not older than the last that went out")
