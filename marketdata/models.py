"""Who may stream, and how much. The key itself is not stored: `marketdata.auth` makes and checks it."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q


class ApiKeys(models.QuerySet["ApiKey"]):
    """API keys in bulk."""

    def usable(self, now: datetime) -> ApiKeys:
        """Those that open a stream at this instant: active, not expired, their owner not barred."""
        unexpired = Q(expires_at=None) | Q(expires_at__gt=now)
        welcome = Q(owner=None) | Q(owner__is_active=True)
        return self.filter(unexpired, welcome, active=True)


class ApiKey(models.Model):
    """
    Permission to stream.

    `prefix` finds the row and `digest` proves the key; both are keyed hashes of it, so a copy of this table opens
    nothing. Empty limits are those of the settings.
    """

    name = models.CharField(max_length=100, help_text="What uses it, such as “charts on my laptop”.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="api_keys"
    )
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    active = models.BooleanField(default=True, help_text="Off: its connections close within a second.")
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never.")
    max_symbols = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Symbols over all its connections. Empty: MAX_SYMBOLS_PER_KEY of the settings.",
    )
    max_connections = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Connections at a time. Empty: MAX_CONNECTIONS_PER_KEY of the settings.",
    )
    feed = models.SlugField(
        max_length=20,
        blank=True,
        db_index=False,
        help_text="Empty: the accounts everyone may use. A name: the accounts with this feed.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ApiKeys.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name
