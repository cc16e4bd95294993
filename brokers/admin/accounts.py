"""
Accounts: a form made of what the broker needs.

Credentials go in and never come out: a secret field is always rendered empty, and left empty it keeps what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters

from brokers import logins
from brokers.admin.facts import spec_of
from brokers.admin.login import buttons, panel, state_badge
from brokers.contract import Credential, Spec
from brokers.models import Alert, Attempt, Broker, BrokerAccount
from brokers.secrets import WrongKeyError

FIELD_PREFIX, FORGET_PREFIX = "credential_", "forget_"


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

    list_display = ("__str__", "token", "prices", "enabled", "credentials_state", "feed", "owner", "shared")
    list_filter = ("broker", "enabled", "feed")
    list_select_related = ("broker", "owner")
    search_fields = ("name", "broker__name", "owner__username")
    autocomplete_fields = ("owner",)
    readonly_fields = ("updated_at", "credentials_state")

    def get_list_display(self, request: HttpRequest) -> Any:
        """With the buttons that this user may press."""

        @admin.display(description="Log in")
        def log_in(account: BrokerAccount) -> str:
            return buttons(account, request.user)

        first, *rest = self.list_display
        columns: tuple[str | Callable[[BrokerAccount], str], ...] = (first, log_in, *rest)
        return columns

    def get_queryset(self, request: HttpRequest) -> QuerySet[BrokerAccount]:
        """All, or your own where you have no right to see the others'."""
        rows: QuerySet[BrokerAccount] = super().get_queryset(request)
        return rows if super().has_view_permission(request) else rows.filter(owner=request.user.pk)

    def has_view_permission(self, request: HttpRequest, obj: BrokerAccount | None = None) -> bool:
        """Owners see their accounts: they may log them in."""
        if super().has_view_permission(request, obj):
            return True
        return obj.owner_id == request.user.pk if obj else self._owns_any(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """The same, for the admin's first page."""
        return super().has_module_permission(request) or self._owns_any(request)

    def _owns_any(self, request: HttpRequest) -> bool:
        return request.user.is_active and BrokerAccount.objects.filter(owner=request.user.pk).exists()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What was tried goes with its account, although nobody may delete it by itself."""
        shown, count, lacking, protected = super().get_deleted_objects(objs, request)
        return shown, count, lacking - {str(each._meta.verbose_name) for each in (Attempt, Alert)}, protected

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """With the state of the token, and the ways to get another, above the form."""
        account = self.get_object(request, object_id)
        shown = account is not None and self.has_view_or_change_permission(request, account)
        context = {"login": panel(account, request)} if account and shown else {}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

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

    @admin.display(description="Prices")
    def prices(self, account: BrokerAccount) -> str:
        """Whether they are real."""
        return "SIMULATED" if account.is_simulated else "real"

    @admin.display(description="Token")
    def token(self, account: BrokerAccount) -> str:
        """How it is doing."""
        return state_badge(account)

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
        """Saves; writes down that a token was entered, and says what is still needed to connect."""
        before = obj.token_fingerprint
        super().save_model(request, obj, form, change)
        if obj.token_fingerprint not in (before, ""):
            logins.entered(obj, source=f"in the admin, by {request.user.get_username()}")
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
