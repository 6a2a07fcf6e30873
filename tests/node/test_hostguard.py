"""Tests of node.hostguard: which routes of a machine cross the cluster's ranges."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from unittest.mock import Mock

import pytest

from node.hostguard import HostGuard
from node.kernel.errors import KernelError
from node.kernel.model import veth_name
from node.kernel.overlap import HostRoute
from tests.node.test_identity import make_node


def judged(*routes: tuple[str, str]) -> HostGuard:
    guard = HostGuard(make_node().cluster, "muslin0")
    guard.judge(HostRoute(ip_network(prefix), link) for prefix, link in routes)
    return guard


def test_a_route_into_the_range_is_a_problem_that_names_it() -> None:
    guard = judged(("10.244.7.0/24", "docker0"), ("192.0.2.0/24", "eth0"), ("0.0.0.0/0", "eth0"))
    assert guard.crossed == (ip_network("10.244.7.0/24"),)
    (problem,) = guard.problems
    assert problem.code == "range-overlap"
    assert "10.244.7.0/24 dev docker0" in problem.why
    assert "10.244.0.0/16" in problem.why


def test_a_route_around_the_range_takes_nothing_from_pods_but_loses_something_itself() -> None:
    guard = judged(("10.0.0.0/8", "wg0"), ("10.244.0.0/16", "eth1"))
    assert guard.crossed == (ip_network("10.0.0.0/8"), ip_network("10.244.0.0/16"))
    around, equal = guard.problems
    assert around.what.endswith("other addresses in 10.244.0.0/16 are out of its reach")
    assert equal.what.endswith("pods with such addresses are out of its reach")


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "8000::/1"])
def test_a_default_route_is_none_whole_or_in_halves(prefix: str) -> None:
    guard = judged((prefix, "tun1"))
    assert (guard.crossed, guard.ways, guard.problems) == ((), (), ())


def test_a_route_into_the_ipv6_range_is_a_problem_too() -> None:
    inside = ip_network("fd00:1:2:3::/64")
    cluster = replace(make_node().cluster, cidr6=ip_network("fd00:1:2::/48"))
    guard = HostGuard(cluster, "muslin0")
    guard.judge([HostRoute(inside, "br0"), HostRoute(ip_network("fc00::/7"), "tun1")])
    assert guard.crossed == (inside, ip_network("fc00::/7"))
    assert "other addresses in fd00:1:2::/48" in guard.problems[1].what


def test_what_the_kernel_routes_to_our_own_links_is_none() -> None:
    assert judged(("10.244.0.1/32", "muslin0"), ("10.244.0.2/32", veth_name("web"))).crossed == ()


def test_it_is_over_when_the_route_is_gone() -> None:
    guard = judged(("10.244.7.0/24", "docker0"))
    guard.judge([])
    assert (guard.crossed, guard.problems) == ((), ())


def test_what_could_not_be_read_is_read_at_the_next_look(monkeypatch) -> None:
    changes = [False, False, True]
    guard = HostGuard(make_node().cluster, "muslin0")
    guard._watch = Mock(changed=changes.pop)
    route = HostRoute(ip_network("10.244.7.0/24"), "docker0")
    own = frozenset([ip_network("192.0.2.1/32")])
    held = Mock(side_effect=[KernelError("no answer"), own])
    netlink = Mock(host_routes=Mock(side_effect=[[], [route]]), held_prefixes=held)
    with pytest.raises(KernelError):
        guard.look(netlink)
    guard.look(netlink)
    assert (guard.crossed, guard.held) == ((route.prefix,), own)
    guard.look(netlink)
    assert netlink.host_routes.call_count == 2


def test_one_prefix_in_two_tables_is_told_once() -> None:
    guard = judged(("10.244.7.0/24", "wg0"), ("10.244.7.0/24", "wg0"))
    assert len(guard.crossed) == len(guard.problems) == 1


def test_underlay_addresses_that_are_routed_into_the_tun_are_named() -> None:
    guard = judged(("198.51.100.0/24", "eth0"), ("198.51.100.2/32", "muslin0"))
    assert guard.ways == ((ip_network("198.51.100.2/32"), True),)
    (problem,) = guard.problems
    assert (problem.code, problem.fix[-15:]) == ("underlay-loop", "198.51.100.2/32")


def test_what_leaves_the_machine_by_a_narrower_route_is_no_loop() -> None:
    guard = judged(("0.0.0.0/0", "muslin0"), ("198.51.100.0/24", "eth0"), ("0.0.0.0/0", "eth0"))
    assert set(guard.ways[:-1]) == {
        (ip_network("198.51.100.0/24"), False),
        (ip_network("0.0.0.0/0"), False),
    }
    assert guard.ways[-1] == (ip_network("0.0.0.0/0"), True), "of two the TUN's counts"


def test_a_route_that_leads_nowhere_is_neither() -> None:
    guard = HostGuard(make_node().cluster, "muslin0")
    guard.judge([HostRoute(ip_network("10.244.7.0/24"), "", leads_nowhere=True)])
    assert (guard.crossed, guard.ways, guard.problems) == ((), (), ())
