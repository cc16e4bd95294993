"""`python -m bench`: measures, and shows what it found; see bench/README.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.markup import escape

from bench import adapter, decoders, dialects, lookup, scaling, suite
from bench.processes import BenchError
from bench.report import CONSOLE

COMMANDS = {
    "all": suite.everything,
    "workloads": suite.workloads,
    "peers": suite.peers,
    "load": suite.load,
    "scaling": scaling.run,
    "soak": suite.soak,
    "adapter": adapter.run,
    "decoders": decoders.run,
    "dialects": dialects.run,
    "lookup": lookup.run,
    "smoke": suite.smoke,
}


def main() -> int:
    """Runs one command; a part that does not come up is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    words = "; ".join(f"{name}: {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items())
    parser.add_argument("command", nargs="?", default="all", choices=COMMANDS, help=words)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured time of each run (default 10)")
    parser.add_argument("--only", nargs="+", default=None, help="workloads by name (default: all)")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="where figures and pictures go")
    parser.add_argument("--postgres-url", default="", help="lookup: also an empty database at this postgres:// address")
    options = parser.parse_args()
    try:
        COMMANDS[options.command](options)
    except BenchError as error:
        CONSOLE.print(f"[red]{escape(str(error))}[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
