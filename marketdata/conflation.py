"""
Message throttling: at most one tick per key and window, and never the last one lost. Pure; time is an argument.

A window is the same length for every key, so windows end in the order in which they began: a queue, no heap.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

Message = TypeVar("Message")


class _Waiting(Generic[Message]):
    """The newest message of an open window, None until a second one came, and how many it replaced."""

    __slots__ = ("conflated", "message")

    def __init__(self) -> None:
        self.message: Message | None = None
        self.conflated = 0


class Due(NamedTuple, Generic[Message]):
    """A message whose window ended, and how many it stands for beyond itself."""

    key: bytes
    message: Message
    conflated: int


class Conflator(Generic[Message]):
    """
    Of each key the first message after a quiet window goes at once, later ones replace each other until it ends.

    `window_ms` 0 lets everything through.

    >>> conflator = Conflator[str](window_ms=50)
    >>> [conflator.offer(b"k", tick, now_ms) for tick, now_ms in (("first", 0), ("second", 10), ("third", 20))]
    [True, False, False]
    >>> conflator.due(now_ms=49), conflator.due(now_ms=50)
    ([], [Due(key=b'k', message='third', conflated=1)])
    """

    def __init__(self, window_ms: float) -> None:
        self.window_ms = window_ms
        self._open: dict[bytes, _Waiting[Message]] = {}
        self._ends: deque[tuple[float, bytes]] = deque()

    def offer(self, key: bytes, message: Message, now_ms: float) -> bool:
        """True: send it now. False: it is kept, and `due` hands out the newest when the window ends."""
        if not self.window_ms:
            return True
        waiting = self._open.get(key)
        if waiting is None:
            self._begin(key, now_ms)
            return True
        if waiting.message is not None:
            waiting.conflated += 1
        waiting.message = message
        return False

    def due(self, now_ms: float) -> list[Due[Message]]:
        """The newest message of every window that has ended and saw more than its first; each begins a new window."""
        out: list[Due[Message]] = []
        while self._ends and self._ends[0][0] <= now_ms:
            _, key = self._ends.popleft()
            waiting = self._open.pop(key)
            if waiting.message is not None:
                out.append(Due(key, waiting.message, waiting.conflated))
                self._begin(key, now_ms)
        return out

    def next_due_ms(self) -> float | None:
        """When `due` is next worth calling; None while no window is open."""
        return self._ends[0][0] if self._ends else None

    def _begin(self, key: bytes, now_ms: float) -> None:
        self._open[key] = _Waiting()
        self._ends.append((now_ms + self.window_ms, key))
