"""
What keeps an instrument silent: facts of all hops to findings, in the order a tick is asked for and goes. Pure.

Each hop is a function of the facts and judges for itself. The verdict is the first fault: what comes after it may be
its consequence.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from marketdata.report import AccountReport, BridgeReport, CarrierReport, ClientsReport, KeyReport, StreamReport
from marketdata.ticks import EXCHANGES, FeedState, Mode, TokenState

FLOW_MS = 10_000
"""An instrument of which something came so lately ticks."""
SETTLE_S = 3.0
"""So long a fresh subscription may take until its first price."""
SILENT = 1 / 3
"""After this part of the time that makes a socket count as dead, no frame is worth a word."""
BUS_MS = 7_000
"""The adapters tell their state every 5 s: a bridge that heard nothing for so long does not hear them."""
OLD_DAYS = 4
"""Instruments older than that are no more those the broker trades."""

_DEAD_TOKENS = frozenset({TokenState.TOKEN_EXPIRED, TokenState.WAITING_FOR_LOGIN, TokenState.NOT_ENTITLED})
_DEAD_STATES = frozenset({FeedState.TOKEN_EXPIRED, FeedState.WAITING_FOR_LOGIN, FeedState.NOT_ENTITLED})


class Mark(enum.Enum):
    """How a hop is doing; a remark is worth knowing and no fault, unknown is what cannot be told from here."""

    OK = "ok"
    FAULT = "fault"
    REMARK = "remark"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """One hop: how it does, in a sentence, and what to do about it."""

    hop: str
    mark: Mark
    sentence: str
    advice: str = ""


class AccountFact(msgspec.Struct, frozen=True, kw_only=True):
    """
    An account as the database has it. `is_on`: instruments may be planned on it; if not, `trouble` says why.

    `lists` says whether its broker lists the instrument, `modes` in which ones it streams it.
    """

    broker: str
    name: str
    feed: str
    simulated: bool
    is_on: bool
    trouble: str = ""
    lists: bool = True
    modes: frozenset[Mode] = frozenset()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """
    All that was found out about one instrument. What could not be asked is None, its problem a sentence.

    `mode` None: the one that is wanted. `listed_by` are brokers (slugs) with the date of their instruments; `gone` says
    what became of a name that nobody lists. `first` and `last` are two answers of the adapters' process, `last` later.
    """

    symbol: str
    exchange: str
    feed: str = ""
    mode: Mode | None = None
    today: dt.date
    database_problem: str = ""
    has_instruments: bool = True
    listed_by: Mapping[str, dt.date | None] = msgspec.field(default_factory=dict)
    flaw: str = ""
    gone: str = ""
    suggestions: Sequence[str] = ()
    accounts: Sequence[AccountFact] = ()
    adapters_problem: str = ""
    first: KeyReport | None = None
    last: KeyReport | None = None
    clients: ClientsReport

    @property
    def asked(self) -> Mode:
        """The mode that is asked about: else the deepest that somebody wants, else QUOTE."""
        if self.mode is not None:
            return self.mode
        demanded = [each.mode for each in self.last.streams if each.demanded] if self.last is not None else []
        return max([*demanded, *(self.clients.wanted or ())], default=Mode.QUOTE)

    @property
    def stream(self) -> StreamReport | None:
        """That mode as the adapters' process knows it; None: it does not."""
        return None if self.last is None else self.last.stream(self.asked)

    @property
    def is_demanded(self) -> bool:
        """Whether the adapters were told that somebody wants it now."""
        return self.stream is not None and self.stream.demanded

    @property
    def age_ms(self) -> int | None:
        """How long ago the latest packet of it came; None: there was none."""
        if self.last is None or self.last.updated_ms is None:
            return None
        return max(self.last.now_ms - self.last.updated_ms, 0)

    @property
    def flows(self) -> bool:
        """Whether packets of it come, on each socket that carries it."""
        if self.last is None or self.age_ms is None or self.age_ms > FLOW_MS:
            return False
        return not any(_silence_ms(self.last, each) or (each.unheard_s or 0) >= SETTLE_S for each in self.last.carriers)

    @property
    def rate(self) -> float | None:
        """Ticks a second, as they are published; None: it cannot be told."""
        if self.first is None or self.last is None or self.last.now_ms <= self.first.now_ms:
            return None
        before, after = self.first.stream(self.asked), self.stream
        if before is None or after is None or not (before.demanded and after.demanded):
            return None
        return (after.seq - before.seq) / (self.last.now_ms - self.first.now_ms) * 1000


def diagnose(facts: Facts) -> list[Finding]:
    """A finding for each hop, in order. What to do is said of the first fault only: the others may go with it."""
    findings = [judge(facts)._replace(hop=name) for name, judge in _HOPS.items()]
    first = fault_in(findings)
    return [each._replace(advice="") if each.mark is Mark.FAULT and each is not first else each for each in findings]


def _ok(sentence: str, advice: str = "") -> Finding:
    return Finding("", Mark.OK, sentence, advice)


def _fault(sentence: str, advice: str = "") -> Finding:
    return Finding("", Mark.FAULT, sentence, advice)


def _remark(sentence: str, advice: str = "") -> Finding:
    return Finding("", Mark.REMARK, sentence, advice)


def _unknown(sentence: str) -> Finding:
    return Finding("", Mark.UNKNOWN, sentence)


def fault_in(findings: Iterable[Finding]) -> Finding | None:
    """What keeps it silent: the first fault; None: nothing does."""
    return next((each for each in findings if each.mark is Mark.FAULT), None)


def verdict(facts: Facts, findings: Sequence[Finding]) -> str:
    """The one sentence: what is wrong and what to do, or that ticks flow."""
    fault = fault_in(findings)
    if fault is not None:
        return " ".join(filter(None, (fault.sentence, fault.advice)))
    if facts.age_ms is None or not facts.flows:
        return "Nothing that can be seen from here is wrong, and yet no tick of it was seen; ask again in a moment."
    remarks = [each.sentence for each in findings if each.mark is Mark.REMARK]
    simulated = facts.last is not None and facts.last.account is not None and facts.last.account.simulated
    flow = f"{'SIMULATED ticks' if simulated else 'Ticks'} flow in mode {facts.asked.name}: the last"
    return " ".join([f"{flow} {ago(facts.age_ms)} ago.", *remarks])


# --------------------------------------------------------------------------------------- what is asked for, and of whom


def _name(facts: Facts) -> Finding:
    name = f"{facts.symbol} on {facts.exchange}"
    if facts.exchange not in EXCHANGES:
        known = ", ".join(sorted(EXCHANGES))
        return _fault(f"There is no exchange {facts.exchange!r}.", f"Use one of {known}.")
    if facts.database_problem:
        return _unknown(facts.database_problem)
    if facts.listed_by:
        return _ok(f"{name} is listed by {_and(facts.listed_by)}.")
    if not facts.has_instruments:
        return _unknown("There are no instruments to look in.")
    sentence = " ".join(filter(None, (f"No broker lists {name}.", facts.flaw or facts.gone)))
    hint = f"Did you mean {_or(facts.suggestions)}?" if facts.suggestions else "Look with manage.py find_symbol."
    return _fault(sentence, hint)


def _instruments(facts: Facts) -> Finding:
    if facts.database_problem:
        return _unknown("They are in the database.")
    if not facts.has_instruments:
        advice = "Load a broker's, for example with manage.py sync_instruments zerodha."
        return _fault("There are no instruments yet.", advice)
    dates = {broker: date for broker, date in facts.listed_by.items() if date is not None}
    old = [broker for broker, date in dates.items() if (facts.today - date).days > OLD_DAYS]
    told = ", ".join(f"{broker}'s are of {date:%d %b}" for broker, date in dates.items()) or "They are there"
    if old:
        sync = f"Sync them: manage.py sync_instruments {' '.join(old)}."
        return _remark(f"{told}: that is old.", sync)
    return _ok(f"{told}.")


def _account(facts: Facts) -> Finding:
    if facts.database_problem or not facts.listed_by:
        return _unknown("Accounts are looked for at the brokers that list it.")
    feed = f" of the feed {facts.feed!r}" if facts.feed else ""
    able = [each for each in facts.accounts if each.lists and each.feed == facts.feed]
    if not able:
        sentence = f"No account{feed} at {_or(facts.listed_by)} is configured, and these list it."
        others = [f"{each.broker} {each.name}" for each in facts.accounts if each.lists]
        elsewhere = f" There is {_and(others)} for another feed: name that with --feed." if others else ""
        return _fault(sentence, f"Add one in the admin.{elsewhere}")
    on = [each for each in able if each.is_on]
    if not on:
        troubles = " ".join(f"{each.broker} {each.name}: {each.trouble}" for each in able)
        return _fault(troubles, "Switch on, in the admin, one that shall serve it.")
    modes = frozenset[Mode]().union(*(each.modes for each in on))
    if facts.asked not in modes:
        return _not_so_deep(facts, on, modes)
    names = [f"{each.broker} {each.name}{' (SIMULATED)' if each.simulated else ''}" for each in on]
    return _ok(f"{_and(names)} can serve it in mode {facts.asked.name}.")


def _not_so_deep(facts: Facts, on: Sequence[AccountFact], modes: frozenset[Mode]) -> Finding:
    brokers = _or(dict.fromkeys(each.broker for each in on))
    sentence = f"It is not streamed in mode {facts.asked.name} by {brokers}."
    lower = [each for each in modes if each < facts.asked]
    if not lower:
        return _fault(sentence, "Add an account of another broker.")
    advice = f"Subscribe {max(lower).name}, the deepest there is; or add an account of a broker that streams more."
    return _fault(sentence, advice)


def _adapters(facts: Facts) -> Finding:
    if facts.last is None:
        return _fault(facts.adapters_problem)
    return _ok(f"The process answers; it runs for {ago(facts.last.now_ms - facts.last.started_ms)}.")


def _subscriber(facts: Facts) -> Finding:
    mode, clients = facts.asked.name, facts.clients
    if clients.wanted is not None and facts.asked in clients.wanted:
        count = clients.wanted[facts.asked]
        return _ok(f"Clients of {count} server process{'es' * (count > 1)} want it in mode {mode}.")
    if clients.wanted is None and facts.is_demanded:
        return _ok(f"The adapters are asked for it in mode {mode}.")
    if clients.uses_redis and clients.wanted is None:
        return _unknown("Who wants it is in Redis.")
    if clients.server_problem and not clients.hubs:
        return _fault(clients.server_problem, "Start manage.py run_server, or stream.")
    if not clients.uses_redis and (facts.last is None or not facts.last.is_bridged):
        return _unknown("Without REDIS_URL only the adapters can tell who wants it.")
    return _fault(f"No client is subscribed to it in mode {mode}.{_other_modes(facts)}", _watch(facts))


def _other_modes(facts: Facts) -> str:
    others = set(facts.clients.wanted or ())
    if facts.last is not None:
        others |= {each.mode for each in facts.last.streams if each.demanded}
    return f" It is wanted in mode {_and(each.name for each in sorted(others))}." if others else ""


def _watch(facts: Facts) -> str:
    command = f"manage.py watch {facts.exchange}:{facts.symbol} --mode {facts.asked.name.lower()}"
    return f"Subscribe it in your client, or try {command}."


def _bridge(facts: Facts) -> Finding:
    clients, life = facts.clients, facts.clients.bridge
    if not clients.uses_redis:
        return _bridge_in_server(facts)
    if clients.wanted is None:
        return _unknown("Its sign of life is in Redis.")
    if life is None:
        return _fault("The bridge is not running, or stands still.", "Start manage.py run_bridge, or stream.")
    return _ok("It runs.") if facts.last is None else _upstream(facts, clients, life)


def _bridge_in_server(facts: Facts) -> Finding:
    """Without REDIS_URL it runs inside the server, or beside a Redis of `stream`'s own, which cannot be seen."""
    if facts.last is None:
        return _unknown("Only the adapters can tell whether it runs: no REDIS_URL is set.")
    if not facts.last.is_bridged:
        advice = "Start manage.py stream; or run_server, which holds the bridge where no REDIS_URL is set."
        return _fault("No bridge is connected to the adapters.", advice)
    return _ok("It is connected to the adapters.")


def _upstream(facts: Facts, clients: ClientsReport, life: BridgeReport) -> Finding:
    """Whether the bridge passes the clients' demand on."""
    if not life.adapters_up:
        advice = "Give both the same ZMQ_HOST and ZMQ_PORT, and restart it."
        return _fault("The bridge runs, and does not find the adapters' process.", advice)
    if facts.asked in (clients.wanted or ()) and not facts.is_demanded:
        sentence = "The bridge runs, and has not told the adapters that somebody wants it."
        return _fault(sentence, "That takes a moment; if it stays so, restart the bridge.")
    return _ok(f"It runs, and asks the adapters for {life.topics:,} keys.")


# -------------------------------------------------------------------------------------------------------- at the broker


def _place(facts: Facts) -> Finding:
    key = facts.last
    if key is None or not key.streams:
        return _unknown("A place is found for what is wanted.")
    if not key.is_looked_up:
        sentence = "The adapters' process could not look it up in the database."
        return _fault(sentence, "It does so when the database answers; its log says what is wrong.")
    if key.seat is None or key.account is None:
        return _fault(key.shortage or "It has no place yet.", "manage.py feed_status shows how full they are.")
    at = f"{key.account.broker} {key.account.name}"
    if key.reason and (key.seat.mode is None or key.seat.mode < facts.asked):
        has = key.seat.mode.name if key.seat.mode is not None else "none"
        return _fault(f"At {at} it has mode {has}, not {facts.asked.name}: {key.shortage}")
    return _ok(f"At {at}: {_and(_carrier(each) for each in key.carriers)}.")


def _carrier(carrier: CarrierReport) -> str:
    at = carrier.connection
    return f"{at.kind} {at.number} ({at.placed:,} of {at.limit:,})"


def _token(facts: Facts) -> Finding:
    account = None if facts.last is None else facts.last.account
    if facts.last is None or account is None:
        return _unknown("It concerns the account that serves it.")
    if account.token not in _DEAD_TOKENS and account.state not in _DEAD_STATES:
        return _ok(account.token_sentence or "It needs none.")
    sentence = f"{account.broker} {account.name}: {_dead_sentence(account)}"
    if any(each.connection.is_up for each in facts.last.carriers):
        return _remark(f"{sentence} What was opened with it still stands.", _log_in(account))
    return _fault(sentence, _log_in(account))


def _dead_sentence(account: AccountReport) -> str:
    return account.message if account.state in _DEAD_STATES else account.token_sentence


def _log_in(account: AccountReport) -> str:
    if FeedState.NOT_ENTITLED in (account.state, account.token):
        return ""
    return f"A token can also be entered with manage.py set_token {account.broker} {account.name}."


def _connection(facts: Facts) -> Finding:
    if facts.last is None or not facts.last.carriers:
        return _unknown("It concerns the connection that carries it.")
    down = next((each.connection for each in facts.last.carriers if not each.connection.is_up), None)
    if down is None:
        up = max((each.connection for each in facts.last.carriers), key=lambda each: each.since_ms)
        return _ok(f"It stands for {ago(facts.last.now_ms - up.since_ms)}.{_reconnects(up.reconnects)}")
    account = facts.last.account
    at = f"{account.broker} {account.name} {down.kind} {down.number}" if account is not None else down.kind
    sentence = f"{at} is down for {ago(facts.last.now_ms - down.since_ms)}: {down.message}"
    return _fault(sentence, "If it stays so, look at your network and at the broker's status page.")


def _reconnects(counts: Mapping[str, int]) -> str:
    causes = ", ".join(f"{count} × {cause}" for cause, count in sorted(counts.items()))
    return f" It had to come back: {causes}." if causes else ""


def _market(facts: Facts) -> Finding:
    key = facts.last
    if key is None or not key.market_sentence or key.market == "unknown":
        return _unknown("What its market is doing is not known.")
    if key.is_open:
        return _ok(key.market_sentence)
    if facts.flows or any(each.neighbours for each in key.carriers):
        return _remark(f"{key.market_sentence} All the same prices come.")
    return _fault(key.market_sentence, "There is nothing to do but to wait.")


def _broker(facts: Facts) -> Finding:
    key = facts.last
    if key is None or key.account is None or not key.carriers:
        return _unknown("Nothing is subscribed there.")
    broker = key.account.broker
    if not all(each.connection.is_up for each in key.carriers):
        return _unknown("It is subscribed anew when the connection stands.")
    refused = next((each.refused for each in key.carriers if each.refused), "")
    if refused:
        advice = f"Ask {broker}; a token that is out of date is renewed by manage.py sync_instruments {broker}."
        return _fault(f"{broker} refuses it: {refused}", advice)
    if facts.flows and facts.age_ms is not None:
        return _ok(f"{broker} sends it: the latest packet came {ago(facts.age_ms)} ago.")
    return _silent(facts, key, min(key.carriers, key=lambda each: _rank(key, each)), broker)


def _rank(key: KeyReport, carrier: CarrierReport) -> tuple[bool, bool, bool]:
    """Of several sockets that carry it the one where it got least far is to be named: the lowest rank."""
    return not _silence_ms(key, carrier), carrier.told is not None, carrier.unheard_s is None


def _silent(facts: Facts, key: KeyReport, carrier: CarrierReport, broker: str) -> Finding:
    """No packet of it of late: whether that is the whole connection, the instrument, or nothing to wonder at."""
    at = f"{carrier.connection.kind} {carrier.connection.number}"
    silence_ms = _silence_ms(key, carrier)
    if silence_ms:
        advice = "It is opened anew by itself if that lasts; if it comes again, look at your network."
        return _fault(f"Nothing at all has come on {broker}'s {at} for {ago(silence_ms)}.", advice)
    if carrier.told is None:
        waiting = carrier.connection.placed - carrier.connection.told
        sentence = f"{broker} is not told of it yet: {waiting:,} instruments wait for their turn."
        return _fault(sentence, "That takes seconds.")
    if carrier.unheard_s is None:
        return _quiet(facts, carrier, broker)
    since = f"since it was subscribed {ago(int(carrier.unheard_s * 1000))} ago"
    if carrier.unheard_s < SETTLE_S:
        return _fault(f"{broker} has sent nothing for it {since}.", "That was just now: ask again in a moment.")
    if not carrier.neighbours:
        advice = f"Look whether other programs get prices of {broker} now; log in again there if they do."
        return _fault(f"{broker} sends no prices at all, of this or of others, {since}.", advice)
    sentence = f"{broker} has sent nothing for it {since}, while {carrier.neighbours:,} others on {at} tick."
    advice = f"Its token may be out of date (manage.py sync_instruments {broker}), or it is suspended or never trades."
    return _fault(sentence, advice)


def _quiet(facts: Facts, carrier: CarrierReport, broker: str) -> Finding:
    """It was confirmed, and does not tick now."""
    when = f"came {ago(facts.age_ms)} ago" if facts.age_ms is not None else "was before this process knew it"
    sentence = f"{broker} confirmed it, and its latest packet {when}"
    if carrier.neighbours:
        text = f"{sentence}, while {carrier.neighbours:,} others tick."
        return _fault(text, "It seems that nobody trades it just now.")
    return _fault(f"{sentence}; nothing else ticks there either.", "The next price shows itself.")


def _silence_ms(key: KeyReport, carrier: CarrierReport) -> int:
    """How long there was no frame at all on a socket, where that is long for it; 0: it is not."""
    at = carrier.connection
    if not at.is_up or at.heard_ms is None:
        return 0
    silent_ms = key.now_ms - at.heard_ms
    return silent_ms if silent_ms > at.silence_s * 1000 * SILENT else 0


# ---------------------------------------------------------------------------------------------------- on to the clients


def _bus(facts: Facts) -> Finding:
    life = facts.clients.bridge
    if facts.last is None or not facts.flows:
        return _unknown("Nothing of it has to be relayed.")
    if life is None:
        return _unknown("What the bridge receives cannot be seen.")
    if life.heard_ms is None or life.now_ms - life.heard_ms > BUS_MS:
        sentence = "The adapters publish, and the bridge receives nothing of it."
        return _fault(sentence, "Restart the bridge: manage.py run_bridge, or stream.")
    lost = f" {life.dropped:,} were lost on the way, because it was too slow." if life.dropped else ""
    text = (
        f"The bridge has received {life.received:,} messages, the latest {ago(life.now_ms - life.heard_ms)} ago.{lost}"
    )
    return _ok(text)


def _redis(facts: Facts) -> Finding:
    clients = facts.clients
    if not clients.uses_redis:
        return _unknown("No REDIS_URL is set: the server does without, or stream has one of its own.")
    if clients.redis_problem:
        advice = "Start Redis or Valkey where REDIS_URL says (manage.py stream brings one of its own)."
        return _fault(clients.redis_problem, advice)
    if clients.lanes_problem:
        return _fault(clients.lanes_problem)
    return _ok("It answers.")


def _server(facts: Facts) -> Finding:
    clients = facts.clients
    if not clients.server_problem:
        served = f" {clients.hubs} of them hold a lease." if clients.hubs and clients.hubs > 1 else ""
        return _ok(f"A server answers where clients connect.{served}")
    if clients.hubs:
        sentence = f"{clients.server_problem} {clients.hubs} run all the same, perhaps at another address."
        return _remark(sentence, "Look at WEBSOCKET_HOST and WEBSOCKET_PORT.")
    return _fault(clients.server_problem, "Start manage.py run_server, or stream.")


def _pace(facts: Facts) -> Finding:
    rate, throttle_ms = facts.rate, facts.clients.throttle_ms
    if rate is None or not facts.flows:
        return _unknown("Nothing ticks.")
    most = 1000 / throttle_ms if throttle_ms else float("inf")
    if rate <= most:
        return _ok(f"{rate:.1f} ticks a second.")
    merged = (rate - most) / rate
    sentence = (
        f"{rate:.0f} ticks a second come; with THROTTLE_MS={throttle_ms} at most {most:.0f} go out, and about "
        f"{merged:.0%} are merged into the next one ('conflated' in each message says how many)."
    )
    return _remark(sentence, "THROTTLE_MS=0 sends every tick.")


_HOPS = {
    "Name": _name,
    "Instruments": _instruments,
    "Account": _account,
    "Adapters": _adapters,
    "Subscriber": _subscriber,
    "Bridge": _bridge,
    "Place": _place,
    "Token": _token,
    "Connection": _connection,
    "Market": _market,
    "Broker": _broker,
    "Bus": _bus,
    "Redis": _redis,
    "Server": _server,
    "Pace": _pace,
}
"""In the order a tick is asked for and goes."""


# -------------------------------------------------------------------------------------------------------------- wording


def ago(ms: int) -> str:
    """
    A length of time for people.

    >>> ago(340), ago(12_000), ago(250_000), ago(7_260_000)
    ('0.3 s', '12 s', '4 min', '2 h 1 min')
    """
    seconds = ms / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _and(words: Iterable[str]) -> str:
    return _joined(list(words), "and")


def _or(words: Iterable[str]) -> str:
    return _joined(list(words), "or")


def _joined(words: list[str], last: str) -> str:
    """
    >>> _joined(["a"], "and"), _joined(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    return " ".join(filter(None, (", ".join(words[:-1]), last if words[1:] else "", *words[-1:])))
