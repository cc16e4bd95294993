"""
What every client protocol has in common: the commands a client may give and the answers it gets. Pure.

A dialect only translates. What a command does is the same for all of them and stands in `hub` and `consumers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import msgspec

from marketdata.errors import ClientError
from marketdata.ticks import AccountStatus, Key, KeyStatus, Mode
from marketdata.wire import Delivery

RequestId = object
"""Whatever JSON value a client sends as its request's id; it comes back unchanged. `msgspec.UNSET`: none was sent."""


class Item(NamedTuple):
    """One instrument of a request, in canonical spelling; `mode` None is "every mode" (unsubscribe only)."""

    symbol: str
    exchange: str
    mode: Mode | None


class Rejected(NamedTuple):
    """An item that is refused, with the reason; symbol and exchange as the client spelled them."""

    symbol: str
    exchange: str
    error: ClientError


class Authenticate(NamedTuple):
    """`batch`: the ticks of a pass as one array; `status`: news of the feed, too."""

    api_key: str
    batch: bool = False
    status: bool = False
    request_id: RequestId = msgspec.UNSET


class Subscribe(NamedTuple):
    """`replace`: these items become the whole list. `throttle_ms` None: as the gateway publishes, not asked for."""

    items: tuple[Item, ...]
    rejected: tuple[Rejected, ...] = ()
    throttle_ms: int | None = None
    depth_asked: bool = False
    replace: bool = False
    request_id: RequestId = msgspec.UNSET


class Unsubscribe(NamedTuple):
    """`items` None: everything this connection holds."""

    items: tuple[Item, ...] | None
    request_id: RequestId = msgspec.UNSET


class GetSubscriptions(NamedTuple):
    """What does this connection hold?"""

    request_id: RequestId = msgspec.UNSET


class Ping(NamedTuple):
    """Is the server there? Needs no key."""

    request_id: RequestId = msgspec.UNSET


Command = Authenticate | Subscribe | Unsubscribe | GetSubscriptions | Ping


class Held(NamedTuple):
    """One subscription of a connection; `throttle_ms` 0 is "as the gateway publishes"."""

    key: Key
    throttle_ms: int


class Subscribed(NamedTuple):
    """The outcome of a Subscribe: what got in (in the mode that was granted) and what did not."""

    command: Subscribe
    granted: tuple[Key, ...]
    rejected: tuple[Rejected, ...]
    throttle_ms: int
    simulated: bool


class BadCommandError(Exception):
    """A message that is no command; `error` is what the client is told."""

    def __init__(self, error: ClientError, request_id: RequestId = msgspec.UNSET) -> None:
        super().__init__(error.message)
        self.error = error
        self.request_id = request_id


class Dialect(ABC):
    """A client protocol. Every method is pure and returns the JSON text, as bytes, of one message."""

    name: ClassVar[str]
    closes_for_restart: ClassVar[bool] = True
    """Whether a temporary end is a proper close frame; where not, TCP is dropped so that clients come back."""

    @abstractmethod
    def parse(self, text: str) -> Command:
        """
        The command in a message.

        Raises BadCommandError, whatever the text.
        """

    @abstractmethod
    def tick(self, delivery: Delivery) -> bytes:
        """One tick."""

    @abstractmethod
    def authenticated(self, command: Authenticate, *, simulated: bool) -> bytes:
        """The key is good."""

    @abstractmethod
    def subscribed(self, outcome: Subscribed) -> bytes:
        """What a Subscribe led to."""

    @abstractmethod
    def unsubscribed(self, command: Unsubscribe, count: int) -> bytes:
        """How many subscriptions ended."""

    @abstractmethod
    def subscriptions(self, command: GetSubscriptions, held: Sequence[Held]) -> bytes:
        """What the connection holds."""

    @abstractmethod
    def pong(self, command: Ping, now_ms: int) -> bytes:
        """The server is there."""

    @abstractmethod
    def error(self, error: ClientError, request_id: RequestId) -> bytes:
        """A request failed."""

    @abstractmethod
    def lagging(self, merged: int, pauses: int) -> bytes | None:
        """
        This connection read too slowly: so many ticks were replaced by newer ones since it was last told.

        `pauses` counts how often the connection stopped taking data so far. None: not told here.
        """

    @abstractmethod
    def account_status(self, status: AccountStatus) -> bytes | None:
        """News of a broker account. None: not told here."""

    @abstractmethod
    def key_status(self, status: KeyStatus) -> bytes | None:
        """News of an instrument the connection holds. None: not told here."""

    @abstractmethod
    def interrupted(self, keys: int, message: str, now_ms: int) -> bytes | None:
        """Ticks were lost on the way for so many instruments; sequences jump here. None: not told here."""
