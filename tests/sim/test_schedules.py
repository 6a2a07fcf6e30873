"""Proof: whatever happens, in whatever order, no invariant breaks, and in the end all agree."""

from __future__ import annotations

import subprocess
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
    assert failures == [], "replay: muslin sim --random --seed SEED --count 1 --verbose"


def test_the_script_runs_them():
    result = subprocess.run(
        [str(ROOT / "scripts" / "schedules"), "--seed", "5", "--count", "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "schedules   2, 0 failed" in result.stdout
