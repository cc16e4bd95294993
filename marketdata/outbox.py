"""
What waits for one client: everything while it keeps up, the newest of each key while it does not. Pure.

A frame is encoded once and shared by all clients; an outbox holds references, so its memory is bounded by the client's
own subscriptions as soon as its transport pauses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from marketdata.ticks import Key


class Entry:
    """One encoded tick, shared by every client of its dialect: the JSON text and the ready-made WebSocket frame."""

    __slots__ = ("frame", "key", "payload")

    def __init__(self, key: Key, payload: bytes, frame: bytes) -> None:
        self.key = key
        self.payload = payload
        self.frame = frame


class Joiner:
    """
    The frames of many entries as one write. Clients that wait for the same ticks share the bytes: joined once a pass.

    >>> from marketdata.ticks import Mode
    >>> joiner, key = Joiner(), Key("SBIN", "NSE", Mode.LTP)
    >>> entries = [Entry(key, b"", b"a"), Entry(key, b"", b"b")]
    >>> joiner.join(entries), joiner.join(entries.copy()) is joiner.join(entries)
    (b'ab', True)
    """

    def __init__(self) -> None:
        self._done: dict[tuple[int, int, int], tuple[Sequence[Entry], bytes]] = {}

    def join(self, entries: Sequence[Entry]) -> bytes:
        """All frames, in order. Comparing two lists of the same objects costs a fraction of joining one."""
        name = len(entries), id(entries[0]), id(entries[-1])
        done = self._done.get(name)
        if done is not None and done[0] == entries:
            return done[1]
        joined = b"".join([entry.frame for entry in entries])
        self._done[name] = entries, joined
        return joined

    def clear(self) -> None:
        """The pass is over: nothing is kept."""
        self._done.clear()


class Outbox:
    """
    One client's waiting ticks.

    `offer` is the fast way, a plain list append bound once per client. `take` hands out what may go now. While
    `paused` entries fold into the newest per key (`merged` counts those replaced since the last `take_merged`), and a
    throttled key gives at most one entry per its own interval.
    """

    __slots__ = ("_newest", "_next_ms", "_ready", "_throttle_ms", "_throttled", "merged", "offer")

    def __init__(self) -> None:
        self._ready: list[Entry] = []
        self.offer: Callable[[Entry], None] = self._ready.append
        self._newest: dict[Key, Entry] = {}
        self._throttle_ms: dict[Key, int] = {}
        self._throttled: dict[Key, Entry] = {}
        self._next_ms: dict[Key, float] = {}
        self.merged = 0

    def throttle(self, key: Key, interval_ms: int) -> None:
        """At most one entry of this key per interval from now on; 0 ends that."""
        if interval_ms:
            self._throttle_ms[key] = interval_ms
        else:
            self._throttle_ms.pop(key, None)
            self._next_ms.pop(key, None)

    def offer_throttled(self, entry: Entry) -> None:
        """For keys with an interval: the newest replaces the one that waits."""
        self._throttled[entry.key] = entry

    def forget(self, keys: Collection[Key]) -> None:
        """The client no longer holds these keys: nothing of them goes out any more."""
        for key in keys:
            self._throttle_ms.pop(key, None)
            self._throttled.pop(key, None)
            self._next_ms.pop(key, None)
            self._newest.pop(key, None)
        if self._ready:
            self._ready[:] = [entry for entry in self._ready if entry.key not in keys]

    def waiting(self) -> bool:
        """Whether a pass has anything to look at."""
        return bool(self._ready or self._throttled or self._newest)

    def next_due_ms(self) -> float | None:
        """When the first throttled entry may go; None when none waits."""
        return min((self._next_ms.get(key, 0.0) for key in self._throttled), default=None)

    def take(self, now_ms: float) -> list[Entry]:
        """Everything that may go now, in order of arrival; the caller writes it in one go."""
        out = self._ready.copy()
        self._ready.clear()
        if self._newest:
            out = [*self._newest.values(), *out]
            self._newest.clear()
        if self._throttled:
            out.extend(self._due(now_ms))
        return out

    def fold(self) -> None:
        """While the transport is paused: keeps only the newest entry per key of what has come."""
        for entry in self._ready:
            if self._newest.pop(entry.key, None) is not None:
                self.merged += 1
            self._newest[entry.key] = entry
        self._ready.clear()

    def take_merged(self) -> int:
        """How many entries were replaced by newer ones since the last call."""
        merged, self.merged = self.merged, 0
        return merged

    def _due(self, now_ms: float) -> list[Entry]:
        due = [key for key in self._throttled if self._next_ms.get(key, 0.0) <= now_ms]
        for key in due:
            self._next_ms[key] = now_ms + self._throttle_ms.get(key, 0)
        return [self._throttled.pop(key) for key in due]
