"""
The protocol of OpenAlgo's own clients: an envelope with a `data` object for each tick, epoch milliseconds. Pure.

Written from how those clients behave. What they read in one spelling only is sent in every spelling there is; what none
of them survives (a null price, a mode as a word in a tick, two objects in a frame, a `type` in an error) is not sent.
Requests come in many shapes, so they are read field by field and whatever else is in them is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

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
    Question,
    Rejected,
    RequestId,
    Subscribe,
    Subscribed,
    Unsubscribe,
    flags,
)
from marketdata.errors import (
    BAD_JSON,
    BAD_MESSAGE,
    BAD_MODE,
    UNKNOWN_ACTION,
    WRONG_KEY,
    ClientError,
    in_words,
    with_detail,
)
from marketdata.ticks import BOOKS, AccountStatus, Depth, Key, KeyStatus, Mode, Tick
from marketdata.wire import Delivery

LABELS = {1: "LTP", 2: "Quote", 3: "Depth"}
"""The number of a mode on this wire, and its name in acks."""

SUFFIXES = {f":{mode.depth_levels}": mode for mode in BOOKS}
"""`SBIN:50` is SBIN with a book of 50 levels; its ticks come back under that name."""

ORDERS_MESSAGE = (
    "Order updates are not provided here: this server has market data only. Subscribe them at OpenAlgo's own WebSocket."
)

_CODES = {
    "bad_json": "INVALID_JSON",
    "binary_frame": "INVALID_JSON",
    "bad_message": "INVALID_PARAMETERS",
    "bad_mode": "INVALID_MODE",
    "unknown_action": "INVALID_ACTION",
    "not_authenticated": "NOT_AUTHENTICATED",
    "wrong_key": "AUTHENTICATION_ERROR",
    "already_authenticated": "AUTHENTICATION_ERROR",
    "too_many_failures": "AUTHENTICATION_ERROR",
    "too_many_connections": "AUTHENTICATION_ERROR",
    "unknown_symbol": "SYMBOL_NOT_FOUND",
    "unknown_exchange": "SYMBOL_NOT_FOUND",
    "exchange_not_served": "SYMBOL_NOT_FOUND",
    "depth_not_served": "UNSUPPORTED_DEPTH",
    "too_many_symbols": "MAX_CAPACITY_REACHED",
    "too_many_commands": "PROCESSING_ERROR",
    "message_too_big": "PROCESSING_ERROR",
}
"""Our errors by their stable word, as OpenAlgo's clients know them; the rest is SERVER_ERROR."""

NO_KEY = in_words(WRONG_KEY, 'The API key is missing; send {"action": "authenticate", "api_key": "…"}.')
NO_SYMBOLS = in_words(
    BAD_MESSAGE, 'Name symbols: "symbols": [{"symbol": "SBIN", "exchange": "NSE"}], or "symbol" and "exchange".'
)
NO_MODE = in_words(BAD_MODE, 'There is no such mode; use 1 or "LTP", 2 or "Quote", 3 or "Depth".')
NO_OBJECT = ClientError(BAD_MESSAGE.code, "no_object", "Send one JSON object as a text frame.")

_encoder = msgspec.json.Encoder()


# ------------------------------------------------------------------------------------------------------------- requests


class _Request(msgspec.Struct):
    """Every field any of the known clients sends. What is given back is kept as the text that came."""

    action: Any = None
    type: Any = None
    api_key: Any = None
    apikey: Any = None
    symbols: Any = None
    symbol: Any = None
    exchange: Any = None
    mode: Any = None
    depth: Any = None
    depth_level: Any = None
    request_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timestamp: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    ping_id: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="_pingId", default=msgspec.UNSET)


class _Named(NamedTuple):
    """An instrument of a request with the mode that stands beside it (None: none does)."""

    symbol: str
    exchange: str
    mode: object


_requests = msgspec.json.Decoder(_Request)


# ---------------------------------------------------------------------------------------------------------------- ticks


class TickData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The `data` of a tick; a field without a value is left out, as a null in it makes clients drop the tick."""

    symbol: str
    exchange: str
    ltp: float
    open: float | None = None
    high: float | None = None
    low: float | None = None
    close: float | None = None
    change: float | None = None
    change_percent: float | None = None
    volume: int | None = None
    ltq: int | None = None
    last_trade_quantity: int | None = None
    last_quantity: int | None = None
    avg_trade_price: float | None = None
    average_price: float | None = None
    total_buy_quantity: int | None = None
    total_sell_quantity: int | None = None
    oi: int | None = None
    upper_circuit: float | None = None
    lower_circuit: float | None = None
    bid_price: float | None = None
    bid_size: int | None = None
    ask_price: float | None = None
    ask_size: int | None = None
    depth_level: int | None = None
    depth: Depth | None = None
    ltt: int | None = None
    timestamp: int


class TickMessage(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="type", tag="market_data"):
    """A tick in its envelope."""

    symbol: str
    exchange: str
    mode: int
    broker: str
    data: TickData
    simulated: bool = False


class OpenAlgo(Dialect):
    """What OpenAlgo's proxy says to its clients, without its faults."""

    name: ClassVar[str] = "openalgo"
    closes_for_restart: ClassVar[bool] = False
    """OpenAlgo's web pages come back only after an unclean end."""
    shows_stale: ClassVar[bool] = False
    one_book: ClassVar[bool] = True
    names_brokers: ClassVar[bool] = True

    def served(self, key: Key) -> Key:
        """
        >>> OPENALGO.served(Key("SBIN:50", "NSE", Mode.DEPTH50)).symbol
        'SBIN'
        """
        symbol, mode = _unsuffixed(key.symbol)
        return key if mode is None else key._replace(symbol=symbol)

    # --------------------------------------------------------------------------------------------------------- requests

    def parse(self, text: str) -> Command:
        """
        The command in a message.

        >>> OPENALGO.parse('{"action": "subscribe", "symbol": "SBIN", "exchange": "NSE", "mode": 3, "depth": 20}').items
        (Item(symbol='SBIN', exchange='NSE', mode=<Mode.DEPTH20: 20>, spelling=''),)
        """
        try:
            request = _requests.decode(text)
        except (msgspec.ValidationError, RecursionError):
            raise BadCommandError(NO_OBJECT) from None
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise BadCommandError(with_detail(BAD_JSON, f"{error}.")) from None
        verb = request.action or request.type
        parse = _PARSERS.get(verb) if isinstance(verb, str) else None
        if parse is None:
            detail = f"It said {_shown(verb)}; use {', '.join(_PARSERS)}."
            raise BadCommandError(with_detail(UNKNOWN_ACTION, detail), request.request_id)
        return parse(self, request)

    def _parse_authenticate(self, request: _Request) -> Command:
        key = request.api_key or request.apikey
        if not isinstance(key, str):
            raise BadCommandError(NO_KEY, request.request_id)
        return Authenticate(key, request_id=request.request_id)

    def _parse_subscribe(self, request: _Request) -> Command:
        named = list(_named(request))
        number = _number(2 if request.mode is None else request.mode, request.request_id)
        asked = request.depth_level if request.depth is None else request.depth
        items = [_item(one, _mode(number, asked)) for one in named]
        return Subscribe(tuple(items), depth_asked=number == 3, request_id=request.request_id)

    def _parse_unsubscribe(self, request: _Request) -> Command:
        named = list(_named(request))
        if request.mode is not None:
            _number(request.mode, request.request_id)
        items: list[Item] = []
        rejected: list[Rejected] = []
        for one in named:
            mode = request.mode if one.mode is None else one.mode
            try:
                number = None if mode is None else _number(mode, request.request_id)
            except BadCommandError as bad:
                rejected.append(Rejected(one.symbol, one.exchange, bad.error))
            else:
                items.extend(Item(one.symbol, one.exchange, held) for held in _modes_of(number))
        return Unsubscribe(tuple(items), request.request_id, tuple(rejected))

    def _parse_unsubscribe_all(self, request: _Request) -> Command:
        return Unsubscribe(None, request.request_id)

    def _parse_ping(self, request: _Request) -> Command:
        echo = {"client_timestamp": request.timestamp, "_pingId": request.ping_id}
        sent = {name: value for name, value in echo.items() if value is not msgspec.UNSET}
        return Ping(request.request_id, sent)

    def _parse_pong(self, request: _Request) -> Command:
        return Question(lambda about: None, is_open=True, request_id=request.request_id)

    def _parse_broker_info(self, request: _Request) -> Command:
        return Question(lambda about: self._broker_info(about, request.request_id), request_id=request.request_id)

    def _parse_supported_brokers(self, request: _Request) -> Command:
        return Question(
            lambda about: self._supported_brokers(about, request.request_id),
            is_open=True,
            request_id=request.request_id,
        )

    def _parse_orders(self, request: _Request) -> Command:
        kind = str(request.action or request.type)
        answer = _message(kind, request.request_id, status="success", provided=False, message=ORDERS_MESSAGE)
        return Question(lambda about: answer, request_id=request.request_id)

    # ------------------------------------------------------------------------------------------------------------ ticks

    def tick(self, delivery: Delivery) -> bytes:
        """
        >>> tick = Tick(symbol="SBIN", exchange="NSE", mode=Mode.LTP, broker="zerodha", ltp=625.5, ltq=20, seq=7,
        ...             received_ms=1705294800123)
        >>> print(OPENALGO.tick(Delivery(tick, 0, False, False, 0)).decode())
        {"type":"market_data","symbol":"SBIN","exchange":"NSE","mode":1,"broker":"zerodha","data":{"symbol":"SBIN","exchange":"NSE","ltp":625.5,"ltq":20,"timestamp":1705294800123}}
        """
        tick = delivery.tick
        return _encoder.encode(
            TickMessage(
                symbol=tick.symbol,
                exchange=tick.exchange,
                mode=_NUMBERS[tick.mode],
                broker=tick.broker,
                data=_data(tick),
                simulated=tick.simulated,
            )
        )

    # ---------------------------------------------------------------------------------------------------------- answers

    def authenticated(self, command: Authenticate, *, simulated: bool, about: About = NOBODY) -> bytes:
        """`{"type": "auth", "status": "success", "message": "…", "broker": "zerodha", "user_id": "charts", …}`"""
        message = "Authenticated. All prices are SIMULATED." if simulated else "Authenticated."
        return _message(
            "auth",
            command.request_id,
            status="success",
            message=message,
            broker=_label(about),
            user_id=about.user,
            supported_features={"ltp": True, "quote": True, "depth": True},
            **flags(simulated=simulated),
        )

    def subscribed(self, outcome: Subscribed) -> bytes:
        """`{"type": "subscribe", "status": "success", "subscriptions": […], "message": "…", "broker": "zerodha"}`"""
        label = _label(outcome.about)
        granted = [_granted(key, outcome.brokers.get(key, label)) for key in outcome.granted]
        refused = [_refused(item, label) for item in outcome.rejected]
        message = f"{len(granted)} of {len(granted) + len(refused)} subscribed."
        return _message(
            "subscribe",
            outcome.command.request_id,
            status="partial" if refused else "success",
            subscriptions=granted + refused,
            message=f"{message} All prices are SIMULATED." if outcome.simulated else message,
            broker=label,
            **flags(simulated=outcome.simulated),
        )

    def unsubscribed(
        self, command: Unsubscribe, count: int, *, ended: Sequence[Key] = (), about: About = NOBODY
    ) -> bytes:
        """`{"type": "unsubscribe", "status": "success", "message": "…", "successful": […], "failed": [], …}`"""
        label = _label(about)
        names: Iterable[Item | Key] = ended if command.items is None else command.items
        done = dict.fromkeys((one.symbol, one.exchange) for one in names)
        failed = [_refused(item, label) for item in command.rejected]
        return _message(
            "unsubscribe",
            command.request_id,
            status=("partial" if done else "error") if failed else "success",
            message=f"{count} subscription{'' if count == 1 else 's'} ended.",
            successful=[
                {"symbol": symbol, "exchange": exchange, "status": "success", "broker": label}
                for symbol, exchange in done
            ],
            failed=failed,
            broker=label,
        )

    def subscriptions(self, command: GetSubscriptions, held: Sequence[Held]) -> None:
        """No client of this protocol can ask."""

    def pong(self, command: Ping, now_ms: int) -> bytes:
        """`{"type": "pong", "status": "success", "server_timestamp": …, "client_timestamp": …, "_pingId": …}`"""
        return _message("pong", command.request_id, status="success", server_timestamp=now_ms, **command.echo)

    def error(self, error: ClientError, request_id: RequestId) -> bytes:
        """`{"status": "error", "code": "INVALID_MODE", "message": "…"}`: clients know it by its having no type."""
        fields: dict[str, object] = {"status": "error", "code": code_of(error), "message": error.message}
        if request_id is not msgspec.UNSET:
            fields["request_id"] = request_id
        return _encoder.encode(fields)

    def lagging(self, merged: int, pauses: int) -> None:
        """No client of this protocol knows such a message."""

    def account_status(self, status: AccountStatus) -> None:
        """No client of this protocol knows such a message."""

    def key_status(self, status: KeyStatus) -> None:
        """No client of this protocol knows such a message."""

    def interrupted(self, keys: int, message: str, now_ms: int) -> None:
        """No client of this protocol knows such a message."""

    def _broker_info(self, about: About, request_id: RequestId) -> bytes:
        return _message(
            "broker_info",
            request_id,
            status="success",
            broker=_label(about),
            adapter_status=_state(about),
            user_id=about.user,
        )

    def _supported_brokers(self, about: About, request_id: RequestId) -> bytes:
        brokers = about.brokers
        return _message("supported_brokers", request_id, status="success", brokers=brokers, count=len(brokers))


OPENALGO = OpenAlgo()

_PARSERS: dict[str, Callable[[OpenAlgo, _Request], Command]] = {
    "authenticate": OpenAlgo._parse_authenticate,
    "auth": OpenAlgo._parse_authenticate,
    "subscribe": OpenAlgo._parse_subscribe,
    "unsubscribe": OpenAlgo._parse_unsubscribe,
    "unsubscribe_all": OpenAlgo._parse_unsubscribe_all,
    "subscribe_orders": OpenAlgo._parse_orders,
    "unsubscribe_orders": OpenAlgo._parse_orders,
    "get_broker_info": OpenAlgo._parse_broker_info,
    "get_supported_brokers": OpenAlgo._parse_supported_brokers,
    "ping": OpenAlgo._parse_ping,
    "pong": OpenAlgo._parse_pong,
}

_NUMBERS = {mode: 3 if mode.depth_levels else mode.value for mode in Mode}


def code_of(error: ClientError) -> str:
    """
    The word by which OpenAlgo's clients know an error.

    >>> code_of(WRONG_KEY)
    'AUTHENTICATION_ERROR'
    """
    return _CODES.get(error.name, "SERVER_ERROR")


# -------------------------------------------------------------------------------------------------- parts of a request


def _named(request: _Request) -> Iterator[_Named]:
    """
    The instruments of a request: its array, or without one its own symbol. An item without a name is passed over.

    Raises BadCommandError: none is named.
    """
    if not request.symbols:
        symbol, exchange = _text(request.symbol), _text(request.exchange)
        if not (symbol and exchange):
            raise BadCommandError(NO_SYMBOLS, request.request_id)
        yield _Named(symbol, exchange, None)
        return
    items = request.symbols
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadCommandError(NO_SYMBOLS, request.request_id)
    for item in items:
        symbol, exchange = _text(item.get("symbol")), _text(item.get("exchange"))
        if symbol and exchange:
            yield _Named(symbol, exchange, item.get("mode"))


def _text(value: object) -> str:
    """A name; a bare number, as some of BSE's symbols look, is one too."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _number(mode: object, request_id: RequestId) -> int:
    """The number of a mode, by its number or by its name in any case. Raises BadCommandError."""
    if type(mode) is int and mode in LABELS:
        return mode
    number = _BY_NAME.get(mode.strip().upper()) if isinstance(mode, str) else None
    if number is None:
        raise BadCommandError(with_detail(NO_MODE, f"It said {_shown(mode)}."), request_id)
    return number


_BY_NAME = {label.upper(): number for number, label in LABELS.items()}


def _mode(number: int, levels: object) -> Mode:
    """The mode, for a book with at most so many levels as were asked for; without a sensible number it is 5."""
    if number != 3:
        return Mode(number)
    fitting = [mode for mode in BOOKS if type(levels) is int and mode.depth_levels <= levels]
    return max(fitting, default=Mode.DEPTH)


def _modes_of(number: int | None) -> tuple[Mode | None, ...]:
    """What to let go of for a mode: a book whatever its depth; for None every mode."""
    if number is None:
        return (None,)
    return BOOKS if number == 3 else (Mode(number),)


def _item(one: _Named, mode: Mode) -> Item:
    symbol, deeper = _unsuffixed(one.symbol)
    if deeper is None:
        return Item(symbol, one.exchange, mode)
    return Item(symbol, one.exchange, deeper if mode.depth_levels else mode, one.symbol)


def _unsuffixed(symbol: str) -> tuple[str, Mode | None]:
    head, _, levels = symbol.rpartition(":")
    mode = SUFFIXES.get(f":{levels}") if head else None
    return (symbol, None) if mode is None else (head, mode)


# --------------------------------------------------------------------------------------------------- parts of an answer


def _data(tick: Tick) -> TickData:
    """A quantity and an average under both of the names that clients read."""
    data = TickData(
        symbol=tick.symbol,
        exchange=tick.exchange,
        ltp=tick.ltp,
        ltt=tick.last_trade_ms,
        timestamp=tick.received_ms,
    )
    if tick.mode is Mode.LTP:
        data.ltq = tick.ltq
        return data
    data.open, data.high, data.low, data.close = tick.open, tick.high, tick.low, tick.close
    data.volume, data.oi = tick.volume, tick.oi
    data.last_trade_quantity = data.last_quantity = tick.ltq
    data.avg_trade_price = data.average_price = tick.average_price
    data.total_buy_quantity, data.total_sell_quantity = tick.total_buy_quantity, tick.total_sell_quantity
    data.upper_circuit, data.lower_circuit = tick.upper_circuit, tick.lower_circuit
    if tick.close:
        data.change = round(tick.ltp - tick.close, 4)
        data.change_percent = round((tick.ltp - tick.close) / tick.close * 100, 2)
    if tick.depth is not None:
        _put_book(data, tick.depth, tick.mode.depth_levels)
    return data


def _put_book(data: TickData, depth: Depth, levels: int) -> None:
    data.depth, data.depth_level = depth, levels
    if depth.buy:
        data.bid_price, data.bid_size = depth.buy[0].price, depth.buy[0].quantity
    if depth.sell:
        data.ask_price, data.ask_size = depth.sell[0].price, depth.sell[0].quantity


def _message(kind: str, request_id: RequestId, **fields: object) -> bytes:
    if request_id is not msgspec.UNSET:
        fields["request_id"] = request_id
    return _encoder.encode({"type": kind, **fields})


def _granted(key: Key, broker: str) -> dict[str, object]:
    return {
        "symbol": key.symbol,
        "exchange": key.exchange,
        "status": "success",
        "mode": LABELS[_NUMBERS[key.mode]],
        "depth": key.mode.depth_levels,
        "broker": broker,
    }


def _refused(item: Rejected, broker: str) -> dict[str, object]:
    return {
        "symbol": item.symbol,
        "exchange": item.exchange,
        "status": "error",
        "code": code_of(item.error),
        "message": item.error.message,
        "broker": broker,
    }


def _label(about: About) -> str:
    """One broker by its name; of several, all of them, as which one serves is told by each tick."""
    return ",".join(about.brokers)


def _state(about: About) -> str:
    if about.state is None:
        return "disconnected"
    return "connected" if about.state.is_up else about.state.value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
