"""Where commands print tables."""

from __future__ import annotations

import sys
from typing import IO, cast

from rich.console import Console

PIPED_WIDTH = 160


def console(stdout: object) -> Console:
    """A command's `self.stdout` for tables: wide where it is no terminal, so that what is piped on is not folded."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(file=cast("IO[str]", stdout), width=width, highlight=False)
