"""
The shell all simulated brokers share: sockets, credentials, limits, pace, misbehaviour on demand, and a log of its own.

A broker adds its wire only (see `Simulator`'s abstract methods). It listens on loopback and nowhere else, and sends
nothing but subscribed instruments. The log and the counters are written from what really arrived at the sockets, so a
test can call the simulator as a witness.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import random
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from brokers.contract import HttpResponse
from brokers.india import INDIA
from brokers.simulators.control import Control, respond
from brokers.simulators.http import front
from brokers.simulators.keys import Denied, Keys, token_fact
from brokers.simulators.market import Market, Quote
from brokers.simulators.rules import IDLE_S, Ghosts, Pace, Rules, at_least
from brokers.simulators.universe import Listing, listings

LOOPBACK = "127.0.0.1"
DEMO_KEY, DEMO_TOKEN = "demo", "demo-token"

_STEP_S = 0.005
_SHORTEST_STEP_S = 0.001
_BEAT_CHECK_S = 0.1
_BUFFER_BYTES = 1 << 20
_LOG_ENTRIES = 20_000
_REQUEST_BYTES = 1 << 20


class Entry(NamedTuple):
    """Who comes in: an api key, and the token it was shown with ("" where that comes later)."""

    api_key: str
    token: str = ""


class Client:
    """One accepted socket: whose it is, what it subscribed and what waits to be sent to it."""

    def __init__(self, number: int, entry: Entry, socket: ServerConnection, now_s: float, kind: str = "") -> None:
        self.number = number
        self.api_key, self.token = entry
        self.kind = kind
        """Which of the broker's kinds of socket it is, where it has several."""
        self.socket = socket
        self.modes: dict[int, str] = {}
        """Mode by the wire's number, of everything it subscribed within the limit."""
        self.ignored: set[int] = set()
        """Subscribed, but silently without ticks (`Rules.ignore_beyond`)."""
        self.waiting: list[bytes] = []
        self.facts: dict[str, Any] = {}
        """What a broker's wire remembers of the conversation."""
        self.sent_s = now_s
        self.peak = 0
        self.silent = False
        self.deaf = False
        self.put_out = False
        """The broker ended it on purpose: it leaves no ghost."""
        self.gone = asyncio.Event()


Holders = dict[str, list[Client]]
"""Who wants an instrument, by mode."""


class Simulator(ABC):
    """
    A simulated broker on a loopback port: `async with ZerodhaSimulator(rate=100, symbols=10) as sim: sim.url`.

    `rate` is ticks a second in total, spread over all instruments somebody subscribed, in turn; one tick goes to
    every socket that holds the instrument. `symbols` is how many instruments are quoted (None: every real name).
    `accounts` maps api keys to their access token. `seed` makes the n-th price of each instrument repeatable. `today`
    decides the expiries. `burst_s`: ticks come all at once, so often, instead of evenly. `stamp` puts a clock into each
    packet when it is made, to measure latency: see the broker's `packet`. `lock_after` and `ghost_s` are as in `Rules`;
    `redirect_url` is the address registered with the app (None: `default_redirect`). `clock` (Unix seconds) tells when
    tokens end. Raises ValueError: a number out of range, or an address that is none.
    """

    slug: ClassVar[str]
    heartbeat: ClassVar[bytes | str | None]
    """What it sends when nothing else is due for `heartbeat_s`; None: nothing."""
    heartbeat_s: ClassVar[float]
    damages: ClassVar[tuple[str, ...]]
    """The ways in which `malformed` can spoil a frame."""
    default_rules: ClassVar[tuple[int, int]]
    """Sockets a key, instruments a socket."""
    kind_rules: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """The same for kinds of socket that have limits of their own (see `kind`)."""

    def __init__(
        self,
        *,
        rate: float = 500.0,
        symbols: int | None = None,
        seed: int | None = None,
        port: int = 0,
        accounts: Mapping[str, str] | None = None,
        sockets_per_key: int | None = None,
        instruments_per_socket: int | None = None,
        packets_per_frame: int = 10,
        burst_s: float = 0.0,
        stamp: bool = False,
        today: dt.date | None = None,
        lock_after: int | None = 3,
        ghost_s: float = 0.0,
        redirect_url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rules = Rules(*self.default_rules)
        self._kind_rules = {kind: Rules(*rules) for kind, rules in self.kind_rules.items()}
        self.set_limits(
            sockets_per_key,
            instruments_per_socket,
            lock_after=-1 if lock_after is None else lock_after,
            ghost_s=ghost_s,
        )
        self.set_redirect(redirect_url or default_redirect(self.slug))
        self.clock = clock
        self.seed = random.getrandbits(32) if seed is None else seed
        self.today = today or dt.datetime.now(INDIA).date()
        self.packets_per_frame = at_least("The packets of a frame", packets_per_frame, 1)
        self.stamp = stamp
        self.market = Market(
            listings(symbols, self.today), wire_id=self.wire_id, scale=self.scale, seed=self.seed, now_ms=_now_ms()
        )
        self.clients: dict[int, Client] = {}
        self.keys = Keys(
            accounts or {DEMO_KEY: DEMO_TOKEN}, self.rules, clock, lambda key: self.note("locked", api_key=key)
        )
        self._ghosts = Ghosts()
        self._burst_s = at_least("The time between two bursts", burst_s, 0)
        self._pace = Pace(at_least("The rate", rate, 0), self._burst_s)
        self._own_pace: dict[int, Pace] = {}
        self._holders: dict[int, Holders] = {}
        self._rota: list[tuple[Quote, Holders]] = []
        self._rota_stale = False
        self._turn = 0
        self._paused = self._silent = False
        self._log: collections.deque[dict[str, Any]] = collections.deque(maxlen=_LOG_ENTRIES)
        self._count: collections.Counter[str] = collections.Counter()
        self._numbers = 0
        self._admitted: weakref.WeakKeyDictionary[ServerConnection, tuple[Entry, str]] = weakref.WeakKeyDictionary()
        """Of each socket that was let in: whose it is, and its kind."""
        self._born_ms, self._born_s = time.time() * 1000, time.monotonic()
        self._asked_port = port
        self._server: Server | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._control = Control(self)

    # ------------------------------------------------------------------------------------- what a broker's wire gives

    @abstractmethod
    def wire_id(self, listing: Listing) -> int:
        """The number by which the wire names an instrument."""

    @abstractmethod
    def scale(self, listing: Listing) -> int:
        """By what the wire's integer prices of an instrument are divided."""

    @abstractmethod
    def login(self, request: Request) -> Entry:
        """
        Who an upgrade request comes from, if the credentials are right (`Keys.check`).

        Raises Denied.
        """

    @abstractmethod
    def received(self, client: Client, message: str | bytes) -> None:
        """Acts on one frame of a client: calls `subscribe`, `unsubscribe`, `set_mode` or `complain`."""

    @abstractmethod
    def packet(self, quote: Quote, mode: str) -> bytes:
        """One instrument's state as a mode shows it."""

    def packets(self, quote: Quote, mode: str) -> Sequence[bytes]:
        """All packets that one tick is in this mode; brokers that send several override this."""
        return (self.packet(quote, mode),)

    def image(self, quote: Quote, mode: str) -> Sequence[bytes]:
        """What a new subscription gets at once; brokers that tell it from a tick override this."""
        return self.packets(quote, mode)

    def kind(self, request: Request) -> str:
        """Which kind of socket an upgrade request opens; brokers that have several tell them by the path."""
        return ""

    def greeting(self, client: Client) -> Sequence[bytes | str]:
        """What the broker says first on a new socket."""
        return ()

    def http(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """Answers the broker's REST calls (`target`: path and query; `headers` by lower-case name); None: no such."""
        return None

    def credentials(self, api_key: str, token: str) -> dict[str, str]:
        """What a broker account must hold to come in here with this key and token, and to log in for another one."""
        return {"api_key": api_key, "access_token": token}

    def token_of(self, credentials: Mapping[str, str]) -> str:
        """The token in these, as `credentials` takes it: the log has its `keys.token_id`."""
        return credentials.get("access_token", "")

    @abstractmethod
    def frame(self, packets: Sequence[bytes]) -> bytes | str:
        """Packets as one WebSocket message."""

    def frame_for(self, client: Client, packets: Sequence[bytes]) -> bytes | str:
        """The same for one client; brokers whose frames differ from client to client override this."""
        return self.frame(packets)

    @abstractmethod
    def complaint(self, sentence: str) -> bytes | str:
        """The message with which the broker reports an error."""

    def complaint_for(self, client: Client, sentence: str) -> bytes | str:
        """The same for one client; brokers with several kinds of socket override this."""
        return self.complaint(sentence)

    @abstractmethod
    def damaged(self, kind: str, quote: Quote, chance: random.Random) -> bytes | str:
        """A frame spoilt in one of the ways of `damages`."""

    @abstractmethod
    def master(self, segment: str = "") -> str:
        """The instrument master file of a segment as the broker names them; "" for one that it does not have."""

    # ------------------------------------------------------------------------------------------------- start and stop

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Listens and ticks from now on. Raises OSError: the port is taken."""
        self._server = await serve(
            self._converse,
            LOOPBACK,
            self._asked_port,
            process_request=self._answer,
            compression=None,
            ping_interval=None,
            close_timeout=1,
            max_size=_REQUEST_BYTES,
            create_connection=front(self.http),
        )
        self._ticking = asyncio.create_task(self._tick_forever(), name=f"{self.slug} simulator")

    async def close(self) -> None:
        """Closes every socket and stops. Clients get close code 1001. Raises what made the ticking fail, if it did."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking

    async def run_until(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set; raises what made the ticking fail, if it does before that."""
        assert self._ticking is not None, "The simulator is not open."
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((stopping, self._ticking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._ticking.done():
            self._ticking.result()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None, "The simulator is not open."
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """Where clients connect, without credentials."""
        return f"ws://{LOOPBACK}:{self.port}"

    @property
    def http_url(self) -> str:
        """Where the master and the control are."""
        return f"http://{LOOPBACK}:{self.port}"

    # ------------------------------------------------------------------------------------------------------ handshake

    async def _answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """Lets a login through (None), or answers: a refusal, the master file, the control."""
        answer = await self._control.answer(request) or self._rest(request)
        if answer is not None:
            return answer
        entry = Entry("")
        try:
            entry, kind = self.login(request), self.kind(request)
            self._check_room(entry.api_key, kind)
        except Denied as denied:
            self.refused(denied, entry.token)
            return socket.respond(denied.status, f"{denied}\n")
        self._admitted[socket] = entry, kind
        return None

    def refused(self, denied: Denied, token: str = "", client: Client | None = None) -> None:
        """Counts a refusal at a socket, or at a call that leads to one, and writes it down."""
        self._count["refused_logins"] += 1
        facts = token_fact(token) | denied.facts
        self.note("refused", client, status=denied.status, reason=str(denied), **facts)
        self.keys.wrong(denied.wrong)

    def _rest(self, request: Request) -> Response | None:
        """The broker's answer to a REST call without a body."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        found = self.http(request.method, request.path, headers, b"")
        return None if found is None else respond(found)

    def rules_of(self, kind: str) -> Rules:
        """The limits of a kind of socket."""
        return self._kind_rules.get(kind, self.rules)

    def _check_room(self, api_key: str, kind: str) -> None:
        """A socket counts from the moment its login was let through until it ends, a ghost for longer."""
        held = sum(
            (entry.api_key, of_kind) == (api_key, kind) and socket.state in {State.CONNECTING, State.OPEN}
            for socket, (entry, of_kind) in self._admitted.items()
        )
        ghosts = len(self._ghosts.of((api_key, kind), time.monotonic()))
        allowed = self.rules_of(kind).sockets_per_key
        if held + ghosts >= allowed:
            self._count["limit_violations"] += 1
            held += ghosts
            facts: dict[str, Any] = {"ghosts": ghosts} if ghosts else {}
            raise Denied(429, f"This api_key has {held} connections already; {allowed} are allowed.", **facts)

    def admit(self, client: Client, api_key: str, token: str) -> None:
        """
        The login of a client whose broker wants it in a frame: `login` let it in under a key of its own before that.

        Raises Denied: bad credentials, or no room for one more socket of the key; then it is counted as refused.
        """
        try:
            self.keys.check(api_key, token)
            self._check_room(api_key, client.kind)
        except Denied as denied:
            self.refused(denied, token, client)
            raise
        client.api_key, client.token = api_key, token
        self._admitted[client.socket] = Entry(api_key, token), client.kind
        self.note("login", client, api_key=api_key, **token_fact(token))

    async def _converse(self, socket: ServerConnection) -> None:
        client = self._welcome(socket)
        try:
            async for message in socket:
                self.received(client, message)
        except ConnectionClosed:
            pass  # without a close frame; the farewell logs how it ended
        finally:
            self._farewell(client)

    def _welcome(self, socket: ServerConnection) -> Client:
        entry, kind = self._admitted[socket]
        self._numbers += 1
        client = Client(self._numbers, entry, socket, time.monotonic(), kind)
        client.silent = self._silent
        self.clients[client.number] = client
        self._count["connections_peak"] = max(self._count["connections_peak"], len(self.clients))
        facts = token_fact(entry.token) | ({"kind": kind} if kind else {})
        self.note("connect", client, api_key=entry.api_key, **facts)
        for message in self.greeting(client):
            self._send(client, message)
        return client

    def _farewell(self, client: Client) -> None:
        self._release(client, list(client.modes))
        del self.clients[client.number]
        is_ghost = self.rules.ghost_s > 0 and not client.put_out and client.socket.protocol.close_rcvd is None
        if is_ghost:
            owner = client.api_key, client.kind
            self._ghosts.add(client.number, owner, time.monotonic() + self.rules.ghost_s)
        ending = {"code": client.socket.close_code, "reason": client.socket.close_reason}
        self.note("disconnect", client, **ending, **({"ghost": True} if is_ghost else {}))
        client.gone.set()

    # -------------------------------------------------------------------------------------------------- subscriptions

    def subscribe(self, client: Client, ids: Iterable[int], mode: str) -> None:
        """Takes what is known and within the limit, at `mode` where it is new; each one's current image goes out."""
        taken, unknown, excess = [], [], []
        limit = self.rules_of(client.kind).instruments_per_socket
        for wire_id in ids:
            if wire_id not in self.market.by_wire_id:
                unknown.append(wire_id)
            elif wire_id in client.modes:
                taken.append(wire_id)
            elif len(client.modes) >= limit:
                excess.append(wire_id)
            else:
                self._hold(client, wire_id, mode)
                taken.append(wire_id)
        client.peak = max(client.peak, len(client.modes))
        self._count["instruments_peak"] = max(self._count["instruments_peak"], client.peak)
        self.note("subscribe", client, tokens=taken, **_unless_empty(unknown=unknown, excess=excess))
        self._send_images(client, taken)
        if excess:
            self._count["limit_violations"] += len(excess)
            self.complain(client, f"{len(excess)} instruments are over the limit of {limit} a connection; ignored.")

    def unsubscribe(self, client: Client, ids: Iterable[int]) -> None:
        """Lets go of those it holds."""
        held = [wire_id for wire_id in dict.fromkeys(ids) if wire_id in client.modes]
        self._release(client, held)
        self.note("unsubscribe", client, tokens=held)

    def set_mode(self, client: Client, mode: str, ids: Iterable[int]) -> None:
        """Changes the mode of those it holds; each one's image in the new mode goes out."""
        held, unheld = [], []
        for wire_id in ids:
            if wire_id not in client.modes:
                unheld.append(wire_id)
                continue
            held.append(wire_id)
            if client.modes[wire_id] != mode:
                ignored = wire_id in client.ignored
                self._release(client, [wire_id])
                self._hold(client, wire_id, mode, ignored=ignored)
        self.note("mode", client, mode=mode, tokens=held, **_unless_empty(not_subscribed=unheld))
        self._send_images(client, held)

    def complain(self, client: Client, sentence: str) -> None:
        """Sends an error to a client."""
        self._count["errors"] += 1
        self.note("error", client, text=sentence)
        self._send(client, self.complaint_for(client, sentence))

    def _hold(self, client: Client, wire_id: int, mode: str, *, ignored: bool | None = None) -> None:
        if ignored is None:
            beyond = self.rules_of(client.kind).ignore_beyond
            ignored = beyond is not None and len(client.modes) >= beyond
        client.modes[wire_id] = mode
        if ignored:
            client.ignored.add(wire_id)
            return
        self._holders.setdefault(wire_id, {}).setdefault(mode, []).append(client)
        self._rota_stale = True

    def _release(self, client: Client, ids: Iterable[int]) -> None:
        for wire_id in ids:
            mode = client.modes.pop(wire_id)
            if wire_id in client.ignored:
                client.ignored.discard(wire_id)
                continue
            holders = self._holders[wire_id]
            holders[mode].remove(client)
            if not holders[mode]:
                del holders[mode]
            if not holders:
                del self._holders[wire_id]
        self._rota_stale = True

    def _send_images(self, client: Client, ids: Iterable[int]) -> None:
        for wire_id in ids:
            if wire_id not in client.ignored:
                client.waiting.extend(self.image(self.market.by_wire_id[wire_id], client.modes[wire_id]))
        self._flush(client, time.monotonic())

    # -------------------------------------------------------------------------------------------------------- ticking

    async def _tick_forever(self) -> None:
        last_s = beat_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            self._tick_due(now_s - last_s)
            last_s = now_s
            for client in self.clients.values():
                if client.waiting:
                    self._flush(client, now_s)
            if now_s - beat_s >= _BEAT_CHECK_S:
                self._beat(now_s)
                self._put_out_expired()
                beat_s = now_s
            await asyncio.sleep(self._rest_s())

    def _rest_s(self) -> float:
        """Until the next tick, but not shorter than a step, unless a frame is full earlier than that."""
        waits = [pace.wait_s() for pace in (self._pace, *self._own_pace.values())]
        rate = self._pace.rate
        step_s = min(_STEP_S, self.packets_per_frame / rate) if rate else _STEP_S
        return min(max(min(waits), step_s, _SHORTEST_STEP_S), IDLE_S)

    def _tick_due(self, elapsed_s: float) -> None:
        count = self._pace.due(elapsed_s)
        own = [(wire_id, pace.due(elapsed_s)) for wire_id, pace in self._own_pace.items()]
        if self._paused or not self._holders:
            return
        if self._rota_stale:
            self._draw_up_rota()
        if self._rota:
            self._tick_in_turn(count)
        for wire_id, due in own:
            if wire_id in self._holders:
                for _ in range(due):
                    self._tick_one(self.market.by_wire_id[wire_id])

    def _draw_up_rota(self) -> None:
        quotes = self.market.by_wire_id
        self._rota = [(quotes[i], holders) for i, holders in self._holders.items() if i not in self._own_pace]
        self._rota_stale = False

    def _tick_in_turn(self, count: int) -> None:
        """The hot path: the next `count` instruments, in turn."""
        rota, packets, now_ms = self._rota, self.packets, _now_ms()
        turn, turns = self._turn, len(self._rota)
        for _ in range(count):
            turn = turn + 1 if turn + 1 < turns else 0
            quote, holders = rota[turn]
            quote.walk(now_ms)
            for mode, clients in holders.items():
                made = packets(quote, mode)
                for client in clients:
                    client.waiting.extend(made)
        self._turn = turn
        self._count["ticks"] += count

    def _tick_one(self, quote: Quote) -> None:
        quote.walk(_now_ms())
        self._publish(quote)

    def _publish(self, quote: Quote) -> int:
        """The instrument's state to everyone who holds it; how many."""
        reached = 0
        for mode, clients in self._holders.get(quote.wire_id, {}).items():
            made = self.packets(quote, mode)
            for client in clients:
                client.waiting.extend(made)
            reached += len(clients)
        self._count["ticks"] += 1
        return reached

    def _flush(self, client: Client, now_s: float) -> None:
        """What waits for a client, in frames; nothing to one that is silenced or a megabyte behind."""
        waiting, client.waiting = client.waiting, []
        if not waiting:
            return
        socket = client.socket
        if client.silent or socket.state is not State.OPEN or _backlog_bytes(socket) > _BUFFER_BYTES:
            self._count["packets_skipped"] += len(waiting)
            return
        most = self.packets_per_frame
        for start in range(0, len(waiting), most):
            broadcast((socket,), self.frame_for(client, waiting[start : start + most]))
            self._count["frames"] += 1
        self._count["packets"] += len(waiting)
        client.sent_s = now_s

    def _send(self, client: Client, message: bytes | str) -> None:
        """One message that is no frame of packets; nothing to a silenced client."""
        if not client.silent:
            broadcast((client.socket,), message)
            client.sent_s = time.monotonic()

    def _beat(self, now_s: float) -> None:
        if self.heartbeat is None:
            return
        for client in self.clients.values():
            if now_s - client.sent_s >= self.heartbeat_s and not client.silent:
                self._send(client, self.heartbeat)
                self._count["heartbeats"] += 1

    def _put_out_expired(self) -> None:
        """Drops the sockets whose token's end has passed."""
        for client in self.clients.values():
            if self.keys.is_over(client.token) and not client.put_out:
                client.put_out = True
                client.socket.transport.abort()

    # -------------------------------------------------------------------------------------------------------- witness

    @property
    def log(self) -> list[dict[str, Any]]:
        """
        What happened, oldest first, the newest 20,000 entries: `ts_ms` (never falling), `event`, `connection`, more.

        Events: connect, login, refused, subscribe, unsubscribe, mode, error, disconnect, control; of the login server
        login_ok and login_refused; and locked. `token_id` names a token (`keys.token_id`) in those where one was shown.
        """
        return list(self._log)

    def entries(self, event: str) -> list[dict[str, Any]]:
        """The log's entries of one kind."""
        return [entry for entry in self._log if entry["event"] == event]

    def note(self, event: str, client: Client | None = None, **facts: object) -> None:
        """Writes into the log. Never a token of a login."""
        ts_ms = int(self._born_ms + (time.monotonic() - self._born_s) * 1000)
        number = {} if client is None else {"connection": client.number}
        self._log.append({"ts_ms": ts_ms, "event": event, **number, **facts})

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and who holds what now."""
        counted = (
            "connections_peak", "instruments_peak", "refused_logins", "limit_violations", "errors", "ticks", "frames",
            "packets", "packets_skipped", "heartbeats", "malformed",
        )  # fmt: skip
        return {
            "broker": self.slug,
            "rate": self._pace.rate,
            "quoted": len(self.market.quotes),
            "connections": len(self.clients),
            "instruments": len(self._holders),
            **{name: self._count[name] for name in counted},
            "logins": self._count["logins"],
            "wrong_logins": self.keys.wrong_logins,
            "locked": self.keys.locked,
            "ghosts": self._ghosts.count(time.monotonic()),
            "subscribed": sorted(self._holders),
            "per_connection": [
                {
                    "connection": client.number,
                    "api_key": client.api_key,
                    "instruments": len(client.modes),
                    "instruments_peak": client.peak,
                    "modes": dict(collections.Counter(client.modes.values())),
                }
                for client in self.clients.values()
            ],
        }

    def subscribed(self) -> dict[str, list[str]]:
        """Modes in which each instrument is held now, by EXCHANGE:SYMBOL."""
        quotes = self.market.by_wire_id
        return {quotes[i].listing.key: sorted(holders) for i, holders in self._holders.items()}

    def token(self, symbol: str) -> int:
        """The wire's number of an instrument. Raises UnknownSymbol."""
        return self.market.find(symbol).wire_id

    # --------------------------------------------------------------------------------------------------- misbehaviour

    def _chosen(self, connection: int | None) -> list[Client]:
        """One client by its number in the log, or all. Raises ValueError."""
        if connection is None:
            return list(self.clients.values())
        if connection not in self.clients:
            open_now = ", ".join(map(str, self.clients)) or "none"
            raise ValueError(f"There is no connection {connection}; open are: {open_now}.")
        return [self.clients[connection]]

    async def drop(
        self, connection: int | None = None, *, close_frame: bool = False, code: int = 1001, reason: str = ""
    ) -> int:
        """Ends one connection or all, abruptly or with a close frame; how many. Returns when they are gone."""
        return await self._end(self._chosen(connection), close_frame, code, reason)

    async def _end(self, clients: list[Client], close_frame: bool = False, code: int = 1001, reason: str = "") -> int:
        if close_frame:
            await asyncio.gather(*(client.socket.close(code, reason) for client in clients))
        for client in clients:
            client.socket.transport.abort()
        await asyncio.gather(*(client.gone.wait() for client in clients))
        return len(clients)

    def silence(self, connection: int | None = None, *, deaf: bool = False) -> int:
        """
        Sends nothing more, heartbeats included, on one connection or on all present and future ones; how many now.

        WebSocket pings are still answered, unless `deaf`: then it stops reading too.
        """
        clients = self._chosen(connection)
        self._silent = self._silent or connection is None
        for client in clients:
            client.silent = True
            if deaf and not client.deaf:
                client.deaf = True
                client.socket.transport.pause_reading()
        return len(clients)

    def resume(self, connection: int | None = None) -> int:
        """Undoes `silence`; how many connections."""
        clients = self._chosen(connection)
        self._silent = self._silent and connection is not None
        for client in clients:
            client.silent = False
            if client.deaf:
                client.deaf = False
                client.socket.transport.resume_reading()
        return len(clients)

    def malformed(self, kind: str, count: int = 1, connection: int | None = None) -> int:
        """Sends spoilt frames, of a kind in `damages`; how many. Raises ValueError."""
        if kind not in self.damages:
            raise ValueError(f"{kind!r} is no way to spoil a frame; known are {', '.join(self.damages)}.")
        at_least("The number of frames", count, 1)
        clients = self._chosen(connection)
        chance = random.Random(self.seed)
        for client in clients:
            held = self.market.by_wire_id[next(iter(client.modes))] if client.modes else self.market.quotes[0]
            for _ in range(count):
                self._send(client, self.damaged(kind, held, chance))
        sent = count * len(clients)
        self._count["malformed"] += sent
        return sent

    async def expire(self, api_key: str | None = None) -> int:
        """Makes the tokens of a key (None: of all keys) worthless and drops its sockets; how many."""
        for key in self.keys.named(api_key):
            self.keys.clear(key)
        theirs = [client for client in self.clients.values() if api_key in {None, client.api_key}]
        for client in theirs:
            client.put_out = True
        return await self._end(theirs)

    def set_token(self, token: str, api_key: str = DEMO_KEY) -> None:
        """Makes this the only valid token of a key, which may be new. Open sockets stay."""
        if not token or not api_key:
            raise ValueError("An api_key and a token must not be empty.")
        self.keys.replace(api_key, token)

    def unlock(self, api_key: str | None = None) -> int:
        """Unlocks a key (None: all keys) and forgets its wrong logins; how many were locked. Raises ValueError."""
        return self.keys.unlock(api_key)

    def set_redirect(self, url: str) -> None:
        """Registers another address with the app, to which a login redirects. Raises ValueError: it is none."""
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise ValueError(f"The redirect address must be like {default_redirect(self.slug)}, not {url!r}.")
        self.redirect_url = url

    def pause_ticks(self) -> None:
        """No tick until `resume_ticks`; heartbeats and images go on."""
        self._paused = True

    def resume_ticks(self) -> None:
        """Ticks again."""
        self._paused = False

    def set_rate(self, rate: float) -> None:
        """Ticks a second in total from now on. Raises ValueError."""
        self._pace = Pace(at_least("The rate", rate, 0), self._burst_s)

    def set_symbol_rate(self, symbol: str, rate: float | None) -> None:
        """One instrument's own ticks a second, beside the total; 0 makes it quiet, None puts it back into the turn."""
        wire_id = self.market.find(symbol).wire_id
        if rate is None:
            self._own_pace.pop(wire_id, None)
        else:
            self._own_pace[wire_id] = Pace(at_least("The rate", rate, 0))
        self._rota_stale = True

    def emit(self, symbol: str, **fields: object) -> int:
        """
        One tick with exactly these fields (see `Quote.put`), now; how many sockets it went to.

        What is not given stays as it was. Raises ValueError: an unknown symbol or field, or a bad value.
        """
        quote = self.market.find(symbol)
        quote.put(fields, _now_ms())
        reached = self._publish(quote)
        for client in self.clients.values():
            self._flush(client, time.monotonic())
        return reached

    def never_traded(self, symbol: str, untraded: bool = True) -> None:
        """Makes an instrument one that never traded: zeros in every field until `emit` gives it a price."""
        self.market.find(symbol).never_traded(untraded)

    def set_limits(
        self,
        sockets: int | None = None,
        instruments: int | None = None,
        ignore_beyond: int | None = None,
        lock_after: int | None = None,
        ghost_s: float | None = None,
    ) -> None:
        """
        Changes the given limits for what comes from now on (see `Rules`); -1 ends the ignoring, or the locking.

        Raises ValueError: a number out of range.
        """
        self.rules.change(sockets, instruments, ignore_beyond, lock_after, ghost_s)


def default_redirect(slug: str) -> str:
    """Where the project itself waits for a broker's redirect, as it runs by default."""
    return f"http://{LOOPBACK}:8765/broker/{slug}/callback"


def _backlog_bytes(socket: ServerConnection) -> int:
    return socket.transport.get_write_buffer_size()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _unless_empty(**lists: list[int]) -> dict[str, list[int]]:
    return {name: items for name, items in lists.items() if items}
