"""The board tells what changed, and whether prices can flow."""

from __future__ import annotations

import msgspec

from marketdata.statuses import GATEWAY, StatusBoard
from marketdata.ticks import AccountStatus, FeedState, FeedStatus, KeyStatus, TokenState


def account(state: FeedState, broker: str = "zerodha", message: str = "") -> AccountStatus:
    """An account in this state."""
    return AccountStatus(broker=broker, account="main", state=state, message=message, since_ms=1)


def image(*accounts: AccountStatus, keys: tuple[KeyStatus, ...] = ()) -> FeedStatus:
    """A feed's whole state."""
    return FeedStatus(accounts=accounts, keys=keys, received_ms=2)


def test_only_what_changed_is_told() -> None:
    board = StatusBoard()
    up = account(FeedState.CONNECTED)
    assert board.apply("", image(up)) == [up]
    assert board.apply("", image(up)) == []
    down = account(FeedState.RECONNECTING)
    assert board.apply("", image(down)) == [down]


def test_an_account_that_vanished_is_forgotten() -> None:
    board = StatusBoard()
    board.apply("", image(account(FeedState.RECONNECTING)))
    board.apply("", image())
    assert board.accounts("") == []
    assert board.is_up("", "zerodha")


def test_one_account_of_a_broker_that_is_up_is_enough() -> None:
    board = StatusBoard()
    second = AccountStatus(broker="zerodha", account="second", state=FeedState.CONNECTED, message="", since_ms=1)
    board.apply("", image(account(FeedState.TOKEN_EXPIRED), second))
    assert board.is_up("", "zerodha")


def test_a_feed_is_down_while_one_of_our_own_hops_is() -> None:
    board = StatusBoard()
    board.apply("", image(account(FeedState.CONNECTED)))
    assert board.hop("redis", FeedState.RECONNECTING, "away", 3)
    assert board.hop("redis", FeedState.RECONNECTING, "away", 4) is None
    assert not board.is_up("", "zerodha")
    assert board.hop("redis", FeedState.CONNECTED, "back", 5)
    assert board.is_up("", "zerodha")
    assert {status.broker for status in board.accounts("desk")} == {GATEWAY}


def test_an_instrument_that_is_well_again_is_told_once() -> None:
    board = StatusBoard()
    gone = KeyStatus(symbol="SBIN", exchange="NSE", state=FeedState.NO_CAPACITY, message="full", since_ms=1)
    assert board.apply("", image(keys=(gone,))) == [gone]
    [well] = board.apply("", image())
    assert isinstance(well, KeyStatus)
    assert (well.symbol, well.state) == ("SBIN", FeedState.CONNECTED)
    assert board.apply("", image()) == []


def test_another_state_of_the_token_is_news() -> None:
    board = StatusBoard()
    board.apply("", image(account(FeedState.CONNECTED)))
    expiring = msgspec.structs.replace(account(FeedState.CONNECTED), token=TokenState.EXPIRING)
    assert board.apply("", image(expiring)) == [expiring]
    assert board.apply("", image(expiring)) == []


def test_a_closed_market_is_ready_and_a_missing_login_is_not() -> None:
    board = StatusBoard()
    assert board.unready() == ["No account is switched on; add one in the admin."]
    off = AccountStatus(broker="dhan", account="old", state=FeedState.DISABLED, message="", since_ms=1)
    board.apply("", image(off))
    assert board.unready() == ["No account is switched on; add one in the admin."]
    board.apply("", image(account(FeedState.MARKET_CLOSED), off))
    assert board.unready() == []
    board.apply("", image(account(FeedState.WAITING_FOR_LOGIN, message="Log in."), off))
    assert board.unready() == ["zerodha is waiting_for_login: Log in."]
    board.hop("redis", FeedState.RECONNECTING, "Redis is away.", 3)
    assert board.unready() == ["Redis is away."], "what is behind it is not known then"
