"""
The admin of the brokers' side: switch brokers on and off, override their limits, keep accounts, look up instruments.

Credentials go in and never come out: a secret field is always rendered empty, and left empty it keeps what is stored.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.timesince import timesince
from django.views.decorators.debug import sensitive_post_parameters

from brokers import registry
from brokers.contract import Credential, Feed, Spec
from brokers.models import Broker, BrokerAccount, Instrument, InstrumentMaster
from brokers.secrets import WrongKeyError

LIMITS = ("instruments_per_connection", "connections_per_account")
FIELD_PREFIX, FORGET_PREFIX = "credential_", "forget_"
INDIA = ZoneInfo("Asia/Kolkata")


def spec_of(broker: Broker) -> Spec | None:
    """The facts of a broker; None where its adapter is not installed any more."""
    return registry.load(broker.slug).spec if broker.slug in registry.slugs() else None


# -------------------------------------------------------------------------------------------------------------- brokers


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

    >>> zerodha = Broker(slug="zerodha", connections_per_account=2)
    >>> limits_text(zerodha, registry.load("zerodha").spec.feeds[0]).endswith("3000 × 2*")
    True
    """
    overrides = (getattr(broker, name) for name in LIMITS)
    own = (getattr(feed.limits, name) for name in LIMITS)
    shown = " × ".join(f"{row}*" if row else str(fact) for row, fact in zip(overrides, own, strict=True))
    return f"{feed.kind}: {shown}"


# ------------------------------------------------------------------------------------------------------------- accounts


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]  # generic for the checker only
    """An account of one broker; `account_form` adds a field for each thing this broker needs."""

    for_broker: ClassVar[Broker]
    needs: ClassVar[tuple[Credential, ...]] = ()

    class Meta:
        model = BrokerAccount
        fields = ("broker", "name", "enabled", "owner", "shared", "feed", "endpoint")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "broker" in self.fields:
            self._fix_broker(self.fields["broker"])
        self.stored, _ = stored_credentials(self.instance)
        for need in self.needs:
            self._prepare(need)

    def _fix_broker(self, field: forms.Field) -> None:
        field.initial, field.disabled = self.for_broker, True
        for ability in ("can_add_related", "can_change_related", "can_delete_related", "can_view_related"):
            setattr(field.widget, ability, False)

    def _prepare(self, need: Credential) -> None:
        field = self.fields.get(FIELD_PREFIX + need.name)
        if field is None:
            return
        is_stored = bool(self.stored.get(need.name))
        if is_stored and need.secret:
            field.help_text = f"{need.help} Stored; leave empty to keep it.".strip()
        elif is_stored:
            field.initial = self.stored[need.name]
        if not is_stored:
            self.fields.pop(FORGET_PREFIX + need.name, None)

    def save(self, commit: bool = True) -> Any:
        """Puts what was entered over what is stored."""
        merged = merged_credentials(self.needs, self.stored, self.cleaned_data)
        if merged != self.stored:  # what cannot be read, and was not entered anew, stays as it is
            self.instance.credentials = merged
        return super().save(commit)


def account_form(broker: Broker) -> type[AccountForm]:
    """The form of a broker's accounts, with write-only inputs for what is secret."""
    spec = spec_of(broker)
    needs = spec.credentials if spec else ()
    fields: dict[str, Any] = {}
    for need in needs:
        fields[FIELD_PREFIX + need.name] = credential_field(need)
        if can_forget(need):
            fields[FORGET_PREFIX + need.name] = forms.BooleanField(required=False, label=f"Forget {need.label}")
    return type("AccountForm", (AccountForm,), {"for_broker": broker, "needs": needs, **fields})


def can_forget(need: Credential) -> bool:
    """Whether it takes a tick to remove it: what is shown can be emptied, and what is needed is replaced."""
    return need.secret and not need.required


def credential_field(need: Credential) -> forms.CharField:
    """An input for one credential; a secret one is never rendered with a value. Empty is fine: a login may fill it."""
    attrs = {"autocomplete": "new-password" if need.secret else "off", "class": "vTextField"}
    widget = forms.PasswordInput(attrs, render_value=False) if need.secret else forms.TextInput(attrs)
    return forms.CharField(label=need.label, help_text=need.help, required=False, widget=widget)


def merged_credentials(
    needs: tuple[Credential, ...], stored: Mapping[str, str], entered: Mapping[str, Any]
) -> dict[str, str]:
    """
    What is stored, with what was entered over it and without what is to be forgotten.

    >>> pin = Credential(name="pin", label="PIN", required=False)
    >>> merged_credentials((pin,), {"pin": "1", "token": "t"}, {"credential_pin": ""})
    {'pin': '1', 'token': 't'}
    >>> merged_credentials((pin,), {"pin": "1", "token": "t"}, {"credential_pin": "", "forget_pin": True})
    {'token': 't'}
    """
    merged = dict(stored)
    for need in needs:
        value = entered.get(FIELD_PREFIX + need.name)
        if value:
            merged[need.name] = value
        elif value is not None and (not need.secret or entered.get(FORGET_PREFIX + need.name)):
            merged.pop(need.name, None)
    return merged


def stored_credentials(account: BrokerAccount) -> tuple[dict[str, str], bool]:
    """What is stored, and whether it could be read; what cannot be read counts as nothing."""
    try:
        return dict(account.credentials), True
    except WrongKeyError:
        return {}, False


@admin.register(BrokerAccount)
class BrokerAccountAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the checker only
    """First the broker, then what this broker needs."""

    list_display = ("__str__", "broker", "enabled", "credentials_state", "feed", "owner", "shared", "updated_at")
    list_filter = ("broker", "enabled", "feed")
    list_select_related = ("broker", "owner")
    search_fields = ("name", "broker__name", "owner__username")
    autocomplete_fields = ("owner",)
    readonly_fields = ("updated_at", "credentials_state")

    @method_decorator(sensitive_post_parameters())
    def changeform_view(self, *args: Any, **kwargs: Any) -> Any:
        """What is posted here never reaches an error report."""
        return super().changeform_view(*args, **kwargs)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> Any:
        """Asks for the broker first: the form depends on it."""
        broker = self._asked_for(request)
        if broker is None and self.has_add_permission(request):
            return self._choose(request)
        title = f"Add an account at {broker}"
        return super().add_view(request, form_url, {"title": title, **(extra_context or {})})

    def _asked_for(self, request: HttpRequest) -> Broker | None:
        asked = request.GET.get("broker", "")
        return Broker.objects.filter(pk=asked).first() if asked.isascii() and asked.isdigit() else None

    def _choose(self, request: HttpRequest) -> HttpResponse:
        choices = [(broker, spec_of(broker)) for broker in Broker.objects.annotate(held=Count("accounts"))]
        context = {
            **self.admin_site.each_context(request),
            "title": "Add an account: at which broker?",
            "opts": self.opts,
            "choices": [(broker, spec) for broker, spec in choices if spec],
        }
        return TemplateResponse(request, "admin/brokers/brokeraccount/choose_broker.html", context)

    def get_form(
        self, request: HttpRequest, obj: BrokerAccount | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """The form of the account's broker."""
        broker = obj.broker if obj else self._asked_for(request)
        if broker is not None:
            kwargs["form"] = account_form(broker)
        return super().get_form(request, obj, change, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Yours unless you say otherwise."""
        return {"owner": request.user.pk, **super().get_changeform_initial_data(request)}

    def get_fieldsets(self, request: HttpRequest, obj: BrokerAccount | None = None) -> Any:
        """Credentials in a section of their own, as the broker names them."""
        broker = obj.broker if obj else self._asked_for(request)
        spec = spec_of(broker) if broker else None
        return (
            (None, {"fields": ("broker", "name", "enabled")}),
            ("Credentials", {"fields": self._credential_fields(spec, obj), "description": _credentials_help(spec)}),
            ("Who may use it", {"fields": ("owner", "shared", "feed")}),
            ("Connection", {"fields": ("endpoint", *(("updated_at",) if obj else ()))}),
        )

    def _credential_fields(self, spec: Spec | None, obj: BrokerAccount | None) -> tuple[str, ...]:
        names = ["credentials_state"] if obj else []
        stored, _ = stored_credentials(obj) if obj else ({}, True)
        for need in spec.credentials if spec else ():
            names.append(FIELD_PREFIX + need.name)
            if can_forget(need) and stored.get(need.name):
                names.append(FORGET_PREFIX + need.name)
        return tuple(names)

    @admin.display(description="Stored")
    def credentials_state(self, account: BrokerAccount) -> str:
        """How much of what the broker needs is there; never what it is."""
        _, readable = stored_credentials(account)
        if not readable:
            return "cannot be read with the present CREDENTIALS_KEY: add the old key to it, or enter all again"
        if spec_of(account.broker) is None:
            return "the broker's adapter is not installed"
        lacking = lacking_credentials(account)
        return f"lacks {', '.join(lacking)}" if lacking else "complete"

    def save_model(self, request: HttpRequest, obj: BrokerAccount, form: Any, change: bool) -> None:
        """Saves; says what is still needed to connect."""
        super().save_model(request, obj, form, change)
        lacking = lacking_credentials(obj)
        if lacking:
            messages.warning(request, f"{obj} cannot connect yet: it lacks {', '.join(lacking)}.")


def lacking_credentials(account: BrokerAccount) -> list[str]:
    """Labels of what the broker needs and is not stored."""
    spec = spec_of(account.broker)
    stored, _ = stored_credentials(account)
    return [need.label for need in spec.credentials if need.required and not stored.get(need.name)] if spec else []


def _credentials_help(spec: Spec | None) -> str:
    if spec is None:
        return "The adapter of this broker is not installed; its credentials stay as they are."
    link = format_html('<a href="{}" rel="noreferrer">{}’s documentation</a>', spec.docs, spec.name)
    return format_html("Stored encrypted; secrets are never shown again. How to get them: {}.", link)


# ---------------------------------------------------------------------------------------------------------- instruments


@admin.register(Instrument)
class InstrumentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the checker only
    """For looking up; rows come from the brokers' master files by `sync_instruments`."""

    list_display = (
        "symbol",
        "exchange",
        "broker",
        "kind",
        "expiry",
        "strike",
        "lot_size",
        "tick_size",
        "token",
        "name",
    )
    list_filter = ("broker", "exchange", "kind")
    list_select_related = ("broker",)
    search_fields = ("symbol", "name", "=token", "broker_symbol")
    search_help_text = "A part of a symbol, of a company's name or of the broker's own symbol, or a whole token."
    ordering = ("symbol", "exchange")
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The next sync would not know it."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Instrument | None = None) -> bool:
        """The next sync would undo it."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Instrument | None = None) -> bool:
        """The next sync would bring it back."""
        return False
