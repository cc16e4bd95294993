"""
The bridge's end of the bus: a ZeroMQ SUB that connects to the adapters' XPUB, read in bursts, never blocking.

Subscribing is the demand: the publisher hears of each topic. ZeroMQ says everything again after a reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import zmq
from zmq.utils.monitor import parse_monitor_message

HIGH_WATER_MARK = 100_000
"""Messages that may wait in the kernel-side queue before the publisher's end drops the newest."""
BURST = 2000
"""Messages taken at one go before other tasks have a turn."""

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class BusReader:
    """
    Calls `on_ready` when there may be messages to `take`, and `on_adapters` with whether somebody publishes.

    Until they are taken `on_ready` is not called again: messages that come meanwhile wake nobody. `open` needs a
    running event loop.
    """

    def __init__(self, address: str, on_ready: Callable[[], None], on_adapters: Callable[[bool], None]) -> None:
        self._address = address
        self._on_ready = on_ready
        self._on_adapters = on_adapters
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        self._monitor: zmq.Socket[bytes] | None = None

    def open(self) -> None:
        """Connects, and reads from now on."""
        socket = self._socket
        # Subscriptions travel on SUB's sending side: with a mark there, those beyond it are silently lost.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3000)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        self._monitor = socket.get_monitor_socket(_EVENTS)
        loop = asyncio.get_running_loop()
        loop.add_reader(_descriptor(self._monitor), self._watch)
        socket.connect(self._address)
        self._on_ready()
        self._watch()

    def close(self) -> None:
        """Disconnects; the publisher sees every topic unsubscribed."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(_descriptor(self._socket))
        if self._monitor is not None:
            loop.remove_reader(_descriptor(self._monitor))
            self._socket.disable_monitor()
            self._monitor.close()
        self._context.destroy(linger=0)

    def change(self, added: Iterable[bytes], removed: Iterable[bytes]) -> None:
        """These topics are wanted from now on, those no longer."""
        for topic in added:
            self._socket.subscribe(topic)
        for topic in removed:
            self._socket.unsubscribe(topic)
        # What arrived during a send of ours is not signalled again.
        self._on_ready()

    def ask_again(self, topics: Iterable[bytes]) -> None:
        """Asks the publisher for the state of these topics: it answers every subscription, also a second one."""
        for topic in topics:
            self._socket.subscribe(topic)
            self._socket.unsubscribe(topic)
        # What arrived during a send of ours is not signalled again.
        self._on_ready()

    def take(self) -> list[bytes]:
        """What has come, at most a burst; when there may be more, `on_ready` is called again."""
        messages: list[bytes] = []
        if self._socket.closed:
            return messages
        receive = self._socket.recv
        try:
            while len(messages) < BURST:
                messages.append(receive(zmq.DONTWAIT))
        except zmq.Again:
            asyncio.get_running_loop().add_reader(_descriptor(self._socket), self._readable)
        else:
            self._on_ready()
        return messages

    def _readable(self) -> None:
        # The descriptor stays readable until messages are taken, which may be a while: one call is enough.
        asyncio.get_running_loop().remove_reader(_descriptor(self._socket))
        self._on_ready()

    def _watch(self) -> None:
        monitor = self._monitor
        while monitor is not None and not monitor.closed and monitor.poll(0):
            event = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
            self._on_adapters(event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    """What an event loop watches: readable when there may be something new, signalled once."""
    return int(socket.getsockopt(zmq.FD))
