"""
Tells a webhook of alerts, once each, and keeps them in the database for the admin and for the next start.

`Alerting.look` only judges and takes notes; all that waits for something, the database and the webhook, is done by
`run`. The webhook's address may hold a secret: it is in no log line and in no error's text.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import stamina
import structlog
from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError, IntegrityError

from brokers.feed.alerts import (
    AccountHealth,
    Cleared,
    Kind,
    Market,
    Raised,
    State,
    Watch,
    cleared_text,
    message,
    named,
)
from brokers.models import Alert, is_loopback

log = structlog.get_logger(__name__)

TIMEOUT_S = 10.0
"""So long the other end may take to answer."""
GIVE_UP_S = 240.0
"""So long a message is tried, with waits that rise to `WAIT_S`; then it waits for the next change."""
WAIT_S = 60.0
DATABASE_WAIT_S = 5.0
"""After the database was away, it is tried again after so long."""
KEPT = 50
"""So many messages wait while the webhook is away, the newest."""
RECENT = dt.timedelta(days=1)
"""An end that an earlier process could not tell is told if it is no older."""


class Answer(NamedTuple):
    """What the other end of a webhook said. `wait_s`: so long it asks to be left alone (Retry-After)."""

    status: int
    text: str = ""
    wait_s: float | None = None


Post = Callable[[str, Mapping[str, object]], Awaitable[Answer]]


async def post(url: str, body: Mapping[str, object]) -> Answer:
    """
    Posts a message as JSON, once; redirects are not followed, for the message is meant for this address alone.

    Raises ConnectionError: nobody answered; its text does not hold the address.
    """
    # A proxy of the environment is for the way out, not for a bridge beside us.
    here = is_loopback(urlsplit(url).hostname or "")
    try:
        async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=not here) as client:
            response = await client.post(url, json=body, follow_redirects=False)
    # OSError: no such file of certificates; the last two: a proxy in the environment of a kind that cannot be used.
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
        raise ConnectionError(f"no answer ({type(error).__name__})") from None
    asked = response.headers.get("Retry-After", "")
    return Answer(response.status_code, response.text, float(asked) if asked.isascii() and asked.isdigit() else None)


class _Later(Exception):
    """It was not taken, and may be the next time, at best after `wait_s` seconds."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclasses.dataclass(eq=False, slots=True)
class _Entry:
    """An alert, with what its messages say of the account. Instants are Unix ms, None: not yet."""

    account: int
    broker: str
    name: str
    simulated: bool
    kind: Kind
    text: str
    raised_ms: int
    cleared_ms: int | None = None
    is_silent: bool = False
    """Over, and nobody is to hear of it."""
    raise_told_ms: int | None = None
    clear_told_ms: int | None = None
    row: int | None = None
    """Its primary key, once it is written."""

    def body(self, state: State, sent_ms: int) -> dict[str, object]:
        """What is posted of it."""
        who = named(self.broker, self.name, simulated=self.simulated)
        text = self.text if state is State.RAISED else cleared_text(self.kind, who, self.raised_ms)
        return message(
            text,
            kind=self.kind,
            state=state,
            broker=self.broker,
            account=self.name,
            simulated=self.simulated,
            since_ms=self.raised_ms,
            sent_ms=sent_ms,
        )


class Alerting:
    """
    Watches the accounts and tells of them; `clock` gives Unix seconds.

    What `look` finds before `run` has read the alerts of an earlier process is not judged: it would be told twice.
    """

    def __init__(self, hours: Market, clock: Callable[[], float] = time.time, post: Post = post) -> None:
        self._hours = hours
        self._clock = clock
        self._post = post
        self._url: str = settings.ALERT_WEBHOOK_URL
        self._watch: Watch | None = None
        """None: what an earlier process left is not known yet."""
        self._has_accounts = False
        self._has_judged = False
        """What an earlier process left untold may be over: it is told once that was looked at."""
        self._open: dict[tuple[int, Kind], _Entry] = {}
        self._unwritten: dict[_Entry, None] = {}
        """What the database does not have as it is here, in order."""
        self._untold: deque[tuple[_Entry, State]] = deque()
        self._to_write, self._to_tell = asyncio.Event(), asyncio.Event()
        self._writing = asyncio.Lock()
        self._is_database_lost = False

    def look(self, healths: Collection[AccountHealth]) -> None:
        """Judges all accounts there are, as they are now; to be called about every second. Waits for nothing."""
        # An alert has an account. Before the first is known, that there is none means that they could not be read.
        self._has_accounts = self._has_accounts or bool(healths)
        if self._watch is None or not self._has_accounts:
            return
        for change in self._watch.look(healths, self._hours, self._now_ms()):
            if isinstance(change, Raised):
                self._raise(change)
            else:
                self._clear(change)
        if not self._has_judged:
            self._has_judged = True
            self._to_tell.set()

    async def run(self) -> None:
        """Reads what an earlier process left, then writes and tells until it is cancelled."""
        await self._load()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_written())
            group.create_task(self._keep_told())

    # ---------------------------------------------------------------------------------------------------------- changes

    def _raise(self, change: Raised) -> None:
        health = change.health
        entry = _Entry(
            account=health.id,
            broker=health.broker,
            name=health.name,
            simulated=health.simulated,
            kind=change.kind,
            text=change.text,
            raised_ms=self._now_ms(),
        )
        self._open[health.id, change.kind] = entry
        log.warning(
            "alert_raised", broker=health.broker, account=health.name, kind=change.kind.value, reason=change.text
        )
        self._changed(entry, State.RAISED)

    def _clear(self, change: Cleared) -> None:
        entry = self._open.pop((change.account, change.kind))
        entry.cleared_ms, entry.is_silent = self._now_ms(), change.is_silent
        log.info(
            "alert_cleared", broker=entry.broker, account=entry.name, kind=entry.kind.value, told=not entry.is_silent
        )
        self._changed(entry, State.CLEARED)

    def _changed(self, entry: _Entry, state: State) -> None:
        self._unwritten[entry] = None
        self._to_write.set()
        if self._url:
            self._untold.append((entry, state))
            while len(self._untold) > KEPT:
                self._untold.popleft()
            self._to_tell.set()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    # --------------------------------------------------------------------------------------------------------- database

    async def _load(self) -> None:
        while True:
            try:
                entries = await database_sync_to_async(_read)(_instant(self._now_ms()) - RECENT)
                break
            except DatabaseError as error:
                self._lost(error)
                await asyncio.sleep(DATABASE_WAIT_S)
        self._found()
        self._open = {(entry.account, entry.kind): entry for entry in entries if entry.cleared_ms is None}
        self._watch = Watch(self._open)
        if self._url:
            self._untold.extend(
                (entry, State.RAISED if entry.raise_told_ms is None else State.CLEARED)
                for entry in entries
                if entry.raise_told_ms is None or entry.cleared_ms is not None
            )

    async def _keep_written(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            await self._write()
            if self._unwritten:
                self._to_write.set()
                await asyncio.sleep(DATABASE_WAIT_S)

    async def _write(self) -> None:
        """Writes what is not written; what cannot be stays noted."""
        async with self._writing:
            while self._unwritten:
                entry = next(iter(self._unwritten))
                del self._unwritten[entry]
                try:
                    entry.row = await database_sync_to_async(_save)(dataclasses.replace(entry))
                except IntegrityError as error:
                    # The account was deleted, and its alerts with it.
                    log.debug("alert_not_written", account=entry.name, kind=entry.kind.value, reason=str(error))
                except DatabaseError as error:
                    self._unwritten = {entry: None} | self._unwritten
                    self._lost(error)
                    return
                else:
                    self._found()

    def _lost(self, error: DatabaseError) -> None:
        if not self._is_database_lost:
            self._is_database_lost = True
            log.error("alerts_not_stored", reason=str(error), consequence="they are told, and stored later")

    def _found(self) -> None:
        if self._is_database_lost:
            self._is_database_lost = False
            log.info("alerts_stored_again")

    # ---------------------------------------------------------------------------------------------------------- webhook

    async def _keep_told(self) -> None:
        while True:
            await self._to_tell.wait()
            self._to_tell.clear()
            while self._untold and await self._tell(*self._untold.popleft()):
                pass

    async def _tell(self, entry: _Entry, state: State) -> bool:
        """Tells one message; False: the webhook is away, and the message is the first again."""
        # Written first, so that the next process does not tell it again if this one ends meanwhile.
        await self._write()
        if entry.is_silent:
            return True
        try:
            answer = await self._delivered(entry, state)
        except _Later as why:
            self._untold.appendleft((entry, state))
            _log_untold(entry, str(why))
            return False
        if not 200 <= answer.status < 300:
            hint = "it redirects; set ALERT_WEBHOOK_URL to where" if answer.status < 400 else "see ALERT_WEBHOOK_URL"
            log.error(
                "alert_refused",
                broker=entry.broker,
                account=entry.name,
                kind=entry.kind.value,
                status=answer.status,
                hint=hint,
            )
            return True
        if state is State.RAISED:
            entry.raise_told_ms = self._now_ms()
        else:
            entry.clear_told_ms = self._now_ms()
        self._unwritten[entry] = None
        await self._write()
        self._to_write.set()
        return True

    async def _delivered(self, entry: _Entry, state: State) -> Answer:
        """Tries until there is an answer that another attempt would not better. Raises _Later: for too long."""
        tries = stamina.AsyncRetryingCaller(
            attempts=None, timeout=GIVE_UP_S, wait_initial=1.0, wait_max=WAIT_S, wait_jitter=1.0
        )
        return await tries(_again, partial(self._once, entry, state))

    async def _once(self, entry: _Entry, state: State) -> Answer:
        try:
            answer = await self._post(self._url, entry.body(state, self._now_ms()))
        except ConnectionError as error:
            raise _Later(str(error)) from None
        if answer.status == 429 or answer.status >= 500:
            raise _Later(f"HTTP {answer.status}", answer.wait_s)
        return answer


def _log_untold(entry: _Entry, reason: str) -> None:
    log.error(
        "alert_not_told",
        broker=entry.broker,
        account=entry.name,
        kind=entry.kind.value,
        reason=reason,
        consequence="it is told with the next change",
    )


def _again(error: Exception) -> bool | float:
    if not isinstance(error, _Later):
        return False
    return True if error.wait_s is None else min(error.wait_s, WAIT_S)


# ---------------------------------------------------------------------------------------------------- rows, in a thread


def _read(since: dt.datetime) -> list[_Entry]:
    """The open alerts, and those cleared since then of which only the raising was told. Raises DatabaseError."""
    rows = Alert.objects.select_related("account__broker").order_by("raised_at")
    half_told = rows.filter(cleared_at__gte=since, raise_told_at__isnull=False, clear_told_at=None)
    return [_entry(row) for row in [*rows.filter(cleared_at=None), *half_told]]


def _entry(row: Alert) -> _Entry:
    return _Entry(
        account=row.account_id,
        broker=row.account.broker.slug,
        name=row.account.name,
        simulated=row.account.is_simulated,
        kind=Kind(row.kind),
        text=row.message,
        raised_ms=_ms(row.raised_at),
        cleared_ms=_ms(row.cleared_at) if row.cleared_at else None,
        raise_told_ms=_ms(row.raise_told_at) if row.raise_told_at else None,
        row=row.pk,
    )


def _save(entry: _Entry) -> int:
    """
    Writes an alert; the end that nobody is to hear of counts as told at once.

    Returns its primary key. Raises IntegrityError: its account is no more; DatabaseError.
    """
    clear_told_ms = entry.cleared_ms if entry.is_silent else entry.clear_told_ms
    values = {
        "cleared_at": _instant_or_none(entry.cleared_ms),
        "raise_told_at": _instant_or_none(entry.raise_told_ms),
        "clear_told_at": _instant_or_none(clear_told_ms),
    }
    if entry.row is not None:
        Alert.objects.filter(pk=entry.row).update(**values)
        return entry.row
    row = Alert(account_id=entry.account, kind=entry.kind.value, message=entry.text, **values)
    row.raised_at = _instant(entry.raised_ms)
    row.save(force_insert=True)
    return row.pk


def _instant(at_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)


def _instant_or_none(at_ms: int | None) -> dt.datetime | None:
    return None if at_ms is None else _instant(at_ms)


def _ms(at: dt.datetime) -> int:
    return round(at.timestamp() * 1000)
