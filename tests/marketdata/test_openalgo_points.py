"""
The sixteen points that OpenAlgo's clients rest on, and that each is guarded: a breakage of any makes exactly its own
point fail.

A point is a check over the whole clients' side in one process; a breakage is one thing done as a careless server would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from marketdata import auth, consumers, routing
from marketdata.dialects import openalgo
from marketdata.dialects.openalgo import OpenAlgo
from marketdata.hub import Hub, Session, _entry
from marketdata.ticks import Key, Mode
from tests.brokers.instruments_of import load, rows
from tests.marketdata import openalgo as bench
from tests.marketdata.openalgo import Caller, Market, Message, impatient, until

SYMBOLS = [f"SIM{number:04d}" for number in range(1, 101)]


class Keys(NamedTuple):
    """API keys: two of the accounts for all, and one of each of two desks."""

    first: str
    second: str
    north: str
    south: str


@pytest.fixture
def keys(transactional_db: None) -> Keys:
    """A hundred and some instruments at two brokers."""
    names = [f"{symbol}@NSE" for symbol in ["SBIN", "INFY", "RELIANCE", *SYMBOLS]]
    load("zerodha", rows(names))
    load("upstox", rows(["SBIN@NSE"]))
    feeds = {"first": "", "second": "", "north": "north", "south": "south"}
    return Keys(*(auth.issue(name, feed=feed)[1] for name, feed in feeds.items()))


async def settled() -> None:
    """What authenticating leaves behind in the database is written."""
    await asyncio.gather(*auth._touching)


# --------------------------------------------------------------------------------------------------------------- points

Point = Callable[[Market, Keys], Awaitable[None]]


async def point_01_three_modes_of_one_symbol_tick_and_none_is_starved(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        assert (await client.authenticate(keys.first))["status"] == "success"
        for mode in (1, 2, 3):
            await client.subscribe("SBIN", mode, depth=5)
        for mode in (Mode.LTP, Mode.QUOTE, Mode.DEPTH):
            await market.tick("SBIN", mode)
        await until(lambda: {tick["mode"] for tick in client.ticks("SBIN")} == {1, 2, 3}, "a tick in every mode")
        assert len(client.ticks()) == 3


async def point_02_a_wrong_key_is_an_error_on_an_open_socket_and_silence_is_4401(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        error = await client.authenticate("nobody has this key at all")
        assert (error["status"], error["code"]) == ("error", "AUTHENTICATION_ERROR")
        assert (await client.authenticate(keys.first))["status"] == "success"
        assert client.socket.is_open
    with pytest.MonkeyPatch.context() as patch:
        impatient(patch)
        async with Caller() as silent:
            await until(lambda: silent.socket.closed, "the close")
            assert silent.socket.closed == 4401


async def point_03_apikey_type_auth_and_a_hundred_pipelined_subscribes_are_served(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        client.say({"type": "auth", "apikey": keys.first})
        client.say(*({"action": "subscribe", "symbol": name, "exchange": "NSE", "mode": 2} for name in SYMBOLS))
        acks: list[Message] = []

        def every_answer() -> bool:
            answers = [message for message in client.messages if message.get("type") in ("subscribe", None)]
            acks[:] = [message for message in answers if message.get("type") == "subscribe"]
            return len(answers) >= len(SYMBOLS)

        await until(every_answer, "every answer")
        assert [ack["subscriptions"][0]["symbol"] for ack in acks] == SYMBOLS
        for name in SYMBOLS:
            await market.tick(name, Mode.QUOTE)
        await until(lambda: len(client.ticks(mode=2)) == len(SYMBOLS), "a tick of each")


async def point_04_a_mode_is_a_number_or_a_word_in_any_case_and_nothing_else(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        await client.authenticate(keys.first)
        for mode in (1, "LTP", "ltp", " Ltp "):
            assert (await client.subscribe("INFY", mode))["status"] == "success"
        [session] = market.hub.sessions
        assert list(session.held) == [Key("INFY", "NSE", Mode.LTP)]
        for mode in (True, "1", 9, 1.0):
            assert (await client.subscribe("INFY", mode)).get("code") == "INVALID_MODE"


async def point_05_an_ack_tells_label_and_granted_depth_and_one_bad_symbol_spoils_no_other(
    market: Market, keys: Keys
) -> None:
    async with Caller() as client:
        await client.authenticate(keys.first)
        symbols = [{"symbol": name, "exchange": "NSE"} for name in ("INFY", "NOSUCH", "RELIANCE")]
        ack = await client.ask({"action": "subscribe", "symbols": symbols, "mode": "DEPTH", "depth": 20}, "subscribe")
        assert ack["status"] == "partial"
        good = [item for item in ack["subscriptions"] if item["status"] == "success"]
        assert [(item["symbol"], item["mode"], item["depth"]) for item in good] == [
            ("INFY", "Depth", 5),
            ("RELIANCE", "Depth", 5),
        ]
        [bad] = [item for item in ack["subscriptions"] if item["status"] == "error"]
        assert (bad["symbol"], bad["code"]) == ("NOSUCH", "SYMBOL_NOT_FOUND")
        assert bad["message"]
        for name in ("INFY", "RELIANCE"):
            await market.tick(name, Mode.DEPTH)
            await until(lambda name=name: client.ticks(name, 3), f"a tick of {name}")


async def point_06_a_request_id_comes_back_as_it_was_and_only_if_it_was_sent(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        await client.authenticate(keys.first)
        for sent in ("r-1", 7, {"of": ["any", 1.50]}):
            assert (await client.subscribe("INFY", 1, request_id=sent))["request_id"] == sent
            undone = {"action": "unsubscribe", "symbol": "INFY", "exchange": "NSE", "mode": 1, "request_id": sent}
            assert (await client.ask(undone, "unsubscribe"))["request_id"] == sent
        assert "request_id" not in await client.subscribe("INFY", 1)


async def point_07_an_unsubscribe_without_a_mode_ends_all_modes_of_that_client_only(market: Market, keys: Keys) -> None:
    async with Caller() as leaver, Caller() as stayer:
        for client, key in ((leaver, keys.first), (stayer, keys.second)):
            await client.authenticate(key)
            for mode in (1, 2, 3):
                await client.subscribe("INFY", mode)
        await leaver.ask({"action": "unsubscribe", "symbols": [{"symbol": "INFY", "exchange": "NSE"}]}, "unsubscribe")
        sessions = list(market.hub.sessions)
        assert [len(session.held) for session in sessions] == [0, 3]
        await market.tick("INFY", Mode.DEPTH)
        await until(lambda: stayer.ticks("INFY"), "the other client's tick")
        assert not leaver.ticks()


async def point_08_unsubscribe_all_answers_unsubscribe_and_no_tick_follows(market: Market, keys: Keys) -> None:
    async with Caller() as leaver, Caller() as stayer:
        for client, key in ((leaver, keys.first), (stayer, keys.second)):
            await client.authenticate(key)
            await client.subscribe("INFY", 1)
        await market.tick("INFY", Mode.LTP)
        await until(lambda: leaver.ticks("INFY"), "a tick")
        ack = await leaver.ask({"action": "unsubscribe_all"}, "unsubscribe")
        assert (ack["type"], ack["status"]) == ("unsubscribe", "success")
        assert [(one["symbol"], one["exchange"]) for one in ack["successful"]] == [("INFY", "NSE")]
        had = len(leaver.ticks())
        await market.tick("INFY", Mode.LTP)
        await until(lambda: len(stayer.ticks("INFY")) == 2, "the other client's second tick")
        assert len(leaver.ticks()) == had


async def point_09_ping_needs_no_key_and_echoes_and_a_pong_is_let_pass(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        client.say({"type": "pong"}, {"action": "pong"})
        pong = await client.ask({"type": "ping", "timestamp": 1705294800123, "_pingId": {"n": 1}}, "pong")
        assert pong["status"] == "success"
        assert isinstance(pong.get("server_timestamp"), int)
        assert (pong["client_timestamp"], pong["_pingId"]) == (1705294800123, {"n": 1})
        bare = await client.ask({"action": "ping"}, "pong")
        assert not {"client_timestamp", "_pingId"} & bare.keys()
        assert not [message for message in client.messages if message.get("status") == "error"]


async def point_10_every_tick_has_what_a_strict_reader_needs_and_no_null(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        await client.authenticate(keys.first)
        for symbol, mode, held in (("INFY", 1, Mode.LTP), ("INFY", 2, Mode.QUOTE), ("RELIANCE", 3, Mode.DEPTH)):
            await client.subscribe(symbol, mode)
            await market.tick(symbol, held, close=None, volume=None)
            await until(lambda symbol=symbol, mode=mode: client.ticks(symbol, mode), "the tick")
        for tick in client.ticks():
            data = tick["data"]
            assert type(tick["mode"]) is int
            assert isinstance(data["ltp"], float)
            assert (data["symbol"], data["exchange"]) == (tick["symbol"], tick["exchange"])
            assert type(data["timestamp"]) is int
            assert data["timestamp"] > 1_600_000_000_000
            assert None not in data.values()


async def point_11_a_quote_has_both_spellings_of_quantity_and_average(market: Market, keys: Keys) -> None:
    async with Caller() as client:
        await client.authenticate(keys.first)
        await client.subscribe("INFY", 2)
        await market.tick("INFY", Mode.QUOTE, ltq=25, average_price=624.75)
        await until(lambda: client.ticks("INFY", 2), "the tick")
        data = client.ticks("INFY", 2)[0]["data"]
        assert data.get("last_trade_quantity") == data.get("last_quantity") == 25
        assert data.get("avg_trade_price") == data.get("average_price") == 624.75


async def point_12_nothing_comes_before_the_auth_ack_nor_arrays_nor_pings_nor_typed_errors(
    market: Market, keys: Keys
) -> None:
    async with Caller() as client:
        await client.authenticate(keys.first)
        assert client.messages[0]["type"] == "auth"
        await client.subscribe("INFY", 1)
        await client.subscribe("RELIANCE", 1)
        await market.tick("INFY", Mode.LTP)
        await market.tick("RELIANCE", Mode.LTP)
        await until(lambda: len(client.ticks()) == 2, "two ticks")
        for text in ("no json", {"action": "buy"}, {"action": "subscribe"}, {"action": "subscribe", "mode": 9}):
            error = await client.ask(text, None)
            assert "type" not in error
        assert all(isinstance(json.loads(text), dict) for text in client.socket.texts)
        assert all(message.get("type") in {"auth", "subscribe", "market_data", None} for message in client.messages)


async def point_13_a_handshake_without_origin_is_accepted_and_a_foreign_one_refused(market: Market, keys: Keys) -> None:
    async with Caller(origin=None) as plain:
        assert plain.denied is None
        assert (await plain.authenticate(keys.first))["status"] == "success"
    async with Caller(origin="https://evil.example") as foreign:
        assert foreign.denied == 403


async def point_14_who_stops_reading_delays_nobody_and_goes_without_a_close_frame(market: Market, keys: Keys) -> None:
    async with Caller() as stalled, Caller() as reader:
        for client, key in ((stalled, keys.first), (reader, keys.second)):
            await client.authenticate(key)
            await client.subscribe("INFY", 1)
        stalled.socket.stall()
        for count in range(1, 6):
            await market.tick("INFY", Mode.LTP)
            await until(lambda count=count: len(reader.ticks()) == count, "the reader's next tick")
        await until(lambda: not stalled.socket.is_open, "the stalled one to be cut off")
        assert stalled.socket.dropped
        assert reader.socket.is_open


async def point_15_two_users_of_one_symbol_get_their_own_brokers_feed_each(market: Market, keys: Keys) -> None:
    async with Caller() as north, Caller() as south:
        desks = ((north, keys.north, "north", "zerodha"), (south, keys.south, "south", "upstox"))
        for client, key, feed, broker in desks:
            ack, _ = await asyncio.gather(client.authenticate(key), market.report(feed, broker))
            assert ack["broker"] == broker
            assert (await client.subscribe("SBIN", 1))["subscriptions"][0]["broker"] == broker
        for client, _, feed, broker in desks:
            await market.tick("SBIN", Mode.LTP, feed=feed, broker=broker)
            await until(client.ticks, "a tick of the own feed")
        assert [[tick["broker"] for tick in client.ticks()] for client in (north, south)] == [["zerodha"], ["upstox"]]


async def point_16_a_restart_ends_without_a_close_frame_and_a_replay_ticks_again(market: Market, keys: Keys) -> None:
    async with Caller() as before:
        await before.authenticate(keys.first)
        await before.subscribe("INFY", 1)
        await market.restart()
        assert before.socket.dropped
        assert before.socket.closed is None
    async with Caller() as after:
        await after.authenticate(keys.first)
        replay = {"action": "subscribe", "symbols": [{"symbol": "INFY", "exchange": "NSE"}], "mode": 1, "depth": 5}
        assert (await after.ask(replay, "subscribe"))["status"] == "success"
        await market.tick("INFY", Mode.LTP)
        await until(lambda: after.ticks("INFY", 1), "a tick after the restart")


POINTS: dict[str, Point] = {
    name.removeprefix("point_"): value for name, value in list(globals().items()) if name.startswith("point_")
}


@pytest.mark.parametrize("point", POINTS)
async def test_point(point: str, keys: Keys) -> None:
    async with Market() as market:
        await POINTS[point](market, keys)
    await settled()


# ------------------------------------------------------------------------------------------------- what breaks them

Breakage = Callable[[pytest.MonkeyPatch], None]


def break_01_only_the_highest_mode_of_a_symbol_is_sent(patch: pytest.MonkeyPatch) -> None:
    def fan_out(self: Hub, stream: Any, delivery: Any) -> None:
        for (dialect, key), sinks in stream.audiences.items():
            entry = _entry(key, dialect, delivery)
            for session, sink in sinks.items():
                if not any(held.symbol == key.symbol and held.mode > key.mode for held in session.held):
                    sink(entry)

    patch.setattr(Hub, "_fan_out", fan_out)


def break_02_a_wrong_key_closes_the_socket(patch: pytest.MonkeyPatch) -> None:
    tell = consumers.StreamConsumer._error

    def and_close(self: Any, error: Any, *more: Any) -> None:
        tell(self, error, *more)
        if error.name == "wrong_key":
            self._end(consumers.CLOSE_AUTH_TIMEOUT)

    patch.setattr(consumers.StreamConsumer, "_error", and_close)


def break_03_commands_overtake_each_other(patch: pytest.MonkeyPatch) -> None:
    receive = consumers.StreamConsumer._receive
    tasks: set[asyncio.Task[None]] = set()

    async def at_once(self: Any, message: Any) -> None:
        task = asyncio.ensure_future(receive(self, message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    patch.setattr(consumers.StreamConsumer, "_receive", at_once)


def break_04_a_mode_may_be_a_digit_in_quotes(patch: pytest.MonkeyPatch) -> None:
    number = openalgo._number
    lenient = lambda mode, request_id: number(int(mode) if mode == "1" else mode, request_id)  # noqa: E731
    patch.setattr(openalgo, "_number", lenient)


def break_05_an_ack_tells_the_depth_that_was_asked_for(patch: pytest.MonkeyPatch) -> None:
    granted = openalgo._granted
    patch.setattr(openalgo, "_granted", lambda key, broker: granted(key, broker) | {"depth": 20})


def break_06_a_request_id_comes_back_as_a_text(patch: pytest.MonkeyPatch) -> None:
    message = openalgo._message
    as_text = lambda kind, request_id, **fields: message(kind, _as_text(request_id), **fields)  # noqa: E731
    patch.setattr(openalgo, "_message", as_text)


def break_07_an_unsubscribe_without_a_mode_ends_quote_only(patch: pytest.MonkeyPatch) -> None:
    modes_of = openalgo._modes_of
    patch.setattr(openalgo, "_modes_of", lambda number: modes_of(number or 2))


def break_08_unsubscribe_all_answers_in_its_own_name(patch: pytest.MonkeyPatch) -> None:
    unsubscribed = OpenAlgo.unsubscribed

    def renamed(self: OpenAlgo, command: Any, count: int, **more: Any) -> bytes:
        answer = unsubscribed(self, command, count, **more)
        return answer.replace(b'"unsubscribe"', b'"unsubscribe_all"') if command.items is None else answer

    patch.setattr(OpenAlgo, "unsubscribed", renamed)


def break_08_ticks_go_on_after_unsubscribe_all(patch: pytest.MonkeyPatch) -> None:
    unsubscribe = consumers.StreamConsumer._unsubscribe

    async def only_answer(self: Any, session: Session, command: Any) -> None:
        if command.items is not None:
            await unsubscribe(self, session, command)
        else:
            session.tell(self._dialect.unsubscribed(command, len(session.held), ended=list(session.held)))

    patch.setattr(consumers.StreamConsumer, "_unsubscribe", only_answer)


def break_09_a_pong_is_an_invalid_action(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(openalgo._PARSERS, "pong")


def break_10_what_is_not_known_is_null(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, lambda data: {"close": None, **data})


def break_10_a_price_is_a_text(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, lambda data: {**data, "ltp": str(data["ltp"])})


def break_11_a_quantity_has_one_name(patch: pytest.MonkeyPatch) -> None:
    rewrite(patch, lambda data: {name: value for name, value in data.items() if name != "last_quantity"})


def break_12_the_server_greets(patch: pytest.MonkeyPatch) -> None:
    connect = consumers.StreamConsumer._connect

    async def and_greet(self: Any) -> None:
        await connect(self)
        self._session.tell(b'{"type":"welcome"}')

    patch.setattr(consumers.StreamConsumer, "_connect", and_greet)


def break_12_ticks_come_in_arrays(patch: pytest.MonkeyPatch) -> None:
    admit = Hub.admit
    batching = lambda self, session, grant, **_: admit(self, session, grant, batch=True, status=False)  # noqa: E731
    patch.setattr(Hub, "admit", batching)


def break_12_an_error_has_a_type(patch: pytest.MonkeyPatch) -> None:
    error = OpenAlgo.error
    typed = lambda self, *args: json.dumps({"type": "error", **json.loads(error(self, *args))}).encode()  # noqa: E731
    patch.setattr(OpenAlgo, "error", typed)


def break_13_a_handshake_needs_an_origin(patch: pytest.MonkeyPatch) -> None:
    header = routing._header
    patch.setattr(routing, "_header", lambda scope, name: header(scope, name) or "")


def break_13_any_page_may_connect(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(routing, "is_allowed", lambda origin, host: True)


def break_14_a_slow_client_gets_a_close_frame(patch: pytest.MonkeyPatch) -> None:
    def evict(self: Hub) -> None:
        for session in [session for session in self.sessions if session.paused_at_s is not None]:
            session.peer.close(consumers.CLOSE_FLOOD)
            self.close(session)

    patch.setattr(Hub, "_evict_the_slow", evict)


def break_15_feeds_are_mixed_up(patch: pytest.MonkeyPatch) -> None:
    resolve = consumers.resolve
    patch.setattr(consumers, "resolve", lambda items, feed: resolve(items, "north" if feed else ""))


def break_16_a_restart_is_a_close_frame(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OpenAlgo, "closes_for_restart", True)


BREAKAGES: dict[str, Breakage] = {
    name.removeprefix("break_"): value for name, value in list(globals().items()) if name.startswith("break_")
}


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_breakage_fails_exactly_its_own_point(breakage: str, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PATIENCE_S", 2.0)
    with pytest.MonkeyPatch.context() as patch:
        BREAKAGES[breakage](patch)
        failed = [point[:2] for point, check in POINTS.items() if not await holds(check, keys)]
        await settled()
    assert failed == [breakage[:2]]


def test_every_point_has_a_breakage() -> None:
    assert len(POINTS) == 16
    assert {name[:2] for name in BREAKAGES} == {name[:2] for name in POINTS}


def rewrite(patch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Has the `data` of every tick changed."""
    tick = OpenAlgo.tick

    def changed(self: OpenAlgo, delivery: Any) -> bytes:
        message = json.loads(tick(self, delivery))
        return json.dumps(message | {"data": change(message["data"])}).encode()

    patch.setattr(OpenAlgo, "tick", changed)


def _as_text(request_id: Any) -> Any:
    return request_id if request_id is msgspec.UNSET else bytes(request_id).decode().strip('"')


async def holds(check: Point, keys: Keys) -> bool:
    """Whether a point holds in a market of its own."""
    async with Market() as market:
        try:
            await check(market, keys)
        except AssertionError:
            return False
    return True
