"""`manage.py create_api_key NAME`: the key alone on stdout, once; everything else on stderr."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from datetime import datetime, time
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from marketdata import auth
from marketdata.models import ApiKey


class Command(BaseCommand):
    """Makes an API key, or enters one that clients have already."""

    help = "Makes an API key and prints it: the only time it is shown. The admin revokes it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What a key may have; what is left out comes from the settings."""
        parser.add_argument("name", help="what uses it, such as 'charts on my laptop'")
        parser.add_argument("--user", metavar="U", help="whose it is: a user name; switched off with the user")
        parser.add_argument("--max-symbols", type=int, metavar="N", help="symbols over all its connections")
        parser.add_argument("--max-connections", type=int, metavar="N", help="connections at a time")
        parser.add_argument(
            "--feed", default="", metavar="F", help="the accounts with this feed, instead of those for all"
        )
        parser.add_argument("--expires", metavar="YYYY-MM-DD", help="the last day on which it works")
        parser.add_argument("--import", action="store_true", dest="imported", help="read an existing key from stdin")

    def handle(self, *args: Any, **options: Any) -> None:
        """One row, and its key on stdout unless it came from stdin."""
        self.check(tags=["migrations"], include_deployment_checks=True)
        row = ApiKey(
            name=options["name"],
            owner=_user(options["user"]),
            max_symbols=options["max_symbols"],
            max_connections=options["max_connections"],
            feed=options["feed"],
            expires_at=_end_of(options["expires"]),
        )
        key = _read_key() if options["imported"] else auth.new_key()
        _complete(row, key)
        row.save()
        if options["imported"]:
            self.stderr.write(f"The key is known here now, as “{row.name}”.")
        else:
            self.stderr.write(f"The key “{row.name}”; it is not shown again:")
            self.stdout.write(key)


def _complete(row: ApiKey, key: str) -> None:
    try:
        auth.check_new(key)
        auth.seal(row, key)
        row.full_clean()
    except auth.BadKeyError as error:
        raise CommandError(str(error)) from None
    except ValidationError as error:
        sentences = [f"--{name.replace('_', '-')}: {' '.join(texts)}" for name, texts in error.message_dict.items()]
        raise CommandError(" ".join(sentences).replace("--name", "NAME")) from None


def _user(name: str | None) -> Any:
    if name is None:
        return None
    user = get_user_model().objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no user {name!r}; make one with createsuperuser or in the admin.")
    return user


def _end_of(day: str | None) -> datetime | None:
    """The end of a day, here."""
    if day is None:
        return None
    try:
        end = datetime.combine(datetime.strptime(day, "%Y-%m-%d"), time.max)
    except ValueError:
        raise CommandError(f"--expires is {day!r}; write a date as 2026-12-31.") from None
    if timezone.make_aware(end) < timezone.now():
        raise CommandError(f"--expires is {day}, which is past.")
    return timezone.make_aware(end)


def _read_key() -> str:
    """The first line of stdin, without echo where a person types it."""
    if sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415 - only for a person

        return getpass("The key (not shown): ").strip()
    return sys.stdin.readline().strip()
