"""What an account's page and the list say of its token, and the ways to get another; `brokers.views.login` does it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from brokers import logins
from brokers.admin.facts import spec_of
from brokers.contract import LoginWay, Spec
from brokers.feed.account_tokens import TokenView, token_of
from brokers.india import DAY_MS, INDIA, MINUTE_MS
from brokers.models import Attempt, BrokerAccount
from brokers.secrets import WrongKeyError
from marketdata.ticks import TokenState

SHOWN_LOGINS = 10

WORDS = {
    TokenState.VALID: "valid",
    TokenState.EXPIRING: "expiring",
    TokenState.TOKEN_EXPIRED: "expired",
    TokenState.WAITING_FOR_LOGIN: "waiting for login",
    TokenState.NOT_ENTITLED: "not entitled",
}
COLOURS = {
    TokenState.VALID: "#bfe3c4",
    TokenState.EXPIRING: "#f4dd8f",
    TokenState.TOKEN_EXPIRED: "#f4dd8f",
    TokenState.WAITING_FOR_LOGIN: "#eeb4ac",
    TokenState.NOT_ENTITLED: "#eeb4ac",
}

WAYS: Sequence[tuple[LoginWay, str, str]] = (
    (LoginWay.REDIRECT, "broker_log_in", "Log in"),
    (LoginWay.SCRIPTED, "broker_log_in_by_itself", "Log in"),
    (LoginWay.RENEWAL, "broker_renew", "Renew"),
)
"""Each with the address of what it does, and the word on its button."""


class Button(NamedTuple):
    """A way to get a token, as it is pressed."""

    url: str
    label: str
    help: str


class Panel(NamedTuple):
    """What stands above an account's form."""

    account: BrokerAccount
    badge: SafeString
    sentence: str
    since: str
    simulated: bool
    buttons: tuple[Button, ...]
    callback: str
    """Where the broker's redirect should lead; "" where it has none, or where this user may not log in."""
    elsewhere: str
    """Where it leads instead, as far as it is stored here."""
    attempts: Sequence[Attempt]
    """The newest logins; attempts to connect would crowd them out."""
    all_attempts: str
    """Where the rest is; "" for who may not see it."""


def panel(account: BrokerAccount, request: HttpRequest) -> Panel:
    """All of it, for whoever asks."""
    now_ms = _now_ms()
    view, spec = token_of(account, now_ms), spec_of(account.broker)
    may = logins.may_log_in(request.user, account)
    callback = request.build_absolute_uri(reverse("broker_callback", args=[account.broker.slug]))
    sees_all = request.user.has_perm("brokers.view_attempt")
    leads_here = callback if may and spec and LoginWay.REDIRECT in spec.logins else ""
    return Panel(
        account=account,
        badge=badge(view, now_ms),
        sentence="" if view.state is TokenState.VALID and view.ends_ms is not None else view.sentence,
        since=since_text(account),
        simulated=account.is_simulated,
        buttons=ways(account, spec) if may else (),
        callback=leads_here,
        elsewhere=_elsewhere(account, callback) if leads_here else "",
        attempts=list(account.attempts.exclude(what=Attempt.What.CONNECT)[:SHOWN_LOGINS]),
        all_attempts=f"{reverse('admin:brokers_attempt_changelist')}?account__id__exact={account.pk}"
        if sees_all
        else "",
    )


def ways(account: BrokerAccount, spec: Spec | None) -> tuple[Button, ...]:
    """The buttons of an account."""
    texts = {
        LoginWay.REDIRECT: f"Opens {account.broker}’s login page.",
        LoginWay.SCRIPTED: "Logs in with the credentials stored below. Brokers lock accounts after a few wrong ones.",
        LoginWay.RENEWAL: "Changes the token for one that is good for longer; the one there is ends.",
    }
    return tuple(
        Button(reverse(name, args=[account.pk]), label, texts[way])
        for way, name, label in WAYS
        if spec and way in spec.logins and (way is not LoginWay.RENEWAL or account.token_fingerprint)
    )


def buttons(account: BrokerAccount, user: Any) -> SafeString | str:
    """The same for a row of the list, inside the form that the list is."""
    if not logins.may_log_in(user, account):
        return "–"
    rows = ((each.url, each.help, each.label) for each in ways(account, spec_of(account.broker)))
    pressed = (
        '<button class="button" style="padding: 5px 10px" type="submit" formmethod="post" formaction="{}" '
        'title="{}">{}</button>'
    )
    return format_html_join(" ", pressed, rows) or "–"


def state_badge(account: BrokerAccount) -> SafeString | str:
    """How an account's token is doing, for a row of the list."""
    now_ms = _now_ms()
    return badge(token_of(account, now_ms), now_ms)


def badge(view: TokenView, now_ms: int) -> SafeString:
    """The state in one coloured word, and when the token ends."""
    if view.state is None:
        return format_html('<span title="{}">–</span>', view.sentence)
    return format_html(
        '<span title="{}" style="display: inline-block; min-width: 7.5rem"><b style="background: {}; color: #10202b; '
        'border-radius: 4px; padding: 1px 8px; white-space: nowrap">{}</b> {}</span>',
        view.sentence,
        COLOURS[view.state],
        WORDS[view.state],
        ending(view, now_ms),
    )


def ending(view: TokenView, now_ms: int) -> str:
    """
    When a token ends, from now; "about" where only the broker's habit is known.

    >>> six = 1_795_653_000_000  # 26 Nov 2026, 06:00 in India
    >>> ending(TokenView(TokenState.VALID, "", six, True), six - 200 * MINUTE_MS)
    'ends in 3 h 20 min, at 06:00'
    >>> ending(TokenView(TokenState.VALID, "", six, False), six - 2 * DAY_MS)
    'ends in 2 days, on 26 Nov at about 06:00'
    >>> ending(TokenView(TokenState.VALID, "", six, False), six + 5 * MINUTE_MS)
    'should have ended 5 min ago, at 06:00'
    """
    if view.ends_ms is None:
        return ""
    left_ms = view.ends_ms - now_ms
    at = dt.datetime.fromtimestamp(view.ends_ms / 1000, INDIA)
    year = " %Y" if abs(left_ms) > 200 * DAY_MS else ""
    when = f"at {at:%H:%M}" if abs(left_ms) < DAY_MS else at.strftime(f"on %d %b{year} at %H:%M")
    if left_ms > 0:
        return f"ends in {span(left_ms)}, {when if view.is_certain else when.replace('at ', 'at about ')}"
    return f"{'ended' if view.is_certain else 'should have ended'} {span(-left_ms)} ago, {when}"


def span(length_ms: int) -> str:
    """
    A length of time, in its two largest units.

    >>> [span(minutes * MINUTE_MS) for minutes in (0, 45, 60, 200, 1440, 1500, 9000)]
    ['less than a minute', '45 min', '1 h', '3 h 20 min', '1 day', '1 day 1 h', '6 days 6 h']
    """
    days, rest = divmod(length_ms // MINUTE_MS, 1440)
    hours, minutes = divmod(rest, 60)
    parts = [
        f"{days} day{'s' if days > 1 else ''}" if days else "",
        f"{hours} h" if hours else "",
        f"{minutes} min" if minutes and not days else "",
    ]
    return " ".join(part for part in parts if part) or "less than a minute"


def since_text(account: BrokerAccount) -> str:
    """Since when the token is there; "" where there is none."""
    if not account.token_fingerprint or account.token_since is None:
        return ""
    ago = span(max(0, _now_ms() - int(account.token_since.timestamp() * 1000)))
    return f"{account.token_since.astimezone(INDIA):%d %b, %H:%M} ({ago} ago)"


def _elsewhere(account: BrokerAccount, callback: str) -> str:
    try:
        stored = account.credentials.get("redirect_uri", "").strip()
    except WrongKeyError:
        return ""
    return stored if stored.rstrip("/") != callback else ""


def _now_ms() -> int:
    return int(timezone.now().timestamp() * 1000)
