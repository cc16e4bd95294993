"""A plain fan-out on `websockets`: a set of connections a symbol, and `broadcast`. Feed and server in one process."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.feed import Ticks, arguments, pump

holders: dict[str, set[ServerConnection]] = defaultdict(set)


async def converse(client: ServerConnection) -> None:
    """A client sends the list of its symbols, once."""
    symbols = json.loads(await client.recv())
    for symbol in symbols:
        holders[symbol].add(client)
    await client.wait_closed()
    for symbol in symbols:
        holders[symbol].discard(client)


async def put(ticks: Ticks) -> None:
    """Each tick to those who hold it."""
    for symbol, message in ticks:
        broadcast(holders[symbol], message.decode())


async def main() -> None:
    """Serves and feeds for ever."""
    port, workload = arguments(__doc__)
    async with serve(converse, "127.0.0.1", port, compression=None, max_size=None, ping_interval=None):
        await pump(workload, put)


if __name__ == "__main__":
    asyncio.run(main())
