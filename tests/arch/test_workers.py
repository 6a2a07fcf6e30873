"""Two workers are two halves of one run: who wants to be alone is, and Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.project import ROOT
from tests.support.waiting import eventually

pytest.importorskip("xdist", reason="pytest-xdist is not installed: scripts/setup does")

SOON = 60.0

INI = """
[pytest]
markers = alone: x
"""

NOTED = """
import json, os, time
import pytest
from contextlib import contextmanager

@contextmanager
def noted(name):
    with open(os.environ["NOTES"], "a") as notes:
        began = time.monotonic()
        yield
        line = json.dumps([name, began, time.monotonic(), os.environ["PYTEST_XDIST_WORKER"]])
        print(line, file=notes)

@pytest.mark.parametrize("number", range(8))
def test_with_others(number):
    with noted("others"):
        time.sleep(0.05)
"""

ALONE = """
@pytest.mark.alone
@pytest.mark.parametrize("number", range(4))
def test_alone(number):
    with noted("alone"):
        time.sleep(0.1)
"""

SLOW_TO_END = """
import os, pathlib, time
import pytest

@pytest.fixture(scope="session")
def made():
    path = pathlib.Path(os.environ["NOTES"] + "-" + os.environ["PYTEST_XDIST_WORKER"])
    yield path
    time.sleep(1)
    path.write_text("taken down")

def test_for_ever(made):
    made.write_text("made")
    time.sleep(600)
"""


def suite(folder: Path, **files: str) -> list[str]:
    """The command that runs these files with two workers."""
    (folder / "pytest.ini").write_text(INI)
    for name, text in files.items():
        path = folder / "tests" / name.replace("__", "/") / f"test_{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = ["-p", "tests.support.workers", "-p", "no:cacheprovider", "-q", "-n", "2", "tests"]
    return [sys.executable, "-m", "pytest", *words]


def variables(folder: Path) -> dict[str, str]:
    """The environment for it: nothing of the run that we are a part of."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return own | {"PYTHONPATH": str(ROOT), "NOTES": str(folder / "notes")}


def test_nothing_runs_beside_a_test_that_wants_to_be_alone(tmp_path: Path) -> None:
    argv = suite(tmp_path, netns__a=NOTED + ALONE, netns__b=NOTED, c=NOTED, d=NOTED)
    done = subprocess.run(
        argv, cwd=tmp_path, env=variables(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "36 passed" in done.stdout
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert {worker for *_, worker in notes} == {"gw0", "gw1"}
    for name, began, ended, _ in notes:
        if name == "alone":
            beside = [each for each in notes if each[1] < ended and began < each[2]]
            assert len(beside) == 1, beside


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_takes_down_all_that_workers_made(
    tmp_path: Path, number: signal.Signals
) -> None:
    argv = suite(tmp_path, netns__a=SLOW_TO_END, b=SLOW_TO_END)
    made = [tmp_path / f"notes-gw{worker}" for worker in (0, 1)]
    with subprocess.Popen(
        argv, cwd=tmp_path, env=variables(tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            eventually(lambda: all(path.exists() for path in made), within=SOON)
            process.send_signal(number)
            said, _ = process.communicate(timeout=SOON)
        finally:
            process.kill()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert [path.read_text() for path in made] == ["taken down", "taken down"]
