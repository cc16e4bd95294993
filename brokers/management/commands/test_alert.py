"""`manage.py test_alert`: one message to ALERT_WEBHOOK_URL, and what the other end says to it."""

from __future__ import annotations

import time
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from brokers.feed.alerting import Answer, post
from brokers.feed.alerts import State, message, plain

TEXT = "This is a test by manage.py test_alert: alerts of the market data feeds come here."
MOST_SHOWN = 200
"""So many characters of the answer are shown."""


class Command(BaseCommand):
    """Needs neither a running stream nor a database."""

    help = "Sends a test message to ALERT_WEBHOOK_URL, once, and says what the other end answered."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError with one sentence: no address, no answer, or one that is no success."""
        url: str = settings.ALERT_WEBHOOK_URL
        if not url:
            raise CommandError("ALERT_WEBHOOK_URL is empty; set it to an address as in docs/alerts.md, then try again.")
        now_ms = time.time_ns() // 1_000_000
        body = message(
            TEXT,
            kind="test",
            state=State.RAISED,
            broker="",
            account="",
            simulated=False,
            since_ms=now_ms,
            sent_ms=now_ms,
        )
        try:
            answer = async_to_sync(post)(url, body)
        except ConnectionError as error:
            raise CommandError(
                f"The message was not taken: {error}; check ALERT_WEBHOOK_URL and the way there."
            ) from None
        said = f"The other end answered {answer.status}{_words(answer, url)}"
        if not 200 <= answer.status < 300:
            raise CommandError(f"{said}; {_advice(answer.status)}.")
        self.stdout.write(f"{said}. Look whether the message is there.")


def _words(answer: Answer, url: str) -> str:
    """The other end's own words, in one line and without the address: it may hold a secret."""
    words = "".join(char for char in plain(answer.text.replace(url, "…")) if char.isprintable())
    return f": {words[:MOST_SHOWN].rstrip('.')}" if words else ""


def _advice(status: int) -> str:
    if 300 <= status < 400:
        return "redirects are not followed, so set ALERT_WEBHOOK_URL to where it leads"
    if status == 429 or status >= 500:
        return "try again later"
    return "check ALERT_WEBHOOK_URL against docs/alerts.md"
