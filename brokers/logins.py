"""
Getting in at a broker: the one place where tokens are got, entered and stored, whoever asks for it.

Every attempt is written down before it is made, so that neither a restart nor a second process tries again what a
broker refused. What is automatic and when it may run is decided in `brokers.feed.keeper`.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Collection, Generator, Mapping
from typing import Any, NamedTuple, TypeVar

import structlog
from channels.db import database_sync_to_async
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from brokers import registry
from brokers.calls import Unreached, walk
from brokers.contract import Adapter, ErrorKind, HttpRequest, HttpResponse, LoginSteps, Refused, Spec
from brokers.models import Attempt, Broker, BrokerAccount, fingerprint_of
from brokers.secrets import WrongKeyError
from brokers.tokens import token_end

log = structlog.get_logger(__name__)

What, Outcome = Attempt.What, Attempt.Outcome

KEPT_ATTEMPTS = 200
"""So many logins of an account are kept, the newest."""
KEPT_KNOCKS = 60
"""So many attempts of an account to connect are kept."""

Result = TypeVar("Result")


class LoginFailed(Exception):
    """No token came of it; the text says why, fit for the user's eyes. `outcome` says how far it came."""

    def __init__(self, message: str, outcome: Attempt.Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


class AlreadyTried(Exception):
    """The same was tried before, without a person; it is not tried again."""


# --------------------------------------------------------------------------------------------------------------- asking


async def page(account_id: int, state: str) -> str:
    """
    The address of the broker's login page for an account; `state` comes back with the redirect.

    Raises LoginFailed.
    """
    account, adapter = await _load(account_id)
    steps = adapter.login_url(account.credentials, _endpoint(account, adapter), state)
    return await _attempted(account, What.PAGE, steps, automatic=False)


async def exchange(account_id: int, callback: Mapping[str, str]) -> None:
    """
    Stores the token that a redirect's query parameters are good for.

    Raises LoginFailed.
    """
    account, adapter = await _load(account_id)
    steps = adapter.exchange(account.credentials, _endpoint(account, adapter), callback, _now_ms())
    await _gain(account, What.EXCHANGE, steps, automatic=False)


async def log_in(account_id: int, *, automatic: bool = False, now_ms: int | None = None) -> None:
    """
    Logs in without a person, and stores the token.

    Raises LoginFailed; AlreadyTried: `automatic`, and the same was tried before for the same token.
    """
    account, adapter = await _load(account_id)
    steps = adapter.login(account.credentials, _endpoint(account, adapter), now_ms or _now_ms())
    await _gain(account, What.LOGIN, steps, automatic=automatic)


async def renew(account_id: int, *, automatic: bool = False, now_ms: int | None = None) -> None:
    """
    Changes the token for one that is good for longer, and stores that.

    Raises LoginFailed and AlreadyTried, as `log_in`.
    """
    account, adapter = await _load(account_id)
    steps = adapter.renew(account.credentials, _endpoint(account, adapter), now_ms or _now_ms())
    await _gain(account, What.RENEWAL, steps, automatic=automatic)


def enter(account: BrokerAccount, gained: Mapping[str, str], *, source: str) -> None:
    """
    Stores a token that a person or another program has; `source` says who, for the list of attempts. Synchronous.

    Raises LoginFailed: it is empty, not what this broker calls its token, of another API key, or over already; or what
    is stored cannot be read.
    """
    try:
        spec, stored = registry.load(account.broker.slug).spec, dict(account.credentials)
    except (registry.UnknownBroker, WrongKeyError) as error:
        raise LoginFailed(str(error), Outcome.FAILED) from None
    names = spec.token.names if spec.token else ()
    values = {name: value.strip() for name, value in gained.items() if value.strip()}
    unknown = sorted(values.keys() - set(names))
    if unknown or not values:
        expected = " and ".join(names) or "nothing: it has no token of the day"
        found = f"not {unknown[0][:40]}" if unknown else "and nothing was given"
        raise LoginFailed(f"The token of {account.broker} is {expected}, {found}.", Outcome.FAILED)
    values = {name: _without_app(spec, stored, value) for name, value in values.items()}
    end = token_end(spec.token, values, _now_ms())
    if end and end.is_over(_now_ms()):
        raise LoginFailed(f"This token of {account.broker} has ended already; get a new one.", Outcome.FAILED)
    attempt = _begin(account, What.ENTRY, automatic=False)
    _store(account.pk, values)
    _end(attempt, Outcome.OK, source)


def entered(account: BrokerAccount, *, source: str) -> None:
    """Writes down that a token was stored with the account, by a form. Synchronous. Raises WrongKeyError."""
    _end(_begin(account, What.ENTRY, automatic=False), Outcome.OK, source)


APP_NAMES = ("api_key", "app_id")
"""What brokers call an app's own name; some programs store a token as `api_key:token`."""


def _without_app(spec: Spec, stored: Mapping[str, str], value: str) -> str:
    app, colon, token = value.partition(":")
    names = [each.name for each in spec.credentials if each.name in APP_NAMES]
    if not colon or not names:
        return value
    if app not in [stored.get(name) for name in names]:
        raise LoginFailed(
            f"What stands before the colon is not this account's API key at {spec.name}; give a token of that key.",
            Outcome.FAILED,
        )
    return token


# ---------------------------------------------------------------------------------------------------------------- whose


class NoAccount(LookupError):
    """There is no such account, or no such broker; the text says so and what there is."""


def may_log_in(user: Any, account: BrokerAccount) -> bool:
    """Whether somebody may get and enter the token of an account: staff who own it, or who may change accounts."""
    if not (user.is_active and user.is_staff):
        return False
    return account.owner_id == user.pk or bool(user.has_perm("brokers.change_brokeraccount"))


def accounts_of(user: Any) -> QuerySet[BrokerAccount]:
    """The accounts that a member of the staff may see: all, or those they own."""
    rows = BrokerAccount.objects.select_related("broker")
    sees_all = user.has_perm("brokers.view_brokeraccount") or user.has_perm("brokers.change_brokeraccount")
    return rows if sees_all else rows.filter(owner=user.pk)


def find_account(broker: str, name: str, rows: QuerySet[BrokerAccount] | None = None) -> BrokerAccount:
    """
    An account by the slug of its broker and its name; `rows` are those to look in, all where it is None. Synchronous.

    Raises NoAccount.
    """
    slugs = sorted(Broker.objects.values_list("slug", flat=True))
    if broker not in slugs:
        raise NoAccount(f"There is no broker {broker[:40]!r}; {_alike(broker, slugs, 'there is')}")
    found = BrokerAccount.objects.select_related("broker") if rows is None else rows
    accounts = {row.name: row for row in found.filter(broker__slug=broker)}
    if name in accounts:
        return accounts[name]
    label = Broker.objects.get(slug=broker).name
    if not accounts:
        raise NoAccount(f"{label} has no account {name[:40]!r}, nor any other; add one in the admin.")
    raise NoAccount(f"{label} has no account {name[:40]!r}; {_alike(name, sorted(accounts), 'it has')}")


def _alike(word: str, known: list[str], there_is: str) -> str:
    lower = {each.lower(): each for each in known}
    alike = [lower[each] for each in difflib.get_close_matches(word.lower(), lower, n=2)]
    return f"did you mean {' or '.join(alike)}?" if alike else f"{there_is} {', '.join(known)}."


# ------------------------------------------------------------------------------------------------------------- attempts


def login_fingerprint(account: BrokerAccount) -> str:
    """Of what an account logs in with: all its credentials but the token."""
    life = registry.load(account.broker.slug).spec.token
    names = set(life.names) if life else set()
    fixed = {name: value for name, value in account.credentials.items() if name not in names}
    return fingerprint_of("brokers.login", [account.endpoint, fixed])


class Knock(NamedTuple):
    """An attempt to open a socket of a kind, and what came of it so far."""

    account_id: int
    kind: str
    at_ms: int
    outcome: Attempt.Outcome
    detail: str = ""


def write_knocks(knocks: Collection[Knock]) -> None:
    """Writes down attempts to connect. Synchronous. Raises django.db.DatabaseError."""
    there = set(BrokerAccount.objects.filter(pk__in={each.account_id for each in knocks}).values_list("pk", flat=True))
    for each in knocks:
        if each.account_id in there:
            at = dt.datetime.fromtimestamp(each.at_ms / 1000, dt.UTC)
            found = {"outcome": each.outcome, "detail": f"{each.kind}: {each.detail}".rstrip(": ")}
            Attempt.objects.update_or_create(account_id=each.account_id, what=What.CONNECT, at=at, defaults=found)
    for account_id in there:
        _forget_old(Attempt.objects.filter(account=account_id, what=What.CONNECT), KEPT_KNOCKS)


def read_knocks(since: dt.datetime) -> list[Knock]:
    """The attempts to connect since an instant, of all accounts, oldest first. Raises django.db.DatabaseError."""
    rows = Attempt.objects.filter(what=What.CONNECT, at__gte=since).order_by("at")
    return [
        Knock(row.account_id, kind, int(row.at.timestamp() * 1000), Outcome(row.outcome), detail)
        for row in rows
        for kind, _, detail in [row.detail.partition(": ")]
    ]


async def _gain(account: BrokerAccount, what: Attempt.What, steps: LoginSteps, *, automatic: bool) -> None:
    gained = await _attempted(account, what, steps, automatic=automatic)
    await database_sync_to_async(_store)(account.pk, gained)
    log.info("token_stored", broker=account.broker.slug, account=account.name, way=what.value)


async def _attempted(
    account: BrokerAccount, what: Attempt.What, steps: Generator[HttpRequest, HttpResponse, Result], *, automatic: bool
) -> Result:
    """Writes the attempt down, makes it, writes down what came of it."""
    attempt = await database_sync_to_async(_begin)(account, what, automatic=automatic)
    try:
        result = await walk(steps)
    except Refused as refused:
        # Only these two speak of what was logged in with.
        is_no = refused.kind in (ErrorKind.AUTH, ErrorKind.ENTITLEMENT)
        outcome, text = Outcome.REFUSED if is_no else Outcome.FAILED, str(refused)
    except Unreached as error:
        outcome, text = Outcome.UNREACHED, f"{account.broker} cannot be reached: {error}."
    except (OSError, TimeoutError) as error:
        outcome, text = Outcome.FAILED, f"{account.broker} did not answer: {error}."
    else:
        await database_sync_to_async(_end)(attempt, Outcome.OK, "")
        return result
    await database_sync_to_async(_end)(attempt, outcome, text)
    log.warning("login_failed", broker=account.broker.slug, account=account.name, way=what.value, reason=text)
    raise LoginFailed(text, outcome)


def _begin(account: BrokerAccount, what: Attempt.What, *, automatic: bool) -> Attempt:
    attempt = Attempt(
        account=account,
        what=what,
        automatic=automatic,
        token=account.token_fingerprint,
        login=login_fingerprint(account),
    )
    try:
        with transaction.atomic():
            attempt.save()
    except IntegrityError:
        raise AlreadyTried(f"{account} was not logged in again: the same was tried before.") from None
    _forget_old(Attempt.objects.filter(account=account).exclude(what=What.CONNECT), KEPT_ATTEMPTS)
    return attempt


def _forget_old(attempts: QuerySet[Attempt], kept: int) -> None:
    old = attempts.values_list("pk", flat=True)[kept:]
    Attempt.objects.filter(pk__in=list(old)).delete()


def _end(attempt: Attempt, outcome: Attempt.Outcome, detail: str) -> None:
    attempt.outcome, attempt.detail = outcome, detail
    attempt.save(update_fields=["outcome", "detail"])


def _store(account_id: int, gained: Mapping[str, str]) -> None:
    """What was gained over what is stored now: the account may have been edited meanwhile."""
    with transaction.atomic():
        account = BrokerAccount.objects.select_for_update().select_related("broker").get(pk=account_id)
        account.credentials = {**account.credentials, **gained}
        account.save(update_fields=["credentials", "updated_at"])


async def _load(account_id: int) -> tuple[BrokerAccount, Adapter]:
    account = await BrokerAccount.objects.select_related("broker").aget(pk=account_id)
    try:
        _ = account.credentials
        return account, registry.load(account.broker.slug)
    except (registry.UnknownBroker, WrongKeyError) as error:
        raise LoginFailed(str(error), Outcome.FAILED) from None


def _endpoint(account: BrokerAccount, adapter: Adapter) -> str:
    return account.endpoint or adapter.spec.feeds[0].endpoint


def _now_ms() -> int:
    return int(timezone.now().timestamp() * 1000)
