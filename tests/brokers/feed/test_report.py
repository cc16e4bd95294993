"""What a running supervisor tells of itself over the bus, and what somebody hears who asks in vain."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from hypothesis import given
from hypothesis import strategies as st

from brokers import registry
from brokers.contract import Adapter, Limits
from brokers.feed import report as module
from brokers.feed import supervisor as supervisor_module
from brokers.feed.plan import Instrument as Wish
from brokers.feed.report import NoAnswer, ask_feed, ask_key
from brokers.feed.supervisor import Supervisor
from brokers.models import Broker, BrokerAccount, Instrument
from marketdata.report import FeedReport, KeyReport, ReportError, decode_bridge, decode_feed, decode_key, encode_report
from marketdata.ticks import FeedState, Key, Mode
from marketdata.topics import report_key, status_key
from tests.brokers.feed.bench import Subscriber, Toy, ToyBroker, subscriber, until
from tests.conftest import free_port

SBIN, TCS = Key("SBIN", "NSE", Mode.LTP), Key("TCS", "NSE", Mode.LTP)
A_BOOK = Key("SBIN", "NSE", Mode.DEPTH20)


class Bench:
    """A running supervisor, its broker, a subscriber on the bus, and somebody who asks."""

    def __init__(self, supervisor: Supervisor, broker: ToyBroker, sub: Subscriber) -> None:
        self.supervisor, self.broker, self.sub = supervisor, broker, sub

    async def feed(self) -> FeedReport:
        return await asyncio.to_thread(ask_feed, "127.0.0.1", self.supervisor.publisher.port)

    async def keys(self, symbol: str, exchange: str = "NSE", feed: str = "") -> tuple[KeyReport, KeyReport]:
        wish = Wish(symbol, exchange, feed)
        return await asyncio.to_thread(ask_key, "127.0.0.1", self.supervisor.publisher.port, wish)

    async def key(self, symbol: str, is_so: Callable[[KeyReport], object], what: str) -> KeyReport:
        """The first report of an instrument that is so."""
        deadline_s = time.monotonic() + 10
        while True:
            report, _ = await self.keys(symbol)
            if is_so(report):
                return report
            assert time.monotonic() < deadline_s, f"Waited in vain for {what}: {report}"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The only adapter there is."""
    adapter = Toy(limits=Limits(frames_per_second=1000.0, instruments_per_connection=2, connections_per_account=1))

    def load(slug: str) -> Adapter:
        if slug != "toy":
            raise registry.UnknownBroker(f"There is no broker {slug!r}.")
        return adapter

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(supervisor_module, "POLL_S", 0.1)
    monkeypatch.setattr(module, "REPEAT_S", 0.2)
    monkeypatch.setattr(module, "APART_MS", 150)
    return adapter


def set_up(url: str, **fields: Any) -> BrokerAccount:
    broker = Broker.objects.create(slug="toy", name="Toy")
    for symbol, token in (("SBIN", "1"), ("TCS", "2"), ("INFY", "3")):
        Instrument.objects.create(
            broker=broker, segment="NSE", token=token, symbol=symbol, exchange="NSE", broker_symbol=symbol,
            broker_exchange="NSE",
        )  # fmt: skip
    credentials = {"key": "k", "token": "good"}
    return BrokerAccount.objects.create(broker=broker, name="main", endpoint=url, credentials=credentials, **fields)


@asynccontextmanager
async def reporting(**fields: Any) -> AsyncIterator[Bench]:
    async with ToyBroker() as broker:
        await sync_to_async(set_up)(broker.url, **fields)
        supervisor = Supervisor("127.0.0.1", 0)
        task = asyncio.create_task(supervisor.run())
        try:
            await asyncio.wait([task, asyncio.create_task(supervisor.ready.wait())], return_when="FIRST_COMPLETED")
            async with subscriber(supervisor.publisher.port) as sub:
                yield Bench(supervisor, broker, sub)
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.django_db(transaction=True)
class TestOfTheFeed:
    async def test_it_tells_every_account_its_sockets_and_what_they_carry(self, toy: Toy) -> None:
        async with reporting() as bench:
            bench.sub.subscribe(SBIN, TCS)
            await until(lambda: bench.broker.held == {"1": "LTP", "2": "LTP"}, "the subscriptions")
            await bench.broker.send({"token": "1", "ltp": 812.5})
            await until(lambda: bench.sub.of(SBIN), "a tick")
            report = await bench.feed()
            [account] = report.accounts
            assert (account.broker, account.name, account.feed, account.simulated) == ("toy", "main", "", True)
            assert (account.state, account.message) == (FeedState.CONNECTED, "Connected.")
            assert (account.placed, account.limit) == (2, 2)
            [connection] = account.connections
            assert (connection.kind, connection.number, connection.is_up) == ("market", 0, True)
            assert (connection.placed, connection.limit, connection.told) == (2, 2, 2)
            assert (connection.unheard, connection.confirmed, connection.difference) == (1, 1, 1)
            assert connection.heard_ms is not None
            assert report.now_ms - 5_000 < connection.heard_ms <= report.now_ms
            assert connection.since_ms <= report.now_ms
            assert (report.pid, report.wanted, report.published) == (os.getpid(), 2, 1)
            assert report.shortage == {}

    async def test_reconnects_and_bad_frames_are_counted_for_each_socket(self, toy: Toy) -> None:
        async with reporting() as bench:
            await until(lambda: bench.broker.sockets, "a socket")
            await bench.broker.send_raw("no JSON at all")
            await until(lambda: bench.supervisor.counters.decode_errors == 1, "the bad frame")
            bench.broker.drop()
            await until(lambda: bench.broker.attempts == 2 and bench.broker.sockets, "another socket")
            report = await bench.feed()
            [connection] = report.accounts[0].connections
            assert connection.reconnects == {"network": 1} == report.reconnects
            assert connection.decode_errors == 1 == report.decode_errors

    async def test_what_is_not_served_is_counted_by_its_reason(self, toy: Toy) -> None:
        async with reporting() as bench:
            bench.sub.subscribe(SBIN, TCS, Key("INFY", "NSE", Mode.LTP), Key("NOSUCH", "NSE", Mode.LTP))
            await until(lambda: len(bench.supervisor.plan.short()) == 2, "the plan")
            assert (await bench.feed()).shortage == {"no_capacity": 1, "unknown": 1}

    async def test_an_account_that_waits_is_told_with_what_was_planned_on_it(self, toy: Toy) -> None:
        async with reporting() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: bench.broker.held == {"1": "LTP"}, "the subscription")
            bench.broker.tokens.clear()
            bench.broker.drop()
            await until(lambda: bench.supervisor.counters.refusals == 1, "the refusal")
            report = await bench.feed()
            [account] = report.accounts
            assert account.state in (FeedState.TOKEN_EXPIRED, FeedState.WAITING_FOR_LOGIN)
            assert [(each.is_up, each.placed) for each in account.connections] == [(False, 1)]
            assert report.refusals == 1

    async def test_it_comes_anew_while_somebody_listens_and_then_no_more(self, toy: Toy) -> None:
        async with reporting() as bench:
            publisher = bench.supervisor.publisher
            with module.asking("127.0.0.1", publisher.port, report_key()) as question:
                told = [decode_feed(await asyncio.to_thread(question.next)) for _ in range(3)]
                assert publisher.report_keys == {report_key()}
            assert [each.now_ms for each in told] == sorted({each.now_ms for each in told})
            await until(lambda: not publisher.report_keys, "nobody listens")

    async def test_it_takes_no_number_from_the_ticks(self, toy: Toy) -> None:
        """A bridge counts gaps in the numbers as losses, and never asks for a report."""
        async with reporting() as bench:
            bench.sub.subscribe(SBIN, status_key())
            await until(lambda: bench.broker.held and bench.sub.numbers, "the subscription")
            await bench.feed()
            await bench.keys("SBIN")
            await bench.broker.send({"token": "1", "ltp": 812.5})
            await until(lambda: bench.sub.of(SBIN), "a tick")
            numbers = bench.sub.numbers
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.django_db(transaction=True)
class TestOfAnInstrument:
    async def test_one_that_nobody_wants_is_told_as_such(self, toy: Toy) -> None:
        async with reporting() as bench:
            first, last = await bench.keys("SBIN")
            assert (first.symbol, first.exchange, first.streams, first.seat) == ("SBIN", "NSE", (), None)
            assert first is last, "nothing can move: a second answer is not waited for"
            assert not first.is_bridged

    async def test_one_that_ticks_is_told_with_its_seat_its_socket_and_its_sequence(self, toy: Toy) -> None:
        async with reporting() as bench:
            bench.sub.subscribe(SBIN, TCS, status_key())
            await until(lambda: bench.broker.held == {"1": "LTP", "2": "LTP"}, "the subscriptions")
            await bench.broker.send({"token": "1", "ltp": 812.5}, {"token": "2", "ltp": 3000.0})
            await until(lambda: bench.sub.of(SBIN), "a tick")
            asking = asyncio.create_task(bench.keys("SBIN"))
            while not asking.done():
                await bench.broker.send({"token": "1", "ltp": 813.0})
                await asyncio.sleep(0.01)
            first, last = await asking
            assert last.tokens == {"toy": "NSE:1"}
            assert last.is_looked_up
            assert last.is_bridged
            assert last.seat is not None
            assert (last.seat.kind, last.seat.number, last.seat.token) == ("market", 0, "1")
            assert last.account is not None
            assert last.account.id == last.seat.account
            assert last.account.name == "main"
            [carrier] = last.carriers
            assert (carrier.wanted, carrier.told, carrier.unheard_s, carrier.refused) == (Mode.LTP, Mode.LTP, None, "")
            assert carrier.neighbours == 1
            assert last.updated_ms is not None
            assert last.now_ms - last.updated_ms < 5_000
            [before], [after] = first.streams, last.streams
            assert (after.mode, after.demanded) == (Mode.LTP, True)
            assert after.seq > before.seq
            assert last.now_ms - first.now_ms >= module.APART_MS
            assert (last.market != "", last.market_sentence[:3]) == (True, "NSE")

    async def test_one_that_lingers_is_demanded_no_more(self, toy: Toy) -> None:
        async with reporting() as bench:
            bench.sub.subscribe(SBIN)
            wanted = await bench.key("SBIN", lambda report: report.seat is not None, "a seat")
            bench.sub.unsubscribe(SBIN)
            report = await bench.key("SBIN", lambda report: not report.streams[0].demanded, "the unsubscription")
            assert report.seat is not None
            assert report.streams[0].since_ms > wanted.streams[0].since_ms

    async def test_one_that_the_broker_is_silent_about_is_told_beside_those_that_tick(self, toy: Toy) -> None:
        async with reporting() as bench:
            bench.sub.subscribe(SBIN, TCS)
            await until(lambda: bench.broker.held == {"1": "LTP", "2": "LTP"}, "the subscriptions")
            await bench.broker.send({"token": "2", "ltp": 3000.0})
            report = await bench.key("SBIN", lambda each: each.carriers[0].neighbours, "the neighbour")
            [carrier] = report.carriers
            assert carrier.unheard_s is not None
            assert 0 <= carrier.unheard_s < 10
            assert report.updated_ms is None

    async def test_one_that_the_broker_refuses_is_told_with_its_words(self, toy: Toy) -> None:
        async with reporting() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: bench.broker.held == {"1": "LTP"}, "the subscription")
            await bench.broker.send({"error": "limit", "tokens": ["1"], "text": "no such instrument"})
            report = await bench.key("SBIN", lambda each: each.carriers[0].refused, "the refusal")
            assert report.carriers[0].refused == "no such instrument"
            assert report.carriers[0].connection.refused == 1

    @pytest.mark.parametrize(
        ("key", "reason", "sentence"),
        [
            (Key("INFY", "NSE", Mode.LTP), "no_capacity", "All connections are full"),
            (Key("NOSUCH", "NSE", Mode.LTP), "unknown", "No broker of this feed lists it now"),
            (Key("NOSUCH28MAR24FUT", "NFO", Mode.LTP), "unknown", "It expired on 28 Mar 2024."),
            (A_BOOK, "mode_not_served", "No broker of this feed streams so deep a book"),
            (Key("SBIN", "NSE", Mode.LTP, "desk"), "no_account", "No account of this feed is switched on"),
        ],
    )
    async def test_one_without_a_seat_is_told_with_the_plans_reason(
        self, toy: Toy, key: Key, reason: str, sentence: str
    ) -> None:
        async with reporting() as bench:
            if reason == "no_capacity":
                bench.sub.subscribe(SBIN, TCS)
                await until(lambda: len(bench.supervisor.plan.seats()) == 2, "the others' seats")
            bench.sub.subscribe(key)
            await until(bench.supervisor.plan.short, "the plan")
            report, _ = await bench.keys(key.symbol, key.exchange, key.feed)
            assert (report.seat, report.reason) == (None, reason)
            assert sentence in report.shortage


# ------------------------------------------------------------------------------------------------------ asking in vain


def test_nobody_there_is_one_sentence_at_once() -> None:
    port = free_port()
    began_s = time.monotonic()
    with pytest.raises(NoAnswer, match=rf"is not running \(nothing listens on 127\.0\.0\.1 port {port}\)"):
        ask_feed("127.0.0.1", port)
    assert time.monotonic() - began_s < 1


def test_one_who_listens_and_does_not_answer_is_waited_for_and_no_longer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began_s = time.monotonic()
        with pytest.raises(NoAnswer, match=r"no report came within 0\.3 s"):
            ask_feed("127.0.0.1", mute.getsockname()[1], timeout_s=0.3)
        assert 0.25 < time.monotonic() - began_s < 2


# --------------------------------------------------------------------------------------------------------------- bytes


def test_a_report_survives_the_bus() -> None:
    key = KeyReport(symbol="M&M", exchange="NSE", feed="desk", now_ms=5, started_ms=4, published=3)
    assert decode_key(encode_report(key)) == key


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", b"\x02" + encode_report(FeedReport(pid=1, started_ms=1, now_ms=1, accounts=()))[1:]]
)
def test_a_payload_of_another_version_is_refused(payload: bytes) -> None:
    with pytest.raises(ReportError, match="restart all processes"):
        decode_feed(payload)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading(noise: bytes) -> None:
    for decode in (decode_feed, decode_key, decode_bridge):
        with pytest.raises(ReportError):
            decode(b"\x01" + noise)
