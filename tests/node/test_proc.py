"""What /proc says of processes, made up and real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.proc import TICKS, Stat, parse_stat, processes

STAT = "42 (muslin: a) b) S 7 42 42 0 -1 4194560 900 0 0 0 {user} {system} 5 6 20 0 9 0 1 2 3"


def test_cpu_is_user_and_system_whatever_the_name() -> None:
    assert parse_stat(STAT.format(user=3 * TICKS, system=TICKS)) == (7, 4.0)


def test_processes_are_found_by_id_and_those_that_ended_are_left_out(tmp_path: Path) -> None:
    for name in ("10", "11", "self"):
        (tmp_path / name).mkdir()
    stat = STAT.format(user=TICKS, system=0).encode().replace(b"muslin", b"\xff\xfe")
    (tmp_path / "10" / "stat").write_bytes(stat)
    (tmp_path / "self" / "stat").write_bytes(stat)
    assert processes(tmp_path) == {10: Stat(7, 1.0)}


def test_this_very_process_is_there_with_its_parent() -> None:
    own = processes()[os.getpid()]
    assert own.parent == os.getppid()
    assert own.cpu_seconds > 0


def test_without_proc_nothing_is_made_up(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        processes(tmp_path / "nothing")
