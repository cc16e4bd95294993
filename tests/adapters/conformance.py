"""
What every adapter must pass, whatever its broker: the cards. `test_conformance.py` runs them over the registry.

An adapter's own folder `tests/adapters/<slug>/` holds

- `frames/`: recorded frames, hex in `*.hex` or text in `*.txt`. A file with several lines is several frames that one
  session reads in order (where a protocol remembers); the expected updates of all of them are beside it as `*.json`,
  and where each comes from is in `SOURCES.md`. Frames of the first kind of socket lie in `frames/` itself, those of
  the others in `frames/<kind>/`.
- a sample of each instrument file of its Spec: `master.csv` or `master.json`, with a segment `master-<segment>.csv`.
- `credentials.json`, where a credential must have a form: examples of those, made up.

A missing folder or file is a failure, so a new adapter cannot skip a card.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from brokers import registry
from brokers.contract import Adapter, BadRow, DecodeError, Event, Feed, Frame, InstrumentRow, Session, Update

FOLDER = Path(__file__).parent


class Sample(NamedTuple):
    """Recorded frames that one session reads in order, and what is in them."""

    slug: str
    kind: str
    name: str
    frames: tuple[Frame, ...]
    expected: list[dict[str, Any]]

    def session(self) -> Session:
        """A fresh session of the socket from which it comes."""
        adapter = registry.load(self.slug)
        return adapter.session(adapter.spec.feed(self.kind))


def adapters() -> list[Adapter]:
    """Every adapter there is."""
    return [registry.load(slug) for slug in registry.slugs()]


def feeds() -> list[tuple[Adapter, Feed]]:
    """Every kind of socket of every adapter."""
    return [(adapter, feed) for adapter in adapters() for feed in adapter.spec.feeds]


def samples(slug: str) -> list[Sample]:
    """The recorded frames of an adapter."""
    found = []
    for number, feed in enumerate(registry.load(slug).spec.feeds):
        folder = FOLDER / slug / "frames" / ("" if number == 0 else feed.kind)
        for path in sorted([*folder.glob("*.hex"), *folder.glob("*.txt")]):
            expected = msgspec.json.decode(path.with_suffix(".json").read_bytes())
            found.append(Sample(slug, feed.kind, path.stem, _frames(path), expected))
    return found


def credentials_of(adapter: Adapter) -> dict[str, str]:
    """Made-up credentials of the right form."""
    path = FOLDER / adapter.spec.slug / "credentials.json"
    examples: dict[str, str] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    return {credential.name: f"a {credential.name}" for credential in adapter.spec.credentials} | examples


def masters(adapter: Adapter) -> list[tuple[str, bytes]]:
    """The samples of an adapter's instrument files: segment, content."""
    return [(master.segment, _master(adapter.spec.slug, master.segment)) for master in adapter.spec.masters]


def rows_of(adapter: Adapter) -> list[InstrumentRow | BadRow]:
    """All rows of all its sample files."""
    return [row for segment, body in masters(adapter) for row in adapter.parse_instruments(body, segment)]


def decoded(session: Session, frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """What a session reads in frames, as plain data; the good part of damaged ones."""
    return [plain(event) for frame in frames for event in _events(session, frame) if isinstance(event, Update)]


def plain(update: Update) -> dict[str, Any]:
    """An update as JSON has it, without what it does not say."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(update))
    return {name: value for name, value in fields.items() if value is not None}


def _events(session: Session, frame: Frame) -> Sequence[Event]:
    try:
        return session.decode(frame)
    except DecodeError as damage:
        return damage.events


def _frames(path: Path) -> tuple[Frame, ...]:
    lines = path.read_text().splitlines()
    return tuple(bytes.fromhex(line) if path.suffix == ".hex" else line for line in lines)


def _master(slug: str, segment: str) -> bytes:
    stem = f"master-{segment}" if segment else "master"
    [path] = (FOLDER / slug).glob(f"{stem}.*")
    return path.read_bytes()
