"""An SDK's parser in its own environment: frames go in, one JSON line each, and what it made of them comes out."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import missing
from tests.oracles.make import is_made, python_of


class Oracle:
    """
    A subprocess that runs `<name>_runner.py`, or another runner, with the SDK of that name.

    `parse` sends one frame and returns the SDK's packets, or raises OracleError with the SDK's own exception.
    """

    def __init__(self, name: str, runner: str = "") -> None:
        if not is_made(name):
            missing(f"the oracle {name}", "its environment is not made (make oracles)")
        self._process = subprocess.Popen(
            [python_of(name), Path(__file__).with_name(f"{runner or name}_runner.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TZ": "UTC"},
        )

    def parse(self, frame: bytes) -> list[dict[str, Any]]:
        """What the SDK reads in a frame."""
        packets: list[dict[str, Any]] = self.ask(frame.hex())["packets"]
        return packets

    def ask(self, line: str) -> dict[str, Any]:
        """The runner's answer to one line of input; what the line means is between it and its test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise OracleError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the subprocess."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class OracleError(Exception):
    """The SDK's parser raised."""
