"""
Instrument masters from a broker's address into files, and out of archives. What goes wrong is one sentence.

Nothing is kept in memory: a body goes to disk as it comes, packed as it is, and is unpacked from file to file.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec
import stamina

from brokers.contract import HttpRequest, MasterError

MOST_BYTES = 300_000_000
"""The largest file that is taken, packed or unpacked; the largest master there is has a quarter of it."""
TOTAL_S = 300.0
"""For one file, with all attempts."""
SILENT_S = 30.0
"""A server that sends nothing for so long is given up."""
ATTEMPTS = 4
WAIT_S = 0.5
"""Before the second attempt; before each further one twice as long, and never longer than 10 s."""
REDIRECTS = 5
CHUNK_BYTES = 1 << 20
LAYERS = 3
"""So deep may archives be nested: a packed file sent packed is two."""

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")

Progress = Callable[[int, int | None], None]
"""Told the bytes had so far, and how many there will be (None: not known)."""


class DownloadError(Exception):
    """A master could not be had; says why and what to do."""


class Validators(NamedTuple):
    """What a server said of the file we have; with these it can tell whether there is a newer one. Empty: nothing."""

    etag: str = ""
    last_modified: str = ""


NOTHING = Validators()


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A file that came, as it came; `path` is None where the one we have is still the newest."""

    path: Path | None
    validators: Validators


class _Refusal(Exception):
    """The server's answer was no file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


# ------------------------------------------------------------------------------------------------------------- fetching


@asynccontextmanager
async def opened() -> AsyncIterator[httpx.AsyncClient]:
    """A client for `fetch`; what is on this machine is never asked for through a proxy."""
    timeout = httpx.Timeout(SILENT_S, pool=None)
    headers = {"User-Agent": "streamproject (instruments)", "Accept": "*/*", "Accept-Encoding": "gzip"}
    direct: Mapping[str, None] = dict.fromkeys(_LOOPBACK)
    async with httpx.AsyncClient(timeout=timeout, headers=headers, mounts=direct) as client:
        yield client


async def fetch(
    client: httpx.AsyncClient, request: HttpRequest, to: Path, progress: Progress, known: Validators = NOTHING
) -> Fetched:
    """
    The body of a broker's answer, in the file `to`. Network faults and 5xx are tried again.

    Raises DownloadError.
    """
    where = shown(request.url)
    if urlsplit(request.url).scheme not in ("http", "https"):
        raise DownloadError(f"{where} is no web address; use one that begins with https://.")
    try:
        async with asyncio.timeout(TOTAL_S):
            return await _tried(client, request, to, progress, known)
    except _Refusal as refusal:
        raise DownloadError(f"{where} {_refusal(refusal.status)}") from None
    except TimeoutError:
        raise DownloadError(
            f"{where} was not done within {TOTAL_S:g} s; try again, or give a file with --file."
        ) from None
    except httpx.TimeoutException:
        raise DownloadError(f"{where} did not answer for {SILENT_S:g} s; try again later.") from None
    except httpx.RemoteProtocolError as error:
        raise DownloadError(f"{where} ended before it was complete ({error}); try again.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(
            f"{where} cannot be reached ({_words(error)}); try again, or give a file with --file."
        ) from None
    except OSError as error:
        raise _unwritable(error) from None


async def _tried(
    client: httpx.AsyncClient, request: HttpRequest, to: Path, progress: Progress, known: Validators
) -> Fetched:
    attempts = stamina.retry_context(
        on=_passes, attempts=ATTEMPTS, timeout=None, wait_initial=WAIT_S, wait_max=10.0, wait_jitter=WAIT_S
    )
    async for attempt in attempts:
        with attempt:
            async with _answer(client, request, known) as answer:
                return await _taken(answer, to, progress, known)
    raise AssertionError("stamina either returns from an attempt or raises")


@asynccontextmanager
async def _answer(client: httpx.AsyncClient, request: HttpRequest, known: Validators) -> AsyncIterator[httpx.Response]:
    """
    The answer of whoever has the file, its body not read yet.

    Redirects are followed by hand: what an adapter put into the headers may be a token, which is for its host only.
    """
    conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    headers = dict(request.headers) | {name: value for name, value in conditions.items() if value}
    asked = client.build_request(request.method, request.url, headers=headers, data=request.form, json=request.json)
    answer = await client.send(asked, stream=True)
    for _ in range(REDIRECTS):
        if answer.next_request is None:
            break
        await answer.aclose()
        following = answer.next_request
        if following.url.host != asked.url.host:
            for name in request.headers:
                following.headers.pop(name, None)
        answer = await client.send(following, stream=True)
    try:
        yield answer
    finally:
        await answer.aclose()


async def _taken(answer: httpx.Response, to: Path, progress: Progress, known: Validators) -> Fetched:
    if answer.status_code == 304 and any(known):
        return Fetched(path=None, validators=known)
    if answer.status_code != 200:
        raise _Refusal(answer.status_code)
    if answer.headers.get("Content-Encoding", "gzip").lower() not in ("gzip", "x-gzip", "identity"):
        raise DownloadError(f"{shown(str(answer.url))} is packed in a way that was not asked for; give it with --file.")
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    size = 0
    with to.open("wb") as file:
        _bound(total or 0)
        async for chunk in answer.aiter_raw(CHUNK_BYTES >> 4):
            size += len(chunk)
            _bound(size)
            file.write(chunk)
            progress(size, total)
    headers = answer.headers
    return Fetched(path=to, validators=Validators(headers.get("ETag", ""), headers.get("Last-Modified", "")))


def _passes(error: Exception) -> bool:
    """Whether it may go better the next time."""
    if isinstance(error, _Refusal):
        return error.status >= 500
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _bound(size: int) -> None:
    if size > MOST_BYTES:
        raise DownloadError(f"The file is larger than {MOST_BYTES // 1_000_000} MB; that is no instrument master.")


def _refusal(status: int) -> str:
    """
    What an HTTP status means here, as the end of a sentence that begins with the address.

    >>> _refusal(404)
    'is not there (HTTP 404); the broker may have moved it: give the new address with --url, or a file with --file.'
    """
    if status in (401, 403):
        return f"is refused (HTTP {status}); log the account in, then try again, or give a file with --file."
    if status in (404, 410):
        moved = "the broker may have moved it: give the new address with --url, or a file with --file."
        return f"is not there (HTTP {status}); {moved}"
    if status == 429:
        return "was asked for too often (HTTP 429); try again in some minutes."
    if status >= 500:
        return f"is out of order at the broker (HTTP {status}); try again later, or give a file with --file."
    return f"answered HTTP {status}, not with a file; try again later, or give a file with --file."


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _unwritable(error: OSError) -> DownloadError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DownloadError("The disk is full; free some space, then try again.")
    return DownloadError(f"The file cannot be stored: {error.strerror or error}.")


def shown(url: str) -> str:
    """
    An address without what may be secret in it.

    >>> shown("https://user:pass@api.example.in:444/master.csv?token=swordfish")
    'https://api.example.in:444/master.csv'
    """
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "The address"


# ------------------------------------------------------------------------------------------------------------ unpacking


def unpacked(path: Path, folder: Path) -> bytes:
    """
    What is in a file, out of gzip or zip where it is in one; `folder` is for what is made on the way.

    Raises MasterError: a damaged archive, a zip that holds not exactly one file, a web page. DownloadError: the file
    cannot be read, or what is in it is too large.
    """
    try:
        for layer in range(LAYERS):
            out = folder / f"{path.name}.{layer}"
            if not _unpack(path, out):
                break
            path = out
        _bound(path.stat().st_size)
        body = path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error, zipfile.BadZipFile):
        raise MasterError("The archive is damaged or cut short; try again, or give another file.") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if body[:200].lstrip()[:1] == b"<":
        raise MasterError("This is a web page, no instrument file; the address or the login is wrong.")
    return body


def _unpack(path: Path, out: Path) -> bool:
    """Takes off one layer; False where there is none."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == _GZIP:
            with gzip.open(file) as content:
                _copy(content, out)
        elif start == _ZIP:
            with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive)) as content:
                _copy(content, out)
        else:
            return False
    return True


def _copy(content: IO[bytes] | gzip.GzipFile, out: Path) -> None:
    size = 0
    with out.open("wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            size += len(chunk)
            _bound(size)
            file.write(chunk)


def _only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [each for each in archive.infolist() if not each.is_dir()]
    if len(members) != 1:
        raise MasterError(f"The zip archive holds {len(members)} files; an instrument master is one.")
    if members[0].flag_bits & 1:
        raise MasterError("The zip archive is locked with a password; unpack it, and give the file in it.")
    return members[0]


def _unreadable(path: Path, error: OSError) -> DownloadError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _unwritable(error)
    return DownloadError(f"{path} cannot be read: {error.strerror or error}.")
