"""Three real daemons, one of them on a disk that takes seconds for every write.

node1 -- pings node2's pod      node2 -- each fdatasync takes 12 s      node3 -- looks on

What must be stored before it is told waits; packets and probes do not.
"""

from __future__ import annotations

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.children import PACKAGES
from node.control.client import ControlClient
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import background
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone("netns")]

LATENCY = 12.0
"""Seconds per write: whoever is silent for so long is declared dead."""

SOON = 30.0
PATIENCE = 60.0
"""Seconds until an answer that waits for the disk has to be there."""


SLOW = """
import os, pathlib, time

quick, switch = os.fdatasync, pathlib.Path({switch!r})

def slow(handle):
    quick(handle)
    if switch.exists() and "/node2/" in os.readlink(f"/proc/self/fd/{{handle}}"):
        time.sleep({latency})

os.fdatasync = slow
"""
"""Python runs it in every daemon before anything else."""


@pytest.fixture
def switch(tmp_path: Path) -> Path:
    """While this file exists, the disk of node2 is slow."""
    return tmp_path / "slow"


@pytest.fixture
def lab(make_lab: LabMaker, tmp_path: Path, switch: Path) -> Lab:
    early = tmp_path / "early"
    early.mkdir()
    code = SLOW.format(switch=str(switch), latency=LATENCY)
    (early / "sitecustomize.py").write_text(code)
    lab = make_lab(nodes=3, pods=1, settings={"PYTHONPATH": f"{early}:{PACKAGES}"})
    eventually(lambda: all(states(lab, at) == {"ready"} for at in names(lab)), within=SOON)
    return lab


def names(lab: Lab) -> list[str]:
    return [node.name for node in lab.nodes]


def states(lab: Lab, at: str) -> set[str]:
    return {row["state"] for row in lab.get(at, "nodes")}


def pods_of_node2(lab: Lab, at: str) -> set[str]:
    return {row["name"] for row in lab.get(at, "pods") if row["node"] == "node2"}


def test_a_node_that_waits_for_its_disk_carries_packets_and_is_declared_dead_by_nobody(
    lab: Lab, switch: Path
) -> None:
    here, there = lab["node1-pod1"], lab["node2-pod1"]
    before = pods_of_node2(lab, "node1")
    seen: set[str] = set()
    with (
        background(here.netns, "ping", "-n", "-i0.05", there.address) as pinging,
        ThreadPoolExecutor(1) as hands,
    ):
        eventually(lambda: "bytes from" in pinging.line(SOON), within=SOON)
        switch.touch()
        patient = ControlClient(lab.info.socket("node2"), PATIENCE)
        adding = hands.submit(patient.call, "pod.add", name="late")
        while not adding.done():
            for at in names(lab):
                seen |= states(lab, at)
        adding.result()
        switch.unlink()
        pinging.process.send_signal(signal.SIGINT)
        answers = re.findall(r"icmp_seq=([0-9]+) .* time=([0-9.]+) ms", pinging.rest(SOON))
    assert "dead" not in seen
    sequence = [int(number) for number, _ in answers]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence))), "packets were lost"
    assert len(sequence) * 0.05 > LATENCY / 2, "it was not pinged while the disk wrote"
    slowest = max(float(time) for _, time in answers) / 1000
    assert slowest < LATENCY / 2, f"a packet waited {slowest} s"
    for at in names(lab):
        eventually(lambda at=at: pods_of_node2(lab, at) == before | {"late"}, within=SOON)
