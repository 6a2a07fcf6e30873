"""Pods reach the world under the node's address, and everybody else under their own.

    node1 -- underlay -- node2 == wan0 ==== world   203.0.113.9, 2001:db8:9::9, no way to pods
    | web                | web == lan0 ==== LAN     192.168.7.9, 2001:db8:7::9, way back by node2

node2 has `egress = "masquerade"` and advertises the LAN.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from node.errors import NodeError
from node.kernel import netns
from node.kernel.nft import Firewall
from overlay.types import DEFAULT_PORT
from tests.support import calls
from tests.support.calls import UDP, Call, fails, seen
from tests.support.labs import Place
from tests.support.machines import Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, run
from tests.support.traffic import is_answered, reaches
from tests.support.waiting import eventually
from tests.support.wiretap import Wiretap
from tests.support.worlds import World, wire_world

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft"),
]

WITHIN = 30.0
PORT = 7001
LAN, LAN6 = "192.168.7.0/24", "2001:db8:7::/64"
ADDRESS, CLUSTER = {4: "address", 6: "address6"}, {4: "10.244.0.0/16", 6: "fd00::/8"}
families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
kinds = pytest.mark.parametrize("kind", [calls.TCP, calls.UDP], ids=["tcp", "udp"])


@dataclass
class Scene:
    """Two nodes with a pod each; the second has the world and a LAN behind it."""

    yard: Yard
    world: World
    lan: World

    @property
    def node(self) -> Machine:
        return self.yard.machines[1]

    def pod(self, number: int) -> Place:
        return self.yard.machines[number - 1].place("web")

    def dropped(self, counter: str) -> int:
        return int(self.node.ask("status")["guard"]["drops"].get(counter, 0))


def setting(machine: Machine, egress: str) -> None:
    """Write the settings, and have the daemon read them."""
    text = f'egress = "{egress}"\nadvertise_routes = ["{LAN}", "{LAN6}"]\n'
    (machine.state / "config.toml").write_text(text)
    if machine.pid is not None:
        machine.stop(signal.SIGHUP)


def translates(machine: Machine) -> bool:
    shown = attempt(machine.netns, "nft", "list", "table", "inet", "muslin_nat")
    return "masquerade" in shown.stdout


@pytest.fixture(scope="module")
def scene(make_module_yard: YardMaker) -> Scene:
    """Masquerading. Leave it as you found it."""
    yard = make_module_yard(2)
    founder, node = yard.machines
    yard.found()
    token = founder.says("token", "--route", LAN, "--route", LAN6).strip()
    node.says("join", token, "--name", node.name)
    setting(node, "masquerade")
    node.up()
    world = wire_world(node.netns, f"{yard.name}-node8", "wan0", "203.0.113", "2001:db8:9")
    lan = wire_world(node.netns, f"{yard.name}-node9", "lan0", "192.168.7", "2001:db8:7")
    run(lan.host.netns, *f"ip route add 10.244.0.0/16 via {lan.near}".split())
    run(lan.host.netns, *f"ip -6 route add fd00::/8 via {lan.near6}".split())
    founder.says("pod", "add", "web")
    node.says("pod", "add", "web", "--port", "8080:80", "--port", "8080:80/udp")
    return Scene(yard, world, lan)


@families
@kinds
def test_the_world_sees_the_node(scene: Scene, kind: socket.SocketKind, family: int) -> None:
    host = scene.world.host
    peer = seen(Call(scene.pod(2), host.at(family), PORT, kind), host)
    assert peer.host == scene.world.of(family)


@families
def test_pings_and_their_answers_pass(scene: Scene, family: int) -> None:
    assert is_answered(scene.pod(2), scene.world.host.at(family))


@families
@kinds
def test_pods_of_other_nodes_see_the_pod(
    scene: Scene, kind: socket.SocketKind, family: int
) -> None:
    near, far = scene.pod(2), scene.pod(1)
    assert seen(Call(near, far.at(family), PORT, kind), far).host == near.at(family)
    assert seen(Call(far, near.at(family), PORT, kind), near).host == far.at(family)


@families
@pytest.mark.parametrize("number", [1, 2])
def test_advertised_networks_see_the_pod(scene: Scene, number: int, family: int) -> None:
    pod, host = scene.pod(number), scene.lan.host
    eventually(lambda: reaches(pod, host.at(family)), within=WITHIN)
    assert seen(Call(pod, host.at(family), PORT), host).host == pod.at(family)
    assert seen(Call(host, pod.at(family), PORT), pod).host == host.at(family)


@families
def test_the_node_itself_sees_the_pod(scene: Scene, family: int) -> None:
    here = Place("node2", "node2", scene.node.netns, "", "")
    pod = scene.pod(2)
    assert seen(Call(pod, scene.world.of(family), PORT), here).host == pod.at(family)


@families
@kinds
def test_ports_of_the_node_lead_to_pods_as_ever(
    scene: Scene, kind: socket.SocketKind, family: int
) -> None:
    pod, host = scene.pod(2), scene.world.host
    call = Call(host, scene.world.of(family), 8080, kind)
    assert seen(call, pod, 80).host == host.at(family)
    call = Call(pod, scene.world.of(family), 8080, kind)
    assert seen(call, pod, 80).host == scene.node.get("nodes")[1][ADDRESS[family]]


@families
def test_who_has_a_route_to_pods_is_answered_by_them(scene: Scene, family: int) -> None:
    """As where a router was told of the cluster's range, which no node advertises anything for."""
    pod, host = scene.pod(2), scene.world.host
    way = f"{CLUSTER[family]} via {scene.world.of(family)}".split()
    run(host.netns, "ip", f"-{family}", "route", "add", *way)
    try:
        assert seen(Call(host, pod.at(family), PORT), pod).host == host.at(family)
    finally:
        run(host.netns, "ip", f"-{family}", "route", "del", *way)


@families
def test_the_world_never_sees_the_underlays_port(scene: Scene, family: int) -> None:
    """A pod that sends from it is given another, or it could have the daemon's answers."""
    host = scene.world.host
    peer = seen(Call(scene.pod(2), host.at(family), PORT, UDP, source=DEFAULT_PORT), host)
    assert peer.host == scene.world.of(family)
    assert peer.port != DEFAULT_PORT


@families
def test_the_underlay_of_others_is_closed_to_pods(scene: Scene, family: int) -> None:
    host, before = scene.world.host, scene.dropped("underlay")
    assert fails(Call(scene.pod(2), host.at(family), DEFAULT_PORT, UDP), host)
    assert scene.dropped("underlay") == before + 1
    assert seen(Call(scene.pod(2), host.at(family), DEFAULT_PORT + 1, UDP), host)


def test_what_cannot_be_translated_does_not_leave(scene: Scene) -> None:
    """A segment with a wrong checksum belongs to no connection that the kernel would remember."""
    pod, host = scene.pod(2), scene.world.host
    reaches(pod, host.address)
    before = scene.dropped("unmasked")
    wire = netns.run_in(pod.netns, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0)
    with wire, Wiretap(host.netns, "eth0") as tap:
        wire.bind(("eth0", 0))
        ends = [run(pod.netns, "cat", "/sys/class/net/eth0/address").strip()]
        ends.append(run(pod.netns, "ip", "-br", "neigh", "show", "169.254.1.1").split()[2])
        segment = IP(src=pod.address, dst=host.address) / TCP(dport=PORT, flags="A", chksum=0xBAD)
        wire.send(bytes(Ether(src=ends[0], dst=ends[1]) / segment))
        eventually(lambda: scene.dropped("unmasked") == before + 1, within=WITHIN)
        assert is_answered(pod, host.address)  # behind it: the tap works
    inside = socket.inet_aton(pod.address)
    assert not any(inside in frame for frame in tap.frames)
    assert any(socket.inet_aton(scene.world.near) in frame for frame in tap.frames)


@contextmanager
def unmasked(scene: Scene) -> Iterator[None]:
    """Without masquerade, for the time of a `with` block."""
    setting(scene.node, "none")
    try:
        eventually(lambda: not translates(scene.node), within=WITHIN)
        yield
    finally:
        setting(scene.node, "masquerade")
        eventually(lambda: translates(scene.node), within=WITHIN)


def test_sighup_changes_it(scene: Scene) -> None:
    pod, host = scene.pod(2), scene.world.host
    with unmasked(scene), Wiretap(host.netns, "eth0") as tap:
        assert not reaches(pod, host.address)
        tap.stop()
        assert any(socket.inet_aton(pod.address) in frame for frame in tap.frames)
    assert is_answered(pod, host.address)


def test_flushed_rules_come_back(scene: Scene) -> None:
    pod, host = scene.pod(2), scene.world.host
    run(scene.node.netns, "nft", "flush", "ruleset")
    eventually(lambda: reaches(pod, host.address), within=WITHIN)
    assert "egress-off" not in scene.node.problems()


def test_without_nft_it_is_refused_at_start_and_named_while_running(
    scene: Scene, tmp_path: Path
) -> None:
    """As on a machine that has no nft: the folders where it could be are hidden."""
    node = scene.yard.machines[0]
    node.stop()
    hide = 'mount --make-rprivate / && mount --bind /dev/null $(command -v nft) && exec "$@"'
    before = ("unshare", "-m", "sh", "-c", hide, "sh")
    try:
        done = node.types("up", "--egress", "masquerade", before=before)
        assert done.returncode == 1
        assert (
            done.stderr.strip()
            .splitlines()[-1]
            .startswith('muslin: cannot run the daemon: egress = "masquerade" cannot be had (')
        )
        assert 'install nft (package nftables), or set egress = "none"' in done.stderr
        with node.running("up", before=before) as daemon:
            eventually(lambda: answers(node), within=WITHIN)
            assert "egress-off" not in node.problems()
            (node.state / "config.toml").write_text('egress = "masquerade"\n')
            daemon.process.send_signal(signal.SIGHUP)
            eventually(lambda: "egress-off" in node.problems(), within=WITHIN)
    finally:
        (node.state / "config.toml").unlink(missing_ok=True)
        node.up()


def answers(node: Machine) -> bool:
    try:
        node.ask("status")
    except NodeError:
        return False
    return True
