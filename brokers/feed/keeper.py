"""
Logs accounts in by themselves, and renews tokens before they end: where the broker has a way that needs no person.

Whether and when is decided by `login_policy`; that nothing is tried twice is kept by `brokers.logins`, in the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import structlog
from django.db import DatabaseError

from brokers import logins
from brokers.contract import LoginWay
from brokers.feed.accounts import Account
from brokers.feed.login_policy import may_renew, next_login
from brokers.feed.pool import Spawn
from brokers.models import Attempt
from marketdata.ticks import Segment, TokenState

log = structlog.get_logger(__name__)


class Market(Protocol):
    """What is asked of the trading calendar."""

    def next_open_ms(self, segments: Collection[Segment]) -> int | None:
        """When the first of these opens (Unix ms), or now while one is open; None: nobody knows."""


class Keeper:
    """
    Looks at accounts and gets them tokens.

    `clock` gives Unix seconds; `spawn` starts a task in the owner's tree; `on_done` is called after every attempt.
    """

    def __init__(
        self, market: Market, *, clock: Callable[[], float], spawn: Spawn, on_done: Callable[[], None]
    ) -> None:
        self._market = market
        self._clock = clock
        self._spawn = spawn
        self._on_done = on_done
        self._busy: set[int] = set()
        """Accounts for which an attempt is under way."""

    def look(self, accounts: Iterable[Account]) -> None:
        """Starts what is due for these; to be called about every second."""
        for account in accounts:
            way = self._due(account) if account.is_on and account.id not in self._busy else None
            if way is not None:
                self._busy.add(account.id)
                self._spawn(self._go(account, way))

    def _due(self, account: Account) -> LoginWay | None:
        state, (token, login) = account.token.state, account.fingerprints
        if state is TokenState.TOKEN_EXPIRED and LoginWay.SCRIPTED in account.logins:
            tries = [each for each in account.tries if each.what == Attempt.What.LOGIN]
            opens_ms = self._market.next_open_ms(account.segments)
            due = next_login(token, login, tries, now_ms=self._now_ms(), opens_ms=opens_ms)
            return LoginWay.SCRIPTED if due.at_ms == 0 else None
        if state is TokenState.EXPIRING and LoginWay.RENEWAL in account.logins:
            tries = [each for each in account.tries if each.what == Attempt.What.RENEWAL]
            return LoginWay.RENEWAL if may_renew(token, tries) else None
        return None

    async def _go(self, account: Account, way: LoginWay) -> None:
        act = logins.log_in if way is LoginWay.SCRIPTED else logins.renew
        try:
            await act(account.id, automatic=True, now_ms=self._now_ms())
        except (logins.LoginFailed, logins.AlreadyTried) as no:
            log.info("no_new_token", broker=account.broker, account=account.name, way=way.value, reason=str(no))
        except DatabaseError as error:
            log.warning("login_not_tried", broker=account.broker, account=account.name, reason=str(error))
            await asyncio.sleep(1.0)
        finally:
            self._busy.discard(account.id)
            self._on_done()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
