"""Zerodha's wire and manners, seen by a client that follows Kite's documentation, offset by offset."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable

import pytest
import websockets

from brokers.simulators.keys import token_id
from brokers.simulators.zerodha import ZerodhaSimulator
from tests.brokers.simulators.kite import DEMO, Kite, eventually, i32, split, u16, u32

TODAY = dt.date(2025, 11, 3)
Connect = Callable[..., Awaitable[Kite]]

SBIN, NIFTY = 779521, 256265
SHARE = {
    "ltp": 812.35,
    "ltq": 17,
    "average_price": 810.05,
    "volume": 4_000_000_001,
    "total_buy_quantity": 3_000_000_000,
    "total_sell_quantity": 222_222,
    "open": 808.1,
    "high": 815.5,
    "low": 801.45,
    "close": 805.9,
    "last_trade_ms": 1_762_141_000_000,
    "oi": 11,
    "oi_high": 13,
    "oi_low": 7,
    "exchange_ms": 1_762_141_001_000,
    "buy": [[812.3, 100, 1], [812.25, 200, 2], [812.2, 300, 3], [812.15, 400, 4], [812.1, 500, 65535]],
    "sell": [[812.35, 600, 6], [812.4, 700, 7], [812.45, 800, 8]],
}


def quiet(**options: object) -> ZerodhaSimulator:
    return ZerodhaSimulator(**{"rate": 0, "symbols": None, "seed": 1, "today": TODAY, **options})  # type: ignore[arg-type]


async def image(sim: ZerodhaSimulator, kite: Kite, symbol: str, mode: str, **fields: object) -> bytes:
    """The packet of one emitted tick in a mode."""
    token = sim.token(symbol)
    await kite.ask("subscribe", [token])
    await kite.ask("mode", [mode, [token]])
    await eventually(lambda: sim.subscribed().get(sim.market.find(symbol).listing.key) == [mode])
    await kite.until(lambda: len(kite.of(token)) >= 2)
    before = len(kite.of(token))
    assert sim.emit(symbol, **fields) == 1
    await kite.until(lambda: len(kite.of(token)) > before)
    return kite.of(token)[-1]


# ------------------------------------------------------------------------------------------------------------- packets


async def test_well_known_instruments_have_their_well_known_tokens() -> None:
    sim = quiet()
    tokens = [sim.token(name) for name in ("SBIN", "RELIANCE", "INFY", "NIFTY", "BANKNIFTY", "SENSEX")]
    assert tokens == [779521, 738561, 408065, 256265, 260105, 265]


async def test_every_exchange_has_its_segment_in_the_low_byte() -> None:
    low_bytes = {quote.listing.exchange: quote.wire_id & 0xFF for quote in quiet().market.quotes}
    assert low_bytes == {
        "NSE": 1, "NFO": 2, "CDS": 3, "BSE": 4, "BFO": 5, "BCD": 6, "MCX": 7, "NCO": 12,
        "NSE_INDEX": 9, "BSE_INDEX": 9, "MCX_INDEX": 9, "GLOBAL_INDEX": 9,
    }  # fmt: skip


async def test_an_ltp_packet_is_8_bytes_of_token_and_price(connect: Connect) -> None:
    async with quiet() as sim:
        packet = await image(sim, await connect(sim), "SBIN", "ltp", **SHARE)
    assert packet == (779521).to_bytes(4, "big") + (81235).to_bytes(4, "big")


async def test_a_quote_packet_is_44_bytes_in_the_documented_order(connect: Connect) -> None:
    async with quiet() as sim:
        packet = await image(sim, await connect(sim), "SBIN", "quote", **SHARE)
    assert len(packet) == 44
    assert [u32(packet, offset) for offset in range(0, 44, 4)] == [
        SBIN, 81235, 17, 81005, 4_000_000_001, 3_000_000_000, 222_222, 80810, 81550, 80145, 80590,
    ]  # fmt: skip


async def test_a_full_packet_is_184_bytes_with_times_interest_and_five_rows_a_side(connect: Connect) -> None:
    async with quiet() as sim:
        packet = await image(sim, await connect(sim), "SBIN", "full", **SHARE)
    assert len(packet) == 184
    assert [u32(packet, offset) for offset in range(0, 44, 4)] == [
        SBIN, 81235, 17, 81005, 4_000_000_001, 3_000_000_000, 222_222, 80810, 81550, 80145, 80590,
    ]  # fmt: skip
    assert [u32(packet, offset) for offset in range(44, 64, 4)] == [1_762_141_000, 11, 13, 7, 1_762_141_001]
    rows = [(u32(packet, at), i32(packet, at + 4), u16(packet, at + 8)) for at in range(64, 184, 12)]
    assert rows[:5] == [(100, 81230, 1), (200, 81225, 2), (300, 81220, 3), (400, 81215, 4), (500, 81210, 65535)]
    assert rows[5:] == [(600, 81235, 6), (700, 81240, 7), (800, 81245, 8), (0, 0, 0), (0, 0, 0)]


async def test_an_index_has_high_low_open_close_and_a_signed_change(connect: Connect) -> None:
    values = {"ltp": 24800.1, "open": 24850.0, "high": 24900.5, "low": 24750.25, "close": 24850.55}
    async with quiet() as sim:
        kite = await connect(sim)
        short = await image(sim, kite, "NIFTY", "quote", **values, exchange_ms=1_762_141_001_999)
        full = await image(sim, kite, "NIFTY", "full", **values, exchange_ms=1_762_141_001_999)
        ltp = await image(sim, kite, "NIFTY", "ltp", **values)
    assert len(short) == 28
    assert [i32(short, at) for at in range(0, 28, 4)] == [NIFTY, 2480010, 2490050, 2475025, 2485000, 2485055, -5045]
    assert full == short + (1_762_141_001).to_bytes(4, "big")
    assert ltp == short[:8]


@pytest.mark.parametrize(
    ("base", "exchange", "price", "wire"),
    [
        ("USDINR", "CDS", 87.9175, 879_175_000),
        ("USDINR", "BCD", 87.9175, 879_175),
        ("GOLD10GM", "NCO", 112_351.0, 1_123_510_000),
        ("GOLD", "MCX", 112_351.0, 11_235_100),
        ("NIFTY", "NFO", 24_900.15, 2_490_015),
        ("SENSEX", "BFO", 81_500.05, 8_150_005),
        ("SBIN", "BSE", 812.05, 81_205),
        ("GIFTNIFTY", "GLOBAL_INDEX", 24_900.15, 2_490_015),
    ],
)
async def test_each_segment_divides_by_its_own_number(
    connect: Connect, base: str, exchange: str, price: float, wire: int
) -> None:
    async with quiet() as sim:
        listing = next(
            one.listing
            for one in sim.market.quotes
            if one.listing.exchange == exchange and one.listing.symbol.startswith(base)
        )
        packet = await image(sim, await connect(sim), listing.key, "full", ltp=price, close=price)
    assert i32(packet, 4) == wire
    assert i32(packet, 20 if exchange == "GLOBAL_INDEX" else 40) == wire


async def test_a_never_traded_instrument_is_zero_everywhere_but_its_token(connect: Connect) -> None:
    async with quiet() as sim:
        sim.never_traded("SBIN")
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN])
        await kite.ask("mode", ["full", [SBIN]])
        await kite.until(lambda: len(kite.of(SBIN)) >= 2)
        packet = kite.of(SBIN)[-1]
    assert len(packet) == 184
    assert not any(packet[4:60])
    assert not any(packet[64:])


async def test_stamped_quantities_are_the_clock_in_microseconds(connect: Connect) -> None:
    async with quiet(stamp=True) as sim:
        kite = await connect(sim)
        before = time.time_ns() // 1000
        packets = [await image(sim, kite, "SBIN", mode, ltp=800.0) for mode in ("quote", "full")]
        after = time.time_ns() // 1000
    for packet in packets:
        assert (u32(packet, 8) - before) % 2**32 <= after - before


async def test_a_stamped_price_is_the_clock_in_ten_microseconds(connect: Connect) -> None:
    async with quiet(stamp=True) as sim:
        kite = await connect(sim)
        before = time.time_ns() // 10_000
        packet = await image(sim, kite, "SBIN", "ltp", ltp=800.0)
        after = time.time_ns() // 10_000
    assert (u32(packet, 4) - before) % 2**24 <= after - before


async def test_a_burst_has_all_ticks_of_its_time(connect: Connect) -> None:
    async with quiet(rate=100, burst_s=0.3, packets_per_frame=1000) as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [quote.wire_id for quote in sim.market.quotes[:30]])
        await kite.until(lambda: len(kite.frames) == 3)
    assert [len(split(frame)) for frame in kite.frames[1:]] == [30, 30]


async def test_a_frame_carries_several_packets_and_never_more_than_asked_for(connect: Connect) -> None:
    async with quiet(packets_per_frame=7) as sim:
        kite = await connect(sim)
        tokens = [quote.wire_id for quote in sim.market.quotes[:30]]
        await kite.ask("subscribe", tokens)
        await kite.until(lambda: len(kite.packets) == 30)
        assert [len(split(frame)) for frame in kite.frames] == [7, 7, 7, 7, 2]
        assert [u32(packet, 0) for packet in kite.packets] == tokens


# ------------------------------------------------------------------------------------------------------- subscriptions


async def test_a_subscription_starts_in_quote_mode_with_the_image_at_once(connect: Connect) -> None:
    async with quiet() as sim:
        sim.pause_ticks()
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN, NIFTY])
        await kite.until(lambda: len(kite.packets) == 2)
        assert [len(packet) for packet in kite.packets] == [44, 28]
        assert sim.subscribed() == {"NSE:SBIN": ["quote"], "NSE_INDEX:NIFTY": ["quote"]}


async def test_only_what_is_subscribed_is_sent_and_nothing_after_the_unsubscribe(connect: Connect) -> None:
    async with quiet(rate=2000) as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN, NIFTY])
        await kite.until(lambda: len(kite.packets) > 100)
        assert {u32(packet, 0) for packet in kite.packets} == {SBIN, NIFTY}
        await kite.ask("unsubscribe", [NIFTY])
        await eventually(lambda: sim.entries("unsubscribe"))
        assert sim.emit("NIFTY", ltp=24000.0) == 0
        await (await kite.socket.ping())  # everything sent before the answer has arrived
        seen = len(kite.of(NIFTY))
        await kite.until(lambda: len(kite.of(SBIN)) > 500)
        assert len(kite.of(NIFTY)) == seen


async def test_two_sockets_get_the_same_tick_each_in_its_own_mode(connect: Connect) -> None:
    async with quiet() as sim:
        one, other = await connect(sim), await connect(sim)
        await one.ask("subscribe", [SBIN])
        await other.ask("subscribe", [SBIN])
        await other.ask("mode", ["ltp", [SBIN]])
        await eventually(lambda: sim.subscribed() == {"NSE:SBIN": ["ltp", "quote"]})
        assert sim.emit("SBIN", ltp=799.95) == 2
        await one.until(lambda: one.packets and i32(one.packets[-1], 4) == 79995)
        await other.until(lambda: other.packets and i32(other.packets[-1], 4) == 79995)
        assert (len(one.packets[-1]), len(other.packets[-1])) == (44, 8)


async def test_instruments_over_the_limit_are_reported_counted_and_never_sent(connect: Connect) -> None:
    async with quiet(instruments_per_socket=3) as sim:
        tokens = [quote.wire_id for quote in sim.market.quotes[:5]]
        kite = await connect(sim)
        await kite.ask("subscribe", tokens)
        await kite.until(lambda: kite.texts)
        assert kite.texts == [
            '{"type": "error", "data": "2 instruments are over the limit of 3 a connection; ignored."}'
        ]
        assert [u32(packet, 0) for packet in kite.packets] == tokens[:3]
        stats = sim.stats()
        assert (stats["limit_violations"], stats["instruments_peak"], stats["subscribed"]) == (2, 3, sorted(tokens[:3]))
        assert sim.entries("subscribe")[0]["excess"] == tokens[3:]
        await kite.ask("unsubscribe", tokens[:1])
        await kite.ask("subscribe", tokens[4:])
        await kite.until(lambda: kite.of(tokens[4]))
        assert sim.stats()["limit_violations"] == 2


async def test_the_limit_is_3000_instruments_and_3_sockets_unless_told_otherwise(connect: Connect) -> None:
    async with quiet(symbols=3005) as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [quote.wire_id for quote in sim.market.quotes])
        await kite.until(lambda: kite.texts)
        assert "5 instruments are over the limit of 3000" in kite.texts[0]
        await connect(sim)
        await connect(sim)
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await connect(sim)
        assert refusal.value.response.status_code == 429


async def test_instruments_beyond_a_number_can_be_ignored_without_a_word(connect: Connect) -> None:
    async with quiet() as sim:
        sim.set_limits(ignore_beyond=2)
        tokens = [quote.wire_id for quote in sim.market.quotes[:3]]
        kite = await connect(sim)
        await kite.ask("subscribe", tokens)
        await kite.ask("mode", ["ltp", tokens])
        await kite.until(lambda: len(kite.packets) == 4)
        assert sim.emit("INFY", ltp=1500.0) == 0
        assert sim.emit("SBIN", ltp=800.0) == 1
        await kite.until(lambda: len(kite.packets) == 5)
        assert kite.texts == []
        assert {u32(packet, 0) for packet in kite.packets} == set(tokens[:2])


async def test_unknown_tokens_are_passed_over_but_in_the_log(connect: Connect) -> None:
    async with quiet() as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN, 4711])
        await kite.until(lambda: kite.packets)
        assert sim.entries("subscribe")[0]["unknown"] == [4711]
        assert kite.texts == []


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ('{"a":"subscribe"}', "must be a JSON object"),
        ('{"a":"subscribe","v":["779521"]}', "Tokens must be a list of integers"),
        ('{"a":"subscribe","v":[true]}', "Tokens must be a list of integers"),
        ('{"a":"mode","v":["depth",[779521]]}', "must be [ltp | quote | full, [tokens]]"),
        ('{"a":"mode","v":["full"]}', "must be [ltp | quote | full, [tokens]]"),
        ('{"a":"mode","v":[["full"],[779521]]}', "must be [ltp | quote | full, [tokens]]"),
        ('{"a":"buy","v":[779521]}', "'buy' is unknown"),
    ],
)
async def test_a_bad_request_gets_an_error_message_and_the_socket_lives(
    connect: Connect, message: str, words: str
) -> None:
    async with quiet() as sim:
        kite = await connect(sim)
        await kite.socket.send(message)
        await kite.until(lambda: kite.texts)
        assert words in kite.texts[0]
        assert kite.texts[0].startswith('{"type": "error"')
        await kite.ask("subscribe", [SBIN])
        await kite.until(lambda: kite.packets)


# --------------------------------------------------------------------------------------------------------------- login


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("api_key=demo&access_token=wrong", 403),
        ("api_key=wrong&access_token=demo-token", 403),
        ("api_key=demo", 403),
        ("", 403),
    ],
)
async def test_a_wrong_login_is_refused_at_the_upgrade_and_logged_without_the_token(
    connect: Connect, query: str, status: int
) -> None:
    async with quiet() as sim:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await connect(sim, query)
        assert refusal.value.response.status_code == status
        assert sim.stats()["refused_logins"] == 1
        [entry] = sim.entries("refused")
        assert entry["status"] == status
        assert "wrong" not in entry["reason"].replace("is wrong or", "")


async def test_a_fourth_socket_of_a_key_is_refused_and_a_freed_place_is_given_again(connect: Connect) -> None:
    async with quiet(accounts={"demo": "demo-token", "second": "other"}) as sim:
        first, *_ = [await connect(sim) for _ in range(3)]
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await connect(sim)
        assert refusal.value.response.status_code == 429
        await connect(sim, "api_key=second&access_token=other")
        await first.socket.close()
        await connect(sim)
        stats = sim.stats()
        assert (stats["connections"], stats["connections_peak"], stats["limit_violations"]) == (4, 4, 1)


async def test_sockets_opened_at_the_same_moment_are_counted_too(connect: Connect) -> None:
    async with quiet() as sim:
        outcomes = await asyncio.gather(*(connect(sim) for _ in range(8)), return_exceptions=True)
        assert sum(isinstance(outcome, Kite) for outcome in outcomes) == 3
        assert sum(isinstance(outcome, websockets.InvalidStatus) for outcome in outcomes) == 5


async def test_an_expired_token_drops_the_sockets_and_bars_the_door_until_a_new_one_comes(connect: Connect) -> None:
    async with quiet() as sim:
        kite = await connect(sim)
        assert await sim.expire() == 1
        await kite.until(lambda: kite.ended)
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await connect(sim)
        assert refusal.value.response.status_code == 403
        sim.set_token("fresh")
        with pytest.raises(websockets.InvalidStatus):
            await connect(sim, DEMO)
        await connect(sim, "api_key=demo&access_token=fresh")


# -------------------------------------------------------------------------------------------------------- misbehaviour


async def test_a_heartbeat_of_one_byte_comes_every_two_seconds_when_nothing_else_does(connect: Connect) -> None:
    async with quiet() as sim:
        kite = await connect(sim)
        started = time.monotonic()
        await kite.until(lambda: len(kite.beats) == 2, timeout_s=10)
        assert [len(beat) for beat in kite.beats] == [1, 1]
        assert kite.times[0] - started > 1.5
        assert 1.5 < kite.times[1] - kite.times[0] < 4.0


async def test_there_is_no_heartbeat_while_ticks_flow(connect: Connect) -> None:
    async with quiet(rate=20) as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN])
        await kite.until(lambda: len(kite.packets) > 60, timeout_s=10)
        assert kite.beats == []
        sim.pause_ticks()
        await kite.until(lambda: kite.beats)


async def test_a_drop_is_abrupt_or_with_a_close_frame(connect: Connect) -> None:
    async with quiet() as sim:
        one, other = await connect(sim), await connect(sim)
        numbers = [entry["connection"] for entry in sim.entries("connect")]
        assert await sim.drop(numbers[0]) == 1
        await one.until(lambda: one.ended)
        assert isinstance(one.ended, websockets.ConnectionClosedError)
        assert one.ended.rcvd is None
        assert other.ended is None
        assert await sim.drop(close_frame=True, code=1012, reason="bye") == 1
        await other.until(lambda: other.ended)
        assert isinstance(other.ended, websockets.ConnectionClosed)
        assert other.ended.rcvd is not None
        assert (other.ended.rcvd.code, other.ended.rcvd.reason) == (1012, "bye")
        assert [entry["connection"] for entry in sim.entries("disconnect")] == numbers
        assert sim.stats()["connections"] == 0


async def test_silence_holds_back_ticks_and_heartbeats_but_answers_pings(connect: Connect) -> None:
    async with quiet(rate=500) as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN])
        await kite.until(lambda: len(kite.packets) > 10)
        assert sim.silence() == 1
        await (await kite.socket.ping())
        heard = len(kite.binary)
        with pytest.raises(TimeoutError):
            await kite.until(lambda: len(kite.binary) > heard, timeout_s=2.5)
        late = await connect(sim)
        await late.ask("subscribe", [SBIN])
        await eventually(lambda: len(sim.entries("subscribe")) == 2)
        assert sim.resume() == 2
        await kite.until(lambda: len(kite.binary) > heard + 10)
        await late.until(lambda: late.packets)


async def test_a_deaf_silence_answers_no_ping_until_resumed(connect: Connect) -> None:
    async with quiet() as sim:
        kite = await connect(sim)
        sim.silence(deaf=True)
        pong = await kite.socket.ping()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(pong), 0.3)
        sim.resume()
        await asyncio.wait_for(pong, 5)


@pytest.mark.parametrize("kind", ZerodhaSimulator.damages)
async def test_every_kind_of_spoilt_frame_is_no_valid_frame_and_the_socket_lives(connect: Connect, kind: str) -> None:
    async with quiet() as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN])
        await kite.until(lambda: kite.packets)
        kite.binary.clear()
        assert sim.malformed(kind, count=20) == 20
        await kite.until(lambda: len(kite.binary) + len(kite.texts) == 20)
        for frame in kite.binary:
            with pytest.raises((AssertionError, KeyError)):
                assert all(len(packet) in {8, 28, 32, 44, 184} for packet in split(frame))
        assert len(kite.texts) == (20 if kind == "text" else 0)
        kite.binary.clear()
        sim.emit("SBIN", ltp=800.0)
        await kite.until(lambda: kite.packets)
        assert sim.stats()["malformed"] == 20


async def test_misuse_of_a_switch_is_a_sentence() -> None:
    async with quiet() as sim:
        with pytest.raises(ValueError, match="There is no connection 9; open are: none"):
            await sim.drop(9)
        with pytest.raises(ValueError, match="'rot' is no way to spoil a frame; known are truncated"):
            sim.malformed("rot")
        with pytest.raises(ValueError, match="There is no api_key 'x'"):
            await sim.expire("x")
        with pytest.raises(ValueError, match="The rate must be at least 0, not -1"):
            sim.set_rate(-1)
        with pytest.raises(ValueError, match="must not be empty"):
            sim.set_token("")


# ---------------------------------------------------------------------------------------------------------------- pace


async def ticks_at(kite: Kite, rate: float, token: int | None = None) -> None:
    """
    Returns after one of five windows of 1.5 s in which the client counted this many packets a second, within 10 %.

    One window is not enough: a machine busy with something else may stop either side for a while.
    """
    rates = []
    for _ in range(5):
        start, first = time.monotonic(), len(kite.packets if token is None else kite.of(token))
        with pytest.raises(TimeoutError):
            await kite.until(lambda: kite.ended, timeout_s=1.5)
        arrived = len(kite.packets if token is None else kite.of(token)) - first
        rates.append(arrived / (time.monotonic() - start))
        if rates[-1] == pytest.approx(rate, rel=0.1):
            return
    pytest.fail(f"Expected {rate} packets a second, counted {rates}.")


async def test_the_rate_is_kept_in_total_over_all_instruments_and_each_gets_its_turn(connect: Connect) -> None:
    async with quiet(rate=600, symbols=50) as sim:
        kite = await connect(sim)
        tokens = [quote.wire_id for quote in sim.market.quotes]
        await kite.ask("subscribe", tokens)
        await kite.until(lambda: len(kite.packets) >= 50)
        await ticks_at(kite, 600)
        counts = [len(kite.of(token)) for token in tokens]
        assert max(counts) - min(counts) <= 1
        sim.set_rate(200)
        await ticks_at(kite, 200)


async def test_one_instrument_can_have_a_rate_of_its_own_and_another_be_quiet(connect: Connect) -> None:
    async with quiet(rate=100) as sim:
        sim.set_symbol_rate("SBIN", 1000)
        sim.set_symbol_rate("NIFTY", 0)
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN, NIFTY, 408065])
        await kite.until(lambda: len(kite.packets) >= 3)
        await asyncio.gather(ticks_at(kite, 1000, SBIN), ticks_at(kite, 100, 408065))
        assert len(kite.of(NIFTY)) == 1
        sim.set_symbol_rate("NIFTY", None)
        await kite.until(lambda: len(kite.of(NIFTY)) > 5)


async def test_the_same_seed_gives_the_same_prices_over_the_wire(connect: Connect) -> None:
    walks = []
    for seed in (5, 5, 6):
        async with quiet(rate=2000, seed=seed) as sim:
            kite = await connect(sim)
            await kite.ask("subscribe", [SBIN])
            await kite.until(lambda: len(kite.packets) >= 200)  # noqa: B023 - awaited within the turn
            walks.append([packet[:44] for packet in kite.packets[:200]])
    assert walks[0] == walks[1] != walks[2]


async def test_a_client_that_reads_nothing_does_not_fill_the_memory(connect: Connect) -> None:
    async with quiet(rate=50_000, symbols=50) as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [quote.wire_id for quote in sim.market.quotes])
        await kite.until(lambda: kite.packets)
        await kite.ask("mode", ["full", [quote.wire_id for quote in sim.market.quotes]])
        kite.socket.transport.pause_reading()
        await eventually(lambda: sim.stats()["packets_skipped"] > 0, timeout_s=20)
        [client] = sim.clients.values()
        assert client.socket.transport.get_write_buffer_size() < 3 << 20
        kite.socket.transport.abort()


# ----------------------------------------------------------------------------------------------------------------- log


async def test_the_log_tells_the_whole_conversation_in_order(connect: Connect) -> None:
    async with quiet() as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN, NIFTY])
        await kite.ask("mode", ["full", [SBIN]])
        await kite.ask("mode", ["ltp", [408065]])
        await kite.ask("unsubscribe", [NIFTY])
        await eventually(lambda: sim.entries("unsubscribe"))
        await kite.socket.close(1000, "done")
        await eventually(lambda: sim.entries("disconnect"))
        log = [{key: value for key, value in entry.items() if key != "ts_ms"} for entry in sim.log]
        assert log == [
            {"event": "connect", "connection": 1, "api_key": "demo", "token_id": token_id("demo-token")},
            {"event": "subscribe", "connection": 1, "tokens": [SBIN, NIFTY]},
            {"event": "mode", "connection": 1, "mode": "full", "tokens": [SBIN]},
            {"event": "mode", "connection": 1, "mode": "ltp", "tokens": [], "not_subscribed": [408065]},
            {"event": "unsubscribe", "connection": 1, "tokens": [NIFTY]},
            {"event": "disconnect", "connection": 1, "code": 1000, "reason": "done"},
        ]
        times = [entry["ts_ms"] for entry in sim.log]
        assert times == sorted(times)
        assert abs(times[-1] - time.time() * 1000) < 5000
        assert sim.subscribed() == {}


async def test_the_counters_agree_with_what_the_client_received(connect: Connect) -> None:
    async with quiet(rate=500) as sim:
        kite = await connect(sim)
        await kite.ask("subscribe", [SBIN, NIFTY])
        await kite.until(lambda: len(kite.packets) > 200)
        sim.pause_ticks()
        await (await kite.socket.ping())
        stats = sim.stats()
        assert (stats["packets"], stats["frames"]) == (len(kite.packets), len(kite.frames))
        assert stats["ticks"] == stats["packets"] - 2
        assert stats["per_connection"] == [
            {"connection": 1, "api_key": "demo", "instruments": 2, "instruments_peak": 2, "modes": {"quote": 2}}
        ]
