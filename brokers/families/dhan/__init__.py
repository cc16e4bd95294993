"""
DhanHQ v2: a market feed with five levels, a socket for twenty levels and one for two hundred. Pure.

Requests are JSON texts, answers little-endian binary packets. Both Dhan brokers speak it; they differ in addresses.

Source: https://dhanhq.co/docs/v2/live-market-feed/, /full-market-depth/, /annexure/ and the official client, dhanhq
2.3.0 (MarketFeed, FullDepth).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar
from urllib.parse import urlencode

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
    PageSteps,
    Refused,
    Session,
    Spec,
    Steps,
    TokenLife,
    socket_url,
)
from brokers.families.dhan import depth, login, market, master
from brokers.families.dhan.requests import SEGMENTS
from marketdata.ticks import Mode, Segment

MASTER = "https://images.dhan.co/api-data/api-scrip-master.csv"

# 100 instruments a message is documented. So are 5000 instruments a connection and 5 connections a user; 1000 and 3 are
# the defaults here, because every other program of the same user counts against the five, and a sixth connection cuts
# the oldest. The admin's row may say more.
MARKET_LIMITS = Limits(
    instruments_per_connection=1000, connections_per_account=3, instruments_per_frame=100, frames_per_second=10.0
)
# 50 instruments a connection is documented. That the deeper sockets have an allowance of five of their own, beside the
# market feed's, is a statement of Dhan's support.
DEPTH20_LIMITS = Limits(
    instruments_per_connection=50, connections_per_account=5, instruments_per_frame=50, frames_per_second=10.0
)
# One instrument a connection is documented.
DEPTH200_LIMITS = Limits(
    instruments_per_connection=1, connections_per_account=5, instruments_per_frame=1, frames_per_second=10.0
)

# A quiet market sends WebSocket pings only, which are no frames. A dead socket is found by our own pings; this is for
# one that answers them and sends nothing more.
SILENCE_S = 300.0
PING_S = 10.0
TOKEN_S = 86400.0
"""So long a token of the real broker is good, 24 hours; it is a JWT, which says so itself."""
APP = (
    Credential(
        name="app_id",
        label="API key",
        help="From web.dhan.co, Access DhanHQ APIs, API key; needed to log in from the admin.",
        secret=False,
        required=False,
    ),
    Credential(name="app_secret", label="API secret", help="From the same page, for the same purpose.", required=False),
)
"""What the login in a browser needs beside the client ID."""
DEEP = frozenset({Segment.NSE, Segment.NFO})
"""Full Market Depth is for NSE's shares and derivatives."""

SESSIONS: dict[str, type[Session]] = {
    "market": market.MarketSession,
    "depth20": depth.Depth20Session,
    "depth200": depth.Depth200Session,
}


class Dhan(Adapter):
    """What the members share."""

    def open(self, feed: Feed, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> Steps:
        """The credentials go into the URL's query; a refusal comes as a packet (`requests.disconnected`)."""
        yield from ()  # nothing to ask over HTTP first
        name = self.spec.name
        missing = [each for each in ("client_id", "access_token") if not credentials.get(each)]
        remedy = "log in, or enter it in the admin" if self.spec.logins else "enter it in the admin"
        if missing:
            raise Refused(ErrorKind.AUTH, f"{name} needs {' and '.join(missing)}; {remedy}.")
        if self.spec.simulated and endpoint == feed.endpoint:
            raise Refused(
                ErrorKind.ENTITLEMENT,
                f"{name} has no market data of its own: start `manage.py simulate {self.spec.slug}` and enter its "
                "address as the account's endpoint",
            )
        version = {"version": "2"} if feed.kind == "market" else {}
        query = {
            **version,
            "token": credentials["access_token"].strip(),
            "clientId": credentials["client_id"].strip(),
            "authType": "2",
        }
        return Handshake(url=f"{socket_url(feed, endpoint)}?{urlencode(query)}")

    def session(self, feed: Feed) -> Session:
        """A fresh conversation."""
        return SESSIONS[feed.kind]()

    def login_url(self, credentials: Mapping[str, str], endpoint: str, state: str) -> PageSteps:
        """See `login.page`; `state` does not come back."""
        if LoginWay.REDIRECT not in self.spec.logins:
            return (yield from super().login_url(credentials, endpoint, state))
        return (yield from login.page(self.spec, credentials, endpoint))

    def exchange(
        self, credentials: Mapping[str, str], endpoint: str, callback: Mapping[str, str], now_ms: int
    ) -> LoginSteps:
        """See `login.exchange`."""
        if LoginWay.REDIRECT not in self.spec.logins:
            return (yield from super().exchange(credentials, endpoint, callback, now_ms))
        return (yield from login.exchange(self.spec, credentials, endpoint, callback))

    def renew(self, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> LoginSteps:
        """See `login.renew`."""
        if LoginWay.RENEWAL not in self.spec.logins:
            return (yield from super().renew(credentials, endpoint, now_ms))
        return (yield from login.renew(self.spec, credentials, endpoint))

    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        """See `master.parse`."""
        return master.parse(body, self.spec.name)


def adapter(
    *,
    slug: str,
    name: str,
    docs: str,
    market_url: str,
    depth20_url: str,
    depth200_url: str,
    login_help: str,
    logins: frozenset[LoginWay] = frozenset(),
    simulated: bool = False,
) -> Dhan:
    """
    A member of the family: its name and its addresses.

    `logins` are the ways to get a token beside entering one. A `simulated` one has no socket of its own at these
    addresses: its accounts need an endpoint.
    """

    class Member(Dhan):
        spec: ClassVar[Spec] = Spec(
            slug=slug,
            name=name,
            docs=docs,
            segments=frozenset(SEGMENTS.values()),
            feeds=_feeds(market_url, depth20_url, depth200_url),
            credentials=(
                Credential(name="client_id", label="Client ID", help="A number such as 1000000001.", secret=False),
                Credential(name="access_token", label="Access token", help=login_help),
                *(APP if LoginWay.REDIRECT in logins else ()),
            ),
            masters=(Master(url=MASTER),),
            token=TokenLife(lasts_s=None if simulated else TOKEN_S),
            logins=logins,
            redirect_has_state=False,
            simulated=simulated,
        )

    return Member()


def _feeds(market_url: str, depth20_url: str, depth200_url: str) -> tuple[Feed, ...]:
    return (
        Feed(
            kind="market",
            endpoint=market_url,
            modes=(Mode.LTP, Mode.QUOTE, Mode.DEPTH),
            limits=MARKET_LIMITS,
            silence_s=SILENCE_S,
            beats=False,
            ping_s=PING_S,
        ),
        *(
            Feed(
                kind=kind,
                endpoint=url,
                modes=(mode,),
                limits=limits,
                silence_s=SILENCE_S,
                beats=False,
                ping_s=PING_S,
                segments=DEEP,
                beside="market",
            )
            for kind, url, mode, limits in (
                ("depth20", depth20_url, Mode.DEPTH20, DEPTH20_LIMITS),
                ("depth200", depth200_url, Mode.DEPTH200, DEPTH200_LIMITS),
            )
        ),
    )
