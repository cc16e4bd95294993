"""
Each instrument's state, into which partial updates merge; and the ticks that show it in one mode. Pure.

What a zero means is known here and nowhere else: a price of 0 is "not known yet", a quantity of 0 is a quantity.
"""

from __future__ import annotations

from brokers.contract import Update
from marketdata.ticks import Depth, Level, Mode, Tick, Token

HELD_MS = 5_000
"""So long, at most, older prices of another source are held back."""


class State:
    """All that is known of one instrument; units and names as in `Tick`."""

    __slots__ = (
        "average_price",
        "book_mode",
        "close",
        "depth",
        "exchange_ms",
        "had_book",
        "high",
        "last_trade_ms",
        "low",
        "lower_circuit",
        "ltp",
        "ltq",
        "mode",
        "oi",
        "open",
        "received_ms",
        "token",
        "total_buy_quantity",
        "total_sell_quantity",
        "upper_circuit",
        "volume",
    )

    def __init__(self, token: Token) -> None:
        self.token = token
        self.received_ms = 0
        self.mode: Mode | None = None
        """The kind of the latest packet with prices, where the broker's packets tell."""
        self.book_mode: Mode | None = None
        """The kind of the packets that bring nothing but the book, where there are such."""
        self.ltp: float | None = None
        self.ltq: int | None = None
        self.open: float | None = None
        self.high: float | None = None
        self.low: float | None = None
        self.close: float | None = None
        self.volume: int | None = None
        self.average_price: float | None = None
        self.oi: int | None = None
        self.total_buy_quantity: int | None = None
        self.total_sell_quantity: int | None = None
        self.upper_circuit: float | None = None
        self.lower_circuit: float | None = None
        self.depth: Depth | None = None
        self.had_book = False
        """Whether there was a book that was forgotten since."""
        self.exchange_ms: int | None = None
        self.last_trade_ms: int | None = None

    def merge(self, update: Update) -> None:  # noqa: PLR0912 - a field a line, spelled out: this runs for every packet
        """
        Takes over what the update says. A price of 0 is passed over, so is what is None.

        A packet of a lower kind than the one before means that the richer fields are no longer kept up to date.
        """
        if update.mode is not self.mode and update.mode is not None:
            if update.depth is not None and update.ltp is None:
                self.book_mode = update.mode
            else:
                if self.mode is not None and update.mode < self.mode:
                    self._shrink(update.mode)
                self.mode = update.mode
        if update.ltp:
            self.ltp = update.ltp
        if update.ltq is not None:
            self.ltq = update.ltq
        if update.open:
            self.open = update.open
        if update.high:
            self.high = update.high
        if update.low:
            self.low = update.low
        if update.close:
            self.close = update.close
        if update.volume is not None:
            self.volume = update.volume
        if update.average_price:
            self.average_price = update.average_price
        if update.oi is not None:
            self.oi = update.oi
        if update.total_buy_quantity is not None:
            self.total_buy_quantity = update.total_buy_quantity
        if update.total_sell_quantity is not None:
            self.total_sell_quantity = update.total_sell_quantity
        if update.upper_circuit:
            self.upper_circuit = update.upper_circuit
        if update.lower_circuit:
            self.lower_circuit = update.lower_circuit
        if update.depth is not None:
            self.depth = Depth(_orders(update.depth.buy), _orders(update.depth.sell))
        if update.exchange_ms is not None:
            self.exchange_ms = update.exchange_ms
        if update.last_trade_ms is not None:
            self.last_trade_ms = update.last_trade_ms

    def _shrink(self, mode: Mode) -> None:
        """Forgets what packets of this kind do not carry; the previous session's close does not change all day."""
        self.oi = self.exchange_ms = self.last_trade_ms = None
        if self.book_mode is None:
            self.depth = None
        if mode < Mode.QUOTE:
            self.ltq = self.open = self.high = self.low = self.volume = self.average_price = None
            self.total_buy_quantity = self.total_sell_quantity = None

    def shows(self, mode: Mode) -> bool:
        """Whether the latest packets had all that this mode promises."""
        if self.book_mode is not None and mode >= Mode.DEPTH:
            return self.book_mode >= mode
        return self.mode is None or self.mode >= mode

    def forget_book(self) -> None:
        """Nothing keeps the book up to date any more."""
        self.had_book = self.had_book or self.depth is not None
        self.depth = self.book_mode = None


class Guard:
    """
    Keeps a stream from stepping back in time when its ticks come from another source than before.

    Held back is what is older than the last tick that was sent, by the exchange's clock (by the last trade's, where
    that is all there is), or has a lower volume of the day; and for a stream of books what has none, where there was
    one. The first that is not ends it, and so does time: the clock of a broker may be wrong.
    """

    __slots__ = ("_has_book", "_held_ms", "_state", "origin")

    def __init__(self, origin: object, last: State, mode: Mode) -> None:
        self.origin = origin
        """The source of the last tick."""
        self._state = last
        self._has_book = mode >= Mode.DEPTH and (last.depth is not None or last.had_book)
        self._held_ms: int | None = None
        """Since when (Unix ms) something is held back."""

    def holds(self, state: State, now_ms: int) -> bool:
        """Whether the new source's state must not be shown yet."""
        if self._held_ms is None:
            self._held_ms = now_ms
        if not 0 <= now_ms - self._held_ms < HELD_MS:
            return False
        return self._is_older(state) or (self._has_book and state.depth is None)

    def _is_older(self, state: State) -> bool:
        last = self._state
        if last.volume is not None and state.volume is not None and state.volume < last.volume:
            return True
        if last.exchange_ms is not None and state.exchange_ms is not None:
            return state.exchange_ms < last.exchange_ms
        if last.last_trade_ms is None:
            return False
        known_ms = state.last_trade_ms if state.last_trade_ms is not None else state.exchange_ms
        return known_ms is not None and known_ms < last.last_trade_ms


class Snapshots:
    """
    The states of one account's instruments, by (segment, token).

    >>> from marketdata.ticks import Segment
    >>> snapshots, token = Snapshots(), Token(Segment.NSE, "779521")
    >>> state = snapshots.merge(Update(token=token, ltp=0.0, close=622.0))
    >>> state.ltp, state.close, snapshots.merge(Update(token=token, ltp=625.5)).close
    (None, 622.0, 622.0)
    """

    def __init__(self) -> None:
        self._states: dict[Token, State] = {}

    def merge(self, update: Update) -> State:
        """The instrument's state with the update in it."""
        state = self._states.get(update.token)
        if state is None:
            state = self._states[update.token] = State(update.token)
        state.merge(update)
        return state

    def state(self, token: Token) -> State | None:
        """What is known of an instrument; None before its first update."""
        return self._states.get(token)

    def forget(self, token: Token) -> None:
        """The instrument is no longer subscribed: what is known of it grows old from now on."""
        self._states.pop(token, None)

    def clear_books(self) -> None:
        """After a disconnect: levels that were there are no more believed; prices stay the last known."""
        for state in self._states.values():
            state.forget_book()


def project(
    state: State, *, symbol: str, exchange: str, mode: Mode, broker: str, received_ms: int, seq: int, simulated: bool
) -> Tick | None:
    """
    The state as one mode shows it; None while no last price is known.

    LTP has the last price, its quantity and the instants; QUOTE everything but the book; the DEPTH modes everything,
    with at most their levels.
    """
    if state.ltp is None:
        return None
    if mode is Mode.LTP:
        return Tick(
            symbol=symbol,
            exchange=exchange,
            mode=mode,
            broker=broker,
            ltp=state.ltp,
            received_ms=received_ms,
            seq=seq,
            exchange_ms=state.exchange_ms,
            last_trade_ms=state.last_trade_ms,
            ltq=state.ltq,
            simulated=simulated,
        )
    return Tick(
        symbol=symbol,
        exchange=exchange,
        mode=mode,
        broker=broker,
        ltp=state.ltp,
        received_ms=received_ms,
        seq=seq,
        exchange_ms=state.exchange_ms,
        last_trade_ms=state.last_trade_ms,
        ltq=state.ltq,
        open=state.open,
        high=state.high,
        low=state.low,
        close=state.close,
        volume=state.volume,
        average_price=state.average_price,
        oi=state.oi,
        total_buy_quantity=state.total_buy_quantity,
        total_sell_quantity=state.total_sell_quantity,
        upper_circuit=state.upper_circuit,
        lower_circuit=state.lower_circuit,
        depth=None if mode is Mode.QUOTE else _cut(state.depth, mode.depth_levels),
        simulated=simulated,
    )


def _orders(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """The rows that hold an order; a row of zeros is an empty one."""
    return tuple([level for level in levels if level.quantity or level.price])


def _cut(depth: Depth | None, levels: int) -> Depth | None:
    if depth is None or (len(depth.buy) <= levels and len(depth.sell) <= levels):
        return depth
    return Depth(depth.buy[:levels], depth.sell[:levels])
