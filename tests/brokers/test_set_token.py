"""`manage.py set_token`: from stdin or a prompt, one sentence whatever happens, and the token in no output."""

from __future__ import annotations

import base64
import getpass
import io
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from brokers.management.commands import set_token
from brokers.models import Attempt, Broker, BrokerAccount


@pytest.fixture
def account(db: None) -> BrokerAccount:
    broker = Broker.objects.get(slug="zerodha")
    return BrokerAccount.objects.create(broker=broker, name="main", credentials={"api_key": "kitekey"})


def angel() -> BrokerAccount:
    return BrokerAccount.objects.create(broker=Broker.objects.get(slug="angel"), name="main", credentials={})


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str = "", fields: tuple[str, ...] = ()) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    out = io.StringIO()
    call_command("set_token", *arguments, *(f"--field={each}" for each in fields), stdout=out)
    return out.getvalue()


def stored(account: BrokerAccount) -> Any:
    return BrokerAccount.objects.get(pk=account.pk).credentials


def jwt(end_s: int) -> str:
    middle = base64.urlsafe_b64encode(b'{"exp": %d}' % end_s).decode().rstrip("=")
    return f"head.{middle}.signature"


def test_a_token_from_stdin_is_stored_and_its_end_is_told(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(monkeypatch, "zerodha", "main", stdin="swordfish\n")
    assert out.startswith("The token of Zerodha main is stored. The token ends on ")
    assert "swordfish" not in out
    assert stored(account) == {"api_key": "kitekey", "access_token": "swordfish"}
    [attempt] = Attempt.objects.all()
    assert (attempt.what, attempt.outcome, attempt.detail) == ("entry", "ok", "manage.py set_token")


def test_a_person_is_asked_without_an_echo(account: BrokerAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "swordfish"

    monkeypatch.setattr(set_token, "getpass", answer)
    monkeypatch.setattr(sys, "stdin", Terminal())
    call_command("set_token", "zerodha", "main", stdout=io.StringIO())
    assert asked == ["Access token of Zerodha main (not shown): "]
    assert stored(account)["access_token"] == "swordfish"
    monkeypatch.setattr(set_token, "getpass", getpass.fallback_getpass)
    with pytest.raises(CommandError, match="Nothing was stored"), pytest.warns(getpass.GetPassWarning):
        call_command("set_token", "zerodha", "main", stdout=io.StringIO())


def test_a_token_of_two_parts_is_two_lines_or_one_of_them(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    account = angel()
    run(monkeypatch, "angel", "main", stdin="jwt\nfeed\n")
    assert stored(account) == {"jwt_token": "jwt", "feed_token": "feed"}
    run(monkeypatch, "angel", "main", stdin="another\n", fields=("feed_token",))
    assert stored(account) == {"jwt_token": "jwt", "feed_token": "another"}
    with pytest.raises(CommandError, match="--field is 'pin'; the token of Angel One is jwt_token and feed_token"):
        run(monkeypatch, "angel", "main", fields=("pin",))


@pytest.mark.parametrize(
    ("words", "stdin", "sentence"),
    [
        (("zerodah", "main"), "t\n", "There is no broker 'zerodah'; did you mean zerodha?"),
        (("x", "main"), "t\n", "There is no broker 'x'; there is angel, "),
        (("zerodha", "mian"), "t\n", "Zerodha has no account 'mian'; did you mean main?"),
        (("zerodha", "x"), "t\n", "Zerodha has no account 'x'; it has main."),
        (("angel", "main"), "t\n", "Angel One has no account 'main', nor any other; add one in the admin."),
        (("zerodha", "main"), "", "The token of Zerodha is access_token, and nothing was given."),
        (("zerodha", "main"), jwt(1_000_000) + "\n", "This token of Zerodha has ended already; get a new one."),
        (("zerodha", "main"), "otherkey:swordfish\n", "What stands before the colon is not this account's API key"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], stdin: str, sentence: str
) -> None:
    with pytest.raises(CommandError) as error:
        run(monkeypatch, *words, stdin=stdin)
    assert str(error.value).startswith(sentence)
    assert "swordfish" not in str(error.value)
    assert (stored(account), Attempt.objects.count()) == ({"api_key": "kitekey"}, 0)


def test_the_api_key_before_a_token_is_cut(account: BrokerAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "zerodha", "main", stdin="kitekey:swordfish\n")
    assert stored(account)["access_token"] == "swordfish"


def test_credentials_that_cannot_be_read_are_one_sentence(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.CREDENTIALS_KEYS = ["another-key" * 4]
    with pytest.raises(CommandError, match="cannot be read with any key"):
        run(monkeypatch, "zerodha", "main", stdin="swordfish\n")
