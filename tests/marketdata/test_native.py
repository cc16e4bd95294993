"""The native protocol's messages, field by field, and what it says to bad ones."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata import errors
from marketdata.dialects import NATIVE
from marketdata.dialects.base import (
    Authenticate,
    BadCommandError,
    GetSubscriptions,
    Held,
    Item,
    Ping,
    Rejected,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from marketdata.ticks import AccountStatus, Depth, FeedState, Key, KeyStatus, Level, Mode, Tick, TokenState
from marketdata.wire import Delivery

SBIN = {"symbol": "SBIN", "exchange": "NSE"}
HALF_PAST_TEN_MS = 1705294800000


def parse(**message: Any) -> Any:
    """The command in this message."""
    return NATIVE.parse(json.dumps(message))


def refused(text: str) -> BadCommandError:
    """How a message that is no command is refused."""
    with pytest.raises(BadCommandError) as caught:
        NATIVE.parse(text)
    return caught.value


def tick(mode: Mode, **fields: Any) -> Tick:
    """A tick of SBIN."""
    stamps = {"exchange_ms": HALF_PAST_TEN_MS, "received_ms": HALF_PAST_TEN_MS + 250, "seq": 7}
    return Tick(symbol="SBIN", exchange="NSE", mode=mode, broker="zerodha", ltp=625.5, **(stamps | fields))


def sent(tick: Tick, **flags: Any) -> dict[str, Any]:
    """The tick as a client reads it."""
    delivery = Delivery(tick, flags.get("conflated", 0), flags.get("snapshot", False), flags.get("stale", False), 1)
    message: dict[str, Any] = json.loads(NATIVE.tick(delivery))
    return message


def test_authenticate_is_read_as_the_prd_writes_it() -> None:
    assert parse(action="authenticate", api_key="k") == Authenticate("k")
    assert parse(action="authenticate", api_key="k", batch=True, status=True) == Authenticate("k", True, True)


def test_subscribe_takes_one_mode_for_all_in_any_case_and_defaults_to_ltp() -> None:
    for mode in ("LTP", "ltp", " Ltp "):
        assert parse(action="subscribe", symbols=[SBIN], mode=mode).items == (Item("SBIN", "NSE", Mode.LTP),)
    assert parse(action="subscribe", symbols=[SBIN]).items == (Item("SBIN", "NSE", Mode.LTP),)


def test_an_items_own_mode_wins() -> None:
    command = parse(action="subscribe", symbols=[SBIN, {**SBIN, "mode": "depth"}], mode="QUOTE")
    assert [item.mode for item in command.items] == [Mode.QUOTE, Mode.DEPTH]


def test_depth_levels_choose_the_book() -> None:
    assert parse(action="subscribe", symbols=[SBIN], mode="DEPTH", depth_levels=20).items[0].mode is Mode.DEPTH20
    own = parse(action="subscribe", symbols=[{**SBIN, "mode": "DEPTH", "depth_levels": 50}])
    assert own.items[0].mode is Mode.DEPTH50
    assert own.depth_asked


def test_an_item_with_a_bad_mode_is_refused_alone() -> None:
    command = parse(action="subscribe", symbols=[SBIN, {**SBIN, "mode": "TAPE"}])
    assert len(command.items) == 1
    assert command.rejected[0].error.code == errors.BAD_MODE.code


def test_a_throttle_below_the_minimum_becomes_the_minimum() -> None:
    assert parse(action="subscribe", symbols=[SBIN], throttle_ms=10).throttle_ms == 50
    assert parse(action="subscribe", symbols=[SBIN], throttle_ms=0).throttle_ms == 0
    assert parse(action="subscribe", symbols=[SBIN]).throttle_ms is None


def test_the_other_verbs_are_read() -> None:
    assert parse(action="set_subscriptions", symbols=[SBIN]).replace
    assert parse(action="unsubscribe", symbols=[SBIN]) == Unsubscribe((Item("SBIN", "NSE", None),))
    assert parse(action="unsubscribe", symbols=[SBIN], mode="quote").items[0].mode is Mode.QUOTE
    assert parse(action="unsubscribe_all") == Unsubscribe(None)
    assert parse(action="get_subscriptions", request_id=3) == GetSubscriptions(3)
    assert parse(action="ping", request_id={"a": [1]}) == Ping({"a": [1]})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", errors.BAD_JSON),
        ("{", errors.BAD_JSON),
        ("[]", errors.BAD_MESSAGE),
        ('"subscribe"', errors.BAD_MESSAGE),
        ("{}", errors.BAD_MESSAGE),
        ('{"action": 7}', errors.BAD_MESSAGE),
        ('{"action": "buy"}', errors.UNKNOWN_ACTION),
        ('{"action": "authenticate"}', errors.BAD_MESSAGE),
        ('{"action": "authenticate", "api_key": 1}', errors.BAD_MESSAGE),
        ('{"action": "subscribe"}', errors.BAD_MESSAGE),
        ('{"action": "subscribe", "symbols": "SBIN"}', errors.BAD_MESSAGE),
        ('{"action": "subscribe", "symbols": [{"symbol": "SBIN"}]}', errors.BAD_MESSAGE),
        ('{"action": "subscribe", "symbols": [], "mode": "TAPE"}', errors.BAD_MODE),
        ('{"action": "subscribe", "symbols": [], "depth_levels": 7, "mode": "DEPTH"}', errors.BAD_MODE),
        ('{"action": "subscribe", "symbols": [], "depth_levels": 20}', errors.BAD_MODE),
        ('{"action": "subscribe", "symbols": [], "throttle_ms": -1}', errors.BAD_MESSAGE),
        ("[" * 100_000, errors.BAD_JSON),
        ('{"action": "ping", "request_id": NaN}', errors.BAD_JSON),
        ("\ud800", errors.BAD_JSON),
    ],
)
def test_a_bad_message_gets_its_numbered_error(text: str, error: errors.ClientError) -> None:
    assert refused(text).error.code in (error.code, errors.BAD_MESSAGE.code if text.startswith("[[") else error.code)


def test_a_refused_message_keeps_its_request_id() -> None:
    assert refused('{"action": "buy", "request_id": "r1"}').request_id == "r1"
    assert refused('{"action": "subscribe", "request_id": 9}').request_id == 9


@given(st.text(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_whatever_the_text_only_the_documented_refusal_is_raised(text: str) -> None:
    with pytest.raises(BadCommandError):
        NATIVE.parse(text)


def test_an_ltp_tick_has_the_prds_fields() -> None:
    message = sent(tick(Mode.LTP))
    assert message == {
        "symbol": "SBIN",
        "exchange": "NSE",
        "mode": "LTP",
        "ltp": 625.5,
        "timestamp": "2024-01-15T10:30:00+05:30",
        "received_ms": HALF_PAST_TEN_MS + 250,
        "seq": 7,
        "broker": "zerodha",
    }


def test_a_quote_tick_has_the_prds_fields() -> None:
    quote = {"open": 620.0, "high": 628.0, "low": 618.5, "close": 622.0, "volume": 1500000}
    message = sent(tick(Mode.QUOTE, **quote))
    assert quote.items() <= message.items()


def test_a_volume_of_zero_is_shown() -> None:
    assert sent(tick(Mode.QUOTE, volume=0))["volume"] == 0


def test_a_depth_tick_has_the_prds_book() -> None:
    book = Depth((Level(625.45, 1000, 5),), (Level(625.5, 800, 3),))
    message = sent(tick(Mode.DEPTH, depth=book))
    assert message["depth"] == {
        "buy": [{"price": 625.45, "quantity": 1000, "orders": 5}],
        "sell": [{"price": 625.5, "quantity": 800, "orders": 3}],
    }


def test_without_an_exchange_time_the_receipt_is_the_timestamp() -> None:
    assert sent(tick(Mode.LTP, exchange_ms=None))["timestamp"] == "2024-01-15T10:30:00.250+05:30"


def test_what_a_tick_stands_for_is_told_only_when_there_is_something_to_tell() -> None:
    message = sent(tick(Mode.LTP, simulated=True), conflated=4, snapshot=True, stale=True)
    assert (message["conflated"], message["snapshot"], message["stale"], message["simulated"]) == (4, True, True, True)
    assert not {"conflated", "snapshot", "stale", "simulated"} & sent(tick(Mode.LTP)).keys()


def test_acks_are_the_prds_and_more_only_where_asked_for() -> None:
    key = Key("SBIN", "NSE", Mode.DEPTH)
    plain = Subscribed(Subscribe(()), (key,), (), 0, simulated=False)
    assert json.loads(NATIVE.subscribed(plain)) == {"status": "subscribed", "count": 1}
    command = Subscribe((), throttle_ms=100, depth_asked=True, request_id="r")
    refusal = Rejected("SBINN", "NSE", errors.UNKNOWN_SYMBOL)
    assert json.loads(NATIVE.subscribed(Subscribed(command, (key,), (refusal,), 100, simulated=True))) == {
        "status": "subscribed",
        "count": 1,
        "rejected": [{"symbol": "SBINN", "exchange": "NSE", "code": 4040, "message": errors.UNKNOWN_SYMBOL.message}],
        "throttle_ms": 100,
        "granted": [{"symbol": "SBIN", "exchange": "NSE", "mode": "DEPTH", "depth_levels": 5}],
        "simulated": True,
        "request_id": "r",
    }
    ack = {"status": "authenticated", "message": "Connected"}
    assert json.loads(NATIVE.authenticated(Authenticate("k"), simulated=False)) == ack
    assert json.loads(NATIVE.unsubscribed(Unsubscribe(None, 5), 2)) == {
        "status": "unsubscribed",
        "count": 2,
        "request_id": 5,
    }


def test_an_accounts_status_tells_how_its_token_is_doing_where_it_has_one() -> None:
    fine = AccountStatus(broker="upstox", account="main", state=FeedState.CONNECTED, message="", since_ms=1)
    assert json.loads(NATIVE.account_status(fine)).keys().isdisjoint({"token", "token_ends"})
    ending = msgspec.structs.replace(fine, token=TokenState.EXPIRING, token_ends_ms=HALF_PAST_TEN_MS)
    told = json.loads(NATIVE.account_status(ending))
    assert (told["token"], told["token_ends"]) == ("expiring", "2024-01-15T10:30:00+05:30")


def test_answers_and_statuses_are_json_objects_with_a_status() -> None:
    key = Key("SBIN", "NSE", Mode.LTP)
    account = AccountStatus(
        broker="zerodha", account="main", state=FeedState.CONNECTED, message="", since_ms=HALF_PAST_TEN_MS
    )
    unwell = KeyStatus(symbol="SBIN", exchange="NSE", state=FeedState.NO_DATA, message="", since_ms=HALF_PAST_TEN_MS)
    held = json.loads(NATIVE.subscriptions(GetSubscriptions(), [Held(key, 100), Held(key, 0)]))
    assert held["subscriptions"][0] == {"symbol": "SBIN", "exchange": "NSE", "mode": "LTP", "throttle_ms": 100}
    assert held["count"] == 2
    assert json.loads(NATIVE.pong(Ping(1), HALF_PAST_TEN_MS))["server_ms"] == HALF_PAST_TEN_MS
    assert json.loads(NATIVE.lagging(3, 1))["merged"] == 3
    assert json.loads(NATIVE.account_status(account))["state"] == "connected"
    assert json.loads(NATIVE.key_status(unwell))["symbol"] == "SBIN"
    assert json.loads(NATIVE.interrupted(2, "lost", HALF_PAST_TEN_MS))["state"] == "interrupted"
    error = json.loads(NATIVE.error(errors.WRONG_KEY, "r"))
    assert (error["status"], error["code"], error["request_id"]) == ("error", 4011, "r")


def test_every_error_and_close_code_is_unique() -> None:
    assert len({error.code for error in errors.ERRORS}) == len(errors.ERRORS) > 15
    assert len({code.code for code in errors.CLOSE_CODES}) == len(errors.CLOSE_CODES) > 5
