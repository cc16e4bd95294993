"""
REST for programs that have a broker's token: `GET /api/v1/accounts/` and `POST …/<broker>/<account>/token/`.

For staff, with the session of the admin or with name and password (HTTP Basic, on this machine or over TLS only). An
API key of the streams opens nothing here. Errors have the shape of the client protocol; their numbers are in
`docs/logins.md`.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Any, NamedTuple

import structlog
from django.db import DatabaseError
from django.utils import timezone
from rest_framework import exceptions
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle, UserRateThrottle
from rest_framework.views import APIView

from brokers import logins
from brokers.feed.account_tokens import token_of
from brokers.india import INDIA
from brokers.models import BrokerAccount, is_loopback

log = structlog.get_logger(__name__)

FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_REAL_IP")
"""Headers of proxies: with one of them, an address of this machine is not where the request came from."""


class Problem(NamedTuple):
    """An error as programs see it; `message` may be replaced by a sentence that says more."""

    status: int
    code: int
    name: str
    message: str
    retry: bool = False


BAD_JSON = Problem(400, 4001, "bad_json", "The body is not valid JSON; send one JSON object.")
BAD_MESSAGE = Problem(400, 4002, "bad_message", "The body does not have the documented shape.")
BAD_METHOD = Problem(405, 4007, "bad_method", "This address does not answer this method.")
NOT_AUTHENTICATED = Problem(
    401, 4010, "not_authenticated", "Send the name and password of a member of the staff, as HTTP Basic."
)
NOT_STAFF = Problem(403, 4014, "not_staff", "Only staff may ask here.")
WRONG_PASSWORD = Problem(401, 4015, "wrong_password", "The name or the password is wrong.")
NOT_PRIVATE = Problem(
    403,
    4016,
    "not_private",
    "A password is taken from this machine itself or over TLS only; use https.",
)
NO_CSRF = Problem(403, 4017, "no_csrf", "A browser's session needs its CSRF token, as the header X-CSRFToken.")
NOT_YOURS = Problem(403, 4018, "not_yours", "This takes the account's owner, or somebody who may change accounts.")
NO_ACCOUNT = Problem(404, 4045, "unknown_account", "There is no such account.")
TOO_MANY_FAILURES = Problem(
    429, 4224, "too_many_failures", "Too many passwords from this address; wait a minute.", retry=True
)
TOO_MANY_REQUESTS = Problem(
    429, 4225, "too_many_requests", "Requests come too fast; wait as many seconds as Retry-After says.", retry=True
)
INTERNAL = Problem(500, 5000, "internal", "Something failed on our side; it has been logged. Try again.", retry=True)
UNAVAILABLE = Problem(503, 5001, "unavailable", "The database does not answer; try again.", retry=True)


class Refusal(exceptions.APIException):
    """A problem of the table above, raised."""

    def __init__(self, problem: Problem, message: str = "", wait_s: float | None = None) -> None:
        super().__init__(problem.message)
        self.problem = problem._replace(message=message or problem.message)
        self.wait = wait_s


_PROBLEMS: tuple[tuple[type[Exception], Problem], ...] = (
    (exceptions.Throttled, TOO_MANY_REQUESTS),
    (exceptions.NotAuthenticated, NOT_AUTHENTICATED),
    (exceptions.AuthenticationFailed, WRONG_PASSWORD),
    (exceptions.PermissionDenied, NOT_STAFF),
    (exceptions.MethodNotAllowed, BAD_METHOD),
    (exceptions.ParseError, BAD_JSON),
    (DatabaseError, UNAVAILABLE),
)
"""The first that fits what was raised."""


# ------------------------------------------------------------------------------------------------------------ who asks


class PasswordThrottle(SimpleRateThrottle):
    """Passwords from one address, right or wrong, in each server process."""

    rate = "30/min"

    def get_cache_key(self, request: Request, view: APIView) -> str:
        """By the address."""
        return f"brokers-passwords-{request.META.get('REMOTE_ADDR', '')}"


class AccountsThrottle(UserRateThrottle):
    """Requests of one user, in each server process."""

    scope = "accounts"
    rate = "60/min"


class Password(BasicAuthentication):
    """HTTP Basic, where nobody on the way can read it, and not faster than a person could guess."""

    www_authenticate_realm = "accounts"

    def authenticate(self, request: Request) -> Any:
        """Raises Refusal and AuthenticationFailed; None without a password."""
        if not str(request.META.get("HTTP_AUTHORIZATION", "")).lower().startswith("basic "):
            return None
        if not is_private(request):
            raise Refusal(NOT_PRIVATE)
        throttle = PasswordThrottle()
        if not throttle.allow_request(request, APIView()):
            raise Refusal(TOO_MANY_FAILURES, wait_s=throttle.wait())
        return super().authenticate(request)


def is_private(request: Request) -> bool:
    """Whether nobody between the caller and us can read along: TLS, or a caller on this machine itself."""
    if request.is_secure():
        return True
    came_through = any(request.META.get(name) for name in FORWARDED)
    return is_loopback(request.META.get("REMOTE_ADDR") or "") and not came_through


class AdminSession(SessionAuthentication):
    """The admin's session; what changes something needs the CSRF token too."""

    def enforce_csrf(self, request: Request) -> None:
        """Raises Refusal."""
        try:
            super().enforce_csrf(request)
        except exceptions.PermissionDenied:
            raise Refusal(NO_CSRF) from None


class Staff(BasePermission):
    """Of users only staff."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether they may ask."""
        return bool(request.user and request.user.is_staff)


class AlwaysJson(BaseContentNegotiation):
    """There is nothing else, whatever was sent or asked for."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """The only one."""
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """The only one."""
        return renderers[0], renderers[0].media_type


# -------------------------------------------------------------------------------------------------------------- views


class StaffView(APIView):
    """What the two have in common."""

    authentication_classes = (Password, AdminSession)
    permission_classes = (Staff,)
    throttle_classes = (AccountsThrottle,)
    content_negotiation_class = AlwaysJson

    def handle_exception(self, exc: Exception) -> Response:
        """An error in the protocol's shape, whatever happened."""
        problem = (
            exc.problem
            if isinstance(exc, Refusal)
            else next((each for kind, each in _PROBLEMS if isinstance(exc, kind)), INTERNAL)
        )
        if problem.status >= 500:
            log.error("request_failed", path=self.request.path, exc_info=exc)
        answer: dict[str, object] = {
            "status": "error", "code": problem.code, "name": problem.name, "message": problem.message
        }  # fmt: skip
        response = Response(answer | ({"retry": True} if problem.retry else {}), status=problem.status)
        if problem.status == 429:
            wait_s: float | None = getattr(exc, "wait", None)
            response["Retry-After"] = str(math.ceil(wait_s or 1))
        if problem.status == 401:
            response["WWW-Authenticate"] = 'Basic realm="accounts", charset="UTF-8"'
        response.exception = True
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Nobody keeps an answer."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        answer["Cache-Control"] = "no-store"
        return answer


class AccountsView(StaffView):
    """`GET /api/v1/accounts/`: the accounts you may see, and how their tokens are doing. No secrets."""

    http_method_names = ["get", "head"]

    def get(self, request: Request) -> Response:
        """`{"status": "accounts", "count": 1, "accounts": [{"broker": "zerodha", "account": "main", …}]}`"""
        found = [described(row) for row in logins.accounts_of(request.user)]
        return Response({"status": "accounts", "count": len(found), "accounts": found})


class TokenView(StaffView):
    """`POST /api/v1/accounts/zerodha/main/token/` with `{"access_token": "…"}`, as the broker calls its token."""

    http_method_names = ["post"]

    def post(self, request: Request, broker: str, account: str) -> Response:
        """`{"status": "token_stored", "broker": "zerodha", "account": "main", "token": "valid", …}`"""
        try:
            row = logins.find_account(broker, account, logins.accounts_of(request.user))
        except logins.NoAccount as unknown:
            raise Refusal(NO_ACCOUNT, str(unknown)) from None
        if not logins.may_log_in(request.user, row):
            raise Refusal(NOT_YOURS)
        sent = request.data
        if not isinstance(sent, dict) or not all(isinstance(value, str) for value in sent.values()):
            raise Refusal(BAD_MESSAGE, 'Send one JSON object of names and texts, such as {"access_token": "…"}.')
        try:
            logins.enter(row, sent, source=f"over REST, by {request.user.get_username()}")
        except logins.LoginFailed as failed:
            raise Refusal(BAD_MESSAGE, str(failed)) from None
        row.refresh_from_db()
        return Response({"status": "token_stored", **described(row)})


def described(row: BrokerAccount) -> dict[str, object]:
    """An account as programs see it; instants in India's time, what is not known is left out."""
    view = token_of(row, int(timezone.now().timestamp() * 1000))
    facts = {
        "broker": row.broker.slug,
        "account": row.name,
        "enabled": row.enabled and row.broker.enabled,
        "simulated": row.is_simulated,
        "token": view.state.value if view.state else None,
        "token_since": _iso(row.token_since.timestamp()) if row.token_since and row.token_fingerprint else None,
        "token_ends": _iso(view.ends_ms / 1000) if view.ends_ms is not None else None,
        "token_end_is_certain": view.is_certain if view.ends_ms is not None else None,
        "message": view.sentence,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _iso(instant_s: float) -> str:
    return dt.datetime.fromtimestamp(instant_s, INDIA).isoformat(timespec="seconds")
