"""
Runs in the oracle's environment: kiteconnect's own parser on frames in hex, one JSON line each.

A JSON object instead is a login: the address of the page and the calls for the token.
"""

import datetime
import json
import sys

from kiteconnect import KiteConnect, KiteTicker
from login_runner import recorded

TICKER = KiteTicker.__new__(KiteTicker)


def plain(value):
    """Datetimes, made in the local zone, which is UTC here, as Unix seconds."""
    if isinstance(value, datetime.datetime):
        return int(value.replace(tzinfo=datetime.timezone.utc).timestamp())
    raise TypeError(type(value).__name__)


def login(order):
    client = KiteConnect(order["api_key"])
    done = recorded(lambda: client.generate_session(order["request_token"], order["api_secret"]), order["answers"])
    return {"page": client.login_url(), "sent": done["sent"]}


def answered(line):
    if line.startswith("{"):
        return login(json.loads(line))
    return {"packets": TICKER._parse_binary(bytes.fromhex(line))}


for line in sys.stdin:
    try:
        answer = answered(line.strip())
    except Exception as error:  # whatever the SDK raises is its answer
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer, default=plain), flush=True)
