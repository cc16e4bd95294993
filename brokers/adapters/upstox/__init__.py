"""
Upstox's Market Data Feed V3: a one-time address over HTTP, then one socket with JSON requests out and protobuf in.

Source: https://upstox.com/developer/api-documentation/v3/get-market-data-feed, .../v3/get-market-data-feed-authorize,
.../get-token, .../instruments, .../announcements/analytics-token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlencode

import msgspec

from brokers import tokens
from brokers.adapters.upstox import codec, master
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

FEED = "https://api.upstox.com/v3/feed/market-data-feed"
LOGIN = "https://api.upstox.com/v2/login/authorization"
JSON_HEADERS = {"Accept": "application/json"}
LOGIN_NEEDS = ("api_key", "api_secret", "redirect_uri")

SPEC = Spec(
    slug="upstox",
    name="Upstox",
    docs="https://upstox.com/developer/api-documentation/v3/get-market-data-feed",
    segments=frozenset(codec.SEGMENTS.values()),
    feeds=(
        Feed(
            kind="market",
            endpoint="wss://api.upstox.com/v3/feed/market-data-feed",
            modes=(Mode.LTP, Mode.QUOTE, Mode.DEPTH, Mode.DEPTH30),
            # The page above, "Connection and Subscription Limits": ltpc alone 5000 instruments, with another mode 2000;
            # full alone 2000, with another mode 1500; full_d30 50, with another mode 1500. Two connections a user, five
            # with Upstox Plus. One figure a mode must hold alone and mixed, so full has its lower one. A batch's size
            # and the pace are not documented.
            limits=Limits(
                instruments_per_connection=1500,
                by_mode={Mode.LTP: 5000, Mode.QUOTE: 1500, Mode.DEPTH: 1500, Mode.DEPTH30: 1500},
                at_most={Mode.DEPTH30: 50},
                connections_per_account=2,
                instruments_per_frame=500,
                frames_per_second=10.0,
            ),
            # A quiet market sends WebSocket pings only, which are no frames. A dead socket is found by our own pings;
            # this is for one that answers them and sends nothing more.
            silence_s=300.0,
            beats=False,
            ping_s=10.0,
        ),
    ),
    credentials=(
        Credential(
            name="access_token",
            label="Access token or Analytics Token",
            help=(
                "Either today's access token, which ends at about 3:30 in the night, or the Analytics Token from the "
                "Analytics tab of account.upstox.com/developer/apps: read only, good for a year, no daily login. Both "
                "are sent in the same way; making a new Analytics Token ends the one before."
            ),
        ),
        Credential(
            name="api_key",
            label="API key",
            help="From the app's page; needed to log in from the admin, not with an Analytics Token.",
            secret=False,
            required=False,
        ),
        Credential(
            name="api_secret", label="API secret", help="From the same page, for the same purpose.", required=False
        ),
        Credential(
            name="redirect_uri",
            label="Redirect URL",
            help="Exactly as registered with the app, for the same purpose.",
            secret=False,
            required=False,
        ),
    ),
    masters=(
        Master(
            url="https://assets.upstox.com/market-quote/instruments/exchange/complete.json.gz", published_ist="06:00"
        ),
    ),
    token=TokenLife(ends_ist="03:30"),
    logins=frozenset({LoginWay.REDIRECT}),
)


class FeedSession(Session):
    """An instrument has one mode on a connection; what it has is remembered, because changing it is another request."""

    def __init__(self) -> None:
        self._held: dict[Token, str] = {}
        """The broker's word for the mode of each instrument it was told."""
        self._requests = 0
        """Requests so far: their number is their id."""

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """Up to two requests: new ones are subscribed, those in another mode changed. QUOTE and DEPTH are the same."""
        word = codec.MODE_WORDS[mode]
        new = [token for token in tokens if token not in self._held]
        changed = [token for token in tokens if self._held.get(token, word) != word]
        self._held.update(dict.fromkeys(tokens, word))
        asked = (("sub", new), ("change_mode", changed))
        return [self._request(method, some, word) for method, some in asked if some]

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """One request; the mode does not matter."""
        for token in tokens:
            self._held.pop(token, None)
        return [self._request("unsub", tokens)]

    def decode(self, frame: Frame) -> Sequence[Event]:
        """See `codec.decode`."""
        return codec.decode(frame)

    def _request(self, method: str, tokens: Sequence[Token], mode: str = "") -> bytes:
        self._requests += 1
        return codec.encode_request(self._requests, method, [token.number for token in tokens], mode)


class Upstox(Adapter):
    """The adapter."""

    spec: ClassVar[Spec] = SPEC

    def open(self, feed: Feed, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> Steps:
        """Asks for the address of the socket, which is good for one connection and needs no header."""
        token = credentials.get("access_token", "").strip()
        if not token:
            raise Refused(ErrorKind.AUTH, "Upstox needs access_token; log in, or enter one in the admin.")
        response = yield HttpRequest(
            method="GET",
            url=f"{rest_base(FEED, feed, endpoint)}/authorize",
            headers=JSON_HEADERS | {"Authorization": f"Bearer {token}"},
        )
        return Handshake(url=_socket_address(response, feed, endpoint))

    def session(self, feed: Feed) -> Session:
        """A fresh conversation."""
        return FeedSession()

    def refusal(self, status: int, body: bytes) -> ErrorKind:
        """See `codec.refusal`."""
        return codec.refusal(status, body)[0]

    def login_url(self, credentials: Mapping[str, str], endpoint: str, state: str) -> PageSteps:
        """Upstox's login page; it redirects to the app's registered address with a code."""
        yield from ()  # nothing to ask over HTTP first
        api_key, _, redirect_uri = tokens.needed(SPEC, credentials, *LOGIN_NEEDS)
        query = {"response_type": "code", "client_id": api_key, "redirect_uri": redirect_uri, "state": state}
        return f"{rest_base(LOGIN, SPEC.feeds[0], endpoint)}/dialog?{urlencode(query)}"

    def exchange(
        self, credentials: Mapping[str, str], endpoint: str, callback: Mapping[str, str], now_ms: int
    ) -> LoginSteps:
        """The redirect's code, which is good once, for the day's access token."""
        api_key, secret, redirect_uri = tokens.needed(SPEC, credentials, *LOGIN_NEEDS)
        words = callback.get("error_description") or callback.get("error", "")
        code = tokens.brought(SPEC, callback, "code", words)
        response = yield HttpRequest(
            method="POST",
            url=f"{rest_base(LOGIN, SPEC.feeds[0], endpoint)}/token",
            headers=JSON_HEADERS,
            form={
                "code": code,
                "client_id": api_key,
                "client_secret": secret,
                "redirect_uri": redirect_uri,
                "grant_type": "authorization_code",
            },
        )
        return {"access_token": _access_token(response)}

    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        """See `master.parse`."""
        return master.parse(body)


class _Address(msgspec.Struct):
    authorized_redirect_uri: str = ""
    older: str = msgspec.field(default="", name="authorizedRedirectUri")


class _Authorized(msgspec.Struct):
    data: _Address


class _LoggedIn(msgspec.Struct):
    access_token: str = ""


def _socket_address(response: HttpResponse, feed: Feed, endpoint: str) -> str:
    """The one-time address: encrypted at the broker, on the endpoint's own host where an account names another one."""
    if response.status != 200:
        raise _refused("the connection", response)
    try:
        data = msgspec.json.decode(response.body, type=_Authorized).data
    except msgspec.MsgspecError:
        raise Refused(ErrorKind.PROTOCOL, "Upstox answered with something else than a socket's address.") from None
    url = data.authorized_redirect_uri or data.older
    if not url.startswith("wss://" if endpoint == feed.endpoint else endpoint.rstrip("/")):
        raise Refused(ErrorKind.PROTOCOL, "Upstox names a socket where none is expected; it is not used.")
    return url


def _access_token(response: HttpResponse) -> str:
    if response.status != 200:
        raise _refused_login(response)
    token = tokens.answered(SPEC, response, _LoggedIn).access_token
    if not token:
        raise Refused(ErrorKind.PROTOCOL, "Upstox answered the login without a token.")
    return token


def _refused_login(response: HttpResponse) -> Refused:
    """A refusal with a code that says nothing else is the credentials' or the code's fault, unlike one of a stream."""
    kind, words = codec.refusal(response.status, response.body)
    is_said = response.status < 500 and kind is ErrorKind.PROTOCOL and words != f"HTTP {response.status}"
    return tokens.refused(SPEC, response, words, ErrorKind.AUTH if is_said else kind)


def _refused(what: str, response: HttpResponse) -> Refused:
    kind, text = codec.refusal(response.status, response.body)
    return Refused(kind, f"Upstox refused {what}: {text}.")


ADAPTER = Upstox()
