"""
The bridge's end of the bus: a ZeroMQ SUB that connects to the adapters' XPUB, read in bursts, never blocking.

Subscribing is the demand: the publisher hears of each topic. ZeroMQ says everything again after a reconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

import zmq
from zmq.utils.monitor import parse_monitor_message

HIGH_WATER_MARK = 100_000
"""Messages that may wait in the kernel-side queue before the publisher's end drops the newest."""
BURST = 2000
"""Messages taken at one go before other tasks have a turn."""

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class BusReader:
    """
    Hands bursts of messages to `on_messages`, and to `on_adapters` whether somebody publishes at the other end.

    `open` needs a running event loop.
    """

    def __init__(
        self,
        address: str,
        on_messages: Callable[[Collection[bytes]], None],
        on_adapters: Callable[[bool], None],
    ) -> None:
        self._address = address
        self._on_messages = on_messages
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
        loop.add_reader(_descriptor(socket), self._read)
        loop.add_reader(_descriptor(self._monitor), self._watch)
        socket.connect(self._address)
        self._read()
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
        self._look_again()

    def ask_again(self, topics: Iterable[bytes]) -> None:
        """Asks the publisher for the state of these topics: it answers every subscription, also a second one."""
        for topic in topics:
            self._socket.subscribe(topic)
            self._socket.unsubscribe(topic)
        self._look_again()

    def _look_again(self) -> None:
        # The socket's descriptor is edge-triggered: what arrived during a send of ours is not signalled again.
        asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        if self._socket.closed:
            return
        messages: list[bytes] = []
        try:
            while len(messages) < BURST:
                messages.append(self._socket.recv(zmq.DONTWAIT))
        except zmq.Again:
            pass
        else:
            self._look_again()
        if messages:
            self._on_messages(messages)

    def _watch(self) -> None:
        monitor = self._monitor
        while monitor is not None and not monitor.closed and monitor.poll(0):
            event = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
            self._on_adapters(event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    """What an event loop watches: readable when there may be something new, signalled once."""
    return int(socket.getsockopt(zmq.FD))
