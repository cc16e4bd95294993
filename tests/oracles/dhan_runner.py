"""
Runs in the oracle's environment: dhanhq's own parsers and its own clients, one JSON line each.

A line is `market`, `depth20` or `depth200` and a frame in hex; or a JSON object: a session of a client with a server,
or with `call` one of the calls of a login.
"""

import asyncio
import contextlib
import io
import json
import sys

from dhanhq import DhanContext, FullDepth, MarketFeed
from dhanhq.auth import DhanLogin, webbrowser
from login_runner import recorded

webbrowser.open = lambda url: True

PARSERS = {
    "market": MarketFeed(DhanContext("c", "t"), []),
    "depth20": FullDepth(DhanContext("c", "t"), [], depth_level=20),
    "depth200": FullDepth(DhanContext("c", "t"), [], depth_level=200),
}


def parsed(kind, frame):
    """What a parser makes of a frame; a depth frame packet by packet, as the client does it."""
    parser, packets = PARSERS[kind], []
    while frame:
        packet = parser.process_data(frame)
        frame = packet.pop("remaining_data", None) if isinstance(packet, dict) else None
        packets.append(packet)
    return packets


def market_session(order):
    """The market client from its connect to its close: the packets of the first `count` frames."""
    MarketFeed.market_feed_wss = order["url"]
    feed = MarketFeed(DhanContext(order["client_id"], order["token"]), [tuple(each) for each in order["instruments"]])
    feed.run_forever()
    packets = [feed.get_data() for _ in range(order["count"])]
    feed.unsubscribe_symbols([tuple(each) for each in order["instruments"]])
    feed.loop.run_until_complete(asyncio.sleep(0.2))  # it says so on its own loop, when that runs
    feed.close_connection()
    return packets


def depth_session(order):
    """The depth client: the books of the first frame."""

    class Here(FullDepth):
        depth_20_feed_wss = f"{order['url']}/twentydepth"
        depth_200_feed_wss = f"{order['url']}/"

    context = DhanContext(order["client_id"], order["token"])
    client = Here(context, [tuple(each) for each in order["instruments"]], depth_level=order["levels"])
    client.on_ticks = lambda book: None
    client.run_forever()
    books = client.get_data()
    client.close_connection()
    return books


def login(order):
    client = DhanLogin(order["client_id"])
    return recorded(lambda: getattr(client, order["call"])(*order["arguments"]), order["answers"])


def answer(line):
    if line.startswith("{"):
        order = json.loads(line)
        if "call" in order:
            return login(order)
        return depth_session(order) if "levels" in order else market_session(order)
    kind, frame = line.split()
    return parsed(kind, bytes.fromhex(frame))


for line in sys.stdin:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            found = answer(line.strip())
        result = found if isinstance(found, dict) and "sent" in found else {"packets": found}
    except Exception as error:  # whatever the SDK raises is its answer
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result | {"said": said.getvalue().strip()}), flush=True)
