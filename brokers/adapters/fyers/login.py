"""
The access token and what is inside it. Pure.

It is a JWT: three parts in base64, the middle one JSON. It is read, not verified: that is the broker's to do.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from brokers.contract import ErrorKind, Refused


class Access(NamedTuple):
    """A token that has not expired yet; `hsm_key` opens the data socket, "" where the token has none."""

    app_id: str
    token: str
    hsm_key: str

    @property
    def header(self) -> str:
        """The value of the Authorization header."""
        return f"{self.app_id}:{self.token}"


class _Claims(msgspec.Struct):
    exp: float = 0.0
    hsm_key: str = ""


def access(credentials: Mapping[str, str], now_ms: int) -> Access:
    """
    The account's token, which may be stored with or without `app_id:` before it.

    Raises Refused: one is missing, it is no JWT, or its time is over.
    """
    missing = [name for name in ("app_id", "access_token") if not credentials.get(name)]
    if missing:
        raise Refused(ErrorKind.AUTH, f"Fyers needs {' and '.join(missing)}; log in, or enter it in the admin.")
    token = credentials["access_token"].rpartition(":")[2].strip()
    claims = _claims(token)
    if claims.exp and claims.exp * 1000 <= now_ms:
        raise Refused(ErrorKind.AUTH, "The access token of Fyers has expired; log in again.")
    return Access(credentials["app_id"].strip(), token, claims.hsm_key)


def _claims(token: str) -> _Claims:
    try:
        _, payload, _ = token.split(".")
        text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(text, type=_Claims)
    except (ValueError, msgspec.MsgspecError):
        raise Refused(ErrorKind.AUTH, "The access token of Fyers is no such token; log in, or enter it anew.") from None


def app_id_hash(app_id: str, secret: str) -> str:
    """The proof that the login is for this app."""
    return hashlib.sha256(f"{app_id}:{secret}".encode()).hexdigest()
