"""
What every client protocol has in common: the commands a client may give and the answers it gets. Pure.

A dialect only translates. What a command does is the same for all of them and stands in `hub` and `consumers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import msgspec

from marketdata.errors import ClientError
from marketdata.ticks import AccountStatus, FeedState, Key, KeyStatus, Mode
from marketdata.wire import Delivery

RequestId = object
"""Whatever JSON value a client sends as its request's id; it comes back unchanged. `msgspec.UNSET`: none was sent."""

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Item(NamedTuple):
    """
    One instrument of a request, in canonical spelling; `mode` None is "every mode" (unsubscribe only).

    `spelling`, where it is not empty, is the client's own name of the symbol, under which its ticks come back. An
    Unsubscribe names what is held as the client does.
    """

    symbol: str
    exchange: str
    mode: Mode | None
    spelling: str = ""


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
    rejected: tuple[Rejected, ...] = ()


class GetSubscriptions(NamedTuple):
    """What does this connection hold?"""

    request_id: RequestId = msgspec.UNSET


class Ping(NamedTuple):
    """Is the server there? Needs no key. `echo`: what a dialect gives back with the answer."""

    request_id: RequestId = msgspec.UNSET
    echo: Mapping[str, object] = _NOTHING


class About(NamedTuple):
    """
    What a connection is connected to.

    `user` is its API key's name, empty before it has shown one; `brokers` are the slugs of its feed's accounts as far
    as they have reported, `state` how the best of them is doing (None: none has reported).
    """

    user: str = ""
    brokers: tuple[str, ...] = ()
    state: FeedState | None = None


NOBODY = About()


class Question(NamedTuple):
    """
    A question that its dialect answers by itself, from what the connection is connected to.

    `answer` returns None where nothing is to be said. `is_open`: needs no key.
    """

    answer: Callable[[About], bytes | None]
    is_open: bool = False
    request_id: RequestId = msgspec.UNSET


Command = Authenticate | Subscribe | Unsubscribe | GetSubscriptions | Ping | Question


class Held(NamedTuple):
    """One subscription of a connection; `throttle_ms` 0 is "as the gateway publishes"."""

    key: Key
    throttle_ms: int


class Subscribed(NamedTuple):
    """
    The outcome of a Subscribe: what got in (in the mode that was granted) and what did not.

    `brokers` has the broker of those whose ticks come already.
    """

    command: Subscribe
    granted: tuple[Key, ...]
    rejected: tuple[Rejected, ...]
    throttle_ms: int
    simulated: bool
    about: About = NOBODY
    brokers: Mapping[Key, str] = MappingProxyType({})


def flags(**told: bool) -> dict[str, bool]:
    """
    Those that are true, as fields of a message: what is false is left out.

    >>> flags(simulated=True, retry=False)
    {'simulated': True}
    """
    return {name: True for name, value in told.items() if value}


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
    shows_stale: ClassVar[bool] = True
    """Whether a last value of an earlier day, or of a feed that is down, is sent, marked; where not, only live ones."""
    one_book: ClassVar[bool] = False
    """Whether ticks do not tell books of different depth apart, so that a symbol is held in one of them at a time."""
    names_brokers: ClassVar[bool] = False
    """Whether the answer to Authenticate names the feed's brokers, so that it is worth a moment to hear of them."""

    def served(self, key: Key) -> Key:
        """The stream behind a key that a client holds: the same, but for a client's own spelling of the symbol."""
        return key

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
    def authenticated(self, command: Authenticate, *, simulated: bool, about: About = NOBODY) -> bytes:
        """The key is good."""

    @abstractmethod
    def subscribed(self, outcome: Subscribed) -> bytes:
        """What a Subscribe led to."""

    @abstractmethod
    def unsubscribed(
        self, command: Unsubscribe, count: int, *, ended: Sequence[Key] = (), about: About = NOBODY
    ) -> bytes:
        """How many subscriptions ended, and which."""

    @abstractmethod
    def subscriptions(self, command: GetSubscriptions, held: Sequence[Held]) -> bytes | None:
        """What the connection holds. None: not asked here."""

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
