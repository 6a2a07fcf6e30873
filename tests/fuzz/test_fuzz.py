"""A short run of the fuzzer itself, on real targets and on one that has a defect on purpose."""

from __future__ import annotations

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.arch.project import ROOT

SECONDS = 3
PATIENCE = 240.0
"""Instrumenting takes some seconds, on a busy machine many."""

needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None, reason="atheris has no package for this machine"
)


def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "fuzz", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@needs_atheris
@pytest.mark.parametrize("target", ["control", "ip"])
def test_nothing_is_found_in_a_short_run(target: str, tmp_path: Path) -> None:
    words = ("--target", target, "--seconds", str(SECONDS), "--seed", "1")
    ran = fuzz(*words, "--corpus", str(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    executed = re.search(r"number_of_executed_units: (\d+)", ran.stderr)
    assert executed, ran.stderr[-3000:]
    assert int(executed[1]) > 100
    grown = re.findall(r"cov: (\d+)", ran.stderr)
    assert grown, "it does not see what code is reached"
    assert int(grown[-1]) > 50
    assert list((tmp_path / "found").iterdir()) == []


@needs_atheris
def test_a_defect_is_found_kept_and_replayed(tmp_path: Path) -> None:
    ran = fuzz("--target", "self-test", "--seconds", "60", "--seed", "1", "--corpus", str(tmp_path))
    assert ran.returncode == 1
    command = re.search(r"replay with: scripts/fuzz (.+)", ran.stdout)
    assert command, ran.stdout
    again = fuzz(*command[1].split())
    assert again.returncode == 1
    assert "the defect that is here on purpose" in again.stderr


def test_what_does_nothing_replays_quietly(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"muslin")
    ran = fuzz("--target", "self-test", "--replay", str(tmp_path / "input"))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_targets_are_listed_and_others_are_not_known() -> None:
    ran = fuzz("--list")
    assert ran.returncode == 0
    assert {"control", "datagram", "member-control", "journal"} <= set(ran.stdout.split())
    assert "self-test" not in ran.stdout
    assert fuzz("--target", "nothing").stderr.startswith("fuzz: there is no target 'nothing'")
