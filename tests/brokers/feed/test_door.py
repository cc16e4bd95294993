"""What one process tried, the next one knows."""

from __future__ import annotations

import time

import pytest
from django.db import DatabaseError

from brokers.feed import door as module
from brokers.feed.door import Door
from brokers.feed.knocks import DENIED_FIRST_MS
from brokers.models import Attempt, Broker, BrokerAccount

pytestmark = pytest.mark.django_db

NOW_MS = time.time_ns() // 1_000_000


def opened() -> Door:
    door = Door(lambda: NOW_MS / 1000, on_news=lambda: None)
    door.remember()
    return door


def account() -> int:
    broker, _ = Broker.objects.get_or_create(slug="toy", defaults={"name": "Toy"})
    return BrokerAccount.objects.create(broker=broker, name="main").pk


def test_attempts_count_after_a_restart_each_kind_of_socket_by_itself() -> None:
    id_, door = account(), opened()
    for number in range(3):
        door.knocked(id_, "market", NOW_MS + number, "begun", "")
        door.knocked(id_, "market", NOW_MS + number, "failed", "network: HTTP 503")
    door.write()
    again = opened()
    assert again.knocks(id_, 3, "market").next_ms(NOW_MS + 3) == NOW_MS + 60_000
    assert again.knocks(id_, 3, "depth20").next_ms(NOW_MS + 3) == NOW_MS + 3
    assert Attempt.objects.count() == 3


def test_a_brokers_too_many_is_kept_in_mind() -> None:
    id_, door = account(), opened()
    door.knocked(id_, "market", NOW_MS, "refused", "limit: HTTP 429")
    door.write()
    assert opened().knocks(id_, 9, "market").next_ms(NOW_MS) == NOW_MS + DENIED_FIRST_MS
    door.knocked(id_, "market", NOW_MS + 1, "ok", "")
    door.write()
    assert opened().knocks(id_, 9, "market").next_ms(NOW_MS + 1) == NOW_MS + 1


def test_while_the_database_is_away_they_are_kept_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    id_, door = account(), opened()
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_knocks", _away)
        door.knocked(id_, "market", NOW_MS, "begun", "")
        with pytest.raises(DatabaseError):
            door.write()
    door.write()
    assert Attempt.objects.count() == 1


def _away(knocks: object) -> None:
    raise DatabaseError("away")
