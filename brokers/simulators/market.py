"""
The price engine: one `Quote` an instrument, moved a step at a time and only when told. Pure: time is an argument.

All prices are integers, in 1/`scale` rupees, so that they stay on the tick grid and go onto a wire unchanged.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from brokers.simulators.universe import Listing

Row = tuple[int, int, int]
"""A row of the book: price, quantity, orders; three zeros where no order stands."""

DEPTH_ROWS = 5
_NO_ROW: Row = (0, 0, 0)
_STEPS = (-3, -2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3)
_U32 = 0xFFFFFFFF
_U64 = 0xFFFFFFFFFFFFFFFF
_PRICES = ("ltp", "open", "high", "low", "close", "average_price")
_NUMBERS = ("ltq", "volume", "oi", "oi_high", "oi_low", "total_buy_quantity", "total_sell_quantity")
_INSTANTS = ("exchange_ms", "last_trade_ms")
_BOOK = ("buy", "sell")


class UnknownSymbol(ValueError):
    """A name the market does not quote."""


class Quote:
    """
    One instrument's state: prices in 1/`scale` rupees, quantities in units, instants in Unix ms.

    `walk` is a bounded random walk on the tick grid: within 4 % of the previous close (40 % for options), thus inside
    the circuit band of 10 % (90 %), with rising volume, OHLC and averages that agree, and a book around the last
    price. The n-th step of an instrument is the same for the same seed, whatever other instruments did.
    """

    __slots__ = (
        "_average",
        "_bits",
        "_book",
        "_bottom",
        "_lot",
        "_noise",
        "_stride",
        "_top",
        "_turnover",
        "close",
        "exchange_ms",
        "has_oi",
        "high",
        "is_index",
        "last_trade_ms",
        "listing",
        "low",
        "lower_circuit",
        "ltp",
        "ltq",
        "oi",
        "oi_high",
        "oi_low",
        "open",
        "scale",
        "tick",
        "total_buy_quantity",
        "total_sell_quantity",
        "untraded",
        "upper_circuit",
        "volume",
        "wire_id",
    )  # fmt: skip

    def __init__(self, listing: Listing, wire_id: int, scale: int, seed: int, now_ms: int) -> None:
        self.listing = listing
        self.wire_id = wire_id
        """The number by which the broker's wire names the instrument."""
        self.scale = scale
        self.tick = max(1, round(listing.tick_size * scale))
        self.is_index = listing.kind == "INDEX"
        self.has_oi = listing.kind in {"FUT", "CE", "PE"}
        self.untraded = False
        self.close = round(listing.price * scale)
        self._limit_moves()
        self._stride = max(1, self.close // 10_000 // self.tick) * self.tick
        self._lot = listing.lot_size
        self._noise = zlib.crc32(f"{seed}:{listing.key}".encode()) * 0x9E3779B97F4A7C15 & _U64
        self._bits = 0
        self._average: int | None = None
        self.exchange_ms = self.last_trade_ms = 0
        self._book: tuple[list[Row], list[Row]] | None = None
        self._open_session(now_ms)

    def _limit_moves(self) -> None:
        option = self.listing.kind in {"CE", "PE"}
        band, usual = (0.9, 0.4) if option else (0.1, 0.04)
        self.upper_circuit = self._grid(self.close * (1 + band))
        self.lower_circuit = max(self.tick, self._grid(self.close * (1 - band)))
        self._top = self._grid(self.close * (1 + usual))
        self._bottom = self._grid(self.close * (1 - usual))

    def _grid(self, price: float) -> int:
        return round(price / self.tick) * self.tick

    def _open_session(self, now_ms: int) -> None:
        """A session that has been running for a while: an opening price, some trades, open interest."""
        bits = self._draw()
        self.open = self.high = self.low = self.ltp = self.close + ((bits & 31) - 16) // 4 * self._stride
        self.ltq = 0
        self.volume = 0 if self.is_index else (1000 + (bits >> 8 & 0xFFFF)) * self._lot
        self._turnover = self.volume * self.open
        self.oi = self.oi_high = self.oi_low = (10_000 + (bits >> 10 & 0xFFFF)) * self._lot if self.has_oi else 0
        self.total_buy_quantity = self.total_sell_quantity = 0
        for _ in range(8):
            self.walk(now_ms)

    def _draw(self) -> int:
        """40 random bits of the instrument's own sequence (Knuth's 64-bit linear congruential generator)."""
        self._noise = (self._noise * 6364136223846793005 + 1442695040888963407) & _U64
        return self._noise >> 24

    def walk(self, now_ms: int) -> None:
        """One trade (for an index: one new value) at `now_ms`."""
        self.exchange_ms = now_ms
        self._average = None
        if self.untraded:
            return
        self._noise = noise = (self._noise * 6364136223846793005 + 1442695040888963407) & _U64
        self._bits = bits = noise >> 24
        self._book = None
        price = self.ltp
        step = _STEPS[bits & 15]
        if step:
            self.ltp = price = self._moved(price, step * self._stride)
        if self.is_index:
            return
        self.last_trade_ms = now_ms
        self.ltq = quantity = ((bits >> 4 & 63) + 1) * self._lot
        volume = self.volume + quantity
        if volume <= _U32:  # what a wire's 32 bits hold; a busy instrument gets there in a day or two
            self.volume = volume
            self._turnover += quantity * price
        self.total_buy_quantity = (6000 + (bits >> 10 & 0xFFF)) * self._lot
        self.total_sell_quantity = (6000 + (bits >> 22 & 0xFFF)) * self._lot
        if self.has_oi:
            self._move_oi((bits >> 34 & 15) - 7)

    def _moved(self, price: int, change: int) -> int:
        """The price after a change, turned back where it would leave the usual range; high and low follow."""
        moved = price + change
        if moved > self._top:
            moved = price - abs(change)
        elif moved < self._bottom:
            moved = price + abs(change)
        if moved > self.high:
            self.high = moved
        elif moved < self.low:
            self.low = moved
        return moved

    def _move_oi(self, lots: int) -> None:
        self.oi = min(max(self.oi + lots * self._lot, self._lot), _U32)
        self.oi_high = max(self.oi_high, self.oi)
        self.oi_low = min(self.oi_low, self.oi)

    @property
    def average_price(self) -> int:
        """The day's average by volume."""
        if self._average is not None:
            return self._average
        return self._turnover // self.volume if self.volume else 0

    def book(self) -> tuple[Sequence[Row], Sequence[Row]]:
        """
        Five bids and five asks, best first. The last price is the best bid or the best ask.

        Inside the circuit band only: at its edge, and for an instrument that never traded, rows are three zeros.
        """
        if self._book is None:
            self._book = self._make_book()
        return self._book

    def deep_book(self, levels: int) -> tuple[Sequence[Row], Sequence[Row]]:
        """The book with more levels; its first five are those of `book`."""
        bids, asks = self.book()
        tick, best = self.tick, self.ltp - self.tick * (self._bits >> 5 & 1)
        more = range(DEPTH_ROWS, levels)
        noise = [(self._bits + 1) * (row * 2 + 1) * 0x9E3779B1 >> 7 for row in more]
        return (
            [*bids, *(self._row(best - tick * row, bits) for row, bits in zip(more, noise, strict=True))],
            [*asks, *(self._row(best + tick * (row + 1), bits >> 9) for row, bits in zip(more, noise, strict=True))],
        )

    def _make_book(self) -> tuple[list[Row], list[Row]]:
        bits, tick = self._bits, self.tick
        bid = self.ltp - tick * (bits >> 5 & 1)
        bids = [self._row(bid - tick * row, bits >> row * 3) for row in range(DEPTH_ROWS)]
        asks = [self._row(bid + tick * (row + 1), bits >> row * 3 + 15) for row in range(DEPTH_ROWS)]
        return bids, asks

    def _row(self, price: int, bits: int) -> Row:
        if self.untraded or not self.lower_circuit <= price <= self.upper_circuit:
            return _NO_ROW
        return price, ((bits & 0x1FF) + 1) * self._lot, (bits & 31) + 1

    def never_traded(self, untraded: bool = True) -> None:
        """Makes it an instrument that never traded (all zeros, and stays so), or one that trades again."""
        self.untraded = untraded
        self._book = None
        if not untraded:
            self.close = round(self.listing.price * self.scale)
            self._open_session(self.exchange_ms)
            return
        self.ltp = self.open = self.high = self.low = self.close = 0
        self.ltq = self.volume = self._turnover = self.total_buy_quantity = self.total_sell_quantity = 0
        self.oi = self.oi_high = self.oi_low = self.last_trade_ms = 0

    def put(self, fields: Mapping[str, object], now_ms: int) -> None:
        """
        Sets exactly these fields, in rupees, units and Unix ms; `buy` and `sell` are rows of [price, quantity, orders].

        A new `ltp` widens high and low where they are not given too. `exchange_ms` becomes `now_ms` unless given.
        Raises ValueError with a sentence: an unknown field, or a value that is none. Then nothing has changed.
        """
        values = {name: self._value(name, value) for name, value in fields.items() if name not in _BOOK}
        books = {name: self._rows(name, fields[name]) for name in _BOOK if name in fields}
        average = self._average = values.pop("average_price", self.average_price)
        self.exchange_ms = now_ms
        for name, number in values.items():
            setattr(self, name, number)
        self._turnover = average * self.volume
        if "ltp" in values:
            self.untraded = False
            self.high = self.high if "high" in values else max(self.high, self.ltp)
            self.low = self.low if "low" in values else min(self.low or self.ltp, self.ltp)
        self._book = None
        if books:
            bids, asks = self._make_book()
            self._book = books.get("buy", bids), books.get("sell", asks)

    def _value(self, name: str, value: object) -> int:
        if name not in (*_PRICES, *_NUMBERS, *_INSTANTS):
            known = ", ".join((*_PRICES, *_NUMBERS, *_INSTANTS, *_BOOK))
            raise ValueError(f"{name!r} is no field of a tick; known are {known}.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} must be a number, not {value!r}.")
        if name in _PRICES:
            return self._price(name, value)
        if not 0 <= value <= (_U32 * 1000 if name in _INSTANTS else _U32):
            raise ValueError(f"{name} must fit an unsigned 32-bit field, not {value!r}.")
        return int(value)

    def _price(self, name: str, value: float) -> int:
        price = round(value * self.scale)
        limit = 2**30 if self.is_index else 2**31  # the difference of two values of an index must fit too
        if not -limit <= price < limit:
            raise ValueError(f"{name} {value!r} does not fit the wire's 32-bit price.")
        return price

    def _rows(self, name: str, rows: object) -> list[Row]:
        complaint = f"{name} must be up to {DEPTH_ROWS} rows of [price, quantity, orders], not {rows!r}."
        if not isinstance(rows, list | tuple) or len(rows) > DEPTH_ROWS:
            raise ValueError(complaint)
        made: list[Row] = []
        for row in rows:
            if not isinstance(row, list | tuple) or len(row) != 3:
                raise ValueError(complaint)
            price, quantity, orders = (self._number(item, complaint) for item in row)
            if not (0 <= quantity <= _U32 and 0 <= orders <= 0xFFFF):
                raise ValueError(complaint)
            made.append((self._price(name, price), int(quantity), int(orders)))
        return made + [_NO_ROW] * (DEPTH_ROWS - len(made))

    @staticmethod
    def _number(value: object, complaint: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(complaint)
        return value


class Market:
    """All quotes of a simulator, found by name or by the wire's number."""

    def __init__(
        self,
        listings: Iterable[Listing],
        *,
        wire_id: Callable[[Listing], int],
        scale: Callable[[Listing], int],
        seed: int,
        now_ms: int,
    ) -> None:
        self.quotes = [Quote(one, wire_id(one), scale(one), seed, now_ms) for one in listings]
        self.by_wire_id = {quote.wire_id: quote for quote in self.quotes}
        self._by_name: dict[str, Quote] = {}
        for quote in self.quotes:
            self._by_name.setdefault(quote.listing.symbol, quote)
            self._by_name[quote.listing.key] = quote

    def find(self, name: str) -> Quote:
        """
        The quote of EXCHANGE:SYMBOL, or of a bare symbol: then the first listed of that name.

        Raises UnknownSymbol with a sentence.
        """
        quote = self._by_name.get(name.strip().upper())
        if quote is None:
            first = self.quotes[0].listing.key
            raise UnknownSymbol(f"{name!r} is not quoted here; name an instrument as {first} (simulate --list).")
        return quote
