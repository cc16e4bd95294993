"""
The data socket: topics of prices, indices and books over HSM. Pure.

Source: the frames of `brokers.framing.hsm`; fields, channels and codes as in the official client, fyers-apiv3 3.2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brokers.adapters.fyers import names
from brokers.contract import DecodeError, ErrorKind, Event, Frame, Notice, NoticeKind, Reply, Session, Update
from brokers.framing import hsm
from brokers.framing.hsm import ABSENT, Topic
from marketdata.ticks import Depth, Level, Mode, Token

CHANNEL = 11
"""The channel the official client uses."""
SOURCE = b"streamproject"
"""What a client calls itself; free text."""
WIDTHS = {names.SCRIP: 21, names.INDEX: 6, names.BOOK: 30}
TOO_MANY = 51001
"""The code of the message that says: more symbols than the plan allows."""

_U32 = 0xFFFFFFFF
_HEARTBEAT = Notice(kind=NoticeKind.HEARTBEAT)
_DONE = {
    hsm.SUBSCRIBE: "The subscription",
    hsm.UNSUBSCRIBE: "The end of a subscription",
    hsm.PAUSE: "The pause of a channel",
    hsm.RESUME: "The resumption of a channel",
    hsm.MODE: "The mode of full data",
}


def encode_auth(hsm_key: str) -> bytes:
    """
    The login: the key out of the access token, "production", a version, and who we are.

    >>> encode_auth("KEY").hex()
    '002001040100034b4559020001500300010104000d73747265616d70726f6a656374'
    """
    key = hsm_key.encode("ascii", "replace")
    return hsm.encode(hsm.AUTH, [(1, key), (2, b"P"), (3, b"\x01"), (4, SOURCE)])


# ------------------------------------------------------------------------------------------------------ topics' updates


def read_scrip(token: Token, topic: Topic) -> Update:
    """
    All that is known of a share's or a contract's prices.

    Prices are rupees, quantities units and unsigned whatever the wire's integers are, times UTC seconds made ms. Best
    bid and ask, and the year's high and low, have no place in an update.
    """
    (
        ltp, volume, trade_s, exchange_s, _, _, _, _, ltq, buy, sell,
        average, oi, low, high, _, _, lower, upper, open_, close,
    ) = topic.values  # fmt: skip
    divisor = topic.divisor
    return Update(
        token=token,
        ltp=None if ltp == ABSENT else ltp / divisor,
        ltq=None if ltq == ABSENT else ltq & _U32,
        open=None if open_ == ABSENT else open_ / divisor,
        high=None if high == ABSENT else high / divisor,
        low=None if low == ABSENT else low / divisor,
        close=None if close == ABSENT else close / divisor,
        volume=None if volume == ABSENT else volume & _U32,
        average_price=None if average == ABSENT else average / divisor,
        oi=None if oi == ABSENT else oi & _U32,
        total_buy_quantity=None if buy == ABSENT else buy & _U32,
        total_sell_quantity=None if sell == ABSENT else sell & _U32,
        upper_circuit=None if upper == ABSENT else upper / divisor,
        lower_circuit=None if lower == ABSENT else lower / divisor,
        exchange_ms=exchange_s * 1000 if exchange_s > 0 else None,
        last_trade_ms=trade_s * 1000 if trade_s > 0 else None,
        mode=Mode.QUOTE,
    )


def read_index(token: Token, topic: Topic) -> Update:
    """All that is known of an index. It has no book, so this is as deep as it gets: of mode DEPTH."""
    ltp, close, exchange_s, high, low, open_ = topic.values
    divisor = topic.divisor
    return Update(
        token=token,
        ltp=None if ltp == ABSENT else ltp / divisor,
        open=None if open_ == ABSENT else open_ / divisor,
        high=None if high == ABSENT else high / divisor,
        low=None if low == ABSENT else low / divisor,
        close=None if close == ABSENT else close / divisor,
        exchange_ms=exchange_s * 1000 if exchange_s > 0 else None,
        mode=Mode.DEPTH,
    )


def read_book(token: Token, topic: Topic) -> Update:
    """Five rows a side, the best first; a row of zeros is no order. No price and no time: those are the scrip's."""
    values, divisor = topic.values, topic.divisor
    if ABSENT in values:
        values = [0 if value == ABSENT else value for value in values]
    levels = tuple(
        [
            Level(price / divisor, quantity & _U32, orders & _U32)
            for price, quantity, orders in zip(values[:10], values[10:20], values[20:], strict=True)
        ]
    )
    return Update(token=token, depth=Depth(levels[:5], levels[5:]), mode=Mode.DEPTH)


_READERS: dict[str, Callable[[Token, Topic], Update]] = {
    names.SCRIP: read_scrip,
    names.INDEX: read_index,
    names.BOOK: read_book,
}


# -------------------------------------------------------------------------------------------------------------- session


class MarketSession(Session):
    """
    One data socket. Prices and the book of an instrument are two topics; both LTP and QUOTE are the whole price topic.

    The server counts the messages it sent, and wants every n-th acknowledged; n is in its answer to the login.
    """

    def __init__(self) -> None:
        self._reader = hsm.Reader(WIDTHS)
        self._tokens: dict[str, Token] = {}
        """Whose each subscribed topic is."""
        self._acknowledge_every = 0
        """So many data messages the server sends before it wants an acknowledgement; 0: it wants none."""
        self._unacknowledged = 0

    # ----------------------------------------------------------------------------------------------------------- frames

    def subscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The topics that are missing for this mode; before them, the end of books that it does not have."""
        begin, end = {}, []
        for token in tokens:
            price, book = names.topics(token)
            begin[price] = token
            if book and mode >= Mode.DEPTH:
                begin[book] = token
            elif book in self._tokens:
                end.append(book)
        begin = {topic: token for topic, token in begin.items() if topic not in self._tokens}
        self._tokens |= begin
        return self._end(end) + _frames(hsm.SUBSCRIBE, list(begin))

    def unsubscribe(self, tokens: Sequence[Token], mode: Mode) -> list[Frame]:
        """The end of all topics these tokens have."""
        return self._end([topic for token in tokens for topic in names.topics(token) if topic in self._tokens])

    def _end(self, topics: list[str]) -> list[Frame]:
        for topic in topics:
            self._tokens.pop(topic, None)
        return _frames(hsm.UNSUBSCRIBE, topics)

    def heartbeat(self) -> Frame:
        """Three bytes that keep the socket; the server does not answer."""
        return hsm.KEEP_ALIVE_FRAME

    # ----------------------------------------------------------------------------------------------------------- events

    def decode(self, frame: Frame) -> Sequence[Event]:
        """
        The events in one frame: updates of a data frame with all that is known of each topic that it touched, an
        acknowledgement where one is due, or the notice in a control frame.

        Raises DecodeError: a text, a frame cut short, or a topic of an unknown market.
        """
        if isinstance(frame, str):
            raise DecodeError("A frame of text on Fyers' binary socket.")
        if len(frame) <= hsm.KIND_AT:
            raise DecodeError(f"A frame of {len(frame)} bytes has no kind.")
        if frame[hsm.KIND_AT] == hsm.DATA:
            return self._data(frame)
        try:
            return self._control(frame)
        except hsm.Damage as damage:
            raise DecodeError(f"Fyers frame: {damage}.") from None

    def _data(self, frame: bytes) -> list[Event]:
        events: list[Event] = []
        damage, tokens = "", self._tokens
        try:
            for topic in self._reader.read(frame):
                token = tokens.get(topic.name) or names.stranger(topic.kind, topic.subject)
                if token is None:
                    damage = f"{topic.name!r} is of an unknown market"
                else:
                    events.append(_READERS[topic.kind](token, topic))
        except hsm.Damage as error:
            damage = str(error)
        if self._acknowledge_every:
            events += self._acknowledgement(frame)
        if damage:
            raise DecodeError(f"Fyers data frame of {len(frame)} bytes: {damage}.", events)
        return events

    def _acknowledgement(self, frame: bytes) -> list[Reply]:
        number = hsm.message_number(frame)
        if number is None:
            return []
        self._unacknowledged += 1
        if self._unacknowledged < self._acknowledge_every:
            return []
        self._unacknowledged = 0
        return [Reply(hsm.encode_acknowledgement(number))]

    def _control(self, frame: bytes) -> list[Event]:
        kind = frame[hsm.KIND_AT]
        if kind == hsm.KEEP_ALIVE:
            return [_HEARTBEAT]
        if kind == hsm.AUTH:
            return [self._login(hsm.read_fields(frame))]
        if kind in _DONE:
            return [_outcome(_DONE[kind], hsm.read_fields(frame).get(1, b""))]
        if kind == hsm.MESSAGE:
            return [_message(hsm.read_fields(frame))]
        return []  # The schema of fields, or a kind added later.

    def _login(self, fields: dict[int, bytes]) -> Notice:
        status = fields.get(1, b"")
        if status != hsm.ACCEPTED:
            text = f"Fyers refuses the access token for market data ({_shown(status)}); log in again."
            return Notice(kind=NoticeKind.ERROR, error=ErrorKind.AUTH, fatal=True, text=text)
        self._acknowledge_every = int.from_bytes(fields.get(2, b""), "big")
        self._unacknowledged = 0
        return Notice(kind=NoticeKind.CONFIRMED, text="Logged in.")


def _frames(kind: int, topics: Sequence[str]) -> list[Frame]:
    return [hsm.encode_topics(kind, topics, CHANNEL)] if topics else []


def _outcome(what: str, status: bytes) -> Notice:
    if status == hsm.ACCEPTED:
        return Notice(kind=NoticeKind.CONFIRMED, text=f"{what} is accepted.")
    return Notice(kind=NoticeKind.ERROR, error=ErrorKind.PROTOCOL, text=f"{what} is refused ({_shown(status)}).")


def _message(fields: dict[int, bytes]) -> Notice:
    code = int.from_bytes(fields.get(1, b""), "big", signed=True)
    text = fields.get(2, b"").decode("utf-8", "replace")
    if code == TOO_MANY:
        return Notice(kind=NoticeKind.ERROR, error=ErrorKind.LIMIT, text=text or "More symbols than the plan allows.")
    return Notice(kind=NoticeKind.MESSAGE, text=f"{text} (code {code})")


def _shown(status: bytes) -> str:
    return f"status {status.decode('ascii', 'replace')!r}"
