"""What waits for a client: all of it while it reads, the newest of each key while it does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketdata.outbox import Entry, Outbox
from marketdata.ticks import Key, Mode

SBIN, INFY = Key("SBIN", "NSE", Mode.LTP), Key("INFY", "NSE", Mode.LTP)


def entry(key: Key, number: int) -> Entry:
    """A tick that says its number."""
    text = b"%d" % number
    return Entry(key, text, text)


def numbers(entries: list[Entry]) -> list[int]:
    """What the ticks say."""
    return [int(item.payload) for item in entries]


def test_a_client_that_reads_gets_every_tick_in_order() -> None:
    box = Outbox()
    for number, key in enumerate((SBIN, INFY, SBIN)):
        box.offer(entry(key, number))
    assert numbers(box.take(0)) == [0, 1, 2]
    assert not box.waiting()


def test_a_paused_client_gets_the_newest_of_each_key_and_is_told_how_many_were_replaced() -> None:
    box = Outbox()
    for number, key in enumerate((SBIN, INFY, SBIN, SBIN)):
        box.offer(entry(key, number))
        box.fold()
    assert (numbers(box.take(0)), box.take_merged(), box.take_merged()) == ([1, 3], 2, 0)


@given(st.lists(st.sampled_from([SBIN, INFY]), max_size=100))
def test_a_paused_client_waits_for_no_more_than_it_holds(keys: list[Key]) -> None:
    box = Outbox()
    for number, key in enumerate(keys):
        box.offer(entry(key, number))
        box.fold()
    taken = box.take(0)
    assert len(taken) == len(set(keys))
    assert len(taken) + box.take_merged() == len(keys)


def test_a_throttled_key_gives_its_newest_tick_once_per_interval() -> None:
    box = Outbox()
    box.throttle(SBIN, 1000)
    box.offer_throttled(entry(SBIN, 1))
    assert numbers(box.take(0)) == [1]
    box.offer_throttled(entry(SBIN, 2))
    box.offer_throttled(entry(SBIN, 3))
    assert (numbers(box.take(999)), box.next_due_ms()) == ([], 1000)
    assert numbers(box.take(1000)) == [3]


def test_nothing_of_a_key_goes_out_after_it_was_given_up() -> None:
    box = Outbox()
    box.offer(entry(SBIN, 1))
    box.offer(entry(INFY, 2))
    box.fold()
    box.offer(entry(SBIN, 3))
    box.throttle(INFY, 50)
    box.offer_throttled(entry(INFY, 4))
    box.forget({SBIN})
    assert numbers(box.take(0)) == [2, 4]
    box.offer_throttled(entry(INFY, 5))
    box.forget({INFY})
    assert not box.waiting()
