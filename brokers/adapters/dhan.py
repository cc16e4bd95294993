"""
Dhan (DhanHQ v2): a declaration of the family `brokers.families.dhan`.

Source: https://dhanhq.co/docs/v2/. For the 200-level socket this is the documentation's address; the official client,
dhanhq 2.3.0, leaves its path out.
"""

from __future__ import annotations

from brokers.contract import LoginWay
from brokers.families import dhan

ADAPTER = dhan.adapter(
    slug="dhan",
    name="Dhan",
    docs="https://dhanhq.co/docs/v2/live-market-feed/",
    market_url="wss://api-feed.dhan.co",
    depth20_url="wss://depth-api-feed.dhan.co/twentydepth",
    depth200_url="wss://full-depth-api.dhan.co/twohundreddepth",
    login_help=(
        "Made at web.dhan.co under Access DhanHQ APIs, or by a login from the admin; it ends after 24 hours. Market "
        "data needs the Data API plan. Only a token made there can be renewed, and for books of 200 levels one made by "
        "a login is reported not to work."
    ),
    logins=frozenset({LoginWay.REDIRECT, LoginWay.RENEWAL}),
)
