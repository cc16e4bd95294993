"""Credentials at rest: encrypted, rotated, and never readable without a key."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection

from brokers.models import Broker, BrokerAccount
from brokers.secrets import Sealed, WrongKeyError, seal, unseal

OLD, NEW, OTHER = "old-key-" * 5, "new-key-" * 5, "other-key" * 5
CREDENTIALS = {"api_key": "abc", "access_token": "sword-fish ₹"}


@pytest.fixture
def account(db: None, settings: Any) -> BrokerAccount:
    settings.CREDENTIALS_KEYS = [OLD]
    return BrokerAccount.objects.create(broker=Broker.objects.get(slug="zerodha"), name="main", credentials=CREDENTIALS)


def stored(account: BrokerAccount) -> bytes:
    with connection.cursor() as cursor:
        cursor.execute("SELECT credentials FROM brokers_brokeraccount WHERE id = %s", [account.pk])
        return bytes(cursor.fetchone()[0])


def read(account: BrokerAccount) -> dict[str, str]:
    credentials: dict[str, str] = BrokerAccount.objects.get(pk=account.pk).credentials
    return credentials


def test_what_is_stored_comes_back_and_is_not_readable_in_the_table(account: BrokerAccount) -> None:
    assert read(account) == CREDENTIALS
    assert b"access_token" not in stored(account)
    assert b"sword" not in stored(account)


def test_a_wrong_key_raises_and_gives_nothing_back(account: BrokerAccount, settings: Any) -> None:
    settings.CREDENTIALS_KEYS = [OTHER]
    with pytest.raises(WrongKeyError, match="CREDENTIALS_KEY"):
        read(account)


def test_damaged_bytes_raise(account: BrokerAccount) -> None:
    with pytest.raises(WrongKeyError):
        unseal(Sealed(stored(account)[:-1] + b"!"))
    with pytest.raises(WrongKeyError):
        unseal(Sealed(b'{"api_key": "abc"}'))


def test_without_any_key_nothing_is_stored_in_plain_text(settings: Any) -> None:
    settings.CREDENTIALS_KEYS = []
    with pytest.raises(ImproperlyConfigured, match="CREDENTIALS_KEY"):
        seal(CREDENTIALS)


def test_what_is_not_text_is_not_stored() -> None:
    with pytest.raises(TypeError):
        seal({"pin": 1234})  # type: ignore[dict-item]


def test_an_account_that_cannot_be_read_can_still_be_switched_off_and_keeps_its_bytes(
    account: BrokerAccount, settings: Any
) -> None:
    before = stored(account)
    settings.CREDENTIALS_KEYS = [OTHER]
    [row] = BrokerAccount.objects.all()
    row.enabled = False
    row.save()
    assert stored(account) == before
    settings.CREDENTIALS_KEYS = [OLD]
    assert read(account) == CREDENTIALS


def test_rotation_encrypts_under_the_first_key_and_leaves_updated_at_alone(
    account: BrokerAccount, settings: Any, capsys: Any
) -> None:
    settings.CREDENTIALS_KEYS = [NEW, OLD]
    call_command("rotate_credentials")
    assert "1 of 1 accounts" in capsys.readouterr().out
    settings.CREDENTIALS_KEYS = [NEW]
    assert read(account) == CREDENTIALS
    assert BrokerAccount.objects.get().updated_at == account.updated_at


def test_rotation_names_what_no_key_reads_and_rotates_the_rest(account: BrokerAccount, settings: Any) -> None:
    settings.CREDENTIALS_KEYS = [OTHER]
    second = BrokerAccount.objects.create(broker=account.broker, name="second", credentials={"api_key": "x"})
    before = stored(account)
    settings.CREDENTIALS_KEYS = [NEW, OTHER]
    with pytest.raises(CommandError, match=r"No key in CREDENTIALS_KEY reads Zerodha main;"):
        call_command("rotate_credentials")
    assert stored(account) == before
    settings.CREDENTIALS_KEYS = [NEW]
    assert read(second) == {"api_key": "x"}


def test_a_dump_is_encrypted_and_can_be_loaded(account: BrokerAccount) -> None:
    dump = serializers.serialize("json", BrokerAccount.objects.all())
    assert "sword" not in dump
    account.delete()
    for item in serializers.deserialize("json", dump):
        item.save()
    assert BrokerAccount.objects.get(name="main").credentials == CREDENTIALS


def test_credentials_do_not_show_in_a_repr(account: BrokerAccount) -> None:
    assert repr(seal(CREDENTIALS)) == "<Sealed>"
    assert "abc" not in repr(list(BrokerAccount.objects.values()))
