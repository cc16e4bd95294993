"""Each verdict from facts alone: what is named, in which order, and what to do about it."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import msgspec
import pytest

from marketdata.report import (
    AccountReport,
    BridgeReport,
    CarrierReport,
    ClientsReport,
    ConnectionReport,
    KeyReport,
    SeatReport,
    StreamReport,
)
from marketdata.ticks import FeedState, Mode, TokenState
from streamproject.diagnosis import AccountFact, Facts, Finding, Mark, diagnose, fault_in, verdict

NOW_MS = 1_795_600_000_000
replace = msgspec.structs.replace

CONNECTION = ConnectionReport(
    kind="market", number=0, state=FeedState.CONNECTED, message="Connected.", is_up=True, since_ms=NOW_MS - 60_000,
    placed=120, limit=3000, told=120, heard_ms=NOW_MS - 100, silence_s=15.0,
)  # fmt: skip
CARRIER = CarrierReport(
    connection=CONNECTION, wanted=Mode.QUOTE, told=Mode.QUOTE, neighbour_ms=NOW_MS - 200, neighbours=119
)
ACCOUNT = AccountReport(
    id=1, broker="zerodha", name="main", feed="", simulated=False, state=FeedState.CONNECTED, message="Connected.",
    since_ms=NOW_MS - 60_000, token=TokenState.VALID, token_sentence="The token ends on 26 Nov at 06:00.",
    connections=(CONNECTION,),
)  # fmt: skip
KEY = KeyReport(
    symbol="SBIN", exchange="NSE", feed="", now_ms=NOW_MS, started_ms=NOW_MS - 3_600_000, published=100,
    streams=(StreamReport(mode=Mode.QUOTE, demanded=True, since_ms=NOW_MS - 60_000, seq=1_010),),
    tokens={"zerodha": "NSE:779521"}, is_looked_up=True, is_bridged=True,
    seat=SeatReport(account=1, kind="market", number=0, segment="NSE", token="779521", mode=Mode.QUOTE),
    account=ACCOUNT, carriers=(CARRIER,), updated_ms=NOW_MS - 300,
    market="continuous", is_open=True, market_sentence="NSE is open until 15:30.",
)  # fmt: skip
EARLIER = replace(
    KEY, now_ms=NOW_MS - 1000, streams=(StreamReport(mode=Mode.QUOTE, demanded=True, since_ms=0, seq=1_000),)
)
CLIENTS = ClientsReport(
    uses_redis=True, hubs=1, wanted={Mode.QUOTE: 1}, throttle_ms=50,
    bridge=BridgeReport(pid=7, now_ms=NOW_MS, received=500, heard_ms=NOW_MS - 100, adapters_up=True, topics=121),
)  # fmt: skip
MODES = frozenset({Mode.LTP, Mode.QUOTE, Mode.DEPTH})
WELL = Facts(
    symbol="SBIN", exchange="NSE", today=dt.date(2026, 11, 25), listed_by={"zerodha": dt.date(2026, 11, 25)},
    accounts=(AccountFact(broker="zerodha", name="main", feed="", simulated=False, is_on=True, modes=MODES),),
    first=EARLIER, last=KEY, clients=CLIENTS,
)  # fmt: skip


def with_key(facts: Facts = WELL, **fields: Any) -> Facts:
    assert facts.last is not None
    return replace(facts, last=replace(facts.last, **fields))


def with_clients(facts: Facts = WELL, **fields: Any) -> Facts:
    return replace(facts, clients=replace(facts.clients, **fields))


def with_account(**fields: Any) -> Facts:
    return with_key(account=replace(ACCOUNT, **fields))


def locked_out(state: FeedState, message: str) -> Facts:
    """The account has no good token, and no socket."""
    facts = with_carrier(is_up=False, state=state, message=message)
    return with_key(facts, account=replace(ACCOUNT, state=state, message=message))


def with_carrier(facts: Facts = WELL, **fields: Any) -> Facts:
    """Of its connection where the field is none of the carrier's own."""
    own = {name: value for name, value in fields.items() if name in CarrierReport.__struct_fields__}
    connection = {name: value for name, value in fields.items() if name not in own}
    carrier = replace(CARRIER, connection=replace(CONNECTION, **connection), **own)
    return with_key(facts, carriers=(carrier,))


def unseated(reason: str, shortage: str) -> Facts:
    return with_key(seat=None, account=None, carriers=(), updated_ms=None, reason=reason, shortage=shortage)


def not_asked(facts: Facts = WELL) -> Facts:
    return with_key(facts, streams=(), seat=None, account=None, carriers=(), updated_ms=None)


def account_fact(**fields: Any) -> Facts:
    return replace(WELL, accounts=(replace(WELL.accounts[0], **fields),))


NO_ADAPTERS = replace(WELL, first=None, last=None, adapters_problem="The adapters' process is not running.")
NO_REDIS = with_clients(redis_problem="Redis does not answer: Connection refused.", hubs=None, wanted=None, bridge=None)
IN_PROCESS = with_clients(uses_redis=False, hubs=None, wanted=None, bridge=None)
NO_SERVER = with_clients(
    not_asked(), server_problem="Nothing listens on 127.0.0.1 port 8765, where clients connect.", hubs=0, wanted={}
)
QUIET = {"updated_ms": NOW_MS - 40_000}
UNHEARD = with_key(updated_ms=None)
UNNAMED = replace(WELL, listed_by={}, accounts=())
CLOSED = {"market": "closed", "is_open": False, "market_sentence": "NSE is closed; it opens on 26 Nov at 09:15."}
DEAD = {"is_up": False, "state": FeedState.RECONNECTING}

FAULTS: dict[str, tuple[Facts, str, str]] = {
    "an unknown exchange": (replace(WELL, exchange="NSEX"), "Name", "There is no exchange 'NSEX'. Use one of BCD, BFO"),
    "an unknown symbol": (
        replace(UNNAMED, suggestions=["SBIN", "SBICARD"]),
        "Name",
        "No broker lists SBIN on NSE. Did you mean SBIN or SBICARD?",
    ),
    "a misspelt contract": (replace(UNNAMED, flaw="31FEB26 is no day."), "Name", "31FEB26 is no day. Look with manage"),
    "an expired contract": (replace(UNNAMED, gone="It expired on 28 Mar 2024."), "Name", "It expired on 28 Mar 2024."),
    "no instruments at all": (
        replace(UNNAMED, has_instruments=False),
        "Instruments",
        "There are no instruments yet. Load a broker's, for example with manage.py sync_instruments zerodha.",
    ),
    "no account at a broker that lists it": (
        replace(WELL, accounts=()),
        "Account",
        "No account at zerodha is configured, and these list it. Add one in the admin.",
    ),
    "an account of another feed only": (
        account_fact(feed="desk"),
        "Account",
        "There is zerodha main for another feed: name that with --feed.",
    ),
    "an account that is switched off": (
        account_fact(is_on=False, trouble="The account is switched off in the admin."),
        "Account",
        "zerodha main: The account is switched off in the admin. Switch on, in the admin, one that shall serve it.",
    ),
    "a simulated account beside a real one": (
        account_fact(is_on=False, simulated=True, trouble="Simulated accounts do not run beside real ones."),
        "Account",
        "Simulated accounts do not run beside real ones.",
    ),
    "a book that is not so deep": (
        replace(WELL, mode=Mode.DEPTH20),
        "Account",
        "It is not streamed in mode DEPTH20 by zerodha. Subscribe DEPTH, the deepest there is",
    ),
    "a broker that streams nothing of it": (
        account_fact(modes=frozenset()),
        "Account",
        "It is not streamed in mode QUOTE by zerodha. Add an account of another broker.",
    ),
    "adapters that are away": (NO_ADAPTERS, "Adapters", "The adapters' process is not running."),
    "no server": (NO_SERVER, "Subscriber", "Nothing listens on 127.0.0.1 port 8765, where clients connect. Start"),
    "no subscriber": (
        with_clients(not_asked(), wanted={}),
        "Subscriber",
        "No client is subscribed to it in mode QUOTE. Subscribe it in your client, or try manage.py watch NSE:SBIN "
        "--mode quote.",
    ),
    "a subscriber of another mode": (
        replace(WELL, mode=Mode.DEPTH),
        "Subscriber",
        "in mode DEPTH. It is wanted in mode QUOTE.",
    ),
    "no subscriber in one process": (not_asked(IN_PROCESS), "Subscriber", "No client is subscribed to it"),
    "no bridge": (with_clients(bridge=None), "Bridge", "The bridge is not running, or stands still. Start"),
    "no bridge where Redis is not known": (
        with_key(not_asked(IN_PROCESS), is_bridged=False),
        "Bridge",
        "No bridge is connected to the adapters.",
    ),
    "a bridge that looks elsewhere": (
        with_clients(bridge=replace(CLIENTS.bridge, adapters_up=False)),
        "Bridge",
        "does not find the adapters' process. Give both the same ZMQ_HOST and ZMQ_PORT",
    ),
    "a bridge that does not pass the demand on": (not_asked(), "Bridge", "has not told the adapters"),
    "no look-up": (with_key(is_looked_up=False, seat=None), "Place", "could not look it up in the database."),
    "no room": (
        unseated("no_capacity", "All connections are full; drop some instruments."),
        "Place",
        "All connections are full; drop some instruments. manage.py feed_status shows how full they are.",
    ),
    "room for less than is wanted": (
        with_key(reason="no_capacity", shortage="All connections are full.", seat=replace(KEY.seat, mode=Mode.LTP)),
        "Place",
        "At zerodha main it has mode LTP, not QUOTE: All connections are full.",
    ),
    "a token that ended": (
        locked_out(FeedState.TOKEN_EXPIRED, "The token ended on 25 Nov at 06:00; log in."),
        "Token",
        "zerodha main: The token ended on 25 Nov at 06:00; log in. A token can also be entered with manage.py "
        "set_token zerodha main.",
    ),
    "a login that is missing": (
        locked_out(FeedState.WAITING_FOR_LOGIN, "It has no token yet; log in."),
        "Token",
        "zerodha main: It has no token yet; log in.",
    ),
    "no right to the feed": (
        locked_out(FeedState.NOT_ENTITLED, "The account has no right to this feed; order it."),
        "Token",
        "zerodha main: The account has no right to this feed; order it.",
    ),
    "a connection that is down": (
        with_carrier(**DEAD, since_ms=NOW_MS - 4_000, message="No connection: refused. Trying again in 2.0 s."),
        "Connection",
        "zerodha main market 0 is down for 4.0 s: No connection: refused. Trying again in 2.0 s. If it stays so, look",
    ),
    "a closed market": (
        with_carrier(with_key(**CLOSED, **QUIET), neighbours=0),
        "Market",
        "NSE is closed; it opens on 26 Nov at 09:15. There is nothing to do but to wait.",
    ),
    "a pre-open session": (
        with_carrier(with_key(UNHEARD, market="pre_open", is_open=False, market_sentence="NSE is in its pre-open "
                              "session until 09:15."), neighbours=0, unheard_s=20.0),
        "Market",
        "NSE is in its pre-open session until 09:15.",
    ),
    "a refusal of the symbol": (
        with_carrier(refused="unknown instrument 779521"),
        "Broker",
        "zerodha refuses it: unknown instrument 779521 Ask zerodha; a token that is out of date is renewed by",
    ),
    "a silent connection": (
        with_carrier(with_key(updated_ms=NOW_MS - 7_000), heard_ms=NOW_MS - 7_000, neighbours=50),
        "Broker",
        "Nothing at all has come on zerodha's market 0 for 7.0 s. It is opened anew by itself",
    ),
    "a queue of subscriptions": (
        with_carrier(UNHEARD, told=None, placed=3000),
        "Broker",
        "zerodha is not told of it yet: 2,880 instruments wait for their turn.",
    ),
    "a fresh subscription": (with_carrier(UNHEARD, unheard_s=1.0), "Broker", "1.0 s ago. That was just now: ask again"),
    "a broker without any price": (
        with_carrier(UNHEARD, unheard_s=30.0, neighbours=0),
        "Broker",
        "zerodha sends no prices at all, of this or of others, since it was subscribed 30 s ago.",
    ),
    "a broker that is silent for the symbol": (
        with_carrier(UNHEARD, unheard_s=30.0),
        "Broker",
        "zerodha has sent nothing for it since it was subscribed 30 s ago, while 119 others on market 0 tick.",
    ),
    "a symbol that nobody trades": (
        with_key(**QUIET),
        "Broker",
        "its latest packet came 40 s ago, while 119 others tick. It seems that nobody trades it just now.",
    ),
    "nothing that trades": (
        with_carrier(with_key(**QUIET), neighbours=0),
        "Broker",
        "came 40 s ago; nothing else ticks there either.",
    ),
    "a bridge that receives nothing": (
        with_clients(bridge=replace(CLIENTS.bridge, heard_ms=NOW_MS - 9_000)),
        "Bus",
        "The adapters publish, and the bridge receives nothing of it. Restart the bridge",
    ),
    "no Redis": (NO_REDIS, "Redis", "Redis does not answer: Connection refused. Start Redis or Valkey where REDIS_URL"),
    "no Redis, and nobody asks": (not_asked(NO_REDIS), "Redis", "Redis does not answer"),
    "another number of lanes": (with_clients(lanes_problem="They have TICK_LANES=8."), "Redis", "TICK_LANES=8"),
    "no server that answers": (
        with_clients(hubs=0, server_problem="Nothing listens on 127.0.0.1 port 8765, where clients connect."),
        "Server",
        "Nothing listens on 127.0.0.1 port 8765, where clients connect. Start manage.py run_server, or stream.",
    ),
}  # fmt: skip


def fault(facts: Facts) -> tuple[str, str]:
    """The hop that is named, and the sentence."""
    findings = diagnose(facts)
    found = fault_in(findings)
    return found.hop if found is not None else "", verdict(facts, findings)


@pytest.mark.parametrize("name", FAULTS)
def test_what_keeps_an_instrument_silent_is_named(name: str) -> None:
    facts, hop, sentence = FAULTS[name]
    named, said = fault(facts)
    assert (named, sentence in said) == (hop, True), said


def finding(facts: Facts, hop: str) -> Finding:
    return next(each for each in diagnose(facts) if each.hop == hop)


def test_ticks_that_flow_are_said_with_the_age_of_the_last() -> None:
    assert fault(WELL) == ("", "Ticks flow in mode QUOTE: the last 0.3 s ago.")
    assert {each.mark for each in diagnose(WELL)} == {Mark.OK}
    assert finding(WELL, "Pace").sentence == "10.0 ticks a second."


def test_simulated_ticks_are_called_so() -> None:
    assert fault(with_account(simulated=True))[1].startswith("SIMULATED ticks flow")


def test_merged_ticks_are_a_remark_and_no_fault() -> None:
    first = replace(EARLIER, streams=(replace(EARLIER.streams[0], seq=1_010 - 200),))
    named, said = fault(replace(WELL, first=first))
    assert named == ""
    assert "200 ticks a second come; with THROTTLE_MS=50 at most 20 go out, and about 90% are merged" in said


def test_without_throttling_nothing_is_merged() -> None:
    first = replace(EARLIER, streams=(replace(EARLIER.streams[0], seq=0),))
    assert finding(with_clients(replace(WELL, first=first), throttle_ms=0), "Pace").mark is Mark.OK


def test_prices_in_a_closed_market_are_a_remark() -> None:
    named, said = fault(with_key(**CLOSED))
    assert (named, "All the same prices come." in said) == ("", True)


def test_a_silent_symbol_in_a_closed_market_whose_neighbours_tick_is_the_brokers() -> None:
    assert fault(with_carrier(with_key(UNHEARD, **CLOSED), unheard_s=30.0))[0] == "Broker"


def test_sockets_that_outlive_their_token_are_a_remark() -> None:
    facts = with_account(token=TokenState.TOKEN_EXPIRED, token_sentence="The token ended on 25 Nov at 06:00.")
    assert fault(facts)[0] == ""
    assert finding(facts, "Token").mark is Mark.REMARK


def test_old_instruments_are_a_remark() -> None:
    facts = replace(WELL, listed_by={"zerodha": dt.date(2026, 11, 18)})
    advice = "Sync them: manage.py sync_instruments zerodha."
    assert finding(facts, "Instruments") == Finding(
        "Instruments", Mark.REMARK, "zerodha's are of 18 Nov: that is old.", advice
    )


def test_a_database_that_is_away_keeps_nothing_silent() -> None:
    facts = replace(UNNAMED, database_problem="The database does not answer (no such table).", has_instruments=False)
    assert fault(facts)[0] == ""
    assert finding(facts, "Name") == Finding("Name", Mark.UNKNOWN, "The database does not answer (no such table).")


def test_what_stands_behind_a_second_socket_is_seen_too() -> None:
    """A book without prices is of no use: the socket with the prices is looked at as well."""
    prices = replace(CARRIER, connection=replace(CONNECTION, number=1, **DEAD, message="No connection: refused."))
    assert fault(with_key(carriers=(CARRIER, prices)))[0] == "Connection"


def test_a_book_that_never_came_is_named_though_prices_tick() -> None:
    book = replace(CARRIER, connection=replace(CONNECTION, kind="depth20"), unheard_s=30.0)
    assert fault(with_key(carriers=(book, CARRIER)))[0] == "Broker"


def test_a_silent_second_socket_is_named_though_the_first_is_well() -> None:
    prices = replace(CARRIER, connection=replace(CONNECTION, number=1, heard_ms=NOW_MS - 8_000))
    assert "market 1 for 8.0 s" in fault(with_key(carriers=(CARRIER, prices)))[1]


def test_the_deepest_wanted_mode_is_asked_about() -> None:
    assert WELL.asked is Mode.QUOTE
    assert with_clients(wanted={Mode.QUOTE: 1, Mode.DEPTH: 2}).asked is Mode.DEPTH
    assert with_clients(not_asked(), wanted={}).asked is Mode.QUOTE
    assert replace(WELL, mode=Mode.LTP).asked is Mode.LTP


def test_advice_is_given_for_the_first_fault_only() -> None:
    facts = with_clients(NO_ADAPTERS, bridge=None)
    assert finding(facts, "Bridge").mark is Mark.FAULT
    assert finding(facts, "Bridge").advice == ""


def test_hops_are_judged_whatever_else_is_missing() -> None:
    """The facts of every two faults mixed: each hop has its finding, in order, and there is a verdict."""
    order = [each.hop for each in diagnose(WELL)]
    keyed = {name: facts for name, (facts, _, _) in FAULTS.items()}
    for (one, mine), (other, theirs) in itertools.combinations(keyed.items(), 2):
        both = replace(theirs, clients=mine.clients, accounts=mine.accounts, listed_by=mine.listed_by)
        findings = diagnose(both)
        assert [each.hop for each in findings] == order, (one, other)
        assert all(each.sentence for each in findings), (one, other)
        assert verdict(both, findings), (one, other)
