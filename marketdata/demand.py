"""Who wants what, as set arithmetic on topics: for the ledger, the bridge and the supervisor. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Generic, NamedTuple, TypeVar

Thing = TypeVar("Thing")


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


class Holders(Generic[Thing]):
    """
    How many want each thing (a topic, an instrument). `add` and `remove` return only the things whose answer changed.

    >>> holders = Holders[bytes]()
    >>> sorted(holders.add([b"a", b"b"])), sorted(holders.add([b"a"])), sorted(holders.remove([b"a", b"b"]))
    ([b'a', b'b'], [], [b'b'])
    """

    def __init__(self) -> None:
        self._count: dict[Thing, int] = {}

    def add(self, things: Iterable[Thing]) -> set[Thing]:
        """The things that nobody wanted before."""
        first: set[Thing] = set()
        for thing in things:
            count = self._count.get(thing, 0)
            self._count[thing] = count + 1
            if not count:
                first.add(thing)
        return first

    def remove(self, things: Iterable[Thing]) -> set[Thing]:
        """The things that nobody wants any more; one that nobody wanted is passed over."""
        last: set[Thing] = set()
        for thing in things:
            count = self._count.get(thing, 0)
            if count > 1:
                self._count[thing] = count - 1
            elif count:
                del self._count[thing]
                last.add(thing)
        return last

    def __contains__(self, thing: object) -> bool:
        return thing in self._count

    def __len__(self) -> int:
        return len(self._count)

    def all(self) -> frozenset[Thing]:
        """Every thing somebody wants."""
        return frozenset(self._count)
