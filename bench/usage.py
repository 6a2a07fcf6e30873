"""What daemons use: processor time and memory, with all threads and all processes they started.

References:
    proc(5): VmRSS and VmHWM of /proc/PID/status.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from node.proc import PROC, processes


class Usage(NamedTuple):
    """Of several processes together."""

    cpu_seconds: float
    rss: int
    """Bytes in memory now. Pages that processes share count once for each."""
    rss_peak: int
    """Sum of each process's own peak, in bytes."""


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
    stats = processes()
    total = Usage(0.0, 0, 0)
    for pid in family(roots, {pid: stat.parent for pid, stat in stats.items()}):
        rss, peak = _rss(pid)
        cpu = stats[pid].cpu_seconds if pid in stats else 0.0
        total = Usage(total.cpu_seconds + cpu, total.rss + rss, total.rss_peak + peak)
    return total


def _rss(pid: int) -> tuple[int, int]:
    try:
        return parse_rss((PROC / str(pid) / "status").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
