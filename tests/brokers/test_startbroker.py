"""The scaffold: what it writes is code that runs, and nothing that is there is touched."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from brokers.management.commands import startbroker


def start(folder: Path, *arguments: str) -> str:
    out = io.StringIO()
    call_command("startbroker", *arguments, folder=folder, stdout=out)
    return out.getvalue()


def test_it_writes_an_adapter_a_simulator_and_a_test_folder(tmp_path: Path) -> None:
    text = start(tmp_path, "best_broker", "--docs", "https://best.example/api")
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == [
        "brokers/adapters/best_broker.py",
        "brokers/simulators/best_broker.py",
        "tests/adapters/best_broker/__init__.py",
        "tests/adapters/best_broker/frames/SOURCES.md",
        "tests/adapters/best_broker/test_best_broker.py",
    ]
    assert all(path in text for path in written)
    assert "https://best.example/api" in (tmp_path / written[0]).read_text()


def test_the_adapter_it_writes_is_whole_but_for_the_facts(tmp_path: Path) -> None:
    start(tmp_path, "best_broker")
    scope: dict[str, object] = {"__name__": "best_broker"}
    exec(compile((tmp_path / "brokers/adapters/best_broker.py").read_text(), "best_broker.py", "exec"), scope)
    adapter = scope["ADAPTER"]
    assert adapter.spec.slug == "best_broker"  # type: ignore[attr-defined]
    assert adapter.spec.name == "Best Broker"  # type: ignore[attr-defined]
    ast.parse((tmp_path / "brokers/simulators/best_broker.py").read_text())


@pytest.mark.parametrize("family", startbroker._families())
def test_a_member_of_a_family_is_a_declaration(tmp_path: Path, family: str) -> None:
    start(tmp_path, "cousin", "--family", family)
    text = (tmp_path / "brokers/adapters/cousin.py").read_text()
    ast.parse(text)
    assert f"from brokers.families import {family}" in text
    assert 'slug="cousin"' in text


@pytest.mark.parametrize(("name", "sentence"), [("Best", "is no slug"), ("zerodha", "already")])
def test_a_name_that_cannot_be_is_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        start(tmp_path, name)


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    start(tmp_path, "best_broker")
    with pytest.raises(CommandError, match="is there already; nothing was written"):
        start(tmp_path, "best_broker")
