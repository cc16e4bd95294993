"""The plan's promises: within limits, all that fits, nothing moved without need, the told changes are the truth."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from brokers.contract import Limits
from brokers.feed.plan import ConnectionId, Instrument, Offer, Plan, Reason, Seat, SocketKind
from marketdata.ticks import Mode, Segment, Token

BASIC = (Mode.LTP, Mode.QUOTE, Mode.DEPTH)
MODES = [*BASIC, Mode.DEPTH20, Mode.DEPTH200]


def socket(per_connection: int = 2, connections: int = 2, kind: str = "market", **limits: object) -> SocketKind:
    modes, beside = limits.pop("modes", BASIC), limits.pop("beside", "")
    segments = limits.pop("segments", None)
    return SocketKind(
        kind,
        modes,  # type: ignore[arg-type]
        Limits(instruments_per_connection=per_connection, connections_per_account=connections, **limits),  # type: ignore[arg-type]
        None if segments is None else lambda segment: modes if segment in segments else (),  # type: ignore
        beside,  # type: ignore[arg-type]
    )


def offer(account: int = 1, broker: str = "zerodha", feed: str = "", priority: int = 1, *sockets: SocketKind) -> Offer:
    return Offer(account=account, broker=broker, feed=feed, priority=priority, sockets=sockets or (socket(),))


def token(number: object) -> Token:
    return Token(Segment.NSE, str(number))


def at(number: object, *brokers: str) -> dict[str, Token]:
    return {broker: token(number) for broker in brokers or ("zerodha",)}


def named(number: object, feed: str = "") -> Instrument:
    return Instrument(f"S{number}", "NSE", feed)


def planned(count: int, *offers: Offer, mode: Mode = Mode.LTP) -> Plan:
    plan = Plan()
    plan.set_offers(offers)
    for number in range(count):
        plan.want(named(number), mode, at(number, *(each.broker for each in offers)))
    return plan


def seats(plan: Plan) -> dict[str, tuple[int, int]]:
    return {
        name.symbol: (seat.connection.account, seat.connection.number) for name, seat in sorted(plan.seats().items())
    }


# ------------------------------------------------------------------------------------------------------------- examples


def test_connections_are_filled_one_after_the_other_and_the_rest_is_listed() -> None:
    plan = planned(5, offer())
    assert seats(plan) == {"S0": (1, 0), "S1": (1, 0), "S2": (1, 1), "S3": (1, 1)}
    assert plan.short() == {named(4): Reason.NO_CAPACITY}


def test_the_lowest_priority_number_is_used_first() -> None:
    plan = planned(5, offer(1, "dhan", priority=20), offer(2, "angel", priority=10))
    assert [account for account, _ in seats(plan).values()] == [2, 2, 2, 2, 1]


def test_an_instrument_goes_to_a_broker_that_has_it() -> None:
    plan = planned(0, offer(1, "dhan"), offer(2, "angel"))
    plan.want(named(1), Mode.LTP, at(1, "angel"))
    plan.want(named(2), Mode.LTP, {})
    assert seats(plan) == {"S1": (2, 0)}
    assert plan.short() == {named(2): Reason.UNKNOWN}


def test_feeds_do_not_mix() -> None:
    plan = planned(0, offer(1, feed=""), offer(2, feed="desk"))
    for feed in ("", "desk", "other"):
        plan.want(named(1, feed), Mode.LTP, at(1))
    assert plan.seat(named(1)) == Seat(ConnectionId(1, "market", 0), token(1))
    assert plan.seat(named(1, "desk")) == Seat(ConnectionId(2, "market", 0), token(1))
    assert plan.short() == {named(1, "other"): Reason.NO_ACCOUNT}


def test_when_one_leaves_the_first_in_the_queue_gets_its_seat_and_nobody_else_moves() -> None:
    plan = planned(6, offer())
    before = seats(plan)
    plan.drop(named(1))
    plan.take_changes()
    del before["S1"]
    assert seats(plan) == before | {"S4": (1, 0)}
    assert plan.short() == {named(5): Reason.NO_CAPACITY}


def test_two_names_of_one_token_share_a_seat_and_the_higher_mode() -> None:
    plan = planned(0, offer(1, "zerodha", "", 1, socket(1, 1)))
    plan.want(named("a"), Mode.LTP, at(7))
    plan.want(named("b"), Mode.DEPTH, at(7))
    assert plan.assignment(1) == {ConnectionId(1, "market", 0): {token(7): Mode.DEPTH}}
    plan.drop(named("b"))
    assert plan.assignment(1) == {ConnectionId(1, "market", 0): {token(7): Mode.LTP}}


def test_a_mode_is_carried_by_the_next_higher_one_the_broker_has() -> None:
    plan = planned(1, offer(1, "upstox", "", 1, socket(modes=(Mode.LTP, Mode.DEPTH))), mode=Mode.QUOTE)
    assert plan.assignment(1) == {ConnectionId(1, "market", 0): {token(0): Mode.DEPTH}}


def test_a_deeper_book_goes_to_the_kind_of_socket_that_has_it_and_back() -> None:
    deep = socket(1, 1, "depth20", modes=(Mode.DEPTH20,))
    plan = planned(1, offer(1, "dhan", "", 1, socket(), deep))
    plan.take_changes()
    plan.want(named(0), Mode.DEPTH20, at(0, "dhan"))
    assert plan.take_changes() == {
        ConnectionId(1, "market", 0): {token(0): None},
        ConnectionId(1, "depth20", 0): {token(0): Mode.DEPTH20},
    }
    plan.want(named(0), Mode.DEPTH, at(0, "dhan"))
    assert plan.assignment(1) == {ConnectionId(1, "market", 0): {token(0): Mode.DEPTH}}


def test_a_mode_nobody_serves_is_listed() -> None:
    plan = planned(1, offer(), mode=Mode.DEPTH200)
    assert plan.short() == {named(0): Reason.MODE_NOT_SERVED}


def test_limits_by_mode_bound_the_connection() -> None:
    plan = planned(3, offer(1, "upstox", "", 1, socket(4, 1, by_mode={Mode.DEPTH: 2})))
    plan.want(named(3), Mode.DEPTH, at(3, "upstox"))
    assert plan.short() == {named(3): Reason.NO_CAPACITY}
    plan.drop(named(0))
    plan.drop(named(1))
    plan.take_changes()
    assert plan.short() == {}


def test_a_mode_that_does_not_fit_leaves_the_instrument_as_it_was_and_lists_it() -> None:
    plan = planned(3, offer(1, "upstox", "", 1, socket(4, 1, by_mode={Mode.DEPTH: 2})))
    plan.want(named(0), Mode.DEPTH, at(0, "upstox"))
    plan.take_changes()
    assert plan.assignment(1)[ConnectionId(1, "market", 0)][token(0)] is Mode.LTP
    assert plan.short() == {named(0): Reason.NO_CAPACITY}
    plan.drop(named(1))
    assert plan.take_changes()[ConnectionId(1, "market", 0)] == {token(1): None, token(0): Mode.DEPTH}
    assert plan.short() == {}


def test_lowered_limits_cut_the_last_to_come_and_raised_ones_take_them_back() -> None:
    plan = planned(4, offer(1, "zerodha", "", 1, socket(4, 1)))
    plan.take_changes()
    plan.set_offers([offer(1, "zerodha", "", 1, socket(2, 1))])
    assert set(plan.short()) == {named(2), named(3)}
    plan.set_offers([offer(1, "zerodha", "", 1, socket(2, 2))])
    assert seats(plan) == {"S0": (1, 0), "S1": (1, 0), "S2": (1, 1), "S3": (1, 1)}


def test_when_an_account_goes_its_instruments_move_to_the_others() -> None:
    plan = planned(2, offer(1, "dhan"), offer(2, "angel"))
    plan.set_offers([offer(2, "angel")])
    assert seats(plan) == {"S0": (2, 0), "S1": (2, 0)}
    plan.set_offers([])
    assert plan.short() == {named(0): Reason.NO_ACCOUNT, named(1): Reason.NO_ACCOUNT}


def test_off_a_broken_connection_what_finds_room_moves_and_the_rest_waits_there() -> None:
    plan = planned(4, offer(1, "dhan", "", 1, socket(4, 1)), offer(2, "angel", "", 2, socket(3, 1)))
    plan.set_down({ConnectionId(1, "market", 0)})
    assert seats(plan) == {"S0": (2, 0), "S1": (2, 0), "S2": (2, 0), "S3": (1, 0)}
    plan.want(named(9), Mode.LTP, at(9, "dhan", "angel"))
    assert seats(plan)["S9"] == (1, 0), "with no room elsewhere it waits where it will be served"
    plan.set_down(set())
    assert seats(plan)["S0"] == (2, 0), "what moved stays"


def test_what_is_lost_goes_to_refuges_only_and_is_remembered_as_theirs() -> None:
    plan = planned(3, *(offer(number, f"b{number}", "", number, socket(3, 1)) for number in (1, 2, 3)))
    first, second = (ConnectionId(number, "market", 0) for number in (1, 2))
    plan.set_down({first}, refuges=set())
    assert seats(plan) == {"S0": (1, 0), "S1": (1, 0), "S2": (1, 0)}
    assert not plan.elsewhere(1)
    plan.set_down({first}, refuges={3})
    assert (plan.elsewhere(1), plan.elsewhere(3)) == ({3: 3}, {})
    plan.drop(named(0))
    plan.set_down({first, ConnectionId(3, "market", 0)}, refuges={2})
    assert (plan.elsewhere(1), plan.elsewhere(3)) == ({2: 2}, {}), "whose they were first counts"
    plan.set_down({second}, refuges={1})
    assert not plan.elsewhere(1), "they are back"


def test_when_the_account_that_took_over_goes_they_come_back_to_whom_they_belong() -> None:
    offers = [offer(number, f"b{number}", "", number, socket(3, 1)) for number in (1, 2)]
    plan = planned(2, *offers)
    plan.set_down({ConnectionId(1, "market", 0)})
    plan.set_down(set())
    assert plan.elsewhere(1) == {2: 2}
    plan.set_offers(offers[:1])
    assert seats(plan) == {"S0": (1, 0), "S1": (1, 0)}
    assert not plan.elsewhere(1)
    plan.set_offers(offers)
    assert seats(plan) == {"S0": (1, 0), "S1": (1, 0)}


def test_nothing_that_sits_is_moved_to_make_room_for_another() -> None:
    """S0 could go to the second broker, and S1, which only the first has, take its seat: nobody is moved for that."""
    plan = planned(0, offer(1, "dhan", "", 1, socket(1, 1)), offer(2, "angel", "", 2, socket(1, 1)))
    plan.want(named(0), Mode.LTP, at(0, "dhan", "angel"))
    plan.want(named(1), Mode.LTP, at(1, "dhan"))
    assert seats(plan) == {"S0": (1, 0)}
    assert plan.short() == {named(1): Reason.NO_CAPACITY}


BOOKS = socket(2, 1, "depth20", modes=(Mode.DEPTH20,), beside="market")


def held(plan: Plan) -> dict[str, dict[str, Mode]]:
    """What each kind of socket of account 1 carries, by the token's number."""
    return {id_.kind: {token.number: mode for token, mode in room.items()} for id_, room in plan.assignment(1).items()}


def test_a_socket_that_shows_only_books_is_joined_by_the_prices_and_left_together() -> None:
    plan = planned(0, offer(1, "dhan", "", 1, socket(3, 1), BOOKS))
    plan.want(named(1), Mode.DEPTH, at(1, "dhan"))
    plan.want(named(1), Mode.DEPTH20, at(1, "dhan"))
    assert held(plan) == {"depth20": {"1": Mode.DEPTH20}, "market": {"1": Mode.QUOTE}}
    plan.want(named(1), Mode.LTP, at(1, "dhan"))
    assert held(plan) == {"market": {"1": Mode.LTP}}
    plan.want(named(1), Mode.DEPTH20, at(1, "dhan"))
    plan.drop(named(1))
    assert held(plan) == {}


def test_without_room_for_the_prices_there_is_none_for_the_book() -> None:
    plan = planned(0, offer(1, "dhan", "", 1, socket(1, 1), BOOKS))
    plan.want(named(1), Mode.LTP, at(1, "dhan"))
    plan.want(named(2), Mode.DEPTH20, at(2, "dhan"))
    assert plan.short() == {named(2): Reason.NO_CAPACITY}
    plan.drop(named(1))
    plan.take_changes()
    assert held(plan) == {"depth20": {"2": Mode.DEPTH20}, "market": {"2": Mode.QUOTE}}


def test_when_the_prices_socket_breaks_the_book_moves_with_them() -> None:
    plan = planned(0, offer(1, "dhan", "", 1, socket(3, 1), BOOKS), offer(2, "angel", "", 2, socket(modes=MODES)))
    plan.want(named(1), Mode.DEPTH20, at(1, "dhan", "angel"))
    assert seats(plan) == {"S1": (1, 0)}
    plan.set_down({ConnectionId(1, "market", 0)})
    assert seats(plan) == {"S1": (2, 0)}
    assert held(plan) == {}


def test_a_deeper_book_is_only_for_the_segments_that_have_it() -> None:
    books = socket(2, 1, "depth20", modes=(Mode.DEPTH20,), segments=frozenset({Segment.NFO}))
    plan = planned(1, offer(1, "dhan", "", 1, socket(), books), mode=Mode.DEPTH20)
    assert plan.short() == {named(0): Reason.MODE_NOT_SERVED}


def test_a_book_goes_to_whom_serves_just_that_much() -> None:
    deepest, deep = socket(5, 1, modes=(*BASIC, Mode.DEPTH200)), socket(1, 1, modes=(*BASIC, Mode.DEPTH20))
    plan = planned(2, offer(1, "dhan", "", 1, deepest), offer(2, "angel", "", 1, deep), mode=Mode.DEPTH20)
    assert seats(plan) == {"S0": (2, 0), "S1": (1, 0)}


def test_so_many_of_a_mode_and_others_beside_them() -> None:
    able = socket(4, 2, modes=(*BASIC, Mode.DEPTH20), at_most={Mode.DEPTH20: 1})
    plan = planned(3, offer(1, "zerodha", "", 1, able), mode=Mode.DEPTH20)
    assert seats(plan) == {"S0": (1, 0), "S1": (1, 1)}
    assert plan.short() == {named(2): Reason.NO_CAPACITY}
    for number in range(3, 8):
        plan.want(named(number), Mode.LTP, at(number))
    assert seats(plan)["S3"] == (1, 0)
    assert plan.short() == {named(2): Reason.NO_CAPACITY}


def test_ten_thousand_instruments_are_planned_within_a_second() -> None:
    began_s = time.process_time()
    plan = planned(10_000, offer(1, "zerodha", "", 1, socket(3000, 3)))
    plan.take_changes()
    assert time.process_time() - began_s < 1.0
    assert len(plan.short()) == 1000


# --------------------------------------------------------------------------------------------------------- any sequence

KINDS = st.builds(
    lambda per, count, deep, lower, beside: (
        socket(per, count, by_mode={Mode.DEPTH: max(1, per - lower)}, at_most={Mode.LTP: 2}),
        *((socket(deep, 1, "deep", modes=(Mode.DEPTH20,), beside=beside),) if deep else ()),
    ),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from(["", "market"]),
)
OFFERS = st.lists(
    st.builds(
        lambda account, feed, priority, sockets: Offer(
            account=account, broker=["zerodha", "dhan"][account % 2], feed=feed, priority=priority, sockets=sockets
        ),
        st.integers(1, 4),
        st.sampled_from(["", "desk"]),
        st.integers(1, 2),
        KINDS,
    ),
    max_size=3,
    unique_by=lambda each: each.account,
)
NAMES = st.builds(named, st.integers(0, 9), st.sampled_from(["", "desk"]))


def identities(name: Instrument) -> dict[str, Token]:
    """S8 and S9 are one instrument to zerodha; S0 is unknown to dhan, S1 to everyone."""
    number = int(name.symbol[1:])
    if number == 1:
        return {}
    return {"zerodha": token(min(number, 8))} | ({} if number == 0 else {"dhan": token(number)})


class AnySequence(RuleBasedStateMachine):
    """Demand, accounts and breakdowns in any order; `told` is what a listener to the changes believes."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan()
        self.offers: list[Offer] = []
        self.wanted: dict[Instrument, Mode] = {}
        self.down: set[ConnectionId] = set()
        self.told: dict[ConnectionId, dict[Token, Mode]] = {}

    @rule(name=NAMES, mode=st.sampled_from(MODES))
    def want(self, name: Instrument, mode: Mode) -> None:
        before = dict(self.plan.seats())
        self.wanted[name] = mode
        self.plan.want(name, mode, identities(name))
        self.check_others_stay(before, name)

    @rule(name=NAMES)
    def drop(self, name: Instrument) -> None:
        before = dict(self.plan.seats())
        self.wanted.pop(name, None)
        self.plan.drop(name)
        self.check_others_stay(before, name)

    @rule(offers=OFFERS)
    def offer(self, offers: list[Offer]) -> None:
        before = dict(self.plan.seats())
        same = {each.account for each in offers if each in self.offers}
        is_only_more = all(each in offers for each in self.offers)
        short = set(self.plan.short())
        self.offers = offers
        self.plan.set_offers(offers)
        for name, seat in before.items():
            stays = self.plan.seat(name) == seat
            assert stays or seat.connection.account not in same or name not in self.plan.short(), name
            assert stays or not is_only_more or name in short, f"{name} moved because there is one account more"

    @rule(data=st.data())
    def break_down(self, data: st.DataObject) -> None:
        known = sorted({seat.connection for seat in self.plan.seats().values()})
        self.down = set(data.draw(st.lists(st.sampled_from(known), unique=True))) if known else set()
        accounts = [each.account for each in self.offers]
        refuges = set(data.draw(st.lists(st.sampled_from(accounts), unique=True))) if accounts else set()
        before = dict(self.plan.seats())
        is_short = set(self.plan.short())
        broken = {name for name in before if self.sits_on(self.down, name)}
        self.plan.set_down(self.down, refuges)
        for name, seat in before.items():
            now = self.plan.seat(name)
            assert now is not None, "what waits keeps its seat"
            if now != seat:
                assert name in broken | is_short, "it was not concerned"
                assert now.connection.account in refuges
                assert not self.sits_on(self.down, name), "from one that is down to another"

    @rule()
    def all_is_well_again(self) -> None:
        before = dict(self.plan.seats())
        self.down = set()
        self.plan.set_down(self.down)
        assert dict(self.plan.seats()) == before, "nothing comes back by itself"

    def sits_on(self, down: set[ConnectionId], name: Instrument) -> bool:
        """Whether the instrument, or the prices of its book, are on one of these."""
        seat = self.plan.seat(name)
        assert seat is not None
        id_, token = seat
        kinds = {kind.kind: kind for each in self.offers if each.account == id_.account for kind in each.sockets}
        rooms = self.plan.assignment(id_.account)
        beside = {other for other, room in rooms.items() if other.kind == kinds[id_.kind].beside and token in room}
        return not down.isdisjoint({id_, *beside})

    def check_others_stay(self, before: dict[Instrument, Seat], changed: Instrument) -> None:
        for name, seat in before.items():
            assert name == changed or self.plan.seat(name) == seat, f"{name} moved for {changed}"

    @invariant()
    def the_changes_told_are_the_truth(self) -> None:
        for id_, changes in self.plan.take_changes().items():
            for each, mode in changes.items():
                room = self.told.setdefault(id_, {})
                if mode is None:
                    room.pop(each, None)
                else:
                    room[each] = mode
        truth = {id_: room for each in self.offers for id_, room in self.plan.assignment(each.account).items()}
        assert {id_: room for id_, room in self.told.items() if room} == truth

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for each in self.offers:
            kinds = {kind.kind: kind for kind in each.sockets}
            for id_, room in self.plan.assignment(each.account).items():
                assert id_.number < kinds[id_.kind].limits.connections_per_account
                limits = kinds[id_.kind].limits
                assert len(room) <= min(limits.room(mode) for mode in room.values())
                assert all(list(room.values()).count(mode) <= most for mode, most in limits.at_most.items())

    @invariant()
    def a_book_without_prices_has_them_beside_it(self) -> None:
        for account in self.offers:
            rooms = self.plan.assignment(account.account)
            for kind in account.sockets:
                books = {each for id_, room in rooms.items() if id_.kind == kind.kind for each in room}
                prices = {each for id_, room in rooms.items() if id_.kind == kind.beside for each in room}
                assert not kind.beside or books <= prices

    @invariant()
    def each_is_served_once_by_an_account_of_its_feed_or_listed(self) -> None:
        for name, mode in self.wanted.items():
            seat = self.plan.seat(name)
            if seat is None:
                assert name in self.plan.short()
                continue
            account = next(each for each in self.offers if each.account == seat.connection.account)
            assert account.feed == name.feed
            assert identities(name)[account.broker] == seat.token
            if name not in self.plan.short():
                assert self.plan.assignment(account.account)[seat.connection][seat.token] >= mode
        assert set(self.plan.seats()) | set(self.plan.short()) == set(self.wanted)

    @invariant()
    def what_has_no_seat_fits_nowhere(self) -> None:
        for name in self.plan.short():
            if self.plan.seat(name) is None:
                assert not any(self.could_seat(name, each) for each in self.offers), name

    def could_seat(self, name: Instrument, account: Offer) -> bool:
        number = identities(name).get(account.broker)
        able = [kind for kind in account.sockets if max(kind.modes) >= self.wanted[name]]
        if number is None or account.feed != name.feed or not able:
            return False
        kind = min(able, key=lambda each: min(mode for mode in each.modes if mode >= self.wanted[name]))
        mode = min(mode for mode in kind.modes if mode >= self.wanted[name])
        rooms = {id_: room for id_, room in self.plan.assignment(account.account).items() if id_.kind == kind.kind}
        if any(number in room for room in rooms.values()):
            return False
        return self.has_room(account, kind, mode, number) and self.could_have_prices(account, kind, number)

    def could_have_prices(self, account: Offer, kind: SocketKind, number: Token) -> bool:
        if not kind.beside:
            return True
        [prices] = [each for each in account.sockets if each.kind == kind.beside]
        rooms = {id_: room for id_, room in self.plan.assignment(account.account).items() if id_.kind == prices.kind}
        return any(number in room for room in rooms.values()) or self.has_room(account, prices, Mode.QUOTE, number)

    def has_room(self, account: Offer, kind: SocketKind, mode: Mode, number: Token) -> bool:
        return any(
            len(room) + 1 <= min(kind.limits.room(each) for each in {*room.values(), mode})
            and list(room.values()).count(mode) < kind.limits.at_most.get(mode, 99)
            for index in range(kind.limits.connections_per_account)
            for room in [self.plan.assignment(account.account).get(ConnectionId(account.account, kind.kind, index), {})]
        )


TestAnySequence = AnySequence.TestCase

# ------------------------------------------------------------------------- what is promised of how much finds its place


SMALL = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3)), min_size=1, max_size=3)
"""For each broker: room, connections, priority."""
LISTED = st.lists(st.sets(st.integers(0, 2), max_size=3), max_size=9)
"""For each instrument, in the order of demand: the brokers that list it."""


@given(SMALL, LISTED)
def test_in_the_order_of_demand_each_goes_to_the_first_with_room(
    brokers: list[tuple[int, int, int]], listed: list[set[int]]
) -> None:
    """The same as the plainest thing there is: a list of connections by priority, and the first that has room."""
    plan = Plan()
    plan.set_offers(
        offer(number, f"b{number}", "", priority, socket(room, count))
        for number, (room, count, priority) in enumerate(brokers)
    )
    order = sorted(range(len(brokers)), key=lambda number: (brokers[number][2], number))
    left = {(number, each): brokers[number][0] for number in order for each in range(brokers[number][1])}
    expected: dict[str, tuple[int, int]] = {}
    for name, having in enumerate(listed):
        plan.want(named(name), Mode.LTP, at(name, *(f"b{number}" for number in having)) if having else {})
        place = next((each for each, room in left.items() if room and each[0] in having), None)
        if place is not None:
            left[place] -= 1
            expected[f"S{name}"] = place
    assert seats(plan) == expected


@given(SMALL, LISTED)
def test_at_least_half_of_what_could_have_a_seat_has_one_and_all_where_every_broker_lists_all(
    brokers: list[tuple[int, int, int]], listed: list[set[int]]
) -> None:
    plan = Plan()
    plan.set_offers(
        offer(number, f"b{number}", "", priority, socket(room, count))
        for number, (room, count, priority) in enumerate(brokers)
    )
    for name, having in enumerate(listed):
        plan.want(named(name), Mode.LTP, at(name, *(f"b{number}" for number in having)) if having else {})
    rooms = {number: room * count for number, (room, count, _) in enumerate(brokers)}
    best = most_seated(listed, rooms)
    assert len(plan.seats()) <= best <= 2 * len(plan.seats())
    if all(having >= rooms.keys() for having in listed):
        assert len(plan.seats()) == best == min(len(listed), sum(rooms.values()))


def most_seated(listed: list[set[int]], rooms: dict[int, int]) -> int:
    """How many instruments can have a seat at best, by augmenting paths."""
    seated: dict[int, list[int]] = {number: [] for number in rooms}

    def seat(name: int, tried: set[int]) -> bool:
        for number in sorted(listed[name] & rooms.keys() - tried):
            tried.add(number)
            if len(seated[number]) < rooms[number]:
                seated[number].append(name)
                return True
            for other in list(seated[number]):
                if seat(other, tried):
                    seated[number].remove(other)
                    seated[number].append(name)
                    return True
        return False

    return sum(seat(name, set()) for name in range(len(listed)))
