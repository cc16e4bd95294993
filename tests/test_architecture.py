"""What the code may import, that migrations are complete, and that the dependency files are usable anywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, run_manage

PACKAGES = ("streamproject", "marketdata", "brokers")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)


def test_the_import_contracts_hold() -> None:
    done = lint_imports(PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("marketdata/hub.py", "from brokers import models", "marketdata reaches brokers only through the catalogue"),
        ("marketdata/management/commands/x.py", "import brokers.feed.plan", "marketdata reaches brokers only"),
        ("brokers/feed/plan.py", "from marketdata.errors import ERRORS", "brokers reaches marketdata only through"),
        ("brokers/adapters/zerodha/__init__.py", "import logging", "The pure core does no I/O"),
        ("brokers/models.py", "from streamproject import settings", "Apps never import the project"),
        ("brokers/registry.py", "from brokers import models", "brokers, from the edge inwards"),
        ("marketdata/novelty.py", "", "marketdata, from the edge inwards"),
    ],
)
def test_an_import_that_is_not_allowed_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert re.search(rf"{re.escape(contract)}.* BROKEN", done.stdout)


def test_every_change_of_a_model_has_its_migration() -> None:
    done = run_manage("makemigrations", "--check", "--dry-run")
    assert done.returncode == 0, done.stdout


def test_every_test_package_can_be_imported_beside_the_others() -> None:
    """Two test files of one name collide unless their folders are packages."""
    names = [path.stem for path in (PROJECT / "tests").rglob("test_*.py")]
    twice = {name for name in names if names.count(name) > 1}
    loose = [
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "tests").rglob("test_*.py")
        if path.stem in twice and not (path.parent / "__init__.py").exists()
    ]
    assert loose == []


def test_the_constraints_name_exact_versions_and_no_address() -> None:
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][^\s/]*( ; [^/]+)?", line) for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    wanted = {
        re.split(r"[\[>=<;~ ]", line)[0]
        for name in ("requirements.txt", "requirements-postgres.txt", "requirements-dev.txt")
        for line in (PROJECT / name).read_text().splitlines()
        if line and line[0] not in "#-"
    }
    assert wanted <= pinned
