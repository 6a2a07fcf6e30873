"""Item 1 and 2 of what Muslin promises: one flat network, no translation, every hop visible.

    node1                       node2                       node3
    | pod1  pod2                | pod1  pod2                | pod1  pod2
    +--------- underlay --------+---------------------------+

A packet between pods of different nodes is forwarded by both nodes' kernels, one between pods of
the same node by that node's. Nothing else on the way counts as a hop or changes an address.
"""

from __future__ import annotations

import re
import shutil
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.labs import Lab, Place
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.traffic import FAMILIES, PORT, opened, ping

pytestmark = NEEDS_KERNEL

IP_RECVTTL = 12
"""Of ip(7); Python names it from 3.14 on."""

FIRST_TTL = 64
"""Linux's default (RFC 1700), which pods have."""

families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


def routers(source: Place, target: Place) -> list[str]:
    """The nodes that forward a packet: those on the way that are not an end of it."""
    ends = {source.name, target.name}
    return [node for node in dict.fromkeys([source.node, target.node]) if node not in ends]


def reply_ttl(source: Place, target: Place, family: int) -> int | None:
    said, _ = ping(source, target.at(family))
    found = re.search(r"ttl=(\d+)", said)
    return int(found[1]) if found else None


@families
def test_everybody_reaches_everybody_over_exactly_the_hops_there_are(lab: Lab, family: int) -> None:
    everybody = [*lab.nodes, *lab.pods]
    pairs = [(a, b) for a in everybody for b in everybody if a is not b]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: reply_ttl(*pair, family), pairs))
    wanted = [FIRST_TTL - len(routers(b, a)) for a, b in pairs]
    wrong = [
        f"{a.name} > {b.name}: {ttl}, not {right}"
        for (a, b), ttl, right in zip(pairs, found, wanted, strict=True)
        if ttl != right
    ]
    assert len(pairs) == 72
    assert not wrong


WAYS = [
    ("node1-pod1", "node2-pod1", 62),
    ("node1-pod1", "node1-pod2", 63),
    ("node1-pod1", "node1", 64),
    ("node1-pod1", "node2", 63),
    ("node1", "node1-pod1", 64),
    ("node1", "node2-pod1", 63),
    ("node1", "node2", 64),
]
ways = pytest.mark.parametrize(
    ("client", "server", "ttl"), WAYS, ids=[f"{a}-to-{b}" for a, b, _ in WAYS]
)


@families
@ways
def test_a_tcp_server_sees_the_clients_own_address(
    lab: Lab, client: str, server: str, ttl: int, family: int
) -> None:
    near, far = lab[client], lab[server]
    with (
        opened(far, socket.SOCK_STREAM, family) as listener,
        opened(near, socket.SOCK_STREAM, family) as sender,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((far.at(family), PORT))
        listener.listen()
        sender.connect((far.at(family), PORT))
        accepted, seen = listener.accept()
        with accepted:
            assert seen[0] == near.at(family)
            assert accepted.getsockname()[0] == far.at(family)
            assert sender.getpeername()[0] == far.at(family)


@families
@ways
def test_a_udp_server_sees_the_clients_own_address_and_each_hop_once(
    lab: Lab, client: str, server: str, ttl: int, family: int
) -> None:
    near, far = lab[client], lab[server]
    with (
        opened(far, socket.SOCK_DGRAM, family) as receiver,
        opened(near, socket.SOCK_DGRAM, family) as sender,
    ):
        if FAMILIES[family] == socket.AF_INET:
            receiver.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        else:
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        receiver.bind((far.at(family), PORT))
        sender.sendto(b"who am I?", (far.at(family), PORT))
        data, ancillary, _, seen = receiver.recvmsg(64, 64)
        assert (data, seen[0]) == (b"who am I?", near.at(family))
        assert [struct.unpack("=i", value)[0] for _, _, value in ancillary] == [ttl]
        receiver.sendto(b"you", seen)
        assert sender.recvfrom(64)[1][0] == far.at(family)


def traced(source: Place, target: Place, family: int) -> list[str]:
    """The addresses that answered, hop by hop."""
    said = run(
        source.netns, "traceroute", f"-{family}", "-n", "-q1", "-w10", "-m6", target.at(family)
    )
    return [line.split()[1] for line in said.splitlines()[1:]]


@pytest.mark.skipif(shutil.which("traceroute") is None, reason="needs traceroute")
@families
def test_traceroute_shows_every_hop_and_nothing_else(lab: Lab, family: int) -> None:
    pod = lab["node1-pod1"]
    node1, node2, beside, across = (
        lab[name].at(family) for name in ("node1", "node2", "node1-pod2", "node2-pod1")
    )
    assert traced(pod, lab["node2-pod1"], family) == [node1, node2, across]
    assert traced(pod, lab["node1-pod2"], family) == [node1, beside]
    assert traced(pod, lab["node2"], family) == [node1, node2]
    assert traced(lab["node1"], lab["node2-pod1"], family) == [node2, across]
    assert traced(lab["node1"], lab["node1-pod2"], family) == [beside]
