"""Proof: the same seed gives the same trace to the last byte, another seed another trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


SCENARIO = """
title = "joins, loss, a partition, wrong clocks, a NAT"
until = 25.0
[cluster]
nodes = 8
tokens = true
clock_drift = 300.0
[link]
preset = "wan"
loss = 0.05
[[nat]]
nodes = "20%"
[[event]]
at = 8.0
do = "partition"
groups = ["50%", "rest"]
[[event]]
at = 14.0
do = "heal"
[[event]]
at = 16.0
do = "slow"
nodes = 2
"""


def trace_of(file: Path, *, seed: int, hash_seed: int) -> bytes:
    """The trace of a world in which much happens, made in a process of its own.

    `hash_seed` makes sets iterate in another order, as every start of Python does: a simulation,
    or a protocol, that depends on that order shows here.
    """
    scenario = file.with_suffix(".toml")
    scenario.write_text(SCENARIO)
    arguments = ["sim", str(scenario), "--seed", str(seed), "--trace", str(file)]
    subprocess.run(
        [sys.executable, "-m", "node", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hash_seed)},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    return file.read_bytes()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A trace to compare others with."""
    return trace_of(tmp_path_factory.mktemp("trace") / "first", seed=7, hash_seed=1)


def test_the_same_seed_gives_the_same_trace_to_the_last_byte(first, tmp_path):
    assert first.count(b"\n") > 1000
    assert trace_of(tmp_path / "second", seed=7, hash_seed=2) == first


def test_another_seed_gives_another_trace(first, tmp_path):
    assert trace_of(tmp_path / "second", seed=8, hash_seed=1) != first
