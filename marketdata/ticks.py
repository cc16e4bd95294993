"""The vocabulary every part speaks: segments, tokens, modes, keys, depth levels and ticks. Pure."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec


class Segment(enum.StrEnum):
    """
    The part of a market inside which a broker's token is unique.

    Most are exchange codes. INDEX is for brokers whose wire says "an index" but not of which exchange: there the
    instrument master, not the packet, tells the exchange.
    """

    NSE = "NSE"
    BSE = "BSE"
    NFO = "NFO"
    BFO = "BFO"
    CDS = "CDS"
    BCD = "BCD"
    MCX = "MCX"
    NCDEX = "NCDEX"
    NCO = "NCO"
    NSE_INDEX = "NSE_INDEX"
    BSE_INDEX = "BSE_INDEX"
    MCX_INDEX = "MCX_INDEX"
    GLOBAL_INDEX = "GLOBAL_INDEX"
    CRYPTO = "CRYPTO"
    INDEX = "INDEX"


EXCHANGES: frozenset[str] = frozenset(segment.value for segment in Segment if segment is not Segment.INDEX)
"""The exchange codes a client may name."""


class Token(NamedTuple):
    """A broker's own identity of an instrument: the number alone is not unique, the pair is."""

    segment: Segment
    number: str


class Mode(enum.IntEnum):
    """
    What a subscriber wants of an instrument; a higher value carries all that a lower one does.

    >>> Mode.DEPTH20 > Mode.QUOTE, Mode.DEPTH20.depth_levels, Mode.LTP.depth_levels
    (True, 20, 0)
    """

    LTP = 1
    QUOTE = 2
    DEPTH = 5
    DEPTH20 = 20
    DEPTH30 = 30
    DEPTH50 = 50
    DEPTH200 = 200

    @property
    def depth_levels(self) -> int:
        """Levels of the book on each side; 0 for LTP and QUOTE."""
        return self.value if self.value >= Mode.DEPTH.value else 0


BOOKS: tuple[Mode, ...] = tuple(mode for mode in Mode if mode.depth_levels)
"""The modes with a book, the smallest first."""


class Key(NamedTuple):
    """
    One stream: what a client subscribes, a group carries and a broker is asked for.

    `feed` is "" for the accounts everyone may use, else the name of a set of accounts.
    """

    symbol: str
    exchange: str
    mode: Mode
    feed: str = ""


class Level(msgspec.Struct, frozen=True, gc=False):
    """One row of the book: rupees, units, number of orders (0 where the broker does not tell)."""

    price: float
    quantity: int
    orders: int


class Depth(msgspec.Struct, frozen=True):
    """The book, best price first on both sides."""

    buy: tuple[Level, ...]
    sell: tuple[Level, ...]


class Tick(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """
    One instrument's state as one mode shows it.

    Prices are rupees, quantities units, instants Unix milliseconds UTC; what is not known is None. `close` is the
    previous session's close at every hour. `seq` rises by one per key and tick and never falls, also over restarts.
    """

    symbol: str
    exchange: str
    mode: Mode
    broker: str
    ltp: float
    received_ms: int
    seq: int
    exchange_ms: int | None = None
    last_trade_ms: int | None = None
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
    simulated: bool = False


class FeedState(enum.StrEnum):
    """How an account, a key or a hop of the feed is doing; clients see these words."""

    CONNECTED = "connected"
    CONNECTING = "connecting"
    RECONNECTING = "reconnecting"
    MARKET_CLOSED = "market_closed"
    STALE = "stale"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a state, no secret
    WAITING_FOR_LOGIN = "waiting_for_login"
    NOT_ENTITLED = "not_entitled"
    NO_CAPACITY = "no_capacity"
    NO_DATA = "no_data"
    EXPIRED_INSTRUMENT = "expired_instrument"
    RENAMED = "renamed"
    DISABLED = "disabled"
    INTERRUPTED = "interrupted"

    @property
    def is_up(self) -> bool:
        """Whether prices come, or would if the market were open."""
        return self in (FeedState.CONNECTED, FeedState.MARKET_CLOSED)


class TokenState(enum.StrEnum):
    """How an account's token is doing; clients see these words."""

    VALID = "valid"
    EXPIRING = "expiring"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a state, no secret
    WAITING_FOR_LOGIN = "waiting_for_login"
    NOT_ENTITLED = "not_entitled"


class AccountStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    The state of one broker account, with a sentence for people; `since_ms` is when it became so.

    `token` is how its token is doing (None: it has none, or the account is off), `token_ends_ms` when it ends, as far
    as that is known.
    """

    broker: str
    account: str
    state: FeedState
    message: str
    since_ms: int
    feed: str = ""
    simulated: bool = False
    token: TokenState | None = None
    token_ends_ms: int | None = None


class KeyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """News of one instrument, for those who hold it: refused, no room, expired, renamed."""

    symbol: str
    exchange: str
    state: FeedState
    message: str
    since_ms: int
    feed: str = ""


class FeedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to say at one instant: all accounts, and all instruments that are not well."""

    accounts: tuple[AccountStatus, ...]
    keys: tuple[KeyStatus, ...] = ()
    received_ms: int
