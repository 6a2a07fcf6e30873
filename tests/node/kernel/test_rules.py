from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from node.kernel import rules
from node.kernel.guard import guard_rules
from node.kernel.model import KernelSettings
from node.kernel.rules import compose, compose_filters, removal, unkept
from overlay.attachment import Attachment, HostPort
from overlay.views import LocalView
from tests.support.views import node_snapshot, pod_view

SETTINGS = KernelSettings("muslin0", 1500)
MASKED = replace(SETTINGS, masquerade=True)
NO_NAT = "add table inet muslin_nat\ndelete table inet muslin_nat\n"
SNAPSHOT = node_snapshot(1, (pod_view(1, 1),))


def test_old_rules_go_before_the_parts_add_theirs() -> None:
    text = compose(SNAPSHOT, SETTINGS)
    first, _, rest = text.partition("flush table arp muslin\n")
    assert first.splitlines() == [
        "add table inet muslin",
        "flush table inet muslin",
        "add table arp muslin",
    ]
    assert rest == guard_rules(SNAPSHOT, SETTINGS) + NO_NAT


def test_every_part_sees_the_snapshot_and_adds_to_the_same_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def part(snapshot: LocalView, settings: KernelSettings) -> str:
        return f"add chain inet muslin {settings.tun}_{len(snapshot.pods)}\n"

    alone = compose(SNAPSHOT, SETTINGS)
    monkeypatch.setattr(rules, "PARTS", (*rules.PARTS, part))
    added = "add chain inet muslin muslin0_1\n"
    assert compose(SNAPSHOT, SETTINGS) == alone.removesuffix(NO_NAT) + added + NO_NAT


def test_the_table_of_translations_is_there_while_something_is_translated() -> None:
    text = compose(SNAPSHOT, MASKED)
    filters, made, translations = text.partition("add table inet muslin_nat\n")
    assert filters == compose_filters(SNAPSHOT, MASKED)
    assert made
    assert translations.startswith("flush table inet muslin_nat\nadd chain inet muslin_nat egress ")
    assert "muslin_nat" not in compose_filters(SNAPSHOT, MASKED)


def test_what_was_promised_and_does_not_hold_is_named() -> None:
    (problem,) = unkept(SNAPSHOT, MASKED, "there is no nft")
    assert (problem.code, problem.why) == ("egress-off", "there is no nft")
    assert unkept(SNAPSHOT, MASKED, "") == ()
    assert unkept(SNAPSHOT, SETTINGS, "there is no nft") == ()


def test_every_line_is_about_our_tables_and_ended() -> None:
    lans = (ip_network("192.168.7.0/24"),)
    for line in compose(replace(SNAPSHOT, own_outside=lans), MASKED).splitlines(keepends=True):
        assert line.endswith("\n")
        assert line.split()[2:4] in (
            ["inet", "muslin"],
            ["arp", "muslin"],
            ["inet", "muslin_nat"],
        ), line


def test_removal_works_also_where_nothing_is() -> None:
    assert removal().splitlines() == [
        "add table inet muslin",
        "delete table inet muslin",
        "add table arp muslin",
        "delete table arp muslin",
        "add table inet muslin_nat",
        "delete table inet muslin_nat",
    ]


def test_closed_ports_are_named_with_their_own_way_out() -> None:
    pod = replace(pod_view(1, 1), attachment=Attachment(ports=(HostPort("tcp", 80, 80),)))
    (problem,) = unkept(node_snapshot(1, (pod,)), SETTINGS, "there is no nft")
    assert (problem.code, problem.fix) == ("ports-closed", "install nft (package nftables)")
    assert unkept(node_snapshot(1, (pod,)), SETTINGS, "") == ()
