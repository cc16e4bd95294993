"""How an account's token is doing: from what is stored of it, its broker's facts and the logins tried. Synchronous."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from brokers import registry
from brokers.contract import ErrorKind, LoginWay, Spec
from brokers.feed.login_policy import Try, next_login
from brokers.india import INDIA
from brokers.logins import login_fingerprint
from brokers.models import Attempt, BrokerAccount, fingerprint_of
from brokers.secrets import WrongKeyError
from brokers.tokens import TokenEnd, token_end
from marketdata.ticks import FeedState, TokenState

DEAD = {
    TokenState.TOKEN_EXPIRED: FeedState.TOKEN_EXPIRED,
    TokenState.WAITING_FOR_LOGIN: FeedState.WAITING_FOR_LOGIN,
    TokenState.NOT_ENTITLED: FeedState.NOT_ENTITLED,
}
"""What an account is that must not connect, by the state of its token."""

REFUSALS = (ErrorKind.AUTH, ErrorKind.ENTITLEMENT)


class TokenView(NamedTuple):
    """
    How an account's token is doing, with a sentence for people. `state` None: it has no token that ends.

    `ends_ms` is when it ends; `is_certain` where the token says so itself.
    """

    state: TokenState | None
    sentence: str
    ends_ms: int | None = None
    is_certain: bool = False

    @property
    def is_dead(self) -> bool:
        """Whether it is of no use: nobody connects with it."""
        return self.state in DEAD


NO_TOKEN = TokenView(None, "It needs no token of the day.")


class Tries:
    """
    Logins without a redirect, and renewals, of some accounts, newest first; one query, when the first is asked for.

    Synchronous.
    """

    def __init__(self, rows: Iterable[BrokerAccount]) -> None:
        self._ids = [row.pk for row in rows]
        self._found: dict[int, list[Try]] | None = None

    def of(self, row: BrokerAccount) -> tuple[Try, ...]:
        """Those of an account. Raises django.db.DatabaseError."""
        if self._found is None:
            self._found = self._asked()
        return tuple(self._found.get(row.pk, ()))

    def _asked(self) -> dict[int, list[Try]]:
        found: dict[int, list[Try]] = defaultdict(list)
        what = (Attempt.What.LOGIN, Attempt.What.RENEWAL)
        for each in Attempt.objects.filter(account__in=self._ids, what__in=what):
            at_ms = int(each.at.timestamp() * 1000)
            one = Try(at_ms, each.outcome, each.token, each.login, each.automatic, each.what)
            found[each.account_id].append(one)
        return found


class Holder(NamedTuple):
    """An account with its broker's facts and its credentials, decrypted. It has no text form."""

    row: BrokerAccount
    spec: Spec
    credentials: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<Holder {self.row}>"

    def view(self, now_ms: int, tries: Tries) -> TokenView:
        """How the token is doing at `now_ms` (Unix ms). Raises django.db.DatabaseError."""
        life, end, kind = self.spec.token, self.end(), self.refused()
        ends_ms, is_certain = (end.at_ms, end.is_certain) if end else (None, False)
        if kind is ErrorKind.ENTITLEMENT:
            text = "The broker says that the account has no right to this feed; order it there, then log in again."
            return TokenView(TokenState.NOT_ENTITLED, text, ends_ms, is_certain)
        why = ""
        if life is not None and not all(self.credentials.get(name) for name in life.names):
            why = "It has no token yet"
        elif kind is ErrorKind.AUTH:
            why = "The broker refused the token, and it is not tried again"
        elif end is not None and end.is_over(now_ms):
            why = f"The token ended {clock(end.at_ms)}"
        if why:
            return TokenView(*self._dead(why, now_ms, tries), ends_ms, is_certain)
        if end is None:
            return TokenView(TokenState.VALID, "It says nothing of its end.") if life else NO_TOKEN
        state = TokenState.EXPIRING if end.is_near(now_ms) else TokenState.VALID
        return TokenView(state, _ending(end, now_ms), ends_ms, is_certain)

    def end(self) -> TokenEnd | None:
        """When the token ends."""
        since = self.row.token_since or self.row.updated_at
        return token_end(self.spec.token, self.credentials, int(since.timestamp() * 1000))

    def refused(self) -> ErrorKind | None:
        """How it was that the broker refused these very credentials, in whatever run of ours; None: it has not."""
        for kind in REFUSALS:
            if self.row.refused_fingerprint == refusal(kind, self.spec, self.credentials, self.row.endpoint):
                return kind
        return None

    def tries_for(self, view: TokenView, tries: Tries) -> tuple[Try, ...]:
        """
        Those that who gets it another token must know of; none where nothing is to be done, or a person has to do it.

        Raises django.db.DatabaseError.
        """
        is_unwell = view.is_dead or view.state is TokenState.EXPIRING
        by_itself = self.spec.logins & {LoginWay.SCRIPTED, LoginWay.RENEWAL}
        return tries.of(self.row) if is_unwell and by_itself else ()

    def _dead(self, why: str, now_ms: int, tries: Tries) -> tuple[TokenState, str]:
        """A token of no use: whether a login by itself may follow, or it takes a person."""
        if LoginWay.SCRIPTED not in self.spec.logins:
            return TokenState.WAITING_FOR_LOGIN, f"{why}; log in, or enter one, in the admin."
        needed = [each for each in self.spec.credentials if each.name in self.spec.login_needs]
        lacking = [each.label for each in needed if not self.credentials.get(each.name)]
        if lacking:
            text = f"{why}; enter one in the admin, or {' and '.join(lacking)}, with which it logs in by itself."
            return TokenState.WAITING_FOR_LOGIN, text
        own = [each for each in tries.of(self.row) if each.what == Attempt.What.LOGIN]
        login = next_login(self.row.token_fingerprint, login_fingerprint(self.row), own, now_ms=now_ms, opens_ms=None)
        if login.at_ms is None:
            return TokenState.WAITING_FOR_LOGIN, f"{why}. {login.reason} Log in in the admin."
        return TokenState.TOKEN_EXPIRED, f"{why}; it logs in by itself, in time before its markets open."


def token_of(row: BrokerAccount, now_ms: int) -> TokenView:
    """
    How the token of an account is doing at `now_ms` (Unix ms). One query, where it is not well.

    Raises django.db.DatabaseError.
    """
    try:
        holder = Holder(row, registry.load(row.broker.slug).spec, dict(row.credentials))
    except (registry.UnknownBroker, WrongKeyError) as error:
        return TokenView(None, str(error))
    return holder.view(now_ms, Tries([row]))


def refusal(kind: ErrorKind, spec: Spec, credentials: Mapping[str, str], endpoint: str) -> str:
    """
    What is remembered of a refusal: tells these credentials from others without telling anything of them.

    Only those with which one connects: another PIN makes no dead token good.
    """
    return f"{kind.value}:{fingerprint_of('brokers.feed.refused', [endpoint, used(spec, credentials)])}"


def used(spec: Spec, credentials: Mapping[str, str]) -> dict[str, str]:
    """Those of an account's credentials with which its sockets are opened; the others are for logging in."""
    names = {each.name for each in spec.credentials if each.required} | set(spec.token.names if spec.token else ())
    return {name: credentials.get(name, "") for name in sorted(names)}


def clock(at_ms: int) -> str:
    """
    An instant as people in India say it.

    >>> clock(1_795_653_000_000)
    'on 26 Nov at 06:00'
    """
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, INDIA):on %d %b at %H:%M}"


def _ending(end: TokenEnd, now_ms: int) -> str:
    if now_ms >= end.at_ms:
        return f"The token should have ended {clock(end.at_ms)}; the broker has not refused it yet."
    at = clock(end.at_ms) if end.is_certain else clock(end.at_ms).replace(" at ", " at about ")
    return f"The token ends {at}."
