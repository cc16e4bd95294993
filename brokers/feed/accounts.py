"""
The accounts as the database has them, ready to connect or with the reason why not. Synchronous: call it in a thread.

Here alone it is decided what may connect at all: enabled, with an adapter, with credentials that the broker has not
refused, to an address credentials may go to, and never simulated beside real.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.crypto import salted_hmac

from brokers import registry
from brokers.contract import ErrorKind, Limits, Spec
from brokers.feed.connection import REFUSED_STATES, Condition
from brokers.feed.plan import Offer, SocketKind
from brokers.models import Broker, BrokerAccount, validate_endpoint
from brokers.secrets import WrongKeyError
from marketdata.ticks import FeedState


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """
    One login at a broker, all of it that the feed needs. Holds secrets: its text form does not.

    `trouble` says why it must not connect as it is; None: it may.
    """

    id: int
    broker: str
    name: str
    feed: str
    priority: int
    credentials: Mapping[str, str]
    endpoint: str
    sockets: tuple[SocketKind, ...]
    simulated: bool
    trouble: Condition | None

    def __repr__(self) -> str:
        return f"<Account {self.broker} {self.name}>"

    @property
    def is_on(self) -> bool:
        """Whether instruments may be planned on it, be it that they wait there for a login."""
        return self.trouble is None or self.trouble.state is not FeedState.DISABLED

    @property
    def login(self) -> tuple[str, str, Mapping[str, str]]:
        """What connections are opened with; when it changes, they are opened anew."""
        return self.broker, self.endpoint, self.credentials

    def offer(self) -> Offer:
        """What it can carry, for the plan."""
        return Offer(account=self.id, broker=self.broker, feed=self.feed, priority=self.priority, sockets=self.sockets)


def load_accounts() -> list[Account]:
    """
    Every account there is. One query.

    Raises django.db.DatabaseError.
    """
    accounts = [_account(row) for row in BrokerAccount.objects.select_related("broker").order_by("id")]
    if any(account.is_on and not account.simulated for account in accounts):
        return [_switched_off(account) if account.simulated and account.is_on else account for account in accounts]
    return accounts


def mark_refused(account: Account, kind: ErrorKind) -> None:
    """Remembers that the broker refused these credentials. Raises django.db.DatabaseError."""
    BrokerAccount.objects.filter(pk=account.id).update(
        refused_fingerprint=_refusal(kind, fingerprint(account.credentials, account.endpoint)),
        refused_at=timezone.now(),
    )


def fingerprint(credentials: Mapping[str, str], endpoint: str) -> str:
    """Tells credentials from others without telling anything of them."""
    text = json.dumps([endpoint, sorted(credentials.items())])
    return salted_hmac("brokers.feed.refused", text, algorithm="sha256").hexdigest()


def effective_limits(limits: Limits, broker: Broker, *, is_first: bool = True) -> Limits:
    """
    What one kind of socket may carry: the admin's row, else the adapter's word, else MAX_* of the settings.

    An adapter whose limit is the contract's default has no word of its own. The admin's row speaks of the broker's
    first, ordinary socket; the special ones beside it can be narrowed by it, not widened.
    """
    if not is_first:
        return msgspec.structs.replace(
            limits,
            instruments_per_connection=_narrowed(limits.instruments_per_connection, broker.instruments_per_connection),
            connections_per_account=_narrowed(limits.connections_per_account, broker.connections_per_account),
        )
    default = Limits()
    per_connection = broker.instruments_per_connection or _declared(
        limits.instruments_per_connection, default.instruments_per_connection, settings.MAX_SYMBOLS_PER_WEBSOCKET
    )
    connections = broker.connections_per_account or _declared(
        limits.connections_per_account, default.connections_per_account, settings.MAX_WEBSOCKET_CONNECTIONS
    )
    by_mode = limits.by_mode
    if broker.instruments_per_connection:
        by_mode = {mode: min(room, per_connection) for mode, room in by_mode.items()}
    return msgspec.structs.replace(
        limits, instruments_per_connection=per_connection, connections_per_account=connections, by_mode=by_mode
    )


def _narrowed(word: int, row: int | None) -> int:
    return word if row is None else min(word, row)


def _declared(word: int, default: int, setting: int) -> int:
    return setting if word == default else word


def _account(row: BrokerAccount) -> Account:
    try:
        spec = registry.load(row.broker.slug).spec
    except registry.UnknownBroker as unknown:
        return _made(row, None, {}, Condition(FeedState.DISABLED, str(unknown)))
    try:
        credentials = dict(row.credentials)
    except WrongKeyError as wrong:
        return _made(row, spec, {}, _off(row) or Condition(FeedState.WAITING_FOR_LOGIN, str(wrong)))
    trouble = _off(row) or _bad_endpoint(row) or _missing(spec, credentials) or _refused(row, credentials)
    return _made(row, spec, credentials, trouble)


def _made(row: BrokerAccount, spec: Spec | None, credentials: dict[str, str], trouble: Condition | None) -> Account:
    feeds = spec.feeds if spec else ()
    return Account(
        id=row.pk,
        broker=row.broker.slug,
        name=row.name,
        feed=row.feed,
        priority=row.broker.priority,
        credentials=credentials,
        endpoint=row.endpoint,
        sockets=tuple(
            SocketKind(
                feed.kind,
                feed.modes,
                effective_limits(feed.limits, row.broker, is_first=number == 0),
                feed.modes_for,
                feed.beside,
            )
            for number, feed in enumerate(feeds)
        ),
        simulated=bool(row.endpoint) or (spec is not None and spec.simulated),
        trouble=trouble,
    )


def _off(row: BrokerAccount) -> Condition | None:
    if not row.broker.enabled:
        return Condition(FeedState.DISABLED, f"{row.broker.name} is switched off in the admin.")
    if not row.enabled:
        return Condition(FeedState.DISABLED, "The account is switched off in the admin.")
    return None


def _bad_endpoint(row: BrokerAccount) -> Condition | None:
    try:
        if row.endpoint:
            validate_endpoint(row.endpoint)
    except ValidationError as error:
        return Condition(FeedState.DISABLED, " ".join(error.messages))
    return None


def _missing(spec: Spec, credentials: Mapping[str, str]) -> Condition | None:
    labels = [each.label for each in spec.credentials if each.required and not credentials.get(each.name)]
    if not labels:
        return None
    return Condition(FeedState.WAITING_FOR_LOGIN, f"{' and '.join(labels)} missing; log in, or enter it in the admin.")


def _refused(row: BrokerAccount, credentials: Mapping[str, str]) -> Condition | None:
    """Whether it is these very credentials that the broker refused, in whatever run of ours."""
    present = fingerprint(credentials, row.endpoint)
    for kind, state in REFUSED_STATES.items():
        if row.refused_fingerprint == _refusal(kind, present):
            return Condition(state, "The broker refused these credentials; they are not tried again. Log in again.")
    return None


def _refusal(kind: ErrorKind, present: str) -> str:
    return f"{kind.value}:{present}"


def _switched_off(account: Account) -> Account:
    trouble = Condition(FeedState.DISABLED, "Simulated accounts do not run beside real ones.")
    return msgspec.structs.replace(account, trouble=trouble)
