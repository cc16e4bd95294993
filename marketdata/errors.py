"""
The numbered errors and close codes of the native client protocol: one table, also its documentation. Pure.

A code's range says what to do: 40xx the request is wrong, mend it; 42xx a limit, ask for less or wait; 50xx our side,
try again. Close codes are the WebSocket ones: 4400 to 4499 do not reconnect before something was changed, 1012 does
reconnect.
"""

from __future__ import annotations

from typing import NamedTuple


class ClientError(NamedTuple):
    """An error as clients see it; `name` is its stable word, `retry` whether the same request may work later."""

    code: int
    name: str
    message: str
    retry: bool = False


class CloseCode(NamedTuple):
    """Why we close a socket; `reconnect` tells a client whether to come back by itself."""

    code: int
    reason: str
    reconnect: bool


BAD_JSON = ClientError(4001, "bad_json", "The message is not valid JSON; send one JSON object as a text frame.")
BAD_MESSAGE = ClientError(4002, "bad_message", "The message does not have the documented shape.")
UNKNOWN_ACTION = ClientError(4003, "unknown_action", "There is no such action.")
BINARY_FRAME = ClientError(4004, "binary_frame", "Binary frames are not part of this protocol; send JSON as text.")
BAD_MODE = ClientError(
    4005, "bad_mode", "There is no such mode; use LTP, QUOTE, DEPTH, DEPTH20, DEPTH30, DEPTH50 or DEPTH200."
)
BAD_QUERY = ClientError(4006, "bad_query", "The query cannot be answered as it is put.")
BAD_METHOD = ClientError(4007, "bad_method", "This address answers GET only.")
NOT_AUTHENTICATED = ClientError(
    4010, "not_authenticated", 'Authenticate first: {"action": "authenticate", "api_key": …}.'
)
WRONG_KEY = ClientError(
    4011,
    "wrong_key",
    "The API key is unknown, expired or revoked; make one in the admin or with manage.py create_api_key.",
)
ALREADY_AUTHENTICATED = ClientError(
    4012, "already_authenticated", "This connection is authenticated with another key; open a second one."
)
NO_KEY = ClientError(
    4013, "no_key", "Send an API key with the request, as Authorization: Bearer KEY or as X-API-Key: KEY."
)
NOT_STAFF = ClientError(4014, "not_staff", "Only staff may ask without an API key; send a key.")
# The next four, and 4045, are raised by the brokers' side, which knows them by their numbers (`brokers.views.tokens`).
WRONG_PASSWORD = ClientError(4015, "wrong_password", "The name or the password is wrong.")
NOT_PRIVATE = ClientError(
    4016, "not_private", "A password is taken from this machine itself or over TLS only; use https."
)
NO_CSRF = ClientError(4017, "no_csrf", "A browser's session needs its CSRF token, as the header X-CSRFToken.")
NOT_YOURS = ClientError(4018, "not_yours", "This takes the account's owner, or somebody who may change accounts.")
UNKNOWN_SYMBOL = ClientError(4040, "unknown_symbol", "No configured broker has this symbol on this exchange.")
UNKNOWN_EXCHANGE = ClientError(4041, "unknown_exchange", "There is no such exchange.")
EXCHANGE_NOT_SERVED = ClientError(4042, "exchange_not_served", "No configured broker serves this exchange.")
DEPTH_NOT_SERVED = ClientError(4043, "depth_not_served", "No configured broker serves this depth for the symbol.")
UNKNOWN_UNDERLYING = ClientError(4044, "unknown_underlying", "There are no such options.")
UNKNOWN_ACCOUNT = ClientError(4045, "unknown_account", "There is no such account.")
TOO_MANY_SYMBOLS = ClientError(
    4220, "too_many_symbols", "The API key's limit of symbols is reached; unsubscribe some or raise the limit."
)
TOO_MANY_CONNECTIONS = ClientError(
    4221, "too_many_connections", "The API key's limit of connections is reached; close one or raise the limit."
)
TOO_MANY_COMMANDS = ClientError(
    4222, "too_many_commands", "Commands come too fast; send at most 200 a second.", retry=True
)
MESSAGE_TOO_BIG = ClientError(4223, "message_too_big", "The message is too big; split it.")
TOO_MANY_FAILURES = ClientError(
    4224, "too_many_failures", "Too many wrong keys from this address; wait a minute.", retry=True
)
TOO_MANY_REQUESTS = ClientError(
    4225, "too_many_requests", "Requests come too fast; wait as many seconds as Retry-After says.", retry=True
)
INTERNAL = ClientError(5000, "internal", "Something failed on our side; it has been logged. Try again.", retry=True)
UNAVAILABLE = ClientError(5001, "unavailable", "The database does not answer; try again.", retry=True)

ERRORS: tuple[ClientError, ...] = tuple(value for value in globals().values() if isinstance(value, ClientError))

CLOSE_AUTH_TIMEOUT = CloseCode(4401, "not authenticated within 15 s", reconnect=False)
CLOSE_KEY_REVOKED = CloseCode(4403, "the API key was revoked or has expired", reconnect=False)
CLOSE_TOO_MANY_CONNECTIONS = CloseCode(4408, "too many connections with this API key", reconnect=False)
CLOSE_FLOOD = CloseCode(4429, "too many commands", reconnect=False)
CLOSE_TOO_BIG = CloseCode(1009, "message too big", reconnect=False)
CLOSE_RESTART = CloseCode(1012, "server restarts", reconnect=True)

CLOSE_CODES: tuple[CloseCode, ...] = tuple(value for value in globals().values() if isinstance(value, CloseCode))


def in_words(error: ClientError, sentence: str) -> ClientError:
    """
    The same error with a sentence of its own in place of the general one.

    >>> in_words(BAD_QUERY, "The limit is 0; use a number from 1 to 200.").message
    'The limit is 0; use a number from 1 to 200.'
    """
    return error._replace(message=sentence)


def with_detail(error: ClientError, detail: str) -> ClientError:
    """
    The same error with a sentence about this very request.

    >>> with_detail(UNKNOWN_SYMBOL, "SBINN on NSE").message
    'No configured broker has this symbol on this exchange. SBINN on NSE'
    """
    return error._replace(message=f"{error.message} {detail}")
