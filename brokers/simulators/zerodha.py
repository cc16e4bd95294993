"""
Zerodha's side of the Kite ticker: login in the URL, JSON requests in, big-endian binary packets out.

Source: https://kite.trade/docs/connect/v3/websocket/ and /market-quotes/#instruments; divisors as in
zerodha/pykiteconnect, ticker.py. What no document says was chosen as follows:

- More sockets than allowed are refused with HTTP 429 at the upgrade.
- `subscribe` is answered with the instrument's current image at once, and so is `mode`. Subscribing again what is
  subscribed keeps its mode. `mode` for what is not subscribed does nothing.
- A number that is not quoted is passed over without a word.
- Instruments over the limit are reported in one error message and passed over.
- The master and the control ask for no login.

The login is that of https://kite.trade/docs/connect/v3/user/: a page at /connect/login, then POST /session/token. An
access token ends at 6:00 in India. A new one ends the one before it, but not the sockets that were opened with it:
these are dropped when their own token's time is over.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import secrets
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, urlsplit

from websockets.http11 import Request

from brokers.contract import HttpResponse
from brokers.simulators.engine import Client, Entry
from brokers.simulators.keys import Denied
from brokers.simulators.logins import DEMO_SECRET, Asked, LoginPages, as_json, form, ist_text, next_ist
from brokers.simulators.market import Quote
from brokers.simulators.universe import Listing
from brokers.symbols import MONTHS, strike_text

SEGMENTS = {
    "NSE": 1, "NFO": 2, "CDS": 3, "BSE": 4, "BFO": 5, "BCD": 6, "MCX": 7, "NCO": 12,
    "NSE_INDEX": 9, "BSE_INDEX": 9, "MCX_INDEX": 9, "GLOBAL_INDEX": 9,
}  # fmt: skip
"""The low byte of an instrument token."""

DIVISORS = {"CDS": 10_000_000, "BCD": 10_000, "NCO": 10_000}
"""By what prices are divided; 100 elsewhere."""

MODES = ("ltp", "quote", "full")

INDEX_NAMES = {
    "NIFTY": "NIFTY 50",
    "BANKNIFTY": "NIFTY BANK",
    "FINNIFTY": "NIFTY FIN SERVICE",
    "MIDCPNIFTY": "NIFTY MID SELECT",
    "NIFTYNXT50": "NIFTY NEXT 50",
    "INDIAVIX": "INDIA VIX",
    "GIFTNIFTY": "GIFT NIFTY",
}
"""Zerodha's names of indices that have another one here."""

_INDEX_EXCHANGES = {"NSE_INDEX": "NSE", "BSE_INDEX": "BSE", "MCX_INDEX": "MCX", "GLOBAL_INDEX": "NSEIX"}
_MASTER_HEADER = (
    "instrument_token", "exchange_token", "tradingsymbol", "name", "last_price", "expiry", "strike", "tick_size",
    "lot_size", "instrument_type", "segment", "exchange",
)  # fmt: skip

# Each begins with the packet's own length (u16), as it stands in a frame. Then: token, last price, and
# quantity, average, volume, total buy and sell quantity, open, high, low, close;
# last trade time, open interest, its day's high and low, exchange time; ten rows of quantity, price, orders, padding.
_LTP = struct.Struct(">HIi")
_QUOTE = struct.Struct(">HIiIiIIIiiii")
_FULL = struct.Struct(">HIiIiIIIiiiiIIIII" + "IiHxx" * 10)
# An index: token, last value, high, low, open, close, change; exchange time.
_INDEX_QUOTE = struct.Struct(">HIiiiiii")
_INDEX_FULL = struct.Struct(">HIiiiiiiI")
_COUNT = struct.Struct(">H")


class ZerodhaSimulator(LoginPages):
    """Zerodha on a loopback port; connect to `url` with `?api_key=demo&access_token=demo-token`."""

    slug: ClassVar[str] = "zerodha"
    heartbeat: ClassVar[bytes] = b"\x00"
    heartbeat_s: ClassVar[float] = 2.0
    damages: ClassVar[tuple[str, ...]] = ("truncated", "length", "count", "random", "text")
    default_rules: ClassVar[tuple[int, int]] = (3, 3000)
    page_path: ClassVar[str] = "/connect/login"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._request_tokens: dict[str, str] = {}
        """The api key of each that was given out and not used."""

    def wire_id(self, listing: Listing) -> int:
        """
        The instrument token: the exchange's number, then the segment in the low byte.
        """
        return listing.code << 8 | SEGMENTS[listing.exchange]

    def scale(self, listing: Listing) -> int:
        """The divisor of the instrument's prices."""
        return DIVISORS.get(listing.exchange, 100)

    def credentials(self, api_key: str, token: str) -> dict[str, str]:
        """The app's secret makes the proof of a login."""
        return {"api_key": api_key, "api_secret": DEMO_SECRET, "access_token": token}

    # ---------------------------------------------------------------------------------------------------------- login

    def http(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """The login page, and `POST /session/token`: an access token for a request token."""
        if (method, urlsplit(target).path) != ("POST", "/session/token"):
            return self.page(method, target, body)
        fields = form(body)
        try:
            return as_json(200, {"status": "success", "data": self._session(fields)})
        except Denied as denied:
            self.login_refused("token", denied, fields.get("api_key", ""))
            answer = {"status": "error", "message": str(denied), "data": None, "error_type": "TokenException"}
            return as_json(denied.status, answer)

    def asked(self, given: Mapping[str, str]) -> Asked:
        """The app of `api_key`; `redirect_params` come back one by one."""
        api_key = given.get("api_key", "")
        if api_key not in self.keys:
            raise Denied(400, "Invalid `api_key`.")
        return Asked(api_key, dict(parse_qsl(given.get("redirect_params", ""))))

    def brought(self, given: Mapping[str, str], user: str) -> Mapping[str, str]:
        """A request token."""
        request_token = secrets.token_hex(16)
        self._request_tokens[request_token] = user
        return {"action": "login", "type": "login", "status": "success", "request_token": request_token}

    def _session(self, fields: Mapping[str, str]) -> dict[str, object]:
        api_key, request_token = fields.get("api_key", ""), fields.get("request_token", "")
        owner = self._request_tokens.pop(request_token, "")
        if api_key not in self.keys:
            raise Denied(403, "Invalid `api_key`.")
        self.keys.check_lock(api_key)
        proof = hashlib.sha256(f"{api_key}{request_token}{DEMO_SECRET}".encode()).hexdigest()
        if fields.get("checksum") != proof:
            raise Denied(403, "Invalid `checksum`.", wrong=api_key)
        if owner != api_key:
            raise Denied(403, "Token is invalid or has expired.")
        now_s, token = self.clock(), secrets.token_hex(16)
        self.granted("token", api_key, token, next_ist(6, 0, now_s), only=True)
        return {
            "user_id": api_key,
            "user_type": "individual",
            "user_name": "SIMULATED",
            "broker": "ZERODHA",
            "api_key": api_key,
            "access_token": token,
            "public_token": secrets.token_hex(16),
            "refresh_token": "",
            "login_time": ist_text(now_s).replace("T", " "),
        }

    def login(self, request: Request) -> Entry:
        """Who `/?api_key=…&access_token=…` is. Raises Denied: 404 for another path, 403 for bad credentials."""
        url = urlsplit(request.path)
        if url.path not in {"", "/"}:
            raise Denied(404, f"There is nothing at {url.path}.")
        query = parse_qs(url.query)
        api_key, token = (query.get(name, [""])[0] for name in ("api_key", "access_token"))
        self.keys.check(api_key, token)
        return Entry(api_key, token)

    # ------------------------------------------------------------------------------------------------------------- in

    def received(self, client: Client, message: str | bytes) -> None:
        """Acts on `{"a": "subscribe" | "unsubscribe", "v": [tokens]}` and `{"a": "mode", "v": [mode, [tokens]]}`."""
        try:
            request = json.loads(message)
            action, value = request["a"], request["v"]
        except (ValueError, KeyError, TypeError):
            self.complain(client, "A request must be a JSON object with 'a' and 'v'.")
            return
        mode = "quote"
        if action == "mode":
            if not isinstance(value, list) or len(value) != 2 or value[0] not in MODES:
                self.complain(client, "The value of mode must be [ltp | quote | full, [tokens]].")
                return
            mode, value = value
        if not _are_tokens(value):
            self.complain(client, "Tokens must be a list of integers.")
        elif action == "subscribe":
            self.subscribe(client, value, mode)
        elif action == "unsubscribe":
            self.unsubscribe(client, value)
        elif action == "mode":
            self.set_mode(client, mode, value)
        else:
            self.complain(client, f"The action {action!r} is unknown.")

    # ------------------------------------------------------------------------------------------------------------ out

    def packet(self, quote: Quote, mode: str) -> bytes:
        """
        The packet of a mode, with its length before it.

        With `stamp` the last traded quantity is the low 32 bits of the Unix time in microseconds; in a packet of mode
        ltp, which has none, the price in paise is the low 24 bits of the Unix time in units of 10 microseconds.
        """
        if mode == "ltp":
            price = time.time_ns() // 10_000 & 0xFFFFFF if self.stamp else quote.ltp
            return _LTP.pack(8, quote.wire_id, price)
        if quote.is_index:
            return _index_packet(quote, mode)
        quantity = time.time_ns() // 1000 & 0xFFFFFFFF if self.stamp else quote.ltq
        if mode == "quote":
            return _QUOTE.pack(
                44,
                quote.wire_id,
                quote.ltp,
                quantity,
                quote.average_price,
                quote.volume,
                quote.total_buy_quantity,
                quote.total_sell_quantity,
                quote.open,
                quote.high,
                quote.low,
                quote.close,
            )
        return _full_packet(quote, quantity)

    def frame(self, packets: Sequence[bytes]) -> bytes:
        """The number of packets, then the packets."""
        return _COUNT.pack(len(packets)) + b"".join(packets)

    def complaint(self, sentence: str) -> str:
        """An error message."""
        return json.dumps({"type": "error", "data": sentence})

    def damaged(self, kind: str, quote: Quote, chance: random.Random) -> bytes | str:
        """
        A spoilt frame: the last packet cut short (`truncated`), a packet of a length that does not exist (`length`), a
        count of packets that are not there (`count`), `random` bytes, or a `text` frame that is no JSON.
        """
        packet = self.packet(quote, "quote")
        if kind == "truncated":
            whole = self.frame([packet, packet])
            return whole[: len(whole) - chance.randrange(1, len(packet) - 2)]
        if kind == "length":
            size = chance.choice([length for length in range(9, 200) if length not in {28, 32, 44, 184}])
            return _COUNT.pack(1) + _COUNT.pack(size) + chance.randbytes(size)
        if kind == "count":
            return _COUNT.pack(chance.randrange(3, 1000)) + packet + packet
        if kind == "random":
            return chance.randbytes(chance.randrange(5, 400))
        return '{"type": "error", "data": '

    # --------------------------------------------------------------------------------------------------------- master

    def master(self, segment: str = "") -> str:
        """The instruments as Kite's CSV, of one exchange (NSE, NFO … NSEIX) or of all."""
        rows = [_master_row(quote) for quote in self.market.quotes]
        chosen = [row for row in rows if segment.upper() in {"", row[-1]}]
        if not chosen:
            return ""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([_MASTER_HEADER, *chosen])
        return out.getvalue()


SIMULATOR = ZerodhaSimulator


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _index_packet(quote: Quote, mode: str) -> bytes:
    values = (quote.wire_id, quote.ltp, quote.high, quote.low, quote.open, quote.close, quote.ltp - quote.close)
    if mode == "quote":
        return _INDEX_QUOTE.pack(28, *values)
    return _INDEX_FULL.pack(32, *values, quote.exchange_ms // 1000)


def _full_packet(quote: Quote, quantity: int) -> bytes:
    bids, asks = quote.book()
    rows = [field for price, waiting, orders in (*bids, *asks) for field in (waiting, price, orders)]
    return _FULL.pack(
        184,
        quote.wire_id,
        quote.ltp,
        quantity,
        quote.average_price,
        quote.volume,
        quote.total_buy_quantity,
        quote.total_sell_quantity,
        quote.open,
        quote.high,
        quote.low,
        quote.close,
        quote.last_trade_ms // 1000,
        quote.oi,
        quote.oi_high,
        quote.oi_low,
        quote.exchange_ms // 1000,
        *rows,
    )


def _master_row(quote: Quote) -> tuple[object, ...]:
    one = quote.listing
    index = one.kind == "INDEX"
    return (
        quote.wire_id,
        one.code,
        _trading_symbol(one),
        INDEX_NAMES.get(one.symbol, one.symbol) if index else one.name,
        0,
        "" if one.expiry is None else one.expiry.isoformat(),
        strike_text(one.strike or 0),
        0 if index else f"{one.tick_size:g}",
        0 if index else one.lot_size,
        "EQ" if index else one.kind,
        _segment(one),
        _INDEX_EXCHANGES.get(one.exchange, one.exchange),
    )


def _segment(one: Listing) -> str:
    if one.kind == "INDEX":
        return "INDICES"
    if one.kind == "EQ":
        return one.exchange
    return f"{one.exchange}-{'FUT' if one.kind == 'FUT' else 'OPT'}"


def _trading_symbol(one: Listing) -> str:
    """
    Zerodha's own name: NIFTY24MAR20800CE, RELIANCE24MARFUT; of a weekly contract NIFTY2432120800CE (2024, March 21).
    """
    if one.expiry is None:
        return INDEX_NAMES.get(one.symbol, one.symbol) if one.kind == "INDEX" else one.symbol
    year, month = one.expiry.year % 100, one.expiry.month
    day = f"{'123456789OND'[month - 1]}{one.expiry.day:02d}" if one.weekly else MONTHS[month - 1]
    strike = "" if one.strike is None else strike_text(one.strike)
    return f"{one.name}{year:02d}{day}{strike}{one.kind}"
