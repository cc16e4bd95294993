"""
Settings as text from the environment and the `.env` file, turned into values or into one sentence about what is wrong.

Nothing of the file is put into `os.environ`: a child process that is given another file must not inherit this one's.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ  # type: ignore[import-untyped]  # it ships no types
from django.core.exceptions import ImproperlyConfigured

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SQLITE = "django.db.backends.sqlite3"
_DATABASES = frozenset({"sqlite", "postgres", "postgresql"})


class Env:
    """
    The environment over the lines of one `.env` file. A value that is empty counts as not set.

    `asked` holds every name that was read: what there is to set.

    >>> env = Env({"ZMQ_PORT": "5556", "DEBUG": "maybe"})
    >>> env.integer("ZMQ_PORT", 5555, lowest=1, highest=65535), env.integer("WEBSOCKET_PORT", 8765)
    (5556, 8765)
    >>> env.flag("DEBUG")
    Traceback (most recent call last):
    django.core.exceptions.ImproperlyConfigured: DEBUG is 'maybe'; use true or false.
    """

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self.asked: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        """The value without surrounding blanks."""
        self.asked.add(name)
        return self._values.get(name, "").strip() or default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """
        True or false.

        Raises ImproperlyConfigured: another word.
        """
        value = self.text(name).lower()
        if value and value not in _TRUE | _FALSE:
            raise ImproperlyConfigured(f"{name} is {value!r}; use true or false.")
        return value in _TRUE if value else default

    def integer(self, name: str, default: int, *, lowest: int = 0, highest: int | None = None) -> int:
        """
        A whole number within bounds, both included.

        Raises ImproperlyConfigured: no number, or out of bounds.
        """
        value = self.text(name, str(default))
        number = int(value) if value.lstrip("+-").isascii() and value.lstrip("+-").isdigit() else None
        if number is None or number < lowest or (highest is not None and number > highest):
            bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
            raise ImproperlyConfigured(f"{name} is {value!r}; use a whole number {bounds}.")
        return number

    def seconds(self, name: str, default: float) -> float:
        """
        A length of time above zero.

        Raises ImproperlyConfigured: no number, or none above zero and under a day.
        """
        value = self.text(name, str(default))
        with contextlib.suppress(ValueError):
            if 0 < (number := float(value)) < 86400:
                return number
        raise ImproperlyConfigured(f"{name} is {value!r}; use a number of seconds above 0, such as {default}.")

    def choice(self, name: str, default: str, choices: Collection[str]) -> str:
        """
        One of some words, in capitals.

        Raises ImproperlyConfigured: another word.
        """
        value = self.text(name, default).upper()
        if value not in choices:
            raise ImproperlyConfigured(f"{name} is {value!r}; use one of {', '.join(sorted(choices))}.")
        return value

    def names(self, name: str, default: Sequence[str] = ()) -> list[str]:
        """
        A comma list.

        >>> Env({"ALLOWED_HOSTS": "stream.example.in, 10.0.0.5,"}).names("ALLOWED_HOSTS")
        ['stream.example.in', '10.0.0.5']
        """
        parts = [part.strip() for part in self.text(name).split(",")]
        return [part for part in parts if part] or list(default)

    def redis_url(self, name: str) -> str:
        """
        The address of a Redis, "" where there is none.

        Raises ImproperlyConfigured: not redis://, rediss:// or unix://, or without a host or path. The address itself
        is not repeated: it may hold a password.
        """
        value = self.text(name)
        if value and not _is_redis_url(value):
            raise ImproperlyConfigured(
                f"{name} is not the address of a Redis; use redis://HOST:PORT/0, rediss://… (TLS) or unix:///PATH, "
                "or leave it empty."
            )
        return value

    def url(self, name: str) -> str:
        """
        The address of a web page or service, "" where there is none.

        Raises ImproperlyConfigured: not http:// or https://, or without a host. The address itself is not repeated: it
        may hold a secret.
        """
        value = self.text(name)
        if value and not _is_web_url(value):
            raise ImproperlyConfigured(f"{name} is not a web address; use https://HOST/PATH, or leave it empty.")
        return value

    def database(self, name: str, folder: Path) -> dict[str, Any]:
        """
        Django's DATABASES entry; a relative SQLite path, as the default `db.sqlite3`, lies in `folder`.

        Raises ImproperlyConfigured: neither SQLite in a file nor PostgreSQL, or the URL is not one.
        """
        url = self.text(name, "sqlite:///db.sqlite3")
        config: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            if url.partition("://")[0] in _DATABASES:
                config = environ.Env.db_url_config(url)
        if config.get("NAME") and config["NAME"] != ":memory:":  # which other processes could not see
            if config["ENGINE"] == _SQLITE:
                return _sqlite(folder / config["NAME"], folder)
            return config | {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
        raise ImproperlyConfigured(
            f"{name} is not the address of a database; use sqlite:///FILE or postgres://USER:PASSWORD@HOST:PORT/NAME."
        )


def _is_redis_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "unix":
        return parts.path.startswith("/")
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname) and port != 0


def _is_web_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    is_plain = value.isprintable() and " " not in value
    return is_plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def _sqlite(path: Path, folder: Path) -> dict[str, Any]:
    """Readers beside one writer (WAL), and a writer that waits its turn from the start instead of failing half way."""
    return {
        "ENGINE": _SQLITE,
        "NAME": path,
        "CONN_MAX_AGE": 60,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        # A file, as in production: SQLite in memory locks whole tables and waits for nobody.
        "TEST": {"NAME": folder / "test.sqlite3"},
    }


# ------------------------------------------------------------------------------------------------------------- the file


def load(path: Path, generated: Sequence[str]) -> Env:
    """
    The environment over the file; names of `generated` that neither has are first appended to the file, at random.

    The file is made if need be, readable by its owner only; no line in it is ever changed.

    Raises ImproperlyConfigured: the file cannot be read, or a value must be stored and cannot be.
    """
    lines = _read(path)
    missing = [name for name in generated if not os.environ.get(name) and not lines.get(name)]
    if missing:
        lines = _append(path, missing)
    return Env(lines | {name: value for name, value in os.environ.items() if value})


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as file, _locked(file.fileno(), exclusive=False):
            return _parse(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"Cannot read the settings file {path}: {error}.") from error


def _append(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Under the lock the file is read again: of two processes that start at once, the second finds the first's."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "r+b") as file, _locked(fd, exclusive=True):
            before = file.read()
            lines = _parse(before.decode())
            new = {name: secrets.token_urlsafe(48) for name in names if not lines.get(name)}
            if new:
                gap = "" if not before or before.endswith(b"\n") else "\n"
                file.write((gap + "".join(f"{name}={value}\n" for name, value in new.items())).encode())
                file.flush()
    except OSError as error:
        raise ImproperlyConfigured(
            f"Cannot store {' and '.join(names)} in {path}: {error.strerror}. "
            "Set them in the environment, or make the file writable (STREAM_ENV_FILE names another one)."
        ) from error
    return lines | new


def _parse(content: str) -> dict[str, str]:
    class Lines(environ.Env):  # type: ignore[misc]  # django-environ is not typed
        ENVIRON: dict[str, str] = {}

    Lines.read_env(io.StringIO(content))
    return Lines.ENVIRON


@contextlib.contextmanager
def _locked(fd: int, *, exclusive: bool) -> Iterator[None]:
    """Holds other processes of ours off the file; on Windows only writers, for there a lock also bars readers."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows only

        if not exclusive:
            yield
            return
        os.lseek(fd, 0x7FFF_0000, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_LOCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)
        yield  # closing the file, which follows at once, releases the lock
    else:
        import fcntl  # noqa: PLC0415 - not on Windows

        fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
