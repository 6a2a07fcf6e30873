"""The kernel does its part: addresses, hops, ICMP, repair. Between `tests.support.bed`."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from node.kernel import netns
from node.kernel.desired import desired_state
from node.kernel.model import KernelSettings, is_veth_name, veth_name
from node.kernel.netlink import Netlink
from node.kernel.overlap import find_overlap
from tests.support.bed import MTU, TUN, Bed, all_routes, applied, name, open_tun, pod, run
from tests.support.privileged import NEEDS_KERNEL
from tests.support.views import node_snapshot

pytestmark = NEEDS_KERNEL


# -- what packets see ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["address", "address6"])
def test_ttl_falls_by_one_per_node_on_the_way(bed: Bed, family: str) -> None:
    across = run(bed.pod11.netns, "ping", "-c1", "-W20", str(getattr(bed.pod21, family)))
    beside = run(bed.pod11.netns, "ping", "-c1", "-W20", str(getattr(bed.pod12, family)))
    assert "ttl=62 " in across
    assert "ttl=63 " in beside


@pytest.mark.parametrize("family", ["address", "address6"])
def test_errors_on_the_way_carry_the_nodes_own_addresses(bed: Bed, family: str) -> None:
    target = str(getattr(bed.pod21, family))
    for hops, state in ((1, bed.state1), (2, bed.state2)):
        answer = run(bed.pod11.netns, "ping", "-c1", "-W20", f"-t{hops}", target)
        assert f"From {getattr(state, family)} " in answer, answer
        assert re.search("Time to live exceeded|Hop limit", answer), answer


@pytest.mark.parametrize("family", ["address", "address6"])
def test_an_address_without_a_pod_is_unreachable_at_once(bed: Bed, family: str) -> None:
    for state in (bed.state1, bed.state2):
        target = ip_address(int(getattr(state, family)) + 100)
        answer = run(bed.pod11.netns, "ping", "-c1", "-W20", str(target))
        assert f"From {getattr(state, family)} " in answer, answer
        assert "nreachable" in answer or "No route" in answer, answer


def seen_by_server(server: str, address: object, client: str) -> str:
    """The source address that a TCP server in one namespace sees of a client in another."""

    def listen() -> socket.socket:
        return socket.create_server(
            (str(address), 0), family=socket.AF_INET6 if ":" in str(address) else socket.AF_INET
        )

    with netns.run_in(server, listen) as listener:
        listener.settimeout(20)
        target = listener.getsockname()[:2]
        with netns.run_in(client, socket.create_connection, target, 20):
            accepted, source = listener.accept()
            accepted.close()
            return str(source[0])


@pytest.mark.parametrize("family", ["address", "address6"])
def test_pods_see_each_other_under_their_own_addresses(bed: Bed, family: str) -> None:
    for server, client in ((bed.pod21, bed.pod11), (bed.pod12, bed.pod11)):
        seen = seen_by_server(server.netns, getattr(server, family), client.netns)
        assert seen == str(getattr(client, family))


@pytest.mark.parametrize("family", ["address", "address6"])
def test_nodes_and_pods_reach_each_other_without_translation(bed: Bed, family: str) -> None:
    node1 = str(getattr(bed.state1, family))
    for served in (bed.pod11, bed.pod21):
        assert seen_by_server(served.netns, getattr(served, family), bed.node1) == node1
        assert seen_by_server(bed.node1, node1, served.netns) == str(getattr(served, family))
    node2 = getattr(bed.state2, family)
    assert seen_by_server(bed.node2, node2, bed.node1) == node1


def test_pods_send_full_packets_and_no_larger_ones(bed: Bed) -> None:
    target = str(bed.pod21.address)
    whole = run(bed.pod11.netns, "ping", "-c1", "-W20", "-Mdo", "-s1472", target)
    larger = run(bed.pod11.netns, "ping", "-c1", "-W20", "-Mdo", "-s1473", target)
    assert " 0% packet loss" in whole
    assert "message too long" in larger


def test_super_packets_fit_every_link_on_the_way(bed: Bed) -> None:
    links = run(bed.node1, "ip", "-d", "link") + run(bed.pod11.netns, "ip", "-d", "link")
    ours = [text for text in re.split(r"\n(?=\d)", links) if re.match(r"\d+: (mus|eth0)", text)]
    assert len(ours) == 4
    assert all(" gso_max_size 62000 " in text for text in ours)


def test_without_a_daemon_pod_traffic_does_not_leave_by_the_default_route(spare: str) -> None:
    state = node_snapshot(1, ())
    tun = netns.run_in(spare, open_tun)
    try:
        assert applied(spare, state) == ()
    finally:
        os.close(tun)
    run(spare, "ip", "link", "set", "lo", "up")
    run(spare, "ip", "route", "add", "default", "dev", "lo")
    answer = run(spare, "ip", "route", "get", "10.244.9.9")
    assert "unreachable" in answer or "No route to host" in answer, answer


# -- repair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "ip route flush proto 109",
        "ip -6 route flush proto 109",
        "ip addr flush dev muslin0",
        "ip link set muslin0 down",
        "ip link set muslin0 mtu 1400 txqueuelen 7",
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
        f"ip link del {veth_name('pod11')}",
        f"ip link set {veth_name('pod11')} down",
        "ip route add 10.244.77.0/24 dev muslin0 proto 109",
        "ip addr add 10.244.1.9/32 dev muslin0",
    ],
)
def test_damage_is_repaired(bed: Bed, damage: str) -> None:
    before = all_routes(bed.node1)
    run(bed.node1, *damage.split())
    assert applied(bed.node1, bed.state1) == ()
    assert all_routes(bed.node1) == before
    for address in (bed.pod21.address, bed.pod21.address6):
        assert " 0% packet loss" in run(bed.pod11.netns, "ping", "-c1", "-W20", str(address))


def test_a_new_node_address_replaces_the_old_one_everywhere(bed: Bed) -> None:
    moved = replace(
        bed.state1,
        address=IPv4Address("10.244.3.1"),
        address6=IPv6Address("fd00:0:0:3::1"),
        own_prefixes=(ip_network("10.244.3.0/24"), ip_network("fd00:0:0:3::/64")),
    )
    assert applied(bed.node1, moved) == ()
    everything = run(bed.node1, "ip", "addr") + run(bed.node1, "ip", "route")
    everything += run(bed.node1, "ip", "-6", "route")
    assert "10.244.1.1" not in everything
    assert "fd00:0:0:1::1/" not in everything
    assert "10.244.1.2 dev" in everything


def test_what_is_not_ours_is_left_alone(bed: Bed) -> None:
    run(bed.node1, "ip", "link", "add", "music0", "type", "veth", "peer", "name", "music1")
    run(bed.node1, "ip", "link", "set", "music0", "up")
    run(bed.node1, "ip", "addr", "add", "192.0.2.1/24", "dev", "music0")
    run(bed.node1, "ip", "route", "add", "10.244.80.0/24", "dev", "muslin0")
    assert applied(bed.node1, replace(bed.state1, pods=())) == ()
    try:
        assert "192.0.2.1/24" in run(bed.node1, "ip", "addr", "show", "music0")
        assert "10.244.80.0/24" in run(bed.node1, "ip", "route")
        assert not [
            text
            for text in run(bed.node1, "ip", "-o", "link").split()
            if is_veth_name(text.partition("@")[0])
        ]
    finally:
        run(bed.node1, "ip", "link", "del", "music0")
        run(bed.node1, "ip", "route", "del", "10.244.80.0/24")


def test_a_foreign_route_to_the_range_is_reported_and_not_replaced(bed: Bed) -> None:
    run(bed.node1, "ip", "route", "del", "10.244.0.0/16", "dev", TUN)
    run(bed.node1, "ip", "route", "add", "unreachable", "10.244.0.0/16")
    (problem,) = applied(bed.node1, bed.state1)
    run(bed.node1, "ip", "route", "del", "unreachable", "10.244.0.0/16", "metric", "0")
    assert problem.code == "kernel-refused"
    assert problem.why == "add route 10.244.0.0/16 dev muslin0: file exists"


def test_advertised_default_routes_survive_forwarding(spare: str) -> None:
    run(spare, "ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
    tun = netns.run_in(spare, open_tun)
    try:
        assert applied(spare, node_snapshot(1, ())) == ()
    finally:
        os.close(tun)
    assert run(spare, "cat", "/proc/sys/net/ipv6/conf/wan0/accept_ra") == "2\n"


# -- what the daemon asks before it starts ---------------------------------------------------------


def test_the_machines_routes_addresses_and_mtu_are_found(spare: str) -> None:
    for command in (
        "ip link set lo up",
        "ip link add lan0 type veth peer name lan1",
        "ip link add wan0 mtu 1400 type veth peer name wan1",
        "ip addr add 192.0.2.5/24 dev lan0",
        "ip addr add 10.244.9.9/32 dev lan0",
        "ip addr add 198.51.100.7/24 dev wan0",
        "ip addr add 2001:db8::7/64 dev wan0 nodad",
        "ip link set lan0 up",
        "ip link set lan1 up",
        "ip link set wan0 up",
        "ip link set wan1 up",
        "ip route add default via 198.51.100.1",
        "ip route add unreachable 10.96.0.0/12",
        "ip route add 10.244.0.0/16 dev lan0 proto 109",
    ):
        run(spare, *command.split())
    ranges = [ip_network("10.244.0.0/16"), ip_network("fd00::/48")]

    def ask() -> None:
        with Netlink() as netlink:
            routes = netlink.host_routes()
            found = {str(route.prefix): route.link for route in routes}
            assert found["192.0.2.0/24"] == "lan0"
            assert found["0.0.0.0/0"] == "wan0"
            assert "10.244.0.0/16" not in found  # ours
            assert find_overlap(routes, ranges) is None
            assert find_overlap(routes, [ip_network("10.96.0.0/16")]) is None
            assert find_overlap(routes, [ip_network("192.0.0.0/16")]) is not None
            assert [str(address) for address in netlink.local_addresses(ranges)] == [
                "198.51.100.7",
                "192.0.2.5",
                "2001:db8::7",
            ]
            assert netlink.underlay_mtu(ranges) == 1500, "lan0's; lan1 has no address"
            assert netlink.underlay_mtu([*ranges, ip_network("192.0.2.0/24")]) == 1400

    netns.run_in(spare, ask)


def test_ipv6_works_where_a_container_engine_has_switched_it_off(spare: str) -> None:
    inner = netns.create(name("spare2"))
    off = (
        "sysctl",
        "-qw",
        "net.ipv6.conf.all.disable_ipv6=1",
        "net.ipv6.conf.default.disable_ipv6=1",
    )
    for where in (spare, str(inner)):
        run(where, *off)
    tun = netns.run_in(spare, open_tun)
    try:
        view = replace(pod(1, 1), netns=str(inner))
        assert applied(spare, node_snapshot(1, (view,))) == ()
        assert " 0% packet loss" in run(str(inner), "ping", "-c1", "-W20", "fd00:0:0:1::1")
    finally:
        os.close(tun)
        netns.delete(inner.name)


def test_before_the_first_block_the_node_waits_quietly(spare: str) -> None:
    early = replace(node_snapshot(1, ()), address=None, address6=None, own_prefixes=())
    tun = netns.run_in(spare, open_tun)
    try:
        assert applied(spare, early) == ()
        assert "unreachable 10.244.0.0/16" in run(spare, "ip", "route")
        assert "state DOWN" not in run(spare, "ip", "link", "show", TUN)
    finally:
        os.close(tun)


def test_a_missing_tun_is_reported(spare: str) -> None:
    (problem,) = applied(spare, node_snapshot(1, ()))
    assert problem.code == "tun-gone"


def test_the_kernel_ends_up_exactly_as_desired(bed: Bed) -> None:
    desired = desired_state(bed.state1, KernelSettings(TUN, MTU))

    def read() -> None:
        with Netlink() as netlink:
            actual = netlink.read(lambda link: link.name in desired.links, desired.sysctls)
            assert actual.links == {
                link: replace(wanted, txqueuelen=actual.links[link].txqueuelen)
                for link, wanted in desired.links.items()
            }
            assert actual.addresses == desired.addresses
            assert actual.routes == desired.routes
            assert actual.sysctls == desired.sysctls

    netns.run_in(bed.node1, read)
