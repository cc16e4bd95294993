"""Who wants what, as set arithmetic on topics: for the ledger, the bridge and the supervisor. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple


class Change(NamedTuple):
    """What to add and what to remove; the two share nothing."""

    added: frozenset[bytes]
    removed: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


def difference(held: Collection[bytes], wanted: Iterable[bytes]) -> Change:
    """
    The change that turns `held` into `wanted`.

    >>> change = difference({b"a", b"b"}, {b"b", b"c"})
    >>> change.added, change.removed
    (frozenset({b'c'}), frozenset({b'a'}))
    """
    old, new = frozenset(held), frozenset(wanted)
    return Change(new - old, old - new)


class Holders:
    """
    How many want each topic. `add` and `remove` return only the topics whose answer changed.

    >>> holders = Holders()
    >>> sorted(holders.add([b"a", b"b"])), sorted(holders.add([b"a"])), sorted(holders.remove([b"a", b"b"]))
    ([b'a', b'b'], [], [b'b'])
    """

    def __init__(self) -> None:
        self._count: dict[bytes, int] = {}

    def add(self, topics: Iterable[bytes]) -> set[bytes]:
        """The topics that nobody wanted before."""
        first = set()
        for topic in topics:
            count = self._count.get(topic, 0)
            self._count[topic] = count + 1
            if not count:
                first.add(topic)
        return first

    def remove(self, topics: Iterable[bytes]) -> set[bytes]:
        """The topics that nobody wants any more; one that nobody wanted is passed over."""
        last = set()
        for topic in topics:
            count = self._count.get(topic, 0)
            if count > 1:
                self._count[topic] = count - 1
            elif count:
                del self._count[topic]
                last.add(topic)
        return last

    def __contains__(self, topic: bytes) -> bool:
        return topic in self._count

    def __len__(self) -> int:
        return len(self._count)

    def topics(self) -> frozenset[bytes]:
        """Every topic somebody wants."""
        return frozenset(self._count)
