"""What is Angel One's alone: its headers, its requests, books beside prices, refusals, its master's odd rows."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from brokers.adapters.angel import ADAPTER, codec, master
from brokers.adapters.angel.codec import WireMode
from brokers.contract import (
    BadRow,
    DecodeError,
    ErrorKind,
    Frame,
    Handshake,
    InstrumentRow,
    Notice,
    NoticeKind,
    Refused,
    Update,
)
from marketdata.ticks import Mode, Segment, Token

FRAMES = Path(__file__).parent / "frames"
FEED = ADAPTER.spec.feeds[0]
CREDENTIALS = {"client_code": "A1", "api_key": "key", "jwt_token": "jwt", "feed_token": "feed"}
SBIN, TCS, NIFTY = Token(Segment.NSE, "3045"), Token(Segment.NSE, "11536"), Token(Segment.NSE, "99926000")
OPTION = Token(Segment.NFO, "53590")


def recorded(name: str) -> bytes:
    return bytes.fromhex((FRAMES / f"{name}.hex").read_text().splitlines()[0])


def handshake(credentials: Mapping[str, str], endpoint: str = FEED.endpoint) -> Handshake:
    with pytest.raises(StopIteration) as stop:
        next(ADAPTER.open(FEED, credentials, endpoint, 0))
    found: Handshake = stop.value.value
    return found


def said(frames: list[Frame]) -> list[tuple[int, int, list[tuple[int, list[str]]]]]:
    """Action, mode and groups of each request."""
    requests: list[dict[str, Any]] = [json.loads(frame) for frame in frames]
    return [
        (
            request["action"],
            request["params"]["mode"],
            [(group["exchangeType"], group["tokens"]) for group in request["params"]["tokenList"]],
        )
        for request in requests
    ]


# --------------------------------------------------------------------------------------------------------------- login


@pytest.mark.parametrize("jwt", ["jwt", "Bearer jwt"])
def test_the_credentials_go_into_four_headers(jwt: str) -> None:
    opened = handshake(CREDENTIALS | {"jwt_token": jwt})
    assert opened.url == "wss://smartapisocket.angelone.in/smart-stream"
    assert opened.headers == {
        "Authorization": "Bearer jwt",
        "x-api-key": "key",
        "x-client-code": "A1",
        "x-feed-token": "feed",
    }


def test_another_place_is_asked_under_the_same_path() -> None:
    assert handshake(CREDENTIALS, "ws://127.0.0.1:9001").url == "ws://127.0.0.1:9001/smart-stream"


def test_what_only_a_login_needs_is_not_missed_and_what_streaming_needs_is_named() -> None:
    with pytest.raises(Refused, match=r"Angel One needs: JWT token, Feed token;"):
        next(ADAPTER.open(FEED, {"client_code": "A1", "api_key": "key", "pin": "1234"}, FEED.endpoint, 0))


def test_a_refused_upgrade_is_the_credentials_fault() -> None:
    assert ADAPTER.refusal(401, b"") is ErrorKind.AUTH
    assert ADAPTER.refusal(503, b"") is ErrorKind.NETWORK


# ------------------------------------------------------------------------------------------------------------ requests


def test_a_request_is_the_documented_one() -> None:
    [frame] = ADAPTER.session(FEED).subscribe([SBIN, Token(Segment.NSE, "2885"), OPTION], Mode.DEPTH)
    request = json.loads(frame)
    correlation_id = request.pop("correlationID")
    assert request == {
        "action": 1,
        "params": {
            "mode": 3,
            "tokenList": [
                {"exchangeType": 1, "tokens": ["3045", "2885"]},
                {"exchangeType": 2, "tokens": ["53590"]},
            ],
        },
    }
    assert len(correlation_id) == 10
    assert correlation_id.isalnum()


@pytest.mark.parametrize(
    ("segment", "number"),
    [
        (Segment.NSE, 1), (Segment.NFO, 2), (Segment.BSE, 3), (Segment.BFO, 4), (Segment.MCX, 5), (Segment.NCDEX, 7),
        (Segment.CDS, 13),
    ],
)  # fmt: skip
def test_every_segment_has_the_documented_exchange_type(segment: Segment, number: int) -> None:
    assert said(ADAPTER.session(FEED).subscribe([Token(segment, "1")], Mode.LTP)) == [(1, 1, [(number, ["1"])])]


def test_another_mode_ends_the_one_before_and_ends_it_first() -> None:
    session = ADAPTER.session(FEED)
    session.subscribe([SBIN, TCS], Mode.LTP)
    assert said(session.subscribe([SBIN], Mode.DEPTH)) == [(0, 1, [(1, ["3045"])]), (1, 3, [(1, ["3045"])])]
    assert said(session.subscribe([SBIN, TCS], Mode.QUOTE)) == [
        (0, 3, [(1, ["3045"])]),
        (0, 1, [(1, ["11536"])]),
        (1, 2, [(1, ["3045", "11536"])]),
    ]


def test_20_levels_are_a_second_mode_beside_the_prices_and_end_alone() -> None:
    session = ADAPTER.session(FEED)
    assert said(session.subscribe([SBIN], Mode.DEPTH20)) == [(1, 3, [(1, ["3045"])]), (1, 4, [(1, ["3045"])])]
    assert said(session.subscribe([SBIN], Mode.DEPTH)) == [(0, 4, [(1, ["3045"])]), (1, 3, [(1, ["3045"])])]
    session.subscribe([SBIN], Mode.DEPTH20)
    assert said(session.unsubscribe([SBIN], Mode.DEPTH20)) == [(0, 3, [(1, ["3045"])]), (0, 4, [(1, ["3045"])])]


def test_20_levels_are_asked_for_shares_of_nse_only() -> None:
    session = ADAPTER.session(FEED)
    tokens = [SBIN, NIFTY, OPTION, Token(Segment.BSE, "500112")]
    assert said(session.subscribe(tokens, Mode.DEPTH20)) == [
        (1, 3, [(1, ["3045", "99926000"]), (2, ["53590"]), (3, ["500112"])]),
        (1, 4, [(1, ["3045"])]),
    ]


def test_the_limits_leave_room_for_the_second_mode() -> None:
    limits = FEED.limits
    assert limits.room(Mode.DEPTH20) + limits.at_most[Mode.DEPTH20] == limits.room(Mode.DEPTH) == 1000


def test_the_heartbeat_is_a_text_and_its_answer_one_too() -> None:
    session = ADAPTER.session(FEED)
    assert session.heartbeat() == "ping"
    assert session.decode("pong") == (Notice(kind=NoticeKind.HEARTBEAT),)


# ------------------------------------------------------------------------------------------------------------- packets


def test_a_book_of_20_levels_takes_the_place_of_five_as_soon_as_it_comes() -> None:
    session = ADAPTER.session(FEED)
    session.subscribe([SBIN], Mode.DEPTH20)
    [before] = session.decode(recorded("snap_share"))
    [book] = session.decode(recorded("depth20"))
    [after] = session.decode(recorded("snap_share"))
    assert isinstance(before, Update)
    assert isinstance(book, Update)
    assert isinstance(after, Update)
    assert before.depth is not None
    assert book.depth is not None
    assert (len(before.depth.buy), len(book.depth.buy), after.depth) == (5, 20, None)
    assert (before.mode, book.mode, after.mode) == (Mode.DEPTH20,) * 3
    assert (book.ltp, after.ltp, after.volume) == (None, 977.55, 6543210)


def test_what_has_no_deeper_book_keeps_its_five_levels() -> None:
    session = ADAPTER.session(FEED)
    session.subscribe([OPTION], Mode.DEPTH20)
    for _ in range(2):
        [update] = session.decode(recorded("snap_quote"))
        assert isinstance(update, Update)
        assert update.depth is not None
        assert (len(update.depth.buy), update.mode) == (5, Mode.DEPTH20)


def test_a_book_under_way_when_its_mode_ended_is_passed_over() -> None:
    session = ADAPTER.session(FEED)
    session.subscribe([SBIN], Mode.DEPTH20)
    session.decode(recorded("depth20"))
    session.subscribe([SBIN], Mode.DEPTH)
    assert session.decode(recorded("depth20")) == ()
    [update] = session.decode(recorded("snap_share"))
    assert isinstance(update, Update)
    assert update.mode is Mode.DEPTH
    assert update.depth is not None


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, b"\x05", "unknown mode 05"),
        (0, b"\x00", "unknown mode 00"),
        (1, b"\x06", "unknown exchange type 6"),
        (2, b"\0", "no token"),
        (2, b"\xff", "no token"),
        (75, struct.pack("<d", float("nan")), "nan"),
        (83, struct.pack("<d", float("inf")), "inf"),
        (75, struct.pack("<d", -1.0), "-1.0"),
    ],
)
def test_a_damaged_packet_is_named_with_its_reason(at: int, value: bytes, reason: str) -> None:
    frame = bytearray(recorded("quote"))
    frame[at : at + len(value)] = value
    with pytest.raises(DecodeError, match=reason):
        codec.decode(bytes(frame))


@pytest.mark.parametrize(("name", "size"), [("ltp", 51), ("quote", 123), ("snap_quote", 379), ("depth20", 443)])
def test_a_packet_has_at_least_the_documented_length(name: str, size: int) -> None:
    frame = recorded(name)
    assert len(frame) == size
    with pytest.raises(DecodeError, match=f"ends at byte {size - 1}"):
        codec.decode(frame[:-1])


@pytest.mark.parametrize("instant", [0, -1, 2**62])
def test_what_is_no_instant_is_absent(instant: int) -> None:
    frame = bytearray(recorded("snap_quote"))
    struct.pack_into("<q", frame, 35, instant)
    struct.pack_into("<q", frame, 123, instant)
    update = codec.decode(bytes(frame))
    assert (update.exchange_ms, update.last_trade_ms) == (None, None)


def test_a_token_may_use_all_its_25_bytes() -> None:
    frame = bytearray(recorded("ltp"))
    frame[2:27] = b"1" * 25
    assert codec.decode(bytes(frame)).token == Token(Segment.NSE, "1" * 25)


# -------------------------------------------------------------------------------------------------------------- errors


def refusal_of(frame: Frame, code: str) -> str:
    name = json.loads(frame)["correlationID"]
    return json.dumps({"correlationID": name, "errorCode": code, "errorMessage": "No"})


@pytest.mark.parametrize(
    ("code", "kind"),
    [("E1001", ErrorKind.PROTOCOL), ("E1002", ErrorKind.LIMIT), ("E9999", ErrorKind.PROTOCOL)],
)
def test_a_refusal_names_the_instruments_that_were_asked_for(code: str, kind: ErrorKind) -> None:
    session = ADAPTER.session(FEED)
    [first] = session.subscribe([SBIN, TCS], Mode.QUOTE)
    session.subscribe([OPTION], Mode.QUOTE)
    [notice] = session.decode(refusal_of(first, code))
    assert notice == Notice(kind=NoticeKind.ERROR, error=kind, text=f"{code}: No", tokens=(SBIN, TCS))


def test_refused_20_levels_are_no_refusal_of_the_instrument_whose_prices_still_come() -> None:
    session = ADAPTER.session(FEED)
    prices, book = session.subscribe([SBIN], Mode.DEPTH20)
    [of_book], [of_prices] = session.decode(refusal_of(book, "E1001")), session.decode(refusal_of(prices, "E1001"))
    assert isinstance(of_book, Notice)
    assert isinstance(of_prices, Notice)
    assert (of_book.tokens, of_prices.tokens) == ((), (SBIN,))


def test_requests_long_ago_are_forgotten() -> None:
    session = ADAPTER.session(FEED)
    [first] = session.subscribe([SBIN], Mode.LTP)
    for _ in range(1000):
        [last] = session.subscribe([TCS], Mode.LTP)
    assert [getattr(session.decode(refusal_of(frame, "E1001"))[0], "tokens", None) for frame in (first, last)] == [
        (),
        (TCS,),
    ]


@pytest.mark.parametrize("text", ['{"errorCode": "E1001"}', '{"correlationID": null, "errorCode": "E1001"}'])
def test_a_refusal_without_a_name_is_everybodys(text: str) -> None:
    [notice] = ADAPTER.session(FEED).decode(text)
    assert notice == Notice(kind=NoticeKind.ERROR, error=ErrorKind.PROTOCOL, text="E1001: no reason given")


def test_other_json_is_a_message_and_other_text_is_damage() -> None:
    session = ADAPTER.session(FEED)
    assert session.decode('{"hello": 1}') == (Notice(kind=NoticeKind.MESSAGE, text='{"hello": 1}'),)
    for text in ("", "ping?", "[1]", '{"errorCode": 7}', "\ud800"):
        with pytest.raises(DecodeError, match="text frame"):
            session.decode(text)


# -------------------------------------------------------------------------------------------------------------- master


def row(**changed: str) -> dict[str, object]:
    """A row of the file with other values."""
    usual = {
        "token": "1", "symbol": "SBIN-EQ", "name": "SBIN", "expiry": "", "strike": "-1.000000", "lotsize": "1",
        "instrumenttype": "", "exch_seg": "NSE", "tick_size": "5.000000", "is_cas_enabled": False,
    }  # fmt: skip
    return usual | changed


def read(*rows: dict[str, object]) -> list[InstrumentRow | BadRow]:
    return list(master.parse(json.dumps(rows).encode()))


def option(**changed: str) -> dict[str, object]:
    usual = {"symbol": "NIFTY28MAR2420800CE", "name": "NIFTY", "expiry": "28MAR2024", "strike": "2080000.000000"}
    return row(**{**usual, "instrumenttype": "OPTIDX", "exch_seg": "NFO", **changed})


def test_the_masters_rules_give_canonical_symbols() -> None:
    index = {"instrumenttype": "AMXIDX", "tick_size": "0.000000", "strike": "0.000000"}
    rows = read(
        row(symbol="SBIN-EQ"),
        row(symbol="782GJ32-SG", lotsize="100"),
        row(symbol="SBIN", exch_seg="BSE"),
        row(**index, symbol="Nifty 50", name="NIFTY"),
        row(**index, symbol="Nifty Fin Service", name="FINNIFTY"),
        row(**index, symbol="HangSeng BeES-NAV", name="HANGSENG BEES-NAV"),
        row(**index, symbol="SNSX50", name="SNSX50", exch_seg="BSE"),
        row(**index, symbol="MCXBULLDEX", name="BULLDEX", exch_seg="MCX"),
        option(symbol="SENSEX24MAR75000PE", name="SENSEX", exch_seg="BFO", strike="7500000.000000"),
        option(symbol="M&M28MAR24FUT", name="M&M", instrumenttype="FUTSTK", strike="-1.000000"),
        option(symbol="VEDL25APR24292.5CE", name="VEDL", expiry="25Apr2024", strike="29250.000000"),
        option(symbol="GOLD05JUN24FUT", name="GOLD", instrumenttype="FUTCOM", exch_seg="MCX", expiry="05JUN2024"),
        option(symbol="CASTOR20MAR26FUT", name="CASTOR", instrumenttype="FUTCOM", exch_seg="NCDEX"),
    )
    assert [(one.symbol, one.exchange) for one in rows if isinstance(one, InstrumentRow)] == [
        ("SBIN", "NSE"),
        ("782GJ32-SG", "NSE"),
        ("SBIN", "BSE"),
        ("NIFTY", "NSE_INDEX"),
        ("FINNIFTY", "NSE_INDEX"),
        ("HANGSENGBEESNAV", "NSE_INDEX"),
        ("SENSEX50", "BSE_INDEX"),
        ("MCXBULLDEX", "MCX_INDEX"),
        ("SENSEX28MAR2475000PE", "BFO"),
        ("M&M28MAR24FUT", "NFO"),
        ("VEDL25APR24292.5CE", "NFO"),
        ("GOLD05JUN24FUT", "MCX"),
        ("CASTOR28MAR24FUT", "NCDEX"),
    ]


def test_an_index_has_the_segment_of_its_exchange_as_on_the_wire() -> None:
    [found] = read(row(token="99919000", symbol="SENSEX", name="SENSEX", exch_seg="BSE", instrumenttype="AMXIDX"))
    assert isinstance(found, InstrumentRow)
    assert (found.segment, found.token, found.kind, found.tick_size) == (Segment.BSE, "99919000", "INDEX", 0.05)


def test_a_currencys_strike_and_tick_are_ten_millionths() -> None:
    currency = option(
        symbol="USDINR21DEC75.25CE",
        name="USDINR",
        expiry="29DEC2021",
        strike="752500000.000000",
        tick_size="25000.000000",
        instrumenttype="OPTCUR",
        exch_seg="CDS",
    )
    [found] = read(currency)
    assert isinstance(found, InstrumentRow)
    assert (found.symbol, found.strike, found.tick_size) == ("USDINR29DEC2175.25CE", 75.25, 0.0025)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(exch_seg="NCO"), "exchange 'NCO' is not on the socket"),
        (row(exch_seg="CDS", instrumenttype="AMXIDX"), "an index of CDS"),
        (row(instrumenttype="DEBT"), "instrumenttype 'DEBT' on NSE"),
        (row(exch_seg="MCX", symbol="GOLD", name="GOLD", instrumenttype="COMDTY"), "no future or option"),
        (row(exch_seg="CDS", symbol="USDINR", instrumenttype="UNDCUR"), "no future or option"),
        (option(symbol="NIFTY28MAR2420800XX"), "no future or option"),
        (option(expiry=""), "column expiry is empty"),
        (option(expiry="2024-03-28"), "no date such as 28MAR2024"),
        (option(expiry="31FEB2024"), "day"),
        (option(strike=""), "could not convert"),
        (option(name=""), "column name is empty"),
        (row(token=""), "column token is empty"),
        (row(symbol=""), "column symbol is empty"),
        (row(lotsize="many"), "invalid literal"),
        (row(tick_size="x"), "could not convert"),
        ({"token": "1"}, "missing required field `symbol`"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(bad: dict[str, object], reason: str) -> None:
    good, found = read(row(), bad)
    assert isinstance(good, InstrumentRow)
    assert isinstance(found, BadRow)
    assert found.line == 2
    assert reason in found.reason


def test_a_wire_mode_is_a_packets_first_byte() -> None:
    names = {
        WireMode.LTP: "ltp",
        WireMode.QUOTE: "quote",
        WireMode.SNAP_QUOTE: "snap_quote",
        WireMode.DEPTH_20: "depth20",
    }
    assert {recorded(name)[0]: name for name in names.values()} == {int(mode): name for mode, name in names.items()}
