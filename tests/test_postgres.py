"""The same models on PostgreSQL, through `manage.py` as an installation with DATABASE_URL runs it."""

from __future__ import annotations

import pytest

from tests.conftest import run_manage

ROUND_TRIP = """
from datetime import date
from asgiref.sync import async_to_sync
from django.db import IntegrityError, connection, transaction
from brokers.models import Broker, BrokerAccount, Instrument
from marketdata import auth
from marketdata.models import ApiKey

zerodha = Broker.objects.get(slug="zerodha")
BrokerAccount.objects.create(broker=zerodha, name="main", credentials={"access_token": "swordfish"})
assert BrokerAccount.objects.get(name="main").credentials == {"access_token": "swordfish"}
with connection.cursor() as cursor:
    cursor.execute("SELECT credentials FROM brokers_brokeraccount")
    assert b"swordfish" not in bytes(cursor.fetchone()[0])

row = dict(broker=zerodha, segment="NFO", token="1", symbol="NIFTY28MAR2420800CE", exchange="NFO", broker_symbol="N",
           broker_exchange="NFO", kind="CE", expiry=date(2024, 3, 28), strike=20800.0, lot_size=50, tick_size=0.05)
Instrument.objects.create(**row)
stored = Instrument.objects.get()
assert (stored.expiry, stored.strike, stored.tick_size) == (date(2024, 3, 28), 20800.0, 0.05)
try:
    with transaction.atomic():
        Instrument.objects.create(**row)
except IntegrityError:
    pass
else:
    raise AssertionError("one token twice")

key_row, key = auth.issue("charts")
async def check():
    assert (await auth.authenticate(key)).key_id == key_row.pk
    while auth._touching:
        await next(iter(auth._touching))
    assert await auth.revoked([key_row.pk, 10**9]) == {10**9}
async_to_sync(check)()
key_row.refresh_from_db()
assert key_row.last_used_at
print(connection.vendor)
"""


@pytest.fixture
def migrated(postgres_url: str) -> str:
    done = run_manage("migrate", "-v0", DATABASE_URL=postgres_url)
    assert done.returncode == 0, done.stderr
    return postgres_url


def test_models_keys_and_credentials_make_the_round_trip_on_postgresql(migrated: str) -> None:
    done = run_manage("shell", "-v0", "-c", ROUND_TRIP, DATABASE_URL=migrated)
    assert (done.returncode, done.stdout) == (0, "postgresql\n"), done.stderr


def test_credentials_are_rotated_on_postgresql(migrated: str) -> None:
    done = run_manage("rotate_credentials", DATABASE_URL=migrated)
    assert done.returncode == 0, done.stderr
    assert "accounts are under the first key now" in done.stdout
