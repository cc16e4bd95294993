"""Brokers: switched on and off, their order, their limits, and how the sync of their instruments goes."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.timesince import timesince

from brokers.admin.facts import spec_of
from brokers.contract import Feed, Spec
from brokers.india import INDIA
from brokers.models import Broker, InstrumentMaster

LIMITS = ("instruments_per_connection", "connections_per_account")


def day_text(day: dt.date) -> str:
    """
    An India date, marked where it is over.

    >>> day_text(dt.date(2024, 3, 21))
    '21 Mar 2024 (older than today)'
    """
    is_over = day < timezone.now().astimezone(INDIA).date()
    return f"{day:%d %b %Y}{' (older than today)' if is_over else ''}"


def file_text(master: InstrumentMaster) -> str:
    """One file: its name at the broker, its day, its rows, its age, and where it came from."""
    rows = f"{master.rows:,} instruments{f', {master.bad_rows:,} bad rows' if master.bad_rows else ''}"
    source = f"{'SIMULATED, ' if master.simulated else ''}{master.url or 'a file'}"
    name = f"{master.segment}: " if master.segment else ""
    return f"{name}{day_text(master.dated)}; {rows}; imported {timesince(master.imported_at)} ago from {source}"


@admin.register(Broker)
class BrokerAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the checker only
    """One row per installed adapter. What is empty here is what the adapter documents."""

    list_display = ("name", "enabled", "priority", "limits", "account_count", "instruments", "proof")
    list_editable = ("enabled", "priority")
    search_fields = ("name", "slug")
    readonly_fields = ("name", "slug", "documentation", "proof", "instruments", "files", "last_sync")
    fieldsets = (
        (None, {"fields": ("name", "slug", "documentation", "proof", "enabled", "priority")}),
        (
            "Limits",
            {
                "fields": LIMITS,
                "description": "Leave these empty unless the broker gave you other limits than it documents. "
                "Changes take effect without a restart.",
            },
        ),
        ("Instruments", {"fields": ("instruments", "files", "last_sync")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Broker]:
        """With the number of accounts, for the list."""
        brokers: QuerySet[Broker] = super().get_queryset(request).annotate(accounts_held=Count("accounts"))
        return brokers.prefetch_related("masters")

    def get_form(self, request: HttpRequest, obj: Broker | None = None, change: bool = False, **kwargs: Any) -> Any:
        """Each limit's help and placeholder are the adapter's own value."""
        form = super().get_form(request, obj, change, **kwargs)
        spec = spec_of(obj) if obj else None
        for name in LIMITS:
            if spec and name in form.base_fields:
                field = form.base_fields[name]
                field.widget.attrs["placeholder"] = str(getattr(spec.feeds[0].limits, name))
                field.help_text = f"Empty: {documented(spec, name)}, as {spec.name} documents."
        return form

    def save_model(self, request: HttpRequest, obj: Broker, form: Any, change: bool) -> None:
        """Saves; warns of limits above those the broker documents."""
        super().save_model(request, obj, form, change)
        spec = spec_of(obj)
        for name in LIMITS:
            value = getattr(obj, name)
            if spec and value and value > max(getattr(feed.limits, name) for feed in spec.feeds):
                label = name.replace("_", " ")
                messages.warning(
                    request,
                    f"{obj}: {value} {label} is above the {documented(spec, name)} it documents; "
                    "it may refuse them or cut the connection.",
                )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Rows come with adapters, at `migrate`."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Broker | None = None) -> bool:
        """An installed adapter's row would be back at the next `migrate`."""
        return obj is not None and spec_of(obj) is None and super().has_delete_permission(request, obj)

    @admin.display(description="Limits in effect")
    def limits(self, broker: Broker) -> str:
        """Instruments a connection and connections an account, feed by feed; a star marks overrides."""
        spec = spec_of(broker)
        return ", ".join(limits_text(broker, feed) for feed in spec.feeds) if spec else "no adapter"

    @admin.display(description="Accounts", ordering="accounts_held")
    def account_count(self, broker: Any) -> int:
        """How many accounts it has here."""
        count: int = broker.accounts_held
        return count

    @admin.display(description="Instruments")
    def instruments(self, broker: Broker) -> str:
        """How many there are, and of which day the oldest of their files is."""
        masters = list(broker.masters.all())
        if not masters:
            return "none yet"
        return f"{sum(each.rows for each in masters):,} of {day_text(min(each.dated for each in masters))}"

    @admin.display(description="Files")
    def files(self, broker: Broker) -> str:
        """The broker's instrument files as they were imported last; `sync_instruments` writes them, nobody else."""
        return (
            format_html_join(mark_safe("<br>"), "{}", ((file_text(master),) for master in broker.masters.all())) or "–"
        )

    @admin.display(description="Last sync")
    def last_sync(self, broker: Broker) -> str:
        """When it last went well, and why it does not any more."""
        went_well = f"{timesince(broker.synced_at)} ago" if broker.synced_at else "never"
        return f"{went_well}; the last attempt failed: {broker.sync_problem}" if broker.sync_problem else went_well

    @admin.display(description="Adapter")
    def proof(self, broker: Broker) -> str:
        """How well the adapter is proved, and whether its prices are real."""
        spec = spec_of(broker)
        if spec is None:
            return "not installed"
        return f"{'SIMULATED, ' if spec.simulated else ''}{spec.evidence}"

    @admin.display(description="Broker's documentation")
    def documentation(self, broker: Broker) -> str:
        """A link to it."""
        spec = spec_of(broker)
        return format_html('<a href="{0}" rel="noreferrer">{0}</a>', spec.docs) if spec else "–"


def documented(spec: Spec, name: str) -> str:
    """
    A limit as the adapter knows it, for each kind of feed where they differ.

    >>> from brokers import registry
    >>> documented(registry.load("zerodha").spec, "instruments_per_connection")
    '3000'
    """
    values = {feed.kind: getattr(feed.limits, name) for feed in spec.feeds}
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return ", ".join(f"{value} ({kind})" for kind, value in values.items())


def limits_text(broker: Broker, feed: Feed) -> str:
    """
    What one feed may carry.

    >>> from brokers import registry
    >>> zerodha = Broker(slug="zerodha", connections_per_account=2)
    >>> limits_text(zerodha, registry.load("zerodha").spec.feeds[0]).endswith("3000 × 2*")
    True
    """
    overrides = (getattr(broker, name) for name in LIMITS)
    own = (getattr(feed.limits, name) for name in LIMITS)
    shown = " × ".join(f"{row}*" if row else str(fact) for row, fact in zip(overrides, own, strict=True))
    return f"{feed.kind}: {shown}"
