"""
The same bytes through upstox_client's parser and through our decoder give the same values; and its streaming client,
against our simulator, gets what the simulator sends.

Frames are generated, of every kind of feed, several instruments a frame.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.adapters.upstox import codec
from brokers.contract import NoticeKind, Update
from brokers.schemas import upstox_pb2 as schema
from brokers.simulators.upstox import UpstoxSimulator
from tests.brokers.feed.bench import until
from tests.oracles.oracle import Oracle, OracleError

ONCE = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PRICES = st.one_of(st.just(0.0), st.floats(-1e9, 1e9, allow_nan=False), st.integers(1, 10**9).map(lambda n: n / 10_000))
UNITS = st.one_of(st.integers(0, 10**6), st.integers(-(2**63), 2**63 - 1))
TOTALS = st.one_of(st.just(0.0), st.integers(0, 2**53).map(float))
INSTANTS = st.one_of(st.just(0), st.integers(1, 2**63 - 1))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.tuples(st.sampled_from(sorted(codec.SEGMENTS)), TEXTS)
MODES = st.sampled_from([schema.ltpc, schema.full_d5, schema.option_greeks, schema.full_d30])


@st.composite
def lasts(draw: st.DrawFn) -> schema.LTPC:
    last = schema.LTPC(ltp=draw(PRICES), ltt=draw(INSTANTS), ltq=draw(UNITS), cp=draw(PRICES))
    if draw(st.booleans()):
        last.iep.value = draw(PRICES)
    return last


@st.composite
def quotes(draw: st.DrawFn) -> schema.Quote:
    return schema.Quote(bidQ=draw(UNITS), bidP=draw(PRICES), askQ=draw(UNITS), askP=draw(PRICES))


@st.composite
def candles(draw: st.DrawFn) -> schema.MarketOHLC:
    days = schema.MarketOHLC()
    for interval in draw(st.lists(st.sampled_from(["1d", "I1", "I30"]), unique=True)):
        prices = {name: draw(PRICES) for name in ("open", "high", "low", "close")}
        days.ohlc.add(interval=interval, vol=draw(UNITS), ts=draw(INSTANTS), **prices)
    return days


def greeks() -> st.SearchStrategy[schema.OptionGreeks]:
    return st.builds(schema.OptionGreeks, delta=PRICES, theta=PRICES, gamma=PRICES, vega=PRICES, rho=PRICES)


@st.composite
def markets(draw: st.DrawFn) -> schema.MarketFullFeed:
    part = st.booleans()
    return schema.MarketFullFeed(
        ltpc=draw(lasts()) if draw(part) else None,
        marketLevel=schema.MarketLevel(bidAskQuote=draw(st.lists(quotes(), max_size=7))) if draw(part) else None,
        optionGreeks=draw(greeks()) if draw(part) else None,
        marketOHLC=draw(candles()) if draw(part) else None,
        atp=draw(PRICES),
        vtt=draw(UNITS),
        oi=draw(TOTALS),
        iv=draw(PRICES),
        tbq=draw(TOTALS),
        tsq=draw(TOTALS),
        iep=draw(PRICES),
        rp=draw(PRICES),
        ieq=draw(UNITS),
        iiqTotal=draw(UNITS),
        iiqM=draw(UNITS),
        casEligible=draw(st.booleans()),
    )


@st.composite
def feeds(draw: st.DrawFn) -> schema.Feed:
    mode = draw(MODES)
    match draw(st.sampled_from(["ltpc", "market", "index", "first", "deep", "none"])):
        case "ltpc":
            return schema.Feed(ltpc=draw(lasts()), requestMode=mode)
        case "market":
            return schema.Feed(fullFeed=schema.FullFeed(marketFF=draw(markets())), requestMode=mode)
        case "index":
            index = schema.IndexFullFeed(ltpc=draw(lasts()), marketOHLC=draw(candles()))
            return schema.Feed(fullFeed=schema.FullFeed(indexFF=index), requestMode=mode)
        case "first":
            first = schema.FirstLevelWithGreeks(
                ltpc=draw(lasts()),
                firstDepth=draw(quotes()),
                optionGreeks=draw(greeks()),
                vtt=draw(UNITS),
                oi=draw(TOTALS),
            )
            return schema.Feed(firstLevelWithGreeks=first, requestMode=mode)
        case "deep":
            row = draw(quotes())
            level = schema.MarketLevel(bidAskQuote=[row] * 30)
            market = schema.MarketFullFeed(ltpc=draw(lasts()), marketLevel=level)
            return schema.Feed(fullFeed=schema.FullFeed(marketFF=market), requestMode=schema.full_d30)
        case _:
            return schema.Feed(requestMode=mode)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    held = draw(st.dictionaries(KEYS.map("|".join), feeds(), max_size=5))
    kind = draw(st.sampled_from([schema.initial_feed, schema.live_feed]))
    return schema.FeedResponse(type=kind, feeds=held, currentTs=draw(INSTANTS)).SerializeToString()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """The SDK, once for all frames."""
    upstox = Oracle("upstox")
    yield upstox
    upstox.close()


# ------------------------------------------------------------------------------------- the SDK's words, in ours


def theirs(packet: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The SDK's dictionary of a frame as fields of updates, by key. Its zeros are left out, its int64 are texts."""
    instant = int(packet.get("currentTs", 0)) or None
    said = {key: _fields(key, feed) for key, feed in packet.get("feeds", {}).items()}
    return {key: fields | {"exchange_ms": instant} for key, fields in said.items() if fields}


def _fields(key: str, feed: dict[str, Any]) -> dict[str, Any]:
    is_deep = feed.get("requestMode") == "full_d30"
    if "ltpc" in feed:
        return _last(feed, 1)
    if "firstLevelWithGreeks" in feed:
        first = feed["firstLevelWithGreeks"]
        rows = [first["firstDepth"]]
        return _last(first, 1) | {"volume": int(first.get("vtt", 0)) or None, "oi": _oi(key, first), **_book(rows)}
    full = feed.get("fullFeed", {})
    if "indexFF" in full:
        return _last(full["indexFF"], 30 if is_deep else 5) | {"ltq": None} | _day(full["indexFF"])
    if "marketFF" not in full:
        return {}
    market = full["marketFF"]
    return {
        **_last(market, 30 if is_deep else 5),
        **_day(market),
        "volume": int(market.get("vtt", 0)) or None,
        "average_price": market.get("atp", 0.0),
        "oi": _oi(key, market),
        "total_buy_quantity": int(market.get("tbq", 0)),
        "total_sell_quantity": int(market.get("tsq", 0)),
        **(_book(market["marketLevel"].get("bidAskQuote", [])) if "marketLevel" in market else {}),
    }


def _last(holder: dict[str, Any], mode: int) -> dict[str, Any]:
    if "ltpc" not in holder:
        return {"ltp": None, "close": None, "ltq": None, "last_trade_ms": None, "mode": None}
    last = holder["ltpc"]
    return {
        "ltp": last.get("ltp", 0.0),
        "close": last.get("cp", 0.0),
        "ltq": int(last.get("ltq", 0)) or None,
        "last_trade_ms": int(last.get("ltt", 0)) or None,
        "mode": mode,
    }


def _day(holder: dict[str, Any]) -> dict[str, Any]:
    days = [one for one in holder.get("marketOHLC", {}).get("ohlc", []) if one.get("interval") == "1d"]
    return {name: days[0].get(name, 0.0) for name in ("open", "high", "low")} if days else {}


def _oi(key: str, holder: dict[str, Any]) -> int | None:
    is_contract = key.split("|", maxsplit=1)[0] in {"NSE_FO", "NCD_FO", "BCD_FO", "BSE_FO", "MCX_FO", "NSE_COM"}
    return int(holder.get("oi", 0)) if is_contract else None


def _book(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sides = (("buy", "bid"), ("sell", "ask"))
    return {
        "depth": {
            side: [(row.get(f"{name}P", 0.0), int(row.get(f"{name}Q", 0)), 0) for row in rows] for side, name in sides
        }
    }


def ours(frame: bytes) -> dict[str, dict[str, Any]]:
    """Our updates by key, in plain values."""
    return {update.token.number: _plain(update) for update in codec.decode(frame) if isinstance(update, Update)}


def _plain(update: Update) -> dict[str, Any]:
    fields = {name: getattr(update, name) for name in update.__struct_fields__ if name != "token"}
    if update.depth is not None:
        sides = (("buy", update.depth.buy), ("sell", update.depth.sell))
        fields["depth"] = {side: [(one.price, one.quantity, one.orders) for one in rows] for side, rows in sides}
    return fields


def known(fields: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {key: {name: value for name, value in one.items() if value is not None} for key, one in fields.items()}


# ---------------------------------------------------------------------------------------------------------------- tests


def test_our_schema_is_the_sdks(oracle: Oracle) -> None:
    sdk = oracle.ask("schema")
    file = schema.DESCRIPTOR
    enums = {name: {value.name: value.number for value in one.values} for name, one in file.enum_types_by_name.items()}
    assert enums == sdk["enums"]
    waiting = dict(file.message_types_by_name)
    messages = {}
    while waiting:
        name, message = waiting.popitem()
        messages[name] = {field.name: [field.number, field.type] for field in message.fields}
        waiting.update({f"{name}.{inner.name}": inner for inner in message.nested_types})
    assert messages == sdk["messages"]


@given(frames())
@ONCE
def test_every_field_of_every_instrument_is_what_the_sdk_reads(oracle: Oracle, frame: bytes) -> None:
    [packet] = oracle.parse(frame)
    assert known(ours(frame)) == known(theirs(packet))


@given(st.dictionaries(TEXTS, st.integers(0, 5), max_size=6))
@settings(ONCE, max_examples=50)
def test_the_state_of_the_market_is_what_the_sdk_reads(oracle: Oracle, states: dict[str, int]) -> None:
    info = schema.MarketInfo(segmentStatus=states)  # type: ignore[arg-type]
    frame = schema.FeedResponse(type=schema.market_info, marketInfo=info).SerializeToString()
    [packet] = oracle.parse(frame)
    [notice] = codec.decode(frame)
    read = packet["marketInfo"].get("segmentStatus", {})
    assert notice.kind is NoticeKind.MARKET_STATUS  # type: ignore[union-attr]
    assert notice.text == ", ".join(f"{name} {read[name]}" for name in sorted(read))  # type: ignore[union-attr]


def test_a_refusal_in_a_text_frame_is_told_here_and_breaks_the_sdks_parser(oracle: Oracle) -> None:
    """The SDK decodes everything that comes as protobuf; the refusals that are reported are JSON texts."""
    text = '{"status":"failed","method":"sub","error":"Subscription limit exceeded"}'
    with pytest.raises(OracleError):
        oracle.ask(f"text {text}")
    [notice] = codec.decode(text)
    assert notice.kind is NoticeKind.ERROR  # type: ignore[union-attr]


async def test_the_sdks_client_streams_from_the_simulator(oracle: Oracle) -> None:
    """It comes with the token in its header and follows the redirect; its address is written in and was replaced."""
    async with UpstoxSimulator(rate=100, symbols=5, seed=1) as sim:
        keys = ["NSE_EQ|INE062A01020", "NSE_INDEX|Nifty 50"]
        order = {"url": sim.url, "token": "demo-token", "keys": keys, "mode": "ltpc", "then": ["full", "full_d30"]}
        done = await asyncio.to_thread(oracle.ask, json.dumps(order))
        assert done["errors"] == []
        assert sim.stats()["connections_peak"] == 1
        await until(lambda: sim.entries("unsubscribe"), "the last request")
    messages = done["messages"]
    assert messages[0]["marketInfo"]["segmentStatus"]["NSE_EQ"] == "NORMAL_OPEN"
    assert set(messages[1]["feeds"]) == set(keys)
    assert "type" not in messages[1], "a snapshot"
    shares = [message["feeds"][keys[0]] for message in messages if keys[0] in message.get("feeds", {})]
    assert {share.get("requestMode") for share in shares} == {None, "full_d5", "full_d30"}, "ltpc is the mode number 0"
    levels = {
        share["requestMode"]: len(share["fullFeed"]["marketFF"]["marketLevel"]["bidAskQuote"])
        for share in shares
        if "fullFeed" in share
    }
    assert levels == {"full_d5": 5, "full_d30": 30}


async def test_the_sdks_client_stops_at_a_wrong_token(oracle: Oracle) -> None:
    async with UpstoxSimulator(rate=0, symbols=5, seed=1) as sim:
        order = {"url": sim.url, "token": "wrong", "keys": [], "mode": "ltpc", "then": []}
        done = await asyncio.to_thread(oracle.ask, json.dumps(order))
    assert "401 Unauthorized" in done["errors"][0]
    assert done["messages"] == []
