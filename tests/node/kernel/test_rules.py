from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from node.kernel import rules
from node.kernel.guard import guard_rules
from node.kernel.model import KernelSettings
from node.kernel.rules import compose, removal
from overlay.views import LocalView
from tests.support.views import node_snapshot, pod_view

SETTINGS = KernelSettings("muslin0", 1500)
SNAPSHOT = node_snapshot(1, (pod_view(1, 1),))


def test_old_rules_go_before_the_parts_add_theirs() -> None:
    text = compose(SNAPSHOT, SETTINGS)
    first, _, rest = text.partition("flush table arp muslin\n")
    assert first.splitlines() == [
        "add table inet muslin",
        "flush table inet muslin",
        "add table arp muslin",
    ]
    assert rest == guard_rules(SNAPSHOT, SETTINGS)


def test_every_part_sees_the_snapshot_and_adds_to_the_same_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def part(snapshot: LocalView, settings: KernelSettings) -> str:
        return f"add chain inet muslin {settings.tun}_{len(snapshot.pods)}\n"

    alone = compose(SNAPSHOT, SETTINGS)
    monkeypatch.setattr(rules, "PARTS", (*rules.PARTS, part))
    assert compose(SNAPSHOT, SETTINGS) == alone + "add chain inet muslin muslin0_1\n"


def test_every_line_is_about_our_tables_and_ended() -> None:
    lans = (ip_network("192.168.7.0/24"),)
    for line in compose(replace(SNAPSHOT, own_outside=lans), SETTINGS).splitlines(keepends=True):
        assert line.endswith("\n")
        assert line.split()[2:4] in (["inet", "muslin"], ["arp", "muslin"]), line


def test_removal_works_also_where_nothing_is() -> None:
    assert removal().splitlines() == [
        "add table inet muslin",
        "delete table inet muslin",
        "add table arp muslin",
        "delete table arp muslin",
    ]
