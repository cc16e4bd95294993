"""One-time passwords by time, as authenticator apps make them. Pure: the instant is an argument."""

from __future__ import annotations

import base64
import hashlib
import hmac

STEP_MS = 30_000


def totp(secret: str, now_ms: int, digits: int = 6) -> str:
    """
    The password of the half minute in which `now_ms` (Unix ms) lies; `secret` is base32, as behind the QR code.

    Raises ValueError: the secret is no base32.

    Source: RFC 6238 with HMAC-SHA1 and RFC 4226, 5.3; the example is the former's first test vector, in six digits.

    >>> totp("GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ", 59_000)
    '287082'
    """
    text = "".join(secret.split()).replace("-", "").rstrip("=").upper()
    try:
        key = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:  # of base32, or of ASCII
        raise ValueError("the TOTP secret is no base32, the letters A to Z and digits 2 to 7 of a QR code.") from None
    if not key:
        raise ValueError("the TOTP secret is empty.")
    digest = hmac.digest(key, (now_ms // STEP_MS).to_bytes(8, "big"), hashlib.sha1)
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**digits:0{digits}}"
