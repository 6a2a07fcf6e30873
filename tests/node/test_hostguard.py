"""Tests of node.hostguard: which routes of a machine cross the cluster's ranges."""

from __future__ import annotations

from ipaddress import ip_network

from node.hostguard import HostGuard
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


def test_what_the_kernel_routes_to_our_own_links_is_none() -> None:
    assert judged(("10.244.0.1/32", "muslin0"), ("10.244.0.2/32", veth_name("web"))).crossed == ()


def test_it_is_over_when_the_route_is_gone() -> None:
    guard = judged(("10.244.7.0/24", "docker0"))
    guard.judge([])
    assert (guard.crossed, guard.problems) == ((), ())


def test_one_prefix_in_two_tables_is_told_once() -> None:
    guard = judged(("10.244.7.0/24", "wg0"), ("10.244.7.0/24", "wg0"))
    assert len(guard.crossed) == len(guard.problems) == 1
