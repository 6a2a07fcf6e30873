from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from node.kernel.guard import GuardFacts, guard_rules
from node.kernel.model import KernelSettings, veth_name
from overlay.attachment import Attachment
from tests.support.views import node_snapshot, pod_view

POD = pod_view(1, 1)
OTHER = pod_view(1, 2)
FAR = pod_view(2, 1, local=False)
SETTINGS = KernelSettings("muslin0", 1500, range(6875, 6877))


def elements(rules: str, place: str) -> str:
    """What is put into a set; empty if nothing is."""
    lines = [line for line in rules.splitlines() if line.startswith(f"add element {place} ")]
    return lines[0].partition(" { ")[2].removesuffix(" }") if lines else ""


def test_each_veth_is_held_to_the_addresses_of_its_pod() -> None:
    rules = guard_rules(node_snapshot(1, (POD, OTHER, FAR)), SETTINGS)
    one, two = (f'"{veth_name(pod.name)}"' for pod in (POD, OTHER))
    assert elements(rules, "inet muslin links") == f"{one}, {two}"
    assert elements(rules, "inet muslin pods4") == f"{one} . 10.244.1.2, {two} . 10.244.1.3"
    assert elements(rules, "inet muslin pods6") == (f"{one} . fd00:0:0:1::2, {two} . fd00:0:0:1::3")
    assert elements(rules, "arp muslin pods4") == elements(rules, "inet muslin pods4")


def test_pods_of_other_nodes_have_no_veth_here() -> None:
    rules = guard_rules(node_snapshot(1, (FAR,)), SETTINGS)
    assert "add element" not in rules


def test_a_pod_without_ipv6_may_send_none() -> None:
    rules = guard_rules(node_snapshot(1, (replace(POD, address6=None),)), SETTINGS)
    assert elements(rules, "inet muslin pods6") == ""
    assert elements(rules, "inet muslin links") == f'"{veth_name(POD.name)}"'


def test_a_pod_that_its_runtime_configures_asks_from_what_its_kernel_calls_the_link() -> None:
    handed = replace(POD, attachment=Attachment(container="c", handed=True))
    rules = guard_rules(node_snapshot(1, (handed, OTHER)), SETTINGS)
    assert elements(rules, "inet muslin near6").startswith(f'"{veth_name(POD.name)}" . fe80::')
    assert (
        elements(guard_rules(node_snapshot(1, (POD, OTHER)), SETTINGS), "inet muslin near6") == ""
    )


def test_the_underlays_ports_are_closed_to_pods_and_to_the_tun() -> None:
    rules = guard_rules(node_snapshot(1), KernelSettings("ovl7", 1500, range(7000, 7004)))
    closed = [line for line in rules.splitlines() if "udp dport" in line]
    assert len(closed) == 2
    assert all("udp dport 7000-7003 counter name underlay drop" in line for line in closed)
    assert 'iifname "ovl7"' in closed[1]


def test_nobody_else_has_an_address_of_the_cluster() -> None:
    lines = guard_rules(node_snapshot(1), SETTINGS).splitlines()
    checks = [line for line in lines if " prerouting " in line and "counter name outside" in line]
    assert [line.partition(" prerouting ")[2] for line in checks] == [
        "ip saddr 10.244.0.0/16 counter name outside drop",
        "ip6 saddr fd00::/48 counter name outside drop",
    ]
    # Behind those who have: pods, and what comes out of the overlay or from this node itself.
    passes = next(n for n, line in enumerate(lines) if '{ "lo", "muslin0" } accept' in line)
    pods = next(n for n, line in enumerate(lines) if "jump from_pod" in line)
    assert pods < passes < lines.index(checks[0])


def test_the_nodes_loopback_is_no_pods_before_anything_of_a_pod_passes() -> None:
    inside = [
        line.partition(" from_pod ")[2]
        for line in guard_rules(node_snapshot(1), SETTINGS).splitlines()
        if line.startswith("add rule inet muslin from_pod ")
    ]
    assert inside[0] == "ip daddr 127.0.0.0/8 counter name spoofed drop"


def test_networks_behind_the_node_are_held_to_their_links_and_to_the_cluster() -> None:
    lans = (ip_network("192.168.7.0/24"), ip_network("2001:db8:7::/48"))
    rules = guard_rules(replace(node_snapshot(1), own_outside=lans), SETTINGS)
    assert elements(rules, "inet muslin lans4") == "192.168.7.0/24"
    assert elements(rules, "inet muslin lans6") == "2001:db8:7::/48"
    for family, cluster in (("ip", "10.244.0.0/16"), ("ip6", "fd00::/48")):
        lan = f"{family} saddr @lans{'4' if family == 'ip' else '6'}"
        assert f"prerouting {lan} fib saddr . iif oif missing counter name outside drop" in rules
        transit = f'forward oifname "muslin0" {lan} {family} daddr != {cluster}'
        assert f"{transit} counter name outside drop" in rules


def test_in_a_cluster_without_ipv6_no_network_may_send_any_through_it() -> None:
    lan = ip_network("2001:db8:7::/48")
    single = replace(node_snapshot(1), cidr6=None, address6=None, own_outside=(lan,))
    rules = guard_rules(single, SETTINGS)
    assert 'forward oifname "muslin0" ip6 saddr @lans6 counter name outside drop' in rules


def test_a_node_that_advertises_nothing_asks_nothing_of_networks() -> None:
    rules = guard_rules(node_snapshot(1), SETTINGS)
    assert "fib saddr" not in rules
    assert "add rule inet muslin forward" not in rules


def test_who_checks_is_the_filter_while_nothing_is_wrong_with_it() -> None:
    assert GuardFacts().by == "nft"
    assert GuardFacts("there is no nft").by == "routes"
