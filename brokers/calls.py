"""
Makes the HTTP calls an adapter asks for: walks a generator of `contract.HttpRequest`s to what it returns.

No text made here holds an address, a header or a body: they carry secrets.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from brokers.contract import HttpRequest, HttpResponse
from brokers.models import is_loopback

TIMEOUT_S = 10.0

Result = TypeVar("Result")


class Unreached(ConnectionError):
    """Nobody took the call: the broker has seen nothing of it."""


async def walk(steps: Generator[HttpRequest, HttpResponse, Result]) -> Result:
    """
    Makes the calls, one after the other; returns what the generator returns.

    Raises what the generator raises (Refused); Unreached, where not even the first call was taken; and
    ConnectionError, where a call went out and no answer came.
    """
    is_first = True
    try:
        request = next(steps)
        while True:
            response = await _call(request, is_first=is_first)
            is_first = False
            request = steps.send(response)
    except StopIteration as done:
        result: Result = done.value
        return result


async def _call(request: HttpRequest, *, is_first: bool) -> HttpResponse:
    # A proxy of the environment is for the way out, not for a simulator beside us.
    here = is_loopback(urlsplit(request.url).hostname or "")
    form = None if request.form is None else dict(request.form)
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=not here) as client:
            response = await client.request(
                request.method, request.url, headers=dict(request.headers), data=form, json=request.json
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        unseen = is_first and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL)
        kind = Unreached if unseen else ConnectionError
        # Its own text may hold the address, and that a token.
        raise kind(f"an HTTP call to the broker failed ({type(error).__name__})") from None
    return HttpResponse(status=response.status_code, body=response.content, headers=dict(response.headers))
