"""Publishes a workload's ticks to a nats-server, a subject a symbol."""

from __future__ import annotations

import asyncio

from bench.peers.feed import Ticks, arguments, pump


async def main() -> None:
    """Connects, then publishes for ever."""
    port, workload = arguments(__doc__)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')

    async def put(ticks: Ticks) -> None:
        writer.write(b"".join(b"PUB %s %d\r\n%s\r\n" % (symbol.encode(), len(data), data) for symbol, data in ticks))
        await writer.drain()

    await pump(workload, put)


if __name__ == "__main__":
    asyncio.run(main())
