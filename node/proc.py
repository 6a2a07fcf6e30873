"""What /proc says of processes: who started whom, and the processor time that each has used.

Times are counted in clock ticks, a hundredth of a second nearly everywhere.

References:
    proc(5): /proc/PID/stat, fields 4 (ppid), 14 (utime) and 15 (stime).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

PROC: Final = Path("/proc")
TICKS: Final = os.sysconf("SC_CLK_TCK")
"""Per second."""

_PARENT, _USER, _SYSTEM = 1, 11, 12  # behind the closing bracket of the name


class Stat(NamedTuple):
    """Of one process."""

    parent: int
    cpu_seconds: float
    """User and system, of all its threads."""


def parse_stat(text: str) -> Stat:
    """Read /proc/PID/stat. The command's name, in brackets, may hold anything, also brackets.

    >>> parse_stat("7 (a) b) S 3 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1").parent
    3
    """
    fields = text.rpartition(")")[2].split()
    return Stat(int(fields[_PARENT]), (int(fields[_USER]) + int(fields[_SYSTEM])) / TICKS)


def processes(proc: Path = PROC) -> dict[int, Stat]:
    """Every process that runs and can be seen, by its id.

    Raises:
        OSError: there is no /proc. Nothing else.
    """
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = parse_stat((entry / "stat").read_text(errors="replace"))
            except OSError:
                continue  # it has ended meanwhile
    return found
