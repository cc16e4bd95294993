"""
What the running processes tell of themselves, for `feed_status`, `why` and pages: the shapes, and their bytes. Pure.

The adapters' process answers on two reserved keys of the bus (see `topics`): a subscription is the question, and while
it stands the answer comes anew every second. The bridge leaves a sign of life in Redis. A payload is a version byte,
then msgpack. Instants are Unix ms of the process that tells; its own `now_ms` is beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from marketdata.ticks import FeedState, Mode, TokenState

VERSION = 1

Report = TypeVar("Report")


class ReportError(ValueError):
    """Bytes of another version, or none of ours."""


class ConnectionReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    One socket of an account: its kind and number, and what it does.

    `placed` are the instruments planned on it, at most `limit`; `told` those that the broker was told, of which
    `unheard` brought neither a word nor a price yet and `refused` a no. `heard_ms` is its latest frame, or when the
    socket was opened; None: neither was. `reconnects` counts by cause, as long as the connection is kept.
    After `silence_s` without a frame the socket counts as dead, or may. `unsaid` instruments are those of which the
    broker must still be told so that it knows what is planned. `apparent_limit` is how many instruments the broker
    seems to serve on the socket at most, though it was told more and says nothing; None: there is no sign of a limit.
    """

    kind: str
    number: int
    state: FeedState
    message: str
    is_up: bool
    since_ms: int
    placed: int
    limit: int
    told: int = 0
    unheard: int = 0
    refused: int = 0
    heard_ms: int | None = None
    reconnects: Mapping[str, int] = msgspec.field(default_factory=dict)
    decode_errors: int = 0
    silence_s: float = 30.0
    unsaid: int = 0
    apparent_limit: int | None = None

    @property
    def confirmed(self) -> int:
        """Instruments of which the broker sent a word or a price since they were subscribed."""
        return max(self.told - self.unheard - self.refused, 0)

    @property
    def difference(self) -> int:
        """Instruments that are wanted here and not confirmed by the broker."""
        return max(self.placed - self.confirmed, 0)


class AccountReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    One account: its state with a sentence, its token (None: it needs none, or is off), and its sockets.

    `placed` are the instruments on its sockets of the ordinary kind, `limit` what all of these it may open can carry;
    sockets for deeper books have their own numbers.
    """

    id: int
    broker: str
    name: str
    feed: str
    simulated: bool
    state: FeedState
    message: str
    since_ms: int
    token: TokenState | None = None
    token_sentence: str = ""
    token_ends_ms: int | None = None
    placed: int = 0
    limit: int = 0
    connections: tuple[ConnectionReport, ...] = ()


class FeedReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    The adapters' process: all accounts, and what it has done since it started.

    `wanted` instruments are those somebody subscribes or did a moment ago; `shortage` counts those that are not served,
    or not as deeply as wanted, by reason.
    """

    pid: int
    started_ms: int
    now_ms: int
    accounts: tuple[AccountReport, ...]
    wanted: int = 0
    shortage: Mapping[str, int] = msgspec.field(default_factory=dict)
    frames: int = 0
    published: int = 0
    decode_errors: int = 0
    refusals: int = 0
    reconnects: Mapping[str, int] = msgspec.field(default_factory=dict)


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """One mode in which an instrument is wanted: whether somebody subscribes it now, since when, and its latest seq."""

    mode: Mode
    demanded: bool
    since_ms: int
    seq: int


class CarrierReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    One socket that carries an instrument, and how far that got there.

    `wanted` is the mode it shall tick in here, `told` the one the broker was told (None: not yet). `unheard_s` are the
    seconds since then without a word or a price of it; None: there was one. `refused` are the broker's words.
    `neighbour_ms` is the latest price of any other instrument on the same socket, `neighbours` how many others had one
    in the last 10 seconds.
    """

    connection: ConnectionReport
    wanted: Mode
    told: Mode | None = None
    unheard_s: float | None = None
    refused: str = ""
    neighbour_ms: int | None = None
    neighbours: int = 0


class SeatReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where the plan put an instrument: the account, its socket, the broker's identity of it, and the mode it has."""

    account: int
    kind: str
    number: int
    segment: str
    token: str
    mode: Mode | None


class KeyReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the adapters' process knows of one instrument of a feed.

    `tokens` is its identity at each broker that may serve; `reason` the plan's for not serving it, or not as deeply as
    wanted ("" where it does), `shortage` the same as a sentence. `is_bridged` says that a bridge with a server behind
    it is connected. `updated_ms` is the latest packet of the instrument. `market` is the kind of phase its segment is
    in (see `MarketKind`), `is_open` whether prices come one after the other in it, `market_sentence` the same for
    people.
    """

    symbol: str
    exchange: str
    feed: str
    now_ms: int
    started_ms: int
    published: int
    streams: tuple[StreamReport, ...] = ()
    tokens: Mapping[str, str] = msgspec.field(default_factory=dict)
    is_looked_up: bool = False
    is_bridged: bool = False
    reason: str = ""
    shortage: str = ""
    seat: SeatReport | None = None
    account: AccountReport | None = None
    carriers: tuple[CarrierReport, ...] = ()
    updated_ms: int | None = None
    market: str = ""
    is_open: bool = True
    market_sentence: str = ""

    def stream(self, mode: Mode) -> StreamReport | None:
        """The stream of a mode; None: nobody wants it."""
        return next((each for each in self.streams if each.mode == mode), None)


class BridgeReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    The bridge's sign of life: messages it took from the bus, groups it sent and could not send, and ticks that newer
    ones replaced, since it started; when the latest message came, whether adapters are there, and how many topics it
    wants of them.
    """

    pid: int
    now_ms: int
    received: int = 0
    published: int = 0
    unpublished: int = 0
    conflated: int = 0
    dropped: int = 0
    heard_ms: int | None = None
    adapters_up: bool = False
    topics: int = 0


class ClientsReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    The clients' side, seen from outside. A problem is a sentence, "" where there is none.

    Without `uses_redis` the bridge is inside the one server, and neither leases nor a sign of life can be read. `hubs`
    are the server processes that hold a lease, `wanted` how many of them want an instrument in each mode; both None
    where Redis does not answer.
    """

    uses_redis: bool
    redis_problem: str = ""
    lanes_problem: str = ""
    server_problem: str = ""
    hubs: int | None = None
    wanted: Mapping[Mode, int] | None = None
    bridge: BridgeReport | None = None
    throttle_ms: int = 0


_encode = msgspec.msgpack.Encoder().encode
_feeds = msgspec.msgpack.Decoder(FeedReport)
_keys = msgspec.msgpack.Decoder(KeyReport)
_bridges = msgspec.msgpack.Decoder(BridgeReport)


def encode_report(report: FeedReport | KeyReport | BridgeReport) -> bytes:
    """
    A report as a payload.

    >>> decode_bridge(encode_report(BridgeReport(pid=7, now_ms=5, received=9))).received
    9
    """
    return bytes((VERSION,)) + _encode(report)


def decode_feed(payload: bytes) -> FeedReport:
    """Raises ReportError."""
    return _decoded(_feeds, payload)


def decode_key(payload: bytes) -> KeyReport:
    """Raises ReportError."""
    return _decoded(_keys, payload)


def decode_bridge(payload: bytes) -> BridgeReport:
    """Raises ReportError."""
    return _decoded(_bridges, payload)


def _decoded(decoder: msgspec.msgpack.Decoder[Report], payload: bytes) -> Report:
    if payload[:1] != bytes((VERSION,)):
        found = payload[0] if payload else "none"
        raise ReportError(f"Report version {found}, this program reads {VERSION}; restart all processes.")
    try:
        return decoder.decode(memoryview(payload)[1:])
    except msgspec.MsgspecError as error:
        raise ReportError(f"The payload is no report: {error}") from error
