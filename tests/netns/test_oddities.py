"""Odd inner packets through two real nodes, and through two kernels without an overlay.

    pod  ---- node1 ===== overlay ===== node2 ---- pod          a lab
    pod  ---- router1 ------ wire ----- router2 ---- pod        the same addresses, kernels alone

Every packet is put onto the link of the first pod, and again behind the first kernel: onto the TUN,
and onto the wire, where nobody has looked at it yet. What comes out at the second pod is compared
byte by byte. The overlay may drop what a kernel carries, in cases that are listed; it never
delivers what two kernels would not, and it delivers nothing that differs.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from node.kernel import netns
from tests.support.builders import udp4, udp6
from tests.support.labs import Lab, LabMaker, Place
from tests.support.oddities import MARTIANS, ODDITIES, Ends
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE, run
from tests.support.waiting import eventually
from tests.support.wiretap import ETHERNET_SIZE, Wiretap

pytestmark = NEEDS_KERNEL

VERSIONS = (4, 6)
PROTOCOLS = {4: b"\x08\x00", 6: b"\x86\xdd"}
TUN = "muslin0"
GATEWAYS = {4: "169.254.77.1", 6: "fe80::77"}
SOURCES = ("169.254.7.7", "240.0.0.1", "::ffff:10.244.0.2", "::10.244.0.2")
BY_THE_OVERLAY = {
    # Sources that are not the sender's, martian or not: a router does not know whose they are.
    *(
        f"{place} IPv{6 if ':' in source else 4} from {source}"
        for place in ("pod", "wire")
        for source in SOURCES
    ),
    # A kernel cuts them off; what a pod sends has passed one before it comes to the TUN.
    *(f"wire IPv{version} bytes behind the end" for version in VERSIONS),
}
"""What two kernels carry and the overlay drops."""


@dataclass(frozen=True)
class Way:
    """One of the two ways.

    Attributes:
        first, second: where a packet may be put: namespace, link, and what comes before it.
        far: the namespace it should come out in.
    """

    first: tuple[str, str, bytes]
    second: tuple[str, str, bytes]
    far: str


def addressed(namespace: str, link: str) -> bytes:
    """The hardware address of a link."""
    (found,) = json.loads(run(namespace, "ip", "-j", "link", "show", link))
    return bytes.fromhex(found["address"].replace(":", ""))


def other_end(namespace: str, link: str, there: str) -> bytes:
    """The hardware address of the other end of a veth."""
    (found,) = json.loads(run(namespace, "ip", "-j", "link", "show", link))
    links = json.loads(run(there, "ip", "-j", "link"))
    (address,) = [one["address"] for one in links if one["ifindex"] == found["link_index"]]
    return bytes.fromhex(address.replace(":", ""))


def overlay(lab: Lab, near: Place, far: Place) -> Way:
    node = lab[near.node].netns
    front = other_end(near.netns, "eth0", node) + addressed(near.netns, "eth0")
    return Way((near.netns, "eth0", front), (node, TUN, b""), far.netns)


def kernels(stack: ExitStack, name: str, near: Place, far: Place) -> Way:
    """Two pods and two routers in namespaces of their own."""
    pod1, router1, router2, pod2 = names = [f"{name}-odd{number}" for number in range(4)]
    for one in names:
        netns.create(one)
        stack.callback(netns.delete, one)
        run(
            one,
            "sysctl",
            "-qw",
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
        )
    for one in (router1, router2):
        run(one, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        run(
            one,
            "sysctl",
            "-qw",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
        )
    for left, right, a, b in (
        (pod1, router1, "eth0", "pod"),
        (router1, router2, "wire", "wire"),
        (router2, pod2, "pod", "eth0"),
    ):
        run(left, "ip", *f"link add {a} type veth peer name {b} netns {right}".split())
        for namespace, link in ((left, a), (right, b)):
            run(namespace, "ip", *f"link set {link} up".split())
    for pod, router, place in ((pod1, router1, near), (pod2, router2, far)):
        for version in VERSIONS:
            own, gateway = place.at(version), GATEWAYS[version]
            size = {4: 32, 6: 128}[version]
            flag = [] if version == 4 else ["nodad"]
            run(pod, "ip", "addr", "add", f"{own}/{size}", "dev", "eth0", *flag)
            run(router, "ip", "addr", "add", f"{gateway}/{size}", "dev", "pod", *flag)
            run(router, "ip", f"-{version}", "route", "add", own, "dev", "pod")
            run(pod, "ip", f"-{version}", "route", "add", gateway, "dev", "eth0")
            run(pod, "ip", f"-{version}", "route", "add", "default", "via", gateway, "dev", "eth0")
            neighbour(router, "pod", own, addressed(pod, "eth0"))
            neighbour(pod, "eth0", gateway, addressed(router, "pod"))
    for here, there, place in ((router1, router2, far), (router2, router1, near)):
        for version in VERSIONS:
            via = {4: "169.254.78.1", 6: "fe80::78"}[version]
            neighbour(here, "wire", via, addressed(there, "wire"))
            words = f"-{version} route add {place.at(version)} via {via} dev wire onlink"
            run(here, "ip", *words.split())
    first = addressed(router1, "pod") + addressed(pod1, "eth0")
    second = addressed(router2, "wire") + addressed(router1, "wire")
    return Way((pod1, "eth0", first), (router1, "wire", second), pod2)


def neighbour(namespace: str, link: str, address: str, hardware: bytes) -> None:
    words = f"neigh replace {address} lladdr {hardware.hex(':')} dev {link} nud permanent"
    run(namespace, "ip", *words.split())


def mark(number: int) -> bytes:
    """Eight bytes that name a packet."""
    return b"odd%05d" % number


def packets(near: Place, far: Place) -> list[tuple[str, int, bytes]]:
    """Name, version and bytes of every case; the place in the list is the mark."""
    made: list[tuple[str, int, bytes]] = []
    for case in ODDITIES:
        ends: Ends = near.at(case.version), far.at(case.version)
        made.append(
            (f"IPv{case.version} {case.name}", case.version, case.make(ends, mark(len(made))))
        )
    for version, martians in MARTIANS.items():
        build = udp4 if version == 4 else udp6
        for martian in martians:
            for name, ends in (
                (f"from {martian}", (martian, far.at(version))),
                (f"to {martian}", (near.at(version), martian)),
            ):
                made.append((f"IPv{version} {name}", version, build(*ends, mark(len(made)))))
    return made


def came_out(way: Way, place: tuple[str, str, bytes], near: Place, far: Place) -> dict[str, bytes]:
    """What comes out at the far pod, by case."""
    namespace, link, front = place
    cases = packets(near, far)
    sender = netns.run_in(namespace, socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
    here = addressed(way.far, "eth0")  # what goes the other way are answers
    with sender, Wiretap(way.far, "eth0") as tap:
        sender.bind((link, 0))
        for _, version, packet in cases:
            # Behind a router only what has the right type of frame is IP.
            sender.send(front + PROTOCOLS[version] + packet if front else packet)

        def ended(word: bytes) -> bool:
            last = udp4(near.address, far.address, word)
            sender.send(front + PROTOCOLS[4] + last if front else last)
            return any(frame[: len(here)] == here and word in frame for frame in tap.frames)

        # Small packets may overtake others of their burst: the second word is of another.
        for word in (b"the last", b"the end"):
            eventually(lambda word=word: ended(word), within=PATIENCE)
    found = {}
    for number, (name, _, _) in enumerate(cases):
        for frame in tap.frames:
            if frame[: len(here)] == here and mark(number) in frame:
                assert name not in found, f"{name} came out twice"
                found[name] = frame[ETHERNET_SIZE:]
    return found


@dataclass(frozen=True)
class Both:
    """What came out on both ways, by place and case."""

    overlay: dict[str, bytes]
    kernels: dict[str, bytes]


@pytest.fixture(scope="module")
def both(make_module_lab: LabMaker) -> Iterator[Both]:
    lab = make_module_lab(2, 1)
    near, far = lab["node1-pod1"], lab["node2-pod1"]
    with ExitStack() as stack:
        found: list[dict[str, bytes]] = []
        for way in (overlay(lab, near, far), kernels(stack, lab.name, near, far)):
            places = {"pod": way.first, "wire": way.second}
            found.append(
                {
                    f"{name} {case}": packet
                    for name, place in places.items()
                    for case, packet in came_out(way, place, near, far).items()
                }
            )
        yield Both(*found)


def test_most_packets_come_out_of_both(both: Both) -> None:
    for found in (both.overlay, both.kernels):
        assert sum(name.startswith("pod") for name in found) > len(ODDITIES) / 3
        assert sum(name.startswith("wire") for name in found) > len(ODDITIES) / 3


def test_the_overlay_delivers_nothing_that_kernels_would_not(both: Both) -> None:
    assert sorted(both.overlay.keys() - both.kernels.keys()) == []


def test_what_comes_out_is_the_same_to_the_byte(both: Both) -> None:
    for name in both.overlay.keys() & both.kernels.keys():
        if name.endswith("record route"):
            continue  # routers write their own addresses into it
        assert both.overlay[name] == both.kernels[name], name


def test_what_the_overlay_drops_and_kernels_carry_is_this(both: Both) -> None:
    assert sorted(both.kernels.keys() - both.overlay.keys()) == sorted(BY_THE_OVERLAY)
