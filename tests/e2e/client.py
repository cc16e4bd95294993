"""A native client for tests: keeps every message, and checks the honesty of every sequence."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Message = dict[str, Any]
KeyName = tuple[str, str, str]


class Client:
    """
    One connection. `ticks` holds every tick by (exchange, symbol, mode), `statuses` everything else in order.

    `async with Client(url, key) as client` connects and authenticates; `key` None does not authenticate.
    """

    def __init__(self, url: str, key: str | None = None, **authenticate: Any) -> None:
        self._url = url
        self._key = key
        self._authenticate = authenticate
        self._numbers = itertools.count(1)
        self.socket: ClientConnection
        self.ticks: dict[KeyName, list[Message]] = defaultdict(list)
        self.statuses: list[Message] = []
        self.bytes = 0
        self.closed: int | None = None
        self.jumps: list[tuple[KeyName, int]] = []
        """Gaps in a sequence that no status had announced."""
        self._told: dict[KeyName, int] = {}

    async def __aenter__(self) -> Self:
        self.socket = await connect(self._url, max_size=None, compression=None, ping_interval=None)
        self._reader = asyncio.create_task(self._read())
        if self._key is not None:
            ack = await self.ask("authenticate", api_key=self._key, **self._authenticate)
            assert ack["status"] == "authenticated", ack
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.socket.close()
        await self._reader

    async def ask(self, action: str, **fields: Any) -> Message:
        """Sends a command and returns its answer."""
        number = next(self._numbers)
        await self.socket.send(json.dumps({"action": action, "request_id": number, **fields}))
        return await self.status(lambda message: message.get("request_id") == number)

    async def subscribe(self, *names: str, mode: str = "LTP", **fields: Any) -> Message:
        """Subscribes `EXCHANGE:SYMBOL` names."""
        return await self.ask("subscribe", symbols=[item_of(name) for name in names], mode=mode, **fields)

    async def unsubscribe(self, *names: str, **fields: Any) -> Message:
        """Unsubscribes them."""
        return await self.ask("unsubscribe", symbols=[item_of(name) for name in names], **fields)

    async def status(self, matches: Callable[[Message], bool], patience_s: float = 20) -> Message:
        """The first message, had or to come, that is no tick and matches."""
        end_s = time.monotonic() + patience_s
        while True:
            for message in self.statuses:
                if matches(message):
                    return message
            assert time.monotonic() < end_s, f"No such message; there are {self.statuses[-5:]}"
            assert self.closed is None, f"The socket was closed: {self.closed}"
            await asyncio.sleep(0.005)

    async def tick(self, name: str, mode: str = "LTP", *, beyond: int = 0, patience_s: float = 20) -> Message:
        """The newest tick of a symbol once more than `beyond` of them have come."""
        exchange, _, symbol = name.partition(":")
        ticks = self.ticks[exchange, symbol, mode]
        end_s = time.monotonic() + patience_s
        while len(ticks) <= beyond:
            assert time.monotonic() < end_s, f"No tick of {name}; statuses: {self.statuses[-5:]}"
            assert self.closed is None, f"The socket was closed: {self.closed}"
            await asyncio.sleep(0.005)
        return ticks[-1]

    def count(self, name: str, mode: str = "LTP") -> int:
        """How many ticks of a symbol have come."""
        exchange, _, symbol = name.partition(":")
        return len(self.ticks[exchange, symbol, mode])

    async def _read(self) -> None:
        try:
            async for frame in self.socket:
                self.bytes += len(frame)
                message = json.loads(frame)
                for one in message if isinstance(message, list) else [message]:
                    self._take(one)
        except ConnectionClosed:
            pass  # Without a close frame; `closed` says 1006.
        self.closed = self.socket.close_code

    def _take(self, message: Message) -> None:
        if "ltp" not in message:
            self.statuses.append(message)
            if message.get("status") == "lagging":
                self._told.clear()
            return
        name = message["exchange"], message["symbol"], message["mode"]
        ticks = self.ticks[name]
        last = self._told.get(name)
        if last is not None and message["seq"] != last + 1 + message.get("conflated", 0):
            self.jumps.append((name, message["seq"] - last))
        self._told[name] = message["seq"]
        ticks.append(message)


def item_of(name: str) -> Message:
    """`EXCHANGE:SYMBOL` as an item of a request."""
    exchange, _, symbol = name.partition(":")
    return {"symbol": symbol, "exchange": exchange}
