"""A broker's HTTP side for tests of logins, on a port of this machine: Kite's session/token and SmartAPI's login."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KITE = {"api_key": "kitekey", "api_secret": "swordfish"}
ANGEL = {"client_code": "A1", "api_key": "angelkey", "pin": "4321", "totp_secret": "JBSWY3DPEHPK3PXP"}


class BrokerSide:
    """What it was asked, and where it listens. A request token is good once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.request_tokens = {"once"}
        side = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
                path = urlsplit(self.path).path
                side.asked.append(path)
                status, answer = side.answer(path, body)
                sent = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args: Any) -> None:
                """Nowhere."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"ws://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, body: str) -> tuple[int, dict[str, Any]]:
        if path == "/session/token":
            return self._kite({name: values[0] for name, values in parse_qs(body).items()})
        if path == "/rest/auth/angelbroking/user/v1/loginByPassword":
            return self._angel(json.loads(body))
        return 404, {}

    def _kite(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        proof = f"{KITE['api_key']}{form['request_token']}{KITE['api_secret']}"
        if form["checksum"] != hashlib.sha256(proof.encode()).hexdigest():
            return 403, {"status": "error", "message": "Invalid `checksum`.", "error_type": "TokenException"}
        if form["request_token"] not in self.request_tokens:
            message = "Token is invalid or has expired."
            return 403, {"status": "error", "message": message, "error_type": "TokenException"}
        self.request_tokens.remove(form["request_token"])
        return 200, {"status": "success", "data": {"access_token": "fresh-token"}}

    def _angel(self, sent: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if (sent["clientcode"], sent["password"]) != (ANGEL["client_code"], ANGEL["pin"]) or len(sent["totp"]) != 6:
            return 200, {
                "status": False,
                "message": "LoginId or password is wrong",
                "errorcode": "AB1007",
                "data": None,
            }
        return 200, {"status": True, "message": "SUCCESS", "data": {"jwtToken": "Bearer a.b.c", "feedToken": "feed"}}

    @contextmanager
    def running(self) -> Iterator[BrokerSide]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
