"""A new day's instruments, imported beside the running product: clients go on, and hear what concerns them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.e2e.client import Client
from tests.e2e.stack import Stack, wait_until

PICK_UP_S = 2.0


def edited(master: str) -> str:
    """SBIN and RELIANCE have exchanged their tokens, TCS has another name, INFY is gone from NSE."""
    lines = []
    swap = {"779521": "738561", "738561": "779521"}
    for line in master.splitlines():
        token, rest = line.split(",", 1)
        if rest.endswith(",NSE,NSE") and ",INFY," in rest:
            continue
        rest = rest.replace(",TCS,", ",TATACS,") if rest.endswith(",NSE,NSE") else rest
        lines.append(f"{swap.get(token, token)},{rest}")
    return "\n".join(lines)


async def test_an_import_beside_the_running_product_reaches_clients_within_two_seconds(
    stack: Stack, tmp_path: Path
) -> None:
    stack.start(rate=100, symbols=60)
    master = stack.manage("simulate", "zerodha", "--symbols", "400", "--master")
    file = tmp_path / "new.csv"
    file.write_text(edited(master))
    async with Client(stack.url, stack.key, status=True) as client:
        await client.subscribe("NSE:SBIN", "NSE:TCS", "NSE:INFY", "NSE:ITC")
        await wait_until(lambda: len(client.ticks) == 4, "ticks of all")
        assert stack.simulator.call("subscribed").keys() == {"NSE:SBIN", "NSE:TCS", "NSE:INFY", "NSE:ITC"}
        said = await asyncio.to_thread(stack.manage, "sync_instruments", "zerodha", "--file", str(file))
        imported_s = time.monotonic()
        assert "1 renamed (TCS → TATACS), 2 with another token (" in said
        assert "1 gone (INFY)" in said
        await wait_until(
            lambda: stack.simulator.call("subscribed").keys() == {"NSE:RELIANCE", "NSE:ITC"}, "the pick-up"
        )
        assert time.monotonic() - imported_s < PICK_UP_S
        renamed = await client.status(lambda message: message.get("state") == "renamed")
        assert (renamed["symbol"], renamed["message"]) == (
            "TCS",
            "TCS on NSE is called TATACS now; subscribe that name.",
        )
        gone = await client.status(lambda message: message.get("state") == "expired_instrument")
        assert (gone["symbol"], "delisted" in gone["message"]) == ("INFY", True)
        ticks = len(client.ticks["NSE", "SBIN", "LTP"])
        await wait_until(lambda: len(client.ticks["NSE", "SBIN", "LTP"]) > ticks + 5, "ticks of the other token")
        assert client.jumps == []
        answer = await client.subscribe("NSE:TATACS", "NSE:TCS")
        assert (answer["count"], answer["rejected"][0]["code"]) == (1, 4040)
        await wait_until(lambda: bool(client.ticks["NSE", "TATACS", "LTP"]), "ticks under the new name")
