"""What one connection says to its broker, against a model of a broker that believes it."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brokers.contract import Limits
from brokers.feed.subscriptions import Command, Pacer, Subscriptions
from marketdata.ticks import Mode, Segment, Token

ROOM = 6
LIMITS = Limits(instruments_per_connection=ROOM, instruments_per_frame=2)
TOKENS = [Token(Segment.NSE, str(number)) for number in range(10)] + [Token(Segment.BSE, "1")]
MODES = [Mode.LTP, Mode.QUOTE, Mode.DEPTH]


def all_commands(held: Subscriptions, limits: Limits = LIMITS, now_s: float = 0.0) -> list[Command]:
    return list(iter(lambda: held.next(limits, now_s=now_s), None))


LIMITS_OF_ALL_KINDS = st.builds(
    Limits,
    instruments_per_connection=st.integers(1, ROOM),
    instruments_per_frame=st.integers(1, 4),
    by_mode=st.dictionaries(st.sampled_from(MODES), st.integers(1, ROOM), max_size=2),
    at_most=st.dictionaries(st.sampled_from(MODES), st.integers(1, 3), max_size=2),
)


def is_within(held: Mapping[Token, Mode], limits: Limits) -> bool:
    modes = list(held.values())
    room = min((limits.room(mode) for mode in modes), default=ROOM)
    return len(held) <= room and all(modes.count(mode) <= most for mode, most in limits.at_most.items())


class Conversation(RuleBasedStateMachine):
    """The planner's changes of mind, commands taken at any time, connections that break, and limits that change."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Subscriptions()
        self.limits = LIMITS
        self.wanted: dict[Token, Mode] = {}
        self.broker: dict[Token, Mode] = {}

    @rule(token=st.sampled_from(TOKENS), mode=st.sampled_from(MODES))
    def want(self, token: Token, mode: Mode) -> None:
        """The planner keeps to the limits: it wants no more at a time than the broker allows."""
        if is_within(self.wanted | {token: mode}, self.limits):
            self.wanted[token] = mode
            self.held.want(token, mode)

    @rule(limits=LIMITS_OF_ALL_KINDS)
    def change_limits(self, limits: Limits) -> None:
        """The planner takes away what is too much before the limits change; what the broker holds may be more."""
        for token in list(self.wanted):
            if not is_within(self.wanted, limits):
                self.drop(token)
        self.say_all()
        self.limits = limits

    @rule(token=st.sampled_from(TOKENS))
    def drop(self, token: Token) -> None:
        self.wanted.pop(token, None)
        self.held.drop(token)

    @rule()
    def say_one(self) -> None:
        command = self.held.next(self.limits, now_s=0.0)
        if command is not None:
            self.hear(command)

    @rule()
    def reconnect(self) -> None:
        self.broker.clear()
        self.held.restart()

    def hear(self, command: Command) -> None:
        assert 1 <= len(command.tokens) <= self.limits.instruments_per_frame
        assert len(set(command.tokens)) == len(command.tokens)
        for token in command.tokens:
            if command.subscribe:
                assert self.broker.get(token) != command.mode, "said twice"
                self.broker[token] = command.mode
            else:
                assert self.broker.pop(token) == command.mode
                assert self.wanted.get(token) != command.mode, "told off for nothing"
            assert is_within(self.broker, self.limits), "the broker's limit was exceeded"

    @precondition(lambda self: self.wanted)
    @rule()
    def say_all(self) -> None:
        commands = 0
        while (command := self.held.next(self.limits, now_s=0.0)) is not None:
            self.hear(command)
            commands += 1
            assert commands <= 3 * len(TOKENS), "it comes to no end"
        assert self.broker == self.wanted
        assert self.held.difference(self.wanted) == 0

    @invariant()
    def it_knows_what_is_wanted_and_said(self) -> None:
        assert self.held.wanted() == self.wanted
        assert self.held.sent == len(self.broker)
        assert set(self.held.unheard) == set(self.held.unpriced) == set(self.broker) == set(self.held.order())
        pairs = self.wanted.items() ^ self.broker.items()
        assert self.held.difference(self.wanted) == len({token for token, _ in pairs})


TestConversation = Conversation.TestCase


@given(st.integers(0, 250), st.integers(1, 100))
def test_commands_are_cut_to_the_frame_limit_and_together_say_all(count: int, per_frame: int) -> None:
    held = Subscriptions()
    tokens = [Token(Segment.NFO, str(number)) for number in range(count)]
    for token in tokens:
        held.want(token, Mode.QUOTE)
    commands = all_commands(held, Limits(instruments_per_frame=per_frame))
    assert [token for command in commands for token in command.tokens] == tokens
    assert all(len(command.tokens) == per_frame for command in commands[:-1])


def test_unsubscribing_is_said_before_subscribing() -> None:
    held = Subscriptions()
    held.want(TOKENS[0], Mode.LTP)
    all_commands(held)
    held.want(TOKENS[1], Mode.LTP)
    held.drop(TOKENS[0])
    assert [command.subscribe for command in all_commands(held)] == [False, True]


def test_where_two_change_places_in_modes_that_are_full_one_is_told_off_first() -> None:
    limits = Limits(at_most={Mode.LTP: 1, Mode.DEPTH: 1})
    held = Subscriptions()
    held.want(TOKENS[0], Mode.LTP)
    held.want(TOKENS[1], Mode.DEPTH)
    all_commands(held, limits)
    held.want(TOKENS[0], Mode.DEPTH)
    held.want(TOKENS[1], Mode.LTP)
    said = [(command.subscribe, command.mode) for command in all_commands(held, limits)]
    assert said[0][0] is False
    assert len(said) == 3
    assert (held.told(TOKENS[0]), held.told(TOKENS[1])) == (Mode.DEPTH, Mode.LTP)


def test_those_that_free_room_in_a_mode_are_told_before_those_that_take_it() -> None:
    limits = Limits(instruments_per_connection=6, by_mode={Mode.DEPTH: 2})
    held = Subscriptions()
    for token in TOKENS[:2]:
        held.want(token, Mode.DEPTH)
    all_commands(held, limits)
    for token in TOKENS[2:6]:
        held.want(token, Mode.LTP)
    for token in TOKENS[:2]:
        held.want(token, Mode.LTP)
    assert [command.tokens for command in all_commands(held, limits)] == [tuple(TOKENS[:2]), tuple(TOKENS[2:6])]


def test_what_is_more_than_the_limit_is_not_told_before_there_is_room() -> None:
    limits = Limits(instruments_per_connection=2)
    held = Subscriptions()
    for token in TOKENS[:3]:
        held.want(token, Mode.LTP)
    assert [command.tokens for command in all_commands(held, limits)] == [tuple(TOKENS[:2])]
    assert held.difference(held.wanted()) == 1
    held.drop(TOKENS[0])
    assert [(command.subscribe, command.tokens) for command in all_commands(held, limits)] == [
        (False, (TOKENS[0],)),
        (True, (TOKENS[2],)),
    ]


def test_another_mode_is_said_without_unsubscribing() -> None:
    held = Subscriptions()
    held.want(TOKENS[0], Mode.LTP)
    all_commands(held)
    held.want(TOKENS[0], Mode.DEPTH)
    assert all_commands(held) == [Command(True, (TOKENS[0],), Mode.DEPTH)]


def test_a_change_of_mind_before_the_frame_went_out_is_never_said() -> None:
    held = Subscriptions()
    held.want(TOKENS[0], Mode.LTP)
    held.drop(TOKENS[0])
    assert all_commands(held) == []
    held.want(TOKENS[0], Mode.LTP)
    all_commands(held)
    held.drop(TOKENS[0])
    held.want(TOKENS[0], Mode.LTP)
    assert all_commands(held) == []


def test_what_was_not_heard_of_is_known_with_the_time_of_the_first_telling() -> None:
    held = Subscriptions()
    held.want(TOKENS[0], Mode.LTP)
    held.want(TOKENS[1], Mode.LTP)
    all_commands(held, now_s=5.0)
    held.heard([TOKENS[0]])
    held.want(TOKENS[1], Mode.QUOTE)
    all_commands(held, now_s=9.0)
    assert held.unheard == {TOKENS[1]: 5.0}


@given(st.sampled_from([0.5, 1.0, 3.0, 10.0, 40.0]), st.lists(st.floats(0, 3), max_size=150))
def test_no_second_holds_more_frames_than_allowed(rate: float, pauses: list[float]) -> None:
    pacer, now_s, sent = Pacer(), 0.0, list[float]()
    for pause_s in pauses:
        now_s += pause_s if pause_s > 1 else 0.0
        now_s += pacer.wait_s(rate, now_s=now_s)
        pacer.count(now_s)
        sent.append(now_s)
    window_s, most = max(1.0, 1 / rate), max(int(rate), 1)
    for start in sent:
        assert sum(start <= instant < start + window_s - 1e-6 for instant in sent) <= most


def test_frames_within_the_rate_do_not_wait() -> None:
    pacer = Pacer()
    for _ in range(10):
        assert pacer.wait_s(10.0, now_s=3.0) == 0.0
        pacer.count(3.0)
    assert pacer.wait_s(10.0, now_s=3.0) == 1.0
