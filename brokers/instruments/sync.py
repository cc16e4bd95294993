"""
Syncing: which files of which brokers, from where, with whose login; then downloads side by side and imports in turn.

A broker's files are one import: all of them or none. What goes wrong at one broker is a sentence and stops no other.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.db.models import F
from django.utils import timezone

from brokers import registry
from brokers.contract import Adapter, BadRow, HttpRequest, InstrumentRow, Master, MasterError, Refused, Spec
from brokers.india import INDIA
from brokers.instruments.download import NOTHING, DownloadError, Fetched, Validators, fetch, opened, shown, unpacked
from brokers.instruments.schedule import master_day
from brokers.instruments.store import MasterFile, Report, UnsoundMaster, replace_masters
from brokers.models import Broker, BrokerAccount, InstrumentMaster, validate_endpoint
from brokers.secrets import WrongKeyError

log = structlog.get_logger(__name__)

AT_ONCE = 4
"""So many files are downloaded at the same time."""


class NotSyncable(Exception):
    """A broker's instruments cannot be asked for as things are; says what to do. Nothing was sent to the broker."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may ask for beyond a broker: one file from elsewhere, and to believe it whatever it looks like."""

    file: Path | None = None
    url: str = ""
    segment: str = ""
    force: bool = False

    @property
    def is_one_file(self) -> bool:
        """Whether it is about one file only."""
        return self.file is not None or bool(self.url)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One file to have: by a request, or on this machine. `known` is what the server said of the one we have."""

    master: Master
    request: HttpRequest
    file: Path | None = None
    known: Validators = NOTHING


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's import: its files, and whether others of its files stay (`partly`)."""

    adapter: Adapter
    broker: Broker
    sources: Sequence[Source]
    simulated: bool = False
    partly: bool = False
    force: bool = False

    @property
    def slug(self) -> str:
        """The broker's."""
        return self.adapter.spec.slug


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: a report, or (`unchanged_since`) nothing was new, or a problem in one sentence."""

    slug: str
    report: Report | None = None
    unchanged_since: dt.datetime | None = None
    problem: str = ""


class Watcher(Protocol):
    """Sees the work progress; may be called from two threads."""

    def downloading(self, slug: str, segment: str, done: int, total: int | None) -> None:
        """So many bytes of a file are there."""

    def storing(self, slug: str, segment: str, rows: int) -> None:
        """So many rows of a file were read."""

    def finished(self, slug: str) -> None:
        """No more of this broker."""


# --------------------------------------------------------------------------------------------------------------- orders


def brokers_in_use() -> list[Broker]:
    """
    The brokers of which an account may serve, by slug; simulated ones only where there is no real one.

    Raises django.db.DatabaseError.
    """
    accounts = BrokerAccount.objects.filter(enabled=True, broker__enabled=True)
    real = accounts.filter(endpoint="")
    used = real if real.exists() else accounts
    return list(Broker.objects.filter(pk__in=used.values("broker")).order_by("slug"))


def order(slug: str, choice: Choice) -> Order:
    """
    What to import for a broker. Reads the database.

    Raises NotSyncable, and registry.UnknownBroker.
    """
    adapter = registry.load(slug)
    if not adapter.spec.masters:
        raise NotSyncable(f"{adapter.spec.name} publishes no instrument file.")
    broker, _ = Broker.objects.get_or_create(slug=slug, defaults={"name": adapter.spec.name})
    make = partial(Order, adapter=adapter, broker=broker, force=choice.force)
    if choice.is_one_file:
        return make(sources=[_one_file(adapter, broker, choice)], partly=len(adapter.spec.masters) > 1)
    simulator = simulator_of(broker)
    masters = adapter.spec.masters
    sources = [_simulated(each, simulator) if simulator else _official(adapter, broker, each) for each in masters]
    return make(sources=sources if choice.force else _with_known(broker, sources), simulated=bool(simulator))


def _official(adapter: Adapter, broker: Broker, master: Master) -> Source:
    return Source(master=master, request=official_request(adapter, broker, master))


def _simulated(master: Master, simulator: str) -> Source:
    theirs = simulated_master(master, simulator)
    return Source(master=theirs, request=HttpRequest(method="GET", url=theirs.url))


def simulator_of(broker: Broker) -> str:
    """
    The endpoint of the simulator that serves a broker; "" where an account at the broker itself is enabled, or none.

    Raises NotSyncable: an endpoint that may not be used.
    """
    endpoints = list(broker.accounts.filter(enabled=True).order_by("pk").values_list("endpoint", flat=True))
    if not endpoints or not all(endpoints):
        return ""
    try:
        validate_endpoint(endpoints[0])
    except ValidationError as error:
        raise NotSyncable(" ".join(error.messages)) from None
    return str(endpoints[0])


def simulated_master(master: Master, endpoint: str) -> Master:
    """
    Where a simulator has the same file.

    >>> simulated_master(Master(url="https://x.example/fo.csv", segment="NFO", needs_login=True), "ws://127.0.0.1:9001")
    Master(url='http://127.0.0.1:9001/instruments/NFO', segment='NFO', needs_login=False, published_ist='08:30')
    """
    theirs = urlsplit(endpoint)
    scheme = "https" if theirs.scheme in ("wss", "https") else "http"
    path = f"/instruments/{master.segment}" if master.segment else "/instruments"
    return msgspec.structs.replace(master, url=f"{scheme}://{theirs.netloc}{path}", needs_login=False)


def official_request(adapter: Adapter, broker: Broker, master: Master) -> HttpRequest:
    """
    The request to the broker itself, with an account's login where it needs one.

    Raises NotSyncable: there is no login.
    """
    credentials = _login(adapter.spec, broker) if master.needs_login else {}
    try:
        return adapter.master_request(master, credentials)
    except KeyError as missing:
        raise NotSyncable(f"The account lacks {missing.args[0]}, which the instrument file needs; log it in.") from None
    except Refused as refused:
        raise NotSyncable(str(refused)) from None


def logins(spec: Spec, broker: Broker) -> Iterator[BrokerAccount]:
    """The enabled accounts of a broker that have all it needs and were not refused since they were saved last."""
    for account in broker.accounts.filter(enabled=True, endpoint="").order_by("pk"):
        try:
            stored = account.credentials
        except WrongKeyError:
            continue
        is_refused = account.refused_fingerprint and account.refused_at and account.refused_at >= account.updated_at
        if not is_refused and all(stored.get(need.name) for need in spec.credentials if need.required):
            yield account


def _login(spec: Spec, broker: Broker) -> Mapping[str, str]:
    account = next(logins(spec, broker), None)
    if account is None:
        raise NotSyncable(f"{spec.name} gives its instrument file to logged-in accounts only; log one in first.")
    credentials: Mapping[str, str] = account.credentials
    return credentials


def _chosen(spec: Spec, segment: str) -> Master:
    by_segment = {master.segment.upper(): master for master in spec.masters}
    if len(by_segment) == 1 and not segment:
        return spec.masters[0]
    if segment.upper() not in by_segment:
        names = ", ".join(master.segment for master in spec.masters if master.segment)
        what = (
            f"say which of its files it is with --segment: {names}" if names else "it has one file; leave --segment out"
        )
        raise NotSyncable(f"{what[0].upper()}{what[1:]}.")
    return by_segment[segment.upper()]


def _one_file(adapter: Adapter, broker: Broker, choice: Choice) -> Source:
    """From a file on this machine, or from another address: a login goes along to the broker's own host only."""
    master = _chosen(adapter.spec, choice.segment)
    elsewhere = msgspec.structs.replace(master, url=choice.url)
    request = HttpRequest(method="GET", url=choice.url)
    if choice.file is None and urlsplit(choice.url).netloc == urlsplit(master.url).netloc:
        request = official_request(adapter, broker, elsewhere)
    remembered = msgspec.structs.replace(elsewhere, url=shown(choice.url))
    return Source(master=remembered, request=request, file=choice.file)


def _with_known(broker: Broker, sources: Sequence[Source]) -> list[Source]:
    """With what the servers said of the files we have; only where they are these files, all of them and no others."""
    stored = {(each.segment, each.url): each for each in InstrumentMaster.objects.filter(broker=broker)}
    if stored.keys() != {(each.master.segment, each.master.url) for each in sources}:
        return list(sources)
    found = [stored[each.master.segment, each.master.url] for each in sources]
    return [
        msgspec.structs.replace(source, known=Validators(row.etag, row.last_modified))
        for source, row in zip(sources, found, strict=True)
    ]


# ----------------------------------------------------------------------------------------------------------------- work


async def sync(orders: Sequence[Order], watcher: Watcher) -> AsyncGenerator[Outcome, None]:
    """Carries the orders out; yields how each went as soon as it is over."""
    limit = asyncio.Semaphore(AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="instruments-", ignore_cleanup_errors=True) as folder:
        async with opened() as client, aclosing(_all(orders, Path(folder), client, limit, watcher)) as outcomes:
            async for outcome in outcomes:
                yield outcome


async def _all(
    orders: Sequence[Order], folder: Path, client: httpx.AsyncClient, limit: asyncio.Semaphore, watcher: Watcher
) -> AsyncGenerator[Outcome, None]:
    works = []
    for number, each in enumerate(orders):
        place = folder / str(number)
        place.mkdir()
        works.append(asyncio.create_task(_Work(each, place, client, limit, watcher).run()))
    try:
        for finished in asyncio.as_completed(works):
            yield await finished
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)


class _Work:
    """One order on its way."""

    def __init__(
        self, order: Order, folder: Path, client: httpx.AsyncClient, limit: asyncio.Semaphore, watcher: Watcher
    ) -> None:
        self.order = order
        self.folder = folder
        self.client = client
        self.limit = limit
        self.watcher = watcher

    async def run(self) -> Outcome:
        """How it went; the database knows it, too."""
        outcome = await self._tried()
        try:
            await sync_to_async(_note_outcome)(self.order.broker, outcome.problem)
        except DatabaseError as error:
            return Outcome(slug=self.order.slug, problem=outcome.problem or database_sentence(error))
        finally:
            self.watcher.finished(self.order.slug)
        return outcome

    async def _tried(self) -> Outcome:
        slug = self.order.slug
        try:
            await sync_to_async(_note_attempt)(self.order.broker)
            fetched = await self._fetch_all()
            if fetched is None:
                return Outcome(slug=slug, unchanged_since=await sync_to_async(_imported_at)(self.order.broker))
            # One import at a time: Django's thread is one, and what holds a whole file in memory should be.
            return Outcome(slug=slug, report=await sync_to_async(self._import)(fetched))
        except (DownloadError, MasterError, UnsoundMaster) as error:
            return Outcome(slug=slug, problem=str(error))
        except DatabaseError as error:
            return Outcome(slug=slug, problem=database_sentence(error))
        except Exception as error:  # a mistake in one adapter must not stop the other brokers' imports
            log.debug("adapter_failed", broker=slug, exc_info=True)
            name = type(error).__name__
            return Outcome(slug=slug, problem=f"Its adapter failed on the file ({name}: {error}); the old one stays.")

    async def _fetch_all(self) -> list[Fetched] | None:
        """The files as they came; None where all that we have are the newest."""
        sources = self.order.sources
        fetched = await self._gather(sources)
        if all(each.path is None for each in fetched):
            return None
        # The rows of a file that did not change are needed as well: an import is of all files.
        missing = [msgspec.structs.replace(each, known=NOTHING) for each in sources]
        again = [source for source, each in zip(missing, fetched, strict=True) if each.path is None]
        more = iter(await self._gather(again) if again else ())
        return [each if each.path is not None else next(more) for each in fetched]

    async def _gather(self, sources: Sequence[Source]) -> list[Fetched]:
        tasks = [asyncio.create_task(self._fetch(source)) for source in sources]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, source: Source) -> Fetched:
        if source.file is not None:
            return Fetched(path=source.file, validators=NOTHING)
        segment = source.master.segment
        to = self.folder / f"{self._number(source)}"
        async with self.limit:
            progress = partial(self.watcher.downloading, self.order.slug, segment)
            return await fetch(self.client, source.request, to, progress, source.known)

    def _number(self, source: Source) -> int:
        return [each.master.segment for each in self.order.sources].index(source.master.segment)

    def _import(self, fetched: Sequence[Fetched]) -> Report:
        return replace_masters(
            self.order.broker,
            self._files(fetched),
            partly=self.order.partly,
            force=self.order.force,
            progress=partial(self.watcher.storing, self.order.slug),
        )

    def _files(self, fetched: Sequence[Fetched]) -> Iterator[MasterFile]:
        """One after the other: a file is read when the one before it is stored."""
        for source, each in zip(self.order.sources, fetched, strict=True):
            assert each.path is not None
            etag, last_modified = each.validators
            yield MasterFile(
                rows=self._rows(each.path, source.master.segment),
                dated=_dated(source, last_modified),
                segment=source.master.segment,
                url=source.master.url,
                simulated=self.order.simulated,
                etag=etag,
                last_modified=last_modified,
            )

    def _rows(self, path: Path, segment: str) -> Iterator[InstrumentRow | BadRow]:
        body = unpacked(path, self.folder)
        return self.order.adapter.parse_instruments(body, segment)


def _dated(source: Source, last_modified: str) -> dt.date:
    """The India date a file is for: that of the newest there can be, or of its own last change where it is older."""
    published = dt.time.fromisoformat(source.master.published_ist)
    newest = master_day(timezone.now(), published)
    changed = _changed_at(source, last_modified)
    return newest if changed is None else min(newest, changed.astimezone(INDIA).date())


def _changed_at(source: Source, last_modified: str) -> dt.datetime | None:
    if source.file is not None:
        return dt.datetime.fromtimestamp(source.file.stat().st_mtime, INDIA)
    try:
        return parsedate_to_datetime(last_modified) if last_modified else None
    except ValueError:
        return None


# -------------------------------------------------------------------------------------------------------- what is noted


def _note_attempt(broker: Broker) -> None:
    """Before anything is sent: an attempt that dies half way is one that failed."""
    Broker.objects.filter(pk=broker.pk).update(sync_tried_at=timezone.now(), sync_failures=F("sync_failures") + 1)


def _note_outcome(broker: Broker, problem: str) -> None:
    news = {"sync_problem": problem}
    success = {"synced_at": timezone.now(), "sync_failures": 0}
    Broker.objects.filter(pk=broker.pk).update(**news, **({} if problem else success))


def note_problem(slug: str, problem: str) -> None:
    """Why a broker could not even be asked, for the admin. Raises django.db.DatabaseError."""
    Broker.objects.filter(slug=slug).update(sync_problem=problem)


def _imported_at(broker: Broker) -> dt.datetime:
    return max(InstrumentMaster.objects.filter(broker=broker).values_list("imported_at", flat=True))


def database_sentence(error: DatabaseError) -> str:
    """
    Why the rows could not be stored.

    >>> database_sentence(DatabaseError("database or disk is full"))
    'The disk is full; the old instruments stay. Free some space, then try again.'
    """
    text = " ".join(str(error).split())
    if "disk is full" in text or "No space left" in text:
        return "The disk is full; the old instruments stay. Free some space, then try again."
    if "locked" in text:
        return "The database is busy with another program's work; the old instruments stay. Try again."
    return f"The database refused the rows ({text}); the old instruments stay."
