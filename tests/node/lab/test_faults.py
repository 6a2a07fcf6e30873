from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.errors import NodeError
from node.kernel import netns
from node.lab import faults
from node.lab.store import LabInfo
from node.lab.topology import Topology, plan
from node.lab.wiring import namespaces, wire
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.waiting import eventually

LAB = f"kf{os.getpid()}"
TOPOLOGY = plan(LAB, 3, 0, underlay="ipv4", mtu=1500, cidr="10.0.0.0/16")
INFO = LabInfo(TOPOLOGY, Path("/none"))


def test_a_cut_has_two_nodes_in_one_order() -> None:
    assert faults.cut_between(INFO, "node2", "node1") == ("node1", "node2")
    assert faults.cut_between(INFO, "node1", "node2") == ("node1", "node2")


def test_a_node_is_not_cut_off_from_itself_or_from_strangers() -> None:
    with pytest.raises(NodeError, match="cut off from itself"):
        faults.cut_between(INFO, "node1", "node1")
    with pytest.raises(NodeError, match="has no 'node7'"):
        faults.cut_between(INFO, "node1", "node7")


def test_each_cut_drops_both_directions() -> None:
    program = faults.ruleset([("node1", "node2")])
    assert 'iifname "node1" oifname "node2" counter drop' in program
    assert 'iifname "node2" oifname "node1" counter drop' in program
    assert "node3" not in program


def test_the_old_table_goes_in_the_same_transaction() -> None:
    for cuts in ([], [("node1", "node2")]):
        assert faults.ruleset(cuts).splitlines()[:2] == [
            "add table bridge muslin_lab",
            "delete table bridge muslin_lab",
        ]


def test_a_missing_nft_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(NodeError) as caught:
        faults.put_in_force("nowhere", [])
    assert caught.value.fix == "apt-get install nftables"


@pytest.fixture(scope="module")
def wired() -> Iterator[Topology]:
    try:
        wire(TOPOLOGY)
        yield TOPOLOGY
    finally:
        for namespace in namespaces(TOPOLOGY):
            netns.delete(namespace)


@pytest.mark.usefixtures("wired")
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    def hears(self, source: int, target: int) -> bool:
        node, other = TOPOLOGY.nodes[source - 1], TOPOLOGY.nodes[target - 1]
        argv = ["ping", "-c1", "-W0.5", str(other.address.ip)]
        done = netns.run_in(node.netns, subprocess.run, argv, capture_output=True, check=False)
        return done.returncode == 0

    def must_hear(self, source: int, target: int) -> None:
        # A ping that nobody drops may still be late on a busy machine.
        eventually(lambda: self.hears(source, target), within=PATIENCE)

    def test_a_cut_silences_two_nodes_and_no_others(self) -> None:
        bridge = TOPOLOGY.bridge_netns
        self.must_hear(1, 2)
        faults.put_in_force(bridge, [("node1", "node2")])
        assert not self.hears(1, 2)
        self.must_hear(1, 3)
        self.must_hear(2, 3)
        faults.put_in_force(bridge, [("node2", "node3")])
        assert not self.hears(3, 2)
        self.must_hear(2, 1)
        faults.put_in_force(bridge, [])
        faults.put_in_force(bridge, [])
        self.must_hear(2, 3)

    def test_what_nft_does_not_understand_is_an_error(self) -> None:
        with pytest.raises(NodeError, match="nft refused"):
            faults.put_in_force(TOPOLOGY.bridge_netns, [('"', "x")])
