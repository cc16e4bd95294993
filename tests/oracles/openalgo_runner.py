"""
Runs in the oracle's environment: the unmodified `openalgo` package as its users run it, one JSON line a step.

`{"do": "open", "key": …, "host": …, "ws_url": …}`, then any of STEPS. Modes are the package's numbers; what its
callbacks got is kept, a list a mode.
"""

import contextlib
import json
import os
import sys
import time

from openalgo import api

WAIT_S = 25
SUBSCRIBE = {1: "subscribe_ltp", 2: "subscribe_quote", 3: "subscribe_depth"}
UNSUBSCRIBE = {1: "unsubscribe_ltp", 2: "unsubscribe_quote", 3: "unsubscribe_depth"}
KEPT = {"client": None}
GOT = {1: [], 2: [], 3: []}


def open_(order):
    KEPT["client"] = api(api_key=order["key"], host=order["host"], ws_url=order["ws_url"])
    return {"connected": KEPT["client"].connect()}


def quotes(order):
    return {"quotes": KEPT["client"].quotes(symbol=order["symbol"], exchange=order["exchange"])}


def subscribe(order):
    keep = GOT[order["mode"]].append
    return {"sent": getattr(KEPT["client"], SUBSCRIBE[order["mode"]])(order["instruments"], on_data_received=keep)}


def unsubscribe(order):
    return {"sent": getattr(KEPT["client"], UNSUBSCRIBE[order["mode"]])(order["instruments"])}


def wait(order):
    """Until a mode's callback got more than so many ticks."""
    got, end_s = GOT[order["mode"]], time.monotonic() + WAIT_S
    while len(got) <= order["beyond"] and time.monotonic() < end_s:
        time.sleep(0.01)
    return {"got": len(got), "last": got[-1] if got else None}


def counts(order):
    return {"counts": [len(GOT[mode]) for mode in (1, 2, 3)]}


def stored(order):
    client = KEPT["client"]
    return {"ltp": client.get_ltp(), "quotes": client.get_quotes(), "depth": client.get_depth()}


def orders(order):
    return {"sent": KEPT["client"].subscribe_orders(on_order_update=lambda update: None)}


def close(order):
    KEPT["client"].disconnect()
    return {"connected": KEPT["client"].connected}


STEPS = {
    "open": open_,
    "quotes": quotes,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "wait": wait,
    "counts": counts,
    "stored": stored,
    "orders": orders,
    "close": close,
}

for line in sys.stdin:
    order = json.loads(line)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = STEPS[order["do"]](order)
    except Exception as error:  # whatever the package raises is its answer
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)

os._exit(0)  # the package's threads may be waiting for a reconnection
