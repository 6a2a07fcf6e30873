"""The table of blocks covers the range once, in as few rows as possible."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.catalog.blocks import Run, aligned, block_views, blocks_used, fewest_prefixes
from overlay.catalog.records import NodeRecord, PodEntry
from overlay.types import NodeId
from overlay.views import BlockView

from .world import CLUSTER, PLAN, identity, node

NAMES = ("node1", "bob", "carol")


class FakeTitles:
    """Owners as given; signed chains are the business of `overlay.ipam.deeds`."""

    def __init__(self, owners, passed=()):
        self.owners = owners
        self.passed = passed

    def passed_by(self, nodes):
        return self.passed if nodes else ()

    def owner(self, block):
        return self.owners.get(block, CLUSTER.genesis)

    def moved(self):
        return self.owners.keys()


def record(name, blocks=(), pods=()):
    return NodeRecord(identity(name).certificate, 1, blocks_in_use=blocks, pods=pods)


def views(owners, records=(), passed=(), departed=None):
    nodes = {one.node: one for one in records}
    titles = FakeTitles(owners, passed)
    return block_views(PLAN, titles, nodes, CLUSTER.genesis, departed or {})


def test_an_untouched_cluster_is_one_row():
    assert views({}, [record("node1")]) == (
        BlockView(
            IPv4Network("10.244.0.0/20"), IPv6Network("fd4d:75::/60"), "node1", 16, "free", 0
        ),
    )


def test_blocks_in_use_have_a_row_each_and_free_ones_are_joined():
    bob = node("bob")
    pods = (PodEntry("web", 5, 2, 0), PodEntry("db", 5, 3, 0))
    rows = views(
        {5: bob, 6: bob, 7: bob},
        [record("node1", blocks=(0, 1)), record("bob", blocks=(5,), pods=pods)],
    )
    assert [(str(row.prefix), row.node, row.blocks, row.state, row.pods) for row in rows] == [
        ("10.244.0.0/24", "node1", 1, "in-use", 0),
        ("10.244.1.0/24", "node1", 1, "in-use", 0),
        ("10.244.2.0/23", "node1", 2, "free", 0),
        ("10.244.4.0/24", "node1", 1, "free", 0),
        ("10.244.5.0/24", "bob", 1, "in-use", 2),
        ("10.244.6.0/23", "bob", 2, "free", 0),
        ("10.244.8.0/21", "node1", 8, "free", 0),
    ]
    assert [str(row.prefix6) for row in rows][2:4] == ["fd4d:75:0:2::/63", "fd4d:75:0:4::/64"]


def test_a_block_claimed_by_a_record_alone_is_not_in_use():
    used = blocks_used({node("bob"): record("bob", blocks=(5,))}, FakeTitles({}))
    assert used == {}


def test_blocks_of_a_removed_node_are_marked_and_so_are_those_it_gave_away_unused():
    bob, carol = node("bob"), node("carol")
    pods = (PodEntry("web", 5, 2, 0),)
    rows = views(
        {5: bob, 6: carol, 7: carol, 8: bob},
        [record("node1"), record("carol", blocks=(7,))],
        passed=(5, 6, 7, 8),
        departed={bob: record("bob", blocks=(5,), pods=pods)},
    )
    assert [(str(row.prefix), row.node, row.state, row.pods) for row in rows] == [
        ("10.244.0.0/22", "node1", "free", 0),
        ("10.244.4.0/24", "node1", "free", 0),
        ("10.244.5.0/24", "bob", "removed", 1),
        ("10.244.6.0/24", "carol", "held", 0),
        ("10.244.7.0/24", "carol", "in-use", 0),
        ("10.244.8.0/24", "bob", "removed", 0),
        ("10.244.9.0/24", "node1", "free", 0),
        ("10.244.10.0/23", "node1", "free", 0),
        ("10.244.12.0/22", "node1", "free", 0),
    ]


def test_an_owner_without_a_record_is_shown_by_its_id():
    assert views({})[0].node == node("node1")[:4].hex()


OWNERS = st.dictionaries(st.integers(0, 15), st.sampled_from([node(name) for name in NAMES]))
CLAIMS = st.lists(st.integers(0, 15), unique=True, max_size=4).map(tuple)


@settings(max_examples=100)
@given(OWNERS, st.tuples(CLAIMS, CLAIMS, CLAIMS))
def test_the_rows_cover_each_block_once_with_its_owner_and_cannot_be_fewer(owners, claims):
    records = [record(name, blocks) for name, blocks in zip(NAMES, claims, strict=True)]
    titles = FakeTitles(owners)
    used = blocks_used({one.node: one for one in records}, titles)
    expected = []
    for name in NAMES:
        mine = [block for block in range(16) if titles.owner(block) == node(name)]
        expected += [(PLAN.prefix4(block), name, "in-use") for block in mine if block in used]
        free = collapse_addresses(PLAN.prefix4(block) for block in mine if block not in used)
        expected += [(prefix, name, "free") for prefix in free]
    rows = views(owners, records)
    assert [(row.prefix, row.node, row.state) for row in rows] == sorted(expected)
    assert sum(row.blocks for row in rows) == 16
    for row in rows:
        first = PLAN.index_of(row.prefix.network_address)
        assert row.prefix6.network_address == PLAN.prefix6(first).network_address
        assert row.prefix6.prefixlen == 64 - (row.blocks.bit_length() - 1)


@given(st.integers(0, 300), st.integers(0, 300))
def test_aligned_parts_are_prefixes_and_add_up(start, length):
    parts = list(aligned(Run(start, start + length, NodeId(b""))))
    assert [block for part in parts for block in range(part.start, part.stop)] == list(
        range(start, start + length)
    )
    for part in parts:
        size = part.stop - part.start
        assert size.bit_count() == 1
        assert part.start % size == 0


def test_the_fewest_prefixes_cover_the_same_addresses():
    for blocks in ((), (5,), (0, 1), (9, 3, 4, 5, 6, 7, 8), range(16)):
        prefixes = [PLAN.prefix4(block) for block in blocks]
        prefixes6 = [PLAN.prefix6(block) for block in blocks]
        expected = (*collapse_addresses(prefixes), *collapse_addresses(prefixes6))
        assert fewest_prefixes(PLAN, blocks) == expected
