from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import NodeError
from node.lab.topology import Topology, Underlay, belongs_to, check_name, plan, underlay_namespace
from node.lab.wiring import namespaces
from overlay.errors import ConfigError

GOOD = {"underlay": "ipv4", "mtu": 1500, "cidr": "10.244.0.0/16"}


def lab(nodes: int = 2, pods: int = 1, **changes: object) -> Topology:
    return plan("lab", nodes, pods, **{**GOOD, **changes})  # type: ignore[arg-type]


def test_nodes_and_pods_are_numbered_from_one() -> None:
    topology = lab(2, 2)
    assert [node.name for node in topology.nodes] == ["node1", "node2"]
    assert [pod.name for pod in topology.pods] == [
        "node1-pod1",
        "node1-pod2",
        "node2-pod1",
        "node2-pod2",
    ]
    assert topology.namespace_of("node2") == "lab-node2"
    assert topology.namespace_of("node1-pod2") == "lab-node1-pod2"


@pytest.mark.parametrize("family", list(Underlay))
def test_nodes_of_an_underlay_share_a_network_and_no_address(family: Underlay) -> None:
    nodes = lab(100, 0, underlay=str(family)).nodes
    assert len({node.address.ip for node in nodes}) == 100
    assert len({node.address.network for node in nodes}) == 1
    documentation = [ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")]
    for node in nodes:
        assert any(node.address.ip in network for network in documentation)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"nodes": 0}, "--nodes"),
        ({"nodes": 101}, "--nodes"),
        ({"pods": -1}, "--pods"),
        ({"pods": 101}, "--pods"),
        ({"mtu": 1279}, "--mtu"),
        ({"mtu": 9001}, "--mtu"),
        ({"underlay": "ipx"}, "--underlay"),
        ({"cidr": "10.244.0.1/16"}, "--cidr"),
        ({"cidr": "pods"}, "--cidr"),
    ],
)
def test_a_parameter_out_of_range_is_named(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lab(**changes)  # type: ignore[arg-type]
    assert caught.value.key == key


@pytest.mark.parametrize("name", ["", "Lab", "-lab", "lab-", "a/b", "..", "a" * 33, "läb", "a b"])
def test_a_name_that_is_no_label_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_name(name)
    assert caught.value.key == "--name"


def test_an_unknown_target_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NodeError) as caught:
        lab().namespace_of("node9")
    assert str(caught.value) == "lab lab has no 'node9'"
    assert caught.value.fix == "its nodes are node1, node2"


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(labels, labels)
def test_no_lab_ever_owns_a_namespace_of_another(one: str, other: str) -> None:
    """Also when names begin alike, such as `lab` and `lab-node1`."""
    for namespace in namespaces(plan(one, 2, 1, **GOOD)):  # type: ignore[arg-type]
        assert belongs_to(one, namespace)
        assert one == other or not belongs_to(other, namespace)


@pytest.mark.parametrize("suffix", ["-node1", "-node1-pod1", "-underlay"])
def test_labs_whose_names_look_like_namespaces_stay_apart(suffix: str) -> None:
    inner = f"lab{suffix}"
    for namespace in namespaces(plan(inner, 2, 1, **GOOD)):  # type: ignore[arg-type]
        assert not belongs_to("lab", namespace)


def test_the_namespace_of_the_underlay_comes_first() -> None:
    assert namespaces(lab())[0] == underlay_namespace("lab") == "lab-underlay"
