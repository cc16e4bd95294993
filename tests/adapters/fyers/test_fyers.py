"""What is Fyers' alone: the token, two sockets, topics that come and go, acknowledgements, its masters' rules."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping

import pytest

from brokers.adapters.fyers import ADAPTER, DATA_FEED, DEPTH_FEED
from brokers.contract import (
    BadRow,
    DecodeError,
    ErrorKind,
    Feed,
    Handshake,
    HttpRequest,
    HttpResponse,
    MasterError,
    Notice,
    NoticeKind,
    Refused,
    Reply,
    Session,
)
from marketdata.ticks import Mode, Segment, Token
from tests.adapters.conformance import FOLDER, credentials_of

SBIN = Token(Segment.NSE, "nse_cm|3045|NSE:SBIN-EQ")
GOLD = Token(Segment.MCX, "mcx_fo|423456|MCX:GOLD24JUNFUT")
NIFTY = Token(Segment.NSE_INDEX, "nse_cm|Nifty 50|NSE:NIFTY50-INDEX")
CREDENTIALS = credentials_of(ADAPTER) | {"app_secret": "secret", "redirect_uri": "https://me.example/back"}
NOW_MS = 1_763_978_340_000


def jwt(**claims: object) -> str:
    coded = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{coded}.c2ln"


def opened(credentials: Mapping[str, str], feed: Feed = DATA_FEED) -> Handshake:
    with pytest.raises(StopIteration) as stop:
        next(ADAPTER.open(feed, credentials, feed.endpoint, NOW_MS))
    handshake: Handshake = stop.value.value
    return handshake


def topics(frame: object) -> tuple[int, list[str]]:
    """The kind of a subscription frame and its topics, by the documented offsets."""
    assert isinstance(frame, bytes)
    block = frame[7 : 7 + int.from_bytes(frame[5:7], "big")]
    assert frame[-4:] == b"\x02\x00\x01\x0b"
    found, at = [], 2
    while at < len(block):
        found.append(block[at + 1 : at + 1 + block[at]].decode())
        at += 1 + block[at]
    assert len(found) == int.from_bytes(block[:2], "big")
    return frame[2], found


# --------------------------------------------------------------------------------------------------------------- login


def test_the_data_socket_is_opened_by_the_key_inside_the_token() -> None:
    handshake = opened({"app_id": "A-100", "access_token": jwt(exp=NOW_MS // 1000 + 1, hsm_key="KEY")})
    assert handshake.url == "wss://socket.fyers.in/hsm/v1-5/prod"
    assert [frame.hex() for frame in handshake.first_frames if isinstance(frame, bytes)] == [
        "002001040100034b4559020001500300010104000d73747265616d70726f6a656374",
        "00000c02010008000000000000080002000146",
    ]


def test_the_token_may_have_its_app_before_it() -> None:
    token = jwt(exp=0, hsm_key="KEY")
    assert opened({"app_id": "A-100", "access_token": f"A-100:{token}"}).first_frames[0][7:10] == b"KEY"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (jwt(exp=NOW_MS // 1000, hsm_key="KEY"), "expired"),
        (jwt(exp=NOW_MS // 1000 + 9), "no key for market data"),
        ("e30.e30", "no such token"),
        ("a.b.c", "no such token"),
        ("a.W10.c", "no such token"),
        ("ü.ü.ü", "no such token"),
    ],
)
def test_a_token_that_cannot_work_is_not_tried(token: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        next(ADAPTER.open(DATA_FEED, {"app_id": "A-100", "access_token": token}, DATA_FEED.endpoint, NOW_MS))
    assert refused.value.kind is ErrorKind.AUTH


def test_the_tick_by_tick_socket_is_where_the_broker_says() -> None:
    steps = ADAPTER.open(DEPTH_FEED, CREDENTIALS, DEPTH_FEED.endpoint, NOW_MS)
    request = next(steps)
    header = f"ABCD1234XX-100:{CREDENTIALS['access_token']}"
    assert request == HttpRequest(
        method="GET", url="https://api-t1.fyers.in/indus/home/tbtws", headers={"Authorization": header}
    )
    with pytest.raises(StopIteration) as stop:
        steps.send(HttpResponse(status=200, body=b'{"data":{"socket_url":"wss://tbt.example/x"},"s":"ok"}'))
    handshake: Handshake = stop.value.value
    assert (handshake.url, handshake.headers) == ("wss://tbt.example/x", {"Authorization": header})
    assert handshake.first_frames == ('{"type":2,"data":{"resumeChannels":["1"],"pauseChannels":[]}}',)


@pytest.mark.parametrize(
    "answer", [(500, b""), (200, b"{}"), (200, b"[]"), (200, b'{"data":{"socket_url":"ws://plain.example"}}')]
)
def test_without_a_usable_answer_the_tick_by_tick_socket_is_at_its_usual_place(answer: tuple[int, bytes]) -> None:
    steps = ADAPTER.open(DEPTH_FEED, CREDENTIALS, DEPTH_FEED.endpoint, NOW_MS)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send(HttpResponse(status=answer[0], body=answer[1]))
    assert stop.value.value.url == "wss://rtsocket-api.fyers.in/versova"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_told_before_the_tick_by_tick_socket_opens(status: int) -> None:
    steps = ADAPTER.open(DEPTH_FEED, CREDENTIALS, DEPTH_FEED.endpoint, NOW_MS)
    next(steps)
    with pytest.raises(Refused) as refused:
        steps.send(HttpResponse(status=status, body=b""))
    assert refused.value.kind is ErrorKind.AUTH


# ------------------------------------------------------------------------------------------------------- subscriptions


def test_prices_are_one_topic_and_a_book_is_one_more_which_an_index_does_not_have() -> None:
    session = ADAPTER.session(DATA_FEED)
    [frame] = session.subscribe([SBIN, NIFTY], Mode.LTP)
    assert topics(frame) == (4, ["sf|nse_cm|3045", "if|nse_cm|Nifty 50"])
    assert session.subscribe([SBIN], Mode.QUOTE) == []  # the same topic
    [frame] = session.subscribe([SBIN, NIFTY, GOLD], Mode.DEPTH)
    assert topics(frame) == (4, ["dp|nse_cm|3045", "sf|mcx_fo|423456", "dp|mcx_fo|423456"])


def test_a_lower_mode_ends_the_book_and_an_unsubscription_ends_all() -> None:
    session = ADAPTER.session(DATA_FEED)
    session.subscribe([SBIN, GOLD], Mode.DEPTH)
    [frame] = session.subscribe([SBIN], Mode.QUOTE)
    assert topics(frame) == (5, ["dp|nse_cm|3045"])
    [frame] = session.unsubscribe([SBIN], Mode.QUOTE)
    assert topics(frame) == (5, ["sf|nse_cm|3045"])
    [frame] = session.unsubscribe([GOLD], Mode.DEPTH)
    assert topics(frame) == (5, ["sf|mcx_fo|423456", "dp|mcx_fo|423456"])
    assert session.unsubscribe([GOLD], Mode.DEPTH) == []


def test_the_documented_subscription_is_made_byte_by_byte() -> None:
    [frame] = ADAPTER.session(DATA_FEED).subscribe([SBIN], Mode.LTP)
    assert frame == bytes.fromhex("001a040201001100010e73667c6e73655f636d7c333034350200010b")
    assert ADAPTER.session(DATA_FEED).heartbeat() == bytes.fromhex("00010b")


def test_what_is_subscribed_comes_back_under_its_own_token() -> None:
    session = ADAPTER.session(DATA_FEED)
    session.subscribe([SBIN], Mode.DEPTH)
    for name in ("share_snapshot", "book"):
        frame = (FOLDER / "fyers" / "frames" / f"{name}.hex").read_text().split()[0]
        [update] = session.decode(bytes.fromhex(frame))
        assert update.token == SBIN


def test_the_tick_by_tick_socket_wants_tickers() -> None:
    session = ADAPTER.session(DEPTH_FEED)
    [frame] = session.subscribe([SBIN], Mode.DEPTH50)
    assert frame == '{"type":1,"data":{"subs":1,"symbols":["NSE:SBIN-EQ"],"mode":"depth","channel":"1"}}'
    [frame] = session.unsubscribe([SBIN], Mode.DEPTH50)
    assert json.loads(frame)["data"]["subs"] == -1
    assert session.heartbeat() == "ping"


# ------------------------------------------------------------------------------------------------- replies and notices


def data(number: int) -> bytes:
    return struct.pack(">HBIH", 7, 6, number, 0)


def logged_in(every: int) -> Session:
    session = ADAPTER.session(DATA_FEED)
    reply = bytes.fromhex("000d 01 02 01 0001 4b 02 0004") + struct.pack(">I", every)
    assert session.decode(reply) == [Notice(kind=NoticeKind.CONFIRMED, text="Logged in.")]
    return session


def test_every_nth_data_message_is_acknowledged_by_its_number() -> None:
    session = logged_in(3)
    replies = [session.decode(data(number)) for number in range(48, 54)]
    assert replies == [
        [],
        [],
        [Reply(bytes.fromhex("0009030101000400000032"))],
        [],
        [],
        [Reply(bytes.fromhex("0009030101000400000035"))],
    ]


def test_without_a_wish_for_acknowledgements_there_are_none() -> None:
    session = logged_in(0)
    assert [session.decode(data(number)) for number in range(5)] == [[]] * 5


def test_a_damaged_message_is_acknowledged_too() -> None:
    session = logged_in(1)
    with pytest.raises(DecodeError) as damage:
        session.decode(struct.pack(">HBIH", 8, 6, 50, 1) + b"Z")
    assert damage.value.events == (Reply(bytes.fromhex("0009030101000400000032")),)


def test_a_refused_login_ends_the_connection_for_good() -> None:
    [notice] = ADAPTER.session(DATA_FEED).decode(bytes.fromhex("0006 01 01 01 0001 4e"))
    assert isinstance(notice, Notice)
    assert (notice.kind, notice.error, notice.fatal) == (NoticeKind.ERROR, ErrorKind.AUTH, True)


@pytest.mark.parametrize(
    ("hexed", "kind", "error"),
    [
        ("0006 04 01 01 0001 4b", NoticeKind.CONFIRMED, None),
        ("0006 04 01 01 0001 4e", NoticeKind.ERROR, ErrorKind.PROTOCOL),
        ("0006 0c 01 01 0001 4e", NoticeKind.ERROR, ErrorKind.PROTOCOL),
        ("0012 33 02 01 0004 0000c739 02 0006 746f6f206d79", NoticeKind.ERROR, ErrorKind.LIMIT),
        ("0012 33 02 01 0004 00000001 02 0006 68656c6c6f21", NoticeKind.MESSAGE, None),
        ("00010b", NoticeKind.HEARTBEAT, None),
    ],
)
def test_the_control_frames_are_told_apart(hexed: str, kind: NoticeKind, error: ErrorKind | None) -> None:
    [notice] = ADAPTER.session(DATA_FEED).decode(bytes.fromhex(hexed))
    assert isinstance(notice, Notice)
    assert (notice.kind, notice.error, notice.fatal) == (kind, error, False)


@pytest.mark.parametrize("frame", ["text", b"", b"\0\0", bytes.fromhex("0006040101"), bytes.fromhex("00040601")])
def test_what_is_no_frame_is_damaged(frame: bytes | str) -> None:
    with pytest.raises(DecodeError):
        ADAPTER.session(DATA_FEED).decode(frame)


def test_the_tick_by_tick_sockets_words() -> None:
    session = ADAPTER.session(DEPTH_FEED)
    assert session.decode("pong") == [Notice(kind=NoticeKind.HEARTBEAT)]
    assert session.decode("hello") == [Notice(kind=NoticeKind.MESSAGE, text="hello")]
    bad = Notice(kind=NoticeKind.ERROR, error=ErrorKind.PROTOCOL, text="bad symbol")
    assert session.decode(bytes.fromhex("0808220a6261642073796d626f6c2801")) == [bad]
    limit = Notice(kind=NoticeKind.ERROR, error=ErrorKind.LIMIT, text="limit")
    assert session.decode(bytes.fromhex("080822056c696d69742801")) == [limit]
    assert session.decode(bytes.fromhex("080822056c696d6974")) == [Notice(kind=NoticeKind.MESSAGE, text="limit")]
    for frame in (b"\xff", bytes.fromhex("0806 1209 0a0141 1204 2a020801")):
        with pytest.raises(DecodeError):
            session.decode(frame)


def test_a_book_that_is_no_longer_subscribed_begins_anew() -> None:
    session = ADAPTER.session(DEPTH_FEED)
    whole = bytes.fromhex((FOLDER / "fyers" / "frames" / "depth50" / "public_snapshot.hex").read_text())
    session.subscribe([SBIN], Mode.DEPTH50)
    [first] = session.decode(whole)
    assert first.token == SBIN
    session.unsubscribe([SBIN], Mode.DEPTH50)
    # a message without a level
    feed = b"\x2a\x00" + b"\x42\x0e" + b"10100000003045"
    empty = b"\x12" + bytes([len(feed) + 2 + 13]) + b"\x0a\x0bNSE:SBIN-EQ\x12" + bytes([len(feed)]) + feed
    [later] = session.decode(empty)
    assert not any(level.quantity for level in later.depth.buy)


# -------------------------------------------------------------------------------------------------------------- master

LINE = (
    "101124032853590,NIFTY 28 Mar 24 20800 CE,14,50,0.05,,0915-1530|1815-1915:,2024-03-27,1711620000,"
    "NSE:NIFTY24MAR20800CE,10,11,53590,NIFTY,26000,20800.0,CE,101000000026000,None,0,0.0"
)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("10112403", "99992403", "fytoken"),
        ("101124032853590", "1011240328", "fytoken"),
        ("NIFTY 28 Mar 24 20800 CE", "NIFTY", "Symbol Details"),
        ("1711620000", "", "Expiry date"),
        ("1711620000", "soon", "could not convert"),
        ("1711620000", "1e300", "no time"),
        ("1711620000", "nan", "NaN"),
        (",CE,", ",XE,", "Option type"),
        ("20800.0", "much", "could not convert"),
        ("20800.0", "nan", "Strike price"),
        (",50,0.05", ",50,inf", "Tick size"),
        ("NSE:NIFTY24MAR20800CE", "NIFTY24MAR20800CE", "ticker"),
        (",50,0.05", ",lot,0.05", "could not convert"),
        (",50,0.05", ",-50,0.05", "lot size"),
        (",0,0.0", ",0", "20 columns"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(old: str, new: str, reason: str) -> None:
    _, row = ADAPTER.parse_instruments(f"{LINE}\n{LINE.replace(old, new, 1)}\n".encode(), "NSE_FO")
    assert isinstance(row, BadRow)
    assert row.line == 2
    assert reason in row.reason


def test_a_bad_record_of_json_spoils_no_other() -> None:
    body = (FOLDER / "fyers" / "master-MCX_COM.json").read_text()
    spoilt = body.replace('"optType": "XX"', '"optType": "??"').replace('"strikePrice": 6750.0', '"strikePrice": "x"')
    good = json.loads(body)["MCX:GOLD24JUNFUT"]
    rows = list(ADAPTER.parse_instruments(json.dumps(json.loads(spoilt) | {"more": good}).encode(), "MCX_COM"))
    assert [isinstance(row, BadRow) for row in rows] == [True, True, False]


def test_a_market_without_instruments_has_a_file_without_rows() -> None:
    assert list(ADAPTER.parse_instruments(b"\n", "BSE_FO")) == []
    assert list(ADAPTER.parse_instruments(b"{}", "NSE_CD")) == []


def test_a_file_must_be_named() -> None:
    with pytest.raises(MasterError, match="NSE_CM"):
        list(ADAPTER.parse_instruments(LINE.encode()))
