"""Instruments, for looking up."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from brokers.models import Instrument


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
