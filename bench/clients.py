"""The load generator's process, from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

import msgspec

from bench.load import Client, Plan, Report
from bench.processes import PROJECT, BenchError, end
from bench.workloads import CHECKERS, Workload


class Clients:
    """Connects and subscribes everybody on entering; `report` tells what came."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __enter__(self) -> Clients:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._say(msgspec.json.encode(self._plan).decode())
        ready = self._hear()
        reading = sum(not client.silent for client in self._plan.clients)
        if self._plan.protocol == "native" and ready["acks"] < reading:
            raise BenchError(f"Only {ready['acks']} of {reading} clients had their subscription acknowledged.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process)

    @property
    def pid(self) -> int:
        """The load generator's process id."""
        return self._process.pid

    def phase(self) -> None:
        """What comes from now on is counted apart."""
        self._say("phase")

    def report(self) -> list[Report]:
        """What came in each phase since the last report; this one ends here. Ticks should not be coming just now."""
        self._say("report")
        return msgspec.convert(self._hear(), list[Report])

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("The load generator ended; its own words are above.")
        return json.loads(line)


def plan(workload: Workload, url: str, protocol: str, key: str = "") -> Plan:
    """Who connects for a workload: the checking clients evenly among the others, the silent ones last."""
    every = max(workload.clients // CHECKERS, 1)
    reading = [
        Client(workload.symbols_of(number), check=number % every == 0 and number // every < CHECKERS)
        for number in range(workload.clients)
    ]
    silent = [Client(workload.symbols_of(number), silent=True) for number in range(workload.silent)]
    return Plan(url=url, protocol=protocol, clients=reading + silent, mode=workload.mode, key=key)
