"""What users choose about brokers, and the instruments the brokers have. Facts about a broker are in its Spec."""

from __future__ import annotations

import ipaddress
from typing import ClassVar
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from brokers.secrets import EncryptedJSONField


def is_loopback(host: str) -> bool:
    """
    Whether a host name or address is this machine's own.

    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("ws.kite.trade")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def validate_endpoint(url: str) -> None:
    """
    Credentials go to this address: it must be this machine's own unless settings.ALLOW_REMOTE_ENDPOINTS.

    Raises ValidationError.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or not parts.scheme:
        raise ValidationError(f"{url} is not an address; use one such as ws://127.0.0.1:9001.")
    if not (settings.ALLOW_REMOTE_ENDPOINTS or is_loopback(host)):
        raise ValidationError(
            f"{host} is not this machine, and credentials would be sent there. "
            "Leave the endpoint empty for the broker's own, or set ALLOW_REMOTE_ENDPOINTS=true."
        )


class Broker(models.Model):
    """A broker whose adapter is installed. Empty limits are the adapter's own; its slug names the adapter."""

    slug = models.SlugField(unique=True, editable=False)
    name = models.CharField(max_length=100)
    enabled = models.BooleanField(default=True, help_text="Off: none of its accounts connects.")
    priority = models.PositiveSmallIntegerField(
        default=100, help_text="Which broker serves a symbol that several have: the lowest number first."
    )
    instruments_per_connection = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Empty: what the broker allows."
    )
    connections_per_account = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text="Empty: what the broker allows."
    )
    # How the sync of its instruments goes: the last attempt, the last that succeeded (also when nothing was new), the
    # failures since, and why the last one failed.
    sync_tried_at = models.DateTimeField(null=True, blank=True, editable=False)
    synced_at = models.DateTimeField(null=True, blank=True, editable=False)
    sync_failures = models.PositiveIntegerField(default=0, editable=False)
    sync_problem = models.TextField(blank=True, editable=False)

    class Meta:
        ordering: ClassVar = ["priority", "name"]

    def __str__(self) -> str:
        return self.name


class BrokerAccount(models.Model):
    """One login at a broker."""

    broker = models.ForeignKey(Broker, on_delete=models.PROTECT, related_name="accounts")
    name = models.CharField(max_length=100, help_text="Yours to choose, such as “main”; shown in status and logs.")
    credentials = EncryptedJSONField(default=dict, blank=True)
    endpoint = models.CharField(
        max_length=200,
        blank=True,
        validators=[validate_endpoint],
        help_text="Empty: the broker's own. Otherwise where a simulator listens, such as ws://127.0.0.1:9001.",
    )
    feed = models.SlugField(
        max_length=20,
        blank=True,
        db_index=False,
        help_text="Empty: for every API key without a feed. A name: only for API keys with the same feed.",
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="broker_accounts",
        help_text="Whose login this is; they may renew its token.",
    )
    shared = models.BooleanField(
        default=False,
        help_text="Others than the owner may use it. A broker's terms may not allow that: ask before you share.",
    )
    enabled = models.BooleanField(default=True, help_text="Off: it does not connect.")
    updated_at = models.DateTimeField(auto_now=True)
    # Credentials the broker refused are not tried again, also after a restart: their fingerprint, and when it was.
    refused_fingerprint = models.CharField(max_length=80, blank=True, editable=False)
    refused_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering: ClassVar = ["broker", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["broker", "name"],
                name="brokers_account_name",
                violation_error_message="This broker has an account of that name; choose another name.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.broker} {self.name}"


class Instrument(models.Model):
    """
    One instrument of one broker, from its master file.

    `symbol` and `exchange` are the names clients use; `token` is unique inside `segment` only; `kind` is EQ, FUT, CE,
    PE or INDEX. Strike and tick size are rupees; `expiry` is the last trading day. `master` is the segment of the file
    that lists it, where the broker has several.
    """

    broker = models.ForeignKey(Broker, on_delete=models.CASCADE, related_name="instruments")
    segment = models.CharField(max_length=16)
    token = models.CharField(max_length=100)
    symbol = models.CharField(max_length=100)
    exchange = models.CharField(max_length=16)
    broker_symbol = models.CharField(max_length=200)
    broker_exchange = models.CharField(max_length=50)
    name = models.CharField(max_length=200, blank=True)
    kind = models.CharField(max_length=10, default="EQ")
    expiry = models.DateField(null=True, blank=True)
    strike = models.FloatField(null=True, blank=True)
    lot_size = models.PositiveIntegerField(default=1)
    tick_size = models.FloatField(default=0.05)
    master = models.CharField(max_length=50, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["broker", "segment", "token"], name="brokers_instrument_token"),
            models.UniqueConstraint(fields=["broker", "exchange", "symbol"], name="brokers_instrument_symbol"),
        ]
        indexes: ClassVar = [models.Index(fields=["symbol", "exchange"], name="brokers_instrument_find")]

    def __str__(self) -> str:
        return f"{self.symbol} on {self.exchange}"


class InstrumentMaster(models.Model):
    """
    One master file of a broker as it was imported last: where it came from, and which day's it is.

    `segment` is that of the adapter's `Master` ("" where one file has all); `etag` and `last_modified` are the server's
    words, for asking whether there is a newer one; `dated` is the India date the file is for. `version` is the same for
    all files of an import and rises with every import that changed one of the broker's instruments.
    """

    broker = models.ForeignKey(Broker, on_delete=models.CASCADE, related_name="masters")
    segment = models.CharField(max_length=50, blank=True)
    url = models.TextField(blank=True)
    simulated = models.BooleanField(default=False)
    etag = models.TextField(blank=True)
    last_modified = models.TextField(blank=True)
    dated = models.DateField()
    imported_at = models.DateTimeField()
    rows = models.PositiveIntegerField(default=0)
    bad_rows = models.PositiveIntegerField(default=0)
    version = models.PositiveBigIntegerField(default=1)

    class Meta:
        ordering: ClassVar = ["broker", "segment"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["broker", "segment"], name="brokers_master_segment"),
        ]

    def __str__(self) -> str:
        return f"{self.broker} {self.segment}".strip()


def instrument_editions() -> dict[str, int]:
    """
    Which edition of its instruments each broker has, by slug: a number that rises whenever an import changed one.

    One query of a row per master file. A broker that never had an import is not in it.
    Raises django.db.DatabaseError.
    """
    rows = InstrumentMaster.objects.order_by().values_list("broker__slug").annotate(models.Max("version"))
    return dict(rows)
