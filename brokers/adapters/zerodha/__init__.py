"""
Zerodha's Kite Connect v3: one socket a login, JSON requests out, binary packets in.

Source: https://kite.trade/docs/connect/v3/ (websocket, user, market-quotes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlencode

import msgspec

from brokers import tokens
from brokers.adapters.zerodha import codec, master
from brokers.contract import (
    Adapter,
    BadRow,
    Credential,
    ErrorKind,
    Event,
    Feed,
    Frame,
    Handshake,
    HttpRequest,
    HttpResponse,
    InstrumentRow,
    Limits,
    LoginSteps,
    LoginWay,
    Master,
    PageSteps,
    Refused,
    Session,
    Spec,
    Steps,
    TokenLife,
    rest_base,
)
from marketdata.ticks import Mode, Token

API = "https://api.kite.trade"
LOGIN = "https://kite.zerodha.com/connect/login"
VERSION_HEADERS = {"X-Kite-Version": "3"}

SPEC = Spec(
    slug="zerodha",
    name="Zerodha",
    docs="https://kite.trade/docs/connect/v3/websocket/",
    segments=frozenset(codec.SEGMENTS.values()),
    feeds=(
        Feed(
            kind="market",
            endpoint="wss://ws.kite.trade",
            modes=(Mode.LTP, Mode.QUOTE, Mode.DEPTH),
            # 3000 instruments a connection is documented. So are 3 connections an API key; one is the default here,
            # because every other program that streams with the same key counts against these three.
            limits=Limits(
                instruments_per_connection=3000,
                connections_per_account=1,
                instruments_per_frame=200,
                frames_per_second=10.0,
            ),
            # The server sends a byte every couple of seconds when nothing else is due.
            silence_s=15.0,
            ping_s=2.5,
        ),
    ),
    credentials=(
        Credential(name="api_key", label="API key", help="From the app's page at developers.kite.trade.", secret=False),
        Credential(
            name="api_secret",
            label="API secret",
            help="From the same page; needed to log in from the admin.",
            required=False,
        ),
        Credential(
            name="access_token",
            label="Access token",
            help="Today's token; it ends at about 6:00 the next morning.",
        ),
    ),
    masters=(Master(url=f"{API}/instruments", published_ist="08:30"),),
    token=TokenLife(ends_ist="06:00"),
    logins=frozenset({LoginWay.REDIRECT}),
)


class KiteSession(Session):
    """Kite remembers nothing between frames: the server's default mode is quote, so a mode frame always follows."""

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """A subscribe frame, then the mode of the same tokens."""
        numbers = [int(token.number) for token in tokens]
        return [codec.encode_subscribe(numbers), codec.encode_mode(mode, numbers)]

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """One unsubscribe frame; the mode does not matter."""
        return [codec.encode_unsubscribe([int(token.number) for token in tokens])]

    def decode(self, frame: Frame) -> Sequence[Event]:
        """See `codec.decode`."""
        return codec.decode(frame)


class Zerodha(Adapter):
    """The adapter."""

    spec: ClassVar[Spec] = SPEC

    def open(self, feed: Feed, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> Steps:
        """The credentials go into the URL's query; HTTP 101 is the acceptance."""
        yield from ()  # nothing to ask over HTTP first
        missing = [name for name in ("api_key", "access_token") if not credentials.get(name)]
        if missing:
            raise Refused(ErrorKind.AUTH, f"Zerodha needs {' and '.join(missing)}; log in, or enter it in the admin.")
        query = urlencode({name: credentials[name] for name in ("api_key", "access_token")})
        return Handshake(url=f"{endpoint}/?{query}" if "?" not in endpoint else endpoint, headers=VERSION_HEADERS)

    def session(self, feed: Feed) -> Session:
        """A fresh conversation."""
        return KiteSession()

    def login_url(self, credentials: Mapping[str, str], endpoint: str, state: str) -> PageSteps:
        """Kite's login page; it redirects to the app's registered address with a request token and what `state` is."""
        yield from ()  # nothing to ask over HTTP first
        api_key, _ = tokens.needed(SPEC, credentials, "api_key", "api_secret")
        query = {"v": "3", "api_key": api_key, "redirect_params": urlencode({"state": state})}
        return f"{rest_base(LOGIN, SPEC.feeds[0], endpoint)}?{urlencode(query)}"

    def exchange(
        self, credentials: Mapping[str, str], endpoint: str, callback: Mapping[str, str], now_ms: int
    ) -> LoginSteps:
        """The redirect's request token, which is good for a few minutes, for the day's access token."""
        api_key, secret = tokens.needed(SPEC, credentials, "api_key", "api_secret")
        request_token = tokens.brought(SPEC, callback, "request_token", _error(callback))
        response = yield HttpRequest(
            method="POST",
            url=f"{rest_base(API, SPEC.feeds[0], endpoint)}/session/token",
            headers=VERSION_HEADERS,
            form={
                "api_key": api_key,
                "request_token": request_token,
                "checksum": hashlib.sha256(f"{api_key}{request_token}{secret}".encode()).hexdigest(),
            },
        )
        return {"access_token": _access_token(response)}

    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        """See `master.parse`."""
        return master.parse(body)

    def master_request(self, master: Master, credentials: Mapping[str, str]) -> HttpRequest:
        """Kite answers without a login too; with one it counts against the account's own rate."""
        headers = dict(VERSION_HEADERS)
        if credentials.get("api_key") and credentials.get("access_token"):
            headers["Authorization"] = f"token {credentials['api_key']}:{credentials['access_token']}"
        return HttpRequest(method="GET", url=master.url, headers=headers)


class _Data(msgspec.Struct):
    access_token: str = ""


class _Answer(msgspec.Struct):
    data: _Data | None = None
    message: str | None = ""
    error_type: str | None = ""


OUTAGES = frozenset({"NetworkException", "DataException", "GeneralException"})
"""Kite's own trouble, by https://kite.trade/docs/connect/v3/exceptions/."""


def _error(callback: Mapping[str, str]) -> str:
    """What the redirect says went wrong; "" where nothing did. That it may say more than a status is not documented."""
    status = callback.get("status", "success")
    return "" if status == "success" else callback.get("message") or f"status {status}"


def _access_token(response: HttpResponse) -> str:
    answer = tokens.answered(SPEC, response, _Answer)
    if answer.data is None or not answer.data.access_token:
        kind = ErrorKind.NETWORK if answer.error_type in OUTAGES else None
        raise tokens.refused(SPEC, response, answer.message or "", kind)
    return answer.data.access_token


ADAPTER = Zerodha()
