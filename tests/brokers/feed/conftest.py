"""What tests of the supervisor start from: adapters of their own, and short intervals."""

from __future__ import annotations

import pytest

from brokers import registry
from brokers.contract import Adapter
from brokers.feed import supervisor as module


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> dict[str, Adapter]:
    """The adapters there are, by slug: fill it before the supervisor starts."""
    adapters: dict[str, Adapter] = {}

    def load(slug: str) -> Adapter:
        if slug not in adapters:
            raise registry.UnknownBroker(f"There is no broker {slug!r}.")
        return adapters[slug]

    monkeypatch.setattr(registry, "load", load)
    return adapters


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of seconds are tenths here; what is under a second stays."""
    for name, value in {"POLL_S": 0.1, "STATUS_S": 0.5}.items():
        monkeypatch.setattr(module, name, value)
