"""
The accounts as the database has them, ready to connect or with the reason why not. Synchronous: call it in a thread.

Here alone it is decided what may connect at all: enabled, with an adapter, with a token that has not ended and that the
broker has not refused, to an address credentials may go to, never simulated beside real, and never somebody's own for
others.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import msgspec
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import Q

from brokers import registry
from brokers.contract import ErrorKind, Limits, LoginWay, Spec
from brokers.feed.account_tokens import DEAD, NO_TOKEN, Holder, TokenView, Tries, refusal, used
from brokers.feed.connection import Condition
from brokers.feed.login_policy import Try
from brokers.feed.plan import Offer, SocketKind
from brokers.logins import login_fingerprint
from brokers.models import Broker, BrokerAccount, validate_endpoint
from brokers.secrets import WrongKeyError
from marketdata.ticks import FeedState, Segment, TokenState


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
    used: Mapping[str, str]
    """Those of the credentials with which its sockets are opened."""
    endpoint: str
    sockets: tuple[SocketKind, ...]
    segments: frozenset[Segment]
    simulated: bool
    trouble: Condition | None
    token: TokenView
    logins: frozenset[LoginWay]
    """The ways in which it gets a token."""
    tries: tuple[Try, ...]
    """Logins and renewals without a redirect, newest first; only looked up where the token is dead or near its end."""
    fingerprints: tuple[str, str]
    """Of its token, and of what it logs in with."""
    edited_ms: int = 0
    """When somebody last saved it (Unix ms)."""

    def __repr__(self) -> str:
        return f"<Account {self.broker} {self.name}>"

    @property
    def is_on(self) -> bool:
        """Whether instruments may be planned on it, be it that they wait there for a login."""
        return self.trouble is None or self.trouble.state is not FeedState.DISABLED

    @property
    def login(self) -> tuple[str, str, Mapping[str, str]]:
        """What connections are opened with; when it changes, they are opened anew."""
        return self.broker, self.endpoint, self.used

    def offer(self) -> Offer:
        """What it can carry, for the plan."""
        return Offer(account=self.id, broker=self.broker, feed=self.feed, priority=self.priority, sockets=self.sockets)


def load_accounts(now_ms: int) -> list[Account]:
    """
    Every account there is, as it stands at `now_ms` (Unix ms).

    One query, one more where a token is not well, and one where an account is its owner's alone. Raises
    django.db.DatabaseError.
    """
    rows = list(BrokerAccount.objects.select_related("broker", "owner").order_by("id"))
    tries = Tries(rows)
    accounts = [_account(row, now_ms, tries) for row in rows]
    if any(account.is_on and not account.simulated for account in accounts):
        accounts = [_switched_off(account) if account.simulated and account.is_on else account for account in accounts]
    return _unshared(rows, accounts, now_ms)


def mark_refused(account: Account, kind: ErrorKind, now_ms: int) -> None:
    """Remembers that the broker refused these credentials at `now_ms` (Unix ms). Raises django.db.DatabaseError."""
    spec = registry.load(account.broker).spec
    BrokerAccount.objects.filter(pk=account.id).update(
        refused_fingerprint=refusal(kind, spec, account.credentials, account.endpoint),
        refused_at=dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC),
    )


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


def _account(row: BrokerAccount, now_ms: int, tries: Tries) -> Account:
    try:
        spec = registry.load(row.broker.slug).spec
    except registry.UnknownBroker as unknown:
        return _made(row, None, {}, trouble=Condition(FeedState.DISABLED, str(unknown)))
    try:
        credentials = dict(row.credentials)
    except WrongKeyError as wrong:
        trouble = _off(row) or Condition(FeedState.WAITING_FOR_LOGIN, str(wrong))
        return _made(row, spec, {}, trouble=trouble, token=TokenView(TokenState.WAITING_FOR_LOGIN, str(wrong)))
    holder = Holder(row, spec, credentials)
    token = holder.view(now_ms, tries)
    dead = Condition(DEAD[token.state], token.sentence) if token.state in DEAD else None
    reason = _off(row) or _bad_endpoint(row) or dead or _missing(spec, credentials)
    return _made(row, spec, credentials, trouble=reason, token=token, tries=holder.tries_for(token, tries))


def _made(
    row: BrokerAccount,
    spec: Spec | None,
    credentials: dict[str, str],
    *,
    trouble: Condition | None,
    token: TokenView = NO_TOKEN,
    tries: tuple[Try, ...] = (),
) -> Account:
    feeds = spec.feeds if spec else ()
    return Account(
        id=row.pk,
        broker=row.broker.slug,
        name=row.name,
        feed=row.feed,
        priority=row.broker.priority,
        credentials=credentials,
        used=used(spec, credentials) if spec else {},
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
        segments=spec.segments if spec else frozenset(),
        simulated=row.is_simulated,
        trouble=trouble,
        token=token,
        logins=spec.logins if spec else frozenset(),
        tries=tries,
        edited_ms=int(row.updated_at.timestamp() * 1000),
        fingerprints=(row.token_fingerprint, login_fingerprint(row) if token.is_dead and credentials else ""),
    )


# -------------------------------------------------------------------------------------------------------------- trouble


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


def _switched_off(account: Account) -> Account:
    trouble = Condition(FeedState.DISABLED, "Simulated accounts do not run beside real ones.")
    return msgspec.structs.replace(account, trouble=trouble)


def _unshared(rows: Sequence[BrokerAccount], accounts: Sequence[Account], now_ms: int) -> list[Account]:
    """The accounts, those off that are their owner's alone and whose feed serves keys of others too."""
    alone = {row.pk: row.owner for row in rows if row.owner is not None and not row.shared}
    concerned = {account.feed for account in accounts if account.id in alone and account.is_on}
    users = _users(concerned, now_ms) if concerned else {}
    result = []
    for account in accounts:
        owner = alone.get(account.id)
        others = [] if owner is None else [name for pk, name in users.get(account.feed, ()) if pk != owner.pk]
        if owner is not None and others and account.is_on:
            text = (
                f"It is {owner.get_username()}'s own and not shared, and this feed serves keys of {_listed(others)} "
                "too: share it in the admin, or give it a feed of its own."
            )
            account = msgspec.structs.replace(account, trouble=Condition(FeedState.DISABLED, text))  # noqa: PLW2901
        result.append(account)
    return result


def _users(feeds: Collection[str], now_ms: int) -> dict[str, list[tuple[int, str]]]:
    """
    Who has keys that stream these feeds: their id and name. Keys without an owner are the operator's own.

    Asked of the users, because the keys are not this app's.
    """
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    unexpired = Q(api_keys__expires_at=None) | Q(api_keys__expires_at__gt=now)
    held = get_user_model().objects.filter(unexpired, is_active=True, api_keys__active=True, api_keys__feed__in=feeds)
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    name = get_user_model().USERNAME_FIELD
    for feed, pk, username in held.order_by(name).values_list("api_keys__feed", "pk", name).distinct():
        found[feed].append((pk, username))
    return found


def _listed(names: Sequence[str]) -> str:
    """
    Names in a sentence, a few of them.

    >>> _listed(["asha"]), _listed(["asha", "ravi"]), _listed(["asha", "ravi", "tara", "uma"])
    ('asha', 'asha and ravi', 'asha and 3 others')
    """
    return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"
