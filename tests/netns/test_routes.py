"""A network behind a node: pods reach it under its own addresses, and it them, without translation.

    node1 --- underlay --- node2      node3 == lan0 ==== LAN host      192.168.7.9, 2001:db8:7::9
    | web                  | web      | web                            its way back: by node3

node3 joined with a token that consents to both networks. The LAN is a namespace of its own; all it
knows of the cluster is a route to its range.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from node.kernel import netns
from node.kernel.nft import Firewall
from tests.support.labs import Place
from tests.support.machines import Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, run
from tests.support.traffic import copy, is_answered, ping, reaches
from tests.support.unguarded import unguarded
from tests.support.waiting import eventually
from tests.support.wiretap import Wiretap

pytestmark = NEEDS_KERNEL

WITHIN = 20.0
LAN, LAN6 = "192.168.7.0/24", "2001:db8:7::/64"
NODE, NODE6 = "192.168.7.1", "2001:db8:7::1"
HOST, HOST6 = "192.168.7.9", "2001:db8:7::9"
ICMP_TYPE, ECHO_REQUEST = 14 + 20, 8
"""Behind an Ethernet and an IPv4 header."""

STRANGER = "192.168.7.66"
"""An address of the LAN, worn by somebody who is not there."""

HONEST, FORGED = b"<honest>", b"<forged>"
"""Words that pings carry."""

needs_nft = pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft")
families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


@dataclass
class Scene:
    """Three nodes with a pod each, and a LAN behind the third."""

    yard: Yard
    host: Place

    @property
    def machines(self) -> list[Machine]:
        return self.yard.machines

    def pod(self, number: int) -> Place:
        return self.machines[number - 1].place("web")

    def guarded(self, counter: str) -> int:
        """What node3's filter has dropped."""
        return int(self.machines[2].ask("status")["guard"]["drops"].get(counter, 0))


def advertised(machine: Machine) -> dict[str, str]:
    """The outside routes that a node follows."""
    return {
        row["prefix"]: row["node"] for row in machine.get("routes") if row["origin"] == "advertised"
    }


def in_kernel(machine: Machine, prefix: str) -> str:
    """The link that packets to a prefix leave a node by; empty without a route to just that."""
    family = "-6" if ":" in prefix else "-4"
    rows = json.loads(run(machine.netns, "ip", "-j", family, "route", "show", prefix))
    return next((row["dev"] for row in rows if row.get("type", "unicast") == "unicast"), "")


def wanting(machine: Machine, *prefixes: str) -> None:
    """Write what the node is to advertise into its settings, and tell the daemon."""
    text = f"advertise_routes = {json.dumps(prefixes)}\n"
    (machine.state / "config.toml").write_text(text)
    machine.stop(signal.SIGHUP)


def wire_lan(node: Machine, namespace: str) -> None:
    """A link between a node and its LAN, and the LAN's way back."""
    netns.create(namespace)
    for words in (
        f"ip link add lan0 type veth peer name eth0 netns {namespace}",
        f"ip addr add {NODE}/24 dev lan0",
        f"ip addr add {NODE6}/64 dev lan0 nodad",
        "ip link set lan0 up",
    ):
        run(node.netns, *words.split())
    for words in (
        "ip link set lo up",
        f"ip addr add {HOST}/24 dev eth0",
        f"ip addr add {HOST6}/64 dev eth0 nodad",
        "ip link set eth0 up",
        f"ip route add 10.244.0.0/16 via {NODE}",
        f"ip -6 route add fd00::/8 via {NODE6}",
    ):
        run(namespace, *words.split())


@pytest.fixture(scope="module")
def scene(make_module_yard: YardMaker) -> Scene:
    """All advertised and routed. Leave it as you found it."""
    yard = make_module_yard(3)
    founder, second, third = yard.machines
    yard.found()
    yard.join(second)
    namespace = f"{yard.name}-node9"  # goes with the yard
    wire_lan(third, namespace)
    token = founder.says("token", "--route", LAN, "--route", LAN6).strip()
    third.says("join", token, "--name", third.name)
    (third.state / "config.toml").write_text(f'advertise_routes = ["{LAN}", "{LAN6}"]\n')
    third.up()
    for machine in yard.machines:
        machine.says("pod", "add", "web")
    for machine in (founder, second):
        eventually(lambda machine=machine: routed(machine), within=WITHIN)
    return Scene(yard, Place("lan host", "lan", namespace, HOST, HOST6))


def routed(machine: Machine) -> bool:
    return all(in_kernel(machine, prefix) == "muslin0" for prefix in (LAN, LAN6))


def test_the_routes_are_shown_with_their_origin(scene: Scene) -> None:
    for machine in scene.machines:
        assert advertised(machine) == {LAN: "node3", LAN6: "node3"}
        assert not {"route-not-certified", "route-forbidden"} & machine.problems()
    table = scene.machines[0].says("get", "routes")
    assert [line.split()[3] for line in table.splitlines() if line.startswith(LAN)] == [
        "advertised"
    ]


@families
@pytest.mark.parametrize("number", [1, 2, 3])
def test_pods_reach_a_host_of_the_lan_under_its_own_address_and_theirs(
    scene: Scene, number: int, family: int
) -> None:
    pod = scene.pod(number)
    copy(pod, scene.host, 3_000_000, family=family)


@families
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_host_of_the_lan_reaches_pods_without_translation(
    scene: Scene, number: int, family: int
) -> None:
    copy(scene.host, scene.pod(number), 3_000_000, family=family)


def test_nodes_reach_the_lan_too_and_packets_of_full_size_pass(scene: Scene) -> None:
    first = Place("node1", "node1", scene.machines[0].netns, "", "")
    assert is_answered(first, HOST)
    assert is_answered(first, HOST6)
    assert ping(scene.pod(1), HOST, "-M", "do", "-s", "1472", wait=10)[1] == 0.0
    assert ping(scene.pod(1), HOST6, "-M", "do", "-s", "1452", wait=10)[1] == 0.0


def test_the_node_does_not_list_its_address_in_the_lan_as_underlay(scene: Scene) -> None:
    (row,) = [row for row in scene.machines[0].get("nodes") if row["name"] == "node3"]
    assert row["endpoint"].startswith(scene.machines[2].address)
    assert routed(scene.machines[0])


def test_what_is_taken_out_of_the_settings_is_withdrawn_on_sighup(scene: Scene) -> None:
    first, _, third = scene.machines
    pod = scene.pod(1)
    assert is_answered(pod, HOST)
    try:
        wanting(third, LAN6)
        eventually(lambda: in_kernel(first, LAN) == "", within=WITHIN)
        assert advertised(first) == {LAN6: "node3"}
        assert not reaches(pod, HOST)
        assert is_answered(pod, HOST6)
    finally:
        wanting(third, LAN, LAN6)
    eventually(lambda: routed(first), within=WITHIN)
    eventually(lambda: reaches(pod, HOST), within=WITHIN)


def test_without_consent_nothing_is_announced_and_the_node_says_so(scene: Scene) -> None:
    first, second, _ = scene.machines
    try:
        wanting(second, "203.0.113.0/24")
        eventually(lambda: "route-not-certified" in second.problems(), within=WITHIN)
        assert "203.0.113.0/24" not in advertised(first)
        assert in_kernel(first, "203.0.113.0/24") == ""
        assert "route-not-certified" not in first.problems()
    finally:
        wanting(second)
    eventually(lambda: "route-not-certified" not in second.problems(), within=WITHIN)


def test_a_network_that_a_node_reaches_by_itself_is_left_to_it(scene: Scene) -> None:
    second = scene.machines[1]
    run(second.netns, "ip", "route", "add", "192.168.7.128/25", "dev", "eth0")
    try:
        eventually(lambda: "route-overlaps-host" in second.problems(), within=WITHIN)
        eventually(lambda: in_kernel(second, LAN) == "", within=WITHIN)
        assert in_kernel(second, LAN6) == "muslin0"
        assert is_answered(scene.pod(2), HOST6)
    finally:
        run(second.netns, "ip", "route", "del", "192.168.7.128/25", "dev", "eth0")
    eventually(lambda: in_kernel(second, LAN) == "muslin0", within=WITHIN)
    assert "route-overlaps-host" not in second.problems()


# -- the packet filter -----------------------------------------------------------------------------


@contextmanager
def unseen(scene: Scene, counter: str) -> Iterator[str]:
    """What carries the word does not come to node1's pod, and is counted twice."""
    target, before = scene.pod(1), scene.guarded(counter)
    with Wiretap(target.netns, "eth0") as tap:
        yield target.address
        assert is_answered(scene.host, target.address, "-p", HONEST.hex())
        eventually(lambda: holds(tap, HONEST), within=WITHIN)
        assert not holds(tap, FORGED), "it came through"
    eventually(lambda: scene.guarded(counter) >= before + 2, within=WITHIN)


def holds(tap: Wiretap, word: bytes) -> bool:
    """Whether a ping with it came. ICMP errors, seconds later, quote those of an earlier test."""
    return any(word in frame and frame[ICMP_TYPE] == ECHO_REQUEST for frame in tap.frames)


def forge(namespace: str, source: str, target: str) -> None:
    """Two pings under an address that is put on the loopback for it."""
    run(namespace, "ip", "addr", "add", f"{source}/32", "dev", "lo")
    try:
        words = ("-c", "2", "-i", "0.2", "-W", "1", "-p", FORGED.hex(), "-I", source, target)
        attempt(namespace, "ping", *words)
    finally:
        run(namespace, "ip", "addr", "del", f"{source}/32", "dev", "lo")


@needs_nft
def test_a_host_of_the_lan_cannot_pass_for_a_pod(scene: Scene) -> None:
    with unseen(scene, "outside") as target:
        forge(scene.host.netns, scene.pod(3).address, target)


@needs_nft
def test_who_is_not_on_the_lan_cannot_pass_for_a_host_of_it(scene: Scene) -> None:
    """Somebody in the underlay sends by node3, as if he were behind it."""
    third, stranger = scene.machines[2], scene.yard.info.topology.bridge_netns
    near = f"{third.address.rpartition('.')[0]}.250"
    with unseen(scene, "outside") as target:
        way = f"{target}/32 via {third.address} dev br0 onlink"
        run(stranger, "ip", "addr", "add", f"{near}/24", "dev", "br0")
        try:
            run(stranger, "ip", "route", "add", *way.split())
            forge(stranger, STRANGER, target)
        finally:
            run(stranger, "ip", "addr", "del", f"{near}/24", "dev", "br0")  # and the route with it


@needs_nft
def test_without_the_filters_questions_both_would_pass(scene: Scene) -> None:
    with unguarded(scene.machines[2]):
        eventually(lambda: reaches(scene.pod(1), HOST), within=WITHIN)
        for test in (
            test_a_host_of_the_lan_cannot_pass_for_a_pod,
            test_who_is_not_on_the_lan_cannot_pass_for_a_host_of_it,
        ):
            with pytest.raises(AssertionError, match="it came through"):
                test(scene)


@needs_nft
def test_a_pod_cannot_pass_for_a_host_of_the_lan(scene: Scene) -> None:
    with unseen(scene, "spoofed") as target:
        forge(scene.pod(3).netns, STRANGER, target)


def test_while_the_daemon_rests_packets_to_the_lan_do_not_leave_another_way(scene: Scene) -> None:
    first = scene.machines[0]
    first.stop()
    try:
        route = run(first.netns, "ip", "-j", "route", "show", LAN)
        assert [row["type"] for row in json.loads(route)] == ["unreachable"]
    finally:
        first.up()
    eventually(lambda: routed(first), within=WITHIN)
    eventually(lambda: reaches(scene.pod(1), HOST), within=WITHIN)
