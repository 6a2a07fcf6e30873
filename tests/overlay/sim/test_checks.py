"""Tests of what must be true of a cluster: each claim is broken once."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from overlay.sim import checks
from overlay.sim.checks import imbalance, violations
from overlay.types import NodeId
from overlay.views import BlockView, LedgerView, NodeState, NodeView, PodView, RouteView, Snapshot


def node_view(name: str, state: NodeState = NodeState.READY) -> NodeView:
    return NodeView(
        id=NodeId(name.encode()),
        name=name,
        state=state,
        local=False,
        address=None,
        address6=None,
        endpoint=None,
        blocks=(),
        pods=0,
        version="",
        path="direct",
        rtt=None,
        loss=None,
        seen=None,
    )


def route(prefix: str, node: str) -> RouteView:
    return RouteView(ip_network(prefix), node, None, "block", 0.0)


def block(prefix: str, node: str, state: str = "in-use") -> BlockView:
    return BlockView(ip_network(prefix), None, node, 1, state, 0)


def pod(name: str, node: str, address: str) -> PodView:
    return PodView(name, node, ip_address(address), None, "", "ready", 0.0, True)


ROUTES = (route("10.0.1.0/24", "a"), route("10.0.2.0/24", "b"))


def snapshot(name: str, own: str) -> Snapshot:
    return Snapshot(
        now=0.0,
        name=name,
        cluster="00",
        cidr=ip_network("10.0.0.0/16"),
        cidr6=None,
        address=None,
        address6=None,
        nodes=(node_view("a"), node_view("b")),
        pods=(),
        routes=ROUTES,
        sessions=(),
        blocks=(block(own, name),),
        own_prefixes=(ip_network(own),),
        ledger=LedgerView(5, 3, 1, {"no_route": 1}),
    )


def world(**changes: object) -> dict[str, Snapshot]:
    """Two settled nodes; `changes` go to the second."""
    second = replace(snapshot("b", "10.0.2.0/24"), **changes)
    return {"a": snapshot("a", "10.0.1.0/24"), "b": second}


def differences(nodes: dict[str, Snapshot]) -> list[str]:
    return list(checks.differences(list(nodes), nodes.__getitem__))


def test_two_nodes_that_agree_are_settled_and_sound():
    assert differences(world()) == []
    assert list(violations(world())) == []


def test_a_node_without_a_block_is_not_settled():
    assert "b has no block" in differences(world(own_prefixes=()))


def test_a_member_nobody_told_of_is_named():
    assert differences(world(nodes=(node_view("b"),))) == ["b does not know a"]


def test_a_member_taken_for_gone_is_not_known():
    nodes = (node_view("a", NodeState.LEFT), node_view("b"))
    assert differences(world(nodes=nodes)) == ["b does not know a"]


def test_different_routes_are_named_by_prefix():
    assert differences(world(routes=ROUTES[:1])) == ["a and b route differently: 10.0.2.0/24"]
    assert differences(world(routes=(ROUTES[0], route("10.0.2.0/24", "a")))) == [
        "a and b route differently: 10.0.2.0/24"
    ]


def test_a_pod_that_not_all_have_heard_of_is_named():
    nodes = world()
    nodes["a"] = replace(nodes["a"], pods=(pod("x", "a", "10.0.1.2"),))
    assert differences(nodes) == ["a and b list different pods: a/x"]


def test_a_block_that_two_nodes_use_is_a_violation():
    found = list(violations(world(own_prefixes=(ip_network("10.0.1.0/24"),))))
    assert found == ["the block at 10.0.1.0 is in use by both a and b"]


def test_overlap_with_an_earlier_and_larger_range_is_found():
    blocks = (block("10.0.0.0/20", "b", "free"), block("10.0.0.0/24", "b"))
    found = list(violations(world(blocks=blocks, own_prefixes=())))
    assert found == ["the block at 10.0.1.0 is owned by both b and a"]


def test_what_a_node_believes_of_others_is_no_claim():
    blocks = (block("10.0.2.0/24", "b"), block("10.0.1.0/24", "c"))
    assert list(violations(world(blocks=blocks))) == []


def test_ipv6_blocks_are_checked_too():
    both = (ip_network("fd00::/64"),)
    nodes = world(own_prefixes=both)
    nodes["a"] = replace(nodes["a"], own_prefixes=both)
    assert list(violations(nodes)) == ["the block at fd00:: is in use by both a and b"]


def test_one_address_for_two_pods_is_a_violation():
    nodes = world(pods=(pod("x", "b", "10.0.1.2"),))
    nodes["a"] = replace(nodes["a"], pods=(pod("y", "a", "10.0.1.2"),))
    assert "10.0.1.2 belongs to both a/y and b/x" in list(violations(nodes))


def test_a_pod_outside_its_nodes_blocks_is_a_violation():
    assert list(violations(world(pods=(pod("x", "b", "10.0.3.2"),)))) == [
        "b/x has 10.0.3.2, which is in no block of b"
    ]


def test_pods_of_other_nodes_are_hearsay():
    remote = replace(pod("x", "a", "10.0.1.2"), local=False)
    assert list(violations(world(pods=(remote,)))) == []


def test_books_that_do_not_balance_are_a_violation():
    ledger = LedgerView(5, 3, 1, {})
    assert imbalance(ledger) == 1
    assert "the books of b are off by 1" in next(violations(world(ledger=ledger)))
