"""Tests of what must be true of a cluster at rest: each claim is broken once."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from overlay.sim import checks
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


def test_two_nodes_that_agree_are_settled():
    assert differences(world()) == []


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
