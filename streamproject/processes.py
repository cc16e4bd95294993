"""
A family of child processes under one parent: started, watched, started again when they die, stopped in order.

No child outlives its parent, however that ends: on Linux the kernel tells it, elsewhere it watches its parent itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 10.0
HEALTHY_S = 10.0
"""A child that lived this long is started again at once when it dies."""
STOP_S = 4.0
"""How long a child is given to end before it is killed."""

PARENT = "STREAM_PARENT"
"""Where a child finds the process id of its parent, when it has to watch it itself."""

_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """What to run. It inherits `descriptors`; `feed` is written to its standard input."""

    name: str
    command: Sequence[str]
    env: dict[str, str]
    descriptors: Sequence[int] = ()
    feed: bytes = b""


class Family:
    """The children of this process. `say` is called with (name, line) for each line a child prints."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}

    def start(self, child: Child) -> None:
        """Starts a child and keeps it alive until `stop`."""
        self._keepers[child.name] = asyncio.create_task(self._keep(child), name=child.name)

    async def run(self, child: Child) -> tuple[int, bytes]:
        """Runs a child once, to its end; its exit code and what it wrote to standard output."""
        process = await _spawn(child, stderr=asyncio.subprocess.PIPE)
        self._running[child.name] = process
        try:
            out, err = await process.communicate()
        finally:
            self._running.pop(child.name, None)
        for line in err.decode(errors="replace").splitlines():
            self._say(child.name, line)
        return process.returncode or 0, out

    async def stop(self) -> None:
        """Ends every child, the last started first; one that does not end in time is killed."""
        for name in reversed(list(self._keepers)):
            keeper = self._keepers.pop(name)
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await self._end(name)
        for name in list(self._running):
            await self._end(name)

    async def _keep(self, child: Child) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            began_s = time.monotonic()
            process = await _spawn(child, stderr=asyncio.subprocess.STDOUT)
            self._running[child.name] = process
            await self._listen(child, process)
            code = await process.wait()
            self._running.pop(child.name, None)
            wait_s = FIRST_WAIT_S if time.monotonic() - began_s > HEALTHY_S else wait_s
            self._say(child.name, f"ended ({_reason(code)}); starting again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _listen(self, child: Child, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        if child.feed and process.stdin is not None:
            process.stdin.write(child.feed)
            process.stdin.close()
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # A line beyond the buffer's limit: passed over, as its rest will be.
            if not line:
                return
            self._say(child.name, line.decode(errors="replace").rstrip())

    async def _end(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            self._say(name, f"did not end within {STOP_S:g} s; killed")
            process.kill()
            await process.wait()


def watch_parent() -> None:
    """Ends this process when the parent that started it is gone, where the kernel does not see to that."""
    parent = os.environ.get(PARENT, "")
    if parent and not sys.platform.startswith("linux"):
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


async def _spawn(child: Child, *, stderr: int) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C in the terminal reaches the parent only, which then stops the children in order.
    return await asyncio.create_subprocess_exec(
        *child.command,
        env=child.env | {PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.PIPE if child.feed else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        pass_fds=tuple(child.descriptors),
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform.startswith("linux") else None,
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _reason(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
