"""The addresses of the brokers' side: `pages` below `/broker/` for browsers, `rest` below `/api/v1/` for programs."""

from __future__ import annotations

from django.urls import path

from brokers.views import login, tokens

pages = [
    path("<slug:slug>/callback", login.callback, name="broker_callback"),
    path("<slug:slug>/callback/", login.callback),
    path("accounts/<int:account_id>/log-in", login.begin, name="broker_log_in"),
    path("accounts/<int:account_id>/log-in-by-itself", login.scripted, name="broker_log_in_by_itself"),
    path("accounts/<int:account_id>/renew", login.renew, name="broker_renew"),
    path("accounts/<int:account_id>/pasted", login.pasted, name="broker_pasted"),
]

rest = [
    path("accounts/", tokens.AccountsView.as_view(), name="accounts"),
    # A name may hold a slash.
    path("accounts/<slug:broker>/<path:account>/token/", tokens.TokenView.as_view(), name="account_token"),
]
