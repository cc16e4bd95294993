"""
Angel One's SmartAPI: one SmartStream socket, JSON requests out, a little-endian binary packet a frame in.

Source: https://smartapi.angelbroking.com/docs/WebSocket2 and /docs/Instruments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from brokers import tokens
from brokers.adapters.angel import codec, login, master
from brokers.adapters.angel.session import SmartStreamSession
from brokers.contract import (
    Adapter,
    BadRow,
    Credential,
    ErrorKind,
    Feed,
    Handshake,
    InstrumentRow,
    Limits,
    LoginSteps,
    LoginWay,
    Master,
    Refused,
    Session,
    Spec,
    Steps,
    TokenLife,
    rest_base,
    socket_url,
)
from brokers.totp import totp
from marketdata.ticks import Mode, Segment

HEADERS: Mapping[str, str] = {
    "jwt_token": "Authorization",
    "api_key": "x-api-key",
    "client_code": "x-client-code",
    "feed_token": "x-feed-token",
}
"""The header in which each credential goes."""

SPEC = Spec(
    slug="angel",
    name="Angel One",
    docs="https://smartapi.angelbroking.com/docs/WebSocket2",
    segments=frozenset(codec.EXCHANGE_TYPES),
    feeds=(
        Feed(
            kind="market",
            endpoint="wss://smartapisocket.angelone.in/smart-stream",
            modes=(Mode.LTP, Mode.QUOTE, Mode.DEPTH, Mode.DEPTH20),
            mode_segments={Mode.DEPTH20: frozenset({Segment.NSE})},
            # Documented: 1000 subscriptions a session, each instrument once a mode, and 3 sessions a client code; 50
            # instruments with 20 levels, which count twice because their prices are a mode of their own. Of frames no
            # limit is documented: these are ours.
            limits=Limits(
                instruments_per_connection=1000,
                connections_per_account=3,
                instruments_per_frame=500,
                frames_per_second=10.0,
                by_mode={Mode.DEPTH20: 950},
                at_most={Mode.DEPTH20: 50},
            ),
            # Documented is a heartbeat every 30 s; the official clients send theirs every 10 s, and each is answered.
            heartbeat_s=10.0,
            silence_s=25.0,
            ping_s=10.0,
        ),
    ),
    credentials=(
        Credential(name="client_code", label="Client code", help="Your user id, such as A123456.", secret=False),
        Credential(name="api_key", label="API key", help="From the app's page at smartapi.angelbroking.com."),
        Credential(name="jwt_token", label="JWT token", help="Today's jwtToken, from the answer to a login."),
        Credential(name="feed_token", label="Feed token", help="Today's feedToken, from the same answer."),
        Credential(name="pin", label="PIN", help="Needed to log in; not needed to stream.", required=False),
        Credential(
            name="totp_secret",
            label="TOTP secret",
            help="The text behind the QR code, needed to log in; not needed to stream.",
            required=False,
        ),
    ),
    masters=(Master(url="https://margincalculator.angelone.in/OpenAPI_File/files/OpenAPIScripMaster.json"),),
    # The JWT says when it ends, and the feed token lives as long; no hour is documented.
    token=TokenLife(names=("jwt_token", "feed_token")),
    logins=frozenset({LoginWay.SCRIPTED}),
    login_needs=("pin", "totp_secret"),
)


class Angel(Adapter):
    """The adapter."""

    spec: ClassVar[Spec] = SPEC

    def open(self, feed: Feed, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> Steps:
        """The credentials go into headers; HTTP 101 is the acceptance, 401 names the one that is wrong in a header."""
        yield from ()  # nothing to ask over HTTP first
        missing = [field.label for field in SPEC.credentials if field.required and not credentials.get(field.name)]
        if missing:
            raise Refused(ErrorKind.AUTH, f"Angel One needs: {', '.join(missing)}; log in, or enter it in the admin.")
        headers = {header: credentials[name] for name, header in HEADERS.items()}
        # The login of the official client stores the token with this word, others without.
        headers["Authorization"] = f"Bearer {credentials['jwt_token'].removeprefix('Bearer ')}"
        return Handshake(url=socket_url(feed, endpoint), headers=headers)

    def session(self, feed: Feed) -> Session:
        """A fresh conversation."""
        return SmartStreamSession()

    def login(self, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> LoginSteps:
        """The PIN and the one-time password of this half minute for the day's tokens."""
        client_code, api_key, pin, secret = tokens.needed(
            SPEC, credentials, "client_code", "api_key", *SPEC.login_needs
        )
        try:
            password = totp(secret, now_ms)
        except ValueError as error:
            raise Refused(ErrorKind.AUTH, f"{SPEC.name} was not asked: {error}") from None
        base = rest_base(login.REST, SPEC.feeds[0], endpoint)
        response = yield login.request(base, api_key=api_key, client_code=client_code, pin=pin, totp=password)
        return login.gained(SPEC, response)

    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        """See `master.parse`."""
        return master.parse(body)


ADAPTER = Angel()
