"""`manage.py startbroker NAME`: the files of a new broker, ready to be filled in like a form."""

from __future__ import annotations

import argparse
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from string import Template
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from brokers import families, registry

SCAFFOLD = Path(__file__).resolve().parents[1] / "scaffold"


class Command(BaseCommand):
    """Writes an adapter, a simulator and a test folder; touches nothing that is there."""

    help = "Make the files of a new broker: an adapter, a simulator, tests. The cards then say what is still to do."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The slug, and what is known already."""
        parser.add_argument("name", help="the slug: small letters, digits and _, for example shoonya")
        parser.add_argument("--family", choices=_families(), help="a member of a family: a declaration, no code")
        parser.add_argument("--title", help="the broker's name as people write it (default: from the slug)")
        parser.add_argument("--docs", default="https://FILL.IN", help="address of the API's documentation")
        parser.add_argument("--folder", type=Path, default=settings.BASE_DIR, help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError with one sentence, before anything is written."""
        slug: str = options["name"]
        if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
            raise CommandError(f"{slug!r} is no slug; use small letters, digits and _, for example shoonya.")
        if slug in registry.slugs():
            raise CommandError(f"There is an adapter {slug!r} already.")
        values = {
            "slug": slug,
            "name": options["title"] or slug.replace("_", " ").title(),
            "class_name": "".join(part.title() for part in slug.split("_")),
            "docs": options["docs"],
            "family": options["family"] or "",
            "arguments": _arguments(options["family"], slug) if options["family"] else "",
        }
        written = _write(options["folder"], slug, values, options["family"])
        self.stdout.write("Written:\n" + "\n".join(f"  {path}" for path in written))
        self.stdout.write(
            f"Next: fill in what says FILL IN, add recorded frames and a master sample to tests/adapters/{slug}, "
            f"then run: make test TESTS='tests/adapters -k {slug}'. docs/adding-a-broker.md has the whole way."
        )


def _families() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules(families.__path__))


def _arguments(family: str, slug: str) -> str:
    """The call of a family's `adapter`, an argument a line; those without a default are to be filled in."""
    adapter = importlib.import_module(f"{families.__name__}.{family}").adapter
    lines = [
        f'    slug="{slug}",' if name == "slug" else f"    {name}=...,  # FILL IN"
        for name, parameter in inspect.signature(adapter).parameters.items()
        if parameter.default is parameter.empty
    ]
    return "\n".join(lines)


def _write(folder: Path, slug: str, values: dict[str, str], family: str | None) -> list[Path]:
    tests = Path("tests/adapters") / slug
    files = {
        Path(f"brokers/adapters/{slug}.py"): "member.py-tpl" if family else "adapter.py-tpl",
        Path(f"brokers/simulators/{slug}.py"): "simulator.py-tpl",
        tests / "__init__.py": "",
        tests / f"test_{slug}.py": "test.py-tpl",
        tests / "frames" / "SOURCES.md": "SOURCES.md-tpl",
    }
    there = [path for path in files if (folder / path).exists()]
    if there:
        raise CommandError(f"{there[0]} is there already; nothing was written.")
    for path, template in files.items():
        text = Template((SCAFFOLD / template).read_text()).substitute(values) if template else ""
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return list(files)
