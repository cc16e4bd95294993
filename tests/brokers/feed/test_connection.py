"""One connection against a real WebSocket server that misbehaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from brokers.contract import ErrorKind, Limits, Update
from brokers.feed import connection as module
from brokers.feed.backoff import POLICY, Waits
from brokers.feed.connection import SAMPLE_BYTES, SAMPLES, Condition, Connection, Route
from brokers.feed.counters import Counters
from marketdata.ticks import FeedState, Mode, Token
from tests.brokers.feed.bench import Toy, ToyBroker, nse, until


class Bench:
    """A connection to a toy broker, and everything it told its owner."""

    def __init__(self, broker: ToyBroker, toy: Toy, token: str = "good") -> None:
        self.broker, self.toy = broker, toy
        self.updates: list[tuple[Update, int]] = []
        self.conditions: list[Condition] = []
        self.lost: list[set[Token]] = []
        self.knocks: list[tuple[int, str, str]] = []
        self.counters = Counters()
        self.connection = Connection(
            "toy main market 0",
            Route(toy, toy.feed, {"key": "k", "token": token}, broker.url),
            toy.feed.limits,
            deliver=self._deliver,
            on_change=self._changed,
            on_lost=self._lost,
            counters=self.counters,
            chance=lambda: 0.0,
            on_knock=lambda at_ms, outcome, reason: self.knocks.append((at_ms, outcome, reason)),
        )
        self.task = asyncio.create_task(self.connection.run())

    def _deliver(self, updates: Collection[Update], received_ms: int) -> None:
        self.updates += [(update, received_ms) for update in updates]

    def _changed(self) -> None:
        self.conditions.append(self.connection.condition)

    def _lost(self, tokens: Iterable[Token]) -> None:
        self.lost.append(set(tokens))

    @property
    def states(self) -> list[FeedState]:
        return [condition.state for condition in self.conditions]

    def prices(self) -> list[float | None]:
        return [update.ltp for update, _ in self.updates]

    async def connected(self, times: int = 1) -> None:
        await until(lambda: self.states.count(FeedState.CONNECTED) >= times, f"connection number {times}")
        await until(lambda: len(self.broker.sockets) == 1, "one socket at the broker")


@asynccontextmanager
async def connecting(toy: Toy | None = None, token: str = "good") -> AsyncIterator[Bench]:
    async with ToyBroker() as broker:
        bench = Bench(broker, toy or Toy(), token)
        try:
            yield bench
        finally:
            bench.task.cancel()
            await asyncio.wait([bench.task], timeout=3)
            assert bench.task.done()


# ---------------------------------------------------------------------------------------------------------- all is well


async def test_it_says_hello_then_what_is_wanted_and_hands_on_what_comes() -> None:
    async with connecting() as bench:
        bench.connection.want(nse(1), Mode.LTP)
        bench.connection.want(nse(2), Mode.DEPTH)
        await bench.connected()
        await until(lambda: bench.broker.held == {"1": "LTP", "2": "DEPTH"}, "the subscriptions")
        assert bench.broker.said[0] == {"hello": 1}
        before_ms = time.time_ns() // 1_000_000
        await bench.broker.send({"token": 1, "ltp": 10.5}, {"token": 2, "ltp": 20.5})
        await until(lambda: bench.prices() == [10.5, 20.5], "the prices")
        instants = {received_ms for _, received_ms in bench.updates}
        assert len(instants) == 1, "one instant a frame"
        assert before_ms <= instants.pop() <= time.time_ns() // 1_000_000
        assert (bench.counters.frames, bench.states) == (1, [FeedState.CONNECTED])


async def test_changes_of_demand_are_said_while_it_runs() -> None:
    async with connecting() as bench:
        await bench.connected()
        bench.connection.want(nse(1), Mode.LTP)
        await until(lambda: bench.broker.held == {"1": "LTP"}, "the first")
        bench.connection.want(nse(1), Mode.QUOTE)
        bench.connection.want(nse(2), Mode.LTP)
        await until(lambda: bench.broker.held == {"1": "QUOTE", "2": "LTP"}, "the change")
        bench.connection.want(nse(1), None)
        await until(lambda: bench.broker.held == {"2": "LTP"}, "the end of one")


async def test_frames_keep_to_the_brokers_pace() -> None:
    limits = Limits(instruments_per_frame=1, frames_per_second=10.0)
    async with connecting(Toy(limits=limits)) as bench:
        for number in range(15):
            bench.connection.want(nse(number), Mode.LTP)
        await bench.connected()
        began_s = time.monotonic()
        await until(lambda: len(bench.broker.held) == 10, "the first ten at once")
        await until(lambda: len(bench.broker.held) == 15, "the rest")
        assert time.monotonic() - began_s >= 0.9


async def test_a_reply_the_broker_is_owed_is_sent() -> None:
    async with connecting() as bench:
        await bench.connected()
        await bench.broker.send({"reply": '{"pong": 7}'}, {"token": 1, "ltp": 1.0})
        await until(lambda: {"pong": 7} in bench.broker.said, "the reply")
        assert bench.prices() == [1.0]


async def test_heartbeats_go_out_in_time() -> None:
    async with connecting(Toy(heartbeat_s=0.05)) as bench:
        await until(lambda: bench.broker.beats() >= 3, "three heartbeats")


async def test_http_calls_before_the_socket_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy of the environment must not be asked for what is on this machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    def ticket(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(200, "good")

    async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=ticket) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        toy = Toy(ticket_url=f"http://127.0.0.1:{port}/login")
        async with connecting(toy, token="bad") as bench:
            await bench.connected()


# ------------------------------------------------------------------------------------------------------- it breaks down


async def test_after_a_drop_everything_is_subscribed_again_and_the_owner_hears_of_the_loss() -> None:
    async with connecting() as bench:
        for number in range(250):
            bench.connection.want(nse(number), Mode.QUOTE)
        await bench.connected()
        await until(lambda: len(bench.broker.held) == 250, "the subscriptions")
        bench.broker.drop()
        await bench.connected(times=2)
        await until(lambda: len(bench.broker.held) == 250, "the subscriptions again")
        assert bench.lost == [{nse(number) for number in range(250)}]
        assert bench.states == [FeedState.CONNECTED, FeedState.RECONNECTING, FeedState.CONNECTED]
        assert bench.counters.reconnects == {ErrorKind.NETWORK: 1}


async def test_a_first_drop_is_mended_within_half_a_second() -> None:
    async with connecting() as bench:
        await bench.connected()
        began_s = time.monotonic()
        bench.broker.drop()
        await bench.connected(times=2)
        assert time.monotonic() - began_s < 1.0


async def test_a_refused_token_is_tried_once_and_never_again() -> None:
    async with connecting(token="bad") as bench:
        await asyncio.wait_for(bench.task, 5)
        assert bench.broker.attempts == 1
        assert bench.connection.refusal is ErrorKind.AUTH
        assert bench.states == [FeedState.TOKEN_EXPIRED]
        assert bench.counters.refusals == 1


async def test_too_many_connections_is_no_reason_to_stop() -> None:
    async with connecting(token="bad") as bench:
        bench.broker.status = 429
        await until(lambda: bench.states == [FeedState.RECONNECTING], "a long wait")
        assert "Trying again in 7.5 s" in bench.conditions[0].message
        assert bench.counters.reconnects == {ErrorKind.LIMIT: 1}


async def test_a_broker_that_is_not_there_is_waited_for() -> None:
    async with ToyBroker() as broker:
        url = broker.url
    toy = Toy()
    async with connecting(toy) as bench:
        bench.connection._route = bench.connection._route._replace(endpoint=url)
        await until(lambda: FeedState.RECONNECTING in bench.states, "the failure")
        assert bench.states[0] is FeedState.RECONNECTING


async def test_a_close_code_that_speaks_of_the_login_ends_it() -> None:
    async with connecting() as bench:
        await bench.connected()
        await bench.broker.close(4401)
        await asyncio.wait_for(bench.task, 5)
        assert bench.connection.refusal is ErrorKind.AUTH


async def test_a_fatal_word_of_the_broker_ends_the_connection_with_its_kind() -> None:
    async with connecting() as bench:
        await bench.connected()
        await bench.broker.send({"error": "entitlement", "text": "No plan for live data.", "fatal": True})
        await asyncio.wait_for(bench.task, 5)
        assert bench.connection.refusal is ErrorKind.ENTITLEMENT
        assert bench.conditions[-1].state is FeedState.NOT_ENTITLED
        assert "No plan for live data." in bench.conditions[-1].message


async def test_a_refused_instrument_is_remembered_until_it_ticks() -> None:
    async with connecting() as bench:
        bench.connection.want(nse(1), Mode.LTP)
        await bench.connected()
        await bench.broker.send({"error": "entitlement", "text": "Not yours.", "tokens": [1]})
        await until(lambda: bench.connection.refused == {nse(1): "Not yours."}, "the refusal")
        await bench.broker.send({"token": 1, "ltp": 1.0})
        await until(lambda: bench.connection.refused == {}, "the end of it")
        assert len(bench.broker.sockets) == 1


async def test_a_frame_nobody_understands_is_kept_and_the_connection_goes_on() -> None:
    async with connecting() as bench:
        await bench.connected()
        await bench.broker.send_raw("x" * 10_000)
        await bench.broker.send({"token": 1, "ltp": 2.0})
        await until(lambda: bench.prices() == [1.0, 2.0], "what came before the damage, and what came after")
        [sample] = bench.connection.samples
        assert (sample.error, sample.frame_hex) == ("no JSON", "78" * SAMPLE_BYTES)
        for _ in range(2 * SAMPLES):
            await bench.broker.send_raw("y")
        await until(lambda: bench.counters.decode_errors == 2 * SAMPLES + 1, "all of them")
        assert len(bench.connection.samples) == SAMPLES
        assert bench.states == [FeedState.CONNECTED]


async def test_a_mistake_in_the_adapter_ends_its_connection_only() -> None:
    async with connecting() as bench:
        await bench.connected()
        await bench.broker.send_raw("boom")
        await until(lambda: FeedState.RECONNECTING in bench.states, "a reconnect")
        assert "ZeroDivisionError" in bench.conditions[-1].message
        assert bench.counters.reconnects == {ErrorKind.PROTOCOL: 1}
        assert not bench.task.done()


async def test_silence_while_something_is_subscribed_means_that_the_socket_is_dead() -> None:
    async with connecting(Toy(silence_s=0.3)) as bench:
        bench.connection.want(nse(1), Mode.LTP)
        await bench.connected(times=2)
        assert "nothing came for 0.3 s" in bench.conditions[1].message


async def test_silence_while_nothing_is_subscribed_means_nothing() -> None:
    async with connecting(Toy(silence_s=0.1)) as bench:
        await bench.connected()
        await asyncio.sleep(0.5)  # several times the silence: nothing must happen
        assert bench.states == [FeedState.CONNECTED]


async def test_any_frame_breaks_the_silence() -> None:
    async with connecting(Toy(silence_s=0.4)) as bench:
        bench.connection.want(nse(1), Mode.LTP)
        await bench.connected()
        for _ in range(12):
            await bench.broker.send()
            await asyncio.sleep(0.1)
        assert bench.states == [FeedState.CONNECTED]


async def test_after_a_sleep_a_socket_that_was_silent_is_replaced_at_once() -> None:
    async with connecting(Toy(silence_s=30.0)) as bench:
        await bench.connected()
        bench.connection._heard_ms -= 3600 * 1000  # the lid was closed for an hour
        bench.connection.woke()
        await bench.connected(times=2)
        assert "while this machine slept" in bench.conditions[1].message


async def test_after_a_sleep_a_socket_that_speaks_is_kept() -> None:
    async with connecting(Toy(silence_s=30.0)) as bench:
        await bench.connected()
        bench.connection._heard_ms -= 3600 * 1000
        bench.connection.woke()
        await bench.broker.send({"token": 1, "ltp": 1.0})
        await until(bench.prices, "the price")
        await asyncio.sleep(3 * module.GRACE_S)  # after the time it takes to judge
        assert bench.states == [FeedState.CONNECTED]


async def test_after_a_sleep_nobody_waits_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICY, ErrorKind.NETWORK, Waits(60.0, 60.0))
    async with connecting(token="bad") as bench:
        bench.broker.status = 503
        await until(lambda: bench.states == [FeedState.RECONNECTING], "a wait of 30 s")
        bench.broker.tokens.add("bad")
        bench.connection.woke()
        await bench.connected()


async def test_a_broker_that_says_too_many_is_left_alone_also_after_a_sleep() -> None:
    async with connecting(token="bad") as bench:
        bench.broker.status = 429
        await until(lambda: bench.states == [FeedState.RECONNECTING], "the first wait")
        bench.broker.tokens.add("bad")
        bench.connection.woke()
        await until(lambda: "locked out" in bench.conditions[-1].message, "the wait that nobody shortens")
        assert bench.broker.attempts == 1


async def test_every_attempt_is_told_with_what_came_of_it() -> None:
    async with connecting(token="bad") as bench:
        bench.broker.status = 503
        await until(lambda: len(bench.knocks) >= 4, "two attempts")
        bench.broker.tokens.add("bad")
        await bench.connected()
        assert [outcome for _, outcome, _ in bench.knocks[:2]] == ["begun", "failed"]
        assert bench.knocks[1][2] == "network: HTTP 503"
        assert [outcome for _, outcome, _ in bench.knocks[-2:]] == ["begun", "ok"]


async def test_a_muted_connection_hands_nothing_on_and_listens_all_the_same() -> None:
    async with connecting() as bench:
        await bench.connected()
        bench.connection.muted = True
        bench.connection.want(nse(1), Mode.LTP)
        await until(lambda: bench.connection.subscriptions.unheard, "the subscription")
        await bench.broker.send({"token": 1, "ltp": 10.0})
        await until(lambda: not bench.connection.subscriptions.unheard, "its tick to be heard")
        assert bench.updates == []
        bench.connection.muted = False
        await bench.broker.send({"token": 1, "ltp": 11.0})
        await until(lambda: bench.prices() == [11.0], "the next one")


async def test_what_is_forbidden_is_not_opened_again() -> None:
    async with connecting() as bench:
        await bench.connected()
        bench.connection.forbid(Condition(FeedState.TOKEN_EXPIRED, "Another socket was refused."))
        assert bench.connection.condition.state is FeedState.CONNECTED, "what stands goes on"
        bench.broker.drop()
        await asyncio.wait_for(bench.task, 5)
        assert bench.broker.attempts == 1
        assert bench.states[-1] is FeedState.TOKEN_EXPIRED


async def test_a_redirect_is_not_followed() -> None:
    async with ToyBroker() as elsewhere:

        def redirect(socket: ServerConnection, request: Request) -> Response:
            response = socket.respond(302, "")
            response.headers["Location"] = f"{elsewhere.url}{request.path}"
            return response

        server = serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=redirect)
        async with server as redirecting, connecting() as bench:
            port = next(iter(redirecting.sockets)).getsockname()[1]
            bench.connection._route = bench.connection._route._replace(endpoint=f"ws://127.0.0.1:{port}")
            await until(lambda: FeedState.RECONNECTING in bench.states, "the end of it")
            assert "HTTP 302" in bench.conditions[0].message
        assert elsewhere.attempts == 0


async def test_it_leaves_in_order_within_a_second() -> None:
    async with connecting() as bench:
        await bench.connected()
        [socket] = bench.broker.sockets
        began_s = time.monotonic()
        bench.task.cancel()
        await asyncio.wait([bench.task])
        assert time.monotonic() - began_s < 1.5
        await until(lambda: socket.close_code == 1000, "a close frame")


async def test_no_secret_reaches_a_log_or_a_message(caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cr3t-t0ken"
    with caplog.at_level(logging.INFO):
        async with connecting(token=secret) as bench:
            await asyncio.wait_for(bench.task, 5)
            assert secret not in repr(bench.connection._route)
            assert secret not in str(bench.conditions)
        async with ToyBroker() as broker:
            broker.tokens.add(secret)
            bench = Bench(broker, Toy(), secret)
            await bench.connected()
            await broker.send_raw("boom")
            await until(lambda: FeedState.RECONNECTING in bench.states, "a reconnect")
            bench.task.cancel()
            await asyncio.wait([bench.task])
    assert "feed_up" in caplog.text
    assert secret not in caplog.text


@pytest.mark.parametrize("steps", range(12))
async def test_it_ends_also_when_the_socket_breaks_in_that_moment(steps: int) -> None:
    async with connecting() as bench:
        await bench.connected()
        bench.broker.drop()
        for _ in range(steps):
            await asyncio.sleep(0)
        bench.task.cancel()
        await asyncio.wait([bench.task], timeout=2)
        assert bench.task.cancelled()
