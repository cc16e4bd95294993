"""System checks of the brokers' side."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([], ["brokers.E001"]),
        (["short"], ["brokers.E002"]),
        (["k" * 32, "short", "tiny"], ["brokers.E002", "brokers.E002"]),
        (["k" * 32, "l" * 64], []),
    ],
)
def test_keys_that_can_be_guessed_are_counted_not_shown(settings: Any, keys: list[str], found: list[str]) -> None:
    settings.CREDENTIALS_KEYS = keys
    messages = run_checks()
    assert [message.id for message in messages] == found
    assert not any(key in f"{message.msg} {message.hint}" for message in messages for key in keys)
