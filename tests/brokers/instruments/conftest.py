"""A web server of files on a loopback port, and a broker of a few lines whose masters are there."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from brokers import registry
from brokers.contract import Adapter, BadRow, HttpRequest, InstrumentRow, Master
from brokers.instruments import download
from brokers.masters import csv_rows
from marketdata.ticks import Segment
from tests.brokers.feed.bench import Toy

COLUMNS = ("symbol", "token")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; `write` sends the body in its own way. A body whose ETag the client has is answered with 304."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    write: Callable[[BaseHTTPRequestHandler], None] | None = None


class Asked(msgspec.Struct, frozen=True):
    """One request as it came; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Server(ThreadingHTTPServer):
    """A client that goes away half way is no fault."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing."""


class Files:
    """Answers by path, in turn; the last one stays."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.asked: list[Asked] = []
        self.server = Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, *answers: Answer | bytes) -> str:
        """These are the answers from now on; the path's address."""
        self.answers[path] = [each if isinstance(each, Answer) else Answer(body=each) for each in answers]
        return self.url + path

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        files = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                files.asked.append(Asked(self.command, self.path, headers, body))
                answers = files.answers.get(self.path) or [Answer(status=404, body=b"nothing here")]
                _send(self, answers.pop(0) if len(answers) > 1 else answers[0])

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler


def _send(to: BaseHTTPRequestHandler, answer: Answer) -> None:
    etag = answer.headers.get("ETag")
    is_known = etag is not None and to.headers.get("If-None-Match") == etag
    to.send_response(304 if is_known else answer.status)
    headers = {"Content-Length": str(len(answer.body))} if answer.write is None else {}
    for name, value in (headers | dict(answer.headers)).items():
        if not (is_known and name == "Content-Length"):
            to.send_header(name, value)
    to.end_headers()
    if is_known:
        return
    if answer.write is None:
        to.wfile.write(answer.body)
    else:
        to.close_connection = True
        answer.write(to)


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr(download, "WAIT_S", 0.01)


# --------------------------------------------------------------------------------------------- a broker of a few lines


class Lister(Toy):
    """Its masters are CSV files of symbols and tokens; a file that needs a login wants the token in a header."""

    def __init__(self, *masters: Master, slug: str = "toy") -> None:
        super().__init__(slug=slug)
        self.spec = msgspec.structs.replace(self.spec, masters=masters)

    def master_request(self, master: Master, credentials: Mapping[str, str]) -> HttpRequest:
        headers = {"X-Token": credentials["token"]} if master.needs_login else {}
        return HttpRequest(method="GET", url=master.url, headers=headers)

    def parse_instruments(self, body: bytes, segment: str = "") -> Iterator[InstrumentRow | BadRow]:
        return csv_rows(body, "Toy", COLUMNS, lambda fields: _row(fields, segment))


def _row(fields: Sequence[str], segment: str) -> InstrumentRow:
    symbol, token = fields
    if symbol == "crash":
        raise ZeroDivisionError("a mistake in the adapter")
    place = Segment(segment or "NSE")
    return InstrumentRow(
        segment=place, token=str(int(token)), symbol=symbol, exchange=place, broker_symbol=symbol, broker_exchange=place
    )


def listing(symbols: Mapping[str, int]) -> bytes:
    """The file a Lister parses."""
    lines = [",".join(COLUMNS), *(f"{symbol},{token}" for symbol, token in symbols.items())]
    return "\n".join(lines).encode()


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Adapter]:
    """The adapters there are, by slug."""
    known: dict[str, Adapter] = {}

    def load(slug: str) -> Any:
        if slug not in known:
            raise registry.UnknownBroker(f"There is no broker {slug!r}.")
        return known[slug]

    monkeypatch.setattr(registry, "load", load)
    return known
