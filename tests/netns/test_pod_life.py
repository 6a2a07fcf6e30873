"""What a pod's life consists of, with real daemons: whom it reaches, and by which way.

world == wan0 == node1 ---- underlay ---- node2
                 | web (8080 -> 80)       | far
                 | beside
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from node.kernel.model import queue_name, veth_name
from node.kernel.nft import Firewall
from overlay.types import DEFAULT_PORT
from tests.support import calls
from tests.support.calls import Call, fails, seen
from tests.support.labs import Place
from tests.support.machines import Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, run
from tests.support.traffic import copy, is_answered, opened, reaches
from tests.support.waiting import eventually
from tests.support.wiretap import Wiretap
from tests.support.worlds import World, wire_world

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft"),
]

WITHIN = 20.0
TUN = "muslin0"
PORT, HOST_PORT = 7001, 8080
families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
kinds = pytest.mark.parametrize("kind", [calls.TCP, calls.UDP], ids=["tcp", "udp"])
LIMITED = ("--ingress", "50M", "--egress", "60M")


@dataclass
class Scene:
    """Two nodes, three pods, and the world at the first node."""

    yard: Yard
    world: World
    web: Place
    beside: Place
    far: Place

    @property
    def machine(self) -> Machine:
        return self.yard.machines[0]

    def node(self, number: int) -> Place:
        machine = self.yard.machines[number - 1]
        (row,) = [row for row in machine.get("nodes") if row["name"] == machine.name]
        return Place(machine.name, "", machine.netns, row["address"], row["address6"])

    def drops(self) -> dict[str, int]:
        return dict(self.machine.ask("status")["guard"]["drops"])


@pytest.fixture(scope="module")
def scene(make_module_yard: YardMaker) -> Scene:
    """Leave it as you found it."""
    yard = make_module_yard(2)
    first, second = yard.machines
    yard.found()
    yard.join(second)
    world = wire_world(first.netns, f"{yard.name}-node9", "wan0", "203.0.113", "2001:db8:9")
    run(world.host.netns, *f"ip route add 10.244.0.0/16 via {world.near}".split())
    run(world.host.netns, *f"ip -6 route add fd00::/8 via {world.near6}".split())
    ports = ("--port", f"{HOST_PORT}:80", "--port", f"{HOST_PORT}:80/udp")
    first.says("pod", "add", "web", *ports, *LIMITED)
    first.says("pod", "add", "beside")
    second.says("pod", "add", "far")
    pods = first.place("web"), first.place("beside"), second.place("far")
    made = Scene(yard, world, *pods)
    for family in (4, 6):
        eventually(lambda family=family: reaches(pods[0], pods[2].at(family)), within=WITHIN)
    return made


# -- who reaches whom, and whom he sees --------------------------------------------------------


@contextmanager
def nothing_dropped(scene: Scene) -> Iterator[None]:
    """The packet filter has nothing against it."""
    before = scene.drops()
    yield
    assert scene.drops() == before


@families
@kinds
def test_everybody_reaches_everybody_under_his_own_address(
    scene: Scene, kind: socket.SocketKind, family: int
) -> None:
    """Pods and nodes, here and there, each pair in both directions, and a pod itself."""
    node1, node2 = scene.node(1), scene.node(2)
    near, far = (scene.web, scene.beside, node1), (scene.far, node2)
    with nothing_dropped(scene):
        for caller in (*near, *far):
            for callee in (*near, *far):
                call = Call(caller, callee.at(family), PORT, kind)
                assert seen(call, callee).host == caller.at(family), (caller, callee)


@families
def test_a_pod_reaches_services_of_its_node_at_any_address_of_it(scene: Scene, family: int) -> None:
    node = scene.node(1)
    for address in (node.at(family), scene.world.of(family)):
        assert seen(Call(scene.web, address, PORT), node).host == scene.web.at(family)


def test_the_underlay_is_none_of_these_services(scene: Scene) -> None:
    before = scene.drops().get("underlay", 0)
    with opened(scene.web, calls.UDP, 4) as client:
        for port in (DEFAULT_PORT + 1, DEFAULT_PORT):  # the second ends the wait for the first
            client.sendto(b"let me in", (scene.node(1).address, port))
    eventually(lambda: scene.drops().get("underlay", 0) > before, within=WITHIN)
    assert scene.drops()["underlay"] == before + 1


# -- by which way ------------------------------------------------------------------------------


@families
def test_between_pods_of_one_node_nothing_passes_the_daemon(scene: Scene, family: int) -> None:
    web, beside, far = scene.web, scene.beside, scene.far
    with Wiretap(scene.machine.netns, TUN, most=200) as tap:
        copy(web, beside, 1_000_000, family=family)
        copy(beside, web, 1_000_000, family=family)
        assert is_answered(web, web.at(family))
        assert is_answered(beside, scene.node(1).at(family))
        assert is_answered(scene.node(1), beside.at(family))
        assert seen(Call(beside, scene.node(1).at(family), HOST_PORT), web, 80)
        assert is_answered(web, far.at(family))  # this one does, or the tap hears nothing
        inside = ip_address(beside.at(family)).packed
        eventually(lambda: holding(tap, ip_address(far.at(family)).packed), within=WITHIN)
    assert not holding(tap, inside)


def holding(tap: Wiretap, address: bytes) -> list[bytes]:
    return [packet for packet in tap.packets if address in packet]


def test_every_link_says_whose_it_is(scene: Scene) -> None:
    rows = json.loads(run(scene.machine.netns, "ip", "-j", "link"))
    named = {row["ifname"]: row.get("ifalias") for row in rows}
    for pod in ("web", "beside"):
        assert named[veth_name(pod)] == pod
    assert named[queue_name("web")] == "web"
    assert queue_name("beside") not in named
    wide = scene.machine.says("get", "pods", "-o", "wide")
    assert veth_name("web") in wide


# -- ports ---------------------------------------------------------------------------------------


@families
@kinds
def test_a_port_leads_to_its_pod(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    host, web = scene.world.host, scene.web
    call = Call(host, scene.world.of(family), HOST_PORT, kind)
    assert seen(call, web, 80).host == host.at(family)
    for caller in (scene.far, scene.node(2)):
        call = Call(caller, scene.node(1).at(family), HOST_PORT, kind)
        assert seen(call, web, 80).host == caller.at(family)
    call = Call(web, scene.world.of(family), HOST_PORT, kind)
    assert seen(call, web, 80).host == scene.node(1).at(family)


@pytest.mark.parametrize(
    ("port", "why"),
    [
        (f"{HOST_PORT}:1", f"pod web has port {HOST_PORT}/tcp of this node"),
        (f"127.0.0.1:{HOST_PORT}:1/udp", f"pod web has port {HOST_PORT}/udp of this node"),
        (
            f"{DEFAULT_PORT}:1/udp",
            (
                f"port {DEFAULT_PORT}/udp of this node is in use by a program that listens at "
                f"[::]:{DEFAULT_PORT}"
            ),
        ),
    ],
    ids=["of a pod", "of a pod, at one address", "of the underlay"],
)
def test_a_port_that_is_taken_is_refused(scene: Scene, port: str, why: str) -> None:
    done = scene.machine.types("pod", "add", "late", "--port", port)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("muslin: ")
    assert why in line
    assert "late" not in scene.machine.says("get", "pods")
    assert not attempt(scene.machine.netns, "ip", "link", "show", veth_name("late")).stdout


# -- while there is no daemon, and afterwards ----------------------------------------------------


def queues(scene: Scene) -> list[str]:
    """Rates of the limited pod, and who put them there, as `tc` shows it."""
    links = veth_name("web"), queue_name("web")
    shown = (run(scene.machine.netns, "tc", "qdisc", "show", "dev", link) for link in links)
    return [line for text in shown for line in text.splitlines() if "tbf" in line]


def test_ports_and_limits_outlive_the_daemon(scene: Scene) -> None:
    machine, host = scene.machine, scene.world.host
    before = queues(scene)
    assert [line.split(" rate ")[1].split()[0] for line in before] == ["50Mbit", "60Mbit"]
    call = Call(host, scene.world.near, HOST_PORT)
    machine.stop(signal.SIGKILL)
    try:
        assert queues(scene) == before
        assert seen(call, scene.web, 80).host == host.address
    finally:
        machine.up()
    assert queues(scene) == before
    assert seen(call, scene.web, 80).host == host.address


def test_ports_and_limits_go_with_the_pod(scene: Scene) -> None:
    machine, host = scene.machine, scene.world.host
    machine.says("pod", "add", "brief", "--port", "8090:80", *LIMITED)
    pod = machine.place("brief")
    call = Call(host, scene.world.near, 8090)
    assert seen(call, pod, 80).host == host.address
    machine.says("pod", "del", "brief")
    assert fails(call, scene.web, 80)
    left = run(machine.netns, "ip", "-br", "link")
    assert veth_name("brief") not in left
    assert queue_name("brief") not in left
    assert "8090" not in run(machine.netns, "nft", "list", "ruleset")
