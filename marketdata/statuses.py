"""
The feed's health: an image of all accounts, of instruments that are not well, and of our own hops. Pure.

Each publication carries the whole image, so whoever missed one is right again with the next; what clients get are the
differences.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from marketdata.ticks import AccountStatus, FeedState, FeedStatus, KeyStatus

GATEWAY = "gateway"
"""The "broker" under which our own hops report: redis, bridge, adapters."""

Change = AccountStatus | KeyStatus

_AccountId = tuple[str, str, str]
_KeyId = tuple[str, str, str]


class StatusBoard:
    """The latest image, and what changed when a newer one came."""

    def __init__(self) -> None:
        self._accounts: dict[_AccountId, AccountStatus] = {}
        self._keys: dict[_KeyId, KeyStatus] = {}

    def apply(self, feed: str, status: FeedStatus) -> list[Change]:
        """
        Takes a feed's image over; returns what is new in it, and what is well again.

        Our own hops that this image does not speak of are left as they are.
        """
        accounts = {(feed, account.broker, account.account): account for account in status.accounts}
        keys = {(feed, key.symbol, key.exchange): key for key in status.keys}
        changes: list[Change] = [
            account for id_, account in accounts.items() if _differs(self._accounts.get(id_), account)
        ]
        changes.extend(key for id_, key in keys.items() if _differs(self._keys.get(id_), key))
        changes.extend(self._recovered(feed, keys.keys(), status.received_ms))
        gone = [id_ for id_ in self._accounts if id_[0] == feed and id_ not in accounts and id_[1] != GATEWAY]
        for id_ in gone:
            del self._accounts[id_]
        self._accounts.update(accounts)
        self._keys = {id_: key for id_, key in self._keys.items() if id_[0] != feed} | keys
        return changes

    def hop(self, name: str, state: FeedState, message: str, now_ms: int) -> AccountStatus | None:
        """One of our own hops is in this state; the news to tell, or None where nothing changed."""
        status = AccountStatus(broker=GATEWAY, account=name, state=state, message=message, since_ms=now_ms)
        if not _differs(self._accounts.get(("", GATEWAY, name)), status):
            return None
        self._accounts["", GATEWAY, name] = status
        return status

    def accounts(self, feed: str) -> list[AccountStatus]:
        """Everything that concerns a client of this feed: its accounts, and our own hops."""
        return [status for id_, status in self._accounts.items() if id_[0] == feed or id_[1] == GATEWAY]

    def keys(self, feed: str) -> list[KeyStatus]:
        """The instruments of this feed that are not well."""
        return [status for id_, status in self._keys.items() if id_[0] == feed]

    def is_up(self, feed: str, broker: str) -> bool:
        """Whether ticks of this broker can flow now; an unknown broker counts as up."""
        for (_, name, _), status in self._accounts.items():
            if name == GATEWAY and not status.state.is_up:
                return False
        states = [status.state for (of, name, _), status in self._accounts.items() if of == feed and name == broker]
        return not states or any(state.is_up for state in states)

    def unready(self) -> list[str]:
        """
        What keeps prices from flowing, a sentence each; none at night, when nothing is due.

        An account that is switched off is nobody's trouble; one of which a login is awaited is.
        """
        hops = [status for id_, status in self._accounts.items() if id_[1] == GATEWAY and not status.state.is_up]
        if hops:
            return [status.message for status in hops]
        accounts = [status for id_, status in self._accounts.items() if id_[1] != GATEWAY]
        if not any(status.state is not FeedState.DISABLED for status in accounts):
            return ["No account is switched on; add one in the admin."]
        return [
            f"{status.broker} is {status.state}: {status.message}"
            for status in accounts
            if not status.state.is_up and status.state is not FeedState.DISABLED
        ]

    def _recovered(self, feed: str, unwell: Collection[_KeyId], now_ms: int) -> Iterator[KeyStatus]:
        for id_, key in self._keys.items():
            if id_[0] == feed and id_ not in unwell:
                yield KeyStatus(
                    symbol=key.symbol,
                    exchange=key.exchange,
                    feed=feed,
                    state=FeedState.CONNECTED,
                    message="The instrument is served again.",
                    since_ms=now_ms,
                )


def _differs(old: Change | None, new: Change) -> bool:
    return old is None or _news(old) != _news(new)


def _news(change: Change) -> tuple[object, ...]:
    """What clients are told of when it changes."""
    token = (change.token, change.token_ends_ms) if isinstance(change, AccountStatus) else ()
    return change.state, change.message, token
