"""
Looking instruments up over HTTP: a search, and an option chain.

Asked with an API key or by staff who are logged in. Errors have the shape and the numbers of the client protocol.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import msgspec
import structlog
from asgiref.sync import async_to_sync
from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView

from brokers import catalog
from marketdata import auth
from marketdata.errors import (
    BAD_METHOD,
    BAD_QUERY,
    INTERNAL,
    NO_KEY,
    NOT_STAFF,
    TOO_MANY_FAILURES,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    UNKNOWN_UNDERLYING,
    WRONG_KEY,
    ClientError,
    in_words,
)
from marketdata.hub import Hub

log = structlog.get_logger(__name__)

_ANSWERS: tuple[tuple[type[Exception], int, ClientError], ...] = (
    (auth.TooManyFailures, 429, TOO_MANY_FAILURES),
    (exceptions.Throttled, 429, TOO_MANY_REQUESTS),
    (exceptions.NotAuthenticated, 401, NO_KEY),
    (exceptions.AuthenticationFailed, 401, WRONG_KEY),
    (exceptions.PermissionDenied, 403, NOT_STAFF),
    (exceptions.MethodNotAllowed, 405, BAD_METHOD),
    (catalog.NoOptions, 404, UNKNOWN_UNDERLYING),
    (catalog.QueryError, 400, BAD_QUERY),
    (DatabaseError, 503, UNAVAILABLE),
)
"""The first that fits: what is raised, its HTTP status, its number for clients."""


def healthz(request: HttpRequest) -> JsonResponse:
    """`GET /healthz`: this process answers."""
    return JsonResponse({"alive": True})


def readyz(request: HttpRequest) -> JsonResponse:
    """
    `GET /readyz`: 200 while prices flow or none are due (a closed market is no fault), else 503 and why.

    `{"ready": false, "reasons": ["zerodha is waiting_for_login: …"]}`
    """
    hub = Hub.running
    reasons = ["The stream has not been started in this process."] if hub is None else hub.unready()
    return JsonResponse({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


class KeyHolder:
    """Who asks with an API key, in the place of a user; each key is counted by itself."""

    is_authenticated = True
    is_staff = False

    def __init__(self, grant: auth.Grant) -> None:
        self.pk = f"key-{grant.key_id}"


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer KEY`, or `X-API-Key: KEY`."""

    def authenticate(self, request: Request) -> tuple[Any, auth.Grant] | None:
        """
        Who asks; None without a key.

        Raises AuthenticationFailed, auth.TooManyFailures and django.db.Error.
        """
        key = _key(request.META)
        if key is None:
            return None
        address = request.META.get("REMOTE_ADDR") or "unknown"
        grant = async_to_sync(auth.authenticate)(key, address)
        if grant is None:
            log.info("wrong_key", address=address)
            raise exceptions.AuthenticationFailed
        return KeyHolder(grant), grant

    def authenticate_header(self, request: Request) -> str:
        """What a 401 says one should have sent."""
        return "Bearer"


class KeyOrStaff(BasePermission):
    """Every key; of users only staff."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether they may ask."""
        return request.auth is not None or bool(request.user and request.user.is_staff)


class InstrumentsThrottle(UserRateThrottle):
    """The settings' `instruments` rate."""

    scope = "instruments"


class AlwaysJson(BaseContentNegotiation):
    """There is nothing else, whatever was asked for."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """The only one."""
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """The only one."""
        return renderers[0], renderers[0].media_type


class CatalogView(APIView):
    """What the two have in common. `parameters` are those there are."""

    authentication_classes = (KeyAuthentication, SessionAuthentication)
    permission_classes = (KeyOrStaff,)
    throttle_classes = (InstrumentsThrottle,)
    content_negotiation_class = AlwaysJson
    http_method_names = ["get", "head"]
    parameters: ClassVar[tuple[str, ...]] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """A misspelt parameter is no silent default."""
        super().initial(request, *args, **kwargs)
        unknown = sorted(set(request.query_params) - set(self.parameters))
        if unknown:
            known = ", ".join(self.parameters)
            raise catalog.QueryError(f"There is no parameter {unknown[0][:40]!r}; use {known}.")

    def handle_exception(self, exc: Exception) -> Response:
        """An error in the protocol's shape, whatever happened."""
        status, error = next(
            ((status, error) for kind, status, error in _ANSWERS if isinstance(exc, kind)), (500, INTERNAL)
        )
        if status >= 500:
            log.error("request_failed", path=self.request.path, exc_info=exc)
        if isinstance(exc, catalog.QueryError):
            error = in_words(error, str(exc))
        response = Response(_shape(error), status=status)
        if isinstance(exc, exceptions.Throttled):
            wait_s: float | None = getattr(exc, "wait", None)  # which the stubs do not know
            response["Retry-After"] = str(math.ceil(wait_s or 1))
        if status == 401:
            response["WWW-Authenticate"] = "Bearer"
        response.exception = True
        return response


class InstrumentsView(CatalogView):
    """`GET /api/v1/instruments/?q=nifty+24500+ce&exchange=NFO&kind=CE&limit=20`"""

    parameters = ("q", "exchange", "kind", "limit")

    def get(self, request: Request) -> Response:
        """`{"status": "instruments", "count": 1, "instruments": [{"symbol": "…", "exchange": "NFO", …}]}`"""
        asked = request.query_params
        query, exchange, today = asked.get("q", ""), asked.get("exchange", ""), timezone.localdate()
        limit = _number(asked, "limit", 20)
        found = catalog.search(query, exchange=exchange, kind=asked.get("kind", ""), limit=limit, today=today)
        answer = {"status": "instruments", "count": len(found), "instruments": [_plain(each) for each in found]}
        if not found:
            answer["suggestions"] = catalog.did_you_mean(query, exchange=exchange, today=today)
        return Response(answer)


class ChainView(CatalogView):
    """`GET /api/v1/instruments/chain/?underlying=NIFTY&exchange=NFO&expiry=2026-11-24&around=24512.5&count=10`"""

    parameters = ("underlying", "exchange", "expiry", "around", "count")

    def get(self, request: Request) -> Response:
        """`{"status": "chain", "underlying": "NIFTY", …, "strikes": [{"strike": 24500.0, "call": "…", "put": "…"}]}`"""
        asked = request.query_params
        if not asked.get("underlying", "").strip():
            raise catalog.QueryError("The underlying is missing; add for example underlying=NIFTY.")
        chain = catalog.option_chain(
            asked["underlying"],
            asked.get("exchange", ""),
            expiry=_date(asked, "expiry"),
            around=_price(asked, "around"),
            count=_number(asked, "count", 10),
            today=timezone.localdate(),
        )
        return Response({"status": "chain", **_plain(chain)})


def _key(headers: Mapping[str, Any]) -> str | None:
    scheme, _, key = str(headers.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    own = headers.get("HTTP_X_API_KEY")
    return None if own is None else str(own).strip()


def _shape(error: ClientError) -> dict[str, object]:
    answer: dict[str, object] = {"status": "error", "code": error.code, "name": error.name, "message": error.message}
    return answer | {"retry": True} if error.retry else answer


def _plain(value: object) -> Any:
    """JSON's types; what is not known is left out."""
    return _without_none(msgspec.to_builtins(value))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    if isinstance(value, Collection) and not isinstance(value, str):
        return [_without_none(each) for each in value]
    return value


# ----------------------------------------------------------------------------------------------------------- parameters


def _number(asked: Mapping[str, str], name: str, default: int) -> int:
    text = asked.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise catalog.QueryError(f"The {name} is {text[:40]!r}; write a whole number such as {default}.")
    return int(text)


def _price(asked: Mapping[str, str], name: str) -> float | None:
    text = asked.get(name, "")
    try:
        price = float(text) if text else None
    except ValueError:
        price = math.nan
    if price is not None and not math.isfinite(price):
        raise catalog.QueryError(f"{name} is {text[:40]!r}; write a price such as 24512.5.")
    return price


def _date(asked: Mapping[str, str], name: str) -> dt.date | None:
    text = asked.get(name, "")
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError:
        raise catalog.QueryError(f"The {name} is {text[:40]!r}; write a date as 2026-11-24.") from None
