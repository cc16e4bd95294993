"""
The access token, which is a JWT, and what is inside it. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from brokers import tokens
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
    claims = tokens.jwt_payload(token, _Claims)
    if claims is None:
        raise Refused(ErrorKind.AUTH, "The access token of Fyers is no such token; log in, or enter it anew.")
    if claims.exp and claims.exp * 1000 <= now_ms:
        raise Refused(ErrorKind.AUTH, "The access token of Fyers has expired; log in again.")
    return Access(credentials["app_id"].strip(), token, claims.hsm_key)


def app_id_hash(app_id: str, secret: str) -> str:
    """The proof that the login is for this app."""
    return hashlib.sha256(f"{app_id}:{secret}".encode()).hexdigest()
