"""What a name on the command line stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.control.targets import find_pod, find_target
from overlay.errors import RefusedError
from tests.support.daemon import node_view, pod_view, snapshot


def code_of(function, *args: object, **kwargs: object) -> str:
    with pytest.raises(RefusedError) as caught:
        function(*args, **kwargs)
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "kind", "shown", "address"),
    [
        ("web", "pod", "node1/web", "10.244.0.2"),
        ("db", "pod", "node2/db", "10.244.1.2"),
        ("node2/db", "pod", "node2/db", "10.244.1.2"),
        ("node2", "node", "node2", "10.244.1.1"),
        ("10.244.1.2", "pod", "10.244.1.2", "10.244.1.2"),
        ("fd00:0:0:1::2", "pod", "fd00:0:0:1::2", "fd00:0:0:1::2"),
        ("10.244.1.1", "node", "10.244.1.1", "10.244.1.1"),
        ("10.244.1.77", "address", "10.244.1.77", "10.244.1.77"),
        ("fd00:0:0:1::77", "address", "fd00:0:0:1::77", "fd00:0:0:1::77"),
    ],
)
def test_names_and_addresses_are_found(name, kind, shown, address) -> None:
    target = find_target(snapshot(), name)
    assert (target.kind, target.name, str(target.address)) == (kind, shown, address)
    assert target.node.name == ("node1" if "web" in shown else "node2")


def test_a_family_can_be_insisted_on() -> None:
    assert str(find_target(snapshot(), "db", version=6).address) == "fd00:0:0:1::2"
    assert str(find_target(snapshot(), "node2", version=6).address) == "fd00:0:0:1::1"
    bare = snapshot(nodes=(node_view(1), node_view(2, address6=None)))
    assert code_of(find_target, bare, "node2", version=6) == "no-address"


def test_a_node_without_addresses_is_told_so() -> None:
    bare = snapshot(nodes=(node_view(1), node_view(2, address=None, address6=None)))
    assert code_of(find_target, bare, "node2") == "no-address"


def test_the_unknown_is_refused_naming_what_exists() -> None:
    with pytest.raises(RefusedError) as caught:
        find_target(snapshot(), "nobody")
    assert caught.value.code == "no-such-target"
    assert caught.value.fix == "nodes are: node1, node2; pods are: node1/web, node2/db"
    assert code_of(find_target, snapshot(), "node2/web") == "no-such-target"
    assert code_of(find_target, snapshot(), "10.1.1.1") == "no-route"
    assert code_of(find_pod, snapshot(), "nobody") == "no-such-pod"


def test_long_lists_of_names_are_shortened() -> None:
    many = snapshot(pods=tuple(pod_view(f"pod{n:02}", 1, n + 2) for n in range(40)))
    with pytest.raises(RefusedError) as caught:
        find_pod(many, "nobody")
    assert caught.value.fix.endswith("node1/pod11 and 28 more")


def test_a_local_pod_wins_over_a_node_and_over_pods_elsewhere() -> None:
    shot = snapshot(pods=(pod_view("node2", 1), pod_view("node2", 2)))
    assert find_target(shot, "node2").name == "node1/node2"
    assert find_pod(shot, "node2").local
    far = snapshot(pods=(pod_view("node2", 2),))
    assert find_target(far, "node2").kind == "node"


def test_a_name_in_several_places_is_ambiguous() -> None:
    nodes = (node_view(1), node_view(2), node_view(3))
    pods = (pod_view("db", 2), pod_view("db", 3))
    with pytest.raises(RefusedError) as caught:
        find_target(snapshot(nodes=nodes, pods=pods), "db")
    assert caught.value.code == "ambiguous"
    assert caught.value.fix == "say which: node2/db, node3/db"
    assert replace(find_pod(snapshot(pods=pods), "node3/db"), since=0).node == "node3"
