"""What is seen of the clients' side from outside: a real Redis that may be away, real sockets that may be mute."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from channels.layers import InMemoryChannelLayer
from pytest_django import Settings

from marketdata.bridge import Bridge
from marketdata.layers import RedisTickLayer
from marketdata.ledger import LedgerUnavailable, LocalLedger, RedisLedger
from marketdata.probe import LANES_KEY, PATIENCE_S, look
from marketdata.report import ClientsReport
from marketdata.tasks import end
from marketdata.ticks import Key, Mode
from marketdata.topics import topic_of
from tests.conftest import Valkey, free_port

QUOTE, DEPTH = (topic_of(Key("SBIN", "NSE", mode)) for mode in (Mode.QUOTE, Mode.DEPTH))


@pytest.fixture(autouse=True)
def nowhere(settings: Settings) -> None:
    """No Redis, and a server's port on which nothing listens."""
    settings.REDIS_URL, settings.WEBSOCKET_PORT = "", free_port()


@pytest.fixture
def redis(valkey: Valkey, settings: Settings) -> Valkey:
    settings.REDIS_URL = valkey.url
    return valkey


async def seen() -> ClientsReport:
    return await look("SBIN", "NSE", "")


async def seen_in_time() -> ClientsReport:
    began_s = time.monotonic()
    report = await seen()
    assert time.monotonic() - began_s < PATIENCE_S + 1
    return report


# --------------------------------------------------------------------------------------------------------------- Redis


async def test_without_redis_there_is_nothing_to_read(settings: Settings) -> None:
    settings.THROTTLE_MS = 70
    report = await seen()
    assert (report.uses_redis, report.hubs, report.wanted, report.bridge, report.throttle_ms) == (
        False, None, None, None, 70,
    )  # fmt: skip


async def test_leases_are_counted_by_mode_and_only_those_that_live(redis: Valkey) -> None:
    ledger, brief = RedisLedger(redis.url), RedisLedger(redis.url, lease_s=0.2)
    await ledger.replace("h1", "c1", [QUOTE])
    await ledger.replace("h2", "c2", [QUOTE, DEPTH, topic_of(Key("TCS", "NSE", Mode.LTP))])
    await brief.replace("h3", "c3", [DEPTH, topic_of(Key("SBIN", "NSE", Mode.LTP))])
    while await brief.renew("h4") or (report := await seen()).hubs != 2:
        await asyncio.sleep(0.05)
    assert report.wanted == {Mode.QUOTE: 2, Mode.DEPTH: 1}
    assert report.redis_problem == report.lanes_problem == ""


async def test_only_leases_of_the_same_feed_count(redis: Valkey) -> None:
    await RedisLedger(redis.url).replace("h1", "c1", [topic_of(Key("SBIN", "NSE", Mode.QUOTE, "desk"))])
    assert (await seen()).wanted == {}
    assert (await look("SBIN", "NSE", "desk")).wanted == {Mode.QUOTE: 1}


async def test_looking_changes_nothing(redis: Valkey) -> None:
    await seen()
    ledger = RedisLedger(redis.url)
    assert await ledger._redis.keys("*") == []


async def test_a_redis_that_is_away_is_one_sentence_without_its_password(redis: Valkey, settings: Settings) -> None:
    redis.kill()
    settings.REDIS_URL = f"redis://:secret@127.0.0.1:{redis.port}/0"
    report = await seen_in_time()
    assert report.redis_problem.startswith("Redis does not answer: ")
    assert report.redis_problem.endswith(".")
    assert "secret" not in report.redis_problem
    assert (report.uses_redis, report.hubs, report.wanted) == (True, None, None)


async def test_a_redis_that_stands_still_is_not_waited_for(redis: Valkey) -> None:
    assert redis._process is not None
    os.kill(redis._process.pid, signal.SIGSTOP)
    try:
        report = await seen_in_time()
    finally:
        os.kill(redis._process.pid, signal.SIGCONT)
    assert report.redis_problem == "Redis does not answer: no answer within 3 s."


async def test_another_number_of_lanes_is_named_with_what_to_set(redis: Valkey, settings: Settings) -> None:
    settings.TICK_LANES = 4
    await RedisTickLayer(hosts=[redis.url], lanes=8).check_lanes()
    report = await seen()
    assert "TICK_LANES=8, the settings say 4" in report.lanes_problem
    assert LANES_KEY in report.lanes_problem


# -------------------------------------------------------------------------------------------------------------- bridge


@contextlib.asynccontextmanager
async def bridging(ledger: RedisLedger | LocalLedger) -> AsyncIterator[Bridge]:
    bridge = Bridge(InMemoryChannelLayer(), ledger, f"tcp://127.0.0.1:{free_port()}", throttle_ms=50)
    task = asyncio.ensure_future(bridge.run())
    await asyncio.sleep(0)  # it has begun: what was not opened is not closed
    try:
        yield bridge
    finally:
        await end([task])


async def test_a_bridge_leaves_a_sign_of_life_that_fades_with_it(redis: Valkey) -> None:
    ledger = RedisLedger(redis.url, lease_s=1.5)
    assert (await seen()).bridge is None
    async with bridging(ledger):
        await ledger.replace("h1", "c1", [QUOTE, DEPTH])
        while (life := (await seen()).bridge) is None or life.topics != 2:
            await asyncio.sleep(0.05)
        assert (life.pid, life.received, life.heard_ms, life.adapters_up) == (os.getpid(), 0, None, False)
        first_ms = life.now_ms
        while (life := (await seen()).bridge) is None or life.now_ms == first_ms:
            await asyncio.sleep(0.05)
    ended_s = time.monotonic()
    while (await seen()).bridge is not None:
        await asyncio.sleep(0.05)
    assert time.monotonic() - ended_s < 2.5


async def test_a_bridge_outlives_a_redis_that_is_away(redis: Valkey) -> None:
    async with bridging(RedisLedger(redis.url)):
        while (await seen()).bridge is None:
            await asyncio.sleep(0.05)
        redis.kill()
        with pytest.raises(LedgerUnavailable):
            await RedisLedger(redis.url).beat(b"")
        redis.start()
        while (await seen()).bridge is None:
            await asyncio.sleep(0.05)


async def test_a_sign_of_life_of_another_version_is_none(redis: Valkey) -> None:
    await RedisLedger(redis.url).beat(b"\x63 from the future")
    assert (await seen()).bridge is None


async def test_within_one_process_the_bridge_needs_no_sign_of_life() -> None:
    ledger = LocalLedger()
    async with bridging(ledger) as bridge:
        await ledger.replace("h1", "c1", [QUOTE])
        while bridge.report().topics != 1:
            await asyncio.sleep(0.01)


# -------------------------------------------------------------------------------------------------------------- server


@contextlib.asynccontextmanager
async def listening(settings: Settings, answer: bytes | None) -> AsyncIterator[None]:
    """Something that answers so on the server's port; None: it is mute."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is not None:
            writer.write(answer)
            writer.close()
        else:
            await reader.read()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    settings.WEBSOCKET_HOST, settings.WEBSOCKET_PORT = "127.0.0.1", server.sockets[0].getsockname()[1]
    async with server:
        yield


async def test_a_port_on_which_nothing_listens_is_named(settings: Settings) -> None:
    sentence = f"Nothing listens on 127.0.0.1 port {settings.WEBSOCKET_PORT}, where clients connect."
    assert (await seen_in_time()).server_problem == sentence


async def test_a_server_that_answers_is_no_problem_also_where_it_listens_everywhere(settings: Settings) -> None:
    async with listening(settings, b"HTTP/1.1 200 OK\r\n\r\n"):
        assert (await seen()).server_problem == ""
        settings.WEBSOCKET_HOST = "0.0.0.0"
        assert (await seen()).server_problem == ""


async def test_a_server_that_does_not_answer_is_not_waited_for(settings: Settings) -> None:
    async with listening(settings, None):
        assert (await seen_in_time()).server_problem.endswith("does not answer within 3 s.")


async def test_another_program_on_the_port_is_seen(settings: Settings) -> None:
    async with listening(settings, b"SSH-2.0-OpenSSH_9.6\r\n"):
        assert "is no server of ours" in (await seen()).server_problem
