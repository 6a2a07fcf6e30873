"""Item 4 of what Muslin promises: all sizes, many at once, and errors that reach the sender."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest

from tests.support.labs import Lab, Place
from tests.support.pings import Pings
from tests.support.privileged import NEEDS_KERNEL
from tests.support.traffic import (
    ECHO_PORT,
    FAMILIES,
    client,
    copy,
    echo_datagrams,
    opened,
    ping,
    serving,
)
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])

SIZES = [
    *(1, 2, 3, 17, 100, 512, 1000),
    *(1200, 1231, 1232, 1233, 1251, 1252, 1253, 1279, 1280, 1281),  # around the least IPv6 MTU
    *(1400, 1451, 1452, 1453, 1471, 1472, 1473, 1500, 1501),  # around the pods' MTU
    *(2000, 2944, 4000, 8192, 9000, 16_384, 32_768, 50_000, 60 * 1024),
]

AT_ONCE = 1.0
"""Seconds. An error that takes longer than this is a time-out, not an answer."""


@pytest.fixture
def near(lab: Lab) -> Place:
    return lab["node1-pod1"]


@pytest.fixture
def far(lab: Lab) -> Place:
    return lab["node2-pod1"]


@families
def test_datagrams_of_all_sizes_come_back_intact(near: Place, far: Place, family: int) -> None:
    echo_datagrams(near, far, SIZES, family=family)


@families
def test_200_connections_at_once_each_move_a_megabyte_there_and_back(
    near: Place, far: Place, family: int
) -> None:
    with serving(far, "echo", ECHO_PORT):
        answer = client(near, "connections", far.at(family), ECHO_PORT, 200, 1 << 20)
    assert (answer["count"], answer["wrong"]) == (200, 0)


@families
def test_pods_of_one_node_talk_as_well(lab: Lab, near: Place, family: int) -> None:
    beside = lab["node1-pod2"]
    echo_datagrams(near, beside, [1, 1500, 60 * 1024], family=family)
    copy(near, beside, 16 << 20, family=family)


def test_pings_are_answered_while_a_pod_sends_as_fast_as_it_can(near: Place, far: Place) -> None:
    with Pings(near, far.address, every=0.01) as pings:
        copy(near, far, 256 << 20)
        pings.go_on()
    assert pings.sent > 10
    assert pings.lost == 0


# -- errors ----------------------------------------------------------------------------------------


IP_RECVERR = 11
IPV6_RECVERR = 25
"""Of ip(7) and ipv6(7): tell a UDP socket of every ICMP error, not of the fatal ones alone."""

PATIENCE = 25.0
QUIET = 2.5
"""Seconds to leave the kernel alone before it is asked for another ICMP error. It earns one token
per second and sender, and an IPv4 error costs two: asked every second, it would never answer."""


def refusal(source: Place, address: str, family: int, kind: socket.SocketKind) -> str:
    """The error that a socket gets at once from an address where nobody is."""
    return eventually(
        lambda: _one_refusal(source, address, family, kind), within=PATIENCE, poll=QUIET
    )


def _one_refusal(source: Place, address: str, family: int, kind: socket.SocketKind) -> str:
    with opened(source, kind, family) as sender:
        sender.settimeout(AT_ONCE)
        if family == 4:
            sender.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            sender.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        try:
            sender.connect((address, 9))
            sender.send(b"hello?")
            sender.recv(64)
        except TimeoutError:
            return ""
        except OSError as error:
            return errno.errorcode[error.errno or 0]
    return ""


kinds = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])


@families
@kinds
def test_a_port_where_nobody_listens_refuses_at_once(
    near: Place, far: Place, family: int, kind: socket.SocketKind
) -> None:
    assert refusal(near, far.at(family), family, kind) == "ECONNREFUSED"


@families
@kinds
def test_an_address_without_a_pod_is_unreachable_at_once(
    lab: Lab, near: Place, family: int, kind: socket.SocketKind
) -> None:
    for node in ("node1", "node2"):
        nobody = str(ip_address(lab[node].at(family)) + 200)
        # Linux answers with "no route" for both kinds of unreachable in IPv6.
        wanted = "EHOSTUNREACH" if family == 4 else "ENETUNREACH"
        assert refusal(near, nobody, family, kind) == wanted


@families
@kinds
def test_an_address_in_nobodys_block_is_unreachable_at_once(
    lab: Lab, near: Place, family: int, kind: socket.SocketKind
) -> None:
    assert refusal(near, unowned(lab, family), family, kind) == "ENETUNREACH"


def unowned(lab: Lab, family: int) -> str:
    """An address of the cluster's range in a block that no node uses."""
    free = next(row for row in lab.get("node1", "blocks") if row["state"] == "free")
    return str(ip_address((free["prefix"] if family == 4 else free["prefix6"]).split("/")[0]) + 5)


@families
def test_errors_come_from_the_node_where_the_packet_ended(
    lab: Lab, near: Place, family: int
) -> None:
    ended = {
        "node1": [str(ip_address(lab["node1"].at(family)) + 200), unowned(lab, family)],
        "node2": [str(ip_address(lab["node2"].at(family)) + 200)],
    }
    for node, addresses in ended.items():
        for address in addresses:
            assert_answered_by(lab[node].at(family), near, address)


def assert_answered_by(router: str, source: Place, address: str) -> None:
    wanted = f"From {router} icmp_seq=1 Destination"
    eventually(lambda: wanted in ping(source, address, wait=1)[0], within=PATIENCE, poll=QUIET)


def test_packets_larger_than_the_mtu_arrive_in_fragments(near: Place, far: Place) -> None:
    for family in FAMILIES:
        assert ping(near, far.at(family), "-s", "20000", "-i", "0.2", count=3)[1] == 0.0
