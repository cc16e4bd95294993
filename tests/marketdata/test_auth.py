"""API keys: what is stored, who gets in, and how fast a revoked one is out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from channels.db import database_sync_to_async
from django.contrib.auth import get_user_model
from django.db import OperationalError
from django.utils import timezone

from marketdata import auth
from marketdata.auth import Cache, FailureWindow, Grant, TooManyFailures
from marketdata.models import ApiKey

GRANT = Grant(key_id=1, name="charts", feed="", max_symbols=3000, max_connections=200)
IMPORTED = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"


@pytest.fixture(autouse=True)
def fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process as after its start."""
    monkeypatch.setattr(auth, "_cache", Cache())
    monkeypatch.setattr(auth, "_failures", FailureWindow())


@pytest.fixture
async def table(transactional_db: None) -> AsyncIterator[None]:
    """A database that threads share. What authenticate() writes behind our back ends before the table is emptied."""
    yield
    await settle()


async def make(name: str = "charts", **fields: Any) -> tuple[ApiKey, str]:
    made: tuple[ApiKey, str] = await database_sync_to_async(auth.issue)(name, **fields)
    return made


async def settle() -> None:
    """Until what authenticate() left behind is done."""
    await asyncio.gather(*auth._touching)


# --------------------------------------------------------------------------------------------------------- what is kept


def test_the_key_itself_is_nowhere_in_the_row(db: None) -> None:
    row, key = auth.issue("charts")
    assert key.startswith("sk_")
    assert len(key) == len("sk_") + 12 + 1 + 43
    row.refresh_from_db()
    kept = " ".join(str(getattr(row, field.name)) for field in ApiKey._meta.fields)
    assert not any(part in kept for part in key.split("_")[1:])
    assert (len(row.prefix), len(row.digest)) == (16, 64)


def test_two_keys_are_never_alike(db: None) -> None:
    assert len({auth.issue("charts")[1] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "key", ["short", "", "k" * 257, "0123456789abcdef\x00", "0123456789\nabcdef", "0" * 20 + "\ud800"]
)
def test_what_cannot_be_a_key_is_not_imported(db: None, key: str) -> None:
    with pytest.raises(auth.BadKeyError, match="16 to 256 characters"):
        auth.adopt(key, "charts")


def test_a_key_is_imported_once(db: None) -> None:
    auth.adopt(IMPORTED, "charts")
    with pytest.raises(auth.BadKeyError, match="exists already"):
        auth.adopt(IMPORTED, "again")


# ---------------------------------------------------------------------------------------------------------- who gets in


async def test_a_key_opens_what_its_row_says(table: None) -> None:
    row, key = await make(feed="desk", max_symbols=10, max_connections=2)
    assert await auth.authenticate(key) == Grant(row.pk, "charts", "desk", 10, 2)


async def test_a_row_without_limits_has_those_of_the_settings(table: None, settings: Any) -> None:
    settings.MAX_SYMBOLS_PER_KEY, settings.MAX_CONNECTIONS_PER_KEY = 7, 3
    row, key = await make()
    assert await auth.authenticate(key) == Grant(row.pk, "charts", "", 7, 3)


async def test_an_imported_key_of_any_shape_opens(table: None) -> None:
    for key in (IMPORTED, "with blanks and ünï-code ₹"):
        row = await database_sync_to_async(auth.adopt)(key, "charts")
        assert (await auth.authenticate(key) or GRANT).key_id == row.pk


async def test_a_key_that_differs_in_one_character_opens_nothing(table: None) -> None:
    _, key = await make()
    assert await auth.authenticate(key[:-1] + ("A" if key[-1] != "A" else "B")) is None
    assert await auth.authenticate(key.upper()) is None
    assert await auth.authenticate(key + " ") is None


async def test_a_row_found_by_its_handle_still_has_to_prove_the_key(table: None) -> None:
    row, key = await make()
    await ApiKey.objects.filter(pk=row.pk).aupdate(digest="0" * 64)
    assert await auth.authenticate(key) is None


@pytest.mark.parametrize(
    "fields", [{"active": False}, {"expires_at": timezone.now() - timedelta(seconds=1)}], ids=["revoked", "expired"]
)
async def test_a_revoked_or_expired_key_opens_nothing(table: None, fields: dict[str, Any]) -> None:
    _, key = await make(**fields)
    assert await auth.authenticate(key) is None


async def test_the_key_of_a_user_who_was_switched_off_opens_nothing(table: None) -> None:
    owner = await get_user_model().objects.acreate(username="gone", is_active=False)
    row, key = await make(owner=owner)
    assert await auth.authenticate(key) is None
    assert await auth.revoked([row.pk]) == {row.pk}


@pytest.mark.parametrize("key", ["", "short", "k" * 300, "0123456789abcdef\x00", "0" * 20 + "\ud800"])
async def test_what_cannot_be_a_key_is_refused_without_a_query(key: str) -> None:
    # No database here: a query would be an error.
    assert await auth.authenticate(key, "10.0.0.7") is None


async def test_after_a_change_of_secret_key_old_keys_open_and_move_to_the_new_one(table: None, settings: Any) -> None:
    settings.SECRET_KEY = "old" * 20
    row, key = await make()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new" * 20, ["old" * 20]
    assert (await auth.authenticate(key) or GRANT).key_id == row.pk
    await settle()
    settings.SECRET_KEY_FALLBACKS = []
    auth.forget([row.pk])
    assert (await auth.authenticate(key) or GRANT).key_id == row.pk


async def test_without_its_secret_key_a_stolen_row_opens_nothing(table: None, settings: Any) -> None:
    _, key = await make()
    settings.SECRET_KEY = "another" * 10
    assert await auth.authenticate(key) is None


# ------------------------------------------------------------------------------------------------- from memory, and out


class Clock:
    """Seconds since the process began, set by the test."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auth, "_clock", clock)
    return clock


async def test_a_right_key_is_looked_up_once_in_half_a_minute(
    table: None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    find = auth.find

    def counting(key: str) -> ApiKey | None:
        looked_up.append(key)
        return find(key)

    monkeypatch.setattr(auth, "find", counting)
    _, key = await make()
    for _ in range(5):
        assert await auth.authenticate(key)
    assert len(looked_up) == 1
    clock.now_s += auth.GRANT_TTL_S
    assert await auth.authenticate(key)
    assert len(looked_up) == 2


async def test_a_key_revoked_in_this_process_is_out_at_once(table: None) -> None:
    row, key = await make()
    assert await auth.authenticate(key)
    await settle()
    row.active = False
    await row.asave()
    assert await auth.authenticate(key) is None


async def test_a_key_deleted_in_this_process_is_out_at_once(table: None) -> None:
    row, key = await make()
    assert await auth.authenticate(key)
    await settle()
    await row.adelete()
    assert await auth.authenticate(key) is None


async def test_a_key_revoked_elsewhere_is_found_and_leaves_the_memory(table: None) -> None:
    row, key = await make()
    other, _ = await make("other")
    assert await auth.authenticate(key)
    await settle()
    await ApiKey.objects.filter(pk=row.pk).aupdate(active=False)  # no signal: as if in another process
    assert await auth.authenticate(key)
    assert await auth.revoked([row.pk, other.pk, 10**9]) == {row.pk, 10**9}
    assert await auth.authenticate(key) is None


async def test_a_key_expires_while_connected(table: None) -> None:
    row, _ = await make(expires_at=timezone.now() + timedelta(hours=1))
    assert await auth.revoked([row.pk]) == set()
    with time_machine.travel(timezone.now() + timedelta(hours=2)):
        assert await auth.revoked([row.pk]) == {row.pk}


def test_asking_for_many_revoked_keys_is_one_query(db: None, django_assert_num_queries: Any) -> None:
    ids = [auth.issue(f"key {number}")[0].pk for number in range(50)]
    with django_assert_num_queries(1):
        assert auth.find_revoked(ids) == set()


async def test_last_use_is_written_at_most_once_a_minute(table: None, clock: Clock) -> None:
    row, key = await make()
    start = timezone.now()

    async def use(after_s: int) -> Any:
        clock.now_s = 1000.0 + after_s
        with time_machine.travel(start + timedelta(seconds=after_s), tick=False):
            assert await auth.authenticate(key)
            await settle()
        await row.arefresh_from_db()
        return row.last_used_at

    assert await use(0) == start
    assert await use(45) == start
    assert await use(90) == start + timedelta(seconds=90)


async def test_a_database_error_is_not_taken_for_a_wrong_key(table: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = await make()

    def fail(_: str) -> None:
        raise OperationalError("no answer")

    with monkeypatch.context() as broken:
        broken.setattr(auth, "find", fail)
        with pytest.raises(OperationalError):
            await auth.authenticate(key)
    assert await auth.authenticate(key)


# ----------------------------------------------------------------------------------------------------------- wrong keys


async def test_an_address_with_too_many_wrong_keys_is_refused_unread_and_others_are_not(
    table: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, known = await make("known")
    _, fresh = await make("fresh")
    assert await auth.authenticate(known, "10.0.0.7")
    for number in range(auth.FAILURES_PER_WINDOW):
        assert await auth.authenticate(f"wrong-key-number-{number:03}", "10.0.0.7") is None
    with pytest.raises(TooManyFailures):
        await auth.authenticate("wrong-key-number-xyz", "10.0.0.7")
    with pytest.raises(TooManyFailures):
        await auth.authenticate(fresh, "10.0.0.7")
    assert await auth.authenticate(known, "10.0.0.7"), "a key known to be right passes"
    assert await auth.authenticate(fresh, "10.0.0.8"), "another address is not concerned"


async def test_a_program_that_retries_one_wrong_key_does_not_shut_out_its_address(table: None) -> None:
    _, key = await make()
    for _ in range(auth.FAILURES_PER_WINDOW * 3):
        assert await auth.authenticate("yesterdays-revoked-key", "127.0.0.1") is None
    assert await auth.authenticate(key, "127.0.0.1")


async def test_a_key_that_was_wrong_a_moment_ago_opens_as_soon_as_its_row_is_made(table: None) -> None:
    assert await auth.authenticate(IMPORTED) is None
    await database_sync_to_async(auth.adopt)(IMPORTED, "charts")
    assert await auth.authenticate(IMPORTED)


def test_a_window_ends() -> None:
    failures = FailureWindow(limit=3, window_s=60)
    for _ in range(5):
        failures.add("10.0.0.7", 100.0)
    assert not failures.allows("10.0.0.7", 159.9)
    assert failures.allows("10.0.0.7", 160.0)
    failures.add("10.0.0.7", 160.0)
    assert failures.allows("10.0.0.7", 161.0)


def test_failures_take_bounded_memory() -> None:
    failures = FailureWindow(limit=1, window_s=60, capacity=100)
    for number in range(1000):
        failures.add(f"10.0.{number // 250}.{number % 250}", float(number) / 1000)
    assert len(failures) == 100
    assert not failures.allows("10.0.3.249", 1.0)


def test_an_ipv6_customer_is_one_address_however_many_they_use() -> None:
    failures = FailureWindow(limit=2, window_s=60)
    failures.add("2001:db8:1:2::1", 0.0)
    failures.add("2001:db8:1:2:ffff::9", 0.0)
    assert not failures.allows("2001:db8:1:2:abcd::7", 1.0)
    assert failures.allows("2001:db8:1:3::1", 1.0)


def test_an_ipv4_address_written_as_ipv6_is_the_same() -> None:
    failures = FailureWindow(limit=1, window_s=60)
    failures.add("::ffff:10.0.0.7", 0.0)
    assert not failures.allows("10.0.0.7", 1.0)
    assert failures.allows("10.0.0.8", 1.0)


def test_the_memory_of_answers_is_bounded_and_ends() -> None:
    cache = Cache(capacity=3)
    for number in range(10):
        cache.put(str(number), GRANT, 0.0)
    assert [cache.get(str(number), 1.0)[1] for number in range(10)] == [False] * 7 + [True] * 3
    assert cache.get("9", auth.GRANT_TTL_S) == (None, False)
    cache.put("wrong", None, 0.0)
    assert cache.get("wrong", 1.0) == (None, True)
    assert cache.get("wrong", auth.REFUSAL_TTL_S) == (None, False)
