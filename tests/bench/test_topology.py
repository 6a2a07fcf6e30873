"""Tests of the topology's addresses and of the commands that make a wire of a veth."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bench import topology
from bench.topology import Ground, Side, Underlay, join_pods, pod_address, set_underlay
from node.errors import NodeError


def side(number: int) -> Side:
    name = f"node{number}"
    return Side(number, name, f"b-{name}", f"b-{name}-pod1", f"b-{name}-pod2", f"192.0.2.{number}")


def made() -> Ground:
    lab = SimpleNamespace(topology=SimpleNamespace(bridge_netns="b-underlay"))
    return Ground(lab, (side(1), side(2)))  # type: ignore[arg-type]


@pytest.fixture
def commands(monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(topology, "run", lambda *argv: seen.append(" ".join(argv)) or "")
    return seen


def test_each_side_is_seen_with_the_other():
    (first, second), back = made().both_ways()
    assert (first.number, second.number) == (1, 2)
    assert back == (second, first)


def test_contestants_do_not_share_addresses():
    assert pod_address(97, side(1)) == "10.97.1.2"
    assert pod_address(98, side(1)) != pod_address(97, side(1)) != pod_address(97, side(2))


def test_the_mtu_of_a_tunnel_is_put_on_the_route_not_on_the_link(commands):
    join_pods(made(), 97, 1420)
    routes = [line for line in commands if "route add 10.97.2.0/24" in line]
    assert len(routes) == 1
    assert routes[0].startswith("b-node1-pod2 ip route")
    assert routes[0].endswith("mtu 1420")
    assert not any("link set" in line for line in commands)


def test_a_wire_has_segmentation_off_at_all_ends_and_joins_only_at_the_nodes(commands):
    set_underlay(made(), Underlay.WIRE)
    cut = "tso off gso off tx-udp-segmentation off"
    assert commands == [
        f"b-node1 ethtool -K eth0 {cut} gro on",
        f"b-underlay ethtool -K node1 {cut} gro off",
        f"b-node2 ethtool -K eth0 {cut} gro on",
        f"b-underlay ethtool -K node2 {cut} gro off",
    ]


def test_a_veth_is_what_the_kernel_made(commands):
    set_underlay(made(), Underlay.VETH)
    assert all("tso on gso on" in line and line.endswith("gro off") for line in commands)
    assert len(commands) == 4


def test_a_lab_of_somebody_else_is_left_alone(monkeypatch):
    removed: list[str] = []

    def lab_up(name: str, *_: object, **__: object) -> None:
        raise NodeError(f"lab {name} exists already")

    monkeypatch.setattr(topology, "lab_up", lab_up)
    monkeypatch.setattr(topology, "lab_down", removed.append)
    with pytest.raises(NodeError, match="exists already"), topology.ground(print):
        pass
    assert removed == []
