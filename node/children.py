"""Modules of our own as child processes: `python -m node.lanes.worker`, the same code as ours.

Whatever the working directory is and whether the packages are installed or not, a child finds them
where this process did.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PACKAGES: Final = Path(__file__).resolve().parents[1]
"""The folder that holds the packages."""


def command(module: str, *words: object) -> list[str]:
    """The command line that runs a module of ours.

    >>> command("node.lanes.worker", 3)[1:]
    ['-m', 'node.lanes.worker', '3']
    """
    return [sys.executable, "-m", module, *map(str, words)]


def environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables for such a child: those given, and where the packages are before all else."""
    paths = [str(PACKAGES), *filter(None, [variables.get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}
