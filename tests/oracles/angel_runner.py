"""
Runs in the oracle's environment: SmartApi's own parser and its own streaming client, one JSON line each.

A line is a frame in hex, or a JSON object: a session of the client with a server at `url`, or with `login` a login.
"""

import json
import math
import os
import sys
import tempfile
import threading

os.chdir(tempfile.mkdtemp())  # the client writes its log into a folder of the current one

from login_runner import recorded  # noqa: E402
from SmartApi.smartWebSocketV2 import SmartWebSocketV2  # noqa: E402

PARSER = SmartWebSocketV2.__new__(SmartWebSocketV2)
WAIT_S = 10


def plain(packet):
    """A packet without numbers that JSON does not have."""
    return {
        name: repr(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in packet.items()
    }


class Session(SmartWebSocketV2):
    """The client from its connect to its disconnect, with everything its callbacks were told; its address is ours."""

    def __init__(self, order):
        self.ROOT_URI = order["url"]
        self.order = order
        self.data, self.errors, self.is_open = [], [], False
        self.news = threading.Condition()
        keys = ("jwt_token", "api_key", "client_code", "feed_token")
        super().__init__(*(order["credentials"][key] for key in keys), max_retry_attempt=0)

    def on_open(self, wsapp):
        self.tell(lambda: setattr(self, "is_open", True))

    def on_data(self, wsapp, data):
        self.tell(lambda: self.data.append(plain(data)))

    def on_error(self, what, why):
        self.tell(lambda: self.errors.append(f"{what}: {why}"))

    def tell(self, change):
        with self.news:
            change()
            self.news.notify_all()

    def wait(self, is_so):
        with self.news:
            self.news.wait_for(lambda: self.errors or is_so(), WAIT_S)

    def run(self):
        connecting = threading.Thread(target=self.connect, daemon=True)
        connecting.start()
        self.wait(lambda: self.is_open)
        for mode in self.order["modes"] if self.is_open else ():
            self.subscribe("abcde12345", mode, self.order["tokens"])
            self.wait(lambda mode=mode: any(packet["subscription_mode"] == mode for packet in self.data))
        for mode in self.order["modes"] if self.is_open else ():
            SmartWebSocketV2.unsubscribe(self, "abcde12345", mode, self.order["tokens"])
        errors = list(self.errors)  # its handler of a close takes too few arguments, so every end is an error to it
        if self.is_open:
            self.close_connection()
        connecting.join(WAIT_S)
        return {"data": self.data, "errors": errors}


def connected(order):
    """The REST client after a login. When it is imported it asks a stranger for its own address, so that is here."""
    from SmartApi.smartConnect import SmartConnect

    client = SmartConnect(order["api_key"])
    client.generateSession(*order["login"])
    return client.getfeedToken()


def answer(line):
    if line.startswith("{"):
        order = json.loads(line)
        return recorded(lambda: connected(order), order["answers"]) if "login" in order else Session(order).run()
    return {"packets": [plain(PARSER._parse_binary_data(bytes.fromhex(line)))]}


for line in sys.stdin:
    try:
        result = answer(line.strip())
    except Exception as error:  # whatever the SDK raises is its answer
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)

os._exit(0)  # a client that was refused may be waiting to try again
