"""
An instrument key as a ZeroMQ topic and as a Channels group name, and back. Nowhere else.

ZeroMQ filters by prefix, so a topic ends in a byte no field may hold: no key's topic is a prefix of another's.
Channels allows `[A-Za-z0-9._-]` under 100 characters, symbols hold `&`, blanks and more, so a group name escapes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from marketdata.ticks import Key, Mode

_SEPARATOR = "\x1f"
_END = b"\0"
_GROUP_LIMIT = 100
_PLAIN = re.compile(r"[^A-Za-z0-9-]")
_ESCAPED = re.compile(r"(?:_[0-9a-f]{2})+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

STATUS_EXCHANGE = "-STATUS-"
REPORT_EXCHANGE = "-REPORT-"
WHY_EXCHANGE = "-WHY-"


def status_key(feed: str = "") -> Key:
    """The reserved key on which the state of a feed travels; no exchange has this name."""
    return Key("feed", STATUS_EXCHANGE, Mode.LTP, feed)


def report_key() -> Key:
    """The reserved key on which the adapters' process reports on all it has; see `marketdata.report`."""
    return Key("all", REPORT_EXCHANGE, Mode.LTP)


def why_key(symbol: str, exchange: str, feed: str = "") -> Key:
    """
    The reserved key on which the adapters' process tells what it knows of one instrument; no exchange has this name.

    >>> asked_of(why_key("NIFTY 50", "NSE_INDEX", "desk"))
    ('NIFTY 50', 'NSE_INDEX')
    """
    return Key(f"{exchange}:{symbol}", WHY_EXCHANGE, Mode.LTP, feed)


def asked_of(key: Key) -> tuple[str, str]:
    """The symbol and the exchange that a `why_key` asks of."""
    exchange, _, symbol = key.symbol.partition(":")
    return symbol, exchange


@lru_cache(maxsize=65536)
def topic_of(key: Key) -> bytes:
    """
    The ZeroMQ topic of a key.

    Raises ValueError for a field with control characters: they separate the parts.

    >>> topic_of(Key("M&M", "NSE", Mode.LTP))
    b'\\x1fNSE\\x1fLTP\\x1fM&M\\x00'
    """
    for part in (key.symbol, key.exchange, key.feed):
        if _CONTROL.search(part):
            raise ValueError(f"{part!r} holds a control character; symbols, exchanges and feeds must not.")
    return _SEPARATOR.join((key.feed, key.exchange, key.mode.name, key.symbol)).encode() + _END


@lru_cache(maxsize=65536)
def key_of_topic(topic: bytes) -> Key:
    """
    The key of a topic.

    Raises ValueError for bytes that `topic_of` does not make.

    >>> key_of_topic(topic_of(Key("NIFTY 50", "NSE_INDEX", Mode.DEPTH20, "desk")))
    Key(symbol='NIFTY 50', exchange='NSE_INDEX', mode=<Mode.DEPTH20: 20>, feed='desk')
    """
    parts = topic.removesuffix(_END).decode().split(_SEPARATOR)
    if len(parts) != 4 or parts[2] not in Mode.__members__:
        raise ValueError(f"{topic!r} is not the topic of a key.")
    feed, exchange, mode, symbol = parts
    return Key(symbol, exchange, Mode[mode], feed)


def split(message: bytes) -> tuple[bytes, bytes]:
    """
    A bus message's topic (with its end byte) and payload.

    >>> split(topic_of(Key("SBIN", "NSE", Mode.LTP)) + b"payload")
    (b'\\x1fNSE\\x1fLTP\\x1fSBIN\\x00', b'payload')
    """
    end = message.index(_END) + 1
    return message[:end], message[end:]


@lru_cache(maxsize=65536)
def group_of(key: Key) -> str:
    """
    The Channels group of a key.

    Raises ValueError where the name would be too long for Channels: the symbol, with its escapes, is over about 80.

    >>> group_of(Key("M&M", "NSE", Mode.LTP)), group_of(Key("NIFTY", "NSE_INDEX", Mode.QUOTE, "desk"))
    ('t..NSE.LTP.M_26M', 't.desk.NSE_5fINDEX.QUOTE.NIFTY')
    """
    group = ".".join(("t", *map(_escape, (key.feed, key.exchange, key.mode.name, key.symbol))))
    if len(group) >= _GROUP_LIMIT:
        raise ValueError(f"The symbol {key.symbol!r} is too long; use one of at most {_GROUP_LIMIT // 5} characters.")
    return group


def key_of_group(group: str) -> Key:
    """
    The key of a group name.

    >>> key_of_group(group_of(Key("BAJAJ-AUTO", "NSE", Mode.DEPTH)))
    Key(symbol='BAJAJ-AUTO', exchange='NSE', mode=<Mode.DEPTH: 5>, feed='')
    """
    parts = group.split(".")
    if len(parts) != 5 or parts[0] != "t" or parts[3] not in Mode.__members__:
        raise ValueError(f"{group!r} is not the group of a key.")
    return Key(_unescape(parts[4]), _unescape(parts[2]), Mode[parts[3]], _unescape(parts[1]))


def _escape(text: str) -> str:
    return _PLAIN.sub(lambda match: "".join(f"_{byte:02x}" for byte in match[0].encode()), text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: bytes.fromhex(match[0].replace("_", "")).decode(), text)
