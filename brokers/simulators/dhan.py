"""
Dhan's side of its three sockets: credentials in the URL, JSON requests in, little-endian binary packets out.

The market feed is at /, the socket for 20 levels at /twentydepth, that for 200 at /twohundreddepth (and at / without a
version, as the official client has it). Source: https://dhanhq.co/docs/v2/live-market-feed/, /full-market-depth/,
/annexure/ and /instruments/. What no document says was chosen as follows:

- A login that is refused is let in, told by a disconnect packet (806 to 810) and closed; another path is HTTP 404.
- One connection too many cuts the oldest with 805, as documented. Instruments over the limit of a connection or of a
  message end the connection with 804, a request that cannot be read with 814. Binary frames are passed over.
- An instrument that is not quoted is passed over without a word. An index in full mode is taken and never ticks.
- What is subscribed is answered with its current image, on the market feed with its previous close before long. Open
  interest follows each quote of a derivative.
- Both 24 and 25 unsubscribe a book, at once. 12 closes the connection.
- A last traded quantity over 65,535 is sent as 65,535. A packet for 200 levels has no rows for empty places.
- There is no ping from the server: the library's answer to it could not be seen.
- Ids of contracts and of some indices are invented.

The login is that of /authentication/: POST /app/generate-consent, a page at /login/consentApp-login, then
/app/consumeApp-consent; and GET /v2/RenewToken. A token is a JWT and ends after 24 hours. No document says more, so:

- Whoever logs in on the page, the token is theirs; the redirect has no state. The page's refusals are HTTP 401, a
  renewal's too, with DH-901; those of the other calls are HTTP 200 with the status error.
- A login ends no token before it. A renewal ends the token that it was asked with at once, as reported, but not the
  sockets that were opened with it. Only tokens made in Dhan Web are renewed, as documented; one of a login, which says
  so in `tokenConsumerType`, is refused with DH-902.
"""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import random
import secrets
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from websockets.http11 import Request
from websockets.protocol import State

from brokers import tokens
from brokers.contract import HttpResponse
from brokers.simulators.engine import Client, Entry
from brokers.simulators.keys import Denied
from brokers.simulators.logins import DAY_S, DEMO_SECRET, Asked, LoginPages, as_json, ist_text, jwt
from brokers.simulators.market import Quote, Row
from brokers.simulators.universe import Listing
from brokers.symbols import MONTHS, strike_text

SEGMENTS = {
    "NSE_INDEX": 0, "BSE_INDEX": 0, "NSE": 1, "NFO": 2, "CDS": 3, "BSE": 4, "MCX": 5, "BCD": 7, "BFO": 8,
}  # fmt: skip
"""A packet's exchange segment; Dhan has no other markets."""

ELSEWHERE = 15
"""Stands for a segment in the numbers of instruments that Dhan does not have."""

SEGMENT_CODES = {
    "IDX_I": 0, "NSE_EQ": 1, "NSE_FNO": 2, "NSE_CURRENCY": 3, "BSE_EQ": 4, "MCX_COMM": 5, "BSE_CURRENCY": 7,
    "BSE_FNO": 8,
}  # fmt: skip
"""The same by a request's word."""

INDEX_IDS = {"NIFTY": 13, "INDIAVIX": 21, "BANKNIFTY": 25, "FINNIFTY": 27, "SENSEX": 51, "MIDCPNIFTY": 442}
"""Security ids of indices that are known."""

INDEX_NAMES = {"INDIAVIX": "INDIA VIX", "NIFTYNXT50": "NIFTYNEXT50"}
"""Dhan's trading symbols of indices that have another one here."""

MARKET, DEPTH20, DEPTH200 = "", "depth20", "depth200"
"""The kinds of socket."""

MODES = {15: "ticker", 17: "quote", 21: "full"}
"""What a request code of the market feed subscribes; one more unsubscribes it."""

MOST_IN_A_MESSAGE = {MARKET: 100, DEPTH20: 50, DEPTH200: 1}

TOO_MANY_INSTRUMENTS, TOO_MANY_CONNECTIONS, NO_PLAN = 804, 805, 806
TOKEN_EXPIRED, LOGIN_FAILED, TOKEN_INVALID, CLIENT_INVALID, BAD_REQUEST = 807, 808, 809, 810, 814
"""Reasons of a disconnect packet."""

IST_S = 19_800
BID, ASK = 41, 51

_MASTER_HEADER = (
    "SEM_EXM_EXCH_ID", "SEM_SEGMENT", "SEM_SMST_SECURITY_ID", "SEM_INSTRUMENT_NAME", "SEM_EXPIRY_CODE",
    "SEM_TRADING_SYMBOL", "SEM_LOT_UNITS", "SEM_CUSTOM_SYMBOL", "SEM_EXPIRY_DATE", "SEM_STRIKE_PRICE",
    "SEM_OPTION_TYPE", "SEM_TICK_SIZE", "SEM_EXPIRY_FLAG", "SEM_EXCH_INSTRUMENT_TYPE", "SEM_SERIES", "SM_SYMBOL_NAME",
)  # fmt: skip
_UNDERLYING_INDICES = frozenset({"NIFTY", "BANKNIFTY", "FINNIFTY", "MIDCPNIFTY", "NIFTYNXT50", "SENSEX", "BANKEX"})

# Each begins with code, length, segment, security id. Then: last price and time; or last price, last quantity, time,
# average, volume, sell and buy total, open, close, high, low; full has open interest, its day's high and low before
# open, and five rows of bid and ask quantity, bid and ask orders, bid and ask price.
_TICKER = struct.Struct("<BHBIfI")
_QUOTE = struct.Struct("<BHBIfHIfIIIffff")
_FULL = struct.Struct("<BHBIfHIfIIIIIIffff" + "IIHHff" * 5)
_OI = struct.Struct("<BHBII")
_REASON = struct.Struct("<BHBIH")
# On the depth sockets: length, code, segment, security id, sequence or rows; then rows of price, quantity, orders.
_DEPTH_HEADER = struct.Struct("<HBBII")
_DEPTH_ROW = struct.Struct("<dII")
_DEPTH_REASON = struct.Struct("<HBBIIH")


class DhanSimulator(LoginPages):
    """Dhan on a loopback port; connect to `url` with `?version=2&token=demo-token&clientId=demo&authType=2`."""

    slug: ClassVar[str] = "dhan"
    heartbeat: ClassVar[None] = None
    heartbeat_s: ClassVar[float] = 3600.0
    damages: ClassVar[tuple[str, ...]] = ("truncated", "code", "segment", "price", "random", "text")
    default_rules: ClassVar[tuple[int, int]] = (5, 5000)
    kind_rules: ClassVar[Mapping[str, tuple[int, int]]] = {DEPTH20: (5, 50), DEPTH200: (5, 1)}
    page_path: ClassVar[str] = "/login/consentApp-login"
    takes_anyone: ClassVar[bool] = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.without_plan: set[str] = set()
        """Client ids whose account has no Data API plan: they are refused with 806."""
        self._goodbyes: set[asyncio.Task[None]] = set()
        """Connections that are being closed."""
        self._sequence = itertools.count(1)
        self._strangers = itertools.count(1)
        self._consents: dict[str, str] = {}
        """The client of each that was asked for and not used."""
        self._token_ids: dict[str, tuple[str, str]] = {}
        """Of each that a redirect brought and that was not used, whose app's it is and who logged in."""

    def wire_id(self, listing: Listing) -> int:
        """The security id, then the exchange segment in the low four bits."""
        return security_id(listing) << 4 | SEGMENTS.get(listing.exchange, ELSEWHERE)

    def scale(self, listing: Listing) -> int:
        """Prices are floats on the wire; these are the parts of a rupee that a segment has."""
        return 10_000 if listing.exchange in {"CDS", "BCD"} else 100

    def credentials(self, api_key: str, token: str) -> dict[str, str]:
        """The key is the client id; the app is for the login."""
        return {
            "client_id": api_key,
            "access_token": token,
            "app_id": f"app-{api_key}",
            "app_secret": DEMO_SECRET,
        }

    # ---------------------------------------------------------------------------------------------------------- login

    def http(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """The login page, and the three calls of logins and renewals."""
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if (method, url.path) == ("POST", "/app/generate-consent"):
            return self._consent(query.get("client_id", ""), headers)
        if method in {"GET", "POST"} and url.path == "/app/consumeApp-consent":
            return self._consumed(query.get("tokenId", ""), headers)
        if (method, url.path) == ("GET", "/v2/RenewToken"):
            return self._renewed(headers.get("dhanclientid", ""), headers.get("access-token", ""))
        return self.page(method, target, body)

    def asked(self, given: Mapping[str, str]) -> Asked:
        """The client that the consent is of."""
        client_id = self._consents.get(given.get("consentAppId", ""))
        if client_id is None:
            raise Denied(400, "The consent is unknown or was used; begin the login again.")
        return Asked(client_id)

    def brought(self, given: Mapping[str, str], user: str) -> Mapping[str, str]:
        """A tokenId; the consent is used up."""
        token_id = secrets.token_hex(16)
        self._token_ids[token_id] = self._consents.pop(given["consentAppId"]), user
        return {"tokenId": token_id}

    def _consent(self, client_id: str, headers: Mapping[str, str]) -> HttpResponse:
        try:
            self._check_app(client_id, headers)
        except Denied as denied:
            self.login_refused("consent", denied, client_id)
            return _no(denied)
        consent = secrets.token_hex(16)
        self._consents[consent] = client_id
        self.note("login_ok", what="consent", api_key=client_id)
        return as_json(200, {"consentAppId": consent, "consentAppStatus": "GENERATED", "status": "success"})

    def _consumed(self, token_id: str, headers: Mapping[str, str]) -> HttpResponse:
        client_id = headers.get("app_id", "").removeprefix("app-")
        app, user = self._token_ids.pop(token_id, ("", ""))
        try:
            self._check_app(client_id, headers)
            _check_token_id(app, client_id)
        except Denied as denied:
            self.login_refused("token", denied, client_id)
            return _no(denied)
        token, end_s = self._made("token", user, "APP")
        person = {"dhanClientId": user, "dhanClientName": "SIMULATED", "dhanClientUcc": "SIMULATED"}
        return as_json(
            200, person | {"givenPowerOfAttorney": False, "accessToken": token, "expiryTime": ist_text(end_s)}
        )

    def _renewed(self, client_id: str, token: str) -> HttpResponse:
        try:
            self.keys.check(client_id, token, status=401)
            _check_consumer(token)
        except Denied as denied:
            self.login_refused("renewal", denied, client_id)
            kind, code = denied.facts.get("error", ("Invalid_Authentication", "DH-901"))
            return as_json(401, {"errorType": kind, "errorCode": code, "errorMessage": str(denied)})
        self.keys.retire(client_id, token)
        renewed, end_s = self._made("renewal", client_id, "SELF")
        times = {"createTime": ist_text(end_s - DAY_S), "expiryTime": ist_text(end_s)}
        return as_json(200, times | {"token": renewed})

    def _check_app(self, client_id: str, headers: Mapping[str, str]) -> None:
        if client_id not in self.keys:
            raise Denied(200, "Invalid client_id or app_id")
        self.keys.check_lock(client_id, status=200)
        if (headers.get("app_id"), headers.get("app_secret")) != (f"app-{client_id}", DEMO_SECRET):
            raise Denied(200, "Invalid app_id or app_secret", wrong=client_id)

    def _made(self, what: str, client_id: str, consumer: str) -> tuple[str, float]:
        """A new token of a client, and its end in Unix seconds."""
        end_s = self.clock() + DAY_S
        whose = {"iss": "simulator", "tokenConsumerType": consumer, "dhanClientId": client_id}
        token = jwt(**whose, exp=int(end_s), jti=secrets.token_hex(8))
        self.granted(what, client_id, token, end_s)
        return token, end_s

    def login(self, request: Request) -> Entry:
        """Lets everyone in, under a name of its own, who comes to a path that there is. Raises Denied: 404."""
        path = urlsplit(request.path).path
        if path not in {"", "/", "/twentydepth", "/twohundreddepth"}:
            raise Denied(404, f"There is nothing at {path}.")
        return Entry(f"not logged in {next(self._strangers)}")

    def kind(self, request: Request) -> str:
        """By the path; at / the market feed's URL has a version, the official client's for 200 levels has none."""
        url = urlsplit(request.path)
        if url.path == "/twentydepth":
            return DEPTH20
        return MARKET if url.path in {"", "/"} and "version" in parse_qs(url.query) else DEPTH200

    def greeting(self, client: Client) -> Sequence[bytes]:
        """Nothing; to a login that is refused, why."""
        assert client.socket.request is not None
        query = parse_qs(urlsplit(client.socket.request.path).query)
        api_key, token = query.get("clientId", [""])[0], query.get("token", [""])[0]
        refusal = self._refusal(api_key, token)
        try:
            self.admit(client, api_key, token)
        except Denied:
            self._end_with(client, refusal)
        else:
            if api_key in self.without_plan:
                self._count["refused_logins"] += 1
                self._end_with(client, NO_PLAN)
        return ()

    def _refusal(self, api_key: str, token: str) -> int:
        """The reason, if this login is refused."""
        if not api_key or not token or api_key in self.keys.locked:
            return LOGIN_FAILED
        if api_key not in self.keys:
            return CLIENT_INVALID
        is_old = self.keys.owner(token) == api_key or not self.keys.has_tokens(api_key)
        return TOKEN_EXPIRED if is_old else TOKEN_INVALID

    def _check_room(self, api_key: str, kind: str) -> None:
        """Where there is no room for one more connection the oldest is cut; a ghost is one, and just goes."""
        allowed = self.rules_of(kind).sockets_per_key
        mine = [
            client.number
            for client in self.clients.values()
            if (client.api_key, client.kind) == (api_key, kind)
            and client.socket.state is State.OPEN
            and "ended" not in client.facts
        ]
        held = sorted([*mine, *self._ghosts.of((api_key, kind), time.monotonic())])
        for number in held[: max(len(held) + 1 - allowed, 0)]:
            self._count["limit_violations"] += 1
            if number in self.clients:
                self._end_with(self.clients[number], TOO_MANY_CONNECTIONS)
            else:
                self._ghosts.lay(number)

    def disconnect(self, reason: int, connection: int | None = None) -> int:
        """Ends one connection or all with a reason of the annexure; how many."""
        clients = self._chosen(connection)
        for client in clients:
            self._end_with(client, reason)
        return len(clients)

    def _end_with(self, client: Client, reason: int) -> None:
        """Tells why, and closes."""
        self.note("error", client, reason=reason)
        self._send(client, disconnect_packet(client.kind, reason))
        self._close(client)

    def _close(self, client: Client) -> None:
        client.facts["ended"] = True
        task = asyncio.get_running_loop().create_task(client.socket.close())
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    # ------------------------------------------------------------------------------------------------------- requests

    def received(self, client: Client, message: str | bytes) -> None:
        """Acts on `{"RequestCode": …}` with a list of instruments, or with one on the socket for 200 levels."""
        if "ended" in client.facts or isinstance(message, bytes):
            return
        try:
            request = json.loads(message)
            code = request["RequestCode"]
            if code == 12:
                self._close(client)
                return
            mode, begins = _meant(code, client.kind)
            ids = _ids(request, client.kind)
        except (ValueError, KeyError, TypeError):
            self.complain(client, f"The request cannot be read: {message[:100]}")
            self._close(client)
            return
        if begins:
            self._begin(client, ids, mode)
        else:
            self._cease(client, ids, mode)

    def _begin(self, client: Client, ids: list[int], mode: str) -> None:
        new = [one for one in dict.fromkeys(ids) if one in self.market.by_wire_id and one not in client.modes]
        most = self.rules_of(client.kind).instruments_per_socket
        if len(ids) > MOST_IN_A_MESSAGE[client.kind] or len(client.modes) + len(new) > most:
            self._count["limit_violations"] += 1
            self._end_with(client, TOO_MANY_INSTRUMENTS)
            return
        richer = {one: _with(client.modes[one], mode) for one in ids if one in client.modes}
        plain = [one for one in ids if richer.get(one, mode) == mode]
        if plain:
            self.subscribe(client, plain, mode)
        self._set_modes(client, {one: some for one, some in richer.items() if some != client.modes[one]})
        if client.kind == MARKET:
            client.waiting.extend(self._previous_close(self.market.by_wire_id[one]) for one in new)

    def _cease(self, client: Client, ids: list[int], mode: str) -> None:
        held = {one: client.modes[one] for one in ids if one in client.modes}
        gone = [one for one, some in held.items() if some == mode]
        if gone:
            self.unsubscribe(client, gone)
        self._set_modes(client, {one: _without(some, mode) for one, some in held.items() if "+" in some})

    def _set_modes(self, client: Client, modes: Mapping[int, str]) -> None:
        for mode in sorted(set(modes.values())):
            self.set_mode(client, mode, [one for one, some in modes.items() if some == mode])

    # ------------------------------------------------------------------------------------------------------------ out

    def packet(self, quote: Quote, mode: str) -> bytes:
        """All packets of a mode, joined."""
        return b"".join(self.packets(quote, mode))

    def packets(self, quote: Quote, mode: str) -> Sequence[bytes]:
        """
        What one tick is in a mode; of several modes, which are joined by +, all that each has.

        With `stamp` the last traded quantity is the low 16 bits of the Unix time in units of 100 microseconds.
        """
        if "+" in mode:
            return [packet for one in mode.split("+") for packet in self.packets(quote, one)]
        if mode == "ticker":
            return (self._ticker(quote),)
        if mode == "quote":
            return (self._quote(quote), self._oi(quote)) if quote.has_oi else (self._quote(quote),)
        if mode == "full":
            return () if quote.is_index else (self._full(quote),)
        return self._sides(quote, int(mode.removeprefix("depth")))

    def _ticker(self, quote: Quote) -> bytes:
        return _TICKER.pack(2, 16, *_name(quote), quote.ltp / quote.scale, _seconds(quote))

    def _previous_close(self, quote: Quote) -> bytes:
        return _TICKER.pack(6, 16, *_name(quote), quote.close / quote.scale, quote.oi_low)

    def _oi(self, quote: Quote) -> bytes:
        return _OI.pack(5, 12, *_name(quote), quote.oi)

    def _quote(self, quote: Quote) -> bytes:
        return _QUOTE.pack(4, 50, *_name(quote), *self._trades(quote), *_prices(quote))

    def _full(self, quote: Quote) -> bytes:
        interest = quote.oi, quote.oi_high, quote.oi_low
        rows = itertools.chain.from_iterable(
            (bid[1], ask[1], bid[2], ask[2], bid[0] / quote.scale, ask[0] / quote.scale)
            for bid, ask in zip(*quote.book(), strict=True)
        )
        return _FULL.pack(8, 162, *_name(quote), *self._trades(quote), *interest, *_prices(quote), *rows)

    def _trades(self, quote: Quote) -> tuple[float, ...]:
        quantity = time.time_ns() // 100_000 & 0xFFFF if self.stamp else min(quote.ltq, 0xFFFF)
        return (
            quote.ltp / quote.scale,
            quantity,
            _seconds(quote),
            quote.average_price / quote.scale,
            quote.volume,
            quote.total_sell_quantity,
            quote.total_buy_quantity,
        )

    def _sides(self, quote: Quote, levels: int) -> tuple[bytes, bytes]:
        bids, asks = quote.deep_book(levels)
        return self._side(quote, BID, bids, levels), self._side(quote, ASK, asks, levels)

    def _side(self, quote: Quote, code: int, rows: Sequence[Row], levels: int) -> bytes:
        if levels == 20:
            word = next(self._sequence)
        else:
            rows = [row for row in rows if any(row)]
            word = len(rows)
        body = b"".join(_DEPTH_ROW.pack(price / quote.scale, quantity, orders) for price, quantity, orders in rows)
        return _DEPTH_HEADER.pack(_DEPTH_HEADER.size + len(body), code, *_name(quote), word) + body

    def frame(self, packets: Sequence[bytes]) -> bytes:
        """The packets back to back."""
        return b"".join(packets)

    def complaint(self, sentence: str) -> bytes:
        """The market feed's disconnect packet for a bad request; the sentence stays in the log."""
        return disconnect_packet(MARKET, BAD_REQUEST)

    def complaint_for(self, client: Client, sentence: str) -> bytes:
        """The same for the client's kind of socket."""
        return disconnect_packet(client.kind, BAD_REQUEST)

    def damaged(self, kind: str, quote: Quote, chance: random.Random) -> bytes | str:
        """
        A spoilt frame: the last packet cut short (`truncated`), a packet of a `code` or a `segment` that there is not,
        a `price` that is no number, `random` bytes behind a code that there is not, or a `text` frame.
        """
        packet = self._full(quote)
        if kind == "truncated":
            return packet + packet[: chance.randrange(9, len(packet))]
        if kind == "code":
            return struct.pack("<BH", chance.randrange(100, 250), chance.randrange(8)) + packet[3:]
        if kind == "segment":
            return packet[:3] + b"\x06" + packet[4:]
        if kind == "price":
            return _TICKER.pack(2, 16, *_name(quote), chance.choice([float("nan"), float("inf")]), 0)
        if kind == "random":
            return b"\xc8\xff\xff" + chance.randbytes(chance.randrange(5, 400))
        return '{"status": "'

    # --------------------------------------------------------------------------------------------------------- master

    def master(self, segment: str = "") -> str:
        """The instruments as Dhan's compact CSV; it is one file, there are none of segments."""
        if segment:
            return ""
        listed = [quote.listing for quote in self.market.quotes if quote.listing.exchange in SEGMENTS]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([_MASTER_HEADER, *map(_master_row, listed)])
        return out.getvalue()


SIMULATOR = DhanSimulator


def _check_consumer(token: str) -> None:
    if tokens.jwt_claims(token).consumer not in {"", "SELF"}:
        error = "Invalid_Access", "DH-902"
        raise Denied(401, "Only tokens made in Dhan Web can be renewed.", token=token, error=error)


def _check_token_id(app: str, client_id: str) -> None:
    if app != client_id:
        raise Denied(200, "The tokenId is unknown or was used.")


def _no(denied: Denied) -> HttpResponse:
    """A refused call of a login."""
    return as_json(denied.status, {"status": "error", "message": str(denied)})


def security_id(one: Listing) -> int:
    """Dhan's number of an instrument."""
    return INDEX_IDS.get(one.symbol, one.code) if one.kind == "INDEX" else one.code


def disconnect_packet(kind: str, reason: int) -> bytes:
    """Why the server ends a connection, as a kind of socket says it."""
    if kind == MARKET:
        return _REASON.pack(50, 10, 0, 0, reason)
    return _DEPTH_REASON.pack(14, 50, 0, 0, 0, reason)


def _meant(code: object, kind: str) -> tuple[str, bool]:
    """The mode a request code speaks of on a kind of socket, and whether it begins. Raises KeyError."""
    codes: dict[object, tuple[str, bool]] = {}
    if kind == MARKET:
        codes |= {one: (mode, True) for one, mode in MODES.items()}
        codes |= {one + 1: (mode, False) for one, mode in MODES.items()}
    else:
        codes |= {23: (kind, True), 24: (kind, False), 25: (kind, False)}
    return codes[code]


def _ids(request: Mapping[str, Any], kind: str) -> list[int]:
    """The wire ids a request names. Raises ValueError, KeyError, TypeError: it names them otherwise than documented."""
    if kind == DEPTH200:
        return [_id(request)]
    listed = request["InstrumentList"]
    if request["InstrumentCount"] != len(listed):
        raise ValueError("InstrumentCount is not the length of InstrumentList")
    return [_id(one) for one in listed]


def _id(one: Mapping[str, Any]) -> int:
    if not isinstance(one["SecurityId"], str):
        raise TypeError("SecurityId must be a string")
    return int(one["SecurityId"]) << 4 | SEGMENT_CODES[one["ExchangeSegment"]]


def _with(modes: str, mode: str) -> str:
    return "+".join(sorted({*modes.split("+"), mode}))


def _without(modes: str, mode: str) -> str:
    return "+".join(one for one in modes.split("+") if one != mode)


def _name(quote: Quote) -> tuple[int, int]:
    """Exchange segment and security id."""
    return quote.wire_id & 0xF, quote.wire_id >> 4


def _seconds(quote: Quote) -> int:
    """The last trade, an index's last value; India's clock as if it were UTC. 0: never."""
    instant_ms = quote.exchange_ms if quote.is_index and not quote.untraded else quote.last_trade_ms
    return instant_ms // 1000 + IST_S if instant_ms else 0


def _prices(quote: Quote) -> Iterable[float]:
    return (price / quote.scale for price in (quote.open, quote.close, quote.high, quote.low))


def _master_row(one: Listing) -> tuple[object, ...]:
    exchange, segment = _market(one)
    kind = _instrument_name(one)
    return (
        exchange,
        segment,
        security_id(one),
        kind,
        0,
        _trading_symbol(one),
        f"{one.lot_size:.1f}",
        _custom_symbol(one),
        "" if one.expiry is None else f"{one.expiry} 14:30:00",
        "-0.01000" if one.strike is None else f"{one.strike:.5f}",
        one.kind if one.strike else "XX",
        f"{one.tick_size * 100:.4f}",
        "NA" if one.expiry is None else "W" if one.weekly else "M",
        {"EQ": "ES", "INDEX": "INDEX", "FUT": "FUT"}.get(one.kind, "OP"),
        {"NSE": "EQ", "BSE": "A"}.get(one.exchange, "X" if one.kind == "INDEX" else ""),
        one.name if one.expiry is None else "",
    )


def _market(one: Listing) -> tuple[str, str]:
    if one.kind == "INDEX":
        return one.exchange.removesuffix("_INDEX"), "I"
    return {
        "NSE": ("NSE", "E"), "BSE": ("BSE", "E"), "NFO": ("NSE", "D"), "BFO": ("BSE", "D"), "CDS": ("NSE", "C"),
        "BCD": ("BSE", "C"), "MCX": ("MCX", "M"),
    }[one.exchange]  # fmt: skip


def _instrument_name(one: Listing) -> str:
    if one.expiry is None:
        return "INDEX" if one.kind == "INDEX" else "EQUITY"
    is_future = one.kind == "FUT"
    if one.exchange == "MCX":
        return "FUTCOM" if is_future else "OPTFUT"
    of = "CUR" if one.exchange in {"CDS", "BCD"} else "IDX" if one.name in _UNDERLYING_INDICES else "STK"
    return f"{'FUT' if is_future else 'OPT'}{of}"


def _trading_symbol(one: Listing) -> str:
    """NIFTY-Mar2024-FUT, NIFTY-Mar2024-20800-CE; with the day on MCX and for currencies: GOLD-05Jun2024-FUT."""
    if one.expiry is None:
        return INDEX_NAMES.get(one.symbol, one.symbol) if one.kind == "INDEX" else one.symbol
    day = f"{one.expiry.day:02d}" if one.exchange in {"MCX", "CDS", "BCD"} else ""
    month = f"{day}{MONTHS[one.expiry.month - 1].title()}{one.expiry.year}"
    return (
        f"{one.name}-{month}-FUT" if one.strike is None else f"{one.name}-{month}-{strike_text(one.strike)}-{one.kind}"
    )


def _custom_symbol(one: Listing) -> str:
    """NIFTY MAR FUT, NIFTY 28 MAR 20800 CALL."""
    if one.expiry is None:
        return one.name.title()
    month = MONTHS[one.expiry.month - 1]
    if one.strike is None:
        return f"{one.name} {month} FUT"
    right = "CALL" if one.kind == "CE" else "PUT"
    return f"{one.name} {one.expiry.day:02d} {month} {strike_text(one.strike)} {right}"
