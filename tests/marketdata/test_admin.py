"""The admin's pages for API keys."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client

from marketdata import auth
from marketdata.models import ApiKey

ADD = "/admin/marketdata/apikey/add/"
EMPTY = {
    "name": "charts",
    "owner": "",
    "expires_at_0": "",
    "expires_at_1": "",
    "existing_key": "",
    "feed": "",
    "max_symbols": "",
    "max_connections": "",
}


def test_a_new_key_is_shown_once_and_opens(admin_client: Client) -> None:
    answer = admin_client.post(ADD, EMPTY)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    found = re.search(r'<code id="api-key"[^>]*>(sk_[\w-]+)</code>', answer.content.decode())
    assert found
    key = found[1]
    row = ApiKey.objects.get()
    assert auth.find(key) == row
    pages = ["/admin/marketdata/apikey/", f"/admin/marketdata/apikey/{row.pk}/change/", "/admin/"]
    assert all(key not in admin_client.get(page).content.decode() for page in pages)
    assert not any(key in str(cookie) for cookie in admin_client.cookies.values())
    assert not any(key in str(session.get_decoded()) for session in Session.objects.all())
    assert key not in LogEntry.objects.get().change_message


def test_an_existing_key_is_imported(admin_client: Client) -> None:
    admin_client.post(ADD, EMPTY | {"existing_key": " 0123456789abcdef0123456789abcdef "})
    assert auth.find("0123456789abcdef0123456789abcdef") == ApiKey.objects.get()


def test_a_key_that_cannot_be_one_or_is_here_already_is_refused_with_the_reason(admin_client: Client) -> None:
    auth.adopt("0123456789abcdef", "first")
    for key, reason in (("short", "this one has 5"), ("0123456789abcdef", "exists already")):
        answer = admin_client.post(ADD, EMPTY | {"existing_key": key})
        assert reason in answer.content.decode()
        assert f'value="{key}"' not in answer.content.decode()
    assert ApiKey.objects.count() == 1


def test_limits_are_changed_and_the_key_stays(admin_client: Client) -> None:
    row, key = auth.issue("charts")
    sent = EMPTY | {"active": "on", "max_symbols": "50", "feed": "desk"}
    assert admin_client.post(f"/admin/marketdata/apikey/{row.pk}/change/", sent).status_code == 302
    found = auth.find(key)
    assert found
    assert (found.max_symbols, found.feed) == (50, "desk")


def test_the_revoke_action_shuts_keys_out(admin_client: Client, db: None) -> None:
    rows = [auth.issue(f"key {number}") for number in range(3)]
    ids = [row.pk for row, _ in rows]
    sent = {"action": "revoke", "_selected_action": [str(ids[0]), str(ids[1])]}
    answer = admin_client.post("/admin/marketdata/apikey/", sent, follow=True)
    assert "2 API keys were revoked" in answer.content.decode()
    assert auth.find_revoked(ids) == set(ids[:2])


def test_the_list_says_why_a_key_opens_nothing(admin_client: Client, django_user_model: Any) -> None:
    from django.utils import timezone

    auth.issue("a", active=False)
    auth.issue("b", expires_at=timezone.now())
    auth.issue("c", owner=django_user_model.objects.create(username="gone", is_active=False))
    auth.issue("d")
    shown = admin_client.get("/admin/marketdata/apikey/").content.decode()
    assert re.findall(r'field-state">([^<]+)<', shown) == ["revoked", "expired", "owner switched off", "active"]
