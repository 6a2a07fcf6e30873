"""Proof: whatever happens, in whatever order, no invariant breaks, and in the end all agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from overlay.sim.schedules import run_schedule

ROOT = Path(__file__).resolve().parents[2]
GROUP = 10
"""Schedules per test: small enough to find the one that failed, large enough to be few."""


@pytest.mark.parametrize("first", range(0, 80, GROUP))
def test_whatever_happens_no_invariant_breaks_and_in_the_end_all_agree(first):
    outcomes = [run_schedule(seed) for seed in range(first, first + GROUP)]
    failures = [f"seed {one.seed}: {one.failure}" for one in outcomes if one.failure]
    assert failures == [], "replay: scripts/schedules --seed SEED --count 1 --verbose"


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "schedules"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_runner_counts_and_shows_the_steps_of_a_schedule():
    result = run_script("--seed", "5", "--count", "3", "--jobs", "2")
    assert result.returncode == 0, result.stdout
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert rows["schedules"] == "3, 0 failed"
    assert rows["breaches"] == "none"
    shown = run_script("--seed", "5", "--count", "1", "--verbose", "--only", "add-pod,crash")
    assert "all faults end" in shown.stdout
    assert run_script("--only", "fly").returncode == 2


def test_a_failing_schedule_prints_the_command_that_replays_it():
    code = (  # addresses do not rest
        "import sys; from overlay.ipam.allocator import Allocator;"
        "Allocator._lay_to_rest = lambda self, resting: None;"
        "sys.argv = ['schedules', '--seed', '1', '--count', '20', '--only', 'add-pod,remove-pod'];"
        "import runpy; runpy.run_path('scripts/schedules.py', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "quarantine-kept" in result.stdout
    assert "replay: scripts/schedules --seed " in result.stdout
