"""How busy the machine and the daemon are, from /proc: two looks, and the difference.

The daemon's share includes the processes that it started (lanes), except the far end of the
measurement itself. Times are in clock ticks, so a share over a second is good to a per cent.

References:
    proc(5): /proc/stat.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node.bench.figures import Json, Load
from node.proc import PROC, TICKS, processes

_IDLE: Final = slice(3, 5)  # idle, iowait
_ALL: Final = slice(0, 8)  # user to steal; guest time is inside user time


@dataclass(frozen=True, slots=True)
class Usage:
    """One look.

    Attributes:
        when: monotonic seconds.
        idle, total: processor seconds of the whole machine since it started.
        cores: how many it has.
        processes: processor seconds of the daemon and of each process it started, by id.
    """

    when: float
    idle: float
    total: float
    cores: int
    processes: Mapping[int, float] = field(default_factory=dict)

    def json(self) -> Json:
        """To be sent to the other end."""
        processes = {str(pid): seconds for pid, seconds in self.processes.items()}
        return {
            "when": self.when,
            "idle": self.idle,
            "total": self.total,
            "cores": self.cores,
            "processes": processes,
        }

    @classmethod
    def from_json(cls, value: Json) -> Usage:
        """What the other end sent.

        Raises:
            ValueError, KeyError, TypeError: it is something else. Nothing else.
        """
        processes = value["processes"]
        if not isinstance(processes, dict):
            raise TypeError("processes must be an object")
        return cls(
            when=float(str(value["when"])),
            idle=float(str(value["idle"])),
            total=float(str(value["total"])),
            cores=int(str(value["cores"])),
            processes={int(pid): float(seconds) for pid, seconds in processes.items()},
        )


def look(pid: int, *, without: int = 0, proc: Path = PROC) -> Usage | None:
    """Look at the machine, and at the daemon `pid` with what it started, except `without`.

    Returns:
        None where /proc does not show it.
    """
    try:
        lines = (proc / "stat").read_text().splitlines()
        times = [int(word) for word in lines[0].split()[1:]]
        used = {
            found: stat.cpu_seconds
            for found, stat in processes(proc).items()
            if pid in (found, stat.parent) and found != without
        }
    except (OSError, ValueError, IndexError):
        return None
    if pid not in used:
        return None
    cores = sum(line.startswith("cpu") for line in lines) - 1
    return Usage(
        when=time.monotonic(),
        idle=sum(times[_IDLE]) / TICKS,
        total=sum(times[_ALL]) / TICKS,
        cores=max(1, cores),
        processes=used,
    )


def load_between(before: Usage | None, after: Usage | None) -> Load | None:
    """How busy it was between two looks; None if one of them is missing."""
    if before is None or after is None or after.when <= before.when:
        return None
    seconds = after.when - before.when
    shares = [
        max(0.0, used - before.processes[pid]) / seconds
        for pid, used in after.processes.items()
        if pid in before.processes
    ]
    total = after.total - before.total
    return Load(
        daemon=sum(shares),
        busiest=max(shares, default=0.0),
        idle=min(1.0, max(0.0, (after.idle - before.idle) / total)) if total > 0 else 1.0,
        cores=after.cores,
    )
