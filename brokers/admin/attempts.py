"""What was tried at brokers, and what somebody must know of: for reading. They go when they are old, by themselves."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from brokers.india import INDIA
from brokers.models import Alert, Attempt


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the checker only
    """Rows that programs write."""

    list_select_related = ("account__broker",)
    list_display_links = None
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """It would be made up."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """It would be no record any more."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """A login that was refused might be tried again by itself."""
        return False


@admin.register(Attempt)
class AttemptAdmin(ReadOnly):
    """Newest first."""

    list_display = ("when", "account", "what", "outcome", "automatic", "detail")
    list_filter = ("what", "outcome", "automatic", "account")
    search_fields = ("account__name", "account__broker__name", "detail")
    date_hierarchy = "at"
    fields = ("at", "account", "what", "outcome", "detail", "automatic")

    @admin.display(description="When", ordering="at")
    def when(self, attempt: Attempt) -> str:
        """In India, to the second."""
        return f"{attempt.at.astimezone(INDIA):%d %b %Y, %H:%M:%S}"


@admin.register(Alert)
class AlertAdmin(ReadOnly):
    """Newest first; those that are not cleared are open."""

    list_display = ("raised_at", "account", "kind", "message", "cleared_at", "raise_told_at", "clear_told_at")
    list_filter = ("kind", ("cleared_at", admin.EmptyFieldListFilter), "account")
    search_fields = ("account__name", "account__broker__name", "message")
