"""System checks of the brokers' side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

_SECRET_LENGTH = 32


@register()
def check_credentials_keys(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """CREDENTIALS_KEY encrypts what brokers gave their users; whoever guesses it trades in their name."""
    if not settings.CREDENTIALS_KEYS:
        return [
            Error(
                "CREDENTIALS_KEY is not set; brokers' credentials cannot be stored.",
                hint="Set 32 or more random characters, or remove it: the next start writes one to .env.",
                id="brokers.E001",
            )
        ]
    return [
        Error(
            f"CREDENTIALS_KEY: part {number} of its comma list has {len(key)} characters; it can be guessed.",
            hint=f"Put a random one of {_SECRET_LENGTH} or more in front, run `python manage.py rotate_credentials`, "
            "then remove this one.",
            id="brokers.E002",
        )
        for number, key in enumerate(settings.CREDENTIALS_KEYS, start=1)
        if len(key) < _SECRET_LENGTH
    ]
