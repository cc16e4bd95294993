"""The admin of the clients' side: API keys. A key is shown once, on the page that follows its making."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from marketdata import auth
from marketdata.models import ApiKey

_CHOICES = ("name", "owner", "expires_at", "feed", "max_symbols", "max_connections")


class NewKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # generic for the checker only
    """A key to be made, or one that exists already and is to be known here too."""

    existing_key = forms.CharField(
        required=False,
        strip=True,
        widget=forms.PasswordInput({"autocomplete": "off", "class": "vTextField"}, render_value=False),
        help_text="Empty: a new key is made. To go on using a key from another program, such as OpenAlgo, paste it.",
    )

    class Meta:
        model = ApiKey
        fields = _CHOICES

    def clean_existing_key(self) -> str:
        """Fit to be a key, and not here yet."""
        key: str = self.cleaned_data["existing_key"]
        try:
            if key:
                auth.check_new(key)
        except auth.BadKeyError as error:
            raise forms.ValidationError(str(error)) from None
        return key


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the checker only
    """Who may stream, what, and how much."""

    list_display = ("name", "state", "owner", "feed", "expires_at", "last_used_at", "created_at")
    list_filter = ("active", "feed")
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username")
    autocomplete_fields = ("owner",)
    readonly_fields = ("created_at", "last_used_at")
    actions = ("revoke",)

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        """A new key may bring its text; an old one's is not known any more."""
        if obj is None:
            kwargs["form"] = NewKeyForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Limits in a section of their own."""
        who = (
            ("name", "owner", "expires_at", "existing_key")
            if obj is None
            else ("name", "owner", "active", "expires_at")
        )
        sections: list[Any] = [
            (None, {"fields": who}),
            ("What it may have", {"fields": ("feed", "max_symbols", "max_connections")}),
        ]
        return [*sections, ("History", {"fields": self.readonly_fields})] if obj else sections

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Yours unless you say otherwise."""
        return {"owner": request.user.pk, **super().get_changeform_initial_data(request)}

    @method_decorator(sensitive_post_parameters())
    def changeform_view(self, *args: Any, **kwargs: Any) -> Any:
        """What is posted here never reaches an error report."""
        return super().changeform_view(*args, **kwargs)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """A new row gets its key, which stays on the object until the answer is rendered."""
        if not change:
            obj.new_key = form.cleaned_data["existing_key"] or auth.new_key()  # type: ignore[attr-defined]
            auth.seal(obj, obj.new_key)  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """The key itself, in the answer to the form (which no cache keeps), not in a cookie, not in the session."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"API key “{obj}”",
            "opts": self.opts,
            "key": obj.new_key,
        }
        return TemplateResponse(request, "admin/marketdata/apikey/created.html", context)

    @admin.display(description="State")
    def state(self, key: ApiKey) -> str:
        """Why it opens nothing, where it does not."""
        if not key.active:
            return "revoked"
        if key.expires_at and key.expires_at <= timezone.now():
            return "expired"
        return "owner switched off" if key.owner and not key.owner.is_active else "active"

    @admin.action(description="Revoke: close their connections now", permissions=["change"])
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        """Servers notice within a second, wherever they run."""
        ids = list(keys.values_list("pk", flat=True))
        keys.update(active=False)
        auth.forget(ids)
        what = "1 API key was" if len(ids) == 1 else f"{len(ids)} API keys were"
        self.message_user(request, f"{what} revoked; connections with {'it' if len(ids) == 1 else 'them'} close now.")
