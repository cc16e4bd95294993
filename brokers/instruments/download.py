"""Instrument masters from a broker's address or from a file."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
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


def unpacked(body: bytes) -> bytes:
    """
    The file inside a gzip or a zip archive; what is neither is returned as it is.

    Raises MasterError: a damaged archive, or a zip that holds not exactly one file.
    """
    try:
        if body[:2] == b"\x1f\x8b":
            return gzip.decompress(body)
        if body[:4] == b"PK\x03\x04":
            return _only_member(body)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        raise MasterError("The archive is damaged or cut short; download it again.") from None
    return body


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


def _only_member(body: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = [each for each in archive.infolist() if not each.is_dir()]
        if len(members) != 1:
            raise MasterError(f"The zip archive holds {len(members)} files; an instrument master is one.")
        return archive.read(members[0])
