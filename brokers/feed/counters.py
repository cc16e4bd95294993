"""What the feed has done since it started: plain numbers for metrics, status and tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counters:
    """
    Rising numbers. `reconnects` counts by ErrorKind, `refusals` HTTP or in-band refusals of credentials.

    `published` are ticks sent on the bus, last values and statuses not included; `unplaced` updates came for
    instruments nobody wants any more.
    """

    frames: int = 0
    updates: int = 0
    unplaced: int = 0
    published: int = 0
    snapshots: int = 0
    statuses: int = 0
    decode_errors: int = 0
    broker_errors: int = 0
    unknown_topics: int = 0
    refusals: int = 0
    reconnects: Counter[str] = field(default_factory=Counter)
