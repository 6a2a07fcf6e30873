"""What daemons use: processor time and memory, with all threads and all processes they started.

References:
    proc(5): utime and stime of /proc/PID/stat, VmRSS and VmHWM of /proc/PID/status.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """Of one process."""

    parent: int
    cpu_seconds: float
    """User and system, of all its threads."""


class Usage(NamedTuple):
    """Of several processes together."""

    cpu_seconds: float
    rss: int
    """Bytes in memory now. Pages that processes share count once for each."""
    rss_peak: int
    """Sum of each process's own peak, in bytes."""


def parse_stat(text: str) -> Stat:
    """Read /proc/PID/stat. The command's name, in parentheses, may hold anything.

    >>> parse_stat("7 (a) b) S 3 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1").parent
    3
    """
    fields = text.rpartition(")")[2].split()
    return Stat(int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS)


def parse_rss(text: str) -> tuple[int, int]:
    r"""Bytes in memory now and at most, from /proc/PID/status.

    >>> parse_rss("Name: x\nVmHWM:      30 kB\nVmRSS:      20 kB\n")
    (20480, 30720)
    """
    sizes = {"VmRSS": 0, "VmHWM": 0}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if key in sizes:
            sizes[key] = int(rest.split()[0]) << 10
    return sizes["VmRSS"], sizes["VmHWM"]


def family(roots: Collection[int], parents: Mapping[int, int]) -> set[int]:
    """Processes and all that descend from them.

    >>> sorted(family([2], {2: 1, 3: 2, 4: 3, 5: 1}))
    [2, 3, 4]
    """
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def usage(roots: Collection[int]) -> Usage:
    """Of these processes and their descendants, as far as they still run."""
    stats = dict(_stats())
    total = Usage(0.0, 0, 0)
    for pid in family(roots, {pid: stat.parent for pid, stat in stats.items()}):
        rss, peak = _rss(pid)
        cpu = stats[pid].cpu_seconds if pid in stats else 0.0
        total = Usage(total.cpu_seconds + cpu, total.rss + rss, total.rss_peak + peak)
    return total


def _stats() -> Iterable[tuple[int, Stat]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), parse_stat((entry / "stat").read_text(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked


def _rss(pid: int) -> tuple[int, int]:
    try:
        return parse_rss((_PROC / str(pid) / "status").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
