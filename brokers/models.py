"""What users choose about brokers, and the instruments the brokers have. Facts about a broker are in its Spec."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.crypto import salted_hmac

from brokers import registry
from brokers.contract import MarketKind
from brokers.secrets import EncryptedJSONField, WrongKeyError
from marketdata.ticks import Segment


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
    # Of the token among the credentials: which it is, and since when it is there. `save` keeps both.
    token_fingerprint = models.CharField(max_length=64, blank=True, editable=False)
    token_since = models.DateTimeField(null=True, blank=True, editable=False)

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

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Saves; notes since when the token is there, whoever put it in."""
        if update_fields is None or "credentials" in update_fields:
            fingerprint = self._token_fingerprint()
            if fingerprint is not None and fingerprint != self.token_fingerprint:
                self.token_fingerprint, self.token_since = fingerprint, timezone.now()
            if update_fields is not None:
                update_fields = {*update_fields, "token_fingerprint", "token_since"}
        super().save(*args, update_fields=update_fields, **kwargs)

    @property
    def is_simulated(self) -> bool:
        """Whether its prices are made up: its broker makes them up, or its endpoint leads to a simulator."""
        try:
            return bool(self.endpoint) or registry.load(self.broker.slug).spec.simulated
        except registry.UnknownBroker:
            return False

    def _token_fingerprint(self) -> str | None:
        """Tells the token from others without telling anything of it; None: it cannot be told."""
        try:
            life = registry.load(self.broker.slug).spec.token
            held = {name: self.credentials.get(name, "") for name in life.names} if life else {}
        except (registry.UnknownBroker, WrongKeyError):
            return None
        return fingerprint_of("brokers.token", held) if any(held.values()) else ""


def fingerprint_of(purpose: str, values: object) -> str:
    """
    Tells values (JSON's types) from others without telling anything of them.

    >>> fingerprint_of("x", {"a": "1"}) == fingerprint_of("x", {"a": "1"}) != fingerprint_of("y", {"a": "1"})
    True
    """
    return salted_hmac(purpose, json.dumps(values, sort_keys=True), algorithm="sha256").hexdigest()


class Attempt(models.Model):
    """
    One attempt to get in at a broker, written down before it is made: brokers lock accounts that try too often.

    `token` and `login` are fingerprints: of the token there was, and of what was logged in with. An automatic attempt
    is made once for these two; one that did not reach the broker does not count.
    """

    class What(models.TextChoices):
        CONNECT = "connect", "Connection"
        PAGE = "page", "Login page"
        EXCHANGE = "exchange", "Login in a browser"
        LOGIN = "login", "Login by itself"
        RENEWAL = "renewal", "Renewal"
        ENTRY = "entry", "Token entered"

    class Outcome(models.TextChoices):
        BEGUN = "begun", "no answer yet"
        OK = "ok", "done"
        REFUSED = "refused", "refused"
        FAILED = "failed", "failed"
        UNREACHED = "unreached", "broker not reached"

    account = models.ForeignKey(BrokerAccount, on_delete=models.CASCADE, related_name="attempts")
    at = models.DateTimeField(default=timezone.now, db_index=True)
    what = models.CharField(max_length=10, choices=What.choices)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.BEGUN)
    automatic = models.BooleanField(default=False)
    token = models.CharField(max_length=64, blank=True)
    login = models.CharField(max_length=64, blank=True)
    detail = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["-at", "-pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "what", "token", "login"],
                condition=models.Q(automatic=True, what__in=["login", "renewal"]) & ~models.Q(outcome="unreached"),
                name="brokers_attempt_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_what_display()} of {self.account}: {self.get_outcome_display()}"


def validate_segments(segments: object) -> None:
    """Raises ValidationError: not a list of segments, or an empty one."""
    if not isinstance(segments, list) or not segments or not set(segments) <= {each.value for each in Segment}:
        raise ValidationError("Choose at least one of the segments there are.")


class CalendarDay(models.Model):
    """
    A day on which some segments do not keep the bundled calendar: closed, or with other sessions.

    `sessions` has a line each, such as "continuous 18:00-19:00"; empty is closed. The newest row counts.
    """

    date = models.DateField()
    segments = models.JSONField(default=list, validators=[validate_segments])
    sessions = models.TextField(
        blank=True,
        help_text="One session a line: its kind, its start and its end in India, such as “muhurat 18:00-19:00”. Kinds: "
        f"{', '.join(kind for kind in MarketKind if kind not in (MarketKind.CLOSED, MarketKind.UNKNOWN))}. "
        "Empty: closed all day.",
    )
    reason = models.CharField(max_length=100, help_text="Shown to clients, such as “general election”.")
    set_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar = ["-date", "-set_at"]
        verbose_name = "calendar day"

    def __str__(self) -> str:
        return f"{self.date:%d %b %Y}: {self.reason}"


class Alert(models.Model):
    """Something a person must know of: raised once, cleared once, each told once to the webhook."""

    class Kind(models.TextChoices):
        LOGIN_MISSING = "login_missing", "Login missing"
        FEED_DOWN = "feed_down", "Feed down"

    account = models.ForeignKey(BrokerAccount, on_delete=models.CASCADE, related_name="alerts")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    message = models.TextField()
    raised_at = models.DateTimeField(default=timezone.now)
    cleared_at = models.DateTimeField(null=True, blank=True)
    raise_told_at = models.DateTimeField(null=True, blank=True)
    clear_told_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-raised_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["account", "kind"], condition=models.Q(cleared_at=None), name="brokers_alert_open_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.account}"


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
