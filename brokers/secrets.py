"""
Broker credentials at rest: one encrypted column for all that a broker needs of its user.

Fernet (AES-128-CBC, HMAC-SHA256) under keys derived by HKDF-SHA256 from `settings.CREDENTIALS_KEYS`: the first
encrypts, all decrypt. There is no way back to plain text: without the right key nothing is read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.query_utils import DeferredAttribute


class WrongKeyError(Exception):
    """What is stored was encrypted under a key that CREDENTIALS_KEY does not hold, or was damaged."""

    def __init__(self) -> None:
        super().__init__(
            "The stored credentials cannot be read with any key in CREDENTIALS_KEY; "
            "add the key they were stored with, or enter them again in the admin."
        )


class Sealed:
    """Encrypted credentials as they are stored; only `unseal` looks inside."""

    def __init__(self, token: bytes) -> None:
        self.token = token

    def __repr__(self) -> str:
        return "<Sealed>"


def seal(values: Mapping[str, str]) -> Sealed:
    """
    Encrypts credentials under the first key.

    Raises TypeError: a name or value is not text. ImproperlyConfigured: there is no key.
    """
    if not all(isinstance(part, str) for item in values.items() for part in item):
        raise TypeError("Credentials are names and values, both text.")
    return Sealed(_cipher(tuple(settings.CREDENTIALS_KEYS)).encrypt(json.dumps(dict(values)).encode()))


def unseal(sealed: Sealed) -> dict[str, str]:
    """
    The credentials inside.

    Raises WrongKeyError: no key fits. ImproperlyConfigured: there is no key.
    """
    try:
        text = _cipher(tuple(settings.CREDENTIALS_KEYS)).decrypt(sealed.token)
    except InvalidToken:
        raise WrongKeyError from None
    values: dict[str, str] = json.loads(text)
    return values


@lru_cache(maxsize=8)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise ImproperlyConfigured("CREDENTIALS_KEY is empty; set it to a long random text to store credentials.")
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derive(key))) for key in keys])


def _derive(key: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"broker credentials").derive(key.encode())


class _Unsealing(DeferredAttribute):
    """Decrypts when the attribute is first read: one unreadable row does not keep the others from being loaded."""

    def __get__(self, instance: models.Model | None, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if instance is not None and isinstance(value, Sealed):
            value = instance.__dict__[self.field.attname] = unseal(value)
        return value

    def __set__(self, instance: models.Model, value: Any) -> None:
        """Without a setter Python would take what is in `__dict__` and never ask `__get__`."""
        instance.__dict__[self.field.attname] = value


class EncryptedJSONField(models.BinaryField):  # type: ignore[type-arg]  # generic for the checker only
    """
    A dict of text to text, encrypted in the database.

    Reading the attribute raises WrongKeyError where no key fits; loading and saving the rest of the row does not.
    """

    description = "Encrypted names and values"
    descriptor_class = _Unsealing

    def from_db_value(self, value: Any, _expression: object, _connection: BaseDatabaseWrapper) -> Sealed | None:
        """The stored bytes, unopened."""
        return None if value is None else Sealed(bytes(value))

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """What is stored: unopened values go back as they came."""
        return model_instance.__dict__.get(self.attname)

    def get_prep_value(self, value: Any) -> Any:
        """Encrypts what is not encrypted yet."""
        if value is None or isinstance(value, bytes):
            return value
        return (value if isinstance(value, Sealed) else seal(value)).token

    def to_python(self, value: Any) -> Any:
        """Text, as `dumpdata` writes it, is an encrypted value."""
        return Sealed(value.encode()) if isinstance(value, str) else value

    def value_to_string(self, obj: models.Model) -> str:
        """For `dumpdata`: encrypted, so a dump tells no more than the database does."""
        token: bytes = self.get_prep_value(obj.__dict__[self.attname])
        return token.decode()
