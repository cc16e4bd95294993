"""The store: its promises on SQLite and on PostgreSQL, beside readers and writers, and with a disk that is full."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import pytest
from django.db import DatabaseError, connection, transaction

from brokers.contract import InstrumentRow
from brokers.models import instrument_editions
from tests.brokers.instruments import scenario
from tests.brokers.instruments.scenario import SCENARIOS, put, row, stored
from tests.conftest import run_manage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("promise", SCENARIOS, ids=lambda promise: promise.__name__)
def test_on_sqlite(promise: Callable[[], None]) -> None:
    promise()


def test_within_somebody_elses_transaction() -> None:

    with transaction.atomic():
        for promise in SCENARIOS:
            if promise is not scenario.what_breaks_half_way_changes_nothing:
                promise()


def test_on_postgresql(postgres_url: str) -> None:
    assert run_manage("migrate", "-v0", DATABASE_URL=postgres_url).returncode == 0
    code = "from tests.brokers.instruments.scenario import run_all; run_all()"
    done = run_manage("shell", "-v0", "-c", code, DATABASE_URL=postgres_url)
    assert (done.returncode, done.stdout.split()) == (0, [promise.__name__ for promise in SCENARIOS]), done.stderr


def test_others_read_and_write_while_a_file_is_parsed_and_see_all_or_nothing() -> None:
    scenario.fresh()
    put([row("A", 1)])
    other = sqlite3.connect(connection.settings_dict["NAME"], timeout=0.1)
    seen = []

    def slow() -> Iterator[InstrumentRow]:
        for number in range(12_000):
            if number % 6000 == 0:
                seen.append(other.execute("SELECT count(*) FROM brokers_instrument").fetchone()[0])
                with other:
                    other.execute("UPDATE brokers_broker SET priority = priority + 1")
            yield row(f"S{number}", number)

    put(slow())
    seen.append(other.execute("SELECT count(*) FROM brokers_instrument").fetchone()[0])
    other.close()
    assert seen == [1, 1, 12_000]


def pragma(what: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {what}")
        [(value,)] = cursor.fetchall()
        return int(value)


def test_a_full_disk_leaves_the_old_instruments() -> None:
    scenario.fresh()
    put([row("A", 1)])
    editions = instrument_editions()
    most = pragma("page_count") + 3
    pragma(f"max_page_count = {most}")
    try:
        with pytest.raises(DatabaseError, match="disk is full"):
            put([row(f"S{number}", number) for number in range(20_000)])
    finally:
        pragma("max_page_count = 1073741823")
    assert (stored(), instrument_editions()) == ({("NSE", "1"): ("A", "NSE")}, editions)
    assert put([row("B", 1)]).is_changed
