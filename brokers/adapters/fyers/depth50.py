"""
The tick-by-tick socket: books of 50 levels, JSON texts out, protobuf in. Pure.

Source: schema and rules as in the official client, fyers-apiv3 3.2.0 (`tbt_ws`, `msg_pb2`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError as ProtobufError

from brokers.adapters.fyers import names
from brokers.contract import DecodeError, ErrorKind, Event, Frame, Notice, NoticeKind, Session, Update
from brokers.schemas.fyers_tbt_pb2 import MarketFeed, MarketLevel, SocketMessage
from marketdata.ticks import Depth, Level, Mode, Token

LEVELS = 50
CHANNEL = "1"
"""One of fifty; what its instruments do is sent only after it was resumed."""

_NO_ORDER = Level(0.0, 0, 0)
_HEARTBEAT = Notice(kind=NoticeKind.HEARTBEAT)


def encode_channel() -> str:
    """
    >>> encode_channel()
    '{"type":2,"data":{"resumeChannels":["1"],"pauseChannels":[]}}'
    """
    return _encode({"type": 2, "data": {"resumeChannels": [CHANNEL], "pauseChannels": []}})


def encode_subscription(tickers: Sequence[str], *, begin: bool) -> str:
    """
    >>> encode_subscription(["NSE:SBIN-EQ"], begin=True)
    '{"type":1,"data":{"subs":1,"symbols":["NSE:SBIN-EQ"],"mode":"depth","channel":"1"}}'
    """
    data = {"subs": 1 if begin else -1, "symbols": list(tickers), "mode": "depth", "channel": CHANNEL}
    return _encode({"type": 1, "data": data})


def _encode(message: object) -> str:
    return json.dumps(message, separators=(",", ":"))


def instant_ms(value: int) -> int | None:
    """
    An instant of the feed as Unix ms. It is seconds where it was seen; greater numbers can only be finer units.

    >>> instant_ms(1751955600), instant_ms(1751955600123), instant_ms(1751955600123456), instant_ms(0)
    (1751955600000, 1751955600123, 1751955600123, None)
    """
    if value > 10**17:
        return value // 10**6
    if value > 10**14:
        return value // 1000
    return value if value > 10**11 else value * 1000 or None


class Book:
    """One instrument's book, put together from messages that say only what changed."""

    def __init__(self) -> None:
        self.buy = [_NO_ORDER] * LEVELS
        self.sell = [_NO_ORDER] * LEVELS
        self.total_buy: int | None = None
        self.total_sell: int | None = None

    def merge(self, feed: MarketFeed) -> None:
        """Takes over the levels that the message has, each at its own place, and the totals."""
        depth = feed.depth
        _merge(self.buy, depth.bids)
        _merge(self.sell, depth.asks)
        if depth.HasField("tbq"):
            self.total_buy = depth.tbq.value
        if depth.HasField("tsq"):
            self.total_sell = depth.tsq.value


def _merge(side: list[Level], levels: Iterable[MarketLevel]) -> None:
    for level in levels:
        place = level.num.value
        if not level.HasField("num") or place >= LEVELS:
            continue
        old = side[place]
        side[place] = Level(
            level.price.value / 100 if level.HasField("price") else old.price,
            level.qty.value if level.HasField("qty") else old.quantity,
            level.nord.value if level.HasField("nord") else old.orders,
        )


class DepthSession(Session):
    """One tick-by-tick socket; the server sends a whole book once, then what changes in it."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        """By ticker, of all that was subscribed."""
        self._books: dict[str, Book] = {}
        """By ticker."""

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The tickers, on a channel that the handshake has resumed."""
        begun = {names.ticker(token): token for token in tokens}
        self._tokens |= begun
        return [encode_subscription(list(begun), begin=True)]

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The same tickers."""
        tickers = [names.ticker(token) for token in tokens]
        for ticker in tickers:
            self._tokens.pop(ticker, None)
            self._books.pop(ticker, None)
        return [encode_subscription(tickers, begin=False)]

    def heartbeat(self) -> Frame:
        """Answered with `pong`."""
        return "ping"

    def decode(self, frame: Frame) -> list[Event]:
        """
        The events in one frame: a book of 50 and 50 levels for each instrument in it, the best first, in the order of
        the tickers; a row of zeros is no order. Prices are rupees, from the wire's paise.

        Raises DecodeError: no such protobuf message, or an instrument of an unknown market.
        """
        if isinstance(frame, str):
            return [_HEARTBEAT if frame == "pong" else Notice(kind=NoticeKind.MESSAGE, text=frame)]
        try:
            message = SocketMessage.FromString(frame)
        except ProtobufError as error:
            raise DecodeError(f"Fyers depth frame of {len(frame)} bytes is no such message: {error}.") from None
        if message.error:
            return [_complaint(message.msg)]
        events: list[Event] = [Notice(kind=NoticeKind.MESSAGE, text=message.msg)] if message.msg else []
        damage = ""
        for key in sorted(message.feeds):
            feed = message.feeds[key]
            if not feed.HasField("depth"):
                continue
            try:
                events.append(self._update(feed, feed.ticker or key, is_whole=message.snapshot or feed.snapshot))
            except ValueError as error:
                damage = str(error)
        if damage:
            raise DecodeError(f"Fyers depth frame: {damage}.", events)
        return events

    def _update(self, feed: MarketFeed, ticker: str, *, is_whole: bool) -> Update:
        """Raises ValueError: the instrument was not subscribed here and its fytoken is of an unknown market."""
        token = self._tokens.get(ticker) or names.scrip_token(feed.token, ticker)
        book = self._books.get(ticker)
        if book is None or is_whole:
            book = self._books[ticker] = Book()
        book.merge(feed)
        return Update(
            token=token,
            depth=Depth(tuple(book.buy), tuple(book.sell)),
            total_buy_quantity=book.total_buy,
            total_sell_quantity=book.total_sell,
            exchange_ms=instant_ms(feed.feed_time.value),
            mode=Mode.DEPTH50,
        )


def _complaint(text: str) -> Notice:
    kind = ErrorKind.LIMIT if "limit" in text.lower() else ErrorKind.PROTOCOL
    return Notice(kind=NoticeKind.ERROR, error=kind, text=text)
