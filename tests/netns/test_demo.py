"""Item 1: scripts/demo, as a newcomer runs it, once everything is installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from node.lab.topology import belongs_to
from tests.support.privileged import NEEDS_KERNEL
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "scripts/demo.py"]


def left_behind() -> list[str]:
    """Namespaces of the demonstration that are still there."""
    folder = Path("/run/netns")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [name for name in names if belongs_to("demo", name)]


def test_the_demonstration_shows_tables_pings_and_a_transfer_and_leaves_nothing() -> None:
    done = subprocess.run(DEMO, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout
    for name in ("node1", "node2", "node3", "node1-pod1", "node3-pod2"):
        assert name in shown
    assert shown.count("54 of 54 answered") == 2, "IPv4 and IPv6, every pod from everywhere"
    assert len(set(re.findall(r"sha256 ([0-9a-f]{64})", shown))) == 1
    assert re.search(r"equal; [0-9.]+ Gbit/s", shown)
    assert "its own address" in shown
    assert "\\x1b[" not in ascii(shown), "no colours into a pipe"
    assert left_behind() == []


def test_an_interrupted_demonstration_takes_down_what_it_built() -> None:
    with subprocess.Popen(
        DEMO, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        eventually(lambda: len(left_behind()) >= 5, within=30.0)
        os.kill(demo.pid, signal.SIGINT)
        said, _ = demo.communicate(timeout=60)
        assert demo.returncode != 0
        assert "Traceback" not in said
    assert left_behind() == []


def test_an_argument_is_wrong_use() -> None:
    done = subprocess.run(
        [*DEMO, "--fast"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == "demo: scripts/demo takes no arguments"
