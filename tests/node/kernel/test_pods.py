from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from node.kernel import netns, pods
from node.kernel.errors import KernelError
from node.kernel.model import veth_name
from node.kernel.netlink import Netlink
from tests.support.privileged import NEEDS_KERNEL

PREFIX = f"kp{os.getpid()}"
ADDRESSES = (IPv4Address("10.244.1.2"), IPv6Address("fd00::2"))


def test_own_namespaces_are_told_apart_by_folder_and_name() -> None:
    assert pods.is_own_namespace(pods.own_namespace("node1", "web"))
    for path in ("/run/netns/web", "/tmp/muslin-node1-web", "/run/netns/x/muslin-a", "web"):
        assert not pods.is_own_namespace(path)


def test_pods_of_different_nodes_and_clusters_have_different_namespaces() -> None:
    assert pods.own_namespace("node1", "web") != pods.own_namespace("node2", "web")
    one, other = (pods.own_namespace("node1", "web", cluster) for cluster in ("aa" * 8, "bb" * 8))
    assert one != other


def test_namespaces_of_others_are_neither_made_nor_removed() -> None:
    pods.make_own_namespace("/run/netns/somebodys")
    pods.remove_own_namespace("/run/netns/somebodys")
    assert not netns.exists("somebodys")


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture
    def places(self) -> Iterator[tuple[Path, Path]]:
        """A node's namespace and a pod's."""
        yield netns.create(f"{PREFIX}-node"), netns.create(f"{PREFIX}-pod")
        netns.delete(f"{PREFIX}-node")
        netns.delete(f"{PREFIX}-pod")

    def attach(self, places: tuple[Path, Path], mtu: int = 1500) -> int | None:
        node, pod = places

        def work() -> int | None:
            with Netlink() as netlink:
                pods.attach(netlink, pods.PodEnd("web", str(pod), ADDRESSES), mtu)
                return netlink.link_index(veth_name("web"))

        return netns.run_in(node, work)

    def shown(self, place: Path, *argv: str) -> str:
        return str(netns.run_in(place, subprocess.check_output, ["ip", *argv], text=True))

    def test_both_ends_are_complete_at_once(self, places: tuple[Path, Path]) -> None:
        self.attach(places)
        node, pod = places
        assert "alias web" in self.shown(node, "link", "show", veth_name("web"))
        addresses = self.shown(pod, "addr", "show", "eth0")
        assert "10.244.1.2/32" in addresses
        assert "fd00::2/128" in addresses
        assert "tentative" not in addresses
        assert "default via 169.254.1.1 dev eth0" in self.shown(pod, "route")
        assert "default via fe80::1 dev eth0" in self.shown(pod, "-6", "route")

    def test_again_is_the_same_but_for_what_changed(self, places: tuple[Path, Path]) -> None:
        first = self.attach(places)
        assert self.attach(places, mtu=1400) == first
        assert "mtu 1400" in self.shown(places[1], "link", "show", "eth0")

    def test_what_the_pods_owner_added_stays(self, places: tuple[Path, Path]) -> None:
        self.attach(places)
        self.shown(places[1], "addr", "add", "10.9.9.9/32", "dev", "eth0")
        self.attach(places)
        assert "10.9.9.9/32" in self.shown(places[1], "addr", "show", "eth0")

    def test_a_failure_inside_the_pod_leaves_no_veth(self, places: tuple[Path, Path]) -> None:
        node, pod = places
        self.shown(pod, "link", "set", "lo", "up")
        self.shown(pod, "route", "add", "unreachable", "0.0.0.0/0")
        with pytest.raises(KernelError, match=r"add route 0\.0\.0\.0/0 dev eth0: file exists"):
            self.attach(places)
        assert "mus" not in self.shown(node, "link")
        assert "eth0" not in self.shown(pod, "link")

    def test_detaching_removes_both_ends_and_twice_is_fine(self, places: tuple[Path, Path]) -> None:
        self.attach(places)
        node, pod = places

        def work() -> None:
            with Netlink() as netlink:
                pods.detach(netlink, "web")
                pods.detach(netlink, "web")

        netns.run_in(node, work)
        assert "mus" not in self.shown(node, "link")
        assert "eth0" not in self.shown(pod, "link")

    def test_several_are_removed_together(self, places: tuple[Path, Path]) -> None:
        node, pod = places
        ends = [
            pods.PodEnd(
                f"p{number}", str(pod), (IPv4Address(f"10.244.1.{number}"),), f"eth{number}"
            )
            for number in range(3)
        ]

        def work() -> list[int | None]:
            with Netlink() as netlink:
                for end in ends:
                    pods.attach(netlink, end, 1500)
                pods.detach_together(netlink, ["p0", "nobody", "p2"])
                pods.detach_together(netlink, ["p0", "nobody"])
                return [netlink.link_index(veth_name(end.pod)) for end in ends]

        first, second, third = netns.run_in(node, work)
        assert first is None
        assert second is not None
        assert third is None
        assert "eth1" in self.shown(pod, "link")
        assert "eth2" not in self.shown(pod, "link")
