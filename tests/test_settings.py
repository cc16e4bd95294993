"""Settings from the environment and `.env`: what is written, what wins, and what a mistake looks like."""

from __future__ import annotations

import os
import re
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from streamproject import settings as real_settings
from streamproject.env import Env
from tests.conftest import PROJECT, run_manage

PRINT_SECRETS = "from django.conf import settings; print(settings.SECRET_KEY, settings.CREDENTIALS_KEYS)"


def print_secrets(env_file: Path, **environment: str) -> str:
    done = run_manage("shell", "-v0", "-c", PRINT_SECRETS, STREAM_ENV_FILE=str(env_file), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of(env_file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line)


def test_the_first_start_writes_random_secrets_that_the_next_start_reads(tmp_path: Path) -> None:
    file, other = tmp_path / ".env", tmp_path / "other.env"
    first = print_secrets(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(lines_of(file)) == {"SECRET_KEY", "CREDENTIALS_KEY"}
    assert all(len(value) >= 64 for value in lines_of(file).values())
    assert print_secrets(file) == first
    assert print_secrets(other) != first


def test_a_file_that_lacks_a_secret_gets_that_line_and_keeps_the_others(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# mine\nSECRET_KEY=chosen-by-the-user-0123456789-0123456789\nLOG_LEVEL=ERROR")
    printed = print_secrets(file)
    assert printed.startswith("chosen-by-the-user-0123456789-0123456789 ")
    assert file.read_text().startswith(
        "# mine\nSECRET_KEY=chosen-by-the-user-0123456789-0123456789\nLOG_LEVEL=ERROR\nCREDENTIALS_KEY="
    )
    assert print_secrets(file) == printed


def test_secrets_in_the_environment_win_and_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    secrets = {"SECRET_KEY": "from-the-environment-" * 2, "CREDENTIALS_KEY": f"{'new' * 12},{'old' * 12}"}
    assert print_secrets(file, **secrets) == f"{'from-the-environment-' * 2} ['{'new' * 12}', '{'old' * 12}']\n"
    assert not file.exists()


def test_processes_that_start_at_once_agree_on_one_pair_of_secrets(tmp_path: Path) -> None:
    code = "from streamproject import settings; print(settings.SECRET_KEY, settings.CREDENTIALS_KEYS)"
    environment = os.environ | {"STREAM_ENV_FILE": str(tmp_path / ".env")}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert len(printed) == 1
    assert printed.pop().strip()
    assert len((tmp_path / ".env").read_text().splitlines()) == 2


def test_what_the_file_says_does_not_reach_child_processes_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("ZMQ_PORT=5999\n")
    code = "import os; from django.conf import settings; print(settings.ZMQ_PORT, os.environ.get('ZMQ_PORT'))"
    done = run_manage("shell", "-v0", "-c", code, STREAM_ENV_FILE=str(file))
    assert done.stdout == "5999 None\n"


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("WEBSOCKET_PORT", "abc", "a whole number from 1 to 65535"),
        ("WEBSOCKET_PORT", "70000", "a whole number from 1 to 65535"),
        ("ZMQ_PORT", "0", "a whole number from 1 to 65535"),
        ("THROTTLE_MS", "-1", "a whole number of at least 0"),
        ("THROTTLE_MS", "49", "50 or more milliseconds, or 0"),
        ("SLOW_CLIENT_S", "never", "a number of seconds above 0"),
        ("SLOW_CLIENT_S", "nan", "a number of seconds above 0"),
        ("TICK_LANES", "0", "from 1 to 256"),
        ("MAX_SYMBOLS_PER_WEBSOCKET", "1e3", "a whole number of at least 1"),
        ("REDIS_URL", "http://localhost:6379", "redis://HOST:PORT/0"),
        ("REDIS_URL", "redis://localhost:port", "redis://HOST:PORT/0"),
        ("REDIS_URL", "localhost:6379", "redis://HOST:PORT/0"),
        ("ALERT_WEBHOOK_URL", "hooks.example.in/x", "use https://HOST/PATH"),
        ("ALERT_WEBHOOK_URL", "ftp://hooks.example.in/x", "use https://HOST/PATH"),
        ("ALERT_WEBHOOK_URL", "https:///x", "use https://HOST/PATH"),
        ("ALERT_WEBHOOK_URL", "https://hooks.example.in:port/x", "use https://HOST/PATH"),
        ("ALERT_WEBHOOK_URL", "https://hooks.example.in/a b", "use https://HOST/PATH"),
        ("DATABASE_URL", "mysql://localhost/stream", "sqlite:///FILE or postgres://"),
        ("DATABASE_URL", "sqlite://:memory:", "sqlite:///FILE or postgres://"),
        ("DATABASE_URL", "nonsense", "sqlite:///FILE or postgres://"),
        ("DEBUG", "perhaps", "use true or false"),
        ("LOG_LEVEL", "loud", "use one of CRITICAL, DEBUG"),
        ("STREAM_ENV_FILE", "/there/is/no/such/folder/.env", "Set them in the environment"),
    ],
)
def test_a_bad_value_is_one_sentence_that_says_what_to_write(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, hint: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as caught:
        runpy.run_path(str(PROJECT / "streamproject" / "settings.py"))
    assert hint in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["check", "create_api_key"])
def test_a_bad_value_ends_a_command_with_its_sentence_alone_and_exit_code_2(command: str) -> None:
    done = run_manage(command, WEBSOCKET_PORT="abc")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "WEBSOCKET_PORT is 'abc'; use a whole number from 1 to 65535.\n"


def test_a_redis_password_is_not_repeated_in_the_sentence() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Env({"REDIS_URL": "http://:swordfish@localhost:6379"}).redis_url("REDIS_URL")
    assert "swordfish" not in str(caught.value)


def test_a_webhooks_address_is_not_repeated_in_the_sentence() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Env({"ALERT_WEBHOOK_URL": "hooks.example.in/swordfish"}).url("ALERT_WEBHOOK_URL")
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["", "http://127.0.0.1:9000/hook", "https://u:p@ntfy.example.in/topic?tpl=1&m=%7B%7D"]
)
def test_web_addresses_are_accepted(value: str) -> None:
    assert Env({"ALERT_WEBHOOK_URL": value}).url("ALERT_WEBHOOK_URL") == value


@pytest.mark.parametrize("value", ["redis://localhost", "rediss://:pw@10.0.0.5:6380/2", "unix:///run/valkey.sock"])
def test_the_addresses_of_a_redis_are_accepted(value: str) -> None:
    assert Env({"REDIS_URL": value}).redis_url("REDIS_URL") == value


def test_a_database_url_is_a_file_in_the_data_folder_an_absolute_file_or_a_server(tmp_path: Path) -> None:
    def names(url: str) -> tuple[str, object, str]:
        config = Env({"DATABASE_URL": url}).database("DATABASE_URL", tmp_path)
        return config["ENGINE"].rpartition(".")[2], config["NAME"], config.get("HOST", "")

    assert names("") == ("sqlite3", tmp_path / "db.sqlite3", "")
    assert names("sqlite:///other.sqlite3") == ("sqlite3", tmp_path / "other.sqlite3", "")
    assert names("sqlite:////var/lib/stream.sqlite3") == ("sqlite3", Path("/var/lib/stream.sqlite3"), "")
    assert names("postgres://u:p%40ss@db.example.in:5432/stream") == ("postgresql", "stream", "db.example.in")


def test_the_example_file_lists_every_setting_there_is() -> None:
    listed = set(re.findall(r"^#?([A-Z_]+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    assert listed == real_settings.env.asked | {"STREAM_ENV_FILE"}


def test_every_value_in_the_example_file_is_the_default(tmp_path: Path) -> None:
    code = """
from streamproject import settings
print({name: str(getattr(settings, name)) for name in dir(settings)
       if name.isupper() and name not in ("SECRET_KEY", "CREDENTIALS_KEYS", "DATABASES")})"""
    (tmp_path / "filled.env").write_text((PROJECT / ".env.example").read_text())
    (tmp_path / "empty.env").write_text("")
    environment = {"SECRET_KEY": "s" * 40, "CREDENTIALS_KEY": "c" * 40}
    printed = [
        run_manage("shell", "-v0", "-c", code, STREAM_ENV_FILE=str(tmp_path / name), **environment)
        for name in ("filled.env", "empty.env")
    ]
    logging_objects = re.compile(r"at 0x[0-9a-f]+")
    assert logging_objects.sub("", printed[0].stdout) == logging_objects.sub("", printed[1].stdout) != ""


def test_the_database_waits_its_turn_and_lets_readers_in_beside_a_writer(db: None) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)
        cursor.execute("PRAGMA busy_timeout")
        assert cursor.fetchone() == (20000,)
    assert connection.settings_dict["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_the_admins_styles_are_served_without_debug_and_without_collectstatic(client: Client) -> None:
    answer = client.get("/static/admin/css/base.css")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/css")


def test_log_lines_are_readable_hide_secrets_and_show_no_local_variables() -> None:
    code = """
import logging, structlog
def fail():
    password = "swordfish"
    raise ValueError("no")
structlog.get_logger("brokers.pool").info("login", account="main", access_token="swordfish")
logging.getLogger("django.request").warning("plain %s", "words")
try:
    fail()
except ValueError:
    structlog.get_logger("x").exception("failed")
"""
    done = run_manage("shell", "-v0", "-c", code)
    assert done.returncode == 0
    assert done.stdout == ""
    assert re.search(r"login +\[brokers.pool\] *access_token=\(hidden\) account=main", done.stderr)
    assert "plain words" in done.stderr
    assert "ValueError: no" in done.stderr
    assert "swordfish" not in done.stderr.replace('password = "swordfish"', "")
