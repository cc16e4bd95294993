"""
The two channel layers: Channels' ordinary API, and one extension, `group_send_many`, for a flush of ticks.

A group belongs to a lane, a stable hash of its name; a flush is one Redis PUBLISH per lane, however many groups it
names, and a process listens only to lanes in which it has members. Ordinary group messages take the same way, so
joining ten thousand groups costs a subscription per lane, not per group.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import uuid
from binascii import crc32
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from channels.layers import BaseChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer, RedisSingleShardConnection
from channels_redis.utils import _wrap_close, decode_hosts
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

QUEUE_LIMIT = 10_000
"""Messages that may wait on one channel before the oldest is dropped."""
READ_S = 1.0
"""How long one read waits before the connection's health is looked at."""
RETRY_S = 0.1
"""The pause between two attempts to reach Redis again."""

_BATCH, _MESSAGE = b"B", b"M"
_batches = msgspec.msgpack.Decoder(dict[str, bytes])
_messages = msgspec.msgpack.Decoder(tuple[str, bytes])
_encode = msgspec.msgpack.Encoder().encode

Listener = Callable[[], None]


class LaneMismatch(Exception):
    """Two processes on one Redis disagree on the number of lanes: they would not hear each other."""


class DroppingQueue(asyncio.Queue[Any]):
    """A queue with a bound: what is oldest makes room, and is counted."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.dropped = 0

    def put_nowait(self, item: Any) -> None:
        """Puts an item, at the cost of the oldest when the bound is reached."""
        if self.qsize() >= self._limit:
            self.get_nowait()
            if not self.dropped:
                log.warning("channel_overflow", limit=self._limit, consequence="oldest messages are dropped")
            self.dropped += 1
        super().put_nowait(item)


def lane_of(group: str, lanes: int) -> int:
    """
    The lane of a group, the same in every process.

    >>> lane_of("t..NSE.LTP.SBIN", 16) == lane_of("t..NSE.LTP.SBIN", 16) < 16
    True
    """
    return crc32(group.encode()) % lanes


def by_channel(items: Mapping[str, bytes], groups: Mapping[str, set[str]]) -> dict[str, dict[str, bytes]]:
    """
    Which member channel gets which items.

    >>> by_channel({"a": b"1", "b": b"2", "c": b"3"}, {"a": {"x"}, "b": {"x", "y"}})
    {'x': {'a': b'1', 'b': b'2'}, 'y': {'b': b'2'}}
    """
    found: dict[str, dict[str, bytes]] = defaultdict(dict)
    for group, value in items.items():
        for channel in sorted(groups.get(group, ())):
            found[channel][group] = value
    return dict(found)


# ------------------------------------------------------------------------------------------------------------- Redis


class RedisTickLayer(RedisPubSubChannelLayer):  # type: ignore[misc]
    """channels_redis' pub/sub layer with lanes, bounded queues and word of Redis' comings and goings."""

    def __init__(self, hosts: Any = None, *, lanes: int = 16, prefix: str = "asgi", **options: Any) -> None:
        super().__init__(hosts=_with_timeouts(hosts), prefix=prefix, **options)
        self.lanes = lanes
        self._listeners: list[tuple[Listener, Listener]] = []
        self._lanes_key = f"{prefix}:lanes"

    def add_listener(self, on_lost: Listener, on_back: Listener) -> None:
        """Who is told, in the loop, when Redis went away and when it is back."""
        self._listeners.append((on_lost, on_back))

    async def check_lanes(self) -> None:
        """
        Makes sure that every process on this Redis has the same number of lanes.

        Raises LaneMismatch.
        """
        connection = self._get_layer().shard.redis()
        await connection.setnx(self._lanes_key, self.lanes)
        stored = int(await connection.get(self._lanes_key))
        if stored != self.lanes:
            raise LaneMismatch(
                f"This Redis is used with TICK_LANES={stored}, this process has {self.lanes}; "
                f"set TICK_LANES={stored}, or stop everything and delete the key {self._lanes_key}."
            )

    async def group_send_many(self, messages: Mapping[str, bytes]) -> None:
        """Sends each group its bytes: members get `{"type": "group.batch", "items": {group: bytes}}`, one per lane."""
        await self._get_layer().group_send_many(messages)

    def tell(self, lost: bool) -> None:
        """Tells the listeners."""
        for on_lost, on_back in self._listeners:
            (on_lost if lost else on_back)()

    def _get_layer(self) -> _LoopLayer:
        loop = asyncio.get_running_loop()
        if loop not in self._layers:
            self._layers[loop] = _LoopLayer(*self._args, **self._kwargs, channel_layer=self)
            _wrap_close(self, loop)
        layer: _LoopLayer = self._layers[loop]
        return layer


class _LoopLayer(RedisPubSubLoopLayer):  # type: ignore[misc]
    """The layer's part of one event loop."""

    def __init__(self, hosts: Any = None, **options: Any) -> None:
        super().__init__(hosts=hosts, **options)
        self._shards = [_Connection(host, self) for host in decode_hosts(hosts)]
        self.groups: dict[str, set[str]] = {}
        self._lane_groups: dict[str, set[str]] = defaultdict(set)

    @property
    def shard(self) -> _Connection:
        """The connection to the first host."""
        connection: _Connection = self._shards[0]
        return connection

    async def receive(self, channel: str) -> Any:
        """The next message of a channel. Cancelling this deletes the channel, as in channels_redis."""
        if channel not in self.channels:
            await self._subscribe_to_channel(channel)
        try:
            message = await self.channels[channel].get()
        except (asyncio.CancelledError, GeneratorExit):
            await self._forget_channel(channel)
            raise
        return self.channel_layer.deserialize(message) if isinstance(message, bytes) else message

    async def group_add(self, group: str, channel: str) -> None:
        """Makes a channel of this process a member."""
        if channel not in self.channels:
            raise RuntimeError(f"{channel!r} is no channel of this process; use one from new_channel().")
        lane = self._lane(group)
        await self._get_shard(lane).subscribe(lane)
        self._lane_groups[lane].add(group)
        self.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Ends a membership; nothing happens where there is none."""
        members = self.groups.get(group, set())
        members.discard(channel)
        if members or self.groups.pop(group, None) is None:
            return
        lane = self._lane(group)
        self._lane_groups[lane].discard(group)
        if not self._lane_groups[lane]:
            del self._lane_groups[lane]
            await self._get_shard(lane).unsubscribe(lane)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Sends a message to every member."""
        lane = self._lane(group)
        data = _MESSAGE + _encode((group, self.channel_layer.serialize(message)))
        await self._get_shard(lane).publish(lane, data)

    async def group_send_many(self, messages: Mapping[str, bytes]) -> None:
        """One PUBLISH per lane; all that go to one Redis in one round trip."""
        by_lane: dict[str, dict[str, bytes]] = defaultdict(dict)
        for group, value in messages.items():
            by_lane[self._lane(group)][group] = value
        by_shard: dict[_Connection, dict[str, bytes]] = defaultdict(dict)
        for lane, items in by_lane.items():
            by_shard[self._get_shard(lane)][lane] = _BATCH + _encode(items)
        for shard, lanes in by_shard.items():
            await shard.publish_many(lanes)

    async def flush(self) -> None:
        """Makes the layer like new; connections are opened again when it is used again."""
        self._lane_groups.clear()
        await super().flush()

    def deliver(self, data: bytes) -> None:
        """What came on a lane, to the channels that are members."""
        body = memoryview(data)[1:]
        if data[:1] == _BATCH:
            for channel, items in by_channel(_batches.decode(body), self.groups).items():
                self._put(channel, {"type": "group.batch", "items": items})
        else:
            group, message = _messages.decode(body)
            for channel in self.groups.get(group, ()):
                self._put(channel, message)

    def _put(self, channel: str, message: Any) -> None:
        if channel in self.channels:
            self.channels[channel].put_nowait(message)

    def _lane(self, group: str) -> str:
        return f"{self.prefix}__lane__{lane_of(group, self.channel_layer.lanes)}"

    async def _subscribe_to_channel(self, channel: str) -> None:
        self.channels[channel] = DroppingQueue(QUEUE_LIMIT)
        try:
            await self._get_shard(channel).subscribe(channel)
        except (RedisError, OSError):
            del self.channels[channel]
            raise

    async def _forget_channel(self, channel: str) -> None:
        if self.channels.pop(channel, None) is not None:
            for group in [group for group, members in self.groups.items() if channel in members]:
                with contextlib.suppress(RedisError, OSError):
                    await self.group_discard(group, channel)
            with contextlib.suppress(RedisError, OSError):
                await self._get_shard(channel).unsubscribe(channel)


class _Connection(RedisSingleShardConnection):  # type: ignore[misc]
    """One connection that sends and one that listens; the second comes back by itself."""

    def redis(self) -> Any:
        """The client of the sending connection."""
        self._ensure_redis()
        return self._redis

    async def publish_many(self, messages: Mapping[str, bytes]) -> None:
        """Several messages in one round trip."""
        pipeline = self.redis().pipeline(transaction=False)
        for channel, message in messages.items():
            pipeline.publish(channel, message)
        await pipeline.execute()

    async def _do_receiving(self) -> None:
        while True:
            if not self._pubsub.subscribed:
                await asyncio.sleep(RETRY_S)
                continue
            try:
                self._receive_message(await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=READ_S))
            except (RedisError, OSError) as error:
                await self._come_back(error)

    def _receive_message(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        name = message["channel"].decode()
        layer: _LoopLayer = self.channel_layer
        if name in layer.channels:
            layer.channels[name].put_nowait(message["data"])
        else:
            layer.deliver(message["data"])

    async def _come_back(self, error: Exception) -> None:
        layer: RedisTickLayer = self.channel_layer.channel_layer
        log.warning("redis_lost", reason=str(error))
        layer.tell(lost=True)
        while True:
            try:
                await self._redis.ping()
                # Connecting says all subscriptions again, before anybody is told that we are back.
                await self._pubsub.connect()
            except (RedisError, OSError):
                await asyncio.sleep(RETRY_S)
            else:
                break
        log.info("redis_back")
        layer.tell(lost=False)


def _with_timeouts(hosts: Any) -> list[dict[str, Any]]:
    """
    Connections that notice a dead Redis within seconds and leave trying again to us: one that came back by itself
    would have lost messages, and nobody would know.
    """
    defaults = {
        "socket_connect_timeout": 2.0,
        "socket_keepalive": True,
        "health_check_interval": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    return [defaults | host for host in decode_hosts(hosts)]


# --------------------------------------------------------------------------------------------------------- in-process


class LocalTickLayer(BaseChannelLayer):
    """The same within one process, without Redis. Nothing is copied that cannot change, and nothing expires."""

    def __init__(self, capacity: int = QUEUE_LIMIT, **options: Any) -> None:
        super().__init__(capacity=capacity, **options)
        self.channels: dict[str, DroppingQueue] = {}
        self.groups: dict[str, set[str]] = {}

    extensions = ["groups", "flush"]

    def add_listener(self, on_lost: Listener, on_back: Listener) -> None:
        """Nothing here goes away, so nobody is ever told."""

    async def check_lanes(self) -> None:
        """There are none."""

    async def new_channel(self, prefix: str = "specific.") -> str:
        """The name of a channel of one's own."""
        channel = f"{prefix}{uuid.uuid4().hex}"
        self.channels[channel] = DroppingQueue(self.capacity)
        return channel

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Puts a message on a channel; channels nobody has received from keep theirs, too."""
        self.require_valid_channel_name(channel)
        self._queue(channel).put_nowait(copy.deepcopy(message))

    async def receive(self, channel: str) -> Any:
        """The next message of a channel. Cancelling this deletes the channel, as in the Redis layer."""
        self.require_valid_channel_name(channel)
        try:
            return await self._queue(channel).get()
        except (asyncio.CancelledError, GeneratorExit):
            self._forget(channel)
            raise

    async def group_add(self, group: str, channel: str) -> None:
        """Makes a channel a member."""
        self.require_valid_group_name(group)
        if channel not in self.channels:
            raise RuntimeError(f"{channel!r} is no channel of this process; use one from new_channel().")
        self.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Ends a membership; nothing happens where there is none."""
        members = self.groups.get(group, set())
        members.discard(channel)
        if not members:
            self.groups.pop(group, None)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Sends a message to every member."""
        self.require_valid_group_name(group)
        for channel in self.groups.get(group, ()):
            self._queue(channel).put_nowait(copy.deepcopy(message))

    async def group_send_many(self, messages: Mapping[str, bytes]) -> None:
        """Sends each group its bytes, one message a member; bytes cannot change, so they are not copied."""
        for channel, items in by_channel(messages, self.groups).items():
            self._queue(channel).put_nowait({"type": "group.batch", "items": items})

    async def flush(self) -> None:
        """Forgets everything."""
        self.channels.clear()
        self.groups.clear()

    def _queue(self, channel: str) -> DroppingQueue:
        return self.channels.setdefault(channel, DroppingQueue(self.capacity))

    def _forget(self, channel: str) -> None:
        self.channels.pop(channel, None)
        for group in [group for group, members in self.groups.items() if channel in members]:
            self.groups[group].discard(channel)
            if not self.groups[group]:
                del self.groups[group]
