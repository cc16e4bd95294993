"""WebSocket frames as a server sends them: text, final, unmasked (RFC 6455, section 5.2). Pure."""

from __future__ import annotations

import struct

_SHORT = struct.Struct(">BB")
_MEDIUM = struct.Struct(">BBH")
_LONG = struct.Struct(">BBQ")
_TEXT = 0x81


def frame_of(payload: bytes) -> bytes:
    """
    One text frame.

    >>> frame_of(b"ping"), frame_of(bytes(200))[:4], len(frame_of(bytes(70_000)))
    (b'\\x81\\x04ping', b'\\x81~\\x00\\xc8', 70010)
    """
    size = len(payload)
    if size < 126:
        return _SHORT.pack(_TEXT, size) + payload
    if size < 65536:
        return _MEDIUM.pack(_TEXT, 126, size) + payload
    return _LONG.pack(_TEXT, 127, size) + payload
