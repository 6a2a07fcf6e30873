"""Tests of overlay.routing.table."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.routing.table import Announcement, Changes, RouteTable
from overlay.types import NodeId, Prefix

A, B, C = (NodeId(letter * 32) for letter in (b"a", b"b", b"c"))


def say(prefix: str, node: NodeId = A, origin: str = "block") -> Announcement:
    return Announcement(ip_network(prefix), node, origin)


def table_of(*announcements: Announcement, now: float = 1.0) -> RouteTable:
    table = RouteTable()
    table.replace(announcements, now)
    return table


def test_packets_go_to_the_node_that_announced_the_prefix() -> None:
    table = table_of(say("10.244.1.0/24"), say("10.244.2.0/24", B), say("fd00:0:0:2::/64", B))
    assert table.lookup4(int(IPv4Address("10.244.1.9"))) == A
    assert table.lookup4(int(IPv4Address("10.244.2.9"))) == B
    assert table.lookup4(int(IPv4Address("10.244.3.9"))) is None
    assert table.lookup6(int(IPv6Address("fd00:0:0:2::9"))) == B
    assert table.lookup6(int(IPv6Address("fd00:0:0:1::9"))) is None


def test_families_are_kept_apart() -> None:
    table = table_of(say("0.0.0.0/0"), say("::/0", B))
    assert (table.lookup4(1), table.lookup6(1)) == (A, B)


def test_a_replace_tells_what_changed_and_keeps_the_age_of_the_rest() -> None:
    table = table_of(say("10.1.0.0/24"), say("10.2.0.0/24"), now=1.0)
    changes = table.replace([say("10.2.0.0/24"), say("10.3.0.0/24", B)], 5.0)
    assert [(str(e.prefix), e.node, e.since) for e in changes.added] == [("10.3.0.0/24", B, 5.0)]
    assert [(str(e.prefix), e.node, e.since) for e in changes.removed] == [("10.1.0.0/24", A, 1.0)]
    assert [(str(e.prefix), e.since) for e in table.entries()] == [
        ("10.2.0.0/24", 1.0),
        ("10.3.0.0/24", 5.0),
    ]


def test_a_route_that_moves_to_another_node_is_new() -> None:
    table = table_of(say("10.1.0.0/24"), now=1.0)
    changes = table.replace([say("10.1.0.0/24", B)], 2.0)
    assert [e.node for e in changes.added] == [B]
    assert [e.node for e in changes.removed] == [A]
    assert [(e.node, e.since) for e in table.entries()] == [(B, 2.0)]
    assert table.lookup4(int(IPv4Address("10.1.0.1"))) == B


def test_routes_are_found_by_prefix_and_by_place() -> None:
    table = table_of(say("10.2.0.0/24"), say("10.1.0.0/16", B))
    found = table.get(ip_network("10.1.0.0/16"))
    assert found is not None
    assert found.node == B
    assert table.get(ip_network("10.1.0.0/24")) is None
    assert {table.at(*place) for place in table.places()} == set(table.entries())
    assert len(table.places()) == 2
    firsts = {(int(e.prefix.network_address), e.node) for e in table.entries()}
    assert {table.first_at(*place) for place in table.places()} == firsts
    homes = [table.home(ip_network(text)) for text in ("10.1.0.0/16", "10.1.0.0/24")]
    assert homes == [B, None]


def test_nothing_changes_when_nothing_changed() -> None:
    table = table_of(say("10.1.0.0/24"))
    assert table.replace([say("10.1.0.0/24")], 9.0) == Changes((), ())


def test_entries_are_in_address_order_ipv4_first() -> None:
    table = table_of(say("fd00::/64"), say("10.2.0.0/24"), say("10.2.0.0/16"), say("9.0.0.0/8"))
    expected = ["9.0.0.0/8", "10.2.0.0/16", "10.2.0.0/24", "fd00::/64"]
    assert [str(entry.prefix) for entry in table.entries()] == expected
    assert len(table) == 4


def test_of_two_nodes_with_one_prefix_the_lower_id_wins_in_any_order() -> None:
    both = [say("10.1.0.0/24", C), say("10.1.0.0/24", B)]
    for announcements in (both, both[::-1]):
        assert table_of(*announcements).entries()[0].node == B


PREFIXES = st.sampled_from(
    [ip_network(text) for text in ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0", "fd00::/8")]
)
ROUTES = st.lists(
    st.builds(Announcement, PREFIXES, st.sampled_from([A, B, C]), st.just("block")), max_size=6
)


@settings(max_examples=50)
@given(st.lists(ROUTES, max_size=5))
def test_changes_lead_from_each_table_to_the_next(tables: list[list[Announcement]]) -> None:
    table = RouteTable()
    known: dict[Prefix, NodeId] = {}
    for now, announcements in enumerate(tables):
        changes = table.replace(announcements, float(now))
        for entry in changes.removed:
            assert known.pop(entry.prefix) == entry.node
        for entry in changes.added:
            assert entry.prefix not in known
            assert entry.since == now
            known[entry.prefix] = entry.node
        assert known == {entry.prefix: entry.node for entry in table.entries()}
        assert known.keys() == {one.prefix for one in announcements}
        table.check_invariants()


@settings(max_examples=50)
@given(st.lists(ROUTES, max_size=5))
def test_an_update_by_differences_is_a_replacement(tables: list[list[Announcement]]) -> None:
    whole, patched = RouteTable(), RouteTable()
    for now, announcements in enumerate(tables):
        before = {entry.prefix for entry in patched.entries()}
        changes = whole.replace(announcements, float(now))
        added = [Announcement(*entry[:-1]) for entry in whole.entries()]
        removed = before - {one.prefix for one in added}
        patch = patched.update(added, removed, float(now))
        assert set(patch.added) == set(changes.added)
        assert set(patch.removed) == set(changes.removed)
        assert patched.entries() == whole.entries()
        assert patched.generation == whole.generation
        patched.check_invariants()


def test_a_route_that_is_removed_and_added_alike_was_there_all_along() -> None:
    table = table_of(say("10.1.0.0/24"))
    same = say("10.1.0.0/24")
    assert table.update([same], [same.prefix, ip_network("10.9.0.0/24")], 9.0) == Changes((), ())
    assert table.entries()[0].since == 1.0


def test_the_generation_grows_with_each_change_and_with_nothing_else() -> None:
    table = RouteTable()
    first = [Announcement(ip_network("10.0.0.0/24"), NodeId(b"a"), "block")]
    seen = [table.generation]
    for announcements in (first, first, [], [], first):
        table.replace(announcements, 1.0)
        seen.append(table.generation)
    assert seen == [0, 1, 1, 2, 2, 3]
