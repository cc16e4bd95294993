"""
Angel One's side of SmartStream: login in headers, JSON requests in, a little-endian binary packet a frame out.

Source: https://smartapi.angelbroking.com/docs/WebSocket2 and /docs/Instruments; offsets also in
angel-one/smartapi-python, smartWebSocketV2.py. What no document says was chosen as follows:

- Client code and feed token must be there, in headers or in the query; API key and JWT must be right where they are
  given (the official Java client sends neither). More sockets than allowed are refused with HTTP 429.
- A subscription is answered with the instrument's current image at once, in all modes it has then.
- A request that cannot be read, or that asks for 20 levels of what is no share of NSE, is refused whole (E1001). Of one
  over a limit what fits is taken (E1002). Tokens that are not quoted are passed over without a word, and so is the end
  of a mode that an instrument does not have.
- A share's open interest is its volume: a number there that means nothing. The year's high and low are the day's.
- Numbers of indices but those in `INDEX_TOKENS` are invented. The instrument file has no rows of NSE's commodities,
  which the real one has and this socket does not.
- Nothing is sent to a silent client: the heartbeat is the client's.
- The login over HTTP takes the one-time password of this half minute, of the one before and of the next. Its refusals
  are HTTP 200; AB1050 for a wrong one-time password is from Angel One's forum, AB1000 and AB1006 are from
  memory. A token ends at the next 5:00 in India. A login ends none before it, as several may be logged in.
"""

from __future__ import annotations

import json
import random
import secrets
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from brokers.contract import HttpResponse
from brokers.simulators.engine import Client, Entry
from brokers.simulators.keys import Denied
from brokers.simulators.logins import DEMO_PIN, DEMO_TOTP_SECRET, LoginServer, as_json, jwt, next_ist
from brokers.simulators.market import Quote
from brokers.simulators.universe import Listing
from brokers.symbols import MONTHS, date_text, strike_text
from brokers.totp import STEP_MS, totp

PATH = "/smart-stream"
LOGIN = "/rest/auth/angelbroking/user/v1/loginByPassword"

EXCHANGE_TYPES = {
    "NSE": 1, "NSE_INDEX": 1, "NFO": 2, "BSE": 3, "BSE_INDEX": 3, "BFO": 4, "MCX": 5, "MCX_INDEX": 5, "NCDEX": 7,
    "CDS": 13,
}  # fmt: skip
"""Those that can be subscribed."""

ELSEWHERE = {"BCD": 101, "NCO": 102, "GLOBAL_INDEX": 103}
"""Exchanges of the market that Angel One's socket does not have: numbers that no request can name."""

MODES = {1: "ltp", 2: "quote", 3: "snap", 4: "depth20"}
MODE_NUMBERS = {name: number for number, name in MODES.items()}

MOST_DEEP = 50
"""Instruments of a socket with 20 levels."""

INDEX_TOKENS = {
    "NIFTY": 99926000,
    "BANKNIFTY": 99926009,
    "FINNIFTY": 99926037,
    "MIDCPNIFTY": 99926074,
    "NIFTYNXT50": 99926013,
    "INDIAVIX": 99926017,
    "SENSEX": 99919000,
    "BANKEX": 99919012,
}
INDEX_NAMES = {
    "NIFTY": ("Nifty 50", "NIFTY"),
    "BANKNIFTY": ("Nifty Bank", "BANKNIFTY"),
    "FINNIFTY": ("Nifty Fin Service", "FINNIFTY"),
    "MIDCPNIFTY": ("NIFTY MID SELECT", "MIDCPNIFTY"),
    "NIFTYNXT50": ("Nifty Next 50", "NIFTYNXT50"),
    "INDIAVIX": ("India VIX", "INDIA VIX"),
}
"""Symbol and name in the instrument file, where they are not the index's name here."""

INVALID, OVER_LIMIT = "E1001", "E1002"

_SLOT = 32

# Mode, exchange type, token, sequence number, exchange time, last price.
_LTP = struct.Struct("<BB25sqqq")
# Last quantity, average, volume, total buy and sell quantity, open, high, low, close.
_QUOTE = struct.Struct("<qqqddqqqq")
# Last trade's time, open interest, its change (a dummy).
_INTEREST = struct.Struct("<qqd")
# Side (1 buy, 0 sell), quantity, price, orders: five of each side.
_FIVE = struct.Struct("<" + "hqqh" * 10)
# Upper and lower circuit, the year's high and low.
_BANDS = struct.Struct("<qqqq")
# Mode, exchange type, token, exchange time, received (a dummy); quantity, price, orders: twenty of each side.
_DEPTH_20 = struct.Struct("<BB25sqq" + "iih" * 40)


class _Group(msgspec.Struct):
    exchange_type: int = msgspec.field(name="exchangeType")
    tokens: list[str]


class _Params(msgspec.Struct):
    mode: int
    token_list: list[_Group] = msgspec.field(name="tokenList")


class _Request(msgspec.Struct):
    action: int
    params: _Params


class _Login(msgspec.Struct):
    clientcode: str
    password: str
    totp: str


class _Name(msgspec.Struct):
    correlation_id: str = msgspec.field(name="correlationID", default="")


class AngelSimulator(LoginServer):
    """Angel One on a loopback port; connect to `url`/smart-stream with the headers of `credentials`."""

    slug: ClassVar[str] = "angel"
    heartbeat: ClassVar[None] = None
    heartbeat_s: ClassVar[float] = 3600.0
    damages: ClassVar[tuple[str, ...]] = ("truncated", "mode", "exchange", "token", "totals", "random", "text")
    default_rules: ClassVar[tuple[int, int]] = (3, 1000)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"packets_per_frame": 1})
        self._sequence = 0
        self._error = ("", INVALID)
        """Correlation id and code of the refusal that is being sent."""

    def wire_id(self, listing: Listing) -> int:
        """The exchange type, before the token in the low 32 bits."""
        return (EXCHANGE_TYPES | ELSEWHERE)[listing.exchange] << _SLOT | _token(listing)

    def scale(self, listing: Listing) -> int:
        """The divisor of the instrument's prices."""
        return 10_000_000 if listing.exchange == "CDS" else 100

    # ---------------------------------------------------------------------------------------------------------- login

    def credentials(self, api_key: str, token: str) -> dict[str, str]:
        """The key is the client code, the token the JWT; the feed token and the API key are made from these."""
        return {
            "client_code": api_key,
            "api_key": f"key-{api_key}",
            "jwt_token": token,
            "feed_token": f"feed-{token}",
            "pin": DEMO_PIN,
            "totp_secret": DEMO_TOTP_SECRET,
        }

    def token_of(self, credentials: Mapping[str, str]) -> str:
        """The JWT."""
        return credentials.get("jwt_token", "").removeprefix("Bearer ")

    def http(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """The login."""
        if (method, urlsplit(target).path) != ("POST", LOGIN):
            return None
        try:
            given = msgspec.json.decode(body, type=_Login)
        except msgspec.MsgspecError:
            return as_json(400, {"success": False, "message": "Invalid input", "errorCode": "AG8003", "data": ""})
        try:
            token = self._checked(given, headers.get("x-privatekey", ""))
        except Denied as denied:
            self.login_refused("token", denied, given.clientcode)
            code = str(denied.facts.get("code", "AB1006"))
            if code.startswith("AG"):
                return as_json(200, {"success": False, "message": str(denied), "errorCode": code, "data": ""})
            return as_json(200, {"status": False, "message": str(denied), "errorcode": code, "data": None})
        data = {"jwtToken": token, "refreshToken": secrets.token_hex(16), "feedToken": f"feed-{token}"}
        return as_json(200, {"status": True, "message": "SUCCESS", "errorcode": "", "data": data})

    def _checked(self, given: _Login, api_key: str) -> str:
        """A token. Raises Denied."""
        code, now_s = given.clientcode, self.clock()
        if code not in self.keys:
            raise Denied(200, "Invalid clientcode or password", code="AB1000")
        self.keys.check_lock(code, status=200)
        if api_key != f"key-{code}":
            raise Denied(200, "Invalid API Key", code="AG8004", wrong=code)
        if given.password != DEMO_PIN:
            raise Denied(200, "Invalid clientcode or password", code="AB1000", wrong=code)
        now_ms = int(now_s * 1000)
        if given.totp not in {totp(DEMO_TOTP_SECRET, now_ms + shift) for shift in (-STEP_MS, 0, STEP_MS)}:
            raise Denied(200, "Invalid totp", code="AB1050", wrong=code)
        end_s = next_ist(5, 0, now_s)
        token = jwt(username=code, usertype="USER", jti=secrets.token_hex(8), iat=int(now_s), exp=int(end_s))
        self.granted("token", code, token, end_s)
        return token

    def login(self, request: Request) -> Entry:
        """The client code and the token. Raises Denied: 404 for another path, 401 for a wrong credential."""
        url = urlsplit(request.path)
        if url.path != PATH:
            raise Denied(404, f"There is nothing at {url.path}.")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = request.headers
        client_code = headers.get("x-client-code") or query.get("clientCode", "")
        feed_token = headers.get("x-feed-token") or query.get("feedToken", "")
        bearer = headers.get("Authorization")
        token = (bearer or feed_token).removeprefix("Bearer ").removeprefix("feed-")
        if client_code not in self.keys:
            raise _invalid("Client Code", token)
        self.keys.check_lock(client_code, token, status=401)
        is_feed_token = feed_token.startswith("feed-")
        if not is_feed_token or not self.keys.is_good(client_code, feed_token.removeprefix("feed-")):
            raise _invalid("Feed Token", token, client_code)
        if bearer is not None and not self.keys.is_good(client_code, token):
            raise _invalid("Auth token", token, client_code)
        api_key = headers.get("x-api-key") or query.get("apiKey")
        if api_key is not None and api_key != f"key-{client_code}":
            raise _invalid("API Key", token, client_code)
        self.keys.right(client_code)
        return Entry(client_code, token)

    async def _answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """A refused login has its reason in a header."""
        response = await super()._answer(socket, request)
        if response is not None and response.status_code == 401:
            response.headers["x-error-message"] = response.body.decode().strip()
        return response

    # ------------------------------------------------------------------------------------------------------------- in

    def received(self, client: Client, message: str | bytes) -> None:
        """Acts on `{"correlationID", "action": 0 | 1, "params": {"mode", "tokenList"}}`; answers the text ping."""
        if message == "ping":
            self._send(client, "pong")
            return
        name = _correlation_id(message)
        try:
            request = msgspec.json.decode(message, type=_Request)
            ids = _wire_ids(request)
        except (msgspec.MsgspecError, ValueError) as error:
            self._refuse(client, name, INVALID, f"Invalid request payload: {error}.")
            return
        mode = MODES[request.params.mode]
        if request.action == 0:
            self._take_mode(client, ids, mode)
        else:
            self._add_mode(client, self._within(client, ids, mode, name), mode)

    def _add_mode(self, client: Client, ids: Sequence[int], mode: str) -> None:
        """Adds a mode to those each instrument has."""
        groups: dict[str, list[int]] = {}
        for wire_id in ids:
            groups.setdefault(_joined({mode, *_split(client.modes.get(wire_id))}), []).append(wire_id)
        for modes, group in groups.items():
            known = [wire_id for wire_id in group if client.modes.get(wire_id, modes) != modes]
            new = [wire_id for wire_id in group if wire_id not in set(known)]
            if new:
                self.subscribe(client, new, modes)
            if known:
                self.set_mode(client, modes, known)

    def _take_mode(self, client: Client, ids: Sequence[int], mode: str) -> None:
        """Takes a mode from each instrument that has it; one without any is subscribed no more."""
        groups: dict[str, list[int]] = {}
        for wire_id in ids:
            modes = _split(client.modes.get(wire_id))
            if mode in modes:
                groups.setdefault(_joined(modes - {mode}), []).append(wire_id)
        for rest, group in groups.items():
            if rest:
                self.set_mode(client, rest, group)
            else:
                self.unsubscribe(client, group)

    def _within(self, client: Client, ids: Iterable[int], mode: str, name: str) -> list[int]:
        """Those that the limits allow, an instrument counting once a mode; the others are reported and counted."""
        held = [each for modes in client.modes.values() for each in _split(modes)]
        room = self.rules_of(client.kind).instruments_per_socket - len(held)
        if mode == "depth20":
            room = min(room, MOST_DEEP - held.count(mode))
        taken, excess = [], 0
        for wire_id in dict.fromkeys(ids):
            is_new = wire_id in self.market.by_wire_id and mode not in _split(client.modes.get(wire_id))
            if is_new and room <= 0:
                excess += 1
                continue
            room -= is_new
            taken.append(wire_id)
        if excess:
            self._count["limit_violations"] += excess
            self._refuse(client, name, OVER_LIMIT, f"Subscription limit exceeded by {excess} in mode {mode}.")
        return taken

    def _refuse(self, client: Client, name: str, code: str, sentence: str) -> None:
        self._error = name, code
        self.complain(client, sentence)

    # ------------------------------------------------------------------------------------------------------------ out

    def packets(self, quote: Quote, mode: str) -> Sequence[bytes]:
        """One packet for each mode the instrument has."""
        return [self.packet(quote, each) for each in mode.split("+")]

    def packet(self, quote: Quote, mode: str) -> bytes:
        """
        The packet of one mode.

        With `stamp` the last traded quantity is the low 32 bits of the Unix time in microseconds; a packet of mode ltp
        or depth20 has none.
        """
        if mode == "depth20":
            return _depth_20_packet(quote)
        self._sequence += 1
        head = _LTP.pack(
            MODE_NUMBERS[mode],
            quote.wire_id >> _SLOT,
            _digits(quote),
            0 if quote.is_index else self._sequence,
            quote.exchange_ms,
            quote.ltp,
        )
        if mode == "ltp":
            return head
        ltq = time.time_ns() // 1000 & 0xFFFFFFFF if self.stamp and not quote.is_index else quote.ltq
        middle = _QUOTE.pack(
            ltq,
            quote.average_price,
            quote.volume,
            quote.total_buy_quantity,
            quote.total_sell_quantity,
            quote.open,
            quote.high,
            quote.low,
            quote.close,
        )
        return head + middle if mode == "quote" else head + middle + _snap_tail(quote)

    def frame(self, packets: Sequence[bytes]) -> bytes:
        """A packet is a message."""
        [packet] = packets
        return packet

    def complaint(self, sentence: str) -> str:
        """An error as JSON; the request's correlation id is given back where it had one."""
        name, code = self._error
        answer = {"errorCode": code, "errorMessage": sentence}
        return json.dumps({"correlationID": name} | answer if name else answer)

    def damaged(self, kind: str, quote: Quote, chance: random.Random) -> bytes | str:
        """
        A spoilt frame: a packet cut short (`truncated`), of a `mode` or `exchange` that does not exist, without a
        `token`, with `totals` that are no numbers, a few `random` bytes, or a `text` that is no JSON.
        """
        packet = bytearray(self.packet(quote, "quote"))
        if kind == "truncated":
            del packet[chance.randrange(1, len(packet)) :]
        elif kind == "mode":
            packet[0] = chance.randrange(5, 256)
        elif kind == "exchange":
            packet[1] = chance.randrange(14, 256)
        elif kind == "token":
            packet[2:27] = bytes(25)
        elif kind == "totals":
            packet[75:83] = struct.pack("<d", float("nan"))
        elif kind == "random":
            return chance.randbytes(chance.randrange(1, 51))
        else:
            return '{"errorCode": '
        return bytes(packet)

    # --------------------------------------------------------------------------------------------------------- master

    def master(self, segment: str = "") -> str:
        """The instruments as Angel One's JSON list, of one exchange (NSE, NFO …) or of all."""
        listed = [quote.listing for quote in self.market.quotes if quote.listing.exchange in EXCHANGE_TYPES]
        rows = [_master_row(one) for one in listed]
        chosen = [row for row in rows if segment.upper() in {"", row["exch_seg"]}]
        return json.dumps(chosen) if chosen else ""


SIMULATOR = AngelSimulator


def _invalid(what: str, token: str, wrong: str = "") -> Denied:
    return Denied(401, f"Invalid Header - Invalid {what}", token=token, wrong=wrong)


def _token(listing: Listing) -> int:
    """The exchange's own number; of an index 999 and five digits."""
    if listing.kind == "INDEX":
        return INDEX_TOKENS.get(listing.symbol, 99_900_000 + listing.code)
    return listing.code


def _digits(quote: Quote) -> bytes:
    return str(quote.wire_id & (1 << _SLOT) - 1).encode()


def _correlation_id(message: str | bytes) -> str:
    """What a request calls itself; "" where that cannot be read."""
    try:
        return msgspec.json.decode(message, type=_Name).correlation_id
    except msgspec.MsgspecError:
        return ""


def _wire_ids(request: _Request) -> list[int]:
    """
    What a request is about.

    Raises ValueError: an action, mode, exchange type or token that there is not, or 20 levels where there are none.
    """
    params = request.params
    if request.action not in {0, 1}:
        raise ValueError(f"no action {request.action}")
    if params.mode not in MODES:
        raise ValueError(f"no mode {params.mode}")
    ids = []
    for group in params.token_list:
        if group.exchange_type not in EXCHANGE_TYPES.values():
            raise ValueError(f"no exchangeType {group.exchange_type}")
        numbers = [int(token) for token in group.tokens]
        if any(not 0 < number < 1 << _SLOT for number in numbers):
            raise ValueError("a token out of range")
        if params.mode == 4 and (group.exchange_type != 1 or any(number >= 99_900_000 for number in numbers)):
            raise ValueError("mode 4 is for shares of exchangeType 1")
        ids += [group.exchange_type << _SLOT | number for number in numbers]
    return ids


def _split(modes: str | None) -> set[str]:
    return set(modes.split("+")) if modes else set()


def _joined(modes: set[str]) -> str:
    """
    Several modes as one word, in the wire's order.

    >>> _joined({"depth20", "snap"})
    'snap+depth20'
    """
    return "+".join(sorted(modes, key=MODE_NUMBERS.__getitem__))


def _snap_tail(quote: Quote) -> bytes:
    """What a snap quote has beyond a quote; of an index zeros."""
    if quote.is_index:
        return bytes(_INTEREST.size + _FIVE.size + _BANDS.size)
    bids, asks = quote.book()
    rows = [(side, row) for side, side_rows in ((1, bids), (0, asks)) for row in side_rows]
    fields = [field for side, (price, quantity, orders) in rows for field in (side, quantity, price, _i16(orders))]
    interest = quote.oi if quote.has_oi else quote.volume
    return (
        _INTEREST.pack(quote.last_trade_ms // 1000, interest, 1e-9)
        + _FIVE.pack(*fields)
        + _BANDS.pack(quote.upper_circuit, quote.lower_circuit, quote.high, quote.low)
    )


def _depth_20_packet(quote: Quote) -> bytes:
    bids, asks = quote.deep_book(20)
    fields = [field for price, quantity, orders in (*bids, *asks) for field in (quantity, price, _i16(orders))]
    return _DEPTH_20.pack(4, quote.wire_id >> _SLOT, _digits(quote), quote.exchange_ms, 0, *fields)


def _i16(orders: int) -> int:
    """A number of up to 16 bits as the wire's signed integer of the same bits."""
    return orders - 0x10000 if orders > 0x7FFF else orders


def _master_row(one: Listing) -> dict[str, Any]:
    symbol, name = _names(one)
    return {
        "token": str(_token(one)),
        "symbol": symbol,
        "name": name,
        "expiry": "" if one.expiry is None else f"{one.expiry.day:02d}{MONTHS[one.expiry.month - 1]}{one.expiry.year}",
        "strike": _strike(one),
        "lotsize": str(one.lot_size),
        "instrumenttype": _instrument_type(one),
        "exch_seg": one.exchange.removesuffix("_INDEX"),
        "tick_size": f"{0 if one.kind == 'INDEX' else round(one.tick_size * _price_unit(one), 4):.6f}",
        "freeze_qty": "0" if one.kind == "INDEX" else "100000",
        "is_cas_enabled": False,
    }


def _names(one: Listing) -> tuple[str, str]:
    """
    Symbol and name: SBIN-EQ and SBIN; of a contract NIFTY28MAR2420800CE and NIFTY, on BFO SENSEX24MAR75000CE.
    """
    if one.kind == "INDEX":
        return INDEX_NAMES.get(one.symbol, (one.symbol, one.symbol))
    if one.expiry is None:
        return f"{one.symbol}-EQ" if one.exchange == "NSE" else one.symbol, one.symbol
    month = f"{one.expiry.year % 100:02d}{MONTHS[one.expiry.month - 1]}"
    day = month if one.exchange == "BFO" else date_text(one.expiry)
    return f"{one.name}{day}{'' if one.strike is None else strike_text(one.strike)}{one.kind}", one.name


def _strike(one: Listing) -> str:
    if one.kind == "INDEX":
        return "0.000000"
    return "-1.000000" if one.strike is None else f"{round(one.strike * _price_unit(one), 4):.6f}"


def _price_unit(one: Listing) -> int:
    return 10_000_000 if one.exchange == "CDS" else 100


_TYPES: Mapping[str, tuple[str, str]] = {"CDS": ("FUTCUR", "OPTCUR"), "MCX": ("FUTCOM", "OPTFUT")}


def _instrument_type(one: Listing) -> str:
    if one.kind == "INDEX":
        return "AMXIDX"
    if one.kind == "EQ":
        return ""
    ends = "IDX" if one.name in {"NIFTY", "BANKNIFTY", "SENSEX"} else "STK"
    future, option = _TYPES.get(one.exchange, (f"FUT{ends}", f"OPT{ends}"))
    return future if one.kind == "FUT" else option
