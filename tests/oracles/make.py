"""
Makes the environments in which brokers' official SDKs live: `python tests/oracles/make.py` (or `make oracles`).

One virtual environment an SDK, under `.oracles/`, because their pins clash with the project's and with each other. Only
the standard library is used here, so any Python 3.11 can run it. What is there already is left alone.
"""

from __future__ import annotations

import subprocess
import sys
import venv
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


def make(name: str) -> None:
    """Makes one environment anew. Raises CalledProcessError."""
    print(f"oracle {name}: installing {' '.join(ORACLES[name])} …", flush=True)
    venv.create(FOLDER / name, clear=True, with_pip=True)
    subprocess.run([python_of(name), "-m", "pip", "install", "-q", *ORACLES[name]], check=True)
    (FOLDER / name / "requirements.txt").write_text("\n".join(ORACLES[name]))


def main() -> int:
    """Makes what is missing."""
    for name in ORACLES:
        if not is_made(name):
            make(name)
    print(f"Oracles are ready: {', '.join(ORACLES)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
