from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from node.kernel.hostports import (
    hostport_nat,
    hostport_sysctls,
    shut_sysctls,
    without_ports,
)
from node.kernel.model import KernelSettings, veth_name
from node.kernel.nft import Firewall
from node.kernel.rules import compose
from overlay.attachment import Attachment, HostPort
from overlay.views import PodView, Snapshot
from tests.support.namespace import Namespace
from tests.support.privileged import NEEDS_KERNEL
from tests.support.views import node_snapshot, pod_view

SETTINGS = KernelSettings("muslin0", 1500, masquerade=True)
VETH = veth_name("pod11")


def opened(*ports: HostPort, **changes: Any) -> Snapshot:
    """Node 1 with one pod that has these ports, and one that has none."""
    pod = replace(pod_view(1, 1), attachment=Attachment(ports=ports), **changes)
    return node_snapshot(1, (pod, pod_view(1, 2)))


def led(snapshot: Snapshot) -> list[str]:
    """The rules that lead ports to pods."""
    start = "add rule inet muslin_nat ports "
    lines = hostport_nat(snapshot, SETTINGS).splitlines()
    return [line.removeprefix(start) for line in lines if line.startswith(start)]


def test_a_port_leads_to_both_addresses_of_its_pod() -> None:
    assert led(opened(HostPort("tcp", 8080, 80))) == [
        "meta nfproto ipv4 tcp dport 8080 dnat ip to 10.244.1.2:80",
        "meta nfproto ipv6 tcp dport 8080 dnat ip6 to [fd00:0:0:1::2]:80",
    ]


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("0.0.0.0", "meta nfproto ipv4 udp dport 53 dnat ip to 10.244.1.2:5353"),
        ("::", "meta nfproto ipv6 udp dport 53 dnat ip6 to [fd00:0:0:1::2]:5353"),
        (
            "192.0.2.1",
            "meta nfproto ipv4 ip daddr 192.0.2.1 udp dport 53 dnat ip to 10.244.1.2:5353",
        ),
        (
            "2001:db8::1",
            "meta nfproto ipv6 ip6 daddr 2001:db8::1 udp dport 53 dnat ip6 to [fd00:0:0:1::2]:5353",
        ),
    ],
)
def test_a_port_at_an_address_leads_to_that_family_alone(host: str, rule: str) -> None:
    assert led(opened(HostPort("udp", 53, 5353, host))) == [rule]


def test_a_pod_without_ipv6_is_led_to_by_ipv4() -> None:
    (rule,) = led(opened(HostPort("sctp", 9, 9), address6=None))
    assert rule == "meta nfproto ipv4 sctp dport 9 dnat ip to 10.244.1.2:9"


def no_ports() -> list[Snapshot]:
    far: PodView = replace(pod_view(2, 1), attachment=Attachment(ports=(HostPort("tcp", 1, 1),)))
    return [
        node_snapshot(1),
        opened(),
        node_snapshot(1, (replace(far, local=False),)),
    ]


@pytest.mark.parametrize("snapshot", no_ports(), ids=["no pods", "no ports", "far pods"])
def test_without_ports_of_local_pods_nothing_is_said(snapshot: Snapshot) -> None:
    assert hostport_nat(snapshot, SETTINGS) == ""
    assert hostport_sysctls(snapshot) == {}


def test_only_pods_with_ports_need_the_loopback_and_all_are_shut_where_no_filter_is() -> None:
    snapshot = opened(HostPort("tcp", 8080, 80))
    assert hostport_sysctls(snapshot) == {f"net/ipv4/conf/{VETH}/route_localnet": "1"}
    without = shut_sysctls(opened())
    assert set(without.values()) == {"0"}
    assert len(without) == 2 > len(hostport_sysctls(snapshot))


def test_answers_come_back_by_the_node() -> None:
    text = hostport_nat(opened(HostPort("tcp", 8080, 80)), SETTINGS)
    back = [line for line in text.splitlines() if " ports_back ip" in line]
    assert [line.partition(" ports_back ")[2] for line in back] == [
        "ip saddr 10.244.1.2 ip daddr 10.244.1.2 snat ip to 10.244.1.1",
        f'ip saddr 127.0.0.0/8 oifname "{VETH}" snat ip to 10.244.1.1',
        "ip6 saddr fd00:0:0:1::2 ip6 daddr fd00:0:0:1::2 snat ip6 to fd00:0:0:1::1",
    ]


def test_closing_all_ports_leaves_everything_else() -> None:
    snapshot = opened(HostPort("tcp", 8080, 80))
    assert without_ports(snapshot) == opened()


MANY = opened(
    *(HostPort("tcp", port, 80) for port in range(8000, 8020)),
    HostPort("udp", 53, 53, "192.0.2.1"),
    HostPort("udp", 53, 53, "2001:db8::1"),
    HostPort("sctp", 99, 99, "::"),
    HostPort("tcp", 99, 99, "0.0.0.0"),
)


@pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft")
@pytest.mark.parametrize(
    "snapshot",
    [MANY, replace(MANY, address=None, address6=None)],
    ids=["plain", "before the node has an address"],
)
def test_the_kernel_takes_the_rules(snapshot: Snapshot) -> None:
    with Namespace() as namespace:
        assert namespace.run(Firewall().why_not, compose(snapshot, SETTINGS)) == ""


for _mark in NEEDS_KERNEL:
    test_the_kernel_takes_the_rules = _mark(test_the_kernel_takes_the_rules)
