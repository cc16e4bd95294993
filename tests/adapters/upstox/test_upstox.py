"""What is Upstox's alone: the one-time address, requests, refusals, the schema's zeros, the master's odd rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from brokers.adapters.upstox import ADAPTER, codec, master
from brokers.contract import (
    BadRow,
    DecodeError,
    ErrorKind,
    Handshake,
    HttpRequest,
    HttpResponse,
    InstrumentRow,
    MarketKind,
    Notice,
    NoticeKind,
    Refused,
    Update,
)
from brokers.schemas import upstox_pb2 as schema
from marketdata.ticks import Depth, Level, Mode, Segment, Token

FEED = ADAPTER.spec.feeds[0]
CREDENTIALS = {"access_token": "tok", "api_key": "key", "api_secret": "secret", "redirect_uri": "https://me.example/cb"}
SBIN = Token(Segment.NSE, "NSE_EQ|INE062A01020")
NIFTY = Token(Segment.NSE_INDEX, "NSE_INDEX|Nifty 50")
ADDRESS = "wss://x.upstox.com/market-data-feeder/v3/upstox-developer-api/feeds?requestId=1&code=2"


def answered(response: HttpResponse, endpoint: str = FEED.endpoint) -> Handshake:
    """The handshake after this answer to the one request."""
    steps = ADAPTER.open(FEED, CREDENTIALS, endpoint, 0)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send(response)
    handshake: Handshake = stop.value.value
    return handshake


def refused(status: int, body: bytes) -> Refused:
    steps = ADAPTER.open(FEED, CREDENTIALS, FEED.endpoint, 0)
    next(steps)
    with pytest.raises(Refused) as refusal:
        steps.send(HttpResponse(status=status, body=body))
    assert "Upstox" in str(refusal.value)
    return refusal.value


def error(code: str, message: str = "No.") -> bytes:
    return json.dumps({"status": "error", "errors": [{"errorCode": code, "message": message}]}).encode()


# ---------------------------------------------------------------------------------------------------------- connection


def test_the_token_goes_into_the_header_of_the_call_for_an_address_and_nowhere_else() -> None:
    request = next(ADAPTER.open(FEED, CREDENTIALS | {"access_token": " tok\n"}, FEED.endpoint, 0))
    assert request == HttpRequest(
        method="GET",
        url="https://api.upstox.com/v3/feed/market-data-feed/authorize",
        headers={"Accept": "application/json", "Authorization": "Bearer tok"},
    )
    body = json.dumps({"status": "success", "data": {"authorized_redirect_uri": ADDRESS}}).encode()
    assert answered(HttpResponse(status=200, body=body)) == Handshake(url=ADDRESS)


def test_the_older_spelling_of_the_address_is_read_too() -> None:
    body = json.dumps({"data": {"authorizedRedirectUri": ADDRESS}}).encode()
    assert answered(HttpResponse(status=200, body=body)).url == ADDRESS


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b'{"data":null}',
        b'{"data":{}}',
        b'{"data":{"authorized_redirect_uri":"ws://x.upstox.com/feeds"}}',
        b'{"data":{"authorized_redirect_uri":"https://x.upstox.com/feeds"}}',
    ],
)
def test_an_answer_without_an_encrypted_sockets_address_is_refused(body: bytes) -> None:
    assert refused(200, body).kind is ErrorKind.PROTOCOL


def test_an_account_with_an_endpoint_of_its_own_is_served_there_and_nowhere_else() -> None:
    endpoint = "ws://127.0.0.1:9001"
    request = next(ADAPTER.open(FEED, CREDENTIALS, endpoint, 0))
    assert request.url == "http://127.0.0.1:9001/v3/feed/market-data-feed/authorize"
    there = json.dumps({"data": {"authorized_redirect_uri": f"{endpoint}/feeds?code=1"}}).encode()
    assert answered(HttpResponse(status=200, body=there), endpoint).url == f"{endpoint}/feeds?code=1"
    steps = ADAPTER.open(FEED, CREDENTIALS, endpoint, 0)
    next(steps)
    with pytest.raises(Refused):
        elsewhere = json.dumps({"data": {"authorized_redirect_uri": ADDRESS}}).encode()
        steps.send(HttpResponse(status=200, body=elsewhere))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, error("UDAPI100050", "Invalid token used to access API"), ErrorKind.AUTH),
        (401, b"", ErrorKind.AUTH),
        (401, b'{"error":"not permitted"}', ErrorKind.AUTH),
        (400, error("UDAPI100016"), ErrorKind.AUTH),
        (401, error("UDAPI100067"), ErrorKind.ENTITLEMENT),
        (403, error("UDAPI100073"), ErrorKind.ENTITLEMENT),
        (403, error("UDAPI999", "The feed is not permitted to your app."), ErrorKind.ENTITLEMENT),
        (403, b"Forbidden", ErrorKind.LIMIT),
        (429, error("UDAPI10005"), ErrorKind.LIMIT),
        (400, error("UDAPI999", "Connection limit reached"), ErrorKind.LIMIT),
        (500, error("UDAPI100500"), ErrorKind.NETWORK),
        (503, b"<html>", ErrorKind.NETWORK),
        (404, error("UDAPI100060"), ErrorKind.PROTOCOL),
    ],
)
def test_a_refusal_is_of_its_kind_before_the_socket_and_at_it(status: int, body: bytes, kind: ErrorKind) -> None:
    assert refused(status, body).kind is kind
    assert ADAPTER.refusal(status, body) is kind


# ------------------------------------------------------------------------------------------------------------ requests


def said(frames: list[Any]) -> list[dict[str, Any]]:
    assert all(isinstance(frame, bytes) for frame in frames), "text frames are not answered"
    return [json.loads(frame) for frame in frames]


def test_new_ones_are_subscribed_and_those_in_another_mode_changed() -> None:
    session = ADAPTER.session(FEED)
    assert said(session.subscribe([SBIN], Mode.QUOTE)) == [
        {"guid": "1", "method": "sub", "data": {"mode": "full", "instrumentKeys": [SBIN.number]}}
    ]
    assert session.subscribe([SBIN], Mode.DEPTH) == [], "the same mode at the broker"
    assert said(session.subscribe([SBIN, NIFTY], Mode.DEPTH30)) == [
        {"guid": "2", "method": "sub", "data": {"mode": "full_d30", "instrumentKeys": [NIFTY.number]}},
        {"guid": "3", "method": "change_mode", "data": {"mode": "full_d30", "instrumentKeys": [SBIN.number]}},
    ]
    assert said(session.unsubscribe([SBIN], Mode.DEPTH30)) == [
        {"guid": "4", "method": "unsub", "data": {"instrumentKeys": [SBIN.number]}}
    ]
    assert [each["method"] for each in said(session.subscribe([SBIN], Mode.LTP))] == ["sub"]
    assert said(session.subscribe([NIFTY], Mode.LTP))[0]["data"]["mode"] == "ltpc"


def test_a_connection_never_holds_more_than_its_modes_allow_alone_or_mixed() -> None:
    limits = FEED.limits
    assert {mode: limits.room(mode) for mode in FEED.modes} == {
        Mode.LTP: 5000, Mode.QUOTE: 1500, Mode.DEPTH: 1500, Mode.DEPTH30: 1500,
    }  # fmt: skip
    assert limits.at_most == {Mode.DEPTH30: 50}


# -------------------------------------------------------------------------------------------------------------- frames


def framed(key: str, feed: schema.Feed, **fields: Any) -> bytes:
    return schema.FeedResponse(feeds={key: feed}, type=schema.live_feed, **fields).SerializeToString()


def market(**fields: Any) -> schema.Feed:
    full = schema.FullFeed(marketFF=schema.MarketFullFeed(**fields))
    return schema.Feed(fullFeed=full, requestMode=schema.full_d5)


def one(frame: bytes) -> Update:
    [event] = codec.decode(frame)
    assert isinstance(event, Update)
    return event


def test_the_state_of_the_market_is_a_notice() -> None:
    info = schema.MarketInfo(segmentStatus={"NSE_EQ": schema.NORMAL_OPEN, "BSE_EQ": schema.PRE_OPEN_START})
    info.casMarketStatus["NSE_EQ"].status = "OPEN"
    info.preOpenSessionStatus["NSE_FO"].status = "CLOSED"
    frame = schema.FeedResponse(type=schema.market_info, marketInfo=info).SerializeToString()
    assert codec.decode(frame) == [
        Notice(
            kind=NoticeKind.MARKET_STATUS,
            text="BSE_EQ PRE_OPEN_START, NSE_EQ NORMAL_OPEN, NSE_EQ closing auction OPEN, NSE_FO pre-open CLOSED",
            markets={Segment.NSE: MarketKind.CONTINUOUS, Segment.BSE: MarketKind.PRE_OPEN},
        )
    ]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (schema.PRE_OPEN_START, MarketKind.PRE_OPEN),
        (schema.PRE_OPEN_END, MarketKind.PRE_OPEN),
        (schema.NORMAL_OPEN, MarketKind.CONTINUOUS),
        (schema.NORMAL_CLOSE, MarketKind.CLOSED),
        (schema.CLOSING_START, MarketKind.POST_CLOSE),
        (schema.CLOSING_END, MarketKind.CLOSED),
    ],
)
def test_each_of_its_words_says_what_a_segment_is_doing(word: schema.MarketStatus, kind: MarketKind) -> None:
    info = schema.MarketInfo(segmentStatus={"MCX_FO": word, "NSE_INDEX": word, "MOON": word})
    [notice] = codec.decode(schema.FeedResponse(type=schema.market_info, marketInfo=info).SerializeToString())
    assert isinstance(notice, Notice)
    assert notice.markets == {Segment.MCX: kind, Segment.NSE_INDEX: kind}, "a segment we do not know says nothing"


def test_every_word_of_the_schema_has_a_meaning() -> None:
    assert codec.MARKET_KINDS.keys() == set(schema.MarketStatus.values())


def test_a_state_added_later_is_told_by_its_number() -> None:
    # market_info; marketInfo { segmentStatus { key "A", value 9 } }
    frame = bytes.fromhex("0802" + "2207" + "0a05" + "0a0141" + "1009")
    assert codec.decode(frame) == [Notice(kind=NoticeKind.MARKET_STATUS, text="A status 9")]


def test_a_message_of_nothing_is_nothing() -> None:
    assert codec.decode(b"") == codec.decode(framed(SBIN.number, schema.Feed())) == []
    assert codec.decode(framed(SBIN.number, schema.Feed(fullFeed=schema.FullFeed()))) == []


def test_an_absent_part_is_no_news_and_an_empty_one_is() -> None:
    without = one(framed(SBIN.number, market(ltpc=schema.LTPC(ltp=1.0), tbq=5.0)))
    assert (without.depth, without.open, without.mode) == (None, None, Mode.DEPTH)
    empty = one(framed(SBIN.number, market(ltpc=schema.LTPC(ltp=1.0), marketLevel=schema.MarketLevel())))
    assert empty.depth == Depth((), ())


def test_a_packet_without_its_last_price_does_not_pass_for_a_book_alone() -> None:
    level = schema.MarketLevel(bidAskQuote=[schema.Quote(bidQ=1, bidP=2.0)])
    update = one(framed(SBIN.number, market(marketLevel=level)))
    assert (update.ltp, update.close, update.mode) == (None, None, None)
    assert update.depth == Depth((Level(2.0, 1, 0),), (Level(0.0, 0, 0),))


def test_open_interest_of_zero_is_told_of_contracts_only() -> None:
    assert one(framed(SBIN.number, market(vtt=1))).oi is None
    assert one(framed("NSE_FO|53590", market(vtt=1))).oi == 0


def test_instants_of_zero_are_none_and_the_messages_own_is_the_exchanges() -> None:
    update = one(framed(SBIN.number, schema.Feed(ltpc=schema.LTPC(ltp=1.0)), currentTs=1_764_738_254_500))
    assert (update.exchange_ms, update.last_trade_ms) == (1_764_738_254_500, None)
    assert one(framed(SBIN.number, schema.Feed(ltpc=schema.LTPC(ltp=1.0, ltt=3)))).exchange_ms is None


def test_fields_added_later_are_passed_over() -> None:
    later = framed(SBIN.number, schema.Feed(ltpc=schema.LTPC(ltp=812.5))) + bytes.fromhex("9206026869")
    assert one(later).ltp == 812.5


@pytest.mark.parametrize(
    ("key", "feed", "words"),
    [
        ("LSE_EQ|GB0001", schema.Feed(ltpc=schema.LTPC(ltp=1.0)), "LSE_EQ"),
        ("no bar", schema.Feed(ltpc=schema.LTPC(ltp=1.0)), "no bar"),
        ("NSE_EQ|A", schema.Feed(ltpc=schema.LTPC(ltp=float("nan"))), "no number"),
        ("NSE_EQ|A", market(ltpc=schema.LTPC(cp=float("inf"))), "no number"),
        ("NSE_EQ|A", market(atp=float("nan")), "no number"),
        ("NSE_EQ|A", market(tbq=float("nan")), "NaN"),
        ("NSE_EQ|A", market(tsq=float("inf")), "infinity"),
        ("NSE_FO|1", market(oi=float("nan")), "NaN"),
        (
            "NSE_EQ|A",
            market(marketOHLC=schema.MarketOHLC(ohlc=[schema.OHLC(interval="1d", high=float("nan"))])),
            "no number",
        ),
        (
            "NSE_EQ|A",
            market(marketLevel=schema.MarketLevel(bidAskQuote=[schema.Quote(askP=float("-inf"))])),
            "no number",
        ),
        ("NSE_FO|1", schema.Feed(firstLevelWithGreeks=schema.FirstLevelWithGreeks(oi=float("nan"))), "NaN"),
    ],
)
def test_a_damaged_instrument_costs_only_itself(key: str, feed: schema.Feed, words: str) -> None:
    response = schema.FeedResponse(feeds={key: feed, SBIN.number: schema.Feed(ltpc=schema.LTPC(ltp=812.5))})
    with pytest.raises(DecodeError, match=words) as damage:
        codec.decode(response.SerializeToString())
    [update] = damage.value.events
    assert isinstance(update, Update)
    assert (update.token, update.ltp) == (SBIN, 812.5)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Subscription limit exceeded", ErrorKind.LIMIT),
        ("full_d30 is for Upstox Plus", ErrorKind.ENTITLEMENT),
        ("Invalid instrument key", ErrorKind.PROTOCOL),
    ],
)
@pytest.mark.parametrize("is_binary", [True, False])
def test_a_refused_request_is_an_error_of_its_kind_in_either_sort_of_frame(
    text: str, kind: ErrorKind, is_binary: bool
) -> None:
    message = json.dumps({"status": "failed", "method": "sub", "error": text})
    [notice] = codec.decode(message.encode() if is_binary else message)
    assert notice == Notice(kind=NoticeKind.ERROR, error=kind, text=text)


def test_a_token_refused_on_the_socket_ends_it() -> None:
    [notice] = codec.decode(error("UDAPI100050", "Invalid token").decode())
    assert notice == Notice(kind=NoticeKind.ERROR, error=ErrorKind.AUTH, text="UDAPI100050 Invalid token", fatal=True)


def test_texts_that_are_no_errors() -> None:
    assert codec.decode('{"status":"failed","method":"unsub"}') == [
        Notice(kind=NoticeKind.ERROR, error=ErrorKind.PROTOCOL, text="unsub failed")
    ]
    assert codec.decode('{"message":"hello"}') == [Notice(kind=NoticeKind.MESSAGE, text="hello")]
    for text in ("", "no json", "[]", "{}", "\ud800"):
        with pytest.raises(DecodeError, match="no JSON object"):
            codec.decode(text)


# -------------------------------------------------------------------------------------------------------------- master


CALL: dict[str, Any] = {
    "segment": "NSE_FO",
    "name": "NIFTY",
    "exchange": "NSE",
    "expiry": 1711650599000,
    "instrument_type": "CE",
    "underlying_symbol": "NIFTY",
    "instrument_key": "NSE_FO|53590",
    "lot_size": 50,
    "exchange_token": "53590",
    "tick_size": 5.0,
    "trading_symbol": "NIFTY 20800 CE 28 MAR 24",
    "strike_price": 20800.0,
}
SHARE: dict[str, Any] = {
    "segment": "NSE_EQ",
    "name": "STATE BANK OF INDIA",
    "exchange": "NSE",
    "instrument_type": "EQ",
    "instrument_key": "NSE_EQ|INE062A01020",
    "lot_size": 1,
    "tick_size": 5.0,
    "trading_symbol": "SBIN",
}


def parsed(row: dict[str, Any]) -> InstrumentRow | BadRow:
    [found] = master.parse(json.dumps([row]).encode())
    return found


@pytest.mark.parametrize(
    ("changes", "symbol", "exchange"),
    [
        (CALL | {"trading_symbol": "NIFTY FUT 28 MAR 24", "instrument_type": "FUT"}, "NIFTY28MAR24FUT", "NFO"),
        (CALL | {"trading_symbol": "GOLD 10 GM FUT 28 MAR 24", "instrument_type": "FUT"}, "GOLD10GM28MAR24FUT", "NFO"),
        (CALL | {"trading_symbol": "NIFTY2432820800CE"}, "NIFTY28MAR2420800CE", "NFO"),
        (CALL | {"strike_price": 292.5, "segment": "BSE_FO"}, "NIFTY28MAR24292.5CE", "BFO"),
        (CALL | {"expiry": 1711564200000}, "NIFTY28MAR2420800CE", "NFO"),  # the first millisecond of the day in India
        (CALL | {"expiry": 1711564199999}, "NIFTY27MAR2420800CE", "NFO"),
        (SHARE, "SBIN", "NSE"),
        (SHARE | {"instrument_type": "BE"}, "SBIN-BE", "NSE"),
        (SHARE | {"instrument_type": "BE", "trading_symbol": "SBIN-BE"}, "SBIN-BE", "NSE"),
        (SHARE | {"instrument_type": "A", "segment": "BSE_EQ"}, "SBIN", "BSE"),
        (SHARE | {"segment": "NSE_INDEX", "trading_symbol": "NIFTY NEXT 50"}, "NIFTYNXT50", "NSE_INDEX"),
        (SHARE | {"segment": "BSE_INDEX", "trading_symbol": "OILGAS"}, "BSEOIL&GAS", "BSE_INDEX"),
        (SHARE | {"segment": "GLOBAL_INDEX", "trading_symbol": "DOW FUTURES"}, "US30", "GLOBAL_INDEX"),
        (SHARE | {"segment": "GLOBAL_INDEX", "trading_symbol": "GIFT NIFTY"}, "GIFTNIFTY", "GLOBAL_INDEX"),
    ],
)
def test_the_masters_rules_give_canonical_symbols(changes: dict[str, Any], symbol: str, exchange: str) -> None:
    row = parsed(changes)
    assert isinstance(row, InstrumentRow)
    assert (row.symbol, row.exchange) == (symbol, exchange)


def test_ticks_are_paise_and_indices_have_neither_lot_nor_tick() -> None:
    row = parsed(SHARE | {"tick_size": 0.25, "lot_size": 1000})
    assert isinstance(row, InstrumentRow)
    assert (row.tick_size, row.lot_size, row.token) == (0.0025, 1000, "NSE_EQ|INE062A01020")
    index = {name: SHARE[name] for name in ("segment", "instrument_type", "instrument_key", "trading_symbol")}
    bare = parsed(index | {"segment": "NSE_INDEX", "name": None})
    assert isinstance(bare, InstrumentRow)
    assert (bare.tick_size, bare.lot_size, bare.kind, bare.name) == (0.05, 1, "INDEX", "")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "segment"),
        (SHARE | {"segment": "LSE_EQ"}, "unknown segment 'LSE_EQ'"),
        (SHARE | {"trading_symbol": ""}, "trading_symbol"),
        (SHARE | {"instrument_key": ""}, "instrument_key"),
        (SHARE | {"lot_size": "x"}, "lot_size"),
        (CALL | {"expiry": None}, "expiry None"),
        (CALL | {"expiry": 0}, "expiry 0"),
        (CALL | {"expiry": 10**18}, "expiry"),
        (CALL | {"strike_price": None}, "strike_price"),
        (CALL | {"instrument_type": "SWAP"}, "instrument_type 'SWAP'"),
        (CALL | {"trading_symbol": "NIFTY", "underlying_symbol": None}, "underlying_symbol"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(row: dict[str, Any], reason: str) -> None:
    bad = parsed(row)
    assert isinstance(bad, BadRow)
    assert bad.line == 1
    assert reason in bad.reason
