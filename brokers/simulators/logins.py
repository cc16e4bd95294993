"""
What simulated login servers share: a login page with a form, its redirect, and how a token that a login made is kept.

The demo's person has the api key as user ID, and the PIN, secrets and one-time password below. A code that a redirect
brings is good once. What counts as wrong, and so towards the lock, is a PIN, a secret, a one-time password or a token;
a code that is unknown or was used is refused and counts for nothing.
"""

from __future__ import annotations

import base64
import datetime as dt
import html
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from brokers.contract import HttpResponse
from brokers.india import INDIA
from brokers.simulators.engine import Simulator
from brokers.simulators.keys import Denied, token_fact

DEMO_SECRET = "demo-secret"  # noqa: S105 - everybody may know it
DEMO_PIN = "1234"
DEMO_TOTP_SECRET = "DEMOTOTPSECRET23"  # noqa: S105 - everybody may know it

DAY_S = 86_400.0

_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_STYLE = (
    "body{margin:0;font:1rem/1.5 system-ui,sans-serif;background:#f4f4f0;color:#222}"
    "main{max-width:22rem;margin:0 auto;padding:1rem}"
    ".mark{margin:0;padding:.25rem 1rem;background:#a33;color:#fff;font-weight:700;text-align:center}"
    "label{display:block;margin:1rem 0}"
    "input,button{display:block;box-sizing:border-box;width:100%;padding:.6rem;font:inherit}"
    "[role=alert]{color:#a00;font-weight:700}"
)


class Asked(NamedTuple):
    """What a login page was opened for: whose app it is, and what its redirect brings back as it was given."""

    api_key: str
    carried: Mapping[str, str] = {}


class LoginServer(Simulator):
    """A broker where a login makes a token: each is written down, and the token let in from then on."""

    def granted(self, what: str, api_key: str, token: str, end_s: float, *, only: bool = False) -> None:
        """A token that a login made; it ends at `end_s` (Unix seconds). `only`: the key's tokens before it end now."""
        (self.keys.replace if only else self.keys.add)(api_key, token, end_s)
        self.keys.right(api_key)
        self._count["logins"] += 1
        self.note("login_ok", what=what, api_key=api_key, **token_fact(token))

    def login_refused(self, what: str, denied: Denied, api_key: str = "") -> None:
        """A step of a login that was refused; a name that is no key is not written down: it may be anything."""
        facts = ({"api_key": api_key} if api_key in self.keys else {}) | denied.facts
        self.note("login_refused", what=what, status=denied.status, reason=str(denied), **facts)
        self.keys.wrong(denied.wrong)


class LoginPages(LoginServer):
    """A broker with a login page for a person, which redirects to the address that is registered with the app."""

    page_path: ClassVar[str]
    takes_anyone: ClassVar[bool] = False
    """Whether another person than the app's owner can log in on its page."""

    @abstractmethod
    def asked(self, given: Mapping[str, str]) -> Asked:
        """
        What a page with these parameters is for.

        Raises Denied: it is for nothing.
        """

    @abstractmethod
    def brought(self, given: Mapping[str, str], user: str) -> Mapping[str, str]:
        """What the redirect of a page with these parameters brings when a person has logged in, beside `carried`."""

    def page(self, method: str, target: str, body: bytes) -> HttpResponse | None:
        """The page, or the answer to its form; None: that is elsewhere."""
        url = urlsplit(target)
        if url.path != self.page_path or method not in {"GET", "POST"}:
            return None
        given = dict(parse_qsl(url.query)) if method == "GET" else form(body)
        user, pin = given.pop("user_id", "").strip(), given.pop("pin", "").strip()
        try:
            asked = self.asked(given)
        except Denied as denied:
            self.login_refused("page", denied)
            return _page(self.slug, denied.status, str(denied))
        if method == "GET":
            return _page(self.slug, 200, fields=self._fields(asked, given))
        try:
            self._check_person(asked, user, pin)
        except Denied as denied:
            self.login_refused("page", denied, user)
            return _page(self.slug, denied.status, str(denied), self._fields(asked, given))
        self.note("login_ok", what="page", api_key=user)
        return _redirect(self.redirect_url, {**self.brought(given, user), **asked.carried})

    def _fields(self, asked: Asked, given: Mapping[str, str]) -> str:
        """The page's form: what it was opened with goes along, unseen."""
        hidden = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">\n'
            for name, value in given.items()
        )
        user = html.escape(asked.api_key)
        return (
            f"<p>The demo has the user ID <b>{user}</b> and the PIN <b>{DEMO_PIN}</b>.</p>\n"
            f'<form method="post" action="{self.page_path}">\n{hidden}'
            f'<label>User ID <input name="user_id" value="{user}" autocomplete="off" required></label>\n'
            f'<label>PIN <input name="pin" value="{DEMO_PIN}" inputmode="numeric" autocomplete="off" required>'
            "</label>\n<button>Log in</button>\n</form>\n"
        )

    def _check_person(self, asked: Asked, user: str, pin: str) -> None:
        if user not in self.keys or (user != asked.api_key and not self.takes_anyone):
            raise Denied(401, "The user ID or the PIN is wrong.")
        self.keys.check_lock(user)
        if pin != DEMO_PIN:
            raise Denied(401, "The user ID or the PIN is wrong.", wrong=user)


def form(body: bytes) -> dict[str, str]:
    """The fields of a form that was posted."""
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def as_json(status: int, value: object) -> HttpResponse:
    """An answer in JSON."""
    return HttpResponse(status=status, body=json.dumps(value).encode())


def jwt(**claims: object) -> str:
    """
    A token that says what it is, with a made-up signature.

    >>> jwt(exp=1795600000)
    'eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJleHAiOiAxNzk1NjAwMDAwfQ.c2ltdWxhdGVk'
    """
    parts: tuple[Mapping[str, object], ...] = ({"alg": "HS256", "typ": "JWT"}, claims)
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*coded, "c2ltdWxhdGVk"])


def next_ist(hour: int, minute: int, now_s: float) -> float:
    """
    The next time it is so late in India, in Unix seconds.

    >>> next_ist(3, 30, 1_795_578_300.0) - 1_795_578_300.0 == (18 * 60 + 15) * 60
    True
    """
    now = dt.datetime.fromtimestamp(now_s, INDIA)
    end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (end if end > now else end + dt.timedelta(days=1)).timestamp()


def ist_text(instant_s: float) -> str:
    """
    A Unix time as India's clock and calendar show it.

    >>> ist_text(1_795_578_300.0)
    '2026-11-25T09:15:00'
    """
    return dt.datetime.fromtimestamp(instant_s, INDIA).strftime("%Y-%m-%dT%H:%M:%S")


def _redirect(url: str, brought: Mapping[str, str]) -> HttpResponse:
    place = urlsplit(url)
    query = "&".join(part for part in (place.query, urlencode(brought)) if part)
    headers = {"Location": place._replace(query=query).geturl(), "Content-Type": "text/plain"} | _PRIVATE
    return HttpResponse(status=302, body=b"", headers=headers)


def _page(slug: str, status: int, sentence: str = "", fields: str = "") -> HttpResponse:
    name = html.escape(slug.replace("_", " ").title())
    alert = f'<p role="alert">{html.escape(sentence)}</p>\n' if sentence else ""
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>SIMULATED {name} login</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n'
        f'<body>\n<p class="mark">SIMULATED</p>\n<main>\n<h1>{name} login</h1>\n'
        f"<p>This is a simulator on this machine, not {name}. Enter nothing of a real account.</p>\n"
        f"{alert}{fields}</main>\n</body>\n</html>\n"
    )
    headers = {"Content-Type": "text/html; charset=utf-8"} | _PRIVATE
    return HttpResponse(status=status, body=text.encode(), headers=headers)
