"""
HSM, the binary socket protocol under several brokers' market data. Pure. Everything is big-endian.

A control frame is a length (u16), its kind (u8), a count (u8), then that many fields: an id (u8), a length (u16) and so
many bytes. The length counts what follows it; servers do not check a client's. A data frame (kind 6) is a message
number and entries: a snapshot gives a topic (`sf|nse_cm|3045`) an id that lives as long as the socket, with values by
position and the divisor of its prices; updates name the id only. What a position means is the broker's.

Source: the layout as in Fyers' official clients of Python, Go, JavaScript and C, which agree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

AUTH, ACKNOWLEDGE, SUBSCRIBE, UNSUBSCRIBE, DATA, PAUSE, RESUME = 1, 3, 4, 5, 6, 7, 8
KEEP_ALIVE, MODE, SCHEMA, MESSAGE = 11, 12, 13, 51
"""Kinds of frame: the third byte."""

KIND_AT = 2
"""Where a frame's kind stands; a shorter frame has none."""

ACCEPTED = b"K"
"""A reply's status: anything else is a refusal."""

FULL, LITE = b"F", b"L"
"""What a mode frame asks for: all fields, or the last price only."""

ABSENT = -(2**31)
"""A value that says nothing: unchanged in an update, not known in a snapshot."""

KEEP_ALIVE_FRAME = bytes.fromhex("00010b")

SNAPSHOT_ENTRY, UPDATE_ENTRY, LITE_ENTRY = b"SUL"

_CONTROL = struct.Struct(">HBB")
_FIELD = struct.Struct(">BH")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_DATA_HEAD = struct.Struct(">3xIH")
_TOPIC_HEAD = struct.Struct(">HB")
_LITE = struct.Struct(">Hi")
_TAIL = struct.Struct(">2xHB")
_VALUES = tuple([struct.Struct(f">{count}i") for count in range(256)])

Fields = Sequence[tuple[int, bytes]]
"""Ids and values of a control frame."""


class Damage(Exception):
    """Bytes that are no HSM frame; what was read before them counts."""


# ------------------------------------------------------------------------------------------------------- control frames


def encode(kind: int, fields: Fields, *, counted: bool = True) -> bytes:
    """
    A control frame. Without `counted` its length is 0, as the official clients write it in some kinds.

    >>> encode(ACKNOWLEDGE, [(1, bytes(4))]).hex()
    '0009030101000400000000'
    """
    body = b"".join(_FIELD.pack(id_, len(value)) + value for id_, value in fields)
    return _CONTROL.pack(len(body) + 2 if counted else 0, kind, len(fields)) + body


def encode_topics(kind: int, topics: Sequence[str], channel: int) -> bytes:
    """
    SUBSCRIBE or UNSUBSCRIBE of topics on a channel.

    >>> encode_topics(SUBSCRIBE, ["sf|nse_cm|3045"], 11).hex()
    '001a040201001100010e73667c6e73655f636d7c333034350200010b'
    """
    names = [topic.encode("ascii", "replace") for topic in topics]
    block = _U16.pack(len(names)) + b"".join(bytes([len(name)]) + name for name in names)
    return encode(kind, [(1, block), (2, bytes([channel]))])


def encode_mode(what: bytes, channel: int) -> bytes:
    """
    FULL or LITE data on a channel; channels are the bits of a 64-bit number.

    >>> encode_mode(FULL, 11).hex()
    '00000c02010008000000000000080002000146'
    """
    return encode(MODE, [(1, _U64.pack(1 << channel)), (2, what)], counted=False)


def encode_acknowledgement(message: int) -> bytes:
    """
    "Everything up to this message number arrived."

    >>> encode_acknowledgement(50).hex()
    '0009030101000400000032'
    """
    return encode(ACKNOWLEDGE, [(1, _U32.pack(message))])


def read_fields(frame: bytes) -> dict[int, bytes]:
    """
    A control frame's fields by their id.

    Raises Damage: the frame ends inside a field.

    >>> read_fields(bytes.fromhex("000b010201" "00014b" "0200040000" "0032"))
    {1: b'K', 2: b'\\x00\\x00\\x002'}
    """
    fields = {}
    try:
        _, _, count = _CONTROL.unpack_from(frame)
        at = _CONTROL.size
        for _ in range(count):
            id_, length = _FIELD.unpack_from(frame, at)
            at += _FIELD.size + length
            fields[id_] = frame[at - length : at]
    except struct.error:
        raise Damage(f"a control frame of {len(frame)} bytes ends inside a field") from None
    if at > len(frame):
        raise Damage(f"a control frame of {len(frame)} bytes ends inside a field")
    return fields


# ---------------------------------------------------------------------------------------------------------------- data


def message_number(frame: bytes) -> int | None:
    """A data frame's number, by which it is acknowledged; None where the frame is too short to have one."""
    return None if len(frame) < _DATA_HEAD.size else int(_DATA_HEAD.unpack_from(frame)[0])


class Topic:
    """
    What is known under one topic id: values by position, ABSENT where none was ever sent.

    `kind` is the name's first part (sf, if, dp), `subject` the rest (nse_cm|3045). Prices are divided by `divisor`.
    """

    __slots__ = ("divisor", "kind", "name", "subject", "values")

    def __init__(self, name: str, values: list[int], divisor: int) -> None:
        self.name = name
        self.kind, _, self.subject = name.partition("|")
        self.values = values
        self.divisor = divisor


class Reader:
    """
    The topics of one socket, kept up to date by its data frames.

    `widths` has the number of values of each kind of topic: more are passed over, fewer are filled with ABSENT. Topics
    of other kinds are passed over.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        self._widths = widths
        self._topics: dict[int, Topic] = {}
        """By the id that the latest snapshot gave."""

    def read(self, frame: bytes) -> Iterator[Topic]:
        """
        The topic of each entry of a data frame, with the entry merged into it: read it before the next is taken.

        An entry of a topic id without a snapshot is passed over. Raises Damage: an entry of an unknown kind or one that
        runs over the frame's end (those behind it are lost, their places not being known), and last, a snapshot whose
        prices cannot be divided.
        """
        damage = ""
        topics = self._topics
        try:
            _, count = _DATA_HEAD.unpack_from(frame)
            at = _DATA_HEAD.size
            for number in range(1, count + 1):
                entry = frame[at]
                if entry == UPDATE_ENTRY:
                    id_, width = _TOPIC_HEAD.unpack_from(frame, at + 1)
                    values = _VALUES[width].unpack_from(frame, at + 4)
                    at += 4 + 4 * width
                    topic = topics.get(id_)
                    if topic is None:
                        continue
                    topic.values = _merged(topic.values, values)
                elif entry == SNAPSHOT_ENTRY:
                    (id_,) = _U16.unpack_from(frame, at + 1)
                    topic, at = self._snapshot(frame, at + 3)
                    if not topic.divisor:
                        damage = damage or f"{topic.name} has the multiplier 0"
                        continue
                    if topic.kind not in self._widths:
                        topics.pop(id_, None)
                        continue
                    topics[id_] = topic
                elif entry == LITE_ENTRY:
                    id_, value = _LITE.unpack_from(frame, at + 1)
                    at += 7
                    topic = topics.get(id_)
                    if topic is None:
                        continue
                    topic.values = _merged(topic.values, (value,))
                else:
                    raise Damage(f"entry {number} is of the unknown kind {entry:#04x}")
                yield topic
        except (struct.error, IndexError):
            raise Damage(f"an entry runs over the frame's end at byte {len(frame)}") from None
        if damage:
            raise Damage(damage)

    def _snapshot(self, frame: bytes, at: int) -> tuple[Topic, int]:
        """
        The topic of a snapshot whose name begins here, and where the entry ends.

        Raises struct.error, IndexError: it runs over the end.
        """
        name, at = _text(frame, at)
        width = frame[at]
        values = list(_VALUES[width].unpack_from(frame, at + 1))
        at += 1 + 4 * width
        multiplier, precision = _TAIL.unpack_from(frame, at)
        at += _TAIL.size
        for _ in ("exchange", "its token", "its symbol"):
            _, at = _text(frame, at)
        topic = Topic(name, values, 10**precision * multiplier)
        wanted = self._widths.get(topic.kind, width)
        topic.values = values[:wanted] + [ABSENT] * (wanted - width)
        return topic, at


def _merged(old: list[int], new: tuple[int, ...]) -> list[int]:
    return [was if now == ABSENT else now for was, now in zip(old, new, strict=False)] + old[len(new) :]


def _text(frame: bytes, at: int) -> tuple[str, int]:
    """A text with its length before it, and where it ends. Raises IndexError: it runs over the end."""
    end = at + 1 + frame[at]
    if end > len(frame):
        raise IndexError(end)
    return frame[at + 1 : end].decode("utf-8", "replace"), end
