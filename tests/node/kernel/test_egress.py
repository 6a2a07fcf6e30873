from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from node.kernel.egress import EGRESS_TRIAL, egress_filter, egress_nat, free_ports
from node.kernel.model import KernelSettings
from node.kernel.nft import Firewall
from node.kernel.rules import compose
from overlay.views import LocalView
from tests.support.namespace import Namespace
from tests.support.privileged import NEEDS_KERNEL
from tests.support.views import node_snapshot, pod_view

SETTINGS = KernelSettings("muslin0", 1500, range(6875, 6877), masquerade=True)
SNAPSHOT = node_snapshot(1, (pod_view(1, 1),))


def needs_nft(test: Any) -> Any:
    for mark in (
        *NEEDS_KERNEL,
        pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft"),
    ):
        test = mark(test)
    return test


WORLD4 = (
    "ip saddr { 10.244.1.0/24 } ip daddr != "
    "{ 224.0.0.0/4, 0.0.0.0/8, 127.0.0.0/8, 10.244.0.0/16, 169.254.0.0/16, 255.255.255.255/32 }"
)
WORLD6 = "ip6 saddr { fd00:0:0:1::/64 } ip6 daddr != { ff00::/8, fe80::/10, fd00::/48, ::/127 }"


def lines(text: str, chain: str) -> list[str]:
    """The rules of a chain."""
    return [line.partition(f" {chain} ")[2] for line in text.splitlines() if "add rule" in line]


def test_without_masquerade_nothing_is_said() -> None:
    off = replace(SETTINGS, masquerade=False)
    assert egress_filter(SNAPSHOT, off) == egress_nat(SNAPSHOT, off) == ""


def test_what_goes_from_own_blocks_to_the_world_gets_the_address_of_its_link() -> None:
    assert lines(egress_nat(SNAPSHOT, SETTINGS), "egress") == [
        f"{WORLD4} meta l4proto udp masquerade to :6877-65535",
        f"{WORLD4} masquerade",
        f"{WORLD6} meta l4proto udp masquerade to :6877-65535",
        f"{WORLD6} masquerade",
    ]


def test_the_underlay_is_closed_and_what_is_not_translated_does_not_leave() -> None:
    text = egress_filter(SNAPSHOT, SETTINGS)
    assert [rule for rule in text.splitlines() if " leaving ip" in rule] == [
        f"add rule inet muslin leaving {world} udp dport 6875-6876 counter name underlay drop"
        for world in (WORLD4, WORLD6)
    ]
    assert [rule for rule in text.splitlines() if " unmasked ip" in rule] == [
        f"add rule inet muslin unmasked {world} ct state invalid,untracked "
        "counter name unmasked drop"
        for world in (WORLD4, WORLD6)
    ]


@pytest.mark.parametrize("field", ["outside", "own_outside"])
def test_advertised_networks_see_the_pods_own_addresses(field: str) -> None:
    lans = ip_network("192.168.7.0/24"), ip_network("2001:db8:7::/48")
    text = egress_nat(replace(SNAPSHOT, **{field: lans}), SETTINGS)  # type: ignore[arg-type]
    assert text.count("192.168.7.0/24") == text.count("2001:db8:7::/48") == 2


def test_a_network_inside_another_is_named_once() -> None:
    lans = tuple(map(ip_network, ("192.168.7.0/24", "192.168.0.0/16", "10.244.8.0/24")))
    kept = egress_nat(replace(SNAPSHOT, own_outside=lans), SETTINGS).splitlines()[1]
    assert "192.168.0.0/16" in kept
    assert "192.168.7.0/24" not in kept
    assert "10.244.8.0/24" not in kept


def test_a_node_without_blocks_translates_nothing() -> None:
    assert lines(egress_nat(replace(SNAPSHOT, own_prefixes=()), SETTINGS), "egress") == []


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        (range(6875, 6876), "6876-65535"),
        (range(50000, 50016), "1024-49999"),
        (range(65535, 65536), "1024-65534"),
        (range(80, 81), "1024-65535"),
    ],
)
def test_source_ports_are_never_those_of_the_underlay(taken: range, free: str) -> None:
    assert free_ports(taken) == free


LANS = tuple(map(ip_network, ("192.168.7.0/24", "192.168.0.0/16", "2001:db8::/32", "10.0.0.0/8")))


@needs_nft
@pytest.mark.parametrize(
    "rules",
    [
        EGRESS_TRIAL,
        compose(SNAPSHOT, SETTINGS),
        compose(replace(SNAPSHOT, own_outside=LANS, outside=LANS[:1]), SETTINGS),
        compose(replace(SNAPSHOT, own_outside=(ip_network("0.0.0.0/0"),)), SETTINGS),
        compose(replace(SNAPSHOT, own_prefixes=()), SETTINGS),
        compose(replace(SNAPSHOT, cidr6=None, own_prefixes=SNAPSHOT.own_prefixes[:1]), SETTINGS),
    ],
    ids=["trial", "plain", "lans", "anywhere", "no-blocks", "ipv4-only"],
)
def test_the_kernel_takes_the_rules(rules: str) -> None:
    with Namespace() as namespace:
        assert namespace.run(Firewall().why_not, rules) == ""


@needs_nft
def test_the_table_goes_with_the_setting() -> None:
    def tables(snapshot: LocalView, settings: KernelSettings) -> str:
        Firewall().hold(compose(snapshot, settings))
        return subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=True
        ).stdout

    with Namespace() as namespace:
        assert "inet muslin_nat" in namespace.run(tables, SNAPSHOT, SETTINGS)
        off = replace(SETTINGS, masquerade=False)
        assert "inet muslin_nat" not in namespace.run(tables, SNAPSHOT, off)
