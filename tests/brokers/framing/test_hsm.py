"""HSM's frames: what is damaged costs as little as it can, what is unknown is passed over."""

from __future__ import annotations

import struct

import pytest

from brokers.framing import hsm

WIDTHS = {"sf": 3}


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def snapshot(id_: int, name: str, values: list[int], *, multiplier: int = 1, precision: int = 2) -> bytes:
    return b"".join(
        (
            struct.pack(">cH", b"S", id_) + short(name),
            struct.pack(f">B{len(values)}i", len(values), *values),
            struct.pack(">HHB", 0xFFFF, multiplier, precision) + short("nse_cm") + short("3045") + short("SBIN-EQ"),
        )
    )


def update(id_: int, values: list[int]) -> bytes:
    return struct.pack(f">cHB{len(values)}i", b"U", id_, len(values), *values)


def frame(*entries: bytes, count: int | None = None) -> bytes:
    body = struct.pack(">BIH", 6, 1, len(entries) if count is None else count) + b"".join(entries)
    return struct.pack(">H", len(body)) + body


def read(reader: hsm.Reader, data: bytes) -> list[list[int]]:
    return [topic.values for topic in reader.read(data)]


def test_values_beyond_the_known_are_dropped_and_missing_ones_are_absent() -> None:
    reader = hsm.Reader(WIDTHS)
    assert read(reader, frame(snapshot(1, "sf|a|1", [1, 2, 3, 4]))) == [[1, 2, 3]]
    assert read(reader, frame(snapshot(1, "sf|a|1", [1]))) == [[1, hsm.ABSENT, hsm.ABSENT]]
    assert read(reader, frame(update(1, [hsm.ABSENT, 5, 6, 7, 8]))) == [[1, 5, 6]]


def test_a_snapshot_replaces_all_that_was_known_under_its_id() -> None:
    reader = hsm.Reader(WIDTHS)
    read(reader, frame(snapshot(1, "sf|a|1", [1, 2, 3])))
    [topic] = reader.read(frame(snapshot(1, "sf|b|2", [hsm.ABSENT, 9], multiplier=100)))
    assert (topic.kind, topic.subject, topic.divisor) == ("sf", "b|2", 10_000)
    assert topic.values == [hsm.ABSENT, 9, hsm.ABSENT]


def test_ids_without_a_snapshot_and_kinds_of_no_interest_are_passed_over() -> None:
    reader = hsm.Reader(WIDTHS)
    entries = (update(7, [1]), b"L\0\x07\0\0\0\x01", snapshot(1, "xx|a|1", [1]), update(1, [2]))
    assert read(reader, frame(*entries, snapshot(2, "sf|a|1", [3, 4, 5]))) == [[3, 4, 5]]


def test_an_id_given_to_a_kind_of_no_interest_no_longer_means_what_it_did() -> None:
    reader = hsm.Reader(WIDTHS)
    read(reader, frame(snapshot(1, "sf|a|1", [1, 2, 3]), snapshot(1, "xx|a|1", [1])))
    assert read(reader, frame(update(1, [9]))) == []


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_an_entry_cut_short_costs_only_itself(cut: int) -> None:
    reader = hsm.Reader(WIDTHS)
    whole = frame(snapshot(1, "sf|a|1", [1, 2, 3]), snapshot(2, "sf|a|2", [4, 5, 6]))
    topics = reader.read(whole[:-cut])
    assert next(topics).values == [1, 2, 3]
    with pytest.raises(hsm.Damage, match="runs over"):
        next(topics)
    assert read(reader, frame(update(2, [1]), update(1, [7]))) == [[7, 2, 3]]


def test_an_unknown_kind_of_entry_ends_the_frame_and_a_count_too_high_does_too() -> None:
    with pytest.raises(hsm.Damage, match="0x5a"):
        read(hsm.Reader(WIDTHS), frame(b"Z123"))
    with pytest.raises(hsm.Damage, match="runs over"):
        read(hsm.Reader(WIDTHS), frame(count=1))


def test_prices_that_cannot_be_divided_are_named_and_cost_only_their_topic() -> None:
    reader = hsm.Reader(WIDTHS)
    topics = reader.read(frame(snapshot(1, "sf|a|1", [1], multiplier=0), snapshot(2, "sf|a|2", [4, 5, 6])))
    assert next(topics).values == [4, 5, 6]
    with pytest.raises(hsm.Damage, match="multiplier"):
        next(topics)


@pytest.mark.parametrize("hexed", ["0004", "00040101", "0004010101ffff", "0006010201000100"])
def test_a_control_frame_that_ends_inside_a_field_is_damaged(hexed: str) -> None:
    with pytest.raises(hsm.Damage, match="ends inside"):
        hsm.read_fields(bytes.fromhex(hexed))


def test_a_data_frame_has_a_number_where_it_is_long_enough() -> None:
    assert hsm.message_number(bytes.fromhex("0007 06 00000032 0000".replace(" ", ""))) == 50
    assert hsm.message_number(b"\0\0\x06\0\0\0\x32") is None
