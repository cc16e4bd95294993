"""
Upstox's side of the Market Data Feed V3: a one-time address over HTTP, JSON requests in, protobuf out.

Source: https://upstox.com/developer/api-documentation/v3/get-market-data-feed (and -authorize, /instruments). Both ways
of connecting are there: `/authorize` answers with a one-time address, and an upgrade with the token in its header is
redirected to one. What no document says was chosen as follows:

- A used or unknown code is refused with HTTP 403 at the upgrade, more sockets than allowed with 429.
- A request is refused by a JSON text with status, method and error. Keys that are not quoted are passed over.
- When several modes are in use, the connection as a whole keeps to the smallest of their combined limits; in
  `full_d30` never more than 50. What is over is reported in one error and passed over.
- A message has one value an instrument, the newest of those it was made of.
- There is no ping from the server: the library's answer to it could not be seen. ISINs but three are invented.

The login is that of /authorize and /get-token: a page at /v2/login/authorization/dialog, then POST …/token. A token is
a JWT that ends at 3:30 in India. Chosen: a new one ends none before it, because nothing says that it does. A token that
nobody ever had counts against nobody: it does not say whose it would be.
"""

from __future__ import annotations

import collections
import datetime as dt
import json
import random
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from brokers.contract import HttpResponse
from brokers.india import INDIA
from brokers.schemas import upstox_pb2 as schema
from brokers.simulators.engine import Client, Entry
from brokers.simulators.keys import Denied
from brokers.simulators.logins import DEMO_SECRET, Asked, LoginPages, as_json, form, jwt, next_ist
from brokers.simulators.market import Quote
from brokers.simulators.universe import Listing
from brokers.symbols import MONTHS, strike_text

LOGIN = "/v2/login/authorization"
ENTRANCE = "/v3/feed/market-data-feed"
SOCKET = "/market-data-feeder/v3/upstox-developer-api/feeds"

SEGMENTS = {
    "NSE": "NSE_EQ", "NFO": "NSE_FO", "CDS": "NCD_FO", "BCD": "BCD_FO", "BSE": "BSE_EQ", "BFO": "BSE_FO",
    "MCX": "MCX_FO", "NCO": "NSE_COM", "NSE_INDEX": "NSE_INDEX", "BSE_INDEX": "BSE_INDEX", "MCX_INDEX": "MCX_INDEX",
    "GLOBAL_INDEX": "GLOBAL_INDEX",
}  # fmt: skip
"""What stands before the bar in an instrument key."""

STATUSES = ("NSE_EQ", "NSE_FO", "NCD_FO", "BCD_FO", "BSE_EQ", "BSE_FO", "MCX_FO", "NSE_COM", "NSE_INDEX", "BSE_INDEX",
            "MCX_INDEX")  # fmt: skip
"""The segments of which a market_info tells."""

ISINS = {"SBIN": "INE062A01020", "RELIANCE": "INE002A01018", "INFY": "INE009A01021"}

INDEX_NAMES = {
    "NIFTY": ("Nifty 50", "NIFTY"),
    "BANKNIFTY": ("Nifty Bank", "BANKNIFTY"),
    "FINNIFTY": ("Nifty Fin Service", "FINNIFTY"),
    "MIDCPNIFTY": ("NIFTY MID SELECT", "MIDCPNIFTY"),
    "NIFTYNXT50": ("Nifty Next 50", "NIFTY NEXT 50"),
    "INDIAVIX": ("India VIX", "INDIA VIX"),
    "GIFTNIFTY": ("GIFT NIFTY", "GIFT NIFTY"),
}
"""The end of an index's key, and its trading symbol, where they are not its name here."""

LIMITS = {"ltpc": (5000, 2000), "option_greeks": (3000, 2000), "full": (2000, 1500), "full_d30": (50, 1500)}
"""Instruments of a connection by mode: alone, and with other modes beside it."""

_REQUEST_MODES = {
    "full": schema.full_d5,
    "full_d30": schema.full_d30,
    "option_greeks": schema.option_greeks,
    "ltpc": schema.ltpc,
}
_LEVELS = {"full": 5, "full_d30": 30, "option_greeks": 1}
_WRONG_ADDRESS = "UDAPI100068", "Check your 'client_id' and 'redirect_uri'; one or both are incorrect."
_LIVE = schema.FeedResponse(type=schema.live_feed).SerializeToString()


class UpstoxSimulator(LoginPages):
    """Upstox on a loopback port: GET /v3/feed/market-data-feed/authorize with `Authorization: Bearer demo-token`."""

    slug: ClassVar[str] = "upstox"
    heartbeat: ClassVar[None] = None
    heartbeat_s: ClassVar[float] = 3600.0
    damages: ClassVar[tuple[str, ...]] = ("truncated", "random", "segment", "number", "text")
    default_rules: ClassVar[tuple[int, int]] = (2, 5000)
    page_path: ClassVar[str] = f"{LOGIN}/dialog"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.omits_books = False
        """Live messages leave the unchanged parts out: the book and the greeks, as Upstox does now and then."""
        self._codes: dict[str, tuple[str, str]] = {}
        """Key and token of each address that was given out and not used."""
        self._login_codes: dict[str, str] = {}
        """The api key of each that a redirect brought and that was not used."""
        self._is_snapshot = False
        self._method = ""
        """That of the request which is being acted on."""
        self._by_key = {instrument_key(quote.listing): quote.wire_id for quote in self.market.quotes}

    def wire_id(self, listing: Listing) -> int:
        """A number of our own: the wire names an instrument by its key."""
        return listing.code << 4 | list(SEGMENTS).index(listing.exchange)

    def scale(self, listing: Listing) -> int:
        """Prices are doubles on the wire; these are the decimals a segment has."""
        return 10_000 if listing.exchange in {"CDS", "BCD"} else 100

    def credentials(self, api_key: str, token: str) -> dict[str, str]:
        """The token is all that the socket asks for; the others are for the login."""
        return {
            "access_token": token,
            "api_key": api_key,
            "api_secret": DEMO_SECRET,
            "redirect_uri": self.redirect_url,
        }

    # ---------------------------------------------------------------------------------------------------------- login

    def http(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """The login page; `POST …/token`, a token for a code; `GET …/authorize`, a one-time address for a token."""
        call = method, urlsplit(target).path
        if call == ("POST", f"{LOGIN}/token"):
            return self._token(form(body))
        if call != ("GET", f"{ENTRANCE}/authorize"):
            return self.page(method, target, body)
        try:
            address = self._address(headers.get("authorization", ""), headers.get("host", ""))
        except Denied as denied:
            self.refused(denied)
            words = str(denied) if "locked" in denied.facts else "Invalid token used to access API"
            return _error("UDAPI100050", words)
        data = {"authorizedRedirectUri": address, "authorized_redirect_uri": address}
        return as_json(200, {"status": "success", "data": data})

    def asked(self, given: Mapping[str, str]) -> Asked:
        """The app of `client_id`, if the address is its own; `state` comes back."""
        client_id = given.get("client_id", "")
        if client_id not in self.keys or given.get("redirect_uri") != self.redirect_url:
            raise Denied(401, f"{_WRONG_ADDRESS[0]}: {_WRONG_ADDRESS[1]}")
        if given.get("response_type") != "code":
            raise Denied(400, "UDAPI100036: The 'response_type' must be code.")
        return Asked(client_id, {name: given[name] for name in ("state",) if name in given})

    def brought(self, given: Mapping[str, str], user: str) -> Mapping[str, str]:
        """A code."""
        code = secrets.token_urlsafe(6)
        self._login_codes[code] = user
        return {"code": code}

    def _token(self, fields: Mapping[str, str]) -> HttpResponse:
        """The answer to who wants a token for a code."""
        client_id = fields.get("client_id", "")
        try:
            token = self._exchanged(client_id, fields)
        except Denied as denied:
            self.login_refused("token", denied, client_id)
            return _error(str(denied.facts.get("code", "UDAPI100069")), str(denied))
        person = {"user_id": client_id, "user_name": "SIMULATED", "user_type": "individual", "broker": "UPSTOX"}
        return as_json(200, person | {"is_active": True, "access_token": token})

    def _exchanged(self, client_id: str, fields: Mapping[str, str]) -> str:
        owner = self._login_codes.pop(fields.get("code", ""), "")
        if client_id in self.keys:
            self.keys.check_lock(client_id, status=401)
        if client_id not in self.keys or fields.get("client_secret") != DEMO_SECRET:
            words = "Check your 'client_id' and 'client_secret'; one or both are incorrect."
            raise Denied(401, words, code="UDAPI100069", wrong=client_id)
        if fields.get("grant_type") != "authorization_code":
            raise Denied(401, "The 'grant_type' must be authorization_code.", code="UDAPI100036")
        if fields.get("redirect_uri") != self.redirect_url:
            raise Denied(401, _WRONG_ADDRESS[1], code=_WRONG_ADDRESS[0])
        if owner != client_id:
            raise Denied(401, "Invalid Auth code", code="UDAPI100057")
        now_s = self.clock()
        end_s = next_ist(3, 30, now_s)
        token = jwt(sub=client_id, jti=secrets.token_hex(8), iat=int(now_s), iss="simulator", exp=int(end_s))
        self.granted("token", client_id, token, end_s)
        return token

    async def _answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """An upgrade with a right token in its header is sent on to a one-time address."""
        is_upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if is_upgrade and urlsplit(request.path).path == ENTRANCE:
            try:
                address = self._address(request.headers.get("Authorization", ""), request.headers.get("Host", ""))
            except Denied as denied:
                self.refused(denied)
                return socket.respond(401, f"{denied}\n")
            return Response(302, "Found", Headers({"Location": address, "Content-Length": "0"}), b"")
        return await super()._answer(socket, request)

    def _address(self, authorization: str, host: str) -> str:
        """A fresh one-time address. Raises Denied: no good token."""
        token = authorization.removeprefix("Bearer ")
        key = self.keys.owner(token)
        if key is None:
            raise Denied(401, "The token is wrong or has expired.", token=token)
        self.keys.check(key, token)
        code = secrets.token_hex(8)
        self._codes[code] = key, token
        return f"ws://{host}{SOCKET}?requestId={secrets.token_hex(4)}&code={code}"

    def login(self, request: Request) -> Entry:
        """Whose token the code was given for. Raises Denied: 401 without a token, 403 for a used code."""
        url = urlsplit(request.path)
        if url.path == ENTRANCE:
            raise Denied(401, "The token is wrong or has expired.")
        if url.path != SOCKET:
            raise Denied(404, f"There is nothing at {url.path}.")
        code = parse_qs(url.query).get("code", [""])[0]
        if code not in self._codes:
            raise Denied(403, "The code is unknown or was used.")
        key, token = self._codes.pop(code)
        self.keys.check(key, token)
        return Entry(key, token)

    def greeting(self, client: Client) -> Sequence[bytes]:
        """The state of all segments."""
        states = dict.fromkeys(STATUSES, schema.NORMAL_OPEN)
        message = schema.FeedResponse(
            type=schema.market_info,
            currentTs=time.time_ns() // 1_000_000,
            marketInfo=schema.MarketInfo(segmentStatus=states),
        )
        return (message.SerializeToString(),)

    # ------------------------------------------------------------------------------------------------------------- in

    def received(self, client: Client, message: str | bytes) -> None:
        """Acts on `{"guid", "method": sub | unsub | change_mode, "data": {"mode", "instrumentKeys"}}`."""
        self._method = "unknown"
        if isinstance(message, str):
            self.note("error", client, text="A text frame is not answered.")
            return
        try:
            request = json.loads(message)
            self._method, guid, data = request["method"], request["guid"], request["data"]
            keys, mode = data["instrumentKeys"], data.get("mode", "ltpc")
        except (ValueError, KeyError, TypeError, AttributeError):
            self.complain(client, "A request has guid, method, and data with instrumentKeys.")
            return
        if not guid or not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            self.complain(client, "A request has a guid, and instrumentKeys are a list of texts.")
        elif mode not in _REQUEST_MODES:
            self.complain(client, f"The mode {mode!r} is unknown.")
        else:
            self._act(client, self._method, keys, mode)

    def _act(self, client: Client, method: str, keys: Sequence[str], mode: str) -> None:
        unknown = [key for key in keys if key not in self._by_key]
        if unknown:
            self.note("unknown", client, keys=unknown)
        ids = [self._by_key[key] for key in keys if key in self._by_key]
        if method == "unsub":
            self.unsubscribe(client, ids)
        elif method == "sub":
            self._subscribe(client, self._within(client, ids, mode), mode)
        elif method == "change_mode":
            held = [wire_id for wire_id in ids if wire_id in client.modes]
            self.set_mode(client, mode, self._within(client, held, mode))
        else:
            self.complain(client, f"The method {method!r} is unknown.")

    def _subscribe(self, client: Client, ids: Sequence[int], mode: str) -> None:
        """A key that is subscribed in another mode changes to the new one."""
        others = [wire_id for wire_id in ids if client.modes.get(wire_id, mode) != mode]
        self.subscribe(client, [wire_id for wire_id in ids if wire_id not in set(others)], mode)
        if others:
            self.set_mode(client, mode, others)

    def _within(self, client: Client, ids: Sequence[int], mode: str) -> list[int]:
        """Those that the limits by mode allow; the others are reported and counted."""
        counts = collections.Counter(client.modes.values())
        taken, excess = [], []
        for wire_id in dict.fromkeys(ids):
            before = client.modes.get(wire_id)
            counts[mode] += 1
            if before is not None:
                counts[before] -= 1
            if _fits(counts):
                taken.append(wire_id)
                continue
            excess.append(wire_id)
            counts[mode] -= 1
            if before is not None:
                counts[before] += 1
        if excess:
            self._count["limit_violations"] += len(excess)
            self.complain(client, f"{len(excess)} instruments are over the limit of mode {mode}; ignored.")
        return taken

    # ------------------------------------------------------------------------------------------------------------ out

    def _send_images(self, client: Client, ids: Iterable[int]) -> None:
        """Images are of the type initial_feed; ticks that wait go out before them."""
        self._flush(client, time.monotonic())
        self._is_snapshot = True
        try:
            super()._send_images(client, ids)
        finally:
            self._is_snapshot = False

    def packet(self, quote: Quote, mode: str) -> bytes:
        """
        A FeedResponse of one instrument, without its type: bytes of several, joined, are a FeedResponse of them all.

        With `stamp` the last traded quantity (`ltq`) is the low 32 bits of the Unix time in microseconds.
        """
        message = schema.FeedResponse(currentTs=quote.exchange_ms)
        feed = message.feeds[instrument_key(quote.listing)]
        feed.requestMode = _REQUEST_MODES[mode]
        if mode == "ltpc":
            self._fill_last(feed.ltpc, quote)
        elif mode == "option_greeks":
            self._fill_first_level(feed.firstLevelWithGreeks, quote)
        elif quote.is_index:
            self._fill_last(feed.fullFeed.indexFF.ltpc, quote)
            self._fill_candles(feed.fullFeed.indexFF.marketOHLC, quote)
        else:
            self._fill_market(feed.fullFeed.marketFF, quote, _LEVELS[mode])
        return message.SerializeToString()

    def _fill_last(self, last: schema.LTPC, quote: Quote) -> None:
        last.SetInParent()
        last.ltp, last.cp = quote.ltp / quote.scale, quote.close / quote.scale
        last.ltt = quote.exchange_ms if quote.is_index else quote.last_trade_ms
        if not quote.is_index:
            last.ltq = time.time_ns() // 1000 & 0xFFFFFFFF if self.stamp else quote.ltq

    def _fill_first_level(self, first: schema.FirstLevelWithGreeks, quote: Quote) -> None:
        self._fill_last(first.ltpc, quote)
        if not quote.is_index:
            first.firstDepth.CopyFrom(_rows(quote, 1)[0])
            first.vtt, first.oi = quote.volume, quote.oi

    def _fill_market(self, market: schema.MarketFullFeed, quote: Quote, levels: int) -> None:
        self._fill_last(market.ltpc, quote)
        if self._is_snapshot or not self.omits_books:
            market.marketLevel.SetInParent()
            market.marketLevel.bidAskQuote.extend(_rows(quote, levels))
            market.optionGreeks.SetInParent()
        self._fill_candles(market.marketOHLC, quote)
        market.atp = quote.average_price / quote.scale
        market.vtt, market.oi = quote.volume, quote.oi
        market.tbq, market.tsq = quote.total_buy_quantity, quote.total_sell_quantity

    def _fill_candles(self, candles: schema.MarketOHLC, quote: Quote) -> None:
        """The day's, whose close is the last price, and the running minute's."""
        scale, last = quote.scale, quote.ltp / quote.scale
        candles.ohlc.add(
            interval="1d",
            open=quote.open / scale,
            high=quote.high / scale,
            low=quote.low / scale,
            close=last,
            vol=quote.volume,
            ts=int(dt.datetime.combine(self.today, dt.time(), INDIA).timestamp() * 1000),
        )
        minute_ms = quote.exchange_ms // 60_000 * 60_000
        candles.ohlc.add(interval="I1", open=last, high=last, low=last, close=last, ts=minute_ms)

    def frame(self, packets: Sequence[bytes]) -> bytes:
        """The packets joined, after their type, which a snapshot as the first of all types leaves out."""
        return b"".join(packets) if self._is_snapshot else _LIVE + b"".join(packets)

    def complaint(self, sentence: str) -> str:
        """An error as JSON."""
        return json.dumps({"status": "failed", "method": self._method, "error": sentence})

    def damaged(self, kind: str, quote: Quote, chance: random.Random) -> bytes | str:
        """
        A spoilt frame: an instrument cut short (`truncated`), `random` bytes, a `segment` that does not exist, a
        `number` that is none among the totals, or a `text` frame that is no JSON.
        """
        if kind == "truncated":
            key = instrument_key(quote.listing)
            message = schema.FeedResponse(feeds={key: schema.Feed(ltpc=schema.LTPC(ltp=1.0, cp=1.0))})
            whole = self.frame([message.SerializeToString()])
            return whole[: chance.randrange(5, len(whole))]
        if kind == "random":
            return b"\x07" + chance.randbytes(chance.randrange(5, 400))
        if kind == "segment":
            return schema.FeedResponse(
                feeds={"LSE_EQ|GB0001": schema.Feed(ltpc=schema.LTPC(ltp=1.0))}
            ).SerializeToString()
        if kind == "number":
            full = schema.FullFeed(marketFF=schema.MarketFullFeed(tbq=float("nan")))
            key = instrument_key(quote.listing)
            return schema.FeedResponse(feeds={key: schema.Feed(fullFeed=full)}).SerializeToString()
        return '{"status": "failed", "error": '

    # --------------------------------------------------------------------------------------------------------- master

    def master(self, segment: str = "") -> str:
        """The instruments as Upstox's JSON list, of one segment (NSE_EQ, NSE_FO …) or of all; MCX' indices in none."""
        rows = [_master_row(quote.listing) for quote in self.market.quotes if quote.listing.exchange != "MCX_INDEX"]
        chosen = [row for row in rows if segment.upper() in {"", row["segment"]}]
        return json.dumps(chosen) if chosen else ""


SIMULATOR = UpstoxSimulator


def instrument_key(listing: Listing) -> str:
    """
    Upstox's name of an instrument: segment and ISIN, name of the index, or number of the contract.

    >>> from brokers.simulators.universe import listings
    >>> [instrument_key(one) for one in listings(4, dt.date(2024, 3, 1))][1:]
    ['NSE_EQ|INE002A01018', 'NSE_EQ|INE009A01021', 'NSE_INDEX|Nifty 50']
    """
    segment = SEGMENTS[listing.exchange]
    if listing.kind == "INDEX":
        return f"{segment}|{INDEX_NAMES.get(listing.symbol, (listing.symbol,))[0]}"
    return f"{segment}|{_isin(listing) if listing.kind == 'EQ' else listing.code}"


def _isin(listing: Listing) -> str:
    return ISINS.get(listing.symbol, f"INE{listing.code:07d}01")


def _fits(counts: Mapping[str, int]) -> bool:
    used = [mode for mode, count in counts.items() if count]
    if counts.get("full_d30", 0) > LIMITS["full_d30"][0]:
        return False
    room = LIMITS[used[0]][0] if len(used) == 1 else min(LIMITS[mode][1] for mode in used)
    return sum(counts.values()) <= room


def _rows(quote: Quote, levels: int) -> list[schema.Quote]:
    bids, asks = quote.book() if levels <= 5 else quote.deep_book(levels)
    scale = quote.scale
    return [
        schema.Quote(bidQ=bid[1], bidP=bid[0] / scale, askQ=ask[1], askP=ask[0] / scale)
        for bid, ask in zip(bids[:levels], asks[:levels], strict=True)
    ]


def _master_row(one: Listing) -> dict[str, Any]:
    segment = SEGMENTS[one.exchange]
    row: dict[str, Any] = {
        "segment": segment,
        "name": one.name,
        "exchange": segment.partition("_")[0].replace("NCD", "NSE").replace("BCD", "BSE"),
        "instrument_type": one.kind,
        "instrument_key": instrument_key(one),
        "exchange_token": "" if segment == "GLOBAL_INDEX" else str(one.code),
        "trading_symbol": _trading_symbol(one),
    }
    if one.kind == "INDEX":
        return row
    row |= {"lot_size": one.lot_size, "freeze_quantity": 100000.0, "tick_size": round(one.tick_size * 100, 4)}
    if one.expiry is None:
        return row | {"isin": _isin(one)} | ({"instrument_type": "A"} if one.exchange == "BSE" else {})
    last = dt.datetime.combine(one.expiry, dt.time(23, 59, 59), INDIA)
    return row | {
        "expiry": int(last.timestamp() * 1000),
        "strike_price": one.strike or 0.0,
        "underlying_symbol": one.name,
        "underlying_type": "EQUITY",
        "weekly": one.weekly,
        "minimum_lot": one.lot_size,
    }


def _trading_symbol(one: Listing) -> str:
    """NIFTY FUT 28 MAR 24, NIFTY 20800 CE 28 MAR 24."""
    if one.expiry is None:
        return INDEX_NAMES.get(one.symbol, ("", one.symbol))[1] if one.kind == "INDEX" else one.symbol
    day = f"{one.expiry.day:02d} {MONTHS[one.expiry.month - 1]} {one.expiry.year % 100:02d}"
    strike = "" if one.strike is None else f"{strike_text(one.strike)} "
    return f"{one.name} {strike}{one.kind} {day}"


def _error(code: str, words: str) -> HttpResponse:
    """A refusal of a call, with HTTP 401."""
    error = {"errorCode": code, "error_code": code, "message": words, "propertyPath": None}
    return as_json(401, {"status": "error", "errors": [error]})
