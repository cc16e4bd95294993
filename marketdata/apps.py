"""The clients' side as a Django app."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_delete, post_save


class MarketdataConfig(AppConfig):
    """Ticks on ZeroMQ to messages for authorised clients."""

    name = "marketdata"
    verbose_name = "Clients"

    def ready(self) -> None:
        """Registers the checks; has a key whose row changes looked up again."""
        from marketdata import checks  # noqa: F401, PLC0415 - registers by being imported, once apps are ready
        from marketdata.models import ApiKey  # noqa: PLC0415 - models exist from here on

        for signal in (post_save, post_delete):
            signal.connect(_forget_key, sender=ApiKey, dispatch_uid="marketdata.forget_key")


def _forget_key(instance: Any, **_: Any) -> None:
    from marketdata import auth  # noqa: PLC0415 - imports models

    auth.forget([instance.pk])
