"""
What every adapter must pass, whatever its broker: the cards. `test_conformance.py` runs them over the registry.

An adapter's own folder `tests/adapters/<slug>/` holds `frames/` (one frame a file, hex in `*.hex` or text in `*.txt`,
the expected events beside it as `*.json`, where each comes from in `SOURCES.md`) and `master.csv`, a sample of its
instrument file. A missing folder or file is a failure, so a new adapter cannot skip a card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from brokers import registry
from brokers.contract import Adapter, DecodeError, Feed, Frame, Update

FOLDER = Path(__file__).parent


class Sample(NamedTuple):
    """A recorded frame, and what is in it."""

    slug: str
    name: str
    frame: Frame
    expected: list[dict[str, Any]]


def adapters() -> list[Adapter]:
    """Every adapter there is."""
    return [registry.load(slug) for slug in registry.slugs()]


def feeds() -> list[tuple[Adapter, Feed]]:
    """Every kind of socket of every adapter."""
    return [(adapter, feed) for adapter in adapters() for feed in adapter.spec.feeds]


def samples(slug: str) -> list[Sample]:
    """The recorded frames of an adapter."""
    files = sorted((FOLDER / slug / "frames").glob("*.hex")) + sorted((FOLDER / slug / "frames").glob("*.txt"))
    return [
        Sample(slug, path.stem, _frame(path), msgspec.json.decode(path.with_suffix(".json").read_bytes()))
        for path in files
    ]


def decoded(adapter: Adapter, frame: Frame, feed: Feed | None = None) -> list[dict[str, Any]]:
    """What a fresh session reads in a frame, as plain data; the good part of a damaged one."""
    session = adapter.session(feed or adapter.spec.feeds[0])
    try:
        events = session.decode(frame)
    except DecodeError as damage:
        events = damage.events
    return [plain(event) for event in events if isinstance(event, Update)]


def plain(update: Update) -> dict[str, Any]:
    """An update as JSON has it, without what it does not say."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(update))
    return {name: value for name, value in fields.items() if value is not None}


def _frame(path: Path) -> Frame:
    text = path.read_text().strip()
    return bytes.fromhex(text) if path.suffix == ".hex" else text
