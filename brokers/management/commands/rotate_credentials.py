"""`manage.py rotate_credentials`: every account's credentials under the first key of CREDENTIALS_KEY."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from brokers.models import BrokerAccount
from brokers.secrets import WrongKeyError


class Command(BaseCommand):
    """Put a new key in front of CREDENTIALS_KEY, restart, run this, then remove the old keys."""

    help = "Encrypts all broker credentials anew, under the first key in CREDENTIALS_KEY."

    def handle(self, *args: Any, **options: Any) -> None:
        """Each account in a transaction of its own; those no key fits stay as they are and make the command fail."""
        self.check(tags=["migrations"], include_deployment_checks=True)
        ids = list(BrokerAccount.objects.values_list("pk", flat=True))
        unreadable = [name for name in map(_rotate, ids) if name]
        self.stdout.write(f"{len(ids) - len(unreadable)} of {len(ids)} accounts are under the first key now.")
        if unreadable:
            raise CommandError(
                f"No key in CREDENTIALS_KEY reads {', '.join(unreadable)}; "
                "add the key they were stored with, or enter them again in the admin."
            )


def _rotate(account_id: int) -> str:
    """Encrypts one account anew; its name where that cannot be. `updated_at` stays: nothing changed for the broker."""
    with transaction.atomic():
        account = BrokerAccount.objects.select_for_update().filter(pk=account_id).first()
        if account is None:
            return ""
        try:
            BrokerAccount.objects.filter(pk=account_id).update(credentials=account.credentials)
        except WrongKeyError:
            return str(account)
    return ""
