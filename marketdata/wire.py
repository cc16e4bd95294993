"""
A tick as the bytes that cross ZeroMQ and the channel layer.

One layout on both hops: a fixed header, then msgpack. The header holds what the bridge needs, so the bridge never
decodes a tick; it only rewrites the header (how many ticks this one stands for, whether it is a last value).

    offset  size  field
    0       1     version
    1       1     flags: 1 snapshot, 2 stale, 4 the body is a FeedStatus
    2       4     conflated: ticks this one stands for beyond itself
    6       8     number: rises by one with every message of this publisher
    14      8     epoch_ms: when this publisher started
    22      8     seq of the key
    30      8     received_ms: gateway receipt
    38      -     msgpack body (Tick as an array, FeedStatus as a map)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from marketdata.ticks import FeedStatus, Tick

VERSION = 1
SNAPSHOT, STALE, STATUS = 1, 2, 4

_HEADER = struct.Struct(">BBIQQQQ")
_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_ticks = msgspec.msgpack.Decoder(Tick)
_statuses = msgspec.msgpack.Decoder(FeedStatus)


class WireError(ValueError):
    """Bytes of another version, or none of ours."""


class Header(NamedTuple):
    """What the bridge reads of a message; fields as in the module's table."""

    version: int
    flags: int
    conflated: int
    number: int
    epoch_ms: int
    seq: int
    received_ms: int


class Delivery(NamedTuple):
    """A tick as it reaches a client: with how many it stands for, and whether it is a last value or an old one.

    `epoch_ms` is when its publisher started: a new one means that the sequences were begun anew.
    """

    tick: Tick
    conflated: int
    snapshot: bool
    stale: bool
    epoch_ms: int


def encode(tick: Tick, *, number: int, epoch_ms: int, flags: int = 0) -> bytes:
    """
    A tick as a payload.

    >>> from marketdata.ticks import Mode
    >>> tick = Tick(symbol="SBIN", exchange="NSE", mode=Mode.LTP, broker="zerodha", ltp=625.5, received_ms=5, seq=9)
    >>> payload = encode(tick, number=1, epoch_ms=4)
    >>> decode(payload).tick == tick, header(payload).seq
    (True, 9)
    """
    return _HEADER.pack(VERSION, flags, 0, number, epoch_ms, tick.seq, tick.received_ms) + _encoder.encode(tick)


def encode_status(status: FeedStatus, *, number: int, epoch_ms: int) -> bytes:
    """A feed's state as a payload."""
    return _HEADER.pack(VERSION, STATUS, 0, number, epoch_ms, 0, status.received_ms) + _encoder.encode(status)


def header(payload: bytes) -> Header:
    """
    The header of a payload.

    Raises WireError: too short, or of another version.
    """
    if len(payload) < _HEADER.size:
        raise WireError(f"A payload of {len(payload)} bytes is too short.")
    fields = Header._make(_HEADER.unpack_from(payload))
    if fields.version != VERSION:
        raise WireError(f"Payload version {fields.version}, this program reads {VERSION}; restart all processes.")
    return fields


def marked(payload: bytes, fields: Header, *, flags: int = 0, conflated: int = 0) -> bytes:
    """The same payload with flags added and `conflated` set; `fields` is its header."""
    head = _HEADER.pack(VERSION, fields.flags | flags, conflated, *fields[3:])
    return head + payload[_HEADER.size :]


def decode(payload: bytes) -> Delivery:
    """
    The tick in a payload.

    Raises WireError.
    """
    _, flags, conflated, _, epoch_ms, _, _ = header(payload)
    try:
        tick = _ticks.decode(payload[_HEADER.size :])
    except msgspec.MsgspecError as error:
        raise WireError(f"The payload's body is no tick: {error}") from error
    return Delivery(tick, conflated, flags & SNAPSHOT != 0, flags & STALE != 0, epoch_ms)


def decode_status(payload: bytes) -> FeedStatus:
    """
    The feed status in a payload.

    Raises WireError.
    """
    try:
        return _statuses.decode(memoryview(payload)[_HEADER.size :])
    except msgspec.MsgspecError as error:
        raise WireError(f"The payload's body is no feed status: {error}") from error


def pack(payloads: Iterable[bytes]) -> bytes:
    """Several payloads of one key as one value, in order."""
    return b"".join(part for payload in payloads for part in (_LENGTH.pack(len(payload)), payload))


def unpack(packed: bytes) -> Iterator[bytes]:
    """
    The payloads of one value.

    >>> list(unpack(pack([b"a", b"bc"])))
    [b'a', b'bc']
    """
    offset, end = 0, len(packed)
    while offset < end:
        (length,) = _LENGTH.unpack_from(packed, offset)
        offset += _LENGTH.size
        yield packed[offset : offset + length]
        offset += length
