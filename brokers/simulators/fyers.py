"""
Fyers' side of its two sockets: HSM in binary for prices and five levels, protobuf for fifty; and its REST calls.

The data socket is at /hsm/v1-5/prod, the tick-by-tick socket at /versova, the calls that a client makes before at
/indus/home/tbtws and /data/symbol-token, the files at /sym_details. Source: the frames and calls of the official
client, fyers-apiv3 3.2.0. What no document says was chosen as follows:

- An access token is a JWT with a made-up signature; its `hsm_key` is the api key, a colon and the token.
- A refused login is answered with status N and the socket stays open; whatever follows is answered with N. A data
  socket more than there may be is closed with code 1013.
- An acknowledgement is wanted after every 20 messages. Whoever is two of them behind gets nothing more.
- Topic ids are dealt in the order of first use, the same on all sockets, and anew when the last socket has gone.
- Limits count instruments, not topics; what is over is reported in a message of code 51001, or as an error of the
  tick-by-tick socket, and passed over. Unknown topics and tickers are passed over without a word.
- To subscribe one more topic of an instrument brings a snapshot of all it has. Pausing a channel is accepted and does
  nothing. A missing keep-alive is counted, not punished.
- Tickers on a channel that was not resumed wait until it is.
- Of the login's error codes -371 and -441 are reported, -413 is from memory; their HTTP status is 401.
- A token that a login made ends at 6:00 in India. It ends none before it, because nothing says that it does.

In the log a token is called by what stands behind the colon of its `hsm_key` (`token_of`): the data socket is shown
nothing else of it.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import datetime as dt
import hashlib
import io
import itertools
import json
import random
import secrets
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from websockets.http11 import Request

from brokers.contract import HttpResponse
from brokers.india import INDIA
from brokers.schemas.fyers_tbt_pb2 import MarketFeed, MessageType, SocketMessage
from brokers.simulators.engine import Client, Entry
from brokers.simulators.keys import Denied
from brokers.simulators.logins import DEMO_SECRET, Asked, LoginPages, as_json, jwt, next_ist
from brokers.simulators.market import Quote, Row
from brokers.simulators.universe import Listing
from brokers.symbols import MONTHS, strike_text

DATA_PATH, DEPTH_PATH = "/hsm/v1-5/prod", "/versova"
DEPTH_KIND = "depth50"
API = "/api/v3"
DEEP = 50
ACKNOWLEDGE_EVERY = 20
TOO_MANY, TRY_AGAIN_LATER = 429, 1013

MARKETS = {
    "NSE": ("1010", "nse_cm"),
    "NSE_INDEX": ("1010", "nse_cm"),
    "NFO": ("1011", "nse_fo"),
    "CDS": ("1012", "cde_fo"),
    "NCO": ("1020", "nse_com"),
    "MCX": ("1120", "mcx_fo"),
    "MCX_INDEX": ("1120", "mcx_fo"),
    "BSE": ("1210", "bse_cm"),
    "BSE_INDEX": ("1210", "bse_cm"),
    "BFO": ("1211", "bse_fo"),
    "BCD": ("1212", "bcs_fo"),
    "GLOBAL_INDEX": ("9999", "global"),
}
"""How a fytoken begins, and the market's word in a topic; the last one is made up and cannot be subscribed."""

CURRENCY = frozenset({"CDS", "BCD"})

INDICES = {
    "NIFTY": ("NSE:NIFTY50-INDEX", "Nifty 50"),
    "BANKNIFTY": ("NSE:NIFTYBANK-INDEX", "Nifty Bank"),
    "FINNIFTY": ("NSE:FINNIFTY-INDEX", "Nifty Fin Service"),
    "MIDCPNIFTY": ("NSE:MIDCPNIFTY-INDEX", "NIFTY MID SELECT"),
    "NIFTYNXT50": ("NSE:NIFTYNXT50-INDEX", "Nifty Next 50"),
    "INDIAVIX": ("NSE:INDIAVIX-INDEX", "India VIX"),
    "SENSEX": ("BSE:SENSEX-INDEX", "SENSEX"),
    "BANKEX": ("BSE:BANKEX-INDEX", "BANKEX"),
}
"""Ticker and name on the data socket of the indices it has."""

FILES = {
    "NSE_CM": ("NSE", "NSE_INDEX"),
    "BSE_CM": ("BSE", "BSE_INDEX"),
    "NSE_FO": ("NFO",),
    "BSE_FO": ("BFO",),
    "NSE_CD": ("CDS",),
    "MCX_COM": ("MCX",),
}
JSON_FILES = frozenset({"NSE_CD", "MCX_COM"})

_SIGNED = 1 << 31
_ABSENT = -_SIGNED
_EXPIRY_HOUR = 15
_FOREVER_S = 4_102_444_800


class FyersSimulator(LoginPages):
    """Fyers on a loopback port; an account needs what `credentials` says."""

    slug: ClassVar[str] = "fyers"
    heartbeat: ClassVar[bytes | None] = None
    heartbeat_s: ClassVar[float] = 10.0
    damages: ClassVar[tuple[str, ...]] = ("truncated", "entry", "count", "random", "text")
    default_rules: ClassVar[tuple[int, int]] = (3, 5000)
    kind_rules: ClassVar[Mapping[str, tuple[int, int]]] = {DEPTH_KIND: (3, 5)}
    page_path: ClassVar[str] = f"{API}/generate-authcode"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._by_subject: dict[str, int] = {}
        """An instrument's number by its topic without the kind."""
        self._by_ticker: dict[str, int] = {}
        for quote in self.market.quotes:
            if _is_listed(quote.listing):
                self._by_subject[_subject(quote.listing)] = quote.wire_id
                self._by_ticker[_ticker(quote.listing)] = quote.wire_id
        self._topic_ids: dict[tuple[str, int], int] = {}
        self._next_id = 1
        self._said: dict[int, tuple[int, ...]] = {}
        """Of each topic id, the values that every client on it has."""
        self._deep_said: dict[int, tuple[Row, ...]] = {}
        """The same of the books of fifty, by instrument."""
        self._anonymous = itertools.count(1)
        self._auth_codes: dict[str, str] = {}
        """The app of each that a redirect brought and that was not used."""
        self.keep_alives = 0
        """How many the clients have sent."""

    def wire_id(self, listing: Listing) -> int:
        """The fytoken as a number: market, date, the exchange's number."""
        prefix, _ = MARKETS[listing.exchange]
        day = "000000" if listing.expiry is None else listing.expiry.strftime("%y%m%d")
        return int(f"{prefix}{day}{listing.code}")

    def scale(self, listing: Listing) -> int:
        """Ten to the precision, times the multiplier."""
        multiplier, precision = _scaling(listing)
        return int(10**precision) * multiplier

    def credentials(self, api_key: str, token: str) -> dict[str, str]:
        """The app and a token that holds the data socket's key; the others are for the login."""
        return {
            "app_id": api_key,
            "app_secret": DEMO_SECRET,
            "redirect_uri": self.redirect_url,
            "access_token": access_token(api_key, token),
        }

    def token_of(self, credentials: Mapping[str, str]) -> str:
        """What is behind the api key in the `hsm_key`."""
        return _key_and_token(_hsm_key(credentials.get("access_token", "")))[1]

    # ---------------------------------------------------------------------------------------------------------- login

    def asked(self, given: Mapping[str, str]) -> Asked:
        """The app of `client_id`, if the address is its own; `state` comes back."""
        client_id = given.get("client_id", "")
        if client_id not in self.keys:
            raise Denied(400, "invalid client_id")
        if given.get("redirect_uri") != self.redirect_url:
            raise Denied(400, "redirect_uri is not the address that is registered with the app")
        if given.get("response_type") != "code":
            raise Denied(400, "response_type must be code")
        return Asked(client_id, {name: given[name] for name in ("state",) if name in given})

    def brought(self, given: Mapping[str, str], user: str) -> Mapping[str, str]:
        """An auth_code, itself a JWT."""
        now_s = int(self.clock())
        code = jwt(sub="auth_code", app_id=user, iat=now_s, exp=now_s + 300, nonce=secrets.token_hex(8))
        self._auth_codes[code] = user
        return {"s": "ok", "code": "200", "auth_code": code}

    def _validated(self, body: bytes) -> HttpResponse:
        """`POST /api/v3/validate-authcode`: an access token for an auth_code."""
        try:
            given = json.loads(body)
            code, proof, grant = (str(given.get(name, "")) for name in ("code", "appIdHash", "grant_type"))
        except (ValueError, AttributeError):
            return as_json(400, {"s": "error", "code": -50, "message": "invalid input"})
        owner = self._auth_codes.pop(code, "")
        app = next((key for key in self.keys.named(None) if proof == _app_id_hash(key)), "")
        try:
            token = self._exchanged(app, owner, grant)
        except Denied as denied:
            self.login_refused("token", denied, app or owner)
            return as_json(denied.status, {"s": "error", "code": denied.facts.get("code", -1), "message": str(denied)})
        return as_json(200, {"s": "ok", "code": 200, "message": "", "access_token": token, "refresh_token": ""})

    def _exchanged(self, app: str, owner: str, grant: str) -> str:
        if app or owner:
            self.keys.check_lock(app or owner, status=401)
        if not app:
            raise Denied(401, "Please provide sha256 hash of appId and app secret", code=-371, wrong=owner)
        if grant != "authorization_code":
            raise Denied(401, "invalid grant type", code=-441)
        if owner != app:
            raise Denied(401, "invalid auth code", code=-413)
        token, end_s = secrets.token_hex(16), next_ist(6, 0, self.clock())
        self.granted("token", app, token, end_s)
        return access_token(app, token, int(end_s))

    # ------------------------------------------------------------------------------------------------------------- in

    def kind(self, request: Request) -> str:
        """Told by the path."""
        return DEPTH_KIND if urlsplit(request.path).path == DEPTH_PATH else ""

    def login(self, request: Request) -> Entry:
        """
        On the tick-by-tick socket what the header says; on the data socket a name until the first frame brings it.

        Raises Denied: 404 for another path, 403 for a bad token.
        """
        path = urlsplit(request.path).path
        if path == DATA_PATH:
            return Entry(f"anonymous-{next(self._anonymous)}")
        if path != DEPTH_PATH:
            raise Denied(404, f"There is nothing at {path}.")
        return self._authorized(request.headers.get("Authorization", ""))

    def _authorized(self, header: str, status: int = 403) -> Entry:
        """The app and token of an Authorization header, `app_id:token` or the token. Raises Denied."""
        api_key, token = _key_and_token(_hsm_key(header))
        self.keys.check(api_key, token, status)
        return Entry(api_key, token)

    def greeting(self, client: Client) -> Sequence[bytes | str]:
        """Nothing; but where this is the only socket, topic ids are dealt anew."""
        if len(self.clients) == 1:
            self._topic_ids.clear()
            self._said.clear()
        return ()

    def received(self, client: Client, message: str | bytes) -> None:
        """Acts on a binary frame of the data socket, or on a text of the tick-by-tick socket."""
        if client.kind == DEPTH_KIND:
            self._depth_request(client, message)
        elif isinstance(message, str) or len(message) < 3:
            self.complain(client, "A request must be a binary frame.")
        else:
            self._data_request(client, message)

    def _data_request(self, client: Client, frame: bytes) -> None:
        kind = frame[2]
        if kind == 11:
            self.keep_alives += 1
            return
        try:
            fields = _fields(frame)
        except (IndexError, struct.error):
            self.complain(client, "The frame ends inside a field.")
            return
        if kind == 1:
            self._auth(client, fields)
        elif kind == 3:
            number = int.from_bytes(fields.get(1, b""), "big")
            client.facts["acknowledged"] = number
            self.note("acknowledge", client, number=number)
        elif "login" not in client.facts:
            self._send(client, _control(kind, [(1, b"N")]))
        elif kind == 12:
            client.facts["lite"] = fields.get(2) == b"L"
            self._send(client, _control(12, [(1, b"K")]))
        elif kind in {4, 5}:
            self._send(client, _control(kind, [(1, b"K")]))
            (self._subscribe if kind == 4 else self._unsubscribe)(client, _topics(fields.get(1, b"")))
        elif kind in {7, 8}:
            self._send(client, _control(kind, [(1, b"K")]))
        else:
            self.complain(client, f"There is no request of type {kind}.")

    def _auth(self, client: Client, fields: Mapping[int, bytes]) -> None:
        try:
            self.admit(client, *_key_and_token(fields.get(1, b"").decode("ascii", "replace")))
        except Denied as denied:
            if denied.status == TOO_MANY:
                self._hang_up(client, str(denied))
            else:
                self._send(client, _control(1, [(1, b"N"), (2, bytes(4))]))
            return
        client.facts |= {"login": True, "number": 0, "acknowledged": 0}
        self._send(client, _control(1, [(1, b"K"), (2, struct.pack(">I", ACKNOWLEDGE_EVERY))]))

    def _hang_up(self, client: Client, reason: str) -> None:
        task = asyncio.get_running_loop().create_task(client.socket.close(TRY_AGAIN_LATER, reason))
        client.facts["goodbye"] = task

    def _subscribe(self, client: Client, topics: Iterable[str]) -> None:
        """Adds topics to those that an instrument has."""
        wanted: dict[str, list[int]] = {}
        for wire_id, kinds in self._kinds(topics).items():
            held = _kinds_of(client.modes.get(wire_id, ""))
            price = "lite" if client.facts.get("lite") else "price"
            both = held | {price if kind == "price" else kind for kind in kinds}
            wanted.setdefault("+".join(sorted(both, reverse=True)), []).append(wire_id)
        for mode, ids in wanted.items():
            upgraded = [wire_id for wire_id in ids if client.modes.get(wire_id, mode) != mode]
            if upgraded:
                self.set_mode(client, mode, upgraded)
            fresh = [wire_id for wire_id in ids if wire_id not in upgraded]
            if fresh:
                self.subscribe(client, fresh, mode)

    def _unsubscribe(self, client: Client, topics: Iterable[str]) -> None:
        """Takes topics from those that an instrument has."""
        for wire_id, kinds in self._kinds(topics).items():
            held = _kinds_of(client.modes.get(wire_id, ""))
            left = {kind for kind in held if kind not in kinds and not (kind == "lite" and "price" in kinds)}
            if not left:
                self.unsubscribe(client, [wire_id])
            elif left != held:
                self.set_mode(client, "+".join(sorted(left, reverse=True)), [wire_id])

    def _kinds(self, topics: Iterable[str]) -> dict[int, set[str]]:
        """Prices, book or both, by instrument; what nobody knows is left out."""
        found: dict[int, set[str]] = {}
        for topic in topics:
            prefix, _, subject = topic.partition("|")
            wire_id = self._by_subject.get(subject)
            if wire_id is None:
                continue
            is_index = self.market.by_wire_id[wire_id].is_index
            if prefix == ("if" if is_index else "sf"):
                found.setdefault(wire_id, set()).add("price")
            elif prefix == "dp" and not is_index:
                found.setdefault(wire_id, set()).add("book")
        return found

    def _depth_request(self, client: Client, message: str | bytes) -> None:
        """`ping`, a subscription, or the resuming and pausing of channels."""
        if message == "ping":
            self.keep_alives += 1
            self._send(client, "pong")
            return
        try:
            request = json.loads(message)
            data, kind = request["data"], request["type"]
            if kind == 2:
                self._channels(client, data["resumeChannels"], data["pauseChannels"])
            elif kind == 1:
                self._depth_subscription(client, data["subs"], data["symbols"], data["channel"])
            else:
                self.complain(client, f"There is no request of type {kind}.")
        except (ValueError, KeyError, TypeError):
            self.complain(client, "A request must be a JSON object with 'type' and 'data'.")

    def _channels(self, client: Client, resumed: list[str], paused: list[str]) -> None:
        open_now: set[str] = client.facts.setdefault("channels", set())
        open_now -= set(paused)
        open_now |= set(resumed)
        self.note("channels", client, open=sorted(open_now))
        for channel in resumed:
            waiting = client.facts.get("parked", {}).pop(channel, [])
            if waiting:
                self.subscribe(client, waiting, DEPTH_KIND)

    def _depth_subscription(self, client: Client, change: int, tickers: list[str], channel: str) -> None:
        ids = [self._by_ticker[ticker] for ticker in tickers if ticker in self._by_ticker]
        ids = [wire_id for wire_id in ids if self.market.by_wire_id[wire_id].listing.exchange in {"NSE", "NFO"}]
        if change == -1:
            self.unsubscribe(client, ids)
        elif channel in client.facts.get("channels", ()):
            self.subscribe(client, ids, DEPTH_KIND)
        else:
            client.facts.setdefault("parked", {}).setdefault(channel, []).extend(ids)

    # ------------------------------------------------------------------------------------------------------------ out

    def image(self, quote: Quote, mode: str) -> Sequence[bytes]:
        """Snapshots of the topics of a mode."""
        if mode == DEPTH_KIND:
            return (self._deep(quote, is_whole=True),)
        return [self._snapshot(quote, kind) for kind in mode.split("+")]

    def packets(self, quote: Quote, mode: str) -> Sequence[bytes]:
        """What has changed in the topics of a mode."""
        if mode == DEPTH_KIND:
            return (self._deep(quote, is_whole=False),)
        return [self._update(quote, kind) for kind in mode.split("+")]

    def packet(self, quote: Quote, mode: str) -> bytes:
        """
        The first of `packets`.

        With `stamp` the last traded quantity of a price topic is the low 32 bits of the Unix time in microseconds.
        """
        return self.packets(quote, mode)[0]

    def _topic_id(self, quote: Quote, kind: str) -> int:
        key = ("book" if kind == "book" else "price", quote.wire_id)
        if key not in self._topic_ids:
            self._topic_ids[key] = self._next_id
            self._next_id = self._next_id % 0xFFFF + 1
        return self._topic_ids[key]

    def _snapshot(self, quote: Quote, kind: str) -> bytes:
        values = self._values(quote, kind)
        topic_id = self._topic_id(quote, kind)
        if self._said.get(topic_id, values) != values:
            del self._said[topic_id]  # others have something else: the next update says everything
        one = quote.listing
        _, market = MARKETS[one.exchange]
        prefix = "dp" if kind == "book" else "if" if quote.is_index else "sf"
        multiplier, precision = _scaling(one)
        return b"".join(
            (
                b"S",
                struct.pack(">H", topic_id),
                _short(f"{prefix}|{_subject(one)}"),
                struct.pack(f">B{len(values)}i", len(values), *values),
                struct.pack(">HHB", 0, multiplier, precision),
                _short(market),
                _short(str(one.code)),
                _short(_ticker(one).partition(":")[2]),
            )
        )

    def _update(self, quote: Quote, kind: str) -> bytes:
        topic_id = self._topic_id(quote, kind)
        if kind == "lite":
            return struct.pack(">cHi", b"L", topic_id, quote.ltp)
        values = self._values(quote, kind)
        said = self._said.get(topic_id)
        self._said[topic_id] = values
        if said is not None:
            pairs = zip(values, said, strict=True)
            return _packed_update(topic_id, [_ABSENT if now == was else now for now, was in pairs])
        return _packed_update(topic_id, values)

    def _values(self, quote: Quote, kind: str) -> tuple[int, ...]:
        if kind == "book":
            return _book_values(quote)
        if quote.is_index:
            return quote.ltp, quote.close, quote.exchange_ms // 1000, quote.high, quote.low, quote.open
        quantity = time.time_ns() // 1000 if self.stamp else quote.ltq
        (bid, bid_quantity, _), (ask, ask_quantity, _) = (side[0] for side in quote.book())
        return (
            quote.ltp,
            _wrapped(quote.volume),
            quote.last_trade_ms // 1000,
            quote.exchange_ms // 1000,
            _wrapped(bid_quantity),
            _wrapped(ask_quantity),
            bid,
            ask,
            _wrapped(quantity),
            _wrapped(quote.total_buy_quantity),
            _wrapped(quote.total_sell_quantity),
            quote.average_price,
            _wrapped(quote.oi),
            quote.low,
            quote.high,
            quote.upper_circuit,
            quote.lower_circuit,
            quote.lower_circuit,
            quote.upper_circuit,
            quote.open,
            quote.close,
        )

    def _deep(self, quote: Quote, *, is_whole: bool) -> bytes:
        """A tick-by-tick message: the whole book of fifty, or the levels that are not as they were said before."""
        bids, asks = quote.deep_book(DEEP)
        rows = (*bids, *asks)
        said = self._deep_said.get(quote.wire_id)
        if is_whole:
            if said not in (None, rows):
                del self._deep_said[quote.wire_id]
            said = None
        else:
            self._deep_said[quote.wire_id] = rows
        message = SocketMessage(type=MessageType.depth, snapshot=is_whole)
        feed = message.feeds[_ticker(quote.listing)]
        feed.ticker, feed.token, feed.snapshot = _ticker(quote.listing), str(quote.wire_id), is_whole
        feed.feed_time.value = feed.send_time.value = quote.exchange_ms // 1000
        feed.depth.tbq.value, feed.depth.tsq.value = quote.total_buy_quantity, quote.total_sell_quantity
        for place, row in enumerate(rows):
            if said is None or said[place] != row:
                _add_level(feed, place, row)
        return message.SerializeToString()

    def frame(self, packets: Sequence[bytes]) -> bytes:
        """Entries as a data message without a number of its own."""
        return _data_frame(0, packets)

    def frame_for(self, client: Client, packets: Sequence[bytes]) -> bytes:
        """
        One numbered data message, or one message of books. A client that is behind with its acknowledgements gets this
        one as its last.
        """
        if client.kind == DEPTH_KIND:
            return _joined(packets)
        facts = client.facts
        facts["number"] += 1
        if facts["number"] - facts["acknowledged"] > 2 * ACKNOWLEDGE_EVERY:
            client.silent = True
            self.note("unacknowledged", client, number=facts["number"])
        return _data_frame(facts["number"], packets)

    def complaint(self, sentence: str) -> bytes:
        """A message of code 51001: the only one that is known."""
        return _control(51, [(1, struct.pack(">i", 51001)), (2, sentence.encode()), (3, b"\x04")])

    def complaint_for(self, client: Client, sentence: str) -> bytes:
        """The tick-by-tick socket has errors of its own."""
        if client.kind == DEPTH_KIND:
            return SocketMessage(type=MessageType.response, error=True, msg=sentence).SerializeToString()
        return self.complaint(sentence)

    def damaged(self, kind: str, quote: Quote, chance: random.Random) -> bytes | str:
        """
        A spoilt frame: an entry cut short (`truncated`), one of a kind that does not exist (`entry`), a count of
        entries that are not there (`count`), `random` bytes, or a `text`.
        """
        entry = self._snapshot(quote, "price")
        if kind == "truncated":
            whole = _data_frame(1, [entry, entry])
            return whole[: len(whole) - chance.randrange(1, len(entry) - 1)]
        if kind == "entry":
            return _data_frame(1, [bytes([chance.choice([0, 1, 65, 90, 255])]) + chance.randbytes(30)])
        if kind == "count":
            return struct.pack(">HBIH", 7, 6, 1, chance.randrange(3, 1000)) + entry
        if kind == "random":
            return chance.randbytes(chance.randrange(5, 400))
        return "this socket is binary"

    # ----------------------------------------------------------------------------------------------------------- REST

    def http(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """The login, the tick-by-tick socket's address, tokens for tickers, and the files."""
        path = urlsplit(target).path
        if path.startswith("/sym_details/"):
            return self._file(path.removeprefix("/sym_details/"))
        if (method, path) == ("POST", f"{API}/validate-authcode"):
            return self._validated(body)
        if path not in {"/indus/home/tbtws", "/data/symbol-token"}:
            return self.page(method, target, body)
        try:
            self._authorized(headers.get("authorization", ""), 401)
        except Denied as denied:
            self.refused(denied)
            return as_json(401, {"s": "error", "code": -15, "message": str(denied)})
        if path == "/indus/home/tbtws":
            return as_json(200, {"s": "ok", "code": 200, "data": {"socket_url": f"{self.url}{DEPTH_PATH}"}})
        return self._tokens_of(body)

    def _tokens_of(self, body: bytes) -> HttpResponse:
        try:
            tickers = json.loads(body)["symbols"]
            known = {ticker: str(self._by_ticker[ticker]) for ticker in tickers if ticker in self._by_ticker}
        except (ValueError, KeyError, TypeError):
            return as_json(400, {"s": "error", "message": "The body must be a JSON object with 'symbols'."})
        unknown = [ticker for ticker in tickers if ticker not in known]
        return as_json(200, {"s": "ok", "code": 200, "message": "", "validSymbol": known, "invalidSymbol": unknown})

    def _file(self, name: str) -> HttpResponse | None:
        if name == "index_hsm_mapping.json":
            return as_json(200, dict(INDICES.values()))
        text = self.master(name.partition(".")[0].removesuffix("_sym_master"))
        return HttpResponse(status=200, body=text.encode()) if text else None

    # --------------------------------------------------------------------------------------------------------- master

    def master(self, segment: str = "") -> str:
        """One of the files: CSV without a header, or a JSON object by ticker; with nothing in it a blank line or {}."""
        exchanges = FILES.get(segment.upper())
        if exchanges is None:
            return ""
        chosen = [one.listing for one in self.market.quotes if one.listing.exchange in exchanges]
        if segment.upper() in JSON_FILES:
            return json.dumps({_ticker(one): self._record(one) for one in chosen})
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(self._line(one) for one in chosen)
        return out.getvalue() or "\n"

    def _line(self, one: Listing) -> tuple[object, ...]:
        fytoken = str(self.wire_id(one))
        strike = -1.0 if one.strike is None else one.strike
        return (
            fytoken, _details(one), _exchange_kind(one), one.lot_size, f"{one.tick_size:g}", "", "0915-1530|1815-1915:",
            self.today.isoformat(), _expiry_s(one), _ticker(one), fytoken[:2], fytoken[2:4], one.code,
            one.name if one.expiry else one.symbol, one.code, strike, one.kind if one.strike else "XX", fytoken, "None",
            0, 0.0,
        )  # fmt: skip

    def _record(self, one: Listing) -> dict[str, object]:
        fytoken = str(self.wire_id(one))
        return {
            "fyToken": fytoken,
            "symDetails": _details(one),
            "symbolDetails": _details(one),
            "symTicker": _ticker(one),
            "exchange": int(fytoken[:2]),
            "segment": int(fytoken[2:4]),
            "exToken": one.code,
            "underSym": one.name,
            "expiryDate": str(_expiry_s(one)),
            "strikePrice": -1.0 if one.strike is None else one.strike,
            "optType": one.kind if one.strike else "XX",
            "minLotSize": 1,
            "qtyMultiplier": float(one.lot_size),
            "tickSize": one.tick_size,
        }


SIMULATOR = FyersSimulator


def access_token(api_key: str, token: str, end_s: int = _FOREVER_S) -> str:
    """An access token that holds the data socket's key, and says when it ends (Unix seconds)."""
    return jwt(sub="access_token", exp=end_s, hsm_key=f"{api_key}:{token}")


def _app_id_hash(api_key: str) -> str:
    """The proof that a login is for this app."""
    return hashlib.sha256(f"{api_key}:{DEMO_SECRET}".encode()).hexdigest()


def _hsm_key(header: str) -> str:
    """The key inside a token; "" where it is no token."""
    try:
        _, payload, _ = header.rpartition(":")[2].split(".")
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["hsm_key"])
    except (ValueError, KeyError, TypeError):
        return ""


def _key_and_token(hsm_key: str) -> tuple[str, str]:
    api_key, _, token = hsm_key.partition(":")
    return api_key, token


# --------------------------------------------------------------------------------------------------------------- frames


def _control(kind: int, fields: Sequence[tuple[int, bytes]]) -> bytes:
    body = bytes([kind, len(fields)]) + b"".join(struct.pack(">BH", id_, len(value)) + value for id_, value in fields)
    return struct.pack(">H", len(body)) + body


def _fields(frame: bytes) -> dict[int, bytes]:
    """Raises IndexError, struct.error: the frame ends inside a field."""
    fields, at = {}, 4
    for _ in range(frame[3]):
        id_, length = struct.unpack_from(">BH", frame, at)
        if at + 3 + length > len(frame):
            raise IndexError(at)
        fields[id_] = frame[at + 3 : at + 3 + length]
        at += 3 + length
    return fields


def _topics(block: bytes) -> list[str]:
    """The topics of a subscription, as far as they are there."""
    topics, at = [], 2
    while at < len(block):
        end = at + 1 + block[at]
        topics.append(block[at + 1 : end].decode("ascii", "replace"))
        at = end
    return topics


def _data_frame(number: int, entries: Sequence[bytes]) -> bytes:
    body = struct.pack(">BIH", 6, number, len(entries)) + b"".join(entries)
    return struct.pack(">H", min(len(body), 0xFFFF)) + body


def _packed_update(topic_id: int, values: Sequence[int]) -> bytes:
    return struct.pack(f">cHB{len(values)}i", b"U", topic_id, len(values), *values)


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")


def _wrapped(number: int) -> int:
    """A quantity as the signed 32 bits of the wire; never the one value that says nothing."""
    signed = (number + _SIGNED) % (2 * _SIGNED) - _SIGNED
    return signed + 1 if signed == _ABSENT else signed


def _book_values(quote: Quote) -> tuple[int, ...]:
    rows = [row for side in quote.book() for row in side]
    prices, quantities, orders = zip(*rows, strict=True)
    return (*prices, *map(_wrapped, quantities), *orders)


def _kinds_of(mode: str) -> set[str]:
    return {kind for kind in mode.split("+") if kind}


def _joined(packets: Sequence[bytes]) -> bytes:
    """Messages of single instruments as one; levels of the same instrument one behind the other."""
    joined = SocketMessage(type=MessageType.depth)
    for packet in packets:
        for ticker, feed in _feeds(packet).items():
            joined.feeds[ticker].MergeFrom(feed)
    joined.snapshot = all(feed.snapshot for feed in joined.feeds.values())
    return joined.SerializeToString()


def _feeds(packet: bytes) -> Mapping[str, MarketFeed]:
    try:
        return SocketMessage.FromString(packet).feeds
    except DecodeError:
        raise AssertionError("a packet of our own making is a message") from None


def _add_level(feed: MarketFeed, place: int, row: Row) -> None:
    level = (feed.depth.bids if place < DEEP else feed.depth.asks).add()
    level.price.value, level.qty.value, level.nord.value = row
    level.num.value = place % DEEP
    for part in (level.price, level.qty, level.nord, level.num):
        part.SetInParent()


# ---------------------------------------------------------------------------------------------------------------- names


def _is_listed(one: Listing) -> bool:
    return any(one.exchange in exchanges for exchanges in FILES.values())


def _scaling(one: Listing) -> tuple[int, int]:
    """Multiplier and precision."""
    return (100, 2) if one.exchange in CURRENCY else (1, 2)


def _subject(one: Listing) -> str:
    """An instrument's topic without the kind."""
    _, market = MARKETS[one.exchange]
    return f"{market}|{INDICES[one.symbol][1]}" if one.kind == "INDEX" else f"{market}|{one.code}"


def _ticker(one: Listing) -> str:
    """
    Fyers' own name: NSE:SBIN-EQ, NSE:NIFTY24MAR20800CE; of a weekly contract NSE:NIFTY2432120800CE (2024, March 21).
    """
    if one.kind == "INDEX":
        return INDICES[one.symbol][0] if one.symbol in INDICES else f"NSE:{one.symbol}-INDEX"
    if one.expiry is None:
        return f"{one.exchange}:{one.symbol}-{'EQ' if one.exchange == 'NSE' else 'A'}"
    year, month = one.expiry.year % 100, one.expiry.month
    day = f"{'123456789OND'[month - 1]}{one.expiry.day:02d}" if one.weekly else MONTHS[month - 1]
    strike = "" if one.strike is None else strike_text(one.strike)
    exchange = {"BFO": "BSE", "BCD": "BSE", "MCX": "MCX"}.get(one.exchange, "NSE")
    return f"{exchange}:{one.name}{year:02d}{day}{strike}{one.kind}"


def _details(one: Listing) -> str:
    if one.expiry is None:
        return one.name if one.kind == "EQ" else _ticker(one).partition(":")[2]
    day = f"{one.expiry.day:02d} {MONTHS[one.expiry.month - 1].title()} {one.expiry.year % 100:02d}"
    return f"{one.name} {day} {'FUT' if one.strike is None else f'{strike_text(one.strike)} {one.kind}'}"


def _exchange_kind(one: Listing) -> int:
    """The exchange's number for kinds of instruments."""
    if one.kind == "INDEX":
        return 10
    return {"EQ": 0, "FUT": 11}.get(one.kind, 14)


def _expiry_s(one: Listing) -> int | str:
    if one.expiry is None:
        return ""
    return int(dt.datetime.combine(one.expiry, dt.time(_EXPIRY_HOUR, 30), INDIA).timestamp())
