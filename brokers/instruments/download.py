"""Instrument masters from a broker's address or from a file, as text lines."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import stamina

from brokers.contract import HttpRequest, MasterError

TIMEOUT_S = 60.0
ATTEMPTS = 4
Progress = Callable[[int, int | None], None]
"""Told the bytes had so far, and how many there will be (None: not known)."""


class DownloadError(Exception):
    """A master could not be downloaded; says why and what to do."""


def download(request: HttpRequest, progress: Progress) -> bytes:
    """
    The body of a broker's answer. Network faults and 5xx are tried again.

    Raises DownloadError.
    """
    try:
        for attempt in stamina.retry_context(on=_passes, attempts=ATTEMPTS, timeout=None):
            with attempt:
                return _fetch(request, progress)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        hint = "log the account in first" if status in (401, 403) else "try again later, or give a file with --file"
        raise DownloadError(f"{request.url} answered HTTP {status}; {hint}.") from None
    except httpx.HTTPError as error:
        raise DownloadError(
            f"{request.url} cannot be reached ({error}); try again, or give a file with --file."
        ) from None
    raise AssertionError("stamina either returns from an attempt or raises")


def lines_of(body: bytes) -> Iterator[str]:
    """
    The text lines of a master, unzipped where it is gzip.

    Raises MasterError: not text, a damaged archive, or a web page.
    """
    if body[:2] == b"\x1f\x8b":
        body = _unzipped(body)
    if body.lstrip()[:1] == b"<":
        raise MasterError("This is a web page, not an instrument file; the address or the login is wrong.")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MasterError("This is not a text file; an instrument file is CSV in UTF-8, plain or gzip.") from None
    return io.StringIO(text, newline="")


def read(path: Path) -> bytes:
    """
    A file's bytes.

    Raises DownloadError.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DownloadError(f"{path} cannot be read: {error.strerror}.") from None


def _fetch(request: HttpRequest, progress: Progress) -> bytes:
    headers = dict(request.headers)
    with httpx.stream(request.method, request.url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as answer:
        answer.raise_for_status()
        total = int(answer.headers.get("Content-Length", 0)) or None
        body = bytearray()
        for chunk in answer.iter_bytes():
            body += chunk
            progress(answer.num_bytes_downloaded, total)
    return bytes(body)


def _passes(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, httpx.TransportError)


def _unzipped(body: bytes) -> bytes:
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        raise MasterError("The gzip file is damaged or cut short; download it again.") from None
