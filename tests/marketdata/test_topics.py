"""Keys, topics and group names turn into each other without loss."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketdata.ticks import EXCHANGES, Key, Mode
from marketdata.topics import group_of, key_of_group, key_of_topic, split, status_key, topic_of

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
FEEDS = st.sampled_from(["", "desk", "a b"])
KEYS = st.builds(Key, TEXT, st.sampled_from(sorted(EXCHANGES)), st.sampled_from(Mode), FEEDS)


@given(KEYS)
def test_a_topic_gives_its_key_back(key: Key) -> None:
    assert key_of_topic(topic_of(key)) == key
    assert split(topic_of(key) + b"\0rest") == (topic_of(key), b"\0rest")


@given(KEYS)
def test_a_group_gives_its_key_back_and_is_a_legal_name(key: Key) -> None:
    group = group_of(key)
    assert key_of_group(group) == key
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,99}", group)


@given(KEYS, KEYS)
def test_no_keys_topic_is_a_prefix_of_anothers(one: Key, other: Key) -> None:
    assert one == other or not topic_of(other).startswith(topic_of(one))


def test_the_status_key_is_no_instruments_key() -> None:
    assert status_key().exchange not in EXCHANGES
    assert key_of_group(group_of(status_key("desk"))) == status_key("desk")


def test_a_symbol_with_a_control_character_is_refused() -> None:
    with pytest.raises(ValueError, match="control character"):
        topic_of(Key("SB\0IN", "NSE", Mode.LTP))


def test_an_endless_symbol_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        group_of(Key("X" * 100, "NSE", Mode.LTP))


@pytest.mark.parametrize("junk", [b"", b"\0", b"SBIN", b"\x1f\x1f\x1f", b"\x1fNSE\x1fLTQ\x1fSBIN\0"])
def test_junk_is_no_topic(junk: bytes) -> None:
    with pytest.raises(ValueError, match="not the topic"):
        key_of_topic(junk)
