from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from node.kernel import netns
from node.kernel.errors import KernelError
from node.lab.topology import Topology, plan
from node.lab.wiring import namespaces, wire
from tests.support.privileged import NEEDS_KERNEL

LAB = f"kx{os.getpid()}"


def lab(underlay: str, mtu: int) -> Topology:
    return plan(LAB, 2, 1, underlay=underlay, mtu=mtu, cidr="10.0.0.0/16")


def test_a_lab_has_one_namespace_per_node_and_pod_and_one_more() -> None:
    assert namespaces(lab("ipv4", 1500)) == [
        f"{LAB}-{what}" for what in ("underlay", "node1", "node2", "node1-pod1", "node2-pod1")
    ]


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture(autouse=True)
    def clean(self) -> Iterator[None]:
        yield
        for namespace in namespaces(lab("ipv4", 1500)):
            netns.delete(namespace)

    def run(self, namespace: str, *argv: str) -> str:
        done = netns.run_in(
            namespace, subprocess.run, argv, capture_output=True, text=True, check=False
        )
        return str(done.stdout)  # ip's other words may be about namespaces that others remove

    @pytest.mark.parametrize(
        ("underlay", "mtu"), [("ipv4", 1500), ("ipv4", 1280), ("ipv6", 1400), ("ipv6", 9000)]
    )
    def test_nodes_reach_each_other_with_full_packets_at_once(
        self, underlay: str, mtu: int
    ) -> None:
        topology = lab(underlay, mtu)
        wire(topology)
        one, two = topology.nodes
        headers = 28 if underlay == "ipv4" else 48
        ping = ["ping", "-c1", "-Mdo", str(two.address.ip)]
        whole = self.run(one.netns, *ping, "-W3", f"-s{mtu - headers}")
        larger = self.run(one.netns, *ping, "-W0.2", f"-s{mtu - headers + 1}")
        assert " 0% packet loss" in whole, whole
        assert "100% packet loss" in larger, larger

    @pytest.mark.alone("netns")  # a kernel that loads ifb makes links in the machine's own, too
    def test_the_machines_own_namespace_is_not_touched(self) -> None:
        def links() -> str:
            return subprocess.check_output(["ip", "-o", "link"], text=True)

        before = links()
        wire(lab("ipv4", 1500))
        assert links() == before

    def test_pods_start_with_nothing_and_nodes_with_the_underlay_alone(self) -> None:
        topology = lab("ipv4", 1500)
        wire(topology)
        links = self.run(topology.nodes[0].netns, "ip", "-o", "link")
        assert [line.split()[1].partition("@")[0] for line in links.splitlines()] == ["lo:", "eth0"]
        assert "eth0" not in self.run(topology.pods[0].netns, "ip", "link")

    def test_a_name_that_is_taken_is_an_error(self) -> None:
        netns.create(f"{LAB}-node2")
        with pytest.raises(KernelError, match="exists already"):
            wire(lab("ipv4", 1500))
