"""Downloads against a real server that does what servers do; archives as they come."""

from __future__ import annotations

import gzip
import io
import time
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from brokers.contract import HttpRequest, MasterError
from brokers.instruments import download as module
from brokers.instruments.download import NOTHING, DownloadError, Fetched, Validators, fetch, opened, unpacked
from tests.brokers.instruments.conftest import Answer, Files
from tests.conftest import free_port

BODY = b"symbol,token\nSBIN,3045\n" * 1000


async def get(
    url: str, to: Path, known: Validators = NOTHING, seen: list[tuple[int, int | None]] | None = None, **fields: object
) -> Fetched:
    request = HttpRequest(**{"method": "GET", "url": url} | fields)
    progress = [] if seen is None else seen
    async with opened() as client:
        return await fetch(client, request, to / "file", lambda done, total: progress.append((done, total)), known)


async def problem(url: str, to: Path) -> str:
    with pytest.raises(DownloadError) as caught:
        await get(url, to)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------- all is well


async def test_a_body_goes_to_disk_and_its_progress_is_told(files: Files, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = await get(files.put("/m.csv", BODY), tmp_path, seen=seen)
    assert fetched.path is not None
    assert fetched.path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))


async def test_a_file_that_did_not_change_is_not_sent_again(files: Files, tmp_path: Path) -> None:
    changed = "Thu, 21 Mar 2024 03:01:00 GMT"
    url = files.put("/m.csv", Answer(body=BODY, headers={"ETag": '"v1"', "Last-Modified": changed}))
    first = await get(url, tmp_path)
    assert first.validators == Validators('"v1"', changed)
    again = await get(url, tmp_path, known=first.validators)
    assert again == Fetched(path=None, validators=first.validators)
    assert files.asked[-1].headers["if-modified-since"] == changed
    files.put("/m.csv", Answer(body=b"new", headers={"ETag": '"v2"'}))
    fetched = await get(url, tmp_path, known=first.validators)
    assert fetched.validators == Validators('"v2"', "")


async def test_a_broker_that_stumbles_is_asked_again(files: Files, tmp_path: Path) -> None:
    url = files.put("/m.csv", Answer(status=500), Answer(status=503), BODY)
    assert (await get(url, tmp_path)).path is not None
    assert len(files.asked) == 3


async def test_what_is_sent_packed_stays_packed_until_it_is_unpacked(files: Files, tmp_path: Path) -> None:
    packed = gzip.compress(BODY)
    fetched = await get(files.put("/m.csv", Answer(body=packed, headers={"Content-Encoding": "gzip"})), tmp_path)
    assert fetched.path is not None
    assert fetched.path.read_bytes() == packed
    assert unpacked(fetched.path, tmp_path) == BODY


async def test_a_request_may_post_json_and_be_redirected(files: Files, tmp_path: Path) -> None:
    url = files.put("/master", Answer(status=307, headers={"Location": "/there"}))
    files.put("/there", BODY)
    await get(url, tmp_path, method="POST", json={"exchangeSegmentList": ["NSECM"]}, headers={"X-Token": "swordfish"})
    first, second = files.asked
    assert (first.method, second.method, second.path) == ("POST", "POST", "/there")
    assert first.body == second.body == b'{"exchangeSegmentList":["NSECM"]}'
    assert second.headers["x-token"] == "swordfish"


async def test_a_redirect_to_another_host_gets_no_token(files: Files, tmp_path: Path) -> None:
    url = files.put("/m.csv", Answer(status=302, headers={"Location": f"http://localhost:{files.port}/elsewhere"}))
    files.put("/elsewhere", BODY)
    await get(url, tmp_path, headers={"X-Token": "swordfish"})
    assert [asked.headers.get("x-token") for asked in files.asked] == ["swordfish", None]


# ------------------------------------------------------------------------------------------------------ all is not well


@pytest.mark.parametrize(
    ("status", "words", "attempts"),
    [
        (401, "is refused (HTTP 401); log the account in", 1),
        (403, "is refused (HTTP 403); log the account in", 1),
        (404, "is not there (HTTP 404); the broker may have moved it: give the new address with --url", 1),
        (418, "answered HTTP 418, not with a file", 1),
        (429, "was asked for too often (HTTP 429); try again in some minutes", 1),
        (500, "is out of order at the broker (HTTP 500); try again later", 4),
        (503, "is out of order at the broker (HTTP 503); try again later", 4),
        (304, "answered HTTP 304, not with a file", 1),
    ],
)
async def test_an_answer_that_is_no_file_is_one_sentence(
    files: Files, tmp_path: Path, status: int, words: str, attempts: int
) -> None:
    url = files.put("/m.csv?token=swordfish", Answer(status=status))
    sentence = await problem(url, tmp_path)
    assert words in sentence
    assert "/m.csv" in sentence
    assert "swordfish" not in sentence
    assert len(files.asked) == attempts


async def test_an_endless_redirect_ends(files: Files, tmp_path: Path) -> None:
    url = files.put("/m.csv", Answer(status=302, headers={"Location": "/m.csv"}))
    assert "HTTP 302" in await problem(url, tmp_path)
    assert len(files.asked) == module.REDIRECTS + 1


async def test_nobody_there_is_told(tmp_path: Path) -> None:
    assert "cannot be reached" in await problem(f"http://127.0.0.1:{free_port()}/m.csv", tmp_path)


@pytest.mark.parametrize("url", ["ftp://x.example/m.csv", "m.csv", "file:///etc/passwd"])
async def test_what_is_no_web_address_is_told(tmp_path: Path, url: str) -> None:
    assert "use one that begins with https://" in await problem(url, tmp_path)


async def test_an_answer_that_is_cut_short_is_tried_again_and_told(files: Files, tmp_path: Path) -> None:
    def half(to: BaseHTTPRequestHandler) -> None:
        to.wfile.write(BODY[:1000])

    url = files.put("/m.csv", Answer(headers={"Content-Length": str(len(BODY))}, write=half))
    assert "ended before it was complete" in await problem(url, tmp_path)
    assert len(files.asked) == module.ATTEMPTS


async def test_a_body_beyond_the_limit_is_not_taken(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2_000_000)
    written = 0

    def endless(to: BaseHTTPRequestHandler) -> None:
        nonlocal written
        while written < 100_000_000:
            written += to.wfile.write(bytes(100_000))

    announced = files.put("/announced", Answer(headers={"Content-Length": "2000001"}, write=lambda _: None))
    unannounced = files.put("/unannounced", Answer(write=endless))
    for url in (announced, unannounced):
        assert await problem(url, tmp_path) == "The file is larger than 2 MB; that is no instrument master."
    assert written < 50_000_000


async def test_a_server_that_says_nothing_and_one_that_never_ends_are_given_up(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.1)
    monkeypatch.setattr(module, "TOTAL_S", 1.5)

    def slow(to: BaseHTTPRequestHandler) -> None:
        for _ in range(200):
            to.wfile.write(b"x")
            to.wfile.flush()
            time.sleep(0.02)

    silent = files.put("/silent", Answer(headers={"Content-Length": "9"}, write=lambda _: time.sleep(0.5)))
    assert "did not answer for 0.1 s" in await problem(silent, tmp_path)
    endless = files.put("/endless", Answer(write=slow))
    assert "was not done within 1.5 s" in await problem(endless, tmp_path)


async def test_a_full_disk_is_told(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/dev/full")
    assert await problem(files.put("/m.csv", BODY), tmp_path) == "The disk is full; free some space, then try again."


async def test_a_packing_that_was_not_asked_for_is_told(files: Files, tmp_path: Path) -> None:
    url = files.put("/m.csv", Answer(body=b"?", headers={"Content-Encoding": "br"}))
    assert "is packed in a way that was not asked for" in await problem(url, tmp_path)


# ------------------------------------------------------------------------------------------------------------- archives


def zipped(*members: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        for member in members:
            archive.writestr(f"folder/{member}", BODY)
    return packed.getvalue()


def unpack(tmp_path: Path, content: bytes) -> bytes:
    (tmp_path / "given").write_bytes(content)
    return unpacked(tmp_path / "given", tmp_path)


@pytest.mark.parametrize(
    "content",
    [BODY, gzip.compress(BODY), zipped("m.csv"), gzip.compress(gzip.compress(BODY)), gzip.compress(zipped("m.csv"))],
    ids=["plain", "gzip", "zip", "gzip in gzip", "zip in gzip"],
)
def test_a_file_comes_out_of_whatever_it_is_packed_in(tmp_path: Path, content: bytes) -> None:
    assert unpack(tmp_path, content) == BODY


@pytest.mark.parametrize("cut", [11, 60, -1])
def test_an_archive_that_is_cut_short_is_told(tmp_path: Path, cut: int) -> None:
    for content in (gzip.compress(BODY), zipped("m.csv")):
        with pytest.raises(MasterError, match="damaged or cut short"):
            unpack(tmp_path, content[:cut])


def test_an_archive_of_other_than_one_file_is_told(tmp_path: Path) -> None:
    for members in ((), ("a.csv", "b.csv")):
        with pytest.raises(MasterError, match=f"holds {len(members)} files"):
            unpack(tmp_path, zipped(*members))


def test_an_archive_with_a_password_is_told(tmp_path: Path) -> None:
    content = bytearray(zipped("m.csv"))
    content[content.rfind(b"PK\x01\x02") + 8] |= 1  # the flag of the last member, which is the file
    with pytest.raises(MasterError, match="locked with a password"):
        unpack(tmp_path, bytes(content))


def test_a_web_page_is_told(tmp_path: Path) -> None:
    for page in (b"<!DOCTYPE html><html>", b"\n  <html>Down for maintenance", gzip.compress(b"<html>")):
        with pytest.raises(MasterError, match="a web page, no instrument file"):
            unpack(tmp_path, page)


def test_a_bomb_does_not_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10_000_000)
    for bomb in (gzip.compress(bytes(50_000_000)), gzip.compress(gzip.compress(bytes(50_000_000)))):
        with pytest.raises(DownloadError, match="larger than 10 MB"):
            unpack(tmp_path, bomb)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cannot be read: No such file or directory"):
        unpacked(tmp_path / "nothing.csv", tmp_path)
    with pytest.raises(DownloadError, match="cannot be read: Is a directory"):
        unpacked(tmp_path, tmp_path)
