"""`manage.py setup_demo`: an empty database gets simulated accounts, their instruments, an API key and an admin."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from brokers import registry
from brokers.instruments.store import replace_instruments
from brokers.models import Broker, BrokerAccount
from brokers.simulators import rows_of, simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN
from marketdata import auth
from marketdata.addresses import authority, reachable
from marketdata.models import ApiKey

NAME = "demo"


class Command(BaseCommand):
    """What `stream --demo` runs in the demo's own database; refuses one that holds accounts of anybody else."""

    help = "Fill the demo's own database: instruments, simulated accounts, a fresh API key, an admin login."
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Where the simulator is, and where the key goes."""
        parser.add_argument(
            "--simulators",
            nargs="+",
            metavar="SLUG=PORT",
            required=True,
            help="the simulated brokers, and the ports on 127.0.0.1 where they are",
        )
        parser.add_argument("--symbols", type=int, default=200, help="instruments the simulators quote")
        parser.add_argument("--key-file", type=Path, required=True, help="file that gets the API key, readable to you")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints the key and the admin login as JSON. Raises CommandError with one sentence."""
        call_command("migrate", verbosity=0)
        if BrokerAccount.objects.exclude(name=NAME).exists():
            raise CommandError("This database holds real broker accounts; the demo must have one of its own.")
        for place in options["simulators"]:
            slug, _, port = place.partition("=")
            _fill(slug, int(port), options["symbols"])
        ApiKey.objects.filter(name=NAME).delete()
        _, key = auth.issue(NAME)
        _write(options["key_file"], key)
        password = secrets.token_urlsafe(9)
        user, _ = get_user_model().objects.get_or_create(username=NAME, is_staff=True, is_superuser=True)
        user.set_password(password)
        user.save()
        self.stdout.write(json.dumps({"key": key, "user": NAME, "password": password}))


def _fill(slug: str, port: int, symbols: int) -> None:
    adapter = registry.load(slug)
    broker, _ = Broker.objects.get_or_create(slug=slug, defaults={"name": adapter.spec.name})
    simulator = simulators()[slug](symbols=symbols, redirect_url=callback_url(slug))
    replace_instruments(broker, rows_of(adapter, simulator), simulated=True)
    BrokerAccount.objects.update_or_create(
        broker=broker,
        name=NAME,
        defaults={
            "credentials": simulator.credentials(DEMO_KEY, DEMO_TOKEN),
            "endpoint": f"ws://127.0.0.1:{port}",
            "enabled": True,
        },
    )


def callback_url(slug: str) -> str:
    """Where a simulated broker's login page sends the browser back to: this project's own page."""
    where = authority(reachable(settings.WEBSOCKET_HOST), settings.WEBSOCKET_PORT)
    return f"http{'s' if settings.TLS_CERT else ''}://{where}/broker/{slug}/callback"


def _write(path: Path, key: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{key}\n")
