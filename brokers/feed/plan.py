"""
Which connection of which account carries each wanted instrument. Pure.

The plan is kept, not made anew: a change of demand moves nothing that can stay. What does not fit is listed with its
reason and tried again when room appears. Accounts of one feed are tried by priority, connections by number, so a new
connection is used only when the ones before it are full.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from brokers.contract import Limits
from marketdata.ticks import Mode, Segment, Token

MANY = 1 << 30
"""More than any connection carries."""


class Instrument(NamedTuple):
    """What is wanted, by the names clients use; `feed` as in a Key."""

    symbol: str
    exchange: str
    feed: str = ""


class SocketKind(msgspec.Struct, frozen=True):
    """
    One kind of socket of an account: the modes it serves, what it may carry, and for which segments (see `Feed`).

    `beside` names the kind of socket that carries the prices where this one shows only books: an instrument here has a
    second seat there.
    """

    kind: str
    modes: tuple[Mode, ...]
    limits: Limits
    modes_for: Callable[[Segment], tuple[Mode, ...]] | None = None
    """The modes of a segment; None: all modes for all."""
    beside: str = ""

    def served(self, mode: Mode, segment: Segment) -> Mode | None:
        """The lowest mode that carries this one; None: there is none."""
        modes = self.modes if self.modes_for is None else self.modes_for(segment)
        return min((each for each in modes if each >= mode), default=None)


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """An account that may serve instruments of a feed; the lowest priority number is asked first."""

    account: int
    broker: str
    feed: str
    priority: int
    sockets: tuple[SocketKind, ...]


class ConnectionId(NamedTuple):
    """One connection: its account, the kind of socket, and its number from 0."""

    account: int
    kind: str
    number: int


class Seat(NamedTuple):
    """Where an instrument is served, and under which of the broker's identities."""

    connection: ConnectionId
    token: Token


class Reason(enum.Enum):
    """Why an instrument is not served, or not as deeply as wanted."""

    NO_ACCOUNT = "no account of the feed"
    UNKNOWN = "no broker of the feed has it"
    MODE_NOT_SERVED = "no broker of the feed serves this mode"
    NO_CAPACITY = "all connections are full"


Changes = dict[ConnectionId, dict[Token, Mode | None]]
"""For each connection touched: the mode an instrument now has there, None: it is there no more."""


class _Wish(NamedTuple):
    mode: Mode
    tokens: Mapping[str, Token]
    """The instrument's identity at each broker that has it, by slug."""


_Shape = tuple[str, Mode, tuple[str, ...]]


class _Room:
    """What one connection holds."""

    def __init__(self, kind: SocketKind) -> None:
        self.kind = kind
        self.modes: dict[Token, Mode] = {}
        self.count = Counter[Mode]()
        self.guests: dict[Token, dict[Instrument, Mode]] = {}
        """Who wants each token, and how deeply: one token may have several names."""

    def fits(self, token: Token, mode: Mode) -> bool:
        """
        Whether the token may tick in this mode here.

        Where limits depend on the mode, the connection as a whole keeps to the smallest limit of the modes in use.
        """
        modes = (held for held, count in self.count.items() if count)
        limits = self.kind.limits
        if self.count[mode] + (self.modes.get(token) != mode) > limits.at_most.get(mode, MANY):
            return False
        room = min(limits.room(each) for each in (mode, *modes))
        return len(self.modes) + (token not in self.modes) <= room

    def overfull(self) -> bool:
        """Whether it holds more than its limits allow (they were lowered)."""
        limits, modes = self.kind.limits, [mode for mode, count in self.count.items() if count]
        if any(self.count[mode] > limits.at_most.get(mode, MANY) for mode in modes):
            return True
        return bool(modes) and len(self.modes) > min(map(limits.room, modes))

    def set_mode(self, token: Token, mode: Mode | None) -> None:
        before = self.modes.pop(token, None)
        if before is not None:
            self.count[before] -= 1
        if mode is not None:
            self.modes[token] = mode
            self.count[mode] += 1


class Plan:
    """
    Seats for all that is wanted, within all limits.

    >>> from marketdata.ticks import Segment
    >>> socket = SocketKind("market", (Mode.LTP, Mode.QUOTE), Limits(instruments_per_connection=1))
    >>> plan = Plan()
    >>> plan.set_offers([Offer(account=7, broker="zerodha", feed="", priority=1, sockets=(socket,))])
    >>> plan.want(Instrument("SBIN", "NSE"), Mode.LTP, {"zerodha": Token(Segment.NSE, "779521")})
    >>> plan.want(Instrument("TCS", "NSE"), Mode.QUOTE, {"zerodha": Token(Segment.NSE, "2953217")})
    >>> [(connection.number, list(changes.values())) for connection, changes in plan.take_changes().items()]
    [(0, [<Mode.LTP: 1>]), (1, [<Mode.QUOTE: 2>])]
    """

    def __init__(self) -> None:
        self._offers: dict[int, Offer] = {}
        self._by_feed: dict[str, list[Offer]] = {}
        self._wishes: dict[Instrument, _Wish] = {}
        """All that is wanted, in first-demanded order."""
        self._seats: dict[Instrument, Seat] = {}
        self._price_seats: dict[Instrument, Seat] = {}
        """The second seats, for prices, of those that sit where only books are shown."""
        self._rooms: dict[ConnectionId, _Room] = {}
        self._found: dict[tuple[int, str, Token], ConnectionId] = {}
        """On which connection of an account's kind of socket a token is."""
        self._short: dict[Instrument, Reason] = {}
        self._down: frozenset[ConnectionId] = frozenset()
        self._fled: dict[Instrument, int] = {}
        """From which account those came that another serves because it had failed."""
        self._refuges: frozenset[int] | None = None
        self._changes: Changes = {}
        self._moved: dict[Instrument, None] = {}
        self._freed = False
        """Room appeared since what is short was tried last."""

    # ------------------------------------------------------------------------------------------------------- questions

    def seat(self, instrument: Instrument) -> Seat | None:
        """Where an instrument is served; None: nowhere."""
        return self._seats.get(instrument)

    def seats(self) -> Mapping[Instrument, Seat]:
        """Where everything is served. Read only."""
        return self._seats

    def short(self) -> Mapping[Instrument, Reason]:
        """What is not served, or not as deeply as wanted, and why. Read only."""
        return self._short

    def assignment(self, account: int) -> dict[ConnectionId, dict[Token, Mode]]:
        """All that an account's connections should carry."""
        return {id_: dict(room.modes) for id_, room in self._rooms.items() if id_.account == account and room.modes}

    def elsewhere(self, account: int) -> Counter[int]:
        """How many instruments other accounts serve, by account, because this one had failed."""
        fled = [instrument for instrument, origin in self._fled.items() if origin == account]
        return Counter(self._seats[instrument].connection.account for instrument in fled if instrument in self._seats)

    def take_changes(self) -> Changes:
        """What changed for the connections since the last call."""
        self._retry()
        changes, self._changes = self._changes, {}
        return changes

    def take_moved(self) -> list[Instrument]:
        """The instruments whose `seat` may have changed since the last call; ask for the changes first."""
        moved, self._moved = self._moved, {}
        return list(moved)

    # --------------------------------------------------------------------------------------------------------- changes

    def want(self, instrument: Instrument, mode: Mode, tokens: Mapping[str, Token]) -> None:
        """The instrument is wanted in this mode; `tokens` is its identity at each broker that has it, by slug."""
        self._wishes[instrument] = wish = _Wish(mode, tokens)
        seat = self._seats.get(instrument)
        if seat is not None and self._token_at(seat, wish) != seat.token:
            self._leave(instrument)
            seat = None
        if seat is None:
            self._place(instrument, wish)
        else:
            self._change_mode(instrument, wish, seat)

    def drop(self, instrument: Instrument) -> None:
        """The instrument is not wanted any more; one that was not is passed over."""
        self._short.pop(instrument, None)
        self._fled.pop(instrument, None)
        if self._wishes.pop(instrument, None) is not None and instrument in self._seats:
            self._leave(instrument)

    def set_offers(self, offers: Iterable[Offer]) -> None:
        """These accounts there are; instruments move only off those that are gone or may carry less than they do."""
        before = self._offers
        self._offers = {offer.account: offer for offer in offers}
        if self._offers == before:
            return
        self._by_feed = {}
        for offer in sorted(self._offers.values(), key=lambda offer: (offer.priority, offer.account)):
            self._by_feed.setdefault(offer.feed, []).append(offer)
        homeless = [instrument for id_ in list(self._rooms) for instrument in self._withdraw(id_)]
        self._fled = {instrument: origin for instrument, origin in self._fled.items() if origin in self._offers}
        self._settle(set(homeless) | self._short.keys())

    def set_down(self, connections: Collection[ConnectionId], refuges: Collection[int] | None = None) -> None:
        """
        These connections do not work: what they carry goes to others with room, or stays and waits with them.

        It goes to the accounts `refuges` only (None: to any). What moved does not come back by itself when they work
        again.
        """
        self._down = frozenset(connections)
        self._refuges = None if refuges is None else frozenset(refuges)
        full: set[_Shape] = set()
        for id_ in self._down & self._rooms.keys():
            room = self._rooms.get(id_)  # Fleeing from one empties another, whose books it had the prices of.
            for instrument in [guest for guests in (room.guests if room else {}).values() for guest in guests]:
                shape = self._shape(instrument)
                if shape not in full and not self._flee(instrument):
                    full.add(shape)

    # --------------------------------------------------------------------------------------------------------- placing

    def _place(self, instrument: Instrument, wish: _Wish) -> bool:
        seat = self._find(instrument, wish)
        if seat is None:
            self._short[instrument] = self._reason(instrument, wish)
            return False
        self._short.pop(instrument, None)
        self._sit(instrument, seat, wish.mode)
        return True

    def _find(self, instrument: Instrument, wish: _Wish) -> Seat | None:
        """A seat on a connection that works, else on one that does not: there it waits."""
        waiting: Seat | None = None
        for seat in self._free(instrument, wish):
            if self._works(seat):
                return seat
            waiting = waiting or seat
        return waiting

    def _free(self, instrument: Instrument, wish: _Wish) -> Iterator[Seat]:
        """By priority; among equals first who serves no deeper book than is wanted: deep ones are scarce."""
        able = [
            (offer.priority, served, offer.account, socket, token)
            for offer in self._by_feed.get(instrument.feed, ())
            if (token := wish.tokens.get(offer.broker)) is not None
            and (found := _socket_for(offer.sockets, wish.mode, token.segment)) is not None
            for socket, served in (found,)
        ]
        able.sort(key=lambda each: each[:2])
        for _, served, account, socket, token in able:
            for seat in self._free_on(account, socket, token, served):
                if not socket.beside or self._price_seat(seat) is not None:
                    yield seat

    def _free_on(self, account: int, socket: SocketKind, token: Token, mode: Mode) -> Iterator[Seat]:
        held = self._found.get((account, socket.kind, token))
        if held is not None:
            at_least = max(mode, self._rooms[held].modes[token])
            if self._rooms[held].fits(token, at_least):
                yield Seat(held, token)
            return  # elsewhere on this account it would tick twice
        for number in range(socket.limits.connections_per_account):
            id_ = ConnectionId(account, socket.kind, number)
            room = self._rooms.get(id_)
            if (room or _Room(socket)).fits(token, mode):
                yield Seat(id_, token)

    def _price_seat(self, seat: Seat) -> Seat | None:
        """Where the prices come from for a seat that shows only books; one that works before one that does not."""
        id_, token = seat
        sockets = self._offers[id_.account].sockets
        books = _kind(sockets, id_.kind)
        prices = None if books is None else _kind(sockets, books.beside)
        if prices is None:
            return None
        waiting: Seat | None = None
        for found in self._free_on(id_.account, prices, token, _price_mode(prices)):
            if found.connection not in self._down:
                return found
            waiting = waiting or found
        return waiting

    def _works(self, seat: Seat) -> bool:
        """Whether the connection works, and the one that carries the seat's prices, where it is another."""
        prices = self._price_seat(seat)
        return seat.connection not in self._down and (prices is None or prices.connection not in self._down)

    def _reason(self, instrument: Instrument, wish: _Wish) -> Reason:
        offers = self._by_feed.get(instrument.feed)
        if not offers:
            return Reason.NO_ACCOUNT
        known = [(offer, wish.tokens[offer.broker]) for offer in offers if offer.broker in wish.tokens]
        if not known:
            return Reason.UNKNOWN
        served = any(_socket_for(offer.sockets, wish.mode, token.segment) is not None for offer, token in known)
        return Reason.NO_CAPACITY if served else Reason.MODE_NOT_SERVED

    def _sit(self, instrument: Instrument, seat: Seat, mode: Mode) -> None:
        self._seats[instrument] = seat
        self._moved[instrument] = None
        if self._fled.get(instrument) == seat.connection.account:
            del self._fled[instrument]
        self._occupy(instrument, seat, mode)
        prices = self._price_seat(seat)
        if prices is not None:
            self._price_seats[instrument] = prices
            self._occupy(instrument, prices, _price_mode(self._socket(prices.connection)))

    def _leave(self, instrument: Instrument) -> None:
        self._vacate(instrument, self._seats.pop(instrument))
        self._moved[instrument] = None
        prices = self._price_seats.pop(instrument, None)
        if prices is not None:
            self._vacate(instrument, prices)

    def _occupy(self, instrument: Instrument, seat: Seat, mode: Mode) -> None:
        id_, token = seat
        room = self._rooms.get(id_)
        if room is None:
            room = self._rooms[id_] = _Room(self._socket(id_))
        self._found[id_.account, id_.kind, token] = id_
        room.guests.setdefault(token, {})[instrument] = mode
        self._tune(id_, token)

    def _vacate(self, instrument: Instrument, seat: Seat) -> None:
        id_, token = seat
        room = self._rooms[id_]
        guests = room.guests[token]
        del guests[instrument]
        if not guests:
            del room.guests[token]
            del self._found[id_.account, id_.kind, token]
        self._tune(id_, token)
        if not room.modes:
            del self._rooms[id_]

    def _tune(self, id_: ConnectionId, token: Token) -> None:
        """Gives a token the highest mode its guests want."""
        room = self._rooms[id_]
        guests = room.guests.get(token)
        mode = _mode_on(room.kind, max(guests.values()), token) if guests else None
        before = room.modes.get(token)
        if mode != before:
            self._freed = self._freed or mode is None or (before is not None and mode < before)
            room.set_mode(token, mode)
            self._changes.setdefault(id_, {})[token] = mode

    def _change_mode(self, instrument: Instrument, wish: _Wish, seat: Seat) -> None:
        """The mode an instrument has is changed where it sits, if that is possible; else it moves."""
        room = self._rooms[seat.connection]
        found = _socket_for(self._offers[seat.connection.account].sockets, wish.mode, seat.token.segment)
        others = [mode for guest, mode in room.guests[seat.token].items() if guest != instrument]
        if found is not None and found[0].kind == seat.connection.kind:
            mode = max(_mode_on(room.kind, each, seat.token) for each in (*others, wish.mode))
            if room.fits(seat.token, mode):
                self._short.pop(instrument, None)
                room.guests[seat.token][instrument] = wish.mode
                self._tune(*seat)
                return
        self._move(instrument, wish)

    def _move(self, instrument: Instrument, wish: _Wish) -> None:
        """To a seat where it can have its mode; where there is none it stays as it is and is listed as short."""
        seat = self._seats[instrument]
        before = self._rooms[seat.connection].guests[seat.token][instrument]
        self._leave(instrument)
        if not self._place(instrument, wish):
            self._sit(instrument, seat, before)

    def _flee(self, instrument: Instrument) -> bool:
        """Off a connection that does not work; False: no other that works has room, it stays."""
        wish, seat = self._wishes[instrument], self._seats[instrument]
        mode = self._rooms[seat.connection].guests[seat.token][instrument]
        self._leave(instrument)
        found = next((each for each in self._free(instrument, wish) if self._is_refuge(each)), None)
        if found is None:
            self._sit(instrument, seat, mode)
            return False
        self._fled.setdefault(instrument, seat.connection.account)
        self._sit(instrument, found, wish.mode)
        self._short.pop(instrument, None)
        return True

    def _is_refuge(self, seat: Seat) -> bool:
        return (self._refuges is None or seat.connection.account in self._refuges) and self._works(seat)

    def _withdraw(self, id_: ConnectionId) -> list[Instrument]:
        """Empties a connection that is no longer offered; off one that may carry less, the last to come."""
        room = self._rooms.get(id_)
        if room is None:
            return []  # Emptied along with another connection, whose books it had the prices of.
        offer = self._offers.get(id_.account)
        socket = None if offer is None else _kind(offer.sockets, id_.kind)
        homeless = [
            instrument
            for guests in list(room.guests.values())
            for instrument in list(guests)
            if offer is None
            or socket is None
            or instrument.feed != offer.feed
            or id_.number >= socket.limits.connections_per_account
            or self._wishes[instrument].tokens.get(offer.broker) != self._seats[instrument].token
            or (self._seats[instrument].connection == id_ and bool(socket.beside) != (instrument in self._price_seats))
        ]
        for instrument in homeless:
            self._leave(instrument)
        if socket is not None and id_ in self._rooms:
            room.kind = socket
            homeless += self._cut(room)
        return homeless

    def _cut(self, room: _Room) -> list[Instrument]:
        cut: list[Instrument] = []
        for token in reversed(list(room.guests)):
            if not room.overfull():
                break
            guests = list(room.guests[token])
            cut += guests
            for instrument in guests:
                self._leave(instrument)
        return cut

    def _settle(self, instruments: Collection[Instrument]) -> None:
        """Places what has no seat or not its mode, in the order of demand."""
        full: set[_Shape] = set()
        for instrument in [each for each in self._wishes if each in instruments]:
            wish, seat = self._wishes[instrument], self._seats.get(instrument)
            shape = self._shape(instrument)
            if seat is not None:
                self._change_mode(instrument, wish, seat)
            elif shape in full and not self._has_company(instrument, wish):
                self._short[instrument] = self._reason(instrument, wish)
            elif not self._place(instrument, wish):
                full.add(shape)

    def _shape(self, instrument: Instrument) -> _Shape:
        """Where an instrument finds no room, no other of the same shape does."""
        wish = self._wishes[instrument]
        return instrument.feed, wish.mode, tuple(wish.tokens)

    def _has_company(self, instrument: Instrument, wish: _Wish) -> bool:
        """Whether another name of the same token has a seat, which it may share."""
        return any(
            (offer.account, socket.kind, token) in self._found
            for offer in self._by_feed.get(instrument.feed, ())
            if (token := wish.tokens.get(offer.broker)) is not None
            for socket in offer.sockets
        )

    def _retry(self) -> None:
        if self._freed and self._short:
            self._settle(set(self._short))
        self._freed = False

    def _socket(self, id_: ConnectionId) -> SocketKind:
        socket = _kind(self._offers[id_.account].sockets, id_.kind)
        assert socket is not None, f"{id_} is on no offer"
        return socket

    def _token_at(self, seat: Seat, wish: _Wish) -> Token | None:
        return wish.tokens.get(self._offers[seat.connection.account].broker)


def _socket_for(sockets: Sequence[SocketKind], mode: Mode, segment: Segment) -> tuple[SocketKind, Mode] | None:
    """The kind of socket that serves the mode itself, else the one with the next higher mode; and that mode."""
    able = [(socket, served) for socket in sockets if (served := socket.served(mode, segment)) is not None]
    return min(able, key=lambda each: each[1], default=None)


def _mode_on(socket: SocketKind, mode: Mode, token: Token) -> Mode:
    """What an instrument that is wanted in a mode has on a socket; where limits were narrowed, the deepest there is."""
    return socket.served(mode, token.segment) or max(socket.modes)


def _price_mode(socket: SocketKind) -> Mode:
    """What an instrument has where only its prices are needed."""
    return max((mode for mode in socket.modes if mode <= Mode.QUOTE), default=min(socket.modes))


def _kind(sockets: Sequence[SocketKind], kind: str) -> SocketKind | None:
    return next((socket for socket in sockets if socket.kind == kind), None)
