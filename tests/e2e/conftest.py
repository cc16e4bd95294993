"""The whole product for a test: a template once, a stack of processes for each module or test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, Template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A database with 400 instruments, an account and a key."""
    return Template(tmp_path_factory.mktemp("template"), symbols=400)


@pytest.fixture
def stack(tmp_path: Path, template: Template, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack of this test's own, not started; ended afterwards, with its logs shown if the test failed."""
    own = Stack(tmp_path / "stack", template)
    yield own
    own.stop()
    print(own.logs())
