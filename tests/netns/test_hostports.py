"""Ports of a node lead to its pods, wherever somebody calls from, and whom the pod sees.

world == wan0 == node1 ------ TUN ------ node2
                 | pod11 (8080 -> 80)    | pod21
                 | pod12
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from node.kernel import netns
from node.kernel.errors import KernelError
from node.kernel.keeper import Looked
from node.kernel.manager import KernelManager
from node.kernel.model import veth_name
from node.kernel.nft import Firewall
from overlay.attachment import Attachment, HostPort
from overlay.views import PodView, Problem, Snapshot
from tests.support import calls
from tests.support.bed import Bed, Work, applied, making_a_bed, manage, name, run
from tests.support.calls import Call, fails, seen
from tests.support.labs import Place
from tests.support.privileged import NEEDS_KERNEL
from tests.support.traffic import opened
from tests.support.worlds import World, wire_world

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft"),
]

NEAR = "203.0.113.1"
PORTS = (
    HostPort("tcp", 8080, 80),
    HostPort("udp", 8080, 80),
    HostPort("tcp", 8081, 80, NEAR),
    HostPort("tcp", 8082, 80, "0.0.0.0"),
)
LOOPBACK_PORT, PLAIN_PORT = 9999, 9998

families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
kinds = pytest.mark.parametrize("kind", [calls.TCP, calls.UDP], ids=["tcp", "udp"])


@dataclass
class Scene:
    """Two nodes, and the world at one of them."""

    bed: Bed
    state: Snapshot
    world: World

    @property
    def node(self) -> Place:
        state = self.bed.state1
        return Place("node1", "", self.bed.node1, str(state.address), str(state.address6))

    @property
    def callee(self) -> Place:
        return place(self.bed.pod11)

    def settle(self, state: Snapshot | None = None) -> tuple[Problem, ...]:
        shall = state or self.state
        looked: Looked = self._managed(lambda manager: manager.apply(shall))
        return looked.problems

    def attach(self, pod: PodView, firewall: Firewall | None = None) -> None:
        """As `pod.add` does it."""

        async def work(manager: KernelManager) -> None:
            await manager.apply(self.state)
            await manager.attach_pod(pod)

        self._managed(work, firewall)

    def _managed(self, work: Work, firewall: Firewall | None = None) -> Any:
        async def main(manager: KernelManager) -> Any:
            try:
                return await work(manager)
            finally:
                await manager.close(remove=False)

        return manage(self.bed.node1, main, firewall or Firewall())


def place(pod: PodView) -> Place:
    return Place(pod.name, pod.node, pod.netns, str(pod.address), str(pod.address6))


def with_ports(pod: PodView, *ports: HostPort) -> PodView:
    return replace(pod, attachment=Attachment(ports=ports))


@pytest.fixture(scope="module")
def made() -> Iterator[Scene]:
    with making_a_bed() as bed:
        run(bed.node1, "ip", "link", "set", "lo", "up")
        bed.settle()
        world = wire_world(bed.node1, name("world"), "wan0", "203.0.113", "2001:db8:9")
        run(world.host.netns, *f"ip route add 10.244.0.0/16 via {world.near}".split())
        run(world.host.netns, *f"ip -6 route add fd00::/8 via {world.near6}".split())
        state = replace(bed.state1, pods=(with_ports(bed.pod11, *PORTS), bed.pod12))
        yield Scene(bed, state, world)


@pytest.fixture
def scene(made: Scene) -> Scene:
    """Ports are open, whatever the test before did."""
    assert made.settle() == ()
    return made


@families
@kinds
def test_the_world_calls_and_is_seen(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    call = Call(scene.world.host, scene.world.of(family), 8080, kind)
    assert seen(call, scene.callee, 80).host == scene.world.host.at(family)


@families
@kinds
def test_another_pod_of_the_node_calls(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    caller = place(scene.bed.pod12)
    for to in (scene.world.of(family), scene.node.at(family)):
        assert seen(Call(caller, to, 8080, kind), scene.callee, 80).host == caller.at(family)


@families
@kinds
def test_a_pod_of_another_node_calls(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    caller = place(scene.bed.pod21)
    call = Call(caller, scene.node.at(family), 8080, kind)
    assert seen(call, scene.callee, 80).host == caller.at(family)


@families
@kinds
def test_the_node_calls_itself(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    for to in (scene.world.of(family), scene.node.at(family)):
        assert seen(Call(scene.node, to, 8080, kind), scene.callee, 80).host == to


@kinds
def test_the_node_calls_localhost(scene: Scene, kind: socket.SocketKind) -> None:
    call = Call(scene.node, "127.0.0.1", 8080, kind)
    assert seen(call, scene.callee, 80).host == scene.node.address
    assert fails(Call(scene.node, "::1", 8080, kind), scene.callee, 80)


@families
@kinds
def test_a_pod_calls_itself(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    for to in (scene.world.of(family), scene.node.at(family)):
        peer = seen(Call(scene.callee, to, 8080, kind), scene.callee, 80)
        assert peer.host == scene.node.at(family)


@families
def test_a_port_of_somebody_else_is_his(scene: Scene, family: int) -> None:
    """The same port at an address that is not the node's, by way of the node."""
    caller, host = place(scene.bed.pod12), scene.world.host
    assert seen(Call(caller, host.at(family), 8080), host).host == caller.at(family)


def test_a_port_at_one_address_is_closed_at_others(scene: Scene) -> None:
    assert seen(Call(scene.world.host, NEAR, 8081), scene.callee, 80).host
    assert fails(Call(place(scene.bed.pod12), scene.node.address, 8081), scene.callee, 80)
    assert fails(Call(scene.world.host, scene.world.near6, 8081), scene.callee, 80)


def test_a_port_at_all_addresses_of_a_family_is_closed_at_the_others(scene: Scene) -> None:
    assert seen(Call(scene.world.host, NEAR, 8082), scene.callee, 80).host
    assert seen(Call(place(scene.bed.pod12), scene.node.address, 8082), scene.callee, 80).host
    assert fails(Call(scene.world.host, scene.world.near6, 8082), scene.callee, 80)


def test_the_nodes_loopback_stays_its_own(scene: Scene) -> None:
    """A pod with a port writes a frame to 127.0.0.1, where a program of the node listens."""
    pod, veth = scene.bed.pod11, veth_name("pod11")
    assert run(scene.bed.node1, "cat", f"/proc/sys/net/ipv4/conf/{veth}/route_localnet") == "1\n"
    with ExitStack() as stack:
        shut = stack.enter_context(opened(scene.node, calls.UDP, 4))
        shut.bind(("127.0.0.1", LOOPBACK_PORT))
        plain = stack.enter_context(opened(scene.node, calls.UDP, 4))
        plain.bind((scene.node.address, PLAIN_PORT))
        wire = netns.run_in(pod.netns, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
        stack.enter_context(wire)
        wire.bind(("eth0", 0))
        ends = [mac(pod.netns, "eth0"), mac(scene.bed.node1, veth)]
        for to, port in (("127.0.0.1", LOOPBACK_PORT), (scene.node.address, PLAIN_PORT)):
            packet = IP(src=str(pod.address), dst=to) / UDP(sport=5, dport=port) / b"hello"
            wire.send(bytes(Ether(src=ends[0], dst=ends[1]) / packet))
        assert plain.recv(16) == b"hello"
        shut.setblocking(False)
        with pytest.raises(BlockingIOError):
            shut.recv(16)


def mac(namespace: str, link: str) -> str:
    return run(namespace, "cat", f"/sys/class/net/{link}/address").strip()


def test_an_open_connection_outlives_a_change_of_the_rules(scene: Scene) -> None:
    with ExitStack() as stack:
        server, client = (
            stack.enter_context(opened(where, calls.TCP, 4))
            for where in (scene.callee, scene.world.host)
        )
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", 80))
        server.listen()
        client.connect((NEAR, 8080))
        line, _ = server.accept()
        stack.enter_context(line)
        more = with_ports(scene.bed.pod12, HostPort("tcp", 9090, 90))
        assert scene.settle(replace(scene.state, pods=(scene.state.pods[0], more))) == ()
        client.sendall(b"still here")
        assert line.recv(16) == b"still here"
        line.sendall(b"so am I")
        assert client.recv(16) == b"so am I"


def test_with_the_pod_its_ports_are_the_nodes_again(scene: Scene) -> None:
    gone = replace(scene.state, pods=(scene.bed.pod12,))
    try:
        assert scene.settle(gone) == ()
        assert "muslin_nat" not in run(scene.bed.node1, "nft", "list", "tables")
        assert "loopback" not in run(
            scene.bed.node1, "nft", "list", "chain", "inet", "muslin", "prerouting"
        )
        assert seen(Call(scene.world.host, NEAR, 8080), scene.node).host == scene.world.host.address
    finally:
        assert scene.settle() == ()


def refused(scene: Scene, pod: PodView, firewall: Firewall | None = None) -> KernelError:
    with pytest.raises(KernelError) as caught:
        scene.attach(pod, firewall)
    return caught.value


@kinds
@pytest.mark.parametrize(("listens", "host"), [("0.0.0.0", ""), (NEAR, ""), (NEAR, NEAR)])
def test_a_port_that_a_program_of_the_node_has_is_refused(
    scene: Scene, spare: str, kind: socket.SocketKind, listens: str, host: str
) -> None:
    word = "tcp" if kind == calls.TCP else "udp"
    pod = replace(with_ports(scene.bed.pod21, HostPort(word, 8090, 80, host)), netns=spare)
    with opened(scene.node, kind, 4) as server:
        server.bind((listens, 8090))
        if kind == calls.TCP:
            server.listen()
        error = refused(scene, pod)
    assert error.code == "port-taken"
    assert error.why == (
        f"port 8090/{word} of this node is in use by a program that listens at {listens}:8090"
    )
    assert "8090" not in run(scene.bed.node1, "nft", "list", "table", "inet", "muslin_nat")
    assert "eth0" not in run(spare, "ip", "link")


def test_a_pod_that_fails_for_another_reason_leaves_no_port_open(scene: Scene, spare: str) -> None:
    run(spare, *["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"])
    pod = replace(with_ports(scene.bed.pod21, HostPort("tcp", 8090, 80)), netns=spare)
    assert refused(scene, pod).code == "netns-in-use"
    assert "8090" not in run(scene.bed.node1, "nft", "list", "table", "inet", "muslin_nat")


def test_without_nft_a_port_is_refused_and_open_ones_are_named(scene: Scene, spare: str) -> None:
    pod = replace(with_ports(scene.bed.pod21, HostPort("tcp", 8090, 80)), netns=spare)
    error = refused(scene, pod, Firewall(""))
    assert (error.code, error.why) == (
        "no-nft",
        "ports of the node cannot lead to pods (there is no nft)",
    )
    (problem,) = applied(scene.bed.node1, scene.state)
    assert problem.code == "ports-closed"
    veth = veth_name("pod11")
    assert run(scene.bed.node1, "cat", f"/proc/sys/net/ipv4/conf/{veth}/route_localnet") == "0\n"
