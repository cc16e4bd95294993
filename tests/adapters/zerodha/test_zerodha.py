"""What is Zerodha's alone: its frames, its login, its master's odd rows."""

from __future__ import annotations

import json

import pytest

from brokers.adapters.zerodha import ADAPTER, codec, master
from brokers.contract import BadRow, DecodeError, ErrorKind, InstrumentRow, Notice, NoticeKind
from marketdata.ticks import Mode, Segment, Token

FEED = ADAPTER.spec.feeds[0]
CREDENTIALS = {"api_key": "key", "api_secret": "secret", "access_token": "to/ken"}
HEADER = ",".join(master.COLUMNS)


def test_the_credentials_go_into_the_query_escaped() -> None:
    with pytest.raises(StopIteration) as stop:
        next(ADAPTER.open(FEED, CREDENTIALS, FEED.endpoint, 0))
    assert stop.value.value.url == "wss://ws.kite.trade/?api_key=key&access_token=to%2Fken"
    assert stop.value.value.headers == {"X-Kite-Version": "3"}


def test_subscribing_sets_the_mode_too() -> None:
    session = ADAPTER.session(FEED)
    frames = session.subscribe([Token(Segment.NSE, "408065"), Token(Segment.INDEX, "256265")], Mode.DEPTH)
    assert [json.loads(frame) for frame in frames] == [
        {"a": "subscribe", "v": [408065, 256265]},
        {"a": "mode", "v": ["full", [408065, 256265]]},
    ]


def test_the_text_frames_are_told_apart() -> None:
    [error] = codec.decode('{"type": "error", "data": "limit exceeded"}')
    assert error == Notice(kind=NoticeKind.ERROR, error=ErrorKind.LIMIT, text="limit exceeded")
    [message] = codec.decode('{"type": "message", "data": "hello"}')
    assert message == Notice(kind=NoticeKind.MESSAGE, text="hello")
    assert codec.decode('{"type": "order", "data": {}}') == []
    with pytest.raises(DecodeError):
        codec.decode("no json")


def test_a_packet_of_an_unknown_segment_costs_only_itself() -> None:
    good = codec._LTP.pack(408065, 157370)
    bad = codec._LTP.pack((5 << 8) | 200, 1)
    with pytest.raises(DecodeError, match="200") as damage:
        codec.decode(b"\x00\x03\x00\x08" + good + b"\x00\x08" + bad + b"\x00\x08" + good)
    assert len(damage.value.events) == 2


def test_the_masters_rules_give_canonical_symbols() -> None:
    lines = [
        HEADER,
        "256265,1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE",
        "265,1,SENSEX,SENSEX,0,,0,0,0,EQ,INDICES,BSE",
        "3813889,14898,CENTRALBK-BE,CENTRAL BANK OF INDIA,0.0,,0.0,0.05,1,EQ,NSE,NSE",
        "13719042,53590,NIFTY24MAR20800CE,NIFTY,0.0,2024-03-28,20800.0,0.05,50,CE,NFO-OPT,NFO",
        "13719298,53591,VEDL24APR292.5CE,VEDL,0.0,2024-04-25,292.5,0.05,50,CE,NFO-OPT,NFO",
        "291849,1140,GIFT NIFTY,GIFT NIFTY,0,,0,0,0,EQ,INDICES,NSEIX",
    ]
    rows = [row for row in master.parse("\n".join(lines).encode()) if isinstance(row, InstrumentRow)]
    assert [(row.symbol, row.exchange) for row in rows] == [
        ("NIFTY", "NSE_INDEX"),
        ("SENSEX", "BSE_INDEX"),
        ("CENTRALBK-BE", "NSE"),
        ("NIFTY28MAR2420800CE", "NFO"),
        ("VEDL25APR24292.5CE", "NFO"),
        ("GIFTNIFTY", "GLOBAL_INDEX"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,2,3", "columns"),
        ("x,1,SBIN,S,0,,0,0.05,1,EQ,NSE,NSE", "invalid literal"),
        ("779400,1,SBIN,S,0,,0,0.05,1,EQ,NSE,NSE", "segment"),
        ("779521,1,SBIN,S,0,,0,0.05,1,EQ,NSE,LSE", "exchange"),
        ("779521,1,,S,0,,0,0.05,1,EQ,NSE,NSE", "tradingsymbol"),
        ("779522,1,X,NIFTY,0,,0,0.05,1,FUT,NFO-FUT,NFO", "expiry"),
        ("779522,1,X,NIFTY,0,2024-02-31,0,0.05,1,FUT,NFO-FUT,NFO", "day"),
        ("779522,1,X,NIFTY,0,2024-02-20,0,0.05,1,SWAP,NFO-FUT,NFO", "instrument_type"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(line: str, reason: str) -> None:
    [row] = master.parse(f"{HEADER}\n{line}\n".encode())
    assert isinstance(row, BadRow)
    assert row.line == 2
    assert reason in row.reason
