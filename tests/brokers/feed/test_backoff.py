"""The waits between attempts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.contract import ErrorKind
from brokers.feed.backoff import HEALTHY_S, POLICY, Backoff

RETRIED = [kind for kind, waits in POLICY.items() if waits is not None]


def test_every_kind_of_error_has_a_policy() -> None:
    assert set(POLICY) == set(ErrorKind)


def test_a_lost_network_is_tried_again_within_half_a_second_and_at_least_every_thirty() -> None:
    backoff = Backoff(random.random)
    waits = [backoff.failed(ErrorKind.NETWORK, lived_s=0.0) for _ in range(20)]
    assert waits[0] is not None and waits[0] <= 0.5
    assert all(wait is not None and wait <= 30.0 for wait in waits)


@pytest.mark.parametrize("kind", [ErrorKind.AUTH, ErrorKind.ENTITLEMENT])
def test_a_refused_login_is_never_tried_again(kind: ErrorKind) -> None:
    assert Backoff(random.random).failed(kind, lived_s=1e9) is None


@given(st.sampled_from(RETRIED), st.floats(0, 1), st.integers(0, 2000))
def test_waits_stay_between_half_the_first_and_the_longest(kind: ErrorKind, chance: float, attempts: int) -> None:
    policy = POLICY[kind]
    assert policy is not None
    backoff = Backoff(lambda: chance)
    for _ in range(min(attempts, 50)):
        wait = backoff.failed(kind, lived_s=HEALTHY_S - 0.1)
        assert wait is not None
        assert policy.after(0) / 2 <= wait <= policy.most_s


def test_jitter_spreads_the_waits() -> None:
    waits = {Backoff(random.random).failed(ErrorKind.NETWORK, lived_s=0.0) for _ in range(50)}
    assert len(waits) > 40


def test_short_lived_connections_do_not_reset_the_waits_and_healthy_ones_do() -> None:
    backoff = Backoff(lambda: 1.0)
    rising = [backoff.failed(ErrorKind.NETWORK, lived_s=1.0) for _ in range(3)]
    assert rising == [0.5, 1.0, 2.0]
    assert backoff.failed(ErrorKind.NETWORK, lived_s=HEALTHY_S) == 0.5


def test_after_new_credentials_the_first_wait_is_short_again() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(10):
        backoff.failed(ErrorKind.NETWORK, lived_s=0.0)
    backoff.restart()
    assert backoff.failed(ErrorKind.NETWORK, lived_s=0.0) == 0.5
