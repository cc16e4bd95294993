"""Runs in the oracle's environment: kiteconnect's own parser on frames in hex, one JSON line each."""

import datetime
import json
import sys

from kiteconnect import KiteTicker

TICKER = KiteTicker.__new__(KiteTicker)


def plain(value):
    """Datetimes, made in the local zone, which is UTC here, as Unix seconds."""
    if isinstance(value, datetime.datetime):
        return int(value.replace(tzinfo=datetime.timezone.utc).timestamp())
    raise TypeError(type(value).__name__)


for line in sys.stdin:
    try:
        answer = {"packets": TICKER._parse_binary(bytes.fromhex(line.strip()))}
    except Exception as error:  # whatever the SDK raises is its answer
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer, default=plain), flush=True)
