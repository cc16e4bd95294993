"""
Dhan's sandbox: a declaration of the family `brokers.families.dhan`, simulated.

The sandbox (https://sandbox.dhan.co) takes orders; it has no socket for market data. So what ticks under this name are
made-up prices of a simulator, `manage.py simulate dhan_sandbox`, whose address an account has as its endpoint. Without
one it is not connected: no token goes to the address of a socket that does not exist.
"""

from __future__ import annotations

from brokers.families import dhan

ADAPTER = dhan.adapter(
    slug="dhan_sandbox",
    name="Dhan Sandbox",
    docs="https://dhanhq.co/docs/v2/",
    market_url="wss://sandbox.dhan.co",
    depth20_url="wss://sandbox.dhan.co/twentydepth",
    depth200_url="wss://sandbox.dhan.co/twohundreddepth",
    login_help="From developer.dhanhq.co, the sandbox's own portal; a token of the real Dhan is not needed.",
    simulated=True,
)
