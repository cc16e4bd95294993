"""The brokers' side as a Django app."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed
from django.db.models.signals import post_migrate


class BrokersConfig(AppConfig):
    """Accounts and demand to ticks on ZeroMQ."""

    name = "brokers"
    verbose_name = "Brokers"

    def ready(self) -> None:
        """Registers the checks; has every installed adapter's row made when tables are."""
        from brokers import checks  # noqa: F401, PLC0415 - registers by being imported, once apps are ready

        post_migrate.connect(_enter_brokers, sender=self, dispatch_uid="brokers.enter_brokers")


def _enter_brokers(using: str, apps: Any = installed, **_: Any) -> None:
    """
    A row for each adapter, so that the admin shows it at once; an existing row only gets its present name.

    `flush` sends the signal too, without `apps`.
    """
    from brokers import registry  # noqa: PLC0415 - loads every adapter; only `migrate` needs that here

    try:
        brokers = apps.get_model("brokers", "Broker").objects.using(using)
    except LookupError:  # migrated back to before there was such a table
        return
    for slug in registry.slugs():
        brokers.update_or_create(slug=slug, defaults={"name": registry.load(slug).spec.name})
