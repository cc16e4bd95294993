"""
The native client protocol: flat JSON messages, ISO 8601 instants with +05:30, one object per text frame. Pure.

Requests are checked against the Structs below, which are therefore also the protocol's definition. Unknown fields are
passed over, wrong types are refused with the path of the field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import ClassVar, TypeVar

import msgspec

from marketdata.dialects.base import (
    NOBODY,
    About,
    Authenticate,
    BadCommandError,
    Command,
    Dialect,
    GetSubscriptions,
    Held,
    Item,
    Ping,
    Rejected,
    RequestId,
    Subscribe,
    Subscribed,
    Unsubscribe,
    flags,
)
from marketdata.errors import BAD_JSON, BAD_MESSAGE, BAD_MODE, UNKNOWN_ACTION, ClientError, with_detail
from marketdata.ticks import BOOKS, AccountStatus, Depth, FeedState, Key, KeyStatus, Mode
from marketdata.wire import Delivery

IST = timezone(timedelta(hours=5, minutes=30))
MINIMUM_THROTTLE_MS = 50
DEPTH_LEVELS = tuple(mode.depth_levels for mode in BOOKS)

_encoder = msgspec.json.Encoder()
Decoded = TypeVar("Decoded")


# ------------------------------------------------------------------------------------------------------------- requests


class _Request(msgspec.Struct):
    """What every request may carry."""

    action: str
    request_id: object = msgspec.UNSET


class SymbolItem(msgspec.Struct):
    """One instrument of a request."""

    symbol: str
    exchange: str
    mode: str | None = None
    depth_levels: int | None = None


class AuthenticateRequest(_Request, kw_only=True):
    """`{"action": "authenticate", "api_key": "…"}`"""

    api_key: str
    batch: bool = False
    status: bool = False


class SubscribeRequest(_Request, kw_only=True):
    """`{"action": "subscribe", "symbols": [{"symbol": "SBIN", "exchange": "NSE"}], "mode": "LTP"}`"""

    symbols: list[SymbolItem]
    mode: str | None = None
    depth_levels: int | None = None
    throttle_ms: int | None = None


class UnsubscribeRequest(_Request, kw_only=True):
    """As subscribe; without a mode every mode of the symbol ends."""

    symbols: list[SymbolItem]
    mode: str | None = None
    depth_levels: int | None = None


_head = msgspec.json.Decoder(_Request)
_authenticate = msgspec.json.Decoder(AuthenticateRequest)
_subscribe = msgspec.json.Decoder(SubscribeRequest)
_unsubscribe = msgspec.json.Decoder(UnsubscribeRequest)


# -------------------------------------------------------------------------------------------------------------- answers


class TickMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A tick in any mode; fields without a value are left out."""

    symbol: str
    exchange: str
    mode: str
    ltp: float
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
    last_trade_time: str | None = None
    timestamp: str
    received_ms: int
    seq: int
    conflated: int = 0
    snapshot: bool = False
    stale: bool = False
    broker: str
    simulated: bool = False


class Native(Dialect):
    """The PRD's messages and what goes beyond them."""

    name: ClassVar[str] = "native"

    def parse(self, text: str) -> Command:
        """
        The command in a message.

        >>> NATIVE.parse('{"action": "subscribe", "symbols": [{"symbol": "sbin", "exchange": "nse"}]}').items
        (Item(symbol='SBIN', exchange='NSE', mode=<Mode.LTP: 1>, spelling=''),)
        """
        request = self._decode(_head, text, msgspec.UNSET)
        parse = _PARSERS.get(request.action)
        if parse is None:
            actions = ", ".join(_PARSERS)
            detail = f"It said {_shown(request.action)}; use {actions}."
            raise BadCommandError(with_detail(UNKNOWN_ACTION, detail), request.request_id)
        return parse(self, text, request.request_id)

    def _parse_authenticate(self, text: str, request_id: RequestId) -> Command:
        request = self._decode(_authenticate, text, request_id)
        return Authenticate(request.api_key, request.batch, request.status, request_id)

    def _parse_subscribe(self, text: str, request_id: RequestId, *, replace: bool = False) -> Command:
        request = self._decode(_subscribe, text, request_id)
        mode = _mode(request.mode or "LTP", request.depth_levels, request_id)
        items, rejected = [], []
        for symbol in request.symbols:
            try:
                own = symbol.mode is not None or symbol.depth_levels is not None
                levels = symbol.depth_levels if own else request.depth_levels
                item_mode = _mode(symbol.mode or request.mode or "LTP", levels, request_id) if own else mode
            except BadCommandError as bad:
                rejected.append(Rejected(symbol.symbol, symbol.exchange, bad.error))
            else:
                items.append(_item(symbol, item_mode))
        throttle_ms = _throttle(request.throttle_ms, request_id)
        depth_asked = request.depth_levels is not None or any(symbol.depth_levels for symbol in request.symbols)
        return Subscribe(tuple(items), tuple(rejected), throttle_ms, depth_asked, replace, request_id)

    def _parse_set_subscriptions(self, text: str, request_id: RequestId) -> Command:
        return self._parse_subscribe(text, request_id, replace=True)

    def _parse_unsubscribe(self, text: str, request_id: RequestId) -> Command:
        request = self._decode(_unsubscribe, text, request_id)
        items = []
        for symbol in request.symbols:
            name = symbol.mode or request.mode
            levels = symbol.depth_levels or request.depth_levels
            items.append(_item(symbol, _mode(name, levels, request_id) if name else None))
        return Unsubscribe(tuple(items), request_id)

    def _parse_unsubscribe_all(self, text: str, request_id: RequestId) -> Command:
        return Unsubscribe(None, request_id)

    def _parse_get_subscriptions(self, text: str, request_id: RequestId) -> Command:
        return GetSubscriptions(request_id)

    def _parse_ping(self, text: str, request_id: RequestId) -> Command:
        return Ping(request_id)

    def tick(self, delivery: Delivery) -> bytes:
        """
        >>> from marketdata.ticks import Tick
        >>> tick = Tick(symbol="SBIN", exchange="NSE", mode=Mode.LTP, broker="zerodha", ltp=625.5, seq=7,
        ...             received_ms=1705294800123, exchange_ms=1705294800000)
        >>> print(NATIVE.tick(Delivery(tick, 0, False, False, 0)).decode())
        {"symbol":"SBIN","exchange":"NSE","mode":"LTP","ltp":625.5,"timestamp":"2024-01-15T10:30:00+05:30","received_ms":1705294800123,"seq":7,"broker":"zerodha"}
        """
        tick = delivery.tick
        return _encoder.encode(
            TickMessage(
                symbol=tick.symbol,
                exchange=tick.exchange,
                mode=_MODE_NAMES[tick.mode],
                ltp=tick.ltp,
                ltq=tick.ltq,
                open=tick.open,
                high=tick.high,
                low=tick.low,
                close=tick.close,
                volume=tick.volume,
                average_price=tick.average_price,
                oi=tick.oi,
                total_buy_quantity=tick.total_buy_quantity,
                total_sell_quantity=tick.total_sell_quantity,
                upper_circuit=tick.upper_circuit,
                lower_circuit=tick.lower_circuit,
                depth=tick.depth,
                last_trade_time=iso_of(tick.last_trade_ms) if tick.last_trade_ms else None,
                timestamp=iso_of(tick.exchange_ms or tick.received_ms),
                received_ms=tick.received_ms,
                seq=tick.seq,
                conflated=delivery.conflated,
                snapshot=delivery.snapshot,
                stale=delivery.stale,
                broker=tick.broker,
                simulated=tick.simulated,
            )
        )

    def authenticated(self, command: Authenticate, *, simulated: bool, about: About = NOBODY) -> bytes:
        """`{"status": "authenticated", "message": "Connected"}`"""
        return self._answer("authenticated", command.request_id, message="Connected", **flags(simulated=simulated))

    def subscribed(self, outcome: Subscribed) -> bytes:
        """`{"status": "subscribed", "count": 2}`, with what was refused and what was granted where it was asked for."""
        command, fields = outcome.command, dict[str, object](count=len(outcome.granted))
        if outcome.rejected:
            fields["rejected"] = [_rejected(item) for item in outcome.rejected]
        if command.throttle_ms is not None:
            fields["throttle_ms"] = outcome.throttle_ms
        if command.depth_asked:
            fields["granted"] = [_granted(key) for key in outcome.granted]
        return self._answer("subscribed", command.request_id, **fields, **flags(simulated=outcome.simulated))

    def unsubscribed(
        self, command: Unsubscribe, count: int, *, ended: Sequence[Key] = (), about: About = NOBODY
    ) -> bytes:
        """`{"status": "unsubscribed", "count": 2}`"""
        return self._answer("unsubscribed", command.request_id, count=count)

    def subscriptions(self, command: GetSubscriptions, held: Sequence[Held]) -> bytes:
        """`{"status": "subscriptions", "count": 1, "subscriptions": [{"symbol": …, "exchange": …, "mode": …}]}`"""
        rows = [_held(row) for row in held]
        return self._answer("subscriptions", command.request_id, count=len(rows), subscriptions=rows)

    def pong(self, command: Ping, now_ms: int) -> bytes:
        """`{"status": "pong", "timestamp": "…", "server_ms": …}`"""
        return self._answer("pong", command.request_id, timestamp=iso_of(now_ms), server_ms=now_ms)

    def error(self, error: ClientError, request_id: RequestId) -> bytes:
        """`{"status": "error", "code": 4003, "name": "unknown_action", "message": "…"}`"""
        fields = {"code": error.code, "name": error.name, "message": error.message, **flags(retry=error.retry)}
        return self._answer("error", request_id, **fields)

    def lagging(self, merged: int, pauses: int) -> bytes:
        """`{"status": "lagging", "merged": 120, "pauses": 1, "message": "…"}`"""
        message = "This connection reads too slowly: older ticks were replaced by the newest of each symbol."
        return self._answer("lagging", msgspec.UNSET, merged=merged, pauses=pauses, message=message)

    def account_status(self, status: AccountStatus) -> bytes:
        """`{"status": "feed", "state": "connected", "broker": "zerodha", "account": "main", "token": "valid", …}`"""
        fields: dict[str, object] = {
            "state": status.state,
            "broker": status.broker,
            "account": status.account,
            "message": status.message,
        }
        if status.token is not None:
            fields["token"] = status.token
        if status.token_ends_ms is not None:
            fields["token_ends"] = iso_of(status.token_ends_ms)
        stamp = iso_of(status.since_ms)
        return self._answer("feed", msgspec.UNSET, **fields, timestamp=stamp, **flags(simulated=status.simulated))

    def key_status(self, status: KeyStatus) -> bytes:
        """`{"status": "feed", "state": "expired_instrument", "symbol": "…", "exchange": "…", …}`"""
        fields = {"state": status.state, "symbol": status.symbol, "exchange": status.exchange}
        stamp = iso_of(status.since_ms)
        return self._answer("feed", msgspec.UNSET, **fields, message=status.message, timestamp=stamp)

    def interrupted(self, keys: int, message: str, now_ms: int) -> bytes:
        """`{"status": "feed", "state": "interrupted", "keys": 12, …}`"""
        fields = {"state": FeedState.INTERRUPTED, "keys": keys, "message": message}
        return self._answer("feed", msgspec.UNSET, **fields, timestamp=iso_of(now_ms))

    @staticmethod
    def _decode(decoder: msgspec.json.Decoder[Decoded], text: str, request_id: RequestId) -> Decoded:
        try:
            return decoder.decode(text)
        except msgspec.ValidationError as error:
            raise BadCommandError(with_detail(BAD_MESSAGE, f"{error}."), request_id) from None
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise BadCommandError(with_detail(BAD_JSON, f"{error}."), request_id) from None

    @staticmethod
    def _answer(status: str, request_id: RequestId, **fields: object) -> bytes:
        if request_id is not msgspec.UNSET:
            fields["request_id"] = request_id
        return _encoder.encode({"status": status, **fields})


NATIVE = Native()

_PARSERS: dict[str, Callable[[Native, str, RequestId], Command]] = {
    "authenticate": Native._parse_authenticate,
    "subscribe": Native._parse_subscribe,
    "unsubscribe": Native._parse_unsubscribe,
    "unsubscribe_all": Native._parse_unsubscribe_all,
    "set_subscriptions": Native._parse_set_subscriptions,
    "get_subscriptions": Native._parse_get_subscriptions,
    "ping": Native._parse_ping,
}

_MODE_NAMES = {mode: mode.name for mode in Mode}


def iso_of(instant_ms: int) -> str:
    """
    An instant as ISO 8601 in Indian time; milliseconds only when they are not 0.

    >>> iso_of(1705294800000), iso_of(1705294800007)
    ('2024-01-15T10:30:00+05:30', '2024-01-15T10:30:00.007+05:30')
    """
    seconds, milliseconds = divmod(instant_ms, 1000)
    text = _second_of(seconds)
    return f"{text}.{milliseconds:03d}+05:30" if milliseconds else f"{text}+05:30"


@lru_cache(maxsize=4096)
def _second_of(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone(IST).strftime("%Y-%m-%dT%H:%M:%S")


def _mode(name: str, levels: int | None, request_id: RequestId) -> Mode:
    mode = Mode.__members__.get(name.strip().upper())
    if mode is None:
        raise BadCommandError(with_detail(BAD_MODE, f"It said {_shown(name)}."), request_id)
    if levels is None:
        return mode
    if levels not in DEPTH_LEVELS or not mode.depth_levels:
        allowed = ", ".join(map(str, DEPTH_LEVELS))
        detail = f"depth_levels goes with mode DEPTH and is one of {allowed}; it said {levels} with {mode.name}."
        raise BadCommandError(with_detail(BAD_MODE, detail), request_id)
    return Mode(levels)


def _throttle(asked_ms: int | None, request_id: RequestId) -> int | None:
    if asked_ms is not None and not 0 <= asked_ms <= 3_600_000:
        detail = "throttle_ms is 0 (as the gateway publishes) or 50 to 3600000."
        raise BadCommandError(with_detail(BAD_MESSAGE, detail), request_id)
    return max(asked_ms, MINIMUM_THROTTLE_MS) if asked_ms else asked_ms


def _item(symbol: SymbolItem, mode: Mode | None) -> Item:
    return Item(symbol.symbol.strip().upper(), symbol.exchange.strip().upper(), mode)


def _rejected(item: Rejected) -> dict[str, object]:
    return {
        "symbol": item.symbol,
        "exchange": item.exchange,
        "code": item.error.code,
        "message": item.error.message,
    }


def _granted(key: Key) -> dict[str, object]:
    return {
        "symbol": key.symbol,
        "exchange": key.exchange,
        "mode": key.mode.name,
        "depth_levels": key.mode.depth_levels,
    }


def _held(row: Held) -> dict[str, object]:
    fields = {"symbol": row.key.symbol, "exchange": row.key.exchange, "mode": row.key.mode.name}
    return {**fields, "throttle_ms": row.throttle_ms} if row.throttle_ms else dict(fields)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
