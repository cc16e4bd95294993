"""
Runs in the oracle's environment: fyers_apiv3's own parsers, frames and clients, one JSON object a line and an answer.

`{"market": [frames in hex]}` is the life of one data socket, `{"depth": [frames]}` that of a tick-by-tick socket;
`{"schema": 1}` and `{"frames": …}` are the message descriptors and the frames the client would send; `{"live": …}` is a
session of the unmodified client with a server at `url`; `{"login": …}` are the page and the call of a login.
"""

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import requests

OUT = sys.stdout
sys.stdout = sys.stderr  # the clients print
os.environ["NO_PROXY"] = "127.0.0.1"
os.chdir(tempfile.mkdtemp(prefix="fyers-oracle-"))  # they write logs where they are

from fyers_apiv3 import fyersModel  # noqa: E402
from fyers_apiv3.FyersWebsocket import data_ws, defines, msg_pb2, tbt_ws  # noqa: E402
from login_runner import recorded  # noqa: E402

WAIT_S = 15
HERE = {"url": ""}


def rerouted(call):
    """The addresses are written into the clients: host and scheme, and nothing else of them, are replaced."""

    def to(url, *args, **options):
        return call(HERE["url"] + urlsplit(url).path, *args, **options)

    return to


PLAIN_POST = requests.post
requests.get, requests.post = rerouted(requests.get), rerouted(requests.post)
defines.INDEX_HSM_MAPPING_API = "http://public/sym_details/index_hsm_mapping.json"


class Names(dict):
    """Every topic is its own symbol."""

    def __missing__(self, topic):
        return topic


def data_socket(token="", **listeners):
    """A fresh client: they keep one for the whole process."""
    data_ws.FyersDataSocket._instance = None
    return data_ws.FyersDataSocket(access_token=token, reconnect=False, **listeners)


def private(client, name):
    return getattr(client, f"_{type(client).__name__}__{name}")


# -------------------------------------------------------------------------------------------------------------- parsers


def market(frames):
    """What the client hands to its listeners, with the raw state of the topic beside it, and what it would answer."""
    told, failed = [], []
    client = data_socket(on_error=failed.append)
    client.symbol_token = Names()

    def heard(message):
        raw = client.resp.get(message.get("symbol"), {})
        told.append({"said": dict(message), "raw": {key: value for key, value in raw.items() if key != "symbol"}})

    client.OnMessage = heard
    for frame in frames:
        private(client, "response_msg")(bytes.fromhex(frame))
    return {"told": told, "failed": failed, "answers": [bytes(message).hex() for message in client.message]}


SIDES = ("bidprice", "bidqty", "bidordn", "askprice", "askqty", "askordn")


def shown(ticker, depth):
    lists = {name: list(getattr(depth, name)) for name in SIDES}
    return {"ticker": ticker, "tbq": depth.tbq, "tsq": depth.tsq, "time": depth.timestamp, **lists}


def depth(frames):
    told, failed = [], []
    store = tbt_ws.DataStore()
    store.depth.clear()
    for frame in frames:
        message = msg_pb2.SocketMessage.FromString(bytes.fromhex(frame))
        if message.error:
            failed.append(message.msg)
        else:
            store.updateDepth(message, lambda ticker, book: told.append(shown(ticker, book)), False)
    return {"told": told, "failed": failed}


def schema(_):
    """Number, type and shape of every field of every message, and the enumeration."""
    file = msg_pb2.DESCRIPTOR
    return {
        "enums": {
            name: {value.name: value.number for value in one.values} for name, one in file.enum_types_by_name.items()
        },
        "messages": {
            name: {field.name: [field.number, field.type] for field in message.fields}
            for name, message in file.message_types_by_name.items()
        },
    }


def indices(_):
    """The names of indices that are built into the client."""
    return json.loads(Path(data_ws.__file__).with_name("map.json").read_text())["index_dict"]


def frames(order):
    """Those of the data socket."""
    client = data_socket()
    client._FyersDataSocket__hsm_token = order["key"]
    client.source = order["source"]
    made = {
        "auth": private(client, "access_token_msg")(),
        "full": private(client, "full_mode_msg")(),
        "subscribe": private(client, "subscription_msg")(order["topics"]),
        "unsubscribe": private(client, "unsubscription_msg")(order["topics"]),
        "acknowledge": private(client, "ackowledgement_msg")(order["message"]),
    }
    return {name: bytes(frame).hex() for name, frame in made.items()}


# ------------------------------------------------------------------------------------------------------------ sessions


class Heard:
    """What a client's listeners were told, by any thread."""

    def __init__(self):
        self.messages, self.errors = [], []
        self.news = threading.Condition()

    def message(self, message):
        with self.news:
            self.messages.append(message)
            self.news.notify_all()

    def error(self, error):
        with self.news:
            self.errors.append(str(error))
            self.news.notify_all()

    def wait(self, count, kind):
        """Until so many messages of a kind came, or something failed."""
        with self.news:
            self.news.wait_for(lambda: self.errors or len(self.of(kind)) >= count, WAIT_S)

    def of(self, kind):
        return [message for message in self.messages if message.get("type") == kind]


def live(order):
    HERE["url"] = order["rest"]
    return live_depth(order) if order["kind"] == "depth" else live_market(order)


def live_market(order):
    heard = Heard()
    client = data_socket(order["token"], on_message=heard.message, on_error=heard.error, on_close=lambda _: None)
    client._FyersDataSocket__url = order["url"]
    client.connect()
    heard.wait(1, "cn")
    if not heard.errors:
        client.subscribe(order["symbols"], "SymbolUpdate")
        heard.wait(order["count"], "sf")
        heard.wait(2, "if")
        client.subscribe(order["books"], "DepthUpdate")
        heard.wait(order["count"], "dp")
        client.unsubscribe(order["books"], "DepthUpdate")
        heard.wait(1, "unsub")
        client.close_connection()
    return {"messages": heard.messages, "errors": heard.errors}


def live_depth(order):
    heard = Heard()
    tbt_ws.FyersTbtSocket._instance = None

    def begin():
        client.subscribe(set(order["symbols"]), "1", tbt_ws.SubscriptionModes.DEPTH)
        client.switchChannel({"1"}, set())

    client = tbt_ws.FyersTbtSocket(
        access_token=order["token"],
        reconnect=False,
        on_depth_update=lambda ticker, book: heard.message({"type": "book", **shown(ticker, book)}),
        on_error_message=heard.error,
        on_error=heard.error,
        on_open=begin,
        on_close=lambda _: None,
    )
    client.keep_running()
    client.connect()
    heard.wait(order["count"], "book")
    client.close_connection()
    return {"messages": heard.messages, "errors": heard.errors}


def login(order):
    session = fyersModel.SessionModel(**order["session"])
    session.set_token(order["auth_code"])
    rerouted_post, requests.post = requests.post, PLAIN_POST
    try:
        return {"page": session.generate_authcode(), **recorded(session.generate_token, order["answers"])}
    finally:
        requests.post = rerouted_post


ANSWERS = {"market": market, "depth": depth, "schema": schema, "frames": frames, "indices": indices, "live": live}
ANSWERS["login"] = login

for line in sys.stdin:
    try:
        [(name, value)] = json.loads(line).items()
        result = ANSWERS[name](value)
    except Exception as error:  # whatever the SDK raises is its answer
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), file=OUT, flush=True)

os._exit(0)  # the clients' threads are no daemons
