"""
The simulator's switches and its log over HTTP on the broker's own port, for tests and demos in another process.

Every call is a GET with query parameters, because the WebSocket library answers no request that has a body:
`/control/drop?connection=2`, `/control/emit?symbol=SBIN&ltp=812.5`, `/control/log?event=subscribe`. `/control` lists
them all. Answers are JSON; a mistake is 400 with a sentence. Calls from web pages of other origins are refused.
The broker's instrument master is at `/instruments` and `/instruments/<SEGMENT>`, gzipped when the client takes that.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from brokers.contract import HttpResponse

if TYPE_CHECKING:
    from brokers.simulators.engine import Simulator

_LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
_SECRETS = {"token"}


class Control:
    """Answers the HTTP requests that are no upgrade."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def answer(self, request: Request) -> Response | None:
        """The answer to a request for the master or the control; None: it is something else."""
        url = urlsplit(request.path)
        first, _, rest = url.path.strip("/").partition("/")
        if first == "instruments":
            return self._master(rest, "gzip" in request.headers.get("Accept-Encoding", ""))
        if first != "control":
            return None
        if _is_foreign(request):
            return _json(HTTPStatus.FORBIDDEN, {"error": "The control answers local tools only, no web pages."})
        return await self._command(rest, dict(parse_qsl(url.query, keep_blank_values=True)))

    def _master(self, segment: str, gzipped: bool) -> Response:
        text = self._simulator.master(segment)
        if not text:
            return _response(HTTPStatus.NOT_FOUND, "text/plain", f"There is no segment {segment!r}.\n".encode())
        body = text.encode()
        if not gzipped:
            return _response(HTTPStatus.OK, "text/csv", body)
        response = _response(HTTPStatus.OK, "text/csv", gzip.compress(body, compresslevel=5))
        response.headers["Content-Encoding"] = "gzip"
        return response

    async def _command(self, name: str, arguments: dict[str, str]) -> Response:
        if name == "":
            return _json(HTTPStatus.OK, {f"/control/{key}": command.parameters() for key, command in COMMANDS.items()})
        command = COMMANDS.get(name)
        if command is None:
            known = ", ".join(COMMANDS)
            return _json(HTTPStatus.NOT_FOUND, {"error": f"There is no command {name!r}; known are {known}."})
        try:
            values = command.read(arguments)
            if command.is_action:
                shown = {key: value for key, value in arguments.items() if key not in _SECRETS}
                self._simulator.note("control", command=name, arguments=shown)
            result = command.run(self._simulator, **values)
            if isinstance(result, Awaitable):
                result = await result
        except ValueError as mistake:
            return _json(HTTPStatus.BAD_REQUEST, {"error": str(mistake)})
        return _json(HTTPStatus.OK, {"ok": True, "result": result} if command.is_action else result)


class Command:
    """One call: how its parameters are read, and what it does."""

    def __init__(
        self,
        run: Callable[..., Any],
        *,
        is_action: bool = True,
        extra: Callable[[str, str], object] | None = None,
        required: tuple[str, ...] = (),
        **readers: Callable[[str, str], object],
    ) -> None:
        self.run = run
        self.is_action = is_action
        self._readers = readers
        self._required = required
        self._extra = extra

    def parameters(self) -> list[str]:
        """Their names; "..." where more are taken."""
        return [*self._readers, *(["..."] if self._extra else [])]

    def read(self, arguments: Mapping[str, str]) -> dict[str, object]:
        """
        The parameters' values.

        Raises ValueError: one too many, one too few, or one that cannot be read.
        """
        for name in self._required:
            if name not in arguments:
                raise ValueError(f"The parameter {name!r} is missing.")
        values: dict[str, object] = {}
        for name, text in arguments.items():
            reader = self._readers.get(name, self._extra)
            if reader is None:
                raise ValueError(f"There is no parameter {name!r}; known are {', '.join(self._readers) or 'none'}.")
            values[name] = reader(name, text)
        return values


def _text(_name: str, text: str) -> str:
    return text


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {text!r}.") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}.") from None


def _number_or_none(name: str, text: str) -> float | None:
    return _number(name, text) if text else None


def _flag(name: str, text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError(f"{name} must be 0 or 1, not {text!r}.")
    return text == "1"


def _json_value(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"{name} must be a number or a list, not {text!r}.") from None


def _read_log(
    simulator: Simulator, event: str = "", connection: int | None = None, last: int | None = None
) -> list[dict[str, Any]]:
    entries = [
        entry
        for entry in simulator.log
        if event in ("", entry["event"]) and connection in (None, entry.get("connection"))
    ]
    return entries if last is None else entries[max(0, len(entries) - last) :]


def _method(name: str) -> Callable[..., Any]:
    def run(simulator: Simulator, **values: object) -> Any:
        return getattr(simulator, name)(**values)

    return run


COMMANDS: dict[str, Command] = {
    "log": Command(_read_log, is_action=False, event=_text, connection=_integer, last=_integer),
    "stats": Command(_method("stats"), is_action=False),
    "subscribed": Command(_method("subscribed"), is_action=False),
    "drop": Command(_method("drop"), connection=_integer, close_frame=_flag, code=_integer, reason=_text),
    "silence": Command(_method("silence"), connection=_integer, deaf=_flag),
    "resume": Command(_method("resume"), connection=_integer),
    "malformed": Command(_method("malformed"), required=("kind",), kind=_text, count=_integer, connection=_integer),
    "expire": Command(_method("expire"), api_key=_text),
    "set_token": Command(_method("set_token"), required=("token",), token=_text, api_key=_text),
    "unlock": Command(_method("unlock"), api_key=_text),
    "set_redirect": Command(_method("set_redirect"), required=("url",), url=_text),
    "pause_ticks": Command(_method("pause_ticks")),
    "resume_ticks": Command(_method("resume_ticks")),
    "set_rate": Command(_method("set_rate"), required=("rate",), rate=_number),
    "set_symbol_rate": Command(
        _method("set_symbol_rate"), required=("symbol", "rate"), symbol=_text, rate=_number_or_none
    ),
    "emit": Command(_method("emit"), required=("symbol",), symbol=_text, extra=_json_value),
    "never_traded": Command(_method("never_traded"), required=("symbol",), symbol=_text, untraded=_flag),
    "set_limits": Command(
        _method("set_limits"),
        sockets=_integer,
        instruments=_integer,
        ignore_beyond=_integer,
        lock_after=_integer,
        ghost_s=_number,
    ),
}
"""What /control offers; each is the simulator's method of that name."""


def _is_foreign(request: Request) -> bool:
    """Whether a web page of another origin asks, or a name that was made to point here."""
    host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    return (
        host not in _LOCAL_HOSTS
        or "Origin" in request.headers
        or request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}
    )


def respond(answer: HttpResponse) -> Response:
    """A broker's answer to a REST call, for the WebSocket library to send."""
    headers = {"Content-Type": "application/json"} | dict(answer.headers)
    response = _response(HTTPStatus(answer.status), headers.pop("Content-Type"), answer.body)
    response.headers.update(headers)
    return response


def _json(status: HTTPStatus, value: object) -> Response:
    return _response(status, "application/json", msgspec.json.encode(value))


def _response(status: HTTPStatus, content_type: str, body: bytes) -> Response:
    headers = Headers(
        [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Connection", "close")],
    )
    return Response(status.value, status.phrase, headers, body)
