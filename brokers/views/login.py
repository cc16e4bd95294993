"""
Logging in at a broker from the admin: there and back again.

What comes back carries a code that is as good as a password for a moment: it is never logged, put into a page or sent
on, and answers tell the browser to neither keep nor pass on the address it was in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from urllib.parse import parse_qsl, urlsplit

from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from brokers import logins, registry
from brokers.feed.account_tokens import token_of
from brokers.models import BrokerAccount
from brokers.views import pending

MOST_PASTED = 8192
"""Characters of an address that is pasted."""

AccountView = Callable[[HttpRequest, BrokerAccount], HttpResponse]


def of_account(view: AccountView) -> Callable[[HttpRequest, int], HttpResponse]:
    """A view that is sent an account's id, for those only who may log it in; others get a sentence."""

    @require_POST
    @wraps(view)
    def checked(request: HttpRequest, account_id: int) -> HttpResponse:
        if not _is_staff(request):
            return redirect_to_login(_accounts_page(), reverse("admin:login"))
        account = BrokerAccount.objects.select_related("broker").filter(pk=account_id).first()
        if account is None:
            return _said("There is no such account any more.", 404)
        if not logins.may_log_in(request.user, account):
            return _said(_not_yours(account), 403)
        return _private(view(request, account))

    return checked


# ---------------------------------------------------------------------------------------------------------- buttons


@of_account
def begin(request: HttpRequest, account: BrokerAccount) -> HttpResponse:
    """Sends the browser to the broker's login page."""
    try:
        has_state = registry.load(account.broker.slug).spec.redirect_has_state
        state = pending.begin(request.session, account.pk, account.broker.slug, has_state=has_state, now_s=time.time())
        return HttpResponseRedirect(async_to_sync(logins.page)(account.pk, state))
    except (logins.LoginFailed, registry.UnknownBroker) as failed:
        return _back(request, account, failed)


@of_account
def scripted(request: HttpRequest, account: BrokerAccount) -> HttpResponse:
    """Logs in without a redirect, once."""
    try:
        async_to_sync(logins.log_in)(account.pk)
    except logins.LoginFailed as failed:
        return _back(request, account, failed)
    return _back(request, account)


@of_account
def renew(request: HttpRequest, account: BrokerAccount) -> HttpResponse:
    """Changes the token for one that is good for longer."""
    try:
        async_to_sync(logins.renew)(account.pk)
    except logins.LoginFailed as failed:
        return _back(request, account, failed)
    return _back(request, account)


@sensitive_post_parameters("address")
@of_account
def pasted(request: HttpRequest, account: BrokerAccount) -> HttpResponse:
    """Takes the address to which the broker sent the browser, where that is not here."""
    query = query_of(request.POST.get("address", ""))
    if not query:
        text = "That is no address a broker redirects to; paste all of it, with what follows the question mark."
        return _back(request, account, ValueError(text))
    try:
        pending.end_of(request.session, account.pk, query.get("state"), now_s=time.time())
    except pending.NotPending as problem:
        return _back(request, account, problem)
    return _exchanged(request, account, query)


def query_of(pasted: str) -> Mapping[str, str]:
    """
    The parameters in an address, or in the part of one that follows the question mark; empty where there are none.

    >>> query_of("http://127.0.0.1:5000/zerodha/callback?request_token=x&state=s")
    {'request_token': 'x', 'state': 's'}
    >>> query_of("tokenId=x"), query_of("?tokenId=x"), query_of("hello"), query_of("https://broker.example/")
    ({'tokenId': 'x'}, {'tokenId': 'x'}, {}, {})
    """
    text = pasted.strip()
    if len(text) > MOST_PASTED:
        return {}
    try:
        query = urlsplit(text).query if "?" in text else "" if "://" in text else text
        return dict(parse_qsl(query, max_num_fields=50))
    except ValueError:  # urlsplit of "http://[", or too many parameters
        return {}


# ------------------------------------------------------------------------------------------------------------- callback


@require_GET
def callback(request: HttpRequest, slug: str) -> HttpResponse:
    """Where a broker's login page sends the browser: `/broker/zerodha/callback?request_token=…&state=…`."""
    return _private(_came_back(request, slug))


def _came_back(request: HttpRequest, slug: str) -> HttpResponse:
    try:
        spec = registry.load(slug).spec
    except registry.UnknownBroker as unknown:
        return _said(str(unknown), 404)
    if not _is_staff(request):
        messages.warning(
            request,
            f"{spec.name} sent you back to an address at which you are not logged in here, so nothing was stored. "
            "Log in, open the account, then press Log in again or paste the address you were sent to.",
        )
        return redirect_to_login(_accounts_page(), reverse("admin:login"))
    state = request.GET.get("state", "") if spec.redirect_has_state else None
    try:
        account_id = pending.end(request.session, slug, state, now_s=time.time())
    except pending.NotPending as problem:
        messages.error(request, f"{spec.name}: {problem}")
        return HttpResponseRedirect(_accounts_page())
    account = BrokerAccount.objects.select_related("broker").filter(pk=account_id).first()
    if account is None or not logins.may_log_in(request.user, account):
        messages.error(request, _not_yours(account) if account else "The account was deleted meanwhile.")
        return HttpResponseRedirect(_accounts_page())
    return _exchanged(request, account, request.GET.dict())


# --------------------------------------------------------------------------------------------------------------- common


def _exchanged(request: HttpRequest, account: BrokerAccount, query: Mapping[str, str]) -> HttpResponse:
    try:
        async_to_sync(logins.exchange)(account.pk, query)
    except logins.LoginFailed as failed:
        return _back(request, account, failed)
    return _back(request, account)


def _back(request: HttpRequest, account: BrokerAccount, problem: Exception | None = None) -> HttpResponse:
    """To the account's page, with a message."""
    if problem is None:
        account.refresh_from_db()
        view = token_of(account, int(timezone.now().timestamp() * 1000))
        messages.success(request, f"{account} is logged in. {view.sentence}")
    else:
        messages.error(request, f"{account}: {problem}")
    return HttpResponseRedirect(reverse("admin:brokers_brokeraccount_change", args=[account.pk]))


def _is_staff(request: HttpRequest) -> bool:
    return request.user.is_active and request.user.is_staff


def _accounts_page() -> str:
    return reverse("admin:brokers_brokeraccount_changelist")


def _not_yours(account: BrokerAccount) -> str:
    return f"You may not log {account} in: it takes its owner, or somebody who may change accounts."


def _said(sentence: str, status: int) -> HttpResponse:
    return _private(HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8"))


def _private(answer: HttpResponse) -> HttpResponse:
    answer["Referrer-Policy"] = "no-referrer"
    answer["Cache-Control"] = "no-store"
    return answer
