"""OpenAlgo's protocol, message by message: what is read from its clients' shapes, and what they are told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata import errors
from marketdata.dialects import OPENALGO
from marketdata.dialects.base import (
    About,
    Authenticate,
    BadCommandError,
    Item,
    Ping,
    Question,
    Rejected,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from marketdata.dialects.openalgo import BOOKS, code_of
from marketdata.ticks import AccountStatus, Depth, FeedState, Key, KeyStatus, Level, Mode, Tick
from marketdata.wire import Delivery

SBIN = {"symbol": "SBIN", "exchange": "NSE"}
HALF_PAST_TEN_MS = 1705294800000
ONE = About("charts", ("zerodha",), FeedState.CONNECTED)
BOOK = Depth((Level(625.45, 1000, 5), Level(625.4, 700, 2)), (Level(625.5, 800, 3),))


def parse(**message: Any) -> Any:
    """The command in this message."""
    return OPENALGO.parse(json.dumps(message))


def refused(text: str) -> str:
    """The code with which a message that is no command is refused."""
    with pytest.raises(BadCommandError) as caught:
        OPENALGO.parse(text)
    return code_of(caught.value.error)


def sent(mode: Mode, **fields: Any) -> dict[str, Any]:
    """A tick of SBIN as a client reads it."""
    stamps = {"exchange_ms": HALF_PAST_TEN_MS, "received_ms": HALF_PAST_TEN_MS + 250, "seq": 7}
    tick = Tick(symbol="SBIN", exchange="NSE", mode=mode, broker="zerodha", ltp=625.5, **(stamps | fields))
    message: dict[str, Any] = json.loads(OPENALGO.tick(Delivery(tick, 3, True, False, 1)))
    return message


def told(answer: bytes | None) -> dict[str, Any]:
    """An answer as a client reads it."""
    assert answer is not None
    message: dict[str, Any] = json.loads(answer)
    return message


# ------------------------------------------------------------------------------------------------------------- requests


def test_the_key_has_two_names_and_the_verb_two_and_api_key_wins() -> None:
    for verb in ({"action": "authenticate"}, {"action": "auth"}, {"type": "authenticate"}, {"type": "auth"}):
        assert parse(**verb, api_key="k") == parse(**verb, apikey="k") == Authenticate("k")
    assert parse(action="auth", api_key="k", apikey="other").api_key == "k"
    assert parse(action="authenticate", type="subscribe", apikey="k") == Authenticate("k")


@pytest.mark.parametrize("key", [None, "", 5, ["k"], {}])
def test_a_key_that_is_none_is_an_authentication_error(key: Any) -> None:
    assert refused(json.dumps({"action": "authenticate", "api_key": key})) == "AUTHENTICATION_ERROR"


def test_an_array_with_one_mode_and_a_single_symbol_are_read_alike() -> None:
    expected = (Item("SBIN", "NSE", Mode.LTP),)
    for mode in (1, "LTP", "ltp", " Ltp "):
        assert parse(action="subscribe", symbols=[SBIN], mode=mode).items == expected
        assert parse(action="subscribe", **SBIN, mode=mode).items == expected
        assert parse(action="subscribe", symbols=[], **SBIN, mode=mode).items == expected


def test_without_a_mode_it_is_quote_and_an_items_own_mode_does_not_count() -> None:
    assert parse(action="subscribe", symbols=[{**SBIN, "mode": 3}]).items == (Item("SBIN", "NSE", Mode.QUOTE),)
    assert parse(action="subscribe", **SBIN, mode=None).items == (Item("SBIN", "NSE", Mode.QUOTE),)


def test_an_array_wins_over_the_single_symbol() -> None:
    assert [item.symbol for item in parse(action="subscribe", symbols=[SBIN], symbol="TCS", exchange="NSE").items] == [
        "SBIN"
    ]


def test_items_without_a_name_are_passed_over_and_a_bare_number_is_a_name() -> None:
    items = [{"symbol": "SBIN"}, {"exchange": "NSE"}, {}, {"symbol": None, "exchange": "NSE"}, SBIN]
    assert len(parse(action="subscribe", symbols=items).items) == 1
    assert parse(action="subscribe", symbols=[{}]).items == ()
    assert parse(action="subscribe", symbol=500325, exchange="BSE").items[0].symbol == "500325"


def test_names_are_taken_as_they_are_written() -> None:
    """A tick under another spelling than the request's is lost at the client, so none is corrected here."""
    assert parse(action="subscribe", symbol="sbin ", exchange="nse").items[0][:2] == ("sbin ", "nse")


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, Mode.DEPTH),
        ({"depth": 5}, Mode.DEPTH),
        ({"depth": 20}, Mode.DEPTH20),
        ({"depth_level": 30}, Mode.DEPTH30),
        ({"depth": 50, "depth_level": 5}, Mode.DEPTH50),
        ({"depth": 25}, Mode.DEPTH20),
        ({"depth": 1000}, Mode.DEPTH200),
        ({"depth": 0}, Mode.DEPTH),
        ({"depth": "20"}, Mode.DEPTH),
        ({"depth": True}, Mode.DEPTH),
        ({"depth": None}, Mode.DEPTH),
    ],
)
def test_depth_and_its_alias_choose_the_book(fields: dict[str, Any], mode: Mode) -> None:
    assert parse(action="subscribe", **SBIN, mode=3, **fields).items[0].mode is mode


def test_a_depth_beside_another_mode_means_nothing() -> None:
    assert parse(action="subscribe", **SBIN, mode=1, depth=5).items[0].mode is Mode.LTP


def test_a_suffix_asks_for_a_deeper_book_and_is_the_name_of_its_ticks() -> None:
    [item] = parse(action="subscribe", symbol="SBIN:50", exchange="NSE", mode=3, depth=50).items
    assert item == Item("SBIN", "NSE", Mode.DEPTH50, "SBIN:50")
    assert parse(action="subscribe", symbol="SBIN:20", exchange="NSE", mode="Depth").items[0].mode is Mode.DEPTH20
    assert parse(action="subscribe", symbol="SBIN:20", exchange="NSE", mode=2).items[0].mode is Mode.QUOTE
    assert parse(action="subscribe", symbol="SBIN:7", exchange="NSE", mode=3).items[0] == Item(
        "SBIN:7", "NSE", Mode.DEPTH
    )
    assert OPENALGO.served(Key("SBIN:50", "NSE", Mode.DEPTH50)) == Key("SBIN", "NSE", Mode.DEPTH50)
    assert OPENALGO.served(Key(":50", "NSE", Mode.DEPTH)).symbol == ":50"


def test_an_unsubscribe_takes_the_items_mode_else_the_requests_else_every_mode() -> None:
    both = parse(action="unsubscribe", symbols=[{**SBIN, "mode": 1}, {"symbol": "TCS", "exchange": "NSE"}], mode=2)
    assert both.items == (Item("SBIN", "NSE", Mode.LTP), Item("TCS", "NSE", Mode.QUOTE))
    assert parse(action="unsubscribe", symbols=[SBIN]).items == (Item("SBIN", "NSE", None),)
    assert parse(action="unsubscribe", **SBIN).items == (Item("SBIN", "NSE", None),)
    assert parse(action="unsubscribe", **SBIN, mode="quote").items == (Item("SBIN", "NSE", Mode.QUOTE),)
    assert parse(action="unsubscribe_all", request_id=1).items is None


def test_an_unsubscribe_of_depth_ends_it_whatever_its_levels() -> None:
    assert [item.mode for item in parse(action="unsubscribe", **SBIN, mode=3).items] == list(BOOKS)


def test_an_item_with_a_bad_mode_fails_alone_on_unsubscribe() -> None:
    command = parse(action="unsubscribe", symbols=[SBIN, {**SBIN, "mode": "TAPE"}])
    assert len(command.items) == 1
    assert code_of(command.rejected[0].error) == "INVALID_MODE"


def test_a_ping_keeps_what_it_carries() -> None:
    command = parse(action="ping", timestamp="then", _pingId=None, request_id=4)
    assert isinstance(command, Ping)
    assert told(OPENALGO.pong(command, 17)) == {
        "type": "pong",
        "status": "success",
        "server_timestamp": 17,
        "client_timestamp": "then",
        "_pingId": None,
        "request_id": 4,
    }


def test_numbers_too_big_for_a_machine_come_back_as_they_were_written() -> None:
    text = '{"action": "ping", "request_id": 123456789012345678901234567890, "timestamp": 1e400}'
    answer = OPENALGO.pong(OPENALGO.parse(text), 17)  # type: ignore[arg-type]
    assert b'"request_id":123456789012345678901234567890' in answer
    assert b'"client_timestamp":1e400' in answer


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "INVALID_JSON"),
        ("{", "INVALID_JSON"),
        ("\ud800", "INVALID_JSON"),
        ('{"action": "ping", "request_id": NaN}', "INVALID_JSON"),
        ("[]", "SERVER_ERROR"),
        ('"subscribe"', "SERVER_ERROR"),
        ("null", "SERVER_ERROR"),
        ('{"a":' * 100_000, "SERVER_ERROR"),
        ("{}", "INVALID_ACTION"),
        ('{"action": 7}', "INVALID_ACTION"),
        ('{"action": ["subscribe"]}', "INVALID_ACTION"),
        ('{"action": "buy"}', "INVALID_ACTION"),
        ('{"action": "Subscribe"}', "INVALID_ACTION"),
        ('{"action": "subscribe"}', "INVALID_PARAMETERS"),
        ('{"action": "subscribe", "symbol": "SBIN"}', "INVALID_PARAMETERS"),
        ('{"action": "subscribe", "instruments": [{"symbol": "SBIN", "exchange": "NSE"}]}', "INVALID_PARAMETERS"),
        ('{"action": "subscribe", "symbols": "NSE:SBIN"}', "INVALID_PARAMETERS"),
        ('{"action": "subscribe", "symbols": ["NSE:SBIN"]}', "INVALID_PARAMETERS"),
        ('{"action": "subscribe", "symbols": {"symbol": "SBIN", "exchange": "NSE"}}', "INVALID_PARAMETERS"),
        ('{"action": "unsubscribe"}', "INVALID_PARAMETERS"),
        ('{"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": true}', "INVALID_MODE"),
        ('{"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": "1"}', "INVALID_MODE"),
        ('{"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": 9}', "INVALID_MODE"),
        ('{"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": 2.0}', "INVALID_MODE"),
        ('{"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": {}}', "INVALID_MODE"),
        ('{"action": "unsubscribe", "symbol": "SBIN", "exchange": "NSE", "mode": "TAPE"}', "INVALID_MODE"),
    ],
)
def test_a_bad_message_gets_the_code_its_senders_know(text: str, code: str) -> None:
    assert refused(text) == code


@given(st.text(max_size=60) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_whatever_the_text_only_the_documented_refusal_is_raised(text: str) -> None:
    with pytest.raises(BadCommandError):
        OPENALGO.parse(text)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["symbol", "exchange", "mode"]), inner),
    max_leaves=6,
)
fields = st.sampled_from(["api_key", "symbols", "symbol", "exchange", "mode", "depth", "depth_level", "request_id"])
verbs = st.sampled_from(["authenticate", "subscribe", "unsubscribe", "ping", "subscribe_orders", "get_broker_info"])


@given(verbs, st.dictionaries(fields, anything))
def test_whatever_the_fields_it_is_a_command_or_the_documented_refusal(verb: str, message: dict[str, Any]) -> None:
    try:
        OPENALGO.parse(json.dumps({"action": verb, **message}))
    except BadCommandError as bad:
        assert "type" not in told(OPENALGO.error(bad.error, bad.request_id))


# ---------------------------------------------------------------------------------------------------------------- ticks


def test_an_ltp_tick_is_small() -> None:
    assert sent(Mode.LTP, ltq=20, last_trade_ms=HALF_PAST_TEN_MS - 5) == {
        "type": "market_data",
        "symbol": "SBIN",
        "exchange": "NSE",
        "mode": 1,
        "broker": "zerodha",
        "data": {
            "symbol": "SBIN",
            "exchange": "NSE",
            "ltp": 625.5,
            "ltq": 20,
            "ltt": HALF_PAST_TEN_MS - 5,
            "timestamp": HALF_PAST_TEN_MS + 250,
        },
    }


def test_a_quote_has_everything_under_every_name_that_is_read() -> None:
    prices = {
        "open": 620.0,
        "high": 628.0,
        "low": 618.5,
        "close": 622.0,
        "upper_circuit": 684.2,
        "lower_circuit": 559.8,
    }
    counts = {"volume": 1500000, "oi": 0, "total_buy_quantity": 9, "total_sell_quantity": 8}
    message = sent(Mode.QUOTE, ltq=25, average_price=624.75, **prices, **counts)
    data = message["data"]
    assert message["mode"] == 2
    assert (prices | counts).items() <= data.items()
    assert data["last_trade_quantity"] == data["last_quantity"] == 25
    assert data["avg_trade_price"] == data["average_price"] == 624.75
    assert (data["change"], data["change_percent"]) == (3.5, 0.56)


def test_change_needs_a_close_and_what_is_not_known_is_left_out() -> None:
    assert sent(Mode.QUOTE)["data"].keys() == {"symbol", "exchange", "ltp", "timestamp"}
    assert "change" not in sent(Mode.QUOTE, close=0.0)["data"]
    assert sent(Mode.QUOTE, volume=0)["data"]["volume"] == 0


@pytest.mark.parametrize("mode", BOOKS)
def test_a_book_of_any_depth_is_mode_3_and_shows_its_best_prices(mode: Mode) -> None:
    message = sent(mode, depth=BOOK)
    data = message["data"]
    assert (message["mode"], data["depth_level"]) == (3, mode.depth_levels)
    assert data["depth"]["buy"][0] == {"price": 625.45, "quantity": 1000, "orders": 5}
    assert (data["bid_price"], data["bid_size"], data["ask_price"], data["ask_size"]) == (625.45, 1000, 625.5, 800)


def test_a_depth_tick_without_a_book_has_no_empty_one() -> None:
    assert not {"depth", "depth_level", "bid_price"} & sent(Mode.DEPTH)["data"].keys()
    assert "ask_price" not in sent(Mode.DEPTH, depth=Depth(BOOK.buy, ()))["data"]


def test_a_simulated_tick_says_so_beside_its_data() -> None:
    message = sent(Mode.LTP, simulated=True)
    assert message["simulated"] is True
    assert "simulated" not in message["data"]
    assert "simulated" not in sent(Mode.LTP)


def test_a_text_search_finds_the_fields_where_the_amibroker_plugin_looks() -> None:
    tick = Tick(symbol="SBIN", exchange="NSE", mode=Mode.QUOTE, broker="b", ltp=625.5, ltq=9, received_ms=5, seq=1)
    text = OPENALGO.tick(Delivery(tick, 0, False, False, 1)).decode()
    assert "market_data" in text
    for field, value in (("symbol", '"SBIN"'), ("exchange", '"NSE"'), ("ltp", "625.5"), ("last_trade_quantity", "9")):
        assert text.split(f'"{field}":', 1)[1].startswith(value)
    assert len(text) < 16_000


# -------------------------------------------------------------------------------------------------------------- answers


def test_the_auth_ack_has_its_readers_fields_and_says_simulated() -> None:
    ack = told(OPENALGO.authenticated(Authenticate("k"), simulated=False, about=ONE))
    assert ack == {
        "type": "auth",
        "status": "success",
        "message": "Authenticated.",
        "broker": "zerodha",
        "user_id": "charts",
        "supported_features": {"ltp": True, "quote": True, "depth": True},
    }
    demo = told(OPENALGO.authenticated(Authenticate("k"), simulated=True, about=ONE))
    assert demo["simulated"] is True
    assert "SIMULATED" in demo["message"]


def test_a_subscribe_ack_lists_each_item_with_the_broker_that_serves_it() -> None:
    granted = (Key("SBIN", "NSE", Mode.DEPTH20), Key("TCS", "NSE", Mode.DEPTH))
    bad = Rejected("SBINN", "NSE", errors.UNKNOWN_SYMBOL)
    two = About("charts", ("angel", "zerodha"))
    outcome = Subscribed(Subscribe(()), granted, (bad,), 0, True, two, {granted[0]: "angel"})
    ack = told(OPENALGO.subscribed(outcome))
    assert (ack["type"], ack["status"], ack["broker"], ack["simulated"]) == (
        "subscribe",
        "partial",
        "angel,zerodha",
        True,
    )
    assert "SIMULATED" in ack["message"]
    shared = {"exchange": "NSE", "status": "success", "mode": "Depth"}
    assert ack["subscriptions"] == [
        {"symbol": "SBIN", "depth": 20, "broker": "angel", **shared},
        {"symbol": "TCS", "depth": 5, "broker": "angel,zerodha", **shared},
        {
            "symbol": "SBINN",
            "exchange": "NSE",
            "status": "error",
            "code": "SYMBOL_NOT_FOUND",
            "message": errors.UNKNOWN_SYMBOL.message,
            "broker": "angel,zerodha",
        },
    ]
    fine = Subscribed(Subscribe(()), granted, (), 0, False)
    assert told(OPENALGO.subscribed(fine))["status"] == "success"
    assert told(OPENALGO.subscribed(Subscribed(Subscribe(()), (), (), 0, False)))["subscriptions"] == []


def test_an_unsubscribe_ack_counts_what_failed() -> None:
    item, bad = Item("SBIN", "NSE", None), Rejected("TCS", "NSE", errors.BAD_MODE)
    good = told(OPENALGO.unsubscribed(Unsubscribe((item, item)), 0, about=ONE))
    assert (good["type"], good["status"], good["failed"]) == ("unsubscribe", "success", [])
    assert good["successful"] == [{"symbol": "SBIN", "exchange": "NSE", "status": "success", "broker": "zerodha"}]
    assert told(OPENALGO.unsubscribed(Unsubscribe((item,), rejected=(bad,)), 1))["status"] == "partial"
    worst = told(OPENALGO.unsubscribed(Unsubscribe((), rejected=(bad,)), 0))
    assert (worst["status"], worst["failed"][0]["symbol"]) == ("error", "TCS")
    ended = [Key("SBIN", "NSE", Mode.LTP), Key("SBIN", "NSE", Mode.DEPTH)]
    everything = told(OPENALGO.unsubscribed(Unsubscribe(None), 2, ended=ended))
    assert len(everything["successful"]) == 1


def answered(about: About, **message: Any) -> dict[str, Any]:
    """The answer to a question that the dialect answers by itself."""
    command = parse(**message)
    assert isinstance(command, Question)
    return told(command.answer(about))


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (FeedState.CONNECTED, "connected"),
        (FeedState.MARKET_CLOSED, "connected"),
        (FeedState.WAITING_FOR_LOGIN, "waiting_for_login"),
        (None, "disconnected"),
    ],
)
def test_broker_info_tells_how_the_accounts_do(state: FeedState | None, word: str) -> None:
    info = answered(ONE._replace(state=state), action="get_broker_info", request_id="r")
    assert info == {
        "type": "broker_info",
        "status": "success",
        "broker": "zerodha",
        "adapter_status": word,
        "user_id": "charts",
        "request_id": "r",
    }


def test_supported_brokers_are_those_with_accounts_and_need_no_key() -> None:
    assert parse(action="get_supported_brokers").is_open
    assert not parse(action="get_broker_info").is_open
    answer = answered(About(brokers=("angel", "zerodha")), action="get_supported_brokers")
    assert (answer["type"], answer["brokers"], answer["count"]) == ("supported_brokers", ["angel", "zerodha"], 2)


def test_order_updates_are_acknowledged_and_said_not_to_come() -> None:
    for verb in ("subscribe_orders", "unsubscribe_orders"):
        ack = answered(ONE, action=verb, request_id="excel-orders")
        assert (ack["type"], ack["status"], ack["provided"], ack["request_id"]) == (
            verb,
            "success",
            False,
            "excel-orders",
        )
        assert "not provided" in ack["message"]
        assert not parse(action=verb).is_open


def test_an_error_is_told_by_having_no_type() -> None:
    error = told(OPENALGO.error(errors.WRONG_KEY, msgspec.UNSET))
    assert error == {"status": "error", "code": "AUTHENTICATION_ERROR", "message": errors.WRONG_KEY.message}
    assert told(OPENALGO.error(errors.INTERNAL, "r"))["request_id"] == "r"


def test_every_error_of_a_connection_has_a_code_that_clients_know() -> None:
    known = {
        "AUTHENTICATION_ERROR", "NOT_AUTHENTICATED", "INVALID_PARAMETERS", "INVALID_MODE", "INVALID_ACTION",
        "INVALID_JSON", "SERVER_ERROR", "PROCESSING_ERROR", "SYMBOL_NOT_FOUND", "MAX_CAPACITY_REACHED",
        "UNSUPPORTED_DEPTH",
    }  # fmt: skip
    assert {code_of(error) for error in errors.ERRORS} == known
    assert code_of(errors.NOT_AUTHENTICATED) == "NOT_AUTHENTICATED"
    assert code_of(errors.TOO_MANY_SYMBOLS) == "MAX_CAPACITY_REACHED"


def test_what_these_clients_do_not_know_is_not_said() -> None:
    account = AccountStatus(broker="b", account="a", state=FeedState.CONNECTED, message="", since_ms=1)
    unwell = KeyStatus(symbol="SBIN", exchange="NSE", state=FeedState.NO_DATA, message="", since_ms=1)
    assert OPENALGO.lagging(3, 1) is None
    assert OPENALGO.account_status(account) is None
    assert OPENALGO.key_status(unwell) is None
    assert OPENALGO.interrupted(3, "", 1) is None
