"""
API keys: made once, stored as keyed hashes, checked from memory where that is safe.

A key is `sk_<12 hex>_<43 url-safe>`, or an older one of any shape that was imported. With so much chance in it a fast
hash is the right one. HMAC-SHA256 under keys derived from SECRET_KEY gives both the handle by which the row is found
and the digest that proves the key, so a stolen database opens nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any, NamedTuple

import structlog
from channels.db import database_sync_to_async
from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone

from marketdata.models import ApiKey

log = structlog.get_logger(__name__)

KEY_LENGTHS = range(16, 257)
"""Characters of a key."""

GRANT_TTL_S = 30.0
REFUSAL_TTL_S = 10.0
CACHED_KEYS = 10_000
LAST_USED_EVERY = timedelta(minutes=1)

FAILURES_PER_WINDOW = 20
FAILURE_WINDOW_S = 60.0

_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of characters, which JSON can spell and UTF-8 cannot."""


class TooManyFailures(Exception):
    """Too many wrong keys came from this address; it is refused unread for up to a minute."""


class BadKeyError(ValueError):
    """A key that cannot be imported; the text says why."""


class Grant(NamedTuple):
    """What a key allows: its feed, and how many symbols and connections it may hold."""

    key_id: int
    name: str
    feed: str
    max_symbols: int
    max_connections: int


# ----------------------------------------------------------------------------------------------------------- pure parts


class FailureWindow:
    """
    Wrong keys by address: so many a window, then refused until it ends. Time is an argument, memory is bounded.

    An IPv6 address counts as its /64: that is what one customer has.

    >>> failures = FailureWindow(limit=2, window_s=60.0)
    >>> failures.add("10.0.0.7", 0.0), failures.add("10.0.0.7", 1.0)
    (None, None)
    >>> failures.allows("10.0.0.7", 2.0), failures.allows("10.0.0.8", 2.0), failures.allows("10.0.0.7", 60.0)
    (False, True, True)
    """

    def __init__(
        self, limit: int = FAILURES_PER_WINDOW, window_s: float = FAILURE_WINDOW_S, capacity: int = 10_000
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._capacity = capacity
        self._windows: dict[str, tuple[float, int]] = {}
        """Address to when its window began and how many failures it holds; the oldest window first."""

    def allows(self, address: str, now_s: float) -> bool:
        """Whether a key from this address is looked at."""
        began_s, count = self._windows.get(_network(address), (now_s, 0))
        return count < self._limit or now_s - began_s >= self._window_s

    def add(self, address: str, now_s: float) -> None:
        """One wrong key more."""
        network = _network(address)
        began_s, count = self._windows.get(network, (now_s, 0))
        if now_s - began_s >= self._window_s:
            self._windows.pop(network)
            began_s, count = now_s, 0
        if network not in self._windows and len(self._windows) >= self._capacity:
            del self._windows[next(iter(self._windows))]
        self._windows[network] = (began_s, count + 1)

    def __len__(self) -> int:
        return len(self._windows)


class Cache:
    """
    Answers by digest for a while: a grant for `GRANT_TTL_S`, a refusal (None) for `REFUSAL_TTL_S`.

    The refusals let a program that retries with one wrong key cost nothing, and not shut out its whole address.
    """

    def __init__(self, capacity: int = CACHED_KEYS) -> None:
        self._capacity = capacity
        self._answers: dict[str, tuple[Grant | None, float]] = {}

    def get(self, digest: str, now_s: float) -> tuple[Grant | None, bool]:
        """The answer, and whether there is one."""
        answer, until_s = self._answers.get(digest, (None, 0.0))
        return (answer, True) if now_s < until_s else (None, False)

    def put(self, digest: str, answer: Grant | None, now_s: float) -> None:
        """Remembers an answer; beyond the capacity the oldest goes."""
        self._answers.pop(digest, None)
        if len(self._answers) >= self._capacity:
            self._answers.pop(next(iter(self._answers)), None)
        self._answers[digest] = (answer, now_s + (GRANT_TTL_S if answer else REFUSAL_TTL_S))

    def forget(self, ids: Collection[int]) -> None:
        """Drops the grants of these keys, and every refusal: one of them may be right now."""
        for digest, (answer, _) in list(self._answers.items()):
            if answer is None or answer.key_id in ids:
                self._answers.pop(digest, None)


def is_well_formed(key: str) -> bool:
    """
    Whether this can be a key at all.

    >>> is_well_formed("0123456789abcdef"), is_well_formed("too short"), is_well_formed("0123456789abcdef\\n")
    (True, False, False)
    """
    return len(key) in KEY_LENGTHS and not _UNFIT.search(key)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


# ---------------------------------------------------------------------------------------------------------- making keys


def new_key() -> str:
    """A fresh key; nobody has it yet."""
    return f"sk_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def issue(name: str, **fields: Any) -> tuple[ApiKey, str]:
    """A new row, with `fields` of ApiKey, and its key: the only time anybody sees it."""
    key = new_key()
    return adopt(key, name, **fields), key


def adopt(key: str, name: str, **fields: Any) -> ApiKey:
    """
    A row for a key that exists already, such as one that clients have from another program.

    Raises BadKeyError, as `check_new`.
    """
    check_new(key)
    row = ApiKey(name=name, **fields)
    seal(row, key)
    row.save()
    return row


def check_new(key: str) -> None:
    """
    Whether a key may get a row. Reads the database.

    Raises BadKeyError: too short or long, control characters in it, or it has a row already.
    """
    if not is_well_formed(key):
        raise BadKeyError(
            f"A key has {KEY_LENGTHS.start} to {KEY_LENGTHS.stop - 1} characters; this one has {len(key)}"
            f"{', and control characters among them' if _UNFIT.search(key) else ''}."
        )
    if ApiKey.objects.filter(prefix__in=[handle_of(key, secret) for secret in _secrets()]).exists():
        raise BadKeyError("This key exists already; edit it in the admin.")


def seal(row: ApiKey, key: str) -> None:
    """Puts a key's hashes into its row, unsaved."""
    row.prefix, row.digest = handle_of(key, settings.SECRET_KEY), digest_of(key, settings.SECRET_KEY)


def handle_of(key: str, secret: str) -> str:
    """16 hex digits by which the row of a key is found."""
    return _hmac(key, secret, "handle")[:16]


def digest_of(key: str, secret: str) -> str:
    """64 hex digits that prove the key."""
    return _hmac(key, secret, "digest")


def _hmac(key: str, secret: str, purpose: str) -> str:
    derived = hmac.digest(secret.encode(), f"marketdata.auth.{purpose}".encode(), hashlib.sha256)
    return hmac.new(derived, key.encode(), hashlib.sha256).hexdigest()


def _secrets() -> list[str]:
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


# -------------------------------------------------------------------------------------------------------- checking keys

_clock = time.monotonic
_cache = Cache()
_failures = FailureWindow()
_touching: set[asyncio.Task[None]] = set()
"""Writes of last_used_at under way; asyncio itself holds tasks weakly."""


async def authenticate(key: str, address: str = "") -> Grant | None:
    """
    What a key allows, None where it allows nothing.

    Raises TooManyFailures: `address` gave too many wrong keys, and this one is not known to be right.
    django.db.Error: the database does not answer.
    """
    if not is_well_formed(key):
        return None
    now_s = _clock()
    digest = digest_of(key, settings.SECRET_KEY)
    grant, known = _cache.get(digest, now_s)
    if known:
        return grant
    if not _failures.allows(address, now_s):
        raise TooManyFailures
    row = await database_sync_to_async(find)(key)
    grant = grant_of(row) if row else None
    _cache.put(digest, grant, now_s)
    if row is None:
        _failures.add(address, now_s)
    elif row.last_used_at is None or timezone.now() - row.last_used_at > LAST_USED_EVERY:
        _touch_later(row.pk)
    return grant


async def revoked(ids: Collection[int]) -> set[int]:
    """
    Those of these keys' ids that open nothing now: switched off, expired, deleted. One query.

    They leave the cache of this process too.
    """
    gone: set[int] = await database_sync_to_async(find_revoked)(ids)
    if gone:
        forget(gone)
    return gone


def forget(ids: Iterable[int]) -> None:
    """Has these keys looked up again at their next use in this process; call it after changing their rows."""
    _cache.forget(frozenset(ids))


def find(key: str) -> ApiKey | None:
    """
    The usable row of a key. Reads the database; call it in a thread.

    A row made under one of SECRET_KEY_FALLBACKS is rewritten under SECRET_KEY, so that the old one can go some day.
    """
    handles = {handle_of(key, secret): secret for secret in _secrets()}
    rows = ApiKey.objects.usable(timezone.now()).filter(prefix__in=handles)
    found = [row for row in rows if hmac.compare_digest(row.digest, digest_of(key, handles[row.prefix]))]
    if not found:
        return None
    row = found[0]
    if handles[row.prefix] != settings.SECRET_KEY:
        seal(row, key)
        row.save(update_fields=["prefix", "digest"])
    return row


def find_revoked(ids: Collection[int]) -> set[int]:
    """As `revoked`, in the calling thread and without the cache."""
    return set(ids).difference(ApiKey.objects.usable(timezone.now()).filter(pk__in=ids).values_list("pk", flat=True))


def grant_of(row: ApiKey) -> Grant:
    """What a row allows; the settings fill its gaps."""
    return Grant(
        key_id=row.pk,
        name=row.name,
        feed=row.feed,
        max_symbols=row.max_symbols or settings.MAX_SYMBOLS_PER_KEY,
        max_connections=row.max_connections or settings.MAX_CONNECTIONS_PER_KEY,
    )


def _touch_later(key_id: int) -> None:
    """Beside the handshake and in a thread of its own: a busy database must not hold up those who want in."""
    task = asyncio.ensure_future(_touch(key_id))
    _touching.add(task)
    task.add_done_callback(_touching.discard)


async def _touch(key_id: int) -> None:
    write = ApiKey.objects.filter(pk=key_id).update
    try:
        await database_sync_to_async(write, thread_sensitive=False)(last_used_at=timezone.now())
    except DatabaseError as error:
        log.warning("last_used_at_not_written", key_id=key_id, error=str(error))
