"""The benchmark on real namespaces: a short run says what it should, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import main
from bench.compare import CONTESTANTS
from bench.contestants import Vxlan
from bench.rounds import Plan, run_plan
from bench.topology import LARGEST_FRAME, Underlay
from bench.workloads import BY_NAME
from node.errors import NodeError
from node.kernel import netns
from node.lab.processes import environment
from node.lab.store import ROOT
from tests.support.privileged import NEEDS_KERNEL

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(
        not all(map(shutil.which, ("iperf3", "ethtool"))), reason="needs iperf3 and ethtool"
    ),
]

LAB = f"bench-t{os.getpid()}"
OURS = [each for each in CONTESTANTS if each.name in ("none", "vxlan", "muslin")]


def left_behind() -> list[str]:
    """Namespaces of our lab, and its folder."""
    folders = [str(path) for path in (ROOT / "lab").glob(f"{LAB}*")]
    return [name for name in netns.names() if name.startswith(LAB)] + folders


def said_nothing(_: str) -> None:
    """For progress that nobody reads."""


def test_a_short_run_measures_all_and_leaves_nothing(tmp_path: Path) -> None:
    names = ("tcp1", "rtt", "connections", "memory")
    short = [BY_NAME[name] for name in names]
    plan = Plan(OURS, {Underlay.VETH: short, Underlay.WIRE: short[:1]}, 1, 1)
    samples = {(s.underlay, s.contestant): s.figures for s in run_plan(plan, said_nothing, LAB)}
    assert left_behind() == []
    expected = {"tcp1", "frame", "others-cpu", "rtt-p50", "rtt-p99", "connections"}
    assert samples["veth", "none"].keys() == expected
    assert samples["veth", "vxlan"].keys() == expected
    assert samples["veth", "muslin"].keys() == expected | {"cpu", "rss", "rss-peak"}
    assert all(value > 0 for key, value in samples["veth", "muslin"].items() if key != "others-cpu")
    for name in ("none", "vxlan", "muslin"):
        # What the two underlays are for: super-packets cross the one, single frames the other.
        assert samples["veth", name]["frame"] > 2 * LARGEST_FRAME
        assert samples["wire", name]["frame"] <= LARGEST_FRAME


def test_a_contestant_that_does_not_come_up_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Vxlan()
    monkeypatch.setattr(type(broken), "octet", 999)  # no address has such a byte
    with pytest.raises(NodeError):
        run_plan(Plan([broken], {}, 1, 1), said_nothing, LAB)
    assert left_behind() == []


def test_a_run_that_is_ended_half_way_leaves_nothing(tmp_path: Path) -> None:
    argv = ["--lab", LAB, "--only", "none,vxlan", "--workloads", "tcp1", "--rounds", "9"]
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *argv, "--json", str(tmp_path / "x.json")],
        stderr=subprocess.PIPE,
        text=True,
        env=environment({}),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "round 1/9" in line:
                break
        assert left_behind() != []
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait() == 130
    assert "everything was taken down" in said
    assert left_behind() == []
    assert not (tmp_path / "x.json").exists()


def test_its_json_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    argv = ["--only", "none,muslin", "--workloads", "rtt", "--rounds", "1", "--underlay", "veth"]
    assert main([*argv, "--lab", LAB, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["contestants"]["muslin"]["encrypted"] is True
    assert found["medians"]["veth"]["muslin"]["rtt-p50"]["rounds"] == 1
    assert main(["--from", str(path)]) == 0
    assert left_behind() == []
