"""`manage.py create_api_key`, called as a script would call it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from marketdata import auth
from marketdata.models import ApiKey
from tests.conftest import run_manage


def test_the_key_alone_is_on_stdout_and_opens(db: None, capsys: Any) -> None:
    call_command("create_api_key", "charts")
    printed = capsys.readouterr()
    assert auth.find(printed.out.removesuffix("\n")) == ApiKey.objects.get(name="charts")
    assert "not shown again" in printed.err
    assert printed.out.strip() not in printed.err


def test_all_its_options_reach_the_row(db: None, django_user_model: Any) -> None:
    user = django_user_model.objects.create(username="asha")
    options = ["--user=asha", "--max-symbols=10", "--max-connections=2", "--feed=desk", "--expires=2099-12-31"]
    call_command("create_api_key", "charts", *options, stdout=io.StringIO())
    row = ApiKey.objects.get()
    assert (row.owner, row.max_symbols, row.max_connections, row.feed) == (user, 10, 2, "desk")
    assert row.expires_at
    assert timezone.localtime(row.expires_at).strftime("%Y-%m-%d %H:%M %z") == "2099-12-31 23:59 +0530"


def test_an_existing_key_is_read_from_stdin_and_not_printed(db: None, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("0123456789abcdef0123\n"))
    call_command("create_api_key", "charts", "--import")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "0123456789" not in printed.err
    assert auth.find("0123456789abcdef0123") == ApiKey.objects.get()


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (["charts", "--user=nobody"], "", "There is no user 'nobody'"),
        (["charts", "--expires=31.12.2099"], "", "write a date as 2026-12-31"),
        (["charts", "--expires=2001-01-01"], "", "which is past"),
        (["charts", "--max-symbols=0"], "", "--max-symbols: "),
        (["charts", "--max-connections=-1"], "", "--max-connections: "),
        (["charts", "--feed=my desk"], "", "--feed: "),
        ([""], "", "NAME: "),
        (["charts", "--import"], "short\n", "this one has 5"),
        (["charts", "--import"], "", "this one has 0"),
    ],
)
def test_a_mistake_is_a_sentence_and_makes_no_row(
    db: None, monkeypatch: Any, arguments: list[str], stdin: str, sentence: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    with pytest.raises(CommandError) as caught:
        call_command("create_api_key", *arguments)
    assert sentence in str(caught.value)
    assert not ApiKey.objects.exists()


def test_a_key_that_is_here_already_is_not_imported_again(db: None, monkeypatch: Any) -> None:
    auth.adopt("0123456789abcdef0123", "first")
    monkeypatch.setattr("sys.stdin", io.StringIO("0123456789abcdef0123"))
    with pytest.raises(CommandError, match="exists already"):
        call_command("create_api_key", "second", "--import")


def test_a_mistake_on_the_command_line_is_no_traceback(tmp_path: Any) -> None:
    assert run_manage("migrate", "-v0", STREAM_DATA_DIR=str(tmp_path)).returncode == 0
    done = run_manage("create_api_key", "charts", "--expires=soon", STREAM_DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CommandError: --expires is 'soon'; write a date as 2026-12-31.\n"
