"""
Makes the environments in which brokers' official SDKs live: `python tests/oracles/make.py` (or `make oracles`).

One virtual environment an SDK, under `.oracles/`, because their pins clash with the project's and with each other. Only
the standard library is used here, so any Python 3.11 can run it. What is there already is left alone, and so is an SDK
that needs a newer Python than any at hand: a list whose first line is `# Python 3.12 or newer.`
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".oracles"

ORACLES: dict[str, tuple[str, ...]] = {
    path.name.removesuffix("_requirements.txt"): tuple(
        line for line in path.read_text().splitlines() if line and not line.startswith("#")
    )
    for path in sorted(Path(__file__).parent.glob("*_requirements.txt"))
}
"""Environment's name: what is installed into it, from `<name>_requirements.txt` beside this file."""


def python_of(name: str) -> Path:
    """The interpreter of an environment, whether it is there or not."""
    return FOLDER / name / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def is_made(name: str) -> bool:
    """Whether an environment was made whole, from the present list."""
    stamp = FOLDER / name / "requirements.txt"
    return stamp.is_file() and stamp.read_text().splitlines() == list(ORACLES[name])


def base_of(name: str) -> str | None:
    """The Python that an environment is made with: this one, or a newer one its list asks for; None: there is none."""
    head = Path(__file__).with_name(f"{name}_requirements.txt").read_text().partition("\n")[0]
    asked = re.match(r"# Python (\d+)\.(\d+) or newer", head)
    if asked is None or sys.version_info[:2] >= (int(asked[1]), int(asked[2])):
        return sys.executable
    return next((python for python in _pythons() if _fits(python, int(asked[1]), int(asked[2]))), None)


def _pythons() -> Iterator[str]:
    """Newer Pythons that may be here: on the path, and those that pyenv keeps off it."""
    for minor in range(sys.version_info.minor + 1, 20):
        found = shutil.which(f"python3.{minor}")
        if found:
            yield found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(root.glob("versions/*/bin/python3")))


def _fits(python: str, major: int, minor: int) -> bool:
    """Whether it runs, is new enough and can make environments."""
    code = f"import sys, venv, ensurepip; sys.exit(sys.version_info < ({major}, {minor}))"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def make(name: str, python: str) -> None:
    """Makes one environment anew. Raises CalledProcessError."""
    print(f"oracle {name}: installing {' '.join(ORACLES[name])} …", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", FOLDER / name], check=True)
    subprocess.run([python_of(name), "-m", "pip", "install", "-q", *ORACLES[name]], check=True)
    (FOLDER / name / "requirements.txt").write_text("\n".join(ORACLES[name]))


def main() -> int:
    """Makes what is missing."""
    for name in ORACLES:
        if is_made(name):
            continue
        python = base_of(name)
        if python is None:
            print(f"oracle {name}: left out, no Python here is new enough.")
        else:
            make(name, python)
    print(f"Oracles are ready: {', '.join(name for name in ORACLES if is_made(name))}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
