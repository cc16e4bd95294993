"""
The same bytes through fyers_apiv3's own parsers and through our sessions give the same values; the frames we send are
those it sends; its clients stream from our simulator.

Where the two differ on purpose a test below says so.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.adapters.fyers import ADAPTER, DATA_FEED, DEPTH_FEED, indices, market
from brokers.adapters.fyers.names import SCRIP, topics
from brokers.contract import DecodeError, Event, Notice, Reply, Session, Update
from brokers.framing import hsm
from brokers.schemas import fyers_tbt_pb2 as tbt
from brokers.simulators.fyers import FyersSimulator, access_token
from marketdata.ticks import Level, Mode, Segment, Token
from tests.adapters.conformance import samples
from tests.oracles.oracle import Oracle

ABSENT = -(2**31)
U32 = 0xFFFFFFFF
Said = tuple[str, dict[str, Any]]
"""A topic, and what it is said to be."""


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """The SDK, once for all frames."""
    fyers = Oracle("fyers")
    yield fyers
    fyers.close()


def ask(oracle: Oracle, **order: object) -> dict[str, Any]:
    return oracle.ask(json.dumps(order))


def events_of(session: Session, frames: list[bytes]) -> list[Event]:
    """All events, the good part of damaged frames too."""
    found: list[Event] = []
    for frame in frames:
        try:
            found += session.decode(frame)
        except DecodeError as damage:
            found += damage.events
    return found


# ----------------------------------------------------------------------------------------------------- the data socket

WIDTHS = {"sf": 21, "if": 6, "dp": 30}
TOPICS = (
    (1, "sf|nse_cm|3045"),
    (2, "sf|cde_fo|97266"),
    (258, "sf|mcx_fo|44063"),
    (4, "if|nse_cm|Nifty 50"),
    (5, "if|bse_cm|SENSEX"),
    (65535, "dp|nse_cm|3045"),
    (700, "dp|bse_fo|171281"),
)
VALUES = st.one_of(st.integers(1, 10**7), st.integers(ABSENT + 1, 2**31 - 1), st.just(0), st.just(ABSENT))
SCALES = st.sampled_from([(1, 2), (100, 2), (1, 4), (1000, 7), (65535, 9), (1, 0)])


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


@st.composite
def snapshots(draw: st.DrawFn, id_: int, name: str) -> bytes:
    """
    Always with a last price, and a close that is not 0: without the one the SDK fails at a lite entry, without the
    other it divides by zero for an index, and in both cases loses the rest of the frame.
    """
    kind = name[:2]
    values = draw(st.lists(VALUES, min_size=WIDTHS[kind], max_size=WIDTHS[kind]))
    values[0], values[1 if kind == "if" else -1] = draw(st.integers(1, 10**8)), draw(st.integers(1, 10**8))
    multiplier, precision = draw(SCALES)
    return b"".join(
        (
            struct.pack(">cH", b"S", id_) + short(name),
            struct.pack(f">B{len(values)}i", len(values), *values),
            draw(st.binary(min_size=2, max_size=2)) + struct.pack(">HB", multiplier, precision),
            short(draw(st.text(max_size=8))[:20].encode("ascii", "replace").decode()) + short("1") + short("A-B"),
        )
    )


@st.composite
def changes(draw: st.DrawFn, id_: int, name: str) -> bytes:
    """An update of all fields or of the first few; but for dp sometimes a lite entry; now and then a new snapshot."""
    kind = name[:2]
    what = draw(st.sampled_from(["U", "U", "U", "S", "L"]))
    if what == "S":
        return draw(snapshots(id_, name))
    if what == "L" and kind != "dp":
        return struct.pack(">cHi", b"L", id_, draw(VALUES))
    values = draw(st.lists(VALUES, min_size=1, max_size=WIDTHS[kind]))
    if kind == "if" and len(values) > 1 and not values[1]:
        values[1] = 1
    return update_entry(id_, values)


def update_entry(id_: int, values: list[int]) -> bytes:
    return struct.pack(f">cHB{len(values)}i", b"U", id_, len(values), *values)


UNKNOWN = st.lists(VALUES, max_size=30).map(lambda values: update_entry(9, values))


@st.composite
def data_sockets(draw: st.DrawFn) -> list[bytes]:
    """The data frames of a socket's life."""
    entries = [draw(snapshots(*topic)) for topic in draw(st.permutations(TOPICS))]
    frames = [data_frame(draw(st.integers(0, U32)), entries)]
    for _ in range(draw(st.integers(1, 5))):
        some = st.lists(st.one_of(*[changes(*topic) for topic in TOPICS], UNKNOWN), max_size=6)
        frames.append(data_frame(draw(st.integers(0, U32)), draw(some)))
    return frames


def data_frame(number: int, entries: list[bytes]) -> bytes:
    body = struct.pack(">BIH", 6, number, len(entries)) + b"".join(entries)
    return struct.pack(">H", len(body)) + body


def ours(events: list[Event]) -> list[Said]:
    """Our updates under the SDK's names, without what is not known."""
    return [as_fyers(event) for event in events if isinstance(event, Update)]


def as_fyers(update: Update) -> Said:
    price, book = topics(update.token)
    if update.depth is not None:
        rows = {"bid": update.depth.buy, "ask": update.depth.sell}
        return book, {
            f"{side}_{what}{number}": getattr(level, field)
            for side, levels in rows.items()
            for number, level in enumerate(levels, start=1)
            for what, field in (("price", "price"), ("size", "quantity"), ("order", "orders"))
        }
    named = {
        "ltp": update.ltp,
        "open_price": update.open,
        "high_price": update.high,
        "low_price": update.low,
        "prev_close_price": update.close,
        "exch_feed_time": update.exchange_ms and update.exchange_ms // 1000,
        "last_traded_time": update.last_trade_ms and update.last_trade_ms // 1000,
        "last_traded_qty": update.ltq,
        "vol_traded_today": update.volume,
        "avg_trade_price": update.average_price,
        "tot_buy_qty": update.total_buy_quantity,
        "tot_sell_qty": update.total_sell_quantity,
        "OI": update.oi,
        "upper_ckt": update.upper_circuit,
        "lower_ckt": update.lower_circuit,
    }
    return price, {name: value for name, value in named.items() if value is not None}


QUANTITIES = ("last_traded_qty", "vol_traded_today", "tot_buy_qty", "tot_sell_qty", "OI")
TIMES = ("exch_feed_time", "last_traded_time")
LEFT_OUT = frozenset(
    {"bid_size", "ask_size", "bid_price", "ask_price", "Yhigh", "Ylow", "type", "symbol", "ch", "chp", "exchange",
     "exchange_token", "multiplier", "precision"}
)  # fmt: skip


def theirs(told: list[dict[str, Any]]) -> list[Said]:
    return [as_ours(one["said"], one["raw"]) for one in told if "symbol" in one["said"]]


def as_ours(said: dict[str, Any], raw: dict[str, Any]) -> Said:
    """
    The SDK's message without what it derives or we leave out. What it withholds (open interest, circuits, which it sets
    to 0) is taken from its raw state. Quantities are unsigned here, and a time before 1970 is none.
    """
    topic = said["symbol"]
    if topic.startswith("dp"):
        columns = [f"{side}_{what}" for side in ("bid", "ask") for what in ("price", "size", "order")]
        values = {f"{column}{at}": said.get(f"{column}{at}", 0) for column in columns for at in range(1, 6)}
        return topic, {name: value if "price" in name else value & U32 for name, value in values.items()}
    values = {name: value for name, value in said.items() if name not in LEFT_OUT | {"upper_ckt", "lower_ckt"}}
    if topic.startswith(SCRIP):
        divisor = 10 ** raw["precision"] * raw["multiplier"]
        values |= {name: raw[name] / divisor for name in ("upper_ckt", "lower_ckt") if name in raw}
        values |= {"OI": raw["OI"]} if "OI" in raw else {}
    values |= {name: values[name] & U32 for name in QUANTITIES if name in values}
    return topic, {name: value for name, value in values.items() if name not in TIMES or value > 0}


def distinct(said: list[Said]) -> list[Said]:
    """Without what is as before for its topic: the SDK tells only of changes, and of fields that we leave out too."""
    latest: dict[str, dict[str, Any]] = {}
    kept = []
    for topic, values in said:
        if latest.get(topic) != values:
            kept.append((topic, values))
        latest[topic] = values
    return kept


@given(data_sockets())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_field_of_every_topic_is_what_the_sdk_reads(oracle: Oracle, frames: list[bytes]) -> None:
    answer = ask(oracle, market=[frame.hex() for frame in frames])
    assert answer["failed"] == []
    assert distinct(ours(events_of(ADAPTER.session(DATA_FEED), frames))) == distinct(theirs(answer["told"]))


@pytest.mark.parametrize(
    "name", [sample.name for sample in samples("fyers") if sample.kind == "market" and sample.name != "unknown_entry"]
)
def test_recorded_frames_are_what_the_sdk_reads(oracle: Oracle, name: str) -> None:
    """
    But for `unknown_entry`, where the SDK asks for no market, and `share_updates`, whose second frame ends for the SDK
    at a lite entry of an unknown id.
    """
    [sample] = [one for one in samples("fyers") if (one.kind, one.name) == ("market", name)]
    told = theirs(ask(oracle, market=[frame.hex() for frame in sample.frames if isinstance(frame, bytes)])["told"])
    read = distinct(ours(events_of(sample.session(), [one for one in sample.frames if isinstance(one, bytes)])))
    if name == "share_updates":
        del read[2]
        read[-1][1]["vol_traded_today"] = 9876643
    assert read == distinct(told)


@given(st.integers(0, 4), st.lists(st.integers(0, U32), max_size=12))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_messages_are_acknowledged(oracle: Oracle, every: int, numbers: list[int]) -> None:
    login = bytes.fromhex("000d 01 02 01 0001 4b 02 0004") + struct.pack(">I", every)
    frames = [login, *(data_frame(number, []) for number in numbers)]
    replies = [one for one in events_of(ADAPTER.session(DATA_FEED), frames) if isinstance(one, Reply)]
    answers = ask(oracle, market=[frame.hex() for frame in frames])["answers"]
    assert [one.frame.hex() for one in replies if isinstance(one.frame, bytes)] == answers


def test_the_servers_own_messages_have_the_code_and_the_text_that_the_sdk_reads(oracle: Oracle) -> None:
    frame = bytes.fromhex("0012 33 02 01 0004 0000c739 02 0006 746f6f206d79")
    [failure] = ask(oracle, market=[frame.hex()])["failed"]
    [notice] = events_of(ADAPTER.session(DATA_FEED), [frame])
    assert isinstance(notice, Notice)
    assert (failure["code"], failure["message"]) == (market.TOO_MANY, notice.text)


def test_the_frames_we_send_are_those_that_the_sdk_sends(oracle: Oracle) -> None:
    """But for a subscription's length, where the SDK counts things that are not in it; the server does not look."""
    tokens = [Token(Segment.NSE, "nse_cm|3045|NSE:SBIN-EQ"), Token(Segment.NSE_INDEX, "nse_cm|Nifty 50|X")]
    wanted = ["sf|nse_cm|3045", "dp|nse_cm|3045", "if|nse_cm|Nifty 50"]
    sent = ask(oracle, frames={"key": "KEY", "source": "streamproject", "topics": wanted, "message": 4_000_000_000})
    session = ADAPTER.session(DATA_FEED)
    [begin], [end] = session.subscribe(tokens, Mode.DEPTH), session.unsubscribe(tokens, Mode.DEPTH)
    assert isinstance(begin, bytes)
    assert isinstance(end, bytes)
    assert market.encode_auth("KEY").hex() == sent["auth"]
    assert hsm.encode_mode(hsm.FULL, market.CHANNEL).hex() == sent["full"]
    assert hsm.encode_acknowledgement(4_000_000_000).hex() == sent["acknowledge"]
    assert begin.hex()[4:] == sent["subscribe"][4:]
    assert len(end) == int.from_bytes(end[:2], "big") + 2
    assert sorted(end.hex()[4:]) == sorted(sent["unsubscribe"][4:])


def test_a_lite_entry_of_an_unknown_id_is_passed_over_here_and_loses_the_sdk_its_place(oracle: Oracle) -> None:
    """The SDK reads the id and leaves the value standing, which it then takes for the next entry's kind."""
    [sample] = [one for one in samples("fyers") if one.name == "share_snapshot"]
    known = sample.frames[0]
    assert isinstance(known, bytes)
    entries = [struct.pack(">cHi", b"L", 77, 1), struct.pack(">cHBi", b"U", 1, 1, 106900)]
    frames = [known, data_frame(2, entries)]
    assert [update.ltp for update in events_of(sample.session(), frames) if isinstance(update, Update)] == [
        1068.45,
        1069.0,
    ]
    assert len(ask(oracle, market=[frame.hex() for frame in frames])["told"]) == 1


def test_an_index_of_8_fields_has_its_year_beside_it_here_and_a_number_as_its_type_there(oracle: Oracle) -> None:
    """The server's own schema calls fields 6 and 7 the year's high and low; the SDK calls them type and symbol."""
    values = [2618810, 2621605, 1727428424, 2627735, 2616695, 2624825, 2700000, 2100000]
    entry = b"S\0\x05" + short("if|nse_cm|Nifty 50") + struct.pack(">B8i", 8, *values) + bytes.fromhex("0000000102")
    frame = data_frame(1, [entry + short("nse_cm") + short("26000") + short("Nifty 50")])
    [update] = events_of(ADAPTER.session(DATA_FEED), [frame])
    assert isinstance(update, Update)
    assert (update.ltp, update.open) == (26188.1, 26248.25)
    [told] = ask(oracle, market=[frame.hex()])["told"]
    assert (told["said"]["ltp"], told["said"]["open_price"]) == (26188.1, 26248.25)


# ---------------------------------------------------------------------------------------------- the tick-by-tick socket

TICKERS = {"NSE:SBIN-EQ": "10100000003045", "NSE:NIFTY25NOVFUT": "101125112553590"}


@st.composite
def levels(draw: st.DrawFn, place: int | None) -> tbt.MarketLevel:
    """One at its place with everything; or anywhere, with anything missing."""
    level = tbt.MarketLevel()
    price = st.one_of(st.integers(0, 10**8), st.integers(-(2**63), 2**63 - 1))
    fields = (("price", price), ("qty", st.integers(0, U32)), ("nord", st.integers(0, U32)))
    for name, numbers in fields:
        if place is not None or draw(st.booleans()):
            getattr(level, name).value = draw(numbers)
            getattr(level, name).SetInParent()
    if place is not None or draw(st.booleans()):
        level.num.value = draw(st.integers(0, 60)) if place is None else place
        level.num.SetInParent()
    return level


@st.composite
def messages(draw: st.DrawFn, *, is_whole: bool) -> bytes:
    message = tbt.SocketMessage(type=tbt.depth, snapshot=is_whole)
    for ticker, fytoken in TICKERS.items():
        if not is_whole and draw(st.booleans()):
            continue
        feed = message.feeds[ticker]
        feed.ticker, feed.token, feed.sequence_no = ticker, fytoken, draw(st.integers(0, 2**64 - 1))
        feed.feed_time.value = draw(st.integers(0, 2**32))
        for side in (feed.depth.bids, feed.depth.asks):
            if is_whole:
                side.extend(draw(levels(place)) for place in range(50))
            else:
                side.extend(draw(levels(None)) for _ in range(draw(st.integers(0, 5))))
        for name in ("tbq", "tsq"):
            if is_whole or draw(st.booleans()):
                getattr(feed.depth, name).value = draw(st.integers(0, 2**64 - 1))
                getattr(feed.depth, name).SetInParent()
        feed.depth.SetInParent()
    return message.SerializeToString()


@st.composite
def depth_sockets(draw: st.DrawFn) -> list[bytes]:
    """A whole book of each, then parts, now and then another whole one."""
    return [draw(messages(is_whole=True))] + [
        draw(messages(is_whole=draw(st.integers(0, 9)) == 0)) for _ in range(draw(st.integers(1, 4)))
    ]


def as_book(update: Update, ticker: str) -> dict[str, Any]:
    """A book under the SDK's names."""
    assert update.depth is not None
    sides = {"bid": update.depth.buy, "ask": update.depth.sell}
    lists = {
        f"{side}{what}": [pick(level) for level in rows]
        for side, rows in sides.items()
        for what, pick in (("price", _price), ("qty", _quantity), ("ordn", _orders))
    }
    seconds = update.exchange_ms // 1000 if update.exchange_ms else 0
    return {
        "ticker": ticker,
        "tbq": update.total_buy_quantity,
        "tsq": update.total_sell_quantity,
        "time": seconds,
    } | lists


def _price(level: Level) -> float:
    return level.price


def _quantity(level: Level) -> int:
    return level.quantity


def _orders(level: Level) -> int:
    return level.orders


@given(depth_sockets())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_level_of_every_book_is_what_the_sdk_reads(oracle: Oracle, frames: list[bytes]) -> None:
    updates = [one for one in events_of(ADAPTER.session(DEPTH_FEED), frames) if isinstance(one, Update)]
    told = ask(oracle, depth=[frame.hex() for frame in frames])["told"]
    assert len(told) == len(updates)
    for ticker in TICKERS:
        read = [as_book(update, ticker) for update in updates if update.token.number.endswith(f"|{ticker}")]
        assert read == [book for book in told if book["ticker"] == ticker]


def test_a_book_from_public_material_is_what_the_sdk_reads(oracle: Oracle) -> None:
    [sample] = [one for one in samples("fyers") if one.name == "public_snapshot"]
    [frame] = sample.frames
    assert isinstance(frame, bytes)
    [update] = events_of(sample.session(), [frame])
    assert isinstance(update, Update)
    assert [as_book(update, "NSE:SBIN-EQ")] == ask(oracle, depth=[frame.hex()])["told"]


def test_a_second_whole_book_replaces_the_first_here_and_is_laid_over_it_there(oracle: Oracle) -> None:
    """The SDK ignores the mark of a snapshot: levels that are not in it stay, and a book may cross itself."""
    [sample] = [one for one in samples("fyers") if one.name == "differences"]
    frames = [frame for frame in sample.frames if isinstance(frame, bytes)]
    last = [one for one in events_of(sample.session(), frames) if isinstance(one, Update)][-1]
    book = ask(oracle, depth=[frame.hex() for frame in frames])["told"][-1]
    assert last.depth is not None
    assert (last.depth.buy[0].price, book["bidprice"][0]) == (24999.0, 24999.0)
    assert (last.depth.buy[1].price, book["bidprice"][1]) == (0.0, 24999.9)


def test_our_schema_is_the_sdks(oracle: Oracle) -> None:
    file = tbt.DESCRIPTOR
    assert ask(oracle, schema=1) == {
        "enums": {
            name: {value.name: value.number for value in one.values} for name, one in file.enum_types_by_name.items()
        },
        "messages": {
            name: {field.name: [field.number, field.type] for field in message.fields}
            for name, message in file.message_types_by_name.items()
        },
    }


# ----------------------------------------------------------------------------------- the SDK's clients, our simulator


async def live(oracle: Oracle, sim: FyersSimulator, token: str, **order: object) -> dict[str, Any]:
    place = {"rest": sim.http_url, "url": f"{sim.url}/hsm/v1-5/prod", "token": token, "count": 10}
    return await asyncio.to_thread(ask, oracle, live=place | order)


async def test_the_sdks_data_client_streams_from_the_simulator(oracle: Oracle) -> None:
    symbols = ["NSE:SBIN-EQ", "NSE:NIFTY50-INDEX", "BSE:SENSEX-INDEX", "BSE:SBIN-A"]
    async with FyersSimulator(rate=200, symbols=None, seed=1) as sim:
        order = {"symbols": symbols, "books": ["NSE:SBIN-EQ"], "kind": "market"}
        told = await live(oracle, sim, access_token("demo", "demo-token"), **order)
        held = [entry["tokens"] for entry in sim.entries("subscribe")]
        acknowledged = sim.entries("acknowledge")
    assert told["errors"] == []
    kinds = {message["type"] for message in told["messages"]}
    assert {"cn", "ful", "sub", "sf", "if", "dp", "unsub"} <= kinds
    prices = [message for message in told["messages"] if message["type"] == "sf"]
    assert {message["symbol"] for message in prices} == {"NSE:SBIN-EQ", "BSE:SBIN-A"}
    assert all(700 < message["ltp"] < 900 for message in prices)
    indices_seen = [message for message in told["messages"] if message["type"] == "if"]
    assert {message["symbol"] for message in indices_seen} <= {"NSE:NIFTY50-INDEX", "BSE:SENSEX-INDEX"}
    books = [message for message in told["messages"] if message["type"] == "dp"]
    assert all(message["bid_price1"] < message["ask_price1"] for message in books)
    assert len(held[0]) == 4
    assert acknowledged


async def test_the_sdks_data_client_is_told_of_a_wrong_token(oracle: Oracle) -> None:
    async with FyersSimulator(rate=0, seed=1) as sim:
        order = {"symbols": ["NSE:SBIN-EQ"], "books": [], "kind": "market"}
        told = await live(oracle, sim, access_token("demo", "wrong"), **order)
        assert sim.stats()["refused_logins"] == 1
    assert "Authentication failed" in told["errors"][0]


async def test_the_sdks_depth_client_streams_from_the_simulator(oracle: Oracle) -> None:
    async with FyersSimulator(rate=50, symbols=None, seed=1) as sim:
        order = {"symbols": ["NSE:SBIN-EQ", "NSE:INFY-EQ"], "kind": "depth"}
        told = await live(oracle, sim, f"demo:{access_token('demo', 'demo-token')}", **order)
    assert told["errors"] == []
    assert {book["ticker"] for book in told["messages"]} == {"NSE:SBIN-EQ", "NSE:INFY-EQ"}
    for book in told["messages"]:
        assert book["bidprice"] == sorted(book["bidprice"], reverse=True)
        assert book["askprice"] == sorted(book["askprice"])
        assert book["bidprice"][0] < book["askprice"][0]
        assert len(book["askqty"]) == 50


def test_names_of_indices_are_those_built_into_the_sdk(oracle: Oracle) -> None:
    built_in = ask(oracle, indices=1)
    assert len(built_in) > 150
    for ticker, name in built_in.items():
        exchange = ticker.partition(":")[0]
        assert indices.index_name(f"{exchange.lower()}_cm", ticker) == name
