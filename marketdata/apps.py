"""The clients' side as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class MarketdataConfig(AppConfig):
    """Ticks on ZeroMQ to messages for authorised clients."""

    name = "marketdata"
    verbose_name = "Clients"
