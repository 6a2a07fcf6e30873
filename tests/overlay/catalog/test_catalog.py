"""Records and deeds give the same catalog in any order, and only true ones count."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.catalog.blocks import choose_giver
from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import deed_item, deed_key, node_key
from overlay.catalog.records import NodeRecord, PodEntry, sign_record
from overlay.catalog.removals import Removal, sign_removal
from overlay.gossip.store import Store
from overlay.ipam.deeds import Chain, sign_base, sign_deed
from overlay.ipam.plan import BlockPlan
from overlay.keys import SigningKey
from overlay.wire.certificate import Certificate
from overlay.wire.items import Item

from .world import AUTHORITY, CLUSTER, LIMITS, PLAN, WALL, YEAR, forged, identity, keys_of, node


def deeds(block, *names, upto=None):
    """The item of a block that went from node1 to each of `names` in turn."""
    chain = Chain(block, CLUSTER.genesis)
    for giver, taker in zip(("node1", *names), names, strict=False):
        chain = sign_deed(keys_of(giver)[0], chain, node(taker), cluster=CLUSTER.id)
    return deed_item(replace(chain, deeds=chain.deeds[:upto]))


def record(name, version=1, **fields):
    return sign_record(identity(name), version=version, **fields)


def make(items=(), limits=LIMITS, cluster=CLUSTER, wall=WALL):
    catalog = Catalog(cluster, BlockPlan(cluster), limits)
    store = Store(lambda item: catalog.admit(item, wall), limits)
    learn(catalog, store, items)
    return catalog, store


def learn(catalog, store, items):
    """What the engine does with a delta."""
    for item in store.merge(items):
        catalog.apply(item)
    catalog.check_invariants()


def view(catalog):
    """Everything a catalog says, to compare two."""
    return (
        catalog.nodes,
        catalog.routes(),
        {name: catalog.ranges_of(node(name)) for name in ("node1", "bob", "carol")},
        catalog.block_views(),
        catalog.pods(),
        [catalog.titles.owner(block) for block in range(PLAN.blocks)],
    )


def networks(*texts):
    return tuple(ip_network(text) for text in texts)


WEB = PodEntry("web", 3, 2, WALL)
POOL = [
    record("node1", 1, blocks_in_use=(0,), free_blocks=15),
    record("node1", 2, blocks_in_use=(0,), free_blocks=13),
    record("bob", 1),
    record("bob", 2, blocks_in_use=(3,), pods=(WEB,)),
    record("bob", 3, left=True),
    record("carol", 1, blocks_in_use=(3, 4)),
    record("carol", 1, blocks_in_use=(4,)),
    deeds(3, "bob"),
    deeds(3, "bob", "carol"),
    deeds(4, "carol"),
    deeds(5, "bob", "carol", "bob"),
]


@settings(max_examples=40)
@given(st.permutations(POOL), st.integers(0, len(POOL)), st.randoms(use_true_random=False))
def test_any_order_of_the_same_items_gives_the_same_catalog(items, split, rng):
    expected, store = make(POOL)
    catalog, other = make(items[:split])
    again = [*items, rng.choice(items)]
    learn(catalog, other, again[split:])
    assert view(catalog) == view(expected)
    assert store.root() == other.root()


def test_a_block_is_routed_when_record_and_title_agree():
    items = [record("bob", 1, blocks_in_use=(3,)), deeds(3, "bob")]
    prefixes = networks("10.244.3.0/24", "fd4d:75:0:3::/64")
    for first, second in (items, reversed(items)):
        catalog, store = make([first])
        assert catalog.routes() == ()
        learn(catalog, store, [second])
        assert catalog.routes() == tuple((prefix, node("bob")) for prefix in prefixes)
        assert catalog.ranges_of(node("bob")) == prefixes
        assert catalog.ranges_of(node("node1")) == ()


def test_a_member_cannot_claim_the_block_of_another():
    catalog, _ = make(
        [record("node1", 1, blocks_in_use=(0,)), record("bob", 1, blocks_in_use=(0,))]
    )
    assert dict(catalog.routes()) == dict.fromkeys(
        networks("10.244.0.0/24", "fd4d:75::/64"), node("node1")
    )
    assert catalog.ranges_of(node("bob")) == ()


def test_routes_of_a_node_vanish_when_it_leaves_and_it_stays_known():
    catalog, store = make([record("bob", 1, blocks_in_use=(3,), pods=(WEB,)), deeds(3, "bob")])
    assert len(catalog.routes()) == 2
    assert catalog.pods() == ((node("bob"), WEB),)
    learn(catalog, store, [record("bob", 2, left=True)])
    assert catalog.routes() == ()
    assert catalog.pods() == ()
    assert catalog.nodes[node("bob")].left


def test_routes_follow_the_title_when_a_block_moves():
    catalog, store = make(
        [
            record("bob", 1, blocks_in_use=(3,)),
            record("carol", 1, blocks_in_use=(3,)),
            deeds(3, "bob"),
        ]
    )
    assert {owner for _, owner in catalog.routes()} == {node("bob")}
    learn(catalog, store, [deeds(3, "bob", "carol")])
    assert {owner for _, owner in catalog.routes()} == {node("carol")}


def test_without_ipv6_there_are_ipv4_routes_only():
    plain = replace(CLUSTER, cidr6=None)
    catalog, _ = make([record("node1", 1, blocks_in_use=(0,))], cluster=plain)
    assert catalog.routes() == ((ip_network("10.244.0.0/24"), node("node1")),)
    assert catalog.block_views()[0].prefix6 is None


def test_pods_are_listed_by_node_and_name_where_they_are_routed():
    pods = (PodEntry("web", 3, 2, WALL), PodEntry("db", 3, 3, WALL), PodEntry("x", 9, 2, WALL))
    catalog, _ = make(
        [
            record("bob", 1, blocks_in_use=(3, 9), pods=pods),
            record("alice", 1, blocks_in_use=(4,), pods=(PodEntry("a", 4, 2, WALL),)),
            deeds(3, "bob"),
            deeds(4, "alice"),
        ]
    )
    assert [pod.name for _, pod in catalog.pods()] == ["a", "db", "web"]


def test_the_generation_grows_exactly_when_routes_may_change():
    catalog, store = make([record("bob", 1, blocks_in_use=(3,)), deeds(3, "bob")])
    generation = catalog.generation
    learn(catalog, store, [record("bob", 2, blocks_in_use=(3,), pods=(WEB,))])
    assert catalog.generation == generation
    for item in (record("bob", 3, blocks_in_use=()), deeds(3, "bob", "carol"), record("carol", 1)):
        before = catalog.generation
        learn(catalog, store, [item])
        assert catalog.generation > before


def test_the_changes_of_routes_add_up_to_the_routes_and_come_once():
    catalog, store = make()
    known = {}
    for item in (
        record("bob", 1, blocks_in_use=(3, 4)),
        deeds(3, "bob"),
        record("carol", 1, blocks_in_use=(3,)),
        deeds(4, "bob"),
        deeds(3, "bob", "carol"),
        record("bob", 2, blocks_in_use=(5,)),
        record("carol", 2, left=True),
    ):
        learn(catalog, store, [item])
        changes = catalog.take_route_changes()
        for prefix in changes.removed:
            del known[prefix]
        for prefix, owner in changes.added:
            assert prefix not in known
            known[prefix] = owner
        assert known == dict(catalog.routes())
        assert catalog.take_route_changes() == ((), ())
    assert known == {}


def test_a_route_that_came_and_went_between_two_looks_is_no_change():
    catalog, store = make([record("bob", 1, blocks_in_use=(3,)), deeds(3, "bob")])
    learn(catalog, store, [record("bob", 2)])
    assert catalog.take_route_changes() == ((), ())


# -- what is not admitted -------------------------------------------------------------------------


FORGED = SigningKey(b"X" * 32)


@pytest.mark.parametrize(
    "item",
    [
        Item(b"x", 1, b""),
        Item(b"n" + bytes(31), 1, b""),
        Item(node_key(node("bob")), 1, b""),
        record("bob")._replace(version=2),
        record("bob")._replace(key=node_key(node("carol"))),
        sign_record(identity("bob", authority=FORGED), version=1),
        sign_record(forged("bob", FORGED), version=1),
        Item(deed_key(3), 1, b""),
        deeds(3, "bob")._replace(version=2),
        deeds(3, "bob")._replace(key=deed_key(4)),
        deeds(16, "bob"),
        deeds(3, "bob", "carol")._replace(body=deeds(3, "bob", "carol").body[:-1] + b"\0"),
    ],
)
def test_what_does_not_hold_is_not_admitted_and_changes_nothing(item):
    catalog, store = make()
    empty = view(make()[0])
    learn(catalog, store, [item])
    assert (view(catalog), catalog.generation) == (empty, 0)
    assert (len(store), store.refused) == (0, 1)


def test_a_chain_over_the_limit_is_not_admitted():
    catalog, store = make(limits=replace(LIMITS, deed_chain=2))
    learn(catalog, store, [deeds(3, "bob", "carol", "bob")])
    assert store.refused == 1
    learn(catalog, store, [deeds(3, "bob", "carol")])
    assert catalog.titles.owner(3) == node("carol")


def test_a_chain_that_a_better_one_has_overtaken_is_not_admitted():
    catalog, _ = make([deeds(3, "bob", "carol")])
    assert not catalog.admit(deeds(3, "bob"), WALL)
    assert catalog.admit(deeds(3, "bob", "carol"), WALL)


def test_a_node_whose_certificate_has_ended_stays_known_but_has_no_routes():
    catalog, _ = make([record("node1", 1, blocks_in_use=(0,))])
    catalog.take_route_changes()
    assert [one.name for one in catalog.look(WALL + YEAR)] == ["node1"]
    assert catalog.look(WALL + YEAR + 1) == []
    assert catalog.routes() == catalog.pods() == ()
    assert len(catalog.take_route_changes().removed) == 2
    later = Store(lambda item: catalog.admit(item, WALL + YEAR), LIMITS)
    learn(catalog, later, [record("node1", 2, blocks_in_use=(0, 1))])
    assert later.refused == 0
    assert catalog.nodes[node("node1")].version == 2
    assert catalog.routes() == ()
    catalog.check_invariants()


def test_who_comes_later_knows_the_same_of_a_node_whose_certificate_has_ended():
    last = record("node1", 1, blocks_in_use=(0,))
    before, held = make([last])
    before.look(WALL + YEAR)
    after, learned = make([last], wall=WALL + YEAR)
    again, _ = make()
    again.apply(last)
    again.look(WALL + YEAR)
    assert held.root() == learned.root()
    assert before.nodes == after.nodes == again.nodes
    assert before.routes() == after.routes() == again.routes() == ()


def test_a_clock_that_is_set_back_brings_routes_back():
    catalog, _ = make([record("node1", 1, blocks_in_use=(0,))])
    routes = catalog.routes()
    catalog.look(WALL + YEAR)
    catalog.take_route_changes()
    assert catalog.look(WALL) == []
    assert catalog.routes() == routes
    assert len(catalog.take_route_changes().added) == 2
    catalog.check_invariants()


def test_the_authority_s_signature_is_checked_once_per_certificate(monkeypatch):
    """Half of what a new version of a record costs to check is saved."""
    checked = []
    verify = Certificate.verify_signature
    monkeypatch.setattr(
        Certificate,
        "verify_signature",
        lambda one, *rest: (checked.append(one.serial), verify(one, *rest)),
    )
    catalog, store = make([record("bob", 1)])
    learn(catalog, store, [record("bob", 2)])
    assert checked == [1]
    learn(catalog, store, [sign_record(identity("bob", serial=2), version=3)])
    assert checked == [1, 2]
    assert catalog.nodes[node("bob")].version == 3


def test_a_renewed_certificate_replaces_the_old_one():
    catalog, store = make([record("bob", 1)])
    renewed = identity("bob", serial=2)
    learn(catalog, store, [sign_record(renewed, version=2)])
    assert catalog.nodes[node("bob")].certificate == renewed.certificate


# -- own items ------------------------------------------------------------------------------------


def test_an_own_item_takes_effect_without_being_admitted():
    catalog, _ = make()
    item = record("node1", 1, blocks_in_use=(0,))
    assert catalog.apply(item)
    assert not catalog.apply(item)
    assert len(catalog.routes()) == 2


def test_a_deed_takes_effect_also_if_the_ledger_has_it_already():
    catalog, _ = make([record("bob", 1, blocks_in_use=(3,))])
    assert catalog.routes() == ()
    item = deeds(3, "bob")
    assert catalog.admit(item, WALL)
    assert catalog.apply(item)
    assert len(catalog.routes()) == 2
    assert len(catalog.take_route_changes().added) == 2


def test_of_two_removals_of_a_node_the_greater_counts_in_any_order():
    items = [removal("bob", time=WALL), removal("bob", time=WALL + 1)]
    for order in permutations([record("bob", blocks_in_use=[3]), *items]):
        catalog, _ = make()
        for item in order:
            catalog.apply(item)
        catalog.check_invariants()
        best = max(items, key=lambda item: item.body)
        assert catalog.removed[node("bob")].time == WALL + items.index(best)
        assert catalog.departed[node("bob")].blocks_in_use == (3,)
        assert not any(map(catalog.apply, items))


def test_an_item_that_is_older_or_does_not_decode_is_not_applied():
    catalog, _ = make([record("bob", 2), deeds(3, "bob", "carol")])
    for item in (record("bob", 1), deeds(3, "bob"), record("carol")._replace(body=b"")):
        assert not catalog.apply(item)
    assert not catalog.apply(deeds(4, "bob")._replace(body=b""))
    assert not catalog.apply(Item(b"x", 1, b""))


def test_what_was_admitted_under_a_key_does_not_pass_for_another_item():
    catalog, _ = make()
    assert catalog.admit(record("bob", 1, software="a"), WALL)
    assert catalog.apply(record("bob", 2, software="b"))
    assert catalog.nodes[node("bob")].software == "b"


# -- questions ------------------------------------------------------------------------------------


def test_a_name_means_the_node_that_has_it_now():
    old, new = identity("bob", key="old"), identity("bob", key="new", serial=2)
    left = sign_record(old, version=9, left=True)
    catalog, store = make([left])
    assert catalog.by_name("bob").left
    learn(catalog, store, [sign_record(new, version=1)])
    assert catalog.by_name("bob") == NodeRecord(new.certificate, 1)
    assert catalog.by_name("nobody") is None


def test_a_name_that_was_given_twice_at_once_means_the_same_node_to_everybody():
    twins = [identity("bob", key=key, serial=7) for key in ("one", "two")]
    records = [sign_record(twin, version=1) for twin in twins]
    (first, _), (second, _) = make(records), make(records[::-1])
    assert first.by_name("bob") == second.by_name("bob")
    assert first.by_name("bob").node == max(twin.node for twin in twins)


def test_the_giver_is_the_living_node_with_most_free_blocks():
    catalog, _ = make(
        [
            record("node1", 1, free_blocks=9),
            record("bob", 1, free_blocks=16),
            record("carol", 1, free_blocks=3),
            record("dave", 1, free_blocks=0),
        ]
    )
    alive = {node("node1"), node("carol"), node("dave")}
    assert choose_giver(catalog.nodes, (), lambda _: True) == node("bob")
    assert choose_giver(catalog.nodes, (), alive.__contains__) == node("node1")
    assert choose_giver(catalog.nodes, {node("node1")}, alive.__contains__) == node("carol")
    assert choose_giver(catalog.nodes, {node("node1"), node("carol")}, alive.__contains__) is None


# -- removed nodes -------------------------------------------------------------------------------


def removal(name, time=WALL):
    word = Removal(node(name), 1, name, time)
    return sign_removal(AUTHORITY, word, cluster=CLUSTER.id)


def test_a_removal_takes_effect_in_any_order_with_the_nodes_record():
    items = [record("bob", blocks_in_use=[3]), deeds(3, "bob"), removal("bob")]
    for order in permutations(items):
        catalog, store = make()
        for item in order:
            assert store.merge([item])
            assert catalog.apply(item)
        catalog.check_invariants()
        assert catalog.routes() == ()
        assert node("bob") not in catalog.nodes
        assert catalog.departed[node("bob")].blocks_in_use == (3,)
        assert [row.state for row in catalog.block_views() if row.node == "bob"] == ["removed"]
        assert catalog.is_held(3)
        # Its records go on being kept: all stores shall hold the same.
        assert store.merge([record("bob", version=9)])


def test_a_removal_by_anybody_but_the_authority_is_not_admitted():
    catalog, store = make()
    word = Removal(node("bob"), 1, "bob", WALL)
    forged = sign_removal(keys_of("node1")[0], word, cluster=CLUSTER.id)
    assert not store.merge([forged])
    assert not catalog.removed


def test_what_passed_through_a_removed_node_is_held_until_the_authority_takes_it():
    catalog, store = make()
    for item in (deeds(3, "bob", "carol"), deeds(4, "carol"), removal("bob")):
        store.merge([item])
        catalog.apply(item)
    assert (catalog.is_held(3), catalog.is_held(4), catalog.is_held(5)) == (True, False, False)
    base = sign_base(AUTHORITY, cluster=CLUSTER.id, block=3, sequence=3, owner=node("node1"))
    assert store.merge([deed_item(base)])
    catalog.apply(deed_item(base))
    assert not catalog.is_held(3)
    assert not store.merge([deeds(3, "bob", "carol", "node1", "bob", "carol")])
