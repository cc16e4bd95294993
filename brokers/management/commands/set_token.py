"""`manage.py set_token BROKER ACCOUNT`: stores a token that somebody has, read from stdin or asked for."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from brokers import logins, registry
from brokers.feed.account_tokens import token_of
from brokers.models import BrokerAccount


class Command(BaseCommand):
    """The token is never an argument: other users of the machine can read those."""

    help = (
        "Stores the day's token of an account. It is asked for without being shown, or read from stdin, a line for "
        "each part; running adapters pick it up."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Whose token, and which parts of it."""
        parser.add_argument("broker", help="the broker's slug, such as zerodha")
        parser.add_argument("account", help="the account's name, as in the admin")
        parser.add_argument(
            "--field",
            action="append",
            metavar="NAME",
            help="where a token has several parts: only this one, such as feed_token (may be repeated)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """One sentence when it is stored. Raises CommandError with one sentence."""
        self.check(tags=["migrations"], include_deployment_checks=True)
        try:
            account = logins.find_account(options["broker"], options["account"])
            names = _asked_for(account, options["field"])
            logins.enter(account, _read(account, names), source="manage.py set_token")
        except (logins.NoAccount, logins.LoginFailed, registry.UnknownBroker) as problem:
            raise CommandError(str(problem)) from None
        account.refresh_from_db()
        view = token_of(account, int(timezone.now().timestamp() * 1000))
        self.stdout.write(f"The token of {account} is stored. {view.sentence}")


def _asked_for(account: BrokerAccount, fields: list[str] | None) -> list[str]:
    life = registry.load(account.broker.slug).spec.token
    names = list(life.names) if life else []
    if not names:
        raise CommandError(f"{account.broker} has no token of the day; enter its credentials in the admin.")
    unknown = [each for each in fields or () if each not in names]
    if unknown:
        raise CommandError(f"--field is {unknown[0][:40]!r}; the token of {account.broker} is {' and '.join(names)}.")
    return [each for each in names if not fields or each in fields]


def _read(account: BrokerAccount, names: list[str]) -> dict[str, str]:
    """A line for each part, without echo where a person types it."""
    labels = {each.name: each.label for each in registry.load(account.broker.slug).spec.credentials}
    if sys.stdin.isatty():
        try:
            return {name: getpass(f"{labels.get(name, name)} of {account} (not shown): ") for name in names}
        except (EOFError, KeyboardInterrupt):
            raise CommandError("Nothing was stored.") from None
    return {name: sys.stdin.readline() for name in names}
