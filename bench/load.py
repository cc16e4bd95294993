"""
The load generator: many clients in one process that must not be the bottleneck.

Most clients only count ticks in the bytes they receive. Five read every tick: its sequence, and its latency from the
clock that the feed put into it. Clients that never read subscribe and do nothing more.

It runs as a process of its own (`python -m bench.load`): a JSON plan on the first line of standard input, then one
command a line. `phase` begins a new phase of the measurement; `report`, and the end of the input, end it and are
answered by one line of JSON: a list of what was counted in each phase since the last report. What the checking clients
received is read then, not while ticks come.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import sys
import time
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
ALIVE_S = 5.0
"""How often each client shows that it lives: the server's own pings are not looked for among the ticks."""
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
    """What came in one phase; latencies in microseconds, of the checking clients."""

    delivered: int = 0
    received_bytes: int = 0
    merged: int = 0
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
    latencies_us: list[int] = []

    def finish(self) -> Report:
        """With percentiles instead of the latencies themselves."""
        found = sorted(self.latencies_us)
        self.latencies_us = []
        if found:
            self.p50_us, self.p95_us, self.p99_us = (found[int(len(found) * part)] for part in (0.50, 0.95, 0.99))
            self.max_us = found[-1]
        return self


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
    """A client that reads every tick: what came is kept with the time at which it came, and read by `analyse`."""

    def __init__(self, name: int, connection: socket.socket, report: Report, clock: Clock) -> None:
        super().__init__(name, connection, report)
        self._kept: list[tuple[Report, int, bytes]] = []
        self._clock = clock
        self._rest = b""
        self._seqs: dict[bytes, int] = {}
        self._excused = 0
        """Ticks the server said it merged, and whose numbers are still to be missed."""

    def received(self, buffer: bytearray, end: int) -> None:
        """Counts, and keeps."""
        self._kept.append((self.report, time.time_ns() // 1000, bytes(buffer[OVERLAP_BYTES:end])))
        super().received(buffer, end)

    def analyse(self) -> None:
        """Reads what was kept: whole messages only; what is cut waits for its other half."""
        for report, now_us, piece in self._kept:
            data = self._rest + piece
            cut = data.rfind(b"}") + 1
            self._rest = data[cut:]
            if data.find(LAGGING, 0, cut) >= 0:
                self._excused += sum(map(int, MERGED.findall(data, 0, cut)))
            for symbol, price, quantity, seq, conflated in TICK_FIELDS.findall(data, 0, cut):
                self._tick(report, symbol, int(seq), int(conflated or 0))
                stamp = int(quantity) if quantity else round(float(price) * 100)
                report.latencies_us.append(self._clock.age_us(stamp, now_us))
        self._kept.clear()

    def _tick(self, report: Report, symbol: bytes, seq: int, conflated: int) -> None:
        missing = seq - self._seqs.get(symbol, seq - 1 - conflated) - 1 - conflated
        self._seqs[symbol] = seq
        report.checked += 1
        report.conflated += conflated
        if 0 < missing <= self._excused:
            self._excused -= missing
        elif missing:
            report.gaps += 1
            report.missing += missing


class Load:
    """All clients of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = Report()
        self.acks = 0
        self.readers: list[Reader] = []
        self._done: list[Report] = []
        self._silent: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(OVERLAP_BYTES + CHUNK_BYTES)
        self._view = memoryview(self._buffer)[OVERLAP_BYTES:]
        self._began = time.perf_counter(), time.process_time()
        self._shown_alive_s = time.monotonic()

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
            while self.acks < len(self.readers) and time.monotonic() < end_s:
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
            if self.acks < len(self.readers):
                self.acks += buffer.count(ACK, overlap, overlap + size)
            reader.received(buffer, overlap + size)
        self._show_alive()
        return told

    def _show_alive(self) -> None:
        """A command that is answered, where the server takes commands: daphne believes only data and its own pongs."""
        now_s = time.monotonic()
        if now_s - self._shown_alive_s < ALIVE_S:
            return
        self._shown_alive_s = now_s
        native = self.plan.protocol == "native"
        frame = _frame('{"action":"ping"}') if native else Frame(Opcode.PONG, b"").serialize(mask=True)
        for connection in (*self._silent, *(reader.socket for reader in self.readers)):
            try:
                connection.send(frame)
            except OSError:
                continue  # closed, which the reading counts; or full, then it will see life later

    def serve(self) -> None:
        """Answers commands until the input ends."""
        control = object()
        self._selector.register(sys.stdin, selectors.EVENT_READ, control)
        _say({"ready": len(self.plan.clients), "acks": self.acks})
        while True:
            if self.read(1.0, control):
                # Not sys.stdin.readline: of two lines that came at once its buffer would keep the second.
                commands = os.read(sys.stdin.fileno(), CHUNK_BYTES).decode().split()
                for command in commands or ["report"]:
                    self._end_phase()
                    if command == "report":
                        _say(self._take_reports())
                if not commands:
                    return

    def _end_phase(self) -> None:
        done, self.report = self.report, Report()
        now = time.perf_counter(), time.process_time()
        done.seconds, done.cpu_s = now[0] - self._began[0], now[1] - self._began[1]
        self._began = now
        self._done.append(done)
        for reader in self.readers:
            reader.report = self.report

    def _take_reports(self) -> list[dict[str, object]]:
        for reader in self.readers:
            if isinstance(reader, Checker):
                reader.analyse()
        reports, self._done = self._done, []
        return [msgspec.to_builtins(report.finish()) for report in reports]


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
