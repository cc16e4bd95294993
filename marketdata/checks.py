"""System checks of the clients' side: what is wrong with a deployment, and what to do about it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.migrations.executor import MigrationExecutor

MIGRATIONS_TAG = "migrations"
"""Asked for by commands that run for long: `self.check(tags=["migrations"], include_deployment_checks=True)`."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@*]+")
_SECRET_LENGTH = 32


@register()
def check_addresses(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Where we listen, and who could get there."""
    return list(_addresses())


def _addresses() -> Iterator[CheckMessage]:
    if not is_loopback(settings.ZMQ_HOST):
        yield Error(
            f"ZMQ_HOST is {settings.ZMQ_HOST}, which other machines may reach; ZeroMQ has no passwords.",
            hint="Set ZMQ_HOST=127.0.0.1. Servers on other machines share REDIS_URL and DATABASE_URL instead.",
            id="marketdata.E001",
        )
    if not is_loopback(settings.WEBSOCKET_HOST) and not (settings.TLS_CERT or settings.TRUSTED_PROXY):
        yield Error(
            f"WEBSOCKET_HOST is {settings.WEBSOCKET_HOST}, which other machines may reach, without TLS: "
            "API keys and passwords would cross the network readable.",
            hint="Set TLS_CERT and TLS_KEY; or TRUSTED_PROXY=true behind a proxy that ends TLS; "
            "or WEBSOCKET_HOST=127.0.0.1.",
            id="marketdata.E002",
        )
    if settings.WEBSOCKET_PORT == settings.ZMQ_PORT:
        yield Error(
            f"WEBSOCKET_PORT and ZMQ_PORT are both {settings.ZMQ_PORT}.",
            hint="Give one of them another port.",
            id="marketdata.E003",
        )


@register()
def check_tls(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """TLS_CERT and TLS_KEY are files, and both or neither."""
    problems = []
    for name, other in (("TLS_CERT", "TLS_KEY"), ("TLS_KEY", "TLS_CERT")):
        path = getattr(settings, name)
        if not path and getattr(settings, other):
            problems.append(f"{other} is set and {name} is not; a certificate needs its key.")
        elif path and not Path(path).is_file():
            problems.append(f"{name} is {path}, and there is no such file.")
    hint = "Set both to the paths of PEM files, or neither."
    return [Error(problem, hint=hint, id="marketdata.E004") for problem in problems]


@register()
def check_pace(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """For settings that do not come from the environment: there the same bounds hold when it is read."""
    problems: list[CheckMessage] = []
    if settings.THROTTLE_MS != 0 and settings.THROTTLE_MS < 50:
        problems.append(
            Error(
                f"THROTTLE_MS is {settings.THROTTLE_MS}; the shortest throttle is 50 ms.",
                hint="Set 50 or more, or 0 to send every tick.",
                id="marketdata.E005",
            )
        )
    if not 1 <= settings.TICK_LANES <= 256:
        problems.append(
            Error(
                f"TICK_LANES is {settings.TICK_LANES}.",
                hint="Set 1 to 256, the same in all processes; 16 fits most.",
                id="marketdata.E006",
            )
        )
    return problems


@register()
def check_origins(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Browsers send an origin as scheme, host and port in small letters; nothing else ever matches."""
    return [
        Error(
            f"ALLOWED_ORIGINS holds {origin!r}, which no browser sends.",
            hint="Write scheme://host or scheme://host:port in small letters, without a path or *, "
            "such as https://charts.example.in.",
            id="marketdata.E007",
        )
        for origin in settings.ALLOWED_ORIGINS
        if not _ORIGIN.fullmatch(origin) or origin != origin.lower()
    ]


@register()
def check_secret_key(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """SECRET_KEY signs sessions and hashes API keys."""
    if len(settings.SECRET_KEY) >= _SECRET_LENGTH:
        return []
    return [
        Error(
            f"SECRET_KEY has {len(settings.SECRET_KEY)} characters; it can be guessed.",
            hint=f"Set {_SECRET_LENGTH} or more random ones, or remove it: the next start writes one to .env.",
            id="marketdata.E008",
        )
    ]


@register(MIGRATIONS_TAG, deploy=True)
def check_migrations(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """The database answers and has every table this version needs. Not part of plain checks: `migrate` runs those."""
    try:
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except OperationalError as error:
        return [
            Error(
                f"The database does not answer: {str(error).strip()}",
                hint="Start it, or correct DATABASE_URL.",
                id="marketdata.E009",
            )
        ]
    if not plan:
        return []
    apps = sorted({migration.app_label for migration, _ in plan})
    return [
        Error(
            f"The database lacks {len(plan)} migration{'s' if len(plan) > 1 else ''} of {', '.join(apps)}.",
            hint="Run `python manage.py migrate`.",
            id="marketdata.E010",
        )
    ]


def is_loopback(host: str) -> bool:
    """
    Whether only this machine can reach what listens on a host name or address.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
