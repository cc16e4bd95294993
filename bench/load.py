"""
The load generator: many clients in one process that must not be the bottleneck.

Most clients only count ticks in the bytes they receive. Five read every tick: its sequence, and its latency from the
clock that the feed put into it. Clients that never read subscribe and do nothing more.

It runs as a process of its own (`python -m bench.load`): a JSON plan on the first line of standard input, then one
command a line (`mark`, `stop`), each answered by one line of JSON with what was counted since the one before.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

CHUNK_BYTES = 1 << 20
TICK, LAGGING, ACK = b',"received_ms":1', b'status":"lagging', b'"status":"subscribed"'
"""What is counted; each message of a kind has it once. Long patterns are found faster than short ones."""
OVERLAP_BYTES = len(TICK) - 1
"""Of the bytes before, so much is looked at again: a pattern that was cut is found, and none is counted twice."""
MERGED = re.compile(rb'"merged":(\d+),')
TICK_FIELDS = re.compile(
    rb'{"symbol":"([^"]+)","exchange":"[^"]+","mode":"[^"]+","ltp":([0-9.]+)(?:,"ltq":(\d+))?'
    rb'.*?_ms":\d+,"seq":(\d+)(?:,"conflated":(\d+))?'
)
PONG_S = 5.0
"""Unasked pongs, so that a server that pings sees life without our reading its pings."""
SETUP_S = 120.0


class Client(msgspec.Struct):
    """One client of the plan. `check`: reads every tick. `silent`: never reads."""

    symbols: list[str]
    check: bool = False
    silent: bool = False


class Plan(msgspec.Struct):
    """
    Who connects where and subscribes what.

    `protocol` is "native" (the product's), "nats" (nats-server's over WebSocket) or "list" (a JSON list of symbols). In
    `mode` LTP the clock is the price: 10 us in the last 24 bits; else the last traded quantity: us in 32 bits.
    """

    url: str
    protocol: str
    clients: list[Client]
    exchange: str = "NSE"
    mode: str = "LTP"
    key: str = ""


class Clock(NamedTuple):
    """How a stamp is read: its unit in microseconds and its size in bits."""

    unit_us: int
    bits: int

    def age_us(self, stamp: int, now_us: int) -> int:
        """How old a stamp is now."""
        return ((now_us // self.unit_us - stamp) & ((1 << self.bits) - 1)) * self.unit_us


PRICE, QUANTITY = Clock(10, 24), Clock(1, 32)


class Report(msgspec.Struct):
    """What came since the last mark; latencies in microseconds, of the checking clients."""

    delivered: int = 0
    received_bytes: int = 0
    merged: int = 0
    acks: int = 0
    closed: int = 0
    checked: int = 0
    conflated: int = 0
    gaps: int = 0
    missing: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    p50_us: int = 0
    p95_us: int = 0
    p99_us: int = 0
    max_us: int = 0


class Reader:
    """A client that counts."""

    def __init__(self, name: int, connection: socket.socket, report: Report) -> None:
        self.name = name
        self.socket = connection
        self.report = report
        self._tail = b""
        self._owed = 0
        """Lagging messages whose number has not come yet."""

    def received(self, buffer: bytearray, end: int) -> None:
        """`buffer[OVERLAP_BYTES:end]` has come."""
        report, tail = self.report, self._tail
        start = OVERLAP_BYTES - len(tail)
        buffer[start:OVERLAP_BYTES] = tail
        report.delivered += buffer.count(TICK, start, end)
        report.received_bytes += end - OVERLAP_BYTES
        self._owed += buffer.count(LAGGING, start, end)
        if self._owed:
            numbers = MERGED.findall(buffer, start, end)
            report.merged += sum(map(int, numbers))
            self._owed -= len(numbers)
        self._tail = bytes(buffer[max(start, end - OVERLAP_BYTES) : end])


class Checker(Reader):
    """A client that reads every tick."""

    def __init__(self, name: int, connection: socket.socket, report: Report, clock: Clock) -> None:
        super().__init__(name, connection, report)
        self.latencies_us = array("Q")
        self._clock = clock
        self._rest = b""
        self._seqs: dict[bytes, int] = {}
        self._merged = 0

    def received(self, buffer: bytearray, end: int) -> None:
        """Looks at whole messages only; what is cut waits for its other half."""
        now_us = time.time_ns() // 1000
        data = self._rest + buffer[OVERLAP_BYTES:end]
        report, seqs, age_us, note = self.report, self._seqs, self._clock.age_us, self.latencies_us.append
        report.received_bytes += end - OVERLAP_BYTES
        cut = data.rfind(b"}") + 1
        self._rest = bytes(data[cut:])
        if data.find(LAGGING, 0, cut) >= 0:
            merged = sum(map(int, MERGED.findall(data, 0, cut)))
            report.merged += merged
            self._merged += merged
        ticks = TICK_FIELDS.findall(data, 0, cut)
        for symbol, price, quantity, seq_text, conflated_text in ticks:
            seq, conflated = int(seq_text), int(conflated_text or 0)
            missing = seq - seqs.get(symbol, seq - 1 - conflated) - 1 - conflated
            seqs[symbol] = seq
            report.conflated += conflated
            if missing:
                self._missed(missing)
            note(age_us(int(quantity) if quantity else round(float(price) * 100), now_us))
        report.delivered += len(ticks)
        report.checked += len(ticks)

    def _missed(self, missing: int) -> None:
        """Sequence numbers that did not come: merged, as the server said, or a gap."""
        if 0 < missing <= self._merged:
            self._merged -= missing
        else:
            self.report.gaps += 1
            self.report.missing += missing


class Load:
    """All clients of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = Report()
        self.readers: list[Reader] = []
        self._silent: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(OVERLAP_BYTES + CHUNK_BYTES)
        self._view = memoryview(self._buffer)[OVERLAP_BYTES:]
        self._began = time.perf_counter(), time.process_time()
        self._ponged_s = time.monotonic()

    def connect(self) -> None:
        """Connects every client, and subscribes when all are there."""
        for number, client in enumerate(self.plan.clients):
            connection = self._join()
            if client.silent:
                self._silent.append(connection)
            else:
                self._add(number, connection, check=client.check)
        for client, connection in zip(self.plan.clients, self._sockets(), strict=True):
            for message in _subscriptions(self.plan, client):
                connection.sendall(_frame(message))
        for reader in self.readers:
            reader.socket.setblocking(False)
        if self.plan.protocol == "native":
            end_s = time.monotonic() + SETUP_S
            while self.report.acks < len(self.readers) and time.monotonic() < end_s:
                self.read(0.1)

    def _sockets(self) -> Iterator[socket.socket]:
        silent, reading = iter(self._silent), iter(self.readers)
        for client in self.plan.clients:
            yield next(silent) if client.silent else next(reading).socket

    def _add(self, number: int, connection: socket.socket, *, check: bool) -> None:
        clock = PRICE if self.plan.mode == "LTP" else QUANTITY
        reader = Checker(number, connection, self.report, clock) if check else Reader(number, connection, self.report)
        self.readers.append(reader)
        self._selector.register(connection, selectors.EVENT_READ, reader)

    def _join(self) -> socket.socket:
        uri = parse_uri(self.plan.url)
        connection = socket.create_connection((uri.host, uri.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol = ClientProtocol(uri)
        protocol.send_request(protocol.connect())
        connection.sendall(b"".join(protocol.data_to_send()))
        while protocol.state is State.CONNECTING:
            protocol.receive_data(connection.recv(65536))
            if protocol.handshake_exc is not None:
                raise protocol.handshake_exc
        if self.plan.protocol == "native":
            connection.sendall(_frame(json.dumps({"action": "authenticate", "api_key": self.plan.key})))
            answer = connection.recv(65536)
            if b"authenticated" not in answer:
                raise SystemExit(f"The server does not let the load generator in: {answer!r}")
        return connection

    def read(self, timeout_s: float, control: object = None) -> bool:
        """Reads what has come; True when `control` (standard input) has something, too."""
        told = False
        overlap, buffer, view = OVERLAP_BYTES, self._buffer, self._view
        for key, _ in self._selector.select(timeout_s):
            reader = key.data
            if reader is control:
                told = True
                continue
            try:
                size = reader.socket.recv_into(view)
            except BlockingIOError:
                continue
            except ConnectionError:
                size = 0
            if not size:
                self.report.closed += 1
                self._selector.unregister(reader.socket)
                continue
            if self.report.acks < len(self.readers):
                self.report.acks += buffer.count(ACK, overlap, overlap + size)
            reader.received(buffer, overlap + size)
        self._pong()
        return told

    def _pong(self) -> None:
        now_s = time.monotonic()
        if now_s - self._ponged_s < PONG_S:
            return
        self._ponged_s = now_s
        frame = Frame(Opcode.PONG, b"").serialize(mask=True)
        for connection in (*self._silent, *(reader.socket for reader in self.readers)):
            try:
                connection.send(frame)
            except OSError:
                continue  # closed, which the reading counts; or full, then it will see life later

    def serve(self) -> None:
        """Answers commands until `stop`."""
        control = object()
        self._selector.register(sys.stdin, selectors.EVENT_READ, control)
        _say({"ready": len(self.plan.clients), "acks": self.report.acks})
        while True:
            if self.read(1.0, control):
                command = sys.stdin.readline().strip()
                _say(msgspec.to_builtins(self.mark()))
                if command in ("stop", ""):
                    return

    def mark(self) -> Report:
        """What came since the last mark."""
        done, self.report = self.report, Report(acks=self.report.acks)
        now = time.perf_counter(), time.process_time()
        done.seconds, done.cpu_s = now[0] - self._began[0], now[1] - self._began[1]
        self._began = now
        found: list[int] = []
        for reader in self.readers:
            reader.report = self.report
            if isinstance(reader, Checker):
                found.extend(reader.latencies_us)
                reader.latencies_us = array("Q")
        found.sort()
        if found:
            done.p50_us, done.p95_us, done.p99_us = (found[int(len(found) * part)] for part in (0.50, 0.95, 0.99))
            done.max_us = found[-1]
        return done


def _subscriptions(plan: Plan, client: Client) -> Iterator[str]:
    if plan.protocol == "native":
        symbols = [{"symbol": symbol, "exchange": plan.exchange} for symbol in client.symbols]
        yield json.dumps({"action": "subscribe", "symbols": symbols, "mode": plan.mode})
    elif plan.protocol == "nats":
        yield 'CONNECT {"verbose":false,"pedantic":false}\r\n'
        yield "".join(f"SUB {symbol} {number}\r\n" for number, symbol in enumerate(client.symbols, 1))
    else:
        yield json.dumps(client.symbols)


def _frame(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=True)


def _say(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(_: Sequence[str] = ()) -> None:
    """Reads the plan, connects, obeys."""
    load = Load(msgspec.json.decode(sys.stdin.readline(), type=Plan))
    load.connect()
    load.serve()


if __name__ == "__main__":
    main()
