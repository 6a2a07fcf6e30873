"""Item 1 of what Muslin promises: scripts/demo, as a newcomer runs it once all is installed.

Its lab is called `demo`, as in the documents; on a machine where somebody runs one, this skips.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.kernel import netns
from node.lab.build import lab_down
from node.lab.store import LabStore
from node.lab.topology import belongs_to
from tests.arch.project import ROOT
from tests.support.privileged import NEEDS_KERNEL
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.usefixtures("_clean_machine", "_only_demonstration")]

DEMO = (sys.executable, "scripts/demo.py")
WITHIN = 60.0
"""Seconds, once everything is installed."""

SOURCES = [
    *(f"node{n}" for n in (1, 2, 3)),
    *(f"node{n}-pod{m}" for n in (1, 2, 3) for m in (1, 2)),
]


@pytest.fixture
def _only_demonstration() -> Iterator[None]:
    if LabStore().exists("demo") or left_behind():
        pytest.skip("somebody runs a demonstration on this machine")
    yield
    lab_down("demo")


def left_behind() -> list[str]:
    """Namespaces and processes of a demonstration."""
    found = [name for name in netns.names() if belongs_to("demo", name)]
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # no process, or one that has just ended
        if "/run/muslin/lab/demo/" in " ".join(command) or "scripts/demo.py" in command:
            found.append(" ".join(command))
    return found


@pytest.mark.alone
def test_the_demonstration_shows_tables_pings_and_a_transfer_and_leaves_nothing() -> None:
    started = time.monotonic()
    done = subprocess.run(
        DEMO, cwd=ROOT, capture_output=True, text=True, timeout=2 * WITHIN, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < WITHIN
    assert left_behind() == []
    shown = done.stdout
    assert table(shown, "NAME", "STATE") == ["node1", "node2", "node3"]
    assert table(shown, "NAME", "NODE") == SOURCES[3:]
    assert shown.count("54 of 54 answered") == 2, "IPv4 and IPv6, every pod from everywhere"
    for cells in matrices(shown):
        assert [source for source, *_ in cells] == SOURCES
        assert all(re.fullmatch(r"[0-9]+\.[0-9]{2}", rtt) for _, *rtts in cells for rtt in rtts)
    checksums = re.findall(r"sha256 ([0-9a-f]{64})", shown)
    assert len(checksums) == 2
    assert len(set(checksums)) == 1
    assert re.search(r"^equal; [0-9.]+ Gbit/s, encrypted; ", shown, re.MULTILINE)
    assert re.search(r"saw node1-pod1 as 10\.244\.[0-9.]+, its own address$", shown, re.MULTILINE)
    assert "\x1b" not in shown, "no colours into a pipe"


def table(shown: str, *headers: str) -> list[str]:
    """The first column of the table whose headers begin like that."""
    lines = shown.splitlines()
    at = next(n for n, line in enumerate(lines) if tuple(line.split()[: len(headers)]) == headers)
    return [line.split()[0] for line in lines[at + 1 : lines.index("", at)]]


def matrices(shown: str) -> list[list[list[str]]]:
    """The cells of the two ping matrices, by row; the first one names the source."""
    found = re.findall(r"milliseconds\n.*\n((?:node.*\n)+)54 of 54", shown)
    assert len(found) == 2
    return [[line.split() for line in rows.splitlines()] for rows in found]


@contextmanager
def demonstration() -> Iterator[subprocess.Popen[str]]:
    """One that is running, in a process group of its own as a shell would make it."""
    with subprocess.Popen(
        DEMO,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize(
    ("stage", "number", "to_group"),
    [
        ("building", signal.SIGINT, True),  # Ctrl-C: the terminal tells everyone
        ("pinging", signal.SIGINT, True),
        ("copying", signal.SIGINT, True),
        ("copying", signal.SIGTERM, False),  # a supervisor tells the process alone
    ],
)
def test_an_interrupted_demonstration_takes_down_what_it_built(
    stage: str, number: signal.Signals, to_group: bool
) -> None:
    begun = {"building": "10 namespaces", "pinging": "IPv4: milli", "copying": "MB over TCP"}
    with demonstration() as process:
        stream = process.stderr if stage == "building" else process.stdout
        assert stream is not None
        assert any(begun[stage] in line for line in stream)
        (os.killpg if to_group else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=WITHIN)
    assert process.returncode == 1
    assert errors.endswith("demo: interrupted\n")
    assert "Traceback" not in errors
    eventually(lambda: left_behind() == [], within=WITHIN)


def test_a_second_demonstration_leaves_the_first_alone() -> None:
    with demonstration() as first:
        assert first.stderr is not None
        assert any("10 namespaces" in line for line in first.stderr)
        done = subprocess.run(
            DEMO, cwd=ROOT, capture_output=True, text=True, timeout=2 * WITHIN, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("demo: ")
        assert done.stderr.count("\n") == 1
        shown, errors = first.communicate(timeout=2 * WITHIN)
    assert first.returncode == 0, shown + errors
    assert shown.count("54 of 54 answered") == 2


def test_an_argument_is_wrong_use() -> None:
    done = subprocess.run(
        [*DEMO, "--fast"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "demo: scripts/demo takes no arguments\n"
