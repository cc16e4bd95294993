"""The brokers' side as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class BrokersConfig(AppConfig):
    """Accounts and demand to ticks on ZeroMQ."""

    name = "brokers"
    verbose_name = "Brokers"
