"""What is Dhan's alone: its addresses, its requests, its disconnects, its times and floats, its master's odd rows."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest

from brokers import registry
from brokers.contract import (
    Adapter,
    BadRow,
    DecodeError,
    ErrorKind,
    Frame,
    Handshake,
    InstrumentRow,
    Notice,
    Refused,
    Update,
)
from brokers.families.dhan import depth, market, master
from marketdata.ticks import Mode, Segment, Token

DHAN, SANDBOX = registry.load("dhan"), registry.load("dhan_sandbox")
MARKET, DEPTH20, DEPTH200 = DHAN.spec.feeds
CREDENTIALS = {"client_id": "1000000001", "access_token": "a.b+c"}
SBIN, OPTION, NIFTY = Token(Segment.NSE, "3045"), Token(Segment.NFO, "53590"), Token(Segment.INDEX, "13")
HEADER = ",".join(master.COLUMNS)


def opened(adapter: Adapter, number: int, endpoint: str = "", credentials: Mapping[str, str] = CREDENTIALS) -> str:
    """The address that one of an adapter's feeds is opened at."""
    feed = adapter.spec.feeds[number]
    with pytest.raises(StopIteration) as stop:
        next(adapter.open(feed, credentials, endpoint or feed.endpoint, 0))
    assert isinstance(stop.value.value, Handshake)
    return stop.value.value.url


def plain(frames: list[Frame]) -> list[dict[str, Any]]:
    return [json.loads(frame) for frame in frames]


def ticker(segment: int = 1, ltp: float = 812.35, seconds: int = 1713540596) -> bytes:
    return struct.pack("<BHBIfI", 2, 16, segment, 3045, ltp, seconds)


def side(code: int, price: float = 812.35, rows: int = 20, segment: int = 1, length: int | None = None) -> bytes:
    body = struct.pack("<dII", price, 10, 1) * rows
    return struct.pack("<HBBII", length or 12 + len(body), code, segment, 3045, rows) + body


# --------------------------------------------------------------------------------------------------------------- login


def test_the_credentials_go_into_the_query_escaped() -> None:
    query = "token=a.b%2Bc&clientId=1000000001&authType=2"
    assert opened(DHAN, 0) == f"wss://api-feed.dhan.co?version=2&{query}"
    assert opened(DHAN, 1) == f"wss://depth-api-feed.dhan.co/twentydepth?{query}"
    assert opened(DHAN, 2) == f"wss://full-depth-api.dhan.co/twohundreddepth?{query}"
    assert opened(DHAN, 1, "ws://127.0.0.1:9001") == f"ws://127.0.0.1:9001/twentydepth?{query}"


@pytest.mark.parametrize("missing", ["client_id", "access_token"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(Refused, match=missing) as refused:
        next(DHAN.open(MARKET, CREDENTIALS | {missing: ""}, MARKET.endpoint, 0))
    assert refused.value.kind is ErrorKind.AUTH


def test_the_sandbox_is_simulated_and_connects_to_an_accounts_endpoint_only() -> None:
    assert SANDBOX.spec.simulated
    assert not DHAN.spec.simulated
    for number, feed in enumerate(SANDBOX.spec.feeds):
        with pytest.raises(Refused, match=r"manage\.py simulate dhan_sandbox") as refused:
            next(SANDBOX.open(feed, CREDENTIALS, feed.endpoint, 0))
        assert refused.value.kind is ErrorKind.ENTITLEMENT
        assert opened(SANDBOX, number, "ws://127.0.0.1:9001").startswith("ws://127.0.0.1:9001/")


def test_deeper_books_are_for_nses_shares_and_derivatives_and_tick_beside_the_market_feed() -> None:
    for feed, mode, most in ((DEPTH20, Mode.DEPTH20, 50), (DEPTH200, Mode.DEPTH200, 1)):
        assert (feed.modes, feed.beside) == ((mode,), "market")
        assert feed.segments == {Segment.NSE, Segment.NFO}
        assert feed.limits.instruments_per_connection == feed.limits.instruments_per_frame == most


# ------------------------------------------------------------------------------------------------------------ requests


def test_each_mode_has_its_request_code() -> None:
    for mode, on, off in ((Mode.LTP, 15, 16), (Mode.QUOTE, 17, 18), (Mode.DEPTH, 21, 22)):
        session = DHAN.session(MARKET)
        instruments = [
            {"ExchangeSegment": "NSE_EQ", "SecurityId": "3045"},
            {"ExchangeSegment": "NSE_FNO", "SecurityId": "53590"},
        ]
        rest = {"InstrumentCount": 2, "InstrumentList": instruments}
        assert plain(session.subscribe([SBIN, OPTION], mode)) == [{"RequestCode": on, **rest}]
        assert plain(session.unsubscribe([SBIN, OPTION], mode)) == [{"RequestCode": off, **rest}]


def test_another_mode_ends_the_one_before() -> None:
    session = DHAN.session(MARKET)
    session.subscribe([SBIN, OPTION], Mode.DEPTH)
    session.subscribe([NIFTY], Mode.LTP)
    frames = plain(session.subscribe([SBIN, NIFTY], Mode.QUOTE))
    said = [(frame["RequestCode"], [each["SecurityId"] for each in frame["InstrumentList"]]) for frame in frames]
    assert said == [(22, ["3045"]), (16, ["13"]), (17, ["3045", "13"])]
    frames = plain(session.unsubscribe([SBIN, OPTION, NIFTY], Mode.QUOTE))
    said = [(frame["RequestCode"], [each["SecurityId"] for each in frame["InstrumentList"]]) for frame in frames]
    assert said == [(18, ["3045", "13"]), (22, ["53590"])]


def test_an_index_has_no_book_and_gets_quotes_instead() -> None:
    session = DHAN.session(MARKET)
    frames = plain(session.subscribe([SBIN, NIFTY], Mode.DEPTH))
    said = [(frame["RequestCode"], [each["ExchangeSegment"] for each in frame["InstrumentList"]]) for frame in frames]
    assert said == [(21, ["NSE_EQ"]), (17, ["IDX_I"])]
    assert [frame["RequestCode"] for frame in plain(session.subscribe([NIFTY], Mode.QUOTE))] == [17]


def test_every_segment_has_a_word_in_requests() -> None:
    words = []
    for segment in market.SEGMENTS.values():
        [frame] = plain(DHAN.session(MARKET).subscribe([Token(segment, "1")], Mode.LTP))
        words.append(frame["InstrumentList"][0]["ExchangeSegment"])
    assert words == [
        "IDX_I", "NSE_EQ", "NSE_FNO", "NSE_CURRENCY", "BSE_EQ", "MCX_COMM", "BSE_CURRENCY", "BSE_FNO"
    ]  # fmt: skip


def test_twenty_levels_are_asked_for_in_a_list_two_hundred_one_by_one() -> None:
    twenty, deepest = DHAN.session(DEPTH20), DHAN.session(DEPTH200)
    [frame] = plain(twenty.subscribe([SBIN, OPTION], Mode.DEPTH20))
    assert (frame["RequestCode"], frame["InstrumentCount"], len(frame["InstrumentList"])) == (23, 2, 2)
    assert plain(twenty.unsubscribe([SBIN], Mode.DEPTH20))[0]["RequestCode"] == 25
    assert plain(deepest.subscribe([SBIN], Mode.DEPTH200)) == [
        {"RequestCode": 23, "ExchangeSegment": "NSE_EQ", "SecurityId": "3045"}
    ]
    assert plain(deepest.unsubscribe([SBIN], Mode.DEPTH200)) == [
        {"RequestCode": 25, "ExchangeSegment": "NSE_EQ", "SecurityId": "3045"}
    ]


# --------------------------------------------------------------------------------------------------------- disconnects


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (800, ErrorKind.NETWORK),
        (804, ErrorKind.LIMIT),
        (805, ErrorKind.LIMIT),
        (806, ErrorKind.ENTITLEMENT),
        (807, ErrorKind.AUTH),
        (808, ErrorKind.AUTH),
        (809, ErrorKind.AUTH),
        (810, ErrorKind.AUTH),
        (811, ErrorKind.PROTOCOL),
        (814, ErrorKind.PROTOCOL),
        (999, ErrorKind.PROTOCOL),
    ],
)
def test_a_disconnect_says_why_on_every_kind_of_socket(reason: int, kind: ErrorKind) -> None:
    on_market = struct.pack("<BHBIH", 50, 10, 0, 0, reason)
    on_depth = struct.pack("<HBBIIH", 14, 50, 0, 0, 0, reason)
    for feed, packet in ((MARKET, on_market), (DEPTH20, on_depth), (DEPTH200, on_depth)):
        [notice] = DHAN.session(feed).decode(packet)
        assert isinstance(notice, Notice)
        assert (notice.error, notice.fatal) == (kind, True)
        assert str(reason) in notice.text


# -------------------------------------------------------------------------------------------------------------- frames


def test_prices_have_the_decimals_of_their_segment() -> None:
    for segment, price in ((1, 987.65), (4, 0.05), (5, 112350.0), (8, 81455.4), (3, 87.9125), (7, 102.4425)):
        [update] = market.decode(ticker(segment, price))
        assert isinstance(update, Update)
        assert update.ltp == price
    [update] = market.decode(ticker(1, 87.9125))
    assert isinstance(update, Update)
    assert update.ltp == 87.91


@pytest.mark.parametrize(("seconds", "ms"), [(0, None), (19800, None), (19801, 1000), (1713540596, 1713520796000)])
def test_the_wires_time_is_indias_clock(seconds: int, ms: int | None) -> None:
    [update] = market.decode(ticker(seconds=seconds))
    assert isinstance(update, Update)
    assert update.last_trade_ms == ms


@pytest.mark.parametrize(
    ("bad", "words", "rest"),
    [
        (ticker(segment=6), "unknown segment 6", 1),
        (ticker(ltp=float("nan")), "no number", 1),
        (ticker(ltp=float("inf")), "no number", 1),
        (struct.pack("<BHBI", 99, 8, 1, 1), "unknown code 99", 1),
        (struct.pack("<BHBI", 99, 7, 1, 1), "runs over", 0),
        (struct.pack("<BHBI", 99, 65535, 1, 1), "runs over", 0),
        (struct.pack("<BHBI", 8, 162, 1, 1), "runs over", 0),
    ],
)
def test_a_bad_packet_costs_itself_or_where_its_size_is_not_known_the_rest(bad: bytes, words: str, rest: int) -> None:
    with pytest.raises(DecodeError, match=words) as damage:
        market.decode(ticker() + bad + ticker())
    assert len(damage.value.events) == 1 + rest


def test_a_text_is_no_frame_of_dhans() -> None:
    for feed in DHAN.spec.feeds:
        with pytest.raises(DecodeError, match="text"):
            DHAN.session(feed).decode("{}")


def test_a_book_is_shown_when_both_sides_are_known_and_once_for_a_pair() -> None:
    session = DHAN.session(DEPTH20)
    assert session.decode(side(41)) == []
    [update] = session.decode(side(51, 812.4))
    assert isinstance(update, Update)
    assert update.depth is not None
    assert (update.depth.buy[0].price, update.depth.sell[0].price, update.ltp) == (812.35, 812.4, None)
    assert len(session.decode(side(41) + side(51) + side(41) + side(51))) == 2
    assert len(session.decode(side(51) + side(41))) == 2


def test_a_book_that_was_unsubscribed_is_passed_over_until_it_is_subscribed_again() -> None:
    session = DHAN.session(DEPTH200)
    pair = side(41) + side(51)
    session.subscribe([SBIN], Mode.DEPTH200)
    assert len(session.decode(pair)) == 1
    session.unsubscribe([SBIN], Mode.DEPTH200)
    assert session.decode(pair) == []
    session.subscribe([SBIN], Mode.DEPTH200)
    assert session.decode(side(51)) == []
    assert len(session.decode(pair)) == 1


@pytest.mark.parametrize(
    ("bad", "words", "books"),
    [
        (side(41, segment=9), "unknown segment 9", 2),
        (side(41, float("nan")), "no number", 2),
        (side(77), "unknown code 77", 2),
        (side(41, length=11), "runs over", 1),
        (side(41, length=60000), "runs over", 1),
    ],
)
def test_a_bad_packet_of_a_book(bad: bytes, words: str, books: int) -> None:
    pair = side(41) + side(51)
    with pytest.raises(DecodeError, match=words) as damage:
        depth.Depth20Session().decode(pair + bad + pair)
    assert len(damage.value.events) == books


def test_a_book_cut_short_at_the_end_leaves_the_books_before_it() -> None:
    pair = side(41) + side(51)
    for end in range(1, 332):
        with pytest.raises(DecodeError, match="runs over") as damage:
            depth.Depth20Session().decode(pair + side(51)[:end])
        assert len(damage.value.events) == 1


# -------------------------------------------------------------------------------------------------------------- master


def test_the_masters_rules_give_canonical_symbols() -> None:
    body = (HEADER + "\n" + "\n".join(ROWS)).encode()
    rows = list(DHAN.parse_instruments(body))
    found = [
        (row.symbol, row.exchange, row.segment, row.lot_size, row.tick_size)
        for row in rows
        if isinstance(row, InstrumentRow)
    ]
    assert found == [
        ("BAJAJ-AUTO", "NSE", Segment.NSE, 1, 0.5),
        ("IDEA-BE", "NSE", Segment.NSE, 1, 0.01),
        ("SBIN", "BSE", Segment.BSE, 1, 0.05),
        ("INDIAVIX", "NSE_INDEX", Segment.INDEX, 1, 0.05),
        ("SENSEX", "BSE_INDEX", Segment.INDEX, 1, 0.05),
        ("NIFTY28MAR24FUT", "NFO", Segment.NFO, 50, 0.05),
        ("VEDL25APR24292.5CE", "NFO", Segment.NFO, 2300, 0.05),
        ("M&M25APR24FUT", "NFO", Segment.NFO, 350, 0.05),
        ("SENSEX26APR24FUT", "BFO", Segment.BFO, 10, 0.05),
        ("USDINR19APR2483.5CE", "CDS", Segment.CDS, 1, 0.0025),
        ("USDINR29MAY24FUT", "BCD", Segment.BCD, 1, 0.0025),
        ("GOLD28MAY2472000PE", "MCX", Segment.MCX, 1, 0.5),
    ]


ROWS = [
    "NSE,E,16669,EQUITY,0,BAJAJ-AUTO,1.0,Bajaj Auto,0001-01-01,,XX,50.0000,NA,ES,EQ,BAJAJ AUTO LIMITED",
    "NSE,E,14366,EQUITY,0,IDEA,1.0,Vodafone Idea,,,XX,1.0000,NA,ES,BE,VODAFONE IDEA LIMITED",
    "BSE,E,500112,EQUITY,0,SBIN,1.0,State Bank of India,,,XX,5.0000,NA,ES,A,STATE BANK OF INDIA",
    "NSE,I,21,INDEX,0,INDIA VIX,1.0,India VIX,0001-01-01,,XX,0.0500,,INDEX,X,INDIA VIX",
    "BSE,I,51,INDEX,0,SENSEX,1.0,Sensex,,,XX,1.0000,NA,INDEX,X,SENSEX",
    "NSE,D,53001,FUTIDX,0,NIFTY-Mar2024-FUT,50.0,NIFTY MAR FUT,2024-03-28 14:30:00,-0.01000,XX,5.0000,M,FUT,,",
    "NSE,D,60003,OPTSTK,1,VEDL-Apr2024-292.5-CE,2300.0,VEDL 25 APR 292.5 CALL,2024-04-25,292.50000,CE,5.0,M,OP,,",
    "NSE,D,60002,FUTSTK,1,M&M-Apr2024-FUT,350.0,,2024-04-25 14:30:00,-0.01000,XX,5.0000,M,FUT,,",
    "BSE,D,825622,FUTIDX,0,SENSEX-Apr2024-FUT,10.0,SENSEX APR  FUT,2024-04-26 14:30:00,0,XX,5.0000,M,FUT,,BSXFUT",
    "NSE,C,1230,OPTCUR,0,USDINR-19Apr2024-83.5-CE,1.0,USDINR 19 APR 83.5 CALL,2024-04-19,83.50000,CE,0.25,W,OP,,",
    "BSE,C,1026077,FUTCUR,0,USDINR-29May2024-FUT,1.0,USDINR MAY FUT,2024-05-29 12:30:00,-0.01,XX,0.25,M,FUT,,USDINR",
    "MCX,M,513413,OPTFUT,0,GOLD-28May2024-72000-PE,1.0,GOLD 28 MAY 72000 PUT,2024-05-28,72000.0,PE,50.0,M,OP,,GOLD",
    "NSE,M,9001,FUTCOM,0,GOLD10GM-31May2024-FUT,1.0,GOLD10GM MAY FUT,2024-05-31,-0.01,XX,100.0,M,FUT,,GOLD10GM",
]
"""The last is of a market that the feed has no segment for; it is passed over."""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2,3", "columns"),
        ("NSE,E,x,EQUITY,0,SBIN,1.0,,,,XX,5.0,NA,ES,EQ,S", "invalid literal"),
        ("NSE,E,3045,EQUITY,0,,1.0,,,,XX,5.0,NA,ES,EQ,S", "SEM_TRADING_SYMBOL"),
        ("NSE,E,3045,EQUITY,0,SBIN,many,,,,XX,5.0,NA,ES,EQ,S", "could not convert"),
        ("NSE,D,1,FUTIDX,0,NIFTY-Mar2024-FUT,50.0,NIFTY MAR FUT,,,XX,5.0,M,FUT,,", "isoformat"),
        ("NSE,D,1,FUTIDX,0,NIFTY-Mar2024-FUT,50.0,NIFTY MAR FUT,0001-01-01,,XX,5.0,M,FUT,,", "no expiry"),
        ("NSE,D,1,FUTIDX,0,NIFTY-Mar2024-FUT,50.0,NIFTY MAR FUT,1979-12-31 00:00:00,,XX,5.0,M,FUT,,", "no expiry"),
        ("NSE,D,1,FUTIDX,0,NIFTYFUT,50.0,Nifty future,2024-03-28,,XX,5.0,M,FUT,,", "underlying"),
        ("NSE,D,1,OPTIDX,0,NIFTY-Mar2024-1-CE,50.0,NIFTY 28 MAR 1 CALL,2024-03-28,1.0,XX,5.0,M,OP,,", "OPTION_TYPE"),
        ("NSE,D,1,OPTIDX,0,NIFTY-Mar2024-1-CE,50.0,NIFTY 28 MAR 1 CALL,2024-03-28,-0.01,CE,5.0,M,OP,,", "strike"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(line: str, reason: str) -> None:
    [row] = DHAN.parse_instruments(f"{HEADER}\n{line}\n".encode())
    assert isinstance(row, BadRow)
    assert row.line == 2
    assert reason in row.reason
