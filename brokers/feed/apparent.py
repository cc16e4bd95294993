"""
Limits that a broker keeps to without a word: what is subscribed beyond them never ticks. Pure.

Such a limit shows in the order of subscription: up to some instrument nearly all had a price, behind it nearly none.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import accumulate
from math import comb
from typing import NamedTuple

from brokers.feed.subscriptions import Subscriptions
from marketdata.ticks import Token

TENTH = 10
"""One in so many may be an exception on either side: instruments that nobody trades, or late images."""
ODDS = 20
"""An order that by chance alone would come about once in fewer times than this says nothing."""


class ApparentLimit(NamedTuple):
    """The broker seems to serve no more than the first `at` of the `of` instruments it was told."""

    at: int
    of: int


def apparent_limit(heard: Sequence[bool | None]) -> ApparentLimit | None:
    """
    What the instruments of a connection, in the order of subscription, say of a limit; None: nothing.

    True is for one that had a price, False for one that should have had one by now, None for one of which that cannot
    be said: told a moment ago, its market closed, or refused with a word.

    >>> apparent_limit([True] * 10 + [False] * 4)
    ApparentLimit(at=10, of=14)
    >>> apparent_limit([True, False, True, True, False, False])
    """
    judged = [number for number, each in enumerate(heard) if each is not None]
    silent = [0, *accumulate(heard[number] is False for number in judged)]
    total, best = silent[-1], None
    for cut in range(1, len(judged)):
        tail = len(judged) - cut
        late, early = total - silent[cut], silent[cut]
        errors = early + tail - late
        is_clear = early <= cut // TENTH and tail - late <= tail // TENTH and heard[judged[cut]] is False
        if is_clear and (best is None or errors < best[0]) and _is_no_chance(len(judged), late):
            best = errors, judged[cut]
    return None if best is None else ApparentLimit(best[1], len(heard))


def limit_of(
    held: Subscriptions, refused: Container[Token], missed: Callable[[Token, float], bool], *, now_s: float
) -> ApparentLimit | None:
    """
    The apparent limit of a connection that stands.

    `missed` says whether an instrument of which no price came in so many seconds should have had one.
    """
    unpriced = held.unpriced
    if not unpriced:
        return None

    def heard(token: Token) -> bool | None:
        since_s = unpriced.get(token)
        if token in refused or (since_s is not None and not missed(token, now_s - since_s)):
            return None
        return since_s is None

    return apparent_limit([heard(token) for token in held.order()])


def beyond(held: Subscriptions, limit: ApparentLimit) -> list[Token]:
    """The instruments without a price that were told behind the apparent limit."""
    return [token for token in held.order()[limit.at :] if token in held.unpriced]


def _is_no_chance(count: int, late: int) -> bool:
    """Whether it says something that of so many instruments just the last ones are silent."""
    return late > 0 and comb(count, min(late, count - late, 3)) >= ODDS
