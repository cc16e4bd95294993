"""System checks of the clients' side, through the registry that `manage.py` uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks

from tests.conftest import run_manage


def ids(messages: Sequence[CheckMessage]) -> set[str | None]:
    return {message.id for message in messages}


def test_the_defaults_pass() -> None:
    assert run_checks() == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ZMQ_HOST": "0.0.0.0"}, "marketdata.E001"),
        ({"ZMQ_HOST": "192.168.1.5"}, "marketdata.E001"),
        ({"ZMQ_HOST": "*"}, "marketdata.E001"),
        ({"WEBSOCKET_HOST": "0.0.0.0"}, "marketdata.E002"),
        ({"WEBSOCKET_HOST": "::"}, "marketdata.E002"),
        ({"WEBSOCKET_PORT": 5555}, "marketdata.E003"),
        ({"TLS_CERT": __file__}, "marketdata.E004"),
        ({"TLS_CERT": __file__, "TLS_KEY": "/no/such/key.pem"}, "marketdata.E004"),
        ({"THROTTLE_MS": 10}, "marketdata.E005"),
        ({"TICK_LANES": 0}, "marketdata.E006"),
        ({"ALLOWED_ORIGINS": ["*"]}, "marketdata.E007"),
        ({"ALLOWED_ORIGINS": ["charts.example.in"]}, "marketdata.E007"),
        ({"ALLOWED_ORIGINS": ["https://charts.example.in/"]}, "marketdata.E007"),
        ({"ALLOWED_ORIGINS": ["https://Charts.example.in"]}, "marketdata.E007"),
        ({"SECRET_KEY": "short"}, "marketdata.E008"),
    ],
)
def test_a_bad_deployment_is_named(settings: Any, changes: dict[str, Any], found: str) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)
    messages = run_checks()
    assert ids(messages) == {found}
    assert all(message.hint for message in messages)


@pytest.mark.parametrize(
    "changes",
    [
        {"WEBSOCKET_HOST": "0.0.0.0", "TRUSTED_PROXY": True},
        {"WEBSOCKET_HOST": "0.0.0.0", "TLS_CERT": __file__, "TLS_KEY": __file__},
        {"WEBSOCKET_HOST": "localhost", "ZMQ_HOST": "::1"},
        {"ALLOWED_ORIGINS": ["https://charts.example.in:8443", "chrome-extension://abcdef"]},
        {"THROTTLE_MS": 0},
    ],
)
def test_a_good_deployment_passes(settings: Any, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)
    assert run_checks() == []


def test_a_public_bind_stops_every_command_with_the_reason() -> None:
    done = run_manage("check", WEBSOCKET_HOST="0.0.0.0")
    assert done.returncode == 1
    assert "TRUSTED_PROXY" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_needs_tables_says_so_where_there_are_none(tmp_path: Path) -> None:
    done = run_manage("create_api_key", "charts", STREAM_DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "python manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    done = run_manage("create_api_key", "charts", DATABASE_URL="postgres://nobody@127.0.0.1:1/stream")
    assert done.returncode == 1
    assert "The database does not answer" in done.stderr
    assert "Traceback" not in done.stderr
