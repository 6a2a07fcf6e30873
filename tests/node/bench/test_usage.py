"""Processor time from /proc: whose counts, and what two looks give."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from node.bench.usage import Usage, load_between, look

TICKS = os.sysconf("SC_CLK_TCK")


def write(proc: Path, idle: int, busy: int, processes: dict[int, tuple[int, int]]) -> None:
    """A /proc: idle and busy ticks, and parent and ticks of each process."""
    lines = [f"cpu {busy} 0 0 {idle} 0 0 0 0 99 99", "cpu0 1", "cpu1 1", "intr 5"]
    (proc / "stat").write_text("\n".join(lines))
    (proc / "self").mkdir(exist_ok=True)
    for pid, (parent, ticks) in processes.items():
        (proc / str(pid)).mkdir(exist_ok=True)
        fields = f"S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 0 7 7 20"
        (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) {fields}")


def test_the_daemon_counts_with_what_it_started_and_without_the_far_end(tmp_path: Path) -> None:
    tree = {10: (1, 50), 11: (10, 70), 12: (10, 900), 13: (11, 5), 14: (1, 5)}
    write(tmp_path, 100, 300, tree)
    usage = look(10, without=12, proc=tmp_path)
    assert usage is not None
    assert usage.processes == {10: 50 / TICKS, 11: 70 / TICKS}
    assert (usage.idle, usage.total, usage.cores) == (100 / TICKS, 400 / TICKS, 2)


def test_a_process_that_is_not_there_is_not_shown(tmp_path: Path) -> None:
    assert look(10, proc=tmp_path) is None
    write(tmp_path, 1, 1, {11: (10, 5)})
    assert look(10, proc=tmp_path) is None


def test_this_very_process_can_be_looked_at() -> None:
    usage = look(os.getpid())
    assert usage is not None
    assert usage.processes[os.getpid()] > 0
    assert 0 < usage.idle < usage.total


def test_a_look_survives_the_way_to_the_other_end() -> None:
    usage = Usage(5.0, 1.5, 2.5, 2, {10: 0.5})
    assert Usage.from_json(json.loads(json.dumps(usage.json()))) == usage


@pytest.mark.parametrize("change", [{"processes": 5}, {"when": "x"}, {"processes": {"a": 1}}])
def test_something_else_is_not_taken_for_a_look(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Usage.from_json({**Usage(5.0, 1.5, 2.5, 2).json(), **change})


def test_a_load_is_the_difference_of_two_looks() -> None:
    before = Usage(10.0, idle=5.0, total=20.0, cores=2, processes={1: 3.0, 2: 1.0, 3: 9.0})
    after = Usage(12.0, idle=6.0, total=24.0, cores=2, processes={1: 4.9, 2: 1.5, 4: 9.0})
    load = load_between(before, after)
    assert load is not None
    assert load.daemon == pytest.approx(1.2)
    assert load.busiest == pytest.approx(0.95)
    assert load.idle == pytest.approx(0.25)
    assert load.cores == 2


def test_one_look_is_no_load() -> None:
    usage = Usage(10.0, 5.0, 20.0, 2)
    assert load_between(None, usage) is None
    assert load_between(usage, None) is None
    assert load_between(usage, usage) is None
