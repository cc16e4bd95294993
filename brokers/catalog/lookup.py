"""
The exact look-up: names to the brokers' tokens, from memory where the catalogue has not changed since.

Only brokers that can serve count: enabled, with an enabled account. What is remembered belongs to an `Edition` of the
catalogue, which is looked at once a second at most, and goes with it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Max

from brokers import registry
from brokers.catalog.directory import Directory, read_directory
from brokers.catalog.sql import marks
from brokers.models import BrokerAccount, Instrument, instrument_editions
from marketdata.ticks import EXCHANGES, Mode, Segment, Token

Name = tuple[str, str]
"""(symbol, exchange) in canonical spelling."""

LOOK_EVERY_S = 1.0
"""How old a look at the edition may be."""
CAPACITY = 50_000
"""Names remembered by a process, known and unknown ones: some 20 MB."""
NAMES_PER_QUERY = 900
"""SQLite's lowest limit of parameters is 999."""


class Listing(NamedTuple):
    """One broker's listing of an instrument; `modes` are those in which the broker can stream."""

    symbol: str
    exchange: str
    broker: str
    token: Token
    modes: frozenset[Mode]


class Edition(NamedTuple):
    """
    A stamp of all that the answers depend on. Two that are equal give the same answers.

    `instruments` is the version of each broker's master, and the newest row for what came in without an import;
    `serving` the brokers (id and slug) that can serve.
    """

    instruments: tuple[tuple[tuple[str, int], ...], int]
    serving: tuple[tuple[int, str], ...]


class Known:
    """What was found out under one edition. Safe to share between threads."""

    def __init__(self, edition: Edition) -> None:
        self.edition = edition
        self.listings: dict[Name, tuple[Listing, ...]] = {}
        """The oldest first; no listing at all for a name that nobody has."""
        self.served: set[str] | None = None
        """Exchanges; None: nobody has asked yet."""
        self._modes: dict[tuple[str, str], frozenset[Mode]] = {}
        self._lock = threading.Lock()

    def remember(self, found: Mapping[Name, tuple[Listing, ...]]) -> None:
        """Takes names in; beyond the capacity the oldest go."""
        with self._lock:
            self.listings.update(found)
            over = max(0, len(self.listings) - CAPACITY)
            for name in list(islice(self.listings, over)):
                del self.listings[name]

    def modes(self, slug: str, segment: str) -> frozenset[Mode]:
        """In which modes a broker streams a segment."""
        modes = self._modes.get((slug, segment))
        if modes is None:
            modes = self._modes[slug, segment] = _modes(slug, Segment(segment))
        return modes


class Memory:
    """
    The newest edition's knowledge, and the directory of the newest instruments.

    Within a transaction nothing is remembered, nor believed: its view of the tables is its own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._directory_lock = threading.Lock()
        self._known: Known | None = None
        self._looked_s = 0.0
        self._directory: tuple[object, Directory] | None = None

    def known(self) -> Known:
        """What is known of the edition of now, or of a second ago."""
        if connection.in_atomic_block:
            return Known(_edition())
        known, looked_s = self._known, self._looked_s
        if known is not None and self._clock() - looked_s < LOOK_EVERY_S:
            return known
        with self._lock:
            now_s = self._clock()
            if self._known is None or now_s - self._looked_s >= LOOK_EVERY_S:
                edition = _edition()
                if self._known is None or self._known.edition != edition:
                    self._known = Known(edition)
                self._looked_s = now_s
            return self._known

    def directory(self) -> Directory:
        """The names there are, of all brokers."""
        instruments = self.known().edition.instruments
        if connection.in_atomic_block:
            return read_directory()
        with self._directory_lock:
            if self._directory is None or self._directory[0] != instruments:
                self._directory = instruments, read_directory()
            return self._directory[1]

    def forget(self) -> None:
        """As in a new process."""
        with self._lock, self._directory_lock:
            self._known = None
            self._directory = None


memory = Memory()


def forget() -> None:
    """Has everything read again at its next use in this process."""
    memory.forget()


def _edition() -> Edition:
    """Three short queries, none of which reads more than one instrument."""
    newest: int = Instrument.objects.aggregate(newest=Max("pk"))["newest"] or 0
    versions = tuple(sorted(instrument_editions().items()))
    return Edition((versions, newest), _serving_brokers())


def serving() -> dict[int, str]:
    """The brokers that can serve: id to slug."""
    return dict(memory.known().edition.serving)


# -------------------------------------------------------------------------------------------------------------- answers


def find(names: Collection[Name]) -> dict[Name, list[Listing]]:
    """
    Who lists these instruments; what nobody lists is not in the result.

    From memory; what is not there takes one query per exchange and 900 symbols.
    """
    known = memory.known()
    found: dict[Name, list[Listing]] = {}
    missing: list[Name] = []
    for name in names:
        listings = known.listings.get(name)
        if listings is None:
            missing.append(name)
        elif listings:
            found[name] = list(listings)
    if missing:
        fresh = _read(missing, known)
        known.remember(fresh)
        found.update((name, list(listings)) for name, listings in fresh.items() if listings)
    return found


def tokens_for(broker: str, names: Collection[Name]) -> dict[Name, Token]:
    """The tokens under which one broker knows these instruments; what it does not list is not in the result."""
    return {
        (symbol, exchange): Token(Segment(segment), number)
        for exchange, symbols in _chunks(names)
        for symbol, segment, number in Instrument.objects.filter(
            broker__slug=broker, exchange=exchange, symbol__in=symbols
        ).values_list("symbol", "segment", "token")
    }


def served_exchanges() -> set[str]:
    """The exchanges of which some broker that can serve has instruments."""
    known = memory.known()
    if known.served is None:
        known.served = _served_exchanges([number for number, _ in known.edition.serving])
    return set(known.served)


def is_simulated(feed: str) -> bool:
    """Whether the accounts of a feed are simulated."""
    accounts = BrokerAccount.objects.filter(feed=feed, enabled=True, broker__enabled=True).select_related("broker")
    return any(account.is_simulated for account in accounts)


# -------------------------------------------------------------------------------------------------------------- reading


def _read(names: Iterable[Name], known: Known) -> dict[Name, tuple[Listing, ...]]:
    found: dict[Name, list[Listing]] = {name: [] for name in names}
    slugs = dict(known.edition.serving)
    with connection.cursor() as cursor:
        for exchange, symbols in _chunks(found):
            for symbol, broker_id, segment, number in _rows(cursor, exchange, symbols):
                slug = slugs.get(broker_id)
                if slug is not None:
                    token = Token(Segment(segment), number)
                    listing = Listing(symbol, exchange, slug, token, known.modes(slug, segment))
                    found[symbol, exchange].append(listing)
    return {name: tuple(listings) for name, listings in found.items()}


def _rows(cursor: Any, exchange: str, symbols: Collection[str]) -> list[tuple[str, int, str, str]]:
    """
    Every broker's rows. Asked for some brokers only, PostgreSQL would read all they have on the exchange, as long as
    it has no statistics of a fresh import.
    """
    cursor.execute(
        "SELECT symbol, broker_id, segment, token FROM brokers_instrument"
        f" WHERE symbol IN ({marks(symbols)}) AND exchange = %s",
        [*symbols, exchange],
    )
    rows: list[tuple[str, int, str, str]] = cursor.fetchall()
    return rows


def _chunks(names: Iterable[Name]) -> Iterator[tuple[str, list[str]]]:
    """The symbols of each exchange, in portions that fit into a query; names that no database can hold are left out."""
    by_exchange: dict[str, list[str]] = defaultdict(list)
    for symbol, exchange in names:
        if _is_text(symbol) and _is_text(exchange):
            by_exchange[exchange].append(symbol)
    for exchange, symbols in by_exchange.items():
        for start in range(0, len(symbols), NAMES_PER_QUERY):
            yield exchange, symbols[start : start + NAMES_PER_QUERY]


def _is_text(text: str) -> bool:
    """Whether a database takes it: JSON can spell NUL and halves of characters."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _served_exchanges(serving: Collection[int]) -> set[str]:
    """A seek for each broker and exchange; DISTINCT would read every row."""
    if not serving:
        return set()
    exchanges = sorted(EXCHANGES)
    values = " UNION ALL ".join(["SELECT %s AS exchange"] * len(exchanges))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT DISTINCT e.exchange FROM ({values}) e, brokers_broker b WHERE b.id IN ({marks(serving)})"
            " AND EXISTS (SELECT 1 FROM brokers_instrument i WHERE i.broker_id = b.id AND i.exchange = e.exchange)",
            [*exchanges, *serving],
        )
        return {exchange for (exchange,) in cursor.fetchall()}


def _serving_brokers() -> tuple[tuple[int, str], ...]:
    accounts = BrokerAccount.objects.filter(enabled=True, broker__enabled=True)
    return tuple(sorted(accounts.order_by().values_list("broker_id", "broker__slug").distinct()))


def _modes(slug: str, segment: Segment) -> frozenset[Mode]:
    try:
        feeds = registry.load(slug).spec.feeds
    except registry.UnknownBroker:
        return frozenset()
    return frozenset(mode for feed in feeds for mode in feed.modes_for(segment))
