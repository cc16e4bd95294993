"""
What a broker must give, and the words in which it gives it. Pure: no socket, no clock, no database.

An adapter is facts (`Spec`) and translations (`Adapter`, `Session`). Sockets, retries, limits, merging and publishing
are the same for all and live in `brokers.feed`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec

from marketdata.ticks import Depth, Mode, Segment, Token

Frame = bytes | str
"""What travels on a broker's socket: bytes are a binary frame, str is a text frame."""


# ----------------------------------------------------------------------------------------------- what a decoder returns


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one packet says of one instrument; None is "not in this packet".

    Rupees and units, divided from the wire's integers; instants are Unix ms UTC. A 0 on the wire stays 0 here: the
    merge, not the decoder, knows what a zero means. `mode` is the packet's own kind, where it tells; a packet with a
    book and no ltp, of a mode deeper than QUOTE, says nothing of prices and leaves those that are known.
    """

    token: Token
    ltp: float | None = None
    ltq: int | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    volume: int | None = None
    average_price: float | None = None
    oi: int | None = None
    total_buy_quantity: int | None = None
    total_sell_quantity: int | None = None
    upper_circuit: float | None = None
    lower_circuit: float | None = None
    depth: Depth | None = None
    exchange_ms: int | None = None
    last_trade_ms: int | None = None
    mode: Mode | None = None


class Reply(msgspec.Struct, frozen=True):
    """A frame the client owes the broker in answer to what it just decoded (an acknowledgement, a pong)."""

    frame: Frame


class NoticeKind(enum.StrEnum):
    """What a broker says that is no price."""

    HEARTBEAT = "heartbeat"
    MESSAGE = "message"
    CONFIRMED = "confirmed"
    MARKET_STATUS = "market_status"
    ERROR = "error"


class MarketKind(enum.StrEnum):
    """What a market is doing. A session is of any kind but CLOSED and UNKNOWN."""

    CLOSED = "closed"
    UNKNOWN = "unknown"
    PRE_OPEN = "pre_open"
    CONTINUOUS = "continuous"
    CLOSING_AUCTION = "closing_auction"
    POST_CLOSE = "post_close"
    EVENING = "evening"
    MUHURAT = "muhurat"
    SPECIAL = "special"


class ErrorKind(enum.StrEnum):
    """Why a broker refuses or a connection ends; each has its own policy in the reconnect loop."""

    AUTH = "auth"
    ENTITLEMENT = "entitlement"
    LIMIT = "limit"
    NETWORK = "network"
    PROTOCOL = "protocol"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """
    A broker's word beside the prices: a heartbeat, a text, a refusal.

    `error` is set for NoticeKind.ERROR only; `fatal` says that the connection is of no more use. `tokens` are those
    concerned, empty for the whole connection. `markets` is what a NoticeKind.MARKET_STATUS says of whole segments.
    """

    kind: NoticeKind
    text: str = ""
    error: ErrorKind | None = None
    fatal: bool = False
    tokens: tuple[Token, ...] = ()
    markets: Mapping[Segment, MarketKind] = msgspec.field(default_factory=dict)


Event = Update | Reply | Notice


class DecodeError(Exception):
    """
    A frame that is not what the broker documents; the only exception a decoder raises.

    `events` are those decoded before the damage; they count.
    """

    def __init__(self, message: str, events: Sequence[Event] = ()) -> None:
        super().__init__(message)
        self.events = tuple(events)


# --------------------------------------------------------------------------------------------------------------- limits


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much one kind of socket carries, with its source in the Spec's docs.

    `by_mode` overrides `instruments_per_connection` where a broker's limit depends on the mode: the whole connection
    then keeps to the smallest limit of the modes in use. `at_most` is how many of the connection's instruments may be
    in a mode, whatever the others are in.
    """

    instruments_per_connection: int = 1000
    connections_per_account: int = 3
    instruments_per_frame: int = 100
    frames_per_second: float = 10.0
    by_mode: Mapping[Mode, int] = msgspec.field(default_factory=dict)
    at_most: Mapping[Mode, int] = msgspec.field(default_factory=dict)

    def room(self, mode: Mode) -> int:
        """Instruments one connection may hold in this mode."""
        return self.by_mode.get(mode, self.instruments_per_connection)


# ----------------------------------------------------------------------------------------------------------------- spec


class Transport(enum.StrEnum):
    """How a feed's bytes travel."""

    WEBSOCKET = "websocket"
    MQTT = "mqtt"
    NATS = "nats"


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """
    One kind of socket a broker offers, for instance a market feed and a deeper-book feed beside it.

    `heartbeat_s` is how often the client must send `Session.heartbeat()` (None: never); `silence_s` without any
    frame means the socket is dead; `beats` says that the server sends frames also when no price moves: where it does
    not, silence means something only in an open market. `ping_s` is how often a WebSocket ping is due (None: never).
    `segments` are those it
    carries (empty: all of the Spec's), `mode_segments` those of a mode that exists only for some. `beside` is for a
    socket that shows books without prices: the kind of the socket on which an instrument must tick as well, in mode
    QUOTE or the highest that one has below the book's.
    """

    kind: str
    endpoint: str
    modes: tuple[Mode, ...]
    limits: Limits
    silence_s: float
    beats: bool = True
    transport: Transport = Transport.WEBSOCKET
    heartbeat_s: float | None = None
    ping_s: float | None = 10.0
    segments: frozenset[Segment] = frozenset()
    mode_segments: Mapping[Mode, frozenset[Segment]] = msgspec.field(default_factory=dict)
    beside: str = ""

    def modes_for(self, segment: Segment) -> tuple[Mode, ...]:
        """
        The modes in which an instrument of a segment can tick on this socket.

        >>> feed = Feed(kind="m", endpoint="wss://x", modes=(Mode.LTP, Mode.DEPTH20), limits=Limits(), silence_s=10,
        ...             mode_segments={Mode.DEPTH20: frozenset({Segment.NSE})})
        >>> [len(feed.modes_for(segment)) for segment in (Segment.NSE, Segment.NFO)]
        [2, 1]
        """
        if self.segments and segment not in self.segments:
            return ()
        return tuple(mode for mode in self.modes if segment in self.mode_segments.get(mode, (segment,)))


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a broker needs of its user; a secret one is never shown again once stored."""

    name: str
    label: str
    help: str = ""
    secret: bool = True
    required: bool = True


class LoginWay(enum.StrEnum):
    """How an account gets its token."""

    REDIRECT = "redirect"
    """A person logs in on the broker's page: `Adapter.login_url`, then `Adapter.exchange`."""
    SCRIPTED = "scripted"
    """Without a person: `Adapter.login`."""
    RENEWAL = "renewal"
    """While the token is good, it is changed for one that is good for longer: `Adapter.renew`."""


class TokenLife(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the day's token is, and how long it is good; see `brokers.tokens`.

    `names` are the credentials a login makes; the first says in itself when it ends, if it is a JWT. Otherwise it ends
    at `ends_ist` (HH:MM in India) or `lasts_s` after it was got, whichever is given.
    """

    names: tuple[str, ...] = ("access_token",)
    ends_ist: str = ""
    lasts_s: float | None = None


class Evidence(enum.StrEnum):
    """How well an adapter is proved."""

    DOCUMENTED = "documented"
    CAPTURED = "captured"
    LIVE = "live"


class Master(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where an instrument master comes from.

    `segment` names the file to `parse_instruments` ("" where one file has all); `needs_login` where the download
    wants the account's token; `published_ist` is the time of day (HH:MM) from which the day's file is there.
    """

    url: str
    segment: str = ""
    needs_login: bool = False
    published_ist: str = "08:30"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """
    The facts of a broker. What a user chooses is in the database, what is happening is in the process.

    `token` is None for brokers whose credentials do not change from day to day. `logins` are the ways there are to get
    one, `login_needs` the credentials that a scripted one needs beside the required ones; `redirect_has_state` says
    that the broker's redirect brings back the `state` its login page was given.
    """

    slug: str
    name: str
    docs: str
    segments: frozenset[Segment]
    feeds: tuple[Feed, ...]
    credentials: tuple[Credential, ...]
    masters: tuple[Master, ...] = ()
    token: TokenLife | None = None
    logins: frozenset[LoginWay] = frozenset()
    login_needs: tuple[str, ...] = ()
    redirect_has_state: bool = True
    evidence: Evidence = Evidence.DOCUMENTED
    simulated: bool = False

    def feed(self, kind: str) -> Feed:
        """
        The feed of a kind.

        Raises KeyError: no such kind.
        """
        for feed in self.feeds:
            if feed.kind == kind:
                return feed
        raise KeyError(f"{self.slug} has no {kind!r} feed; it has {', '.join(feed.kind for feed in self.feeds)}.")


# ---------------------------------------------------------------------------------------------- before the socket opens


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP call an adapter asks its caller to make; `form` and `json` exclude each other."""

    method: str
    url: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    form: Mapping[str, str] | None = None
    json: object | None = None


class HttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Handshake(msgspec.Struct, frozen=True, kw_only=True):
    """How to open the socket, and the frames to send first. Its URL and headers hold secrets: never log them."""

    url: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    subprotocols: tuple[str, ...] = ()
    first_frames: tuple[Frame, ...] = ()


class Refused(Exception):
    """A broker's no, with its kind; raised by `open` and `login` generators. The text is fit for the user's eyes."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def rest_base(official: str, feed: Feed, endpoint: str) -> str:
    """
    Where an adapter makes its HTTP calls: the broker's address, or the place the account's endpoint names instead.

    >>> limits = Limits()
    >>> feed = Feed(kind="market", endpoint="wss://x.example", modes=(Mode.LTP,), limits=limits, silence_s=10)
    >>> rest_base("https://api.x.example/v3", feed, "wss://x.example")
    'https://api.x.example/v3'
    >>> rest_base("https://api.x.example/v3", feed, "ws://127.0.0.1:9001")
    'http://127.0.0.1:9001/v3'
    """
    if endpoint == feed.endpoint:
        return official
    own, theirs = urlsplit(official), urlsplit(endpoint)
    scheme = "https" if theirs.scheme in ("wss", "https") else "http"
    return f"{scheme}://{theirs.netloc}{own.path}"


def socket_url(feed: Feed, endpoint: str) -> str:
    """
    Where an adapter opens its socket: the feed's own address; with an endpoint that names another host, there under
    the same path, so that one simulator serves all kinds of socket.

    >>> feed = Feed(kind="m", endpoint="wss://x.example/a/b", modes=(Mode.LTP,), limits=Limits(), silence_s=10)
    >>> socket_url(feed, feed.endpoint), socket_url(feed, "ws://127.0.0.1:9001")
    ('wss://x.example/a/b', 'ws://127.0.0.1:9001/a/b')
    """
    if endpoint == feed.endpoint:
        return endpoint
    theirs = urlsplit(endpoint)
    path = theirs.path if theirs.path not in ("", "/") else urlsplit(feed.endpoint).path or "/"
    return f"{theirs.scheme}://{theirs.netloc}{path}"


Steps = Generator[HttpRequest, HttpResponse, Handshake]
PageSteps = Generator[HttpRequest, HttpResponse, str]
LoginSteps = Generator[HttpRequest, HttpResponse, Mapping[str, str]]


# ---------------------------------------------------------------------------------------------------------- instruments


class InstrumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """
    One row of a broker's master in canonical words.

    `symbol` follows the common grammar; `broker_symbol` and `broker_exchange` are the broker's own; `kind` is EQ, FUT,
    CE, PE or INDEX; `expiry` is an ISO date or ""; `strike` is rupees or None.
    """

    segment: Segment
    token: str
    symbol: str
    exchange: str
    broker_symbol: str
    broker_exchange: str
    name: str = ""
    kind: str = "EQ"
    expiry: str = ""
    strike: float | None = None
    lot_size: int = 1
    tick_size: float = 0.05


class BadRow(msgspec.Struct, frozen=True):
    """A row of a master that cannot be used, and why; `line` counts from 1."""

    line: int
    reason: str


class MasterError(Exception):
    """A file that is not this broker's master at all; says what was expected and what was found."""


# -------------------------------------------------------------------------------------------------------------- adapter


class Session(ABC):
    """
    One connection's conversation: frames out for what is wanted, events out of frames that came.

    It lives as long as the socket. What a broker's protocol remembers between frames (ids it assigned, the whole set
    it wants each time) is kept here and dies with the connection. The caller has cut tokens to the frame limit.
    """

    @abstractmethod
    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The frames that make these tokens tick in this mode, also those that tick in another one now."""

    @abstractmethod
    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The frames that silence these tokens, subscribed in `mode` until now."""

    @abstractmethod
    def decode(self, frame: Frame) -> Sequence[Event]:
        """
        The events in one frame, in order.

        Raises DecodeError and nothing else, whatever the bytes.
        """

    def heartbeat(self) -> Frame | None:
        """The frame the client owes every `Feed.heartbeat_s`; None where none is due."""
        return None


class Adapter(ABC):
    """A broker: its facts, how to open it, a session per connection, and its instrument master."""

    spec: ClassVar[Spec]

    @abstractmethod
    def open(self, feed: Feed, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> Steps:
        """
        Opens one socket of a feed: yields HTTP requests, is sent their responses, returns the handshake.

        `endpoint` is the feed's own unless the account overrides it. Raises Refused, before or between requests.
        """

    @abstractmethod
    def session(self, feed: Feed) -> Session:
        """A fresh conversation for one connection."""

    def refusal(self, status: int, body: bytes) -> ErrorKind:
        """Why the HTTP upgrade failed with this status; brokers that say it otherwise override this."""
        if status in (401, 403):
            return ErrorKind.AUTH
        return ErrorKind.LIMIT if status == 429 else ErrorKind.NETWORK

    def closed(self, code: int, reason: str) -> ErrorKind:
        """Why the broker closed the socket; brokers whose close codes speak override this."""
        return ErrorKind.NETWORK

    def login_url(self, credentials: Mapping[str, str], endpoint: str, state: str) -> PageSteps:
        """
        The address of the page where a person logs in; some brokers want a request before there is one.

        `endpoint` is as for `open`: where it names another host, login pages and calls are there too (`rest_base`).
        `state` comes back with the redirect, where `Spec.redirect_has_state`. Raises Refused: something is missing.
        """
        yield from ()  # a generator, as every override is
        raise Refused(ErrorKind.AUTH, f"{self.spec.name} has no login in a browser.")

    def exchange(
        self, credentials: Mapping[str, str], endpoint: str, callback: Mapping[str, str], now_ms: int
    ) -> LoginSteps:
        """
        Turns the redirect's query parameters into credentials to store.

        Raises Refused.
        """
        yield from ()
        raise Refused(ErrorKind.AUTH, f"{self.spec.name} has no login in a browser.")

    def login(self, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> LoginSteps:
        """
        Logs in without a person, and returns credentials to store.

        Raises Refused: brokers lock accounts after a few wrong logins, so the same is never tried twice.
        """
        yield from ()
        raise Refused(ErrorKind.AUTH, f"{self.spec.name} has no login without a person.")

    def renew(self, credentials: Mapping[str, str], endpoint: str, now_ms: int) -> LoginSteps:
        """
        Changes a token that is still good for one that is good for longer, and returns credentials to store.

        Raises Refused.
        """
        yield from ()
        raise Refused(ErrorKind.AUTH, f"{self.spec.name} renews no token.")

    @abstractmethod
    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        """
        The rows of a master file, unpacked; `segment` is that of its `Master`. See `brokers.masters` for CSV and JSON.

        Raises MasterError: the file is not this broker's.
        """

    def master_request(self, master: Master, credentials: Mapping[str, str]) -> HttpRequest:
        """The request that downloads a master; brokers that want headers override this."""
        return HttpRequest(method="GET", url=master.url)
