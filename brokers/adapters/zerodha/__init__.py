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
    InstrumentRow,
    Limits,
    LoginSteps,
    Master,
    Refused,
    Session,
    Spec,
    Steps,
)
from marketdata.ticks import Mode, Token

API = "https://api.kite.trade"
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

    def login_url(self, credentials: Mapping[str, str], state: str) -> str:
        """Kite's login page; it redirects to the app's registered address with a request token."""
        query = urlencode({"v": "3", "api_key": credentials.get("api_key", ""), "redirect_params": f"state={state}"})
        return f"https://kite.zerodha.com/connect/login?{query}"

    def exchange(self, credentials: Mapping[str, str], callback: Mapping[str, str], now_ms: int) -> LoginSteps:
        """The redirect's request token for the day's access token."""
        request_token = callback.get("request_token", "")
        if not request_token or not credentials.get("api_secret"):
            raise Refused(ErrorKind.AUTH, "Zerodha's login needs the redirect's request_token and the API secret.")
        signed = credentials["api_key"] + request_token + credentials["api_secret"]
        response = yield HttpRequest(
            method="POST",
            url=f"{API}/session/token",
            headers=VERSION_HEADERS,
            form={
                "api_key": credentials["api_key"],
                "request_token": request_token,
                "checksum": hashlib.sha256(signed.encode()).hexdigest(),
            },
        )
        return {"access_token": _access_token(response.status, response.body)}

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
    message: str = ""


def _access_token(status: int, body: bytes) -> str:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError:
        raise Refused(ErrorKind.PROTOCOL, f"Zerodha answered the login with HTTP {status} and no JSON.") from None
    if answer.data is None or not answer.data.access_token:
        reason = answer.message or f"HTTP {status}"
        raise Refused(ErrorKind.AUTH, f"Zerodha refused the login: {reason}.")
    return answer.data.access_token


ADAPTER = Zerodha()
