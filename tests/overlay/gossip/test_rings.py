"""The rings: whom a node watches, and that everybody finds the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.gossip.rings import EVERYBODY, RINGS, WALK, Rings
from overlay.types import NodeId
from tests.support.gossips import node_id

SELF = node_id(0)
IDS = st.sets(st.integers(1, 60), max_size=30)


def rings_of(number, members):
    rings = Rings(node_id(number))
    for other in members:
        rings.add(node_id(other))
    return rings


def successors(number, members):
    """The oracle: sort everybody on each ring, take the next."""
    node, found = node_id(number), {}
    for ring in range(RINGS):
        key = lambda one, at=8 * ring: one[at:] + one[:at]  # noqa: E731
        order = sorted({node, *map(node_id, members)}, key=key)
        found[order[(order.index(node) + 1) % len(order)]] = None
    found.pop(node, None)
    return list(found)


@given(IDS)
def test_subjects_are_the_successors_on_the_four_rings(members):
    rings = rings_of(0, members)
    rings.check_invariants()
    if len(members) < EVERYBODY:
        assert set(rings.subjects()) == {node_id(n) for n in members}
    else:
        assert list(rings.subjects()) == successors(0, members)


@given(IDS.filter(lambda members: len(members) > EVERYBODY))
def test_who_is_my_subject_has_me_as_its_observer(members):
    everybody = {0, *members}
    views = {n: rings_of(n, everybody - {n}) for n in everybody}
    for n, rings in views.items():
        for subject in rings.subjects():
            assert node_id(n) in rings.observers_of(subject)
            (other,) = [m for m in everybody if node_id(m) == subject]
            assert node_id(n) in views[other].observers()
        assert len(rings.neighbours()) <= 2 * RINGS


@given(IDS, IDS)
def test_adding_and_removing_leaves_what_was_never_removed(members, gone):
    rings = rings_of(0, members | gone)
    for number in gone:
        rings.remove(node_id(number))
    rings.check_invariants()
    assert rings.subjects() == rings_of(0, members - gone).subjects()
    assert len(rings) == len(members - gone) + 1


def test_in_a_small_cluster_everybody_watches_everybody():
    rings = rings_of(0, range(1, EVERYBODY))
    assert len(rings.subjects()) == len(rings.observers()) == EVERYBODY - 1
    assert SELF in rings.observers_of(node_id(1))
    rings.add(node_id(EVERYBODY))
    assert len(rings.subjects()) <= RINGS


def test_who_suspects_its_subject_watches_the_one_behind_it_too():
    rings = rings_of(0, range(1, 40))
    first, *others = rings.subjects()
    rings.suspect(first, suspected=True)
    behind = set(rings.subjects()) - {first, *others}
    assert len(behind) == 1
    assert first in rings.subjects()
    rings.suspect(first, suspected=False)
    assert rings.subjects() == (first, *others)


def test_a_liar_cannot_make_a_node_watch_everybody():
    rings = rings_of(0, range(1, 40))
    for number in range(1, 40):
        rings.suspect(node_id(number), suspected=True)
    assert len(rings.subjects()) <= RINGS * WALK


def test_a_dead_node_is_nobodys_subject_and_its_observers_can_still_be_named():
    rings = rings_of(0, range(1, 40))
    before = rings.observers_of(node_id(7))
    rings.remove(node_id(7))
    assert rings.observers_of(node_id(7)) == before
    assert node_id(7) not in rings.neighbours()
    rings.remove(SELF)  # never
    assert SELF in rings


def test_news_crosses_a_large_cluster_in_few_steps():
    everybody = range(300)
    views = {node_id(n): rings_of(n, set(everybody) - {n}) for n in everybody}
    known, steps = {SELF}, 0
    while len(known) < 300:
        known |= {other for node in known for other in views[node].neighbours()}
        steps += 1
    assert steps <= 5


def test_ids_that_are_alike_on_a_ring_stand_in_order_of_the_rest_of_them():
    alike = [NodeId(bytes(8) + bytes([tail]) * 24) for tail in range(20)]
    rings = Rings(alike[7])
    for node in reversed(alike):
        rings.add(node)
    rings.check_invariants()
    assert alike[8] in rings.subjects()
    for node in alike[10:]:
        rings.remove(node)
    rings.check_invariants()
    assert alike[10] not in rings
    assert rings.observers_of(alike[10])[0] == alike[9]
