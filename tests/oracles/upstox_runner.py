"""
Runs in the oracle's environment: upstox_client's own parser and its own streaming client, one JSON line each.

A line is a frame in hex; or `schema`; or a JSON object: a session of the client with a server at `url`, or with `login`
what the client would send for a login.
"""

import json
import os
import sys
import threading
from urllib.parse import urlsplit

import upstox_client
import websocket
from google.protobuf import json_format
from upstox_client.feeder.proto import MarketDataFeedV3_pb2

PARSER = upstox_client.MarketDataStreamerV3.__new__(upstox_client.MarketDataStreamerV3)
PARSER.protobufRoot = MarketDataFeedV3_pb2
HERE = {"url": ""}
WAIT_S = 10


class Rerouted(websocket.WebSocketApp):
    """The address is written into the client: its host, and nothing else of it, is replaced."""

    def __init__(self, url, *args, **options):
        super().__init__(HERE["url"] + urlsplit(url).path, *args, **options)


websocket.WebSocketApp = Rerouted


def parsed(line):
    """One frame as the client hands it to its listeners."""
    return {"packets": [json_format.MessageToDict(PARSER.decode_protobuf(bytes.fromhex(line)))]}


def parsed_text(text):
    """A text frame, as websocket-client hands it to the client."""
    return {"packets": [json_format.MessageToDict(PARSER.decode_protobuf(text))]}


def schema():
    """Number, type and shape of every field of every message, and every enumeration."""
    file = MarketDataFeedV3_pb2.DESCRIPTOR
    enums = {name: {value.name: value.number for value in one.values} for name, one in file.enum_types_by_name.items()}
    messages = {}
    waiting = dict(file.message_types_by_name)
    while waiting:
        name, message = waiting.popitem()
        messages[name] = {field.name: [field.number, field.type] for field in message.fields}
        waiting.update({f"{name}.{inner.name}": inner for inner in message.nested_types})
    return {"enums": enums, "messages": messages}


class Session:
    """The client from its connect to its disconnect, with everything its listeners were told."""

    def __init__(self, order):
        HERE["url"] = order["url"]
        self.messages, self.errors = [], []
        self.news = threading.Condition()
        configuration = upstox_client.Configuration()
        configuration.access_token = order["token"]
        client = upstox_client.ApiClient(configuration)
        self.streamer = upstox_client.MarketDataStreamerV3(client, order["keys"], order["mode"])
        self.streamer.auto_reconnect(False)
        self.streamer.on("message", self.heard)
        self.streamer.on("error", self.failed)
        self.order = order

    def heard(self, message):
        with self.news:
            self.messages.append(message)
            self.news.notify_all()

    def failed(self, error):
        with self.news:
            self.errors.append(str(error))
            self.news.notify_all()

    def has(self, mode):
        """Whether the newest message is a live one whose instruments are in this mode."""
        last = self.messages[-1] if self.messages else {}
        feeds = last.get("feeds", {}).values()
        return last.get("type") == "live_feed" and all(feed.get("requestMode", "ltpc") == mode for feed in feeds)

    def wait(self, mode):
        wire = {"full": "full_d5"}.get(mode, mode)
        with self.news:
            self.news.wait_for(lambda: self.errors or self.has(wire), WAIT_S)

    def run(self):
        self.streamer.connect()
        self.wait(self.order["mode"])
        if not self.errors:
            for mode in self.order["then"]:
                self.streamer.change_mode(self.order["keys"], mode)
                self.wait(mode)
            self.streamer.unsubscribe(self.order["keys"])
            self.streamer.disconnect()
        return {"messages": self.messages, "errors": self.errors}


def login(order):
    """The page, which this client would ask for itself, and the call for the token; nothing is sent."""
    sent = []

    def record(self, method, url, query_params=None, headers=None, post_params=None, **options):
        query, form = dict(query_params or ()), dict(post_params or ())
        sent.append({"method": method, "url": url, "query": query, "headers": headers, "form": form})

    upstox_client.rest.RESTClientObject.request = record
    client = upstox_client.LoginApi()
    client.authorize(*order["page"], "2.0", state=order["state"], _preload_content=False)
    client.token("2.0", **order["login"], _preload_content=False)
    return {"sent": sent}


def answer(line):
    if line == "schema":
        return schema()
    if line.startswith("text "):
        return parsed_text(line[5:])
    if not line.startswith("{"):
        return parsed(line)
    order = json.loads(line)
    return login(order) if "login" in order else Session(order).run()


for line in sys.stdin:
    try:
        result = answer(line.strip())
    except Exception as error:  # whatever the SDK raises is its answer
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)

os._exit(0)  # the client's threads are no daemons, and one that was refused does not end
