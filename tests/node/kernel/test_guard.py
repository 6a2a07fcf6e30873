from __future__ import annotations

from dataclasses import replace

from node.kernel.guard import GuardFacts, guard_rules, removal_rules
from node.kernel.model import veth_name
from tests.support.views import node_snapshot, pod_view

POD = pod_view(1, 1)
OTHER = pod_view(1, 2)
FAR = pod_view(2, 1, local=False)
PORTS = range(6875, 6877)


def elements(rules: str, place: str) -> str:
    """What is put into a set; empty if nothing is."""
    lines = [line for line in rules.splitlines() if line.startswith(f"add element {place} ")]
    return lines[0].partition(" { ")[2].removesuffix(" }") if lines else ""


def test_each_veth_is_held_to_the_addresses_of_its_pod() -> None:
    rules = guard_rules(node_snapshot(1, (POD, OTHER, FAR)), "muslin0", PORTS)
    one, two = (f'"{veth_name(pod.name)}"' for pod in (POD, OTHER))
    assert elements(rules, "inet muslin links") == f"{one}, {two}"
    assert elements(rules, "inet muslin pods4") == f"{one} . 10.244.1.2, {two} . 10.244.1.3"
    assert elements(rules, "inet muslin pods6") == (f"{one} . fd00:0:0:1::2, {two} . fd00:0:0:1::3")
    assert elements(rules, "arp muslin pods4") == elements(rules, "inet muslin pods4")


def test_pods_of_other_nodes_have_no_veth_here() -> None:
    rules = guard_rules(node_snapshot(1, (FAR,)), "muslin0", PORTS)
    assert "add element" not in rules


def test_a_pod_without_ipv6_may_send_none() -> None:
    rules = guard_rules(node_snapshot(1, (replace(POD, address6=None),)), "muslin0", PORTS)
    assert elements(rules, "inet muslin pods6") == ""
    assert elements(rules, "inet muslin links") == f'"{veth_name(POD.name)}"'


def test_the_underlays_ports_are_closed_to_pods_and_to_the_tun() -> None:
    rules = guard_rules(node_snapshot(1), "ovl7", range(7000, 7004))
    closed = [line for line in rules.splitlines() if "udp dport" in line]
    assert len(closed) == 2
    assert all("udp dport 7000-7003 counter name underlay drop" in line for line in closed)
    assert 'iifname "ovl7"' in closed[1]


def test_removal_works_also_where_nothing_is() -> None:
    assert removal_rules().splitlines() == [
        "add table inet muslin",
        "delete table inet muslin",
        "add table arp muslin",
        "delete table arp muslin",
    ]


def test_who_checks_is_the_filter_while_nothing_is_wrong_with_it() -> None:
    assert GuardFacts().by == "nft"
    assert GuardFacts("there is no nft").by == "routes"
