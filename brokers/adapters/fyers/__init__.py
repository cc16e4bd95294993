"""
Fyers API v3: a binary data socket (HSM) for prices and five levels, a tick-by-tick socket (protobuf) for fifty.

Source: https://myapi.fyers.in/docsv3 and the official client, fyers-apiv3 3.2.0.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import ClassVar
from urllib.parse import urlencode

import msgspec

from brokers import tokens
from brokers.adapters.fyers import depth50, login, market, master
from brokers.contract import (
    Adapter,
    BadRow,
    Credential,
    ErrorKind,
    Feed,
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
    socket_url,
)
from brokers.framing import hsm
from marketdata.ticks import Mode, Segment

REST = "https://api-t1.fyers.in"
API = f"{REST}/api/v3"
TRY_AGAIN_LATER = 1013
FILES = "https://public.fyers.in/sym_details"
LOGIN_NEEDS = ("app_id", "app_secret", "redirect_uri")

DATA_FEED = Feed(
    kind="market",
    endpoint="wss://socket.fyers.in/hsm/v1-5/prod",
    modes=(Mode.LTP, Mode.QUOTE, Mode.DEPTH),
    # The official client lets 5000 topics onto a connection, and an instrument in DEPTH is two: 2000 are at most 4000
    # topics. How many connections there may be is in no document (others say 3). The official client puts 1500 topics
    # into a frame; 700 instruments are at most 1400.
    limits=Limits(
        instruments_per_connection=2000, connections_per_account=2, instruments_per_frame=700, frames_per_second=10.0
    ),
    # The server says nothing of its own when no price moves; whether the socket lives is what WebSocket pings tell.
    silence_s=300.0,
    beats=False,
    heartbeat_s=10.0,
)

DEPTH_FEED = Feed(
    kind="depth50",
    endpoint="wss://rtsocket-api.fyers.in/versova",
    modes=(Mode.DEPTH50,),
    # 5 symbols a connection and 3 connections for an app and user, as Fyers documents the 50-level depth.
    limits=Limits(
        instruments_per_connection=5, connections_per_account=3, instruments_per_frame=5, frames_per_second=10.0
    ),
    silence_s=35.0,  # three of the server's answers to our pings
    heartbeat_s=10.0,
    segments=frozenset({Segment.NSE, Segment.NFO}),
    beside="market",
)

SPEC = Spec(
    slug="fyers",
    name="Fyers",
    docs="https://myapi.fyers.in/docsv3",
    segments=frozenset(
        {
            Segment.NSE,
            Segment.BSE,
            Segment.NFO,
            Segment.BFO,
            Segment.CDS,
            Segment.MCX,
            Segment.NSE_INDEX,
            Segment.BSE_INDEX,
        }
    ),
    feeds=(DATA_FEED, DEPTH_FEED),
    credentials=(
        Credential(name="app_id", label="App ID", help="As ABCD1234XX-100, from myapi.fyers.in.", secret=False),
        Credential(name="app_secret", label="App secret", help="Needed to log in from the admin.", required=False),
        Credential(
            name="redirect_uri",
            label="Redirect URL",
            help="The address registered with the app, letter by letter; needed to log in from the admin.",
            secret=False,
            required=False,
        ),
        Credential(
            name="access_token", label="Access token", help="Today's token; it ends at about 6:00 the next morning."
        ),
    ),
    masters=(
        Master(url=f"{FILES}/NSE_CM.csv", segment="NSE_CM"),
        Master(url=f"{FILES}/BSE_CM.csv", segment="BSE_CM"),
        Master(url=f"{FILES}/NSE_FO.csv", segment="NSE_FO"),
        Master(url=f"{FILES}/BSE_FO.csv", segment="BSE_FO"),
        Master(url=f"{FILES}/NSE_CD_sym_master.json", segment="NSE_CD"),
        Master(url=f"{FILES}/MCX_COM_sym_master.json", segment="MCX_COM"),
    ),
    token=TokenLife(ends_ist="06:00"),
    logins=frozenset({LoginWay.REDIRECT}),
)


class Fyers(Adapter):
    """The adapter."""

    spec: ClassVar[Spec] = SPEC

    def open(self, feed: Feed, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> Steps:
        """
        The data socket is logged into by its first frame, with a key that the access token holds; the tick-by-tick
        socket's address is asked for first, and its login is a header.
        """
        access = login.access(credentials, now_ms)
        if feed.kind == DEPTH_FEED.kind:
            url = yield from _depth_address(feed, access, endpoint)
            return Handshake(
                url=url, headers={"Authorization": access.header}, first_frames=(depth50.encode_channel(),)
            )
        if not access.hsm_key:
            raise Refused(ErrorKind.AUTH, "The access token of Fyers holds no key for market data; log in again.")
        first_frames = market.encode_auth(access.hsm_key), hsm.encode_mode(hsm.FULL, market.CHANNEL)
        return Handshake(url=socket_url(feed, endpoint), first_frames=first_frames)

    def session(self, feed: Feed) -> Session:
        """A fresh conversation."""
        return depth50.DepthSession() if feed.kind == DEPTH_FEED.kind else market.MarketSession()

    def closed(self, code: int, reason: str) -> ErrorKind:
        """1013 (try again later) is what servers of WebSockets say that are full; what Fyers says is in no document."""
        return ErrorKind.LIMIT if code == TRY_AGAIN_LATER else ErrorKind.NETWORK

    def login_url(self, credentials: Mapping[str, str], endpoint: str, state: str) -> PageSteps:
        """Fyers' login page; it redirects to the app's address with an auth_code."""
        yield from ()  # nothing to ask over HTTP first
        app_id, _, redirect_uri = tokens.needed(SPEC, credentials, *LOGIN_NEEDS)
        query = {"client_id": app_id, "redirect_uri": redirect_uri, "response_type": "code", "state": state}
        return f"{rest_base(API, DATA_FEED, endpoint)}/generate-authcode?{urlencode(query)}"

    def exchange(
        self, credentials: Mapping[str, str], endpoint: str, callback: Mapping[str, str], now_ms: int
    ) -> LoginSteps:
        """The redirect's auth_code for the day's access token."""
        app_id, secret = tokens.needed(SPEC, credentials, "app_id", "app_secret")
        code = tokens.brought(SPEC, callback, "auth_code", _error(callback))
        response = yield HttpRequest(
            method="POST",
            url=f"{rest_base(API, DATA_FEED, endpoint)}/validate-authcode",
            json={"grant_type": "authorization_code", "appIdHash": login.app_id_hash(app_id, secret), "code": code},
        )
        return {"access_token": _access_token(response)}

    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        """See `master.parse`."""
        return master.parse(body, segment)


class _Address(msgspec.Struct):
    socket_url: str = ""


class _AddressAnswer(msgspec.Struct):
    data: _Address = msgspec.field(default_factory=_Address)


def _depth_address(feed: Feed, access: login.Access, endpoint: str) -> Generator[HttpRequest, HttpResponse, str]:
    """
    Where the tick-by-tick socket is today; the usual address where the answer holds none.

    Raises Refused.
    """
    base = rest_base(REST, feed, endpoint)
    response = yield HttpRequest(method="GET", url=f"{base}/indus/home/tbtws", headers={"Authorization": access.header})
    if response.status in (401, 403):
        raise Refused(ErrorKind.AUTH, f"Fyers refuses the access token (HTTP {response.status}); log in again.")
    try:
        found = msgspec.json.decode(response.body, type=_AddressAnswer).data.socket_url
    except msgspec.MsgspecError:
        found = ""
    is_plain = found.startswith("ws://") and endpoint != feed.endpoint
    return found if found.startswith("wss://") or is_plain else socket_url(feed, endpoint)


class _TokenAnswer(msgspec.Struct):
    access_token: str = ""
    message: str | None = ""


def _error(callback: Mapping[str, str]) -> str:
    """What the redirect says went wrong; "" where nothing did."""
    said = callback.get("s", "ok")
    return "" if said == "ok" else callback.get("message") or f"s={said}"


def _access_token(response: HttpResponse) -> str:
    answer = tokens.answered(SPEC, response, _TokenAnswer)
    if not answer.access_token:
        raise tokens.refused(SPEC, response, answer.message or "")
    return answer.access_token


ADAPTER = Fyers()
