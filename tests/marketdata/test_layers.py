"""One suite over both channel layers: Channels' own behaviour, and the extension for a flush of ticks."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from marketdata.layers import LaneMismatch, LocalTickLayer, RedisTickLayer, lane_of
from tests.conftest import Valkey

Make = Callable[[], Any]


@pytest.fixture(params=["local", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes layers that speak to each other, as two processes would (the local one: always the same)."""
    made: list[Any] = []
    if request.param == "local":
        local = LocalTickLayer()
        made.append(local)
        yield lambda: local
    else:
        valkey: Valkey = request.getfixturevalue("valkey")

        def redis() -> RedisTickLayer:
            made.append(RedisTickLayer(hosts=[valkey.url], lanes=4))
            return made[-1]

        yield redis
    for layer in made:
        await layer.flush()


async def received(layer: Any, channel: str) -> Any:
    """The next message of a channel, soon."""
    return await asyncio.wait_for(layer.receive(channel), 5)


async def stays_empty(layer: Any, channel: str) -> bool:
    """Whether a marker sent after everything else is the next thing on the channel."""
    await layer.send(channel, {"type": "marker"})
    return bool((await received(layer, channel))["type"] == "marker")


async def test_a_message_reaches_the_channel_it_is_sent_to(make: Make) -> None:
    sender, receiver = make(), make()
    channel = await receiver.new_channel()
    await sender.send(channel, {"type": "hello", "payload": b"\x00\xff", "number": 7})
    assert await received(receiver, channel) == {"type": "hello", "payload": b"\x00\xff", "number": 7}


async def test_messages_keep_their_order(make: Make) -> None:
    sender, receiver = make(), make()
    channel = await receiver.new_channel()
    for number in range(50):
        await sender.send(channel, {"type": "count", "number": number})
    assert [(await received(receiver, channel))["number"] for _ in range(50)] == list(range(50))


async def test_a_message_that_is_changed_after_sending_arrives_as_it_was(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    message = {"type": "hello", "list": [1]}
    await layer.send(channel, message)
    message["list"].append(2)
    assert (await received(layer, channel))["list"] == [1]


async def test_every_channel_has_a_name_of_its_own(make: Make) -> None:
    layer = make()
    names = [await layer.new_channel("hub.") for _ in range(5)]
    assert len(set(names)) == 5


async def test_a_group_message_reaches_every_member_and_nobody_else(make: Make) -> None:
    one, other = make(), make()
    members = [await one.new_channel(), await one.new_channel(), await other.new_channel()]
    stranger = await other.new_channel()
    for layer, channel in zip((one, one, other), members, strict=True):
        await layer.group_add("room", channel)
    await one.group_send("room", {"type": "hello"})
    for layer, channel in zip((one, one, other), members, strict=True):
        assert await received(layer, channel) == {"type": "hello"}
    assert await stays_empty(other, stranger)


async def test_who_left_a_group_hears_nothing_more(make: Make) -> None:
    layer = make()
    stays, leaves = await layer.new_channel(), await layer.new_channel()
    for channel in (stays, leaves):
        await layer.group_add("room", channel)
    await layer.group_discard("room", leaves)
    await layer.group_discard("room", leaves)
    await layer.group_send("room", {"type": "hello"})
    assert await received(layer, stays) == {"type": "hello"}
    assert await stays_empty(layer, leaves)


async def test_joining_twice_is_joining_once(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "hello"})
    assert await received(layer, channel) == {"type": "hello"}
    assert await stays_empty(layer, channel)


async def test_a_group_without_members_takes_messages(make: Make) -> None:
    layer = make()
    await layer.group_send("nobody", {"type": "hello"})
    await layer.group_send_many({"nobody": b"x"})


async def test_only_channels_of_this_process_may_join(make: Make) -> None:
    with pytest.raises(RuntimeError, match="new_channel"):
        await make().group_add("room", "specific.of.nobody")


async def test_cancelling_receive_deletes_the_channel(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    waiting = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(RuntimeError):
        await layer.group_add("room", channel)


async def test_a_flushed_layer_is_like_new(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.flush()
    again = await layer.new_channel()
    await layer.group_add("room", again)
    await layer.group_send("room", {"type": "hello"})
    assert await received(layer, again) == {"type": "hello"}


async def test_a_flush_reaches_members_with_their_groups_only(make: Make) -> None:
    sender, receiver = make(), make()
    channel = await receiver.new_channel()
    mine = {f"t.{number}": b"\x00\xffvalue %d" % number for number in range(40)}
    for group in mine:
        await receiver.group_add(group, channel)
    await sender.group_send_many({**mine, "t.other": b"not mine"})
    got: dict[str, bytes] = {}
    while len(got) < len(mine):
        message = await received(receiver, channel)
        assert message["type"] == "group.batch"
        got.update(message["items"])
    assert got == mine
    assert await stays_empty(receiver, channel)


async def test_two_members_in_one_process_each_get_their_own_groups(make: Make) -> None:
    layer = make()
    one, other = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("a", one)
    await layer.group_add("a", other)
    await layer.group_add("b", other)
    await layer.group_send_many({"a": b"1"})
    await layer.group_send_many({"b": b"2"})
    assert (await received(layer, one))["items"] == {"a": b"1"}
    assert [(await received(layer, other))["items"] for _ in range(2)] == [{"a": b"1"}, {"b": b"2"}]


async def test_ordinary_messages_and_flushes_go_side_by_side(make: Make) -> None:
    layer = make()
    channel = await layer.new_channel()
    await layer.group_add("a", channel)
    await layer.group_send("a", {"type": "word", "items": b"\x01"})
    await layer.group_send_many({"a": b"1"})
    assert (await received(layer, channel))["type"] == "word"
    assert (await received(layer, channel))["type"] == "group.batch"


async def test_ten_thousand_groups_are_joined_with_few_subscriptions(valkey: Valkey) -> None:
    layer = RedisTickLayer(hosts=[valkey.url], lanes=16)
    channel = await layer.new_channel()
    for number in range(10_000):
        await layer.group_add(f"t.{number}", channel)
    assert len(layer._get_layer().shard._subscribed_to) == 16 + 1
    for number in range(10_000):
        await layer.group_discard(f"t.{number}", channel)
    assert len(layer._get_layer().shard._subscribed_to) == 1
    await layer.flush()


async def test_a_lane_is_left_with_its_last_group(valkey: Valkey) -> None:
    layer = RedisTickLayer(hosts=[valkey.url], lanes=1)
    channel = await layer.new_channel()
    for group in ("a", "b"):
        await layer.group_add(group, channel)
    await layer.group_discard("a", channel)
    await layer.group_send_many({"b": b"1"})
    assert (await received(layer, channel))["items"] == {"b": b"1"}
    await layer.flush()


async def test_what_nobody_takes_is_bounded_and_the_newest_stays() -> None:
    layer = LocalTickLayer(capacity=10)
    channel = await layer.new_channel()
    for number in range(25):
        await layer.send(channel, {"type": "count", "number": number})
    assert [(await received(layer, channel))["number"] for _ in range(10)] == list(range(15, 25))
    assert layer.channels[channel].dropped == 15


async def test_processes_with_other_lanes_do_not_start(valkey: Valkey) -> None:
    first, second = RedisTickLayer(hosts=[valkey.url], lanes=16), RedisTickLayer(hosts=[valkey.url], lanes=8)
    await first.check_lanes()
    await first.check_lanes()
    with pytest.raises(LaneMismatch, match="TICK_LANES=16"):
        await second.check_lanes()
    await first.flush()
    await second.flush()


async def test_redis_restarted_empty_is_told_once_and_groups_work_again(valkey: Valkey) -> None:
    layer, sender = RedisTickLayer(hosts=[valkey.url]), RedisTickLayer(hosts=[valkey.url])
    told: list[str] = []
    back = asyncio.Event()
    layer.add_listener(lambda: told.append("lost"), lambda: (told.append("back"), back.set()))
    channel = await layer.new_channel()
    await layer.group_add("a", channel)
    valkey.kill()
    while "lost" not in told:
        await asyncio.sleep(0.01)
    with pytest.raises((RedisConnectionError, OSError)):
        await sender.group_send_many({"a": b"0"})
    valkey.start()
    await asyncio.wait_for(back.wait(), 6)
    await sender.group_send_many({"a": b"1"})
    assert (await received(layer, channel))["items"] == {"a": b"1"}
    assert told == ["lost", "back"]
    await layer.flush()
    await sender.flush()


async def test_a_frozen_redis_loses_nothing_that_was_sent(valkey: Valkey) -> None:
    layer, sender = RedisTickLayer(hosts=[valkey.url]), RedisTickLayer(hosts=[valkey.url])
    channel = await layer.new_channel()
    await layer.group_add("a", channel)
    assert valkey._process is not None
    os.kill(valkey._process.pid, signal.SIGSTOP)
    sending = asyncio.create_task(sender.group_send_many({"a": b"1"}))
    await asyncio.sleep(0.5)
    os.kill(valkey._process.pid, signal.SIGCONT)
    await sending
    assert (await received(layer, channel))["items"] == {"a": b"1"}
    await layer.flush()
    await sender.flush()


async def test_a_channel_can_be_had_once_redis_is_there(valkey: Valkey) -> None:
    valkey.kill()
    layer = RedisTickLayer(hosts=[valkey.url])
    with pytest.raises((RedisConnectionError, OSError)):
        await layer.new_channel()
    valkey.start()
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "hello"})
    assert await received(layer, channel) == {"type": "hello"}
    await layer.flush()


def test_lanes_are_the_same_everywhere_and_evenly_filled() -> None:
    lanes = [lane_of(f"t..NSE.LTP.SIM{number:04d}", 16) for number in range(4000)]
    counts = [lanes.count(lane) for lane in range(16)]
    assert lane_of("t..NSE.LTP.SBIN", 16) == 6
    assert min(counts) > 150
