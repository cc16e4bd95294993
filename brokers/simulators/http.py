"""
A broker's REST calls on the port of its sockets: requests with a body, which the WebSocket library does not read.

`websockets` answers GET by itself; a connection that begins with another method is taken over here, read by h11,
answered once and closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import h11
from websockets.asyncio.server import ServerConnection

from brokers.contract import HttpResponse

MOST_BYTES = 1 << 20
_METHODS = (b"POST ", b"PUT ", b"DELETE", b"PATCH ")

Answer = Callable[[str, str, Mapping[str, str], bytes], HttpResponse | None]
"""Method, path with query, headers by lower-case name, body; None: there is nothing there."""


def front(answer: Answer) -> type[ServerConnection]:
    """The class of connections that hand requests with a body to `answer` and leave all others to `websockets`."""

    class Front(ServerConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._http: _Exchange | None = None
            self._is_new = True

        def data_received(self, data: bytes) -> None:
            if self._is_new and data.startswith(_METHODS):
                self._http = _Exchange(answer)
            self._is_new = False
            if self._http is None:
                super().data_received(data)
                return
            reply = self._http.received(data)
            if reply:
                self.transport.write(reply)
                self.transport.close()

    return Front


class _Exchange:
    """One request and its answer. No socket: bytes in, bytes out."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._state = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()

    def received(self, data: bytes) -> bytes:
        """The whole answer, as soon as the whole request is there; empty until then."""
        try:
            self._state.receive_data(data)
            while True:
                event = self._state.next_event()
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return self._reply()
                else:
                    return b""
                if len(self._body) > MOST_BYTES:
                    return _bytes(self._state, HttpResponse(status=413, body=b"The request is too big.\n"))
        except h11.RemoteProtocolError:
            return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def _reply(self) -> bytes:
        assert self._request is not None
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in self._request.headers}
        found = self._answer(self._request.method.decode(), self._request.target.decode(), headers, bytes(self._body))
        return _bytes(self._state, found or HttpResponse(status=404, body=b"There is nothing here.\n"))


def _bytes(state: h11.Connection, response: HttpResponse) -> bytes:
    headers = {"Content-Type": "application/json"} | dict(response.headers)
    headers |= {"Content-Length": str(len(response.body)), "Connection": "close"}
    head = h11.Response(
        status_code=response.status,
        reason=HTTPStatus(response.status).phrase.encode(),
        headers=[(name.encode(), value.encode()) for name, value in headers.items()],
    )
    parts = [state.send(head), state.send(h11.Data(data=response.body)), state.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)
