"""Tests of overlay.ipam.allocator."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from overlay.config import Limits, Timing
from overlay.errors import RefusedError, StateError
from overlay.ipam.allocator import Allocator, Resting, Slot, pick_block_to_give
from overlay.ipam.deeds import sign_deed
from overlay.ipam.plan import BlockPlan
from overlay.ipam.titles import Titles
from overlay.types import BlockIndex
from tests.support.clusters import make_cluster, signing_key

CLUSTER = make_cluster("10.1.0.0/24", "fd00::/48", block_prefix=29)  # 32 blocks of 5 pods
PLAN = BlockPlan(CLUSTER)
QUARANTINE = Timing().quarantine
B0, B1, B2 = BlockIndex(0), BlockIndex(1), BlockIndex(2)


def allocator_of(*blocks: BlockIndex) -> Allocator:
    allocator = Allocator(PLAN, QUARANTINE)
    for block in blocks:
        allocator.add_block(block)
    return allocator


def test_pods_get_the_lowest_free_host_block_after_block() -> None:
    allocator = allocator_of(B1, B0)
    slots = [allocator.allocate(f"p{n}", None, 0.0) for n in range(7)]
    assert slots == [(1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (0, 2), (0, 3)]
    assert (allocator.pods_in(B1), allocator.pods_in(B0), allocator.pods_in(B2)) == (5, 2, 0)
    assert allocator.blocks == (B1, B0)
    assert allocator.slot("p5") == Slot(B0, 2)
    assert allocator.slot("other") is None


def test_a_full_node_refuses() -> None:
    allocator = allocator_of(B0)
    for number in range(5):
        allocator.allocate(f"p{number}", None, 0.0)
    with pytest.raises(RefusedError) as caught:
        allocator.allocate("one-more", None, 0.0)
    assert caught.value.code == "no-free-address"


def test_a_node_without_blocks_refuses() -> None:
    with pytest.raises(RefusedError) as caught:
        allocator_of().allocate("p", None, 0.0)
    assert caught.value.code == "no-free-address"


@pytest.mark.parametrize("address", [IPv4Address("10.1.0.11"), IPv6Address("fd00:0:0:1::3")])
def test_a_wanted_address_of_either_family_is_given(address: IPv4Address | IPv6Address) -> None:
    assert allocator_of(B0, B1).allocate("p", address, 0.0) == Slot(B1, 3)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("10.1.0.16", "address-not-ours"),
        ("192.0.2.1", "address-not-ours"),
        ("fd00:0:0:2::2", "address-not-ours"),
        ("fd00:0:0:1::8", "address-not-ours"),
        ("10.1.0.8", "address-taken"),
        ("10.1.0.9", "address-taken"),
        ("10.1.0.15", "address-taken"),
        ("10.1.0.10", "address-taken"),
        ("fd00:0:0:1::2", "address-taken"),
    ],
)
def test_a_wanted_address_that_cannot_be_given_is_refused(address: str, code: str) -> None:
    allocator = allocator_of(B1)
    allocator.allocate("first", None, 0.0)
    wanted = IPv6Address(address) if ":" in address else IPv4Address(address)
    with pytest.raises(RefusedError) as caught:
        allocator.allocate("p", wanted, 0.0)
    assert caught.value.code == code
    assert allocator.slot("p") is None


def test_a_freed_address_rests_for_the_quarantine() -> None:
    allocator = allocator_of(B0)
    allocator.allocate("old", None, 0.0)
    allocator.free("old", 100.0)
    assert allocator.allocate("a", None, 100.0 + QUARANTINE - 0.1).host == 3
    assert allocator.allocate("b", None, 100.0 + QUARANTINE).host == 2


def test_a_resting_address_is_refused_to_others_and_given_to_its_own_pod() -> None:
    allocator = allocator_of(B0)
    address = PLAN.address4(B0, 4)
    allocator.allocate("mine", address, 0.0)
    allocator.free("mine", 1.0)
    with pytest.raises(RefusedError, match="just freed by mine") as caught:
        allocator.allocate("other", address, 2.0)
    assert (caught.value.code, caught.value.fix) == (
        "address-taken",
        "choose another, or try again in 59 s",
    )
    assert allocator.allocate("mine", address, 2.0) == Slot(B0, 4)
    allocator.check_invariants()


def test_a_full_node_has_room_again_when_the_quarantine_ends() -> None:
    allocator = allocator_of(B0)
    for number in range(5):
        allocator.allocate(f"p{number}", None, 0.0)
    allocator.free("p3", 10.0)
    with pytest.raises(RefusedError):
        allocator.allocate("new", None, 69.9)
    assert allocator.allocate("new", None, 70.0).host == 5


def test_stored_pods_get_their_addresses_back() -> None:
    allocator = allocator_of(B0)
    allocator.restore("p", B0, 3)
    assert allocator.slot("p") == Slot(B0, 3)
    assert [allocator.allocate(name, None, 0.0).host for name in "ab"] == [2, 4]


@pytest.mark.parametrize(
    ("pod", "block", "host"), [("p", B1, 3), ("p", B0, 2), ("first", B0, 3), ("p", B0, 1)]
)
def test_what_cannot_be_restored_is_a_defect(pod: str, block: BlockIndex, host: int) -> None:
    allocator = allocator_of(B0)
    allocator.allocate("first", None, 0.0)
    with pytest.raises(StateError):
        allocator.restore(pod, block, host)


def test_misuse_is_a_state_error() -> None:
    allocator = allocator_of(B0)
    allocator.allocate("p", None, 0.0)
    with pytest.raises(StateError):
        allocator.allocate("p", None, 0.0)
    with pytest.raises(StateError):
        allocator.free("other", 0.0)
    with pytest.raises(StateError):
        allocator.remove_block(B0)
    with pytest.raises(StateError):
        allocator.remove_block(B1)


def test_a_removed_block_is_allocated_from_no_longer() -> None:
    allocator = allocator_of(B0, B1)
    allocator.allocate("p", None, 0.0)
    allocator.free("p", 0.0)
    allocator.remove_block(B0)
    allocator.check_invariants()
    assert allocator.allocate("p", None, 0.0).block == B1


def test_adding_a_block_again_keeps_its_pods() -> None:
    allocator = allocator_of(B0)
    allocator.allocate("p", None, 0.0)
    allocator.add_block(B0)
    assert allocator.pods_in(B0) == 1


# -- blocks that are lost, nearly full, or empty -------------------------------------------------


def test_nothing_is_allocated_from_a_closed_block_and_its_pods_stay() -> None:
    allocator = allocator_of(B0, B1)
    allocator.allocate("p", None, 0.0)
    allocator.close_all_but({B1})
    assert allocator.slot("p") == Slot(B0, 2)
    assert allocator.allocate("q", None, 0.0) == Slot(B1, 2)
    with pytest.raises(RefusedError) as caught:
        allocator.allocate("r", PLAN.address4(B0, 4), 0.0)
    assert caught.value.code == "address-not-ours"
    allocator.close_all_but({B0, B1})
    assert allocator.allocate("r", None, 0.0) == Slot(B0, 3)


def test_taken_resting_and_closed_addresses_are_not_free() -> None:
    allocator = allocator_of(B0, B1)
    assert allocator.free_slots(0.0) == 2 * PLAN.capacity
    allocator.allocate("p", None, 0.0)
    allocator.allocate("q", None, 0.0)
    allocator.free("p", 1.0)
    assert allocator.free_slots(1.0) == 2 * PLAN.capacity - 2
    allocator.close_all_but({B0})
    assert allocator.free_slots(1.0) == PLAN.capacity - 2
    assert allocator.free_slots(1.0 + QUARANTINE) == PLAN.capacity - 1


def test_a_block_is_empty_when_nothing_in_it_is_taken_or_rests() -> None:
    allocator = allocator_of(B0, B1)
    allocator.allocate("p", None, 0.0)
    assert not allocator.is_empty(B0, 0.0)
    assert allocator.is_empty(B1, 0.0)
    allocator.free("p", 1.0)
    assert not allocator.is_empty(B0, 1.0)
    assert allocator.is_empty(B0, 1.0 + QUARANTINE)


# -- which block to give -------------------------------------------------------------------------


def moved(titles: Titles, block: int, *nodes: int) -> None:
    """Move a block from its owner through `nodes`."""
    index = BlockIndex(block)
    for node in nodes:
        chain = titles.chain(index)
        owner = titles.owner(index)
        key = next(key for key in map(signing_key, range(4)) if key.public == owner)
        chain = sign_deed(key, chain, signing_key(node).public, cluster=CLUSTER.id)
        titles.admit(chain.encode())


def test_the_block_that_moved_least_is_given_of_several_the_lowest() -> None:
    titles = Titles(CLUSTER, Limits())
    founder = CLUSTER.genesis
    moved(titles, 0, 1, 0)
    moved(titles, 1, 1)
    assert pick_block_to_give(titles, founder, {B2}) == 3
    assert pick_block_to_give(titles, founder, {BlockIndex(n) for n in range(2, 32)}) == 0
    assert pick_block_to_give(titles, signing_key(1).public, ()) == 1


def test_a_node_whose_blocks_are_all_in_use_gives_none() -> None:
    titles = Titles(CLUSTER, Limits())
    assert pick_block_to_give(titles, signing_key(1).public, ()) is None
    moved(titles, 1, 1)
    assert pick_block_to_give(titles, signing_key(1).public, {B1}) is None


def test_a_block_that_could_not_come_back_is_kept() -> None:
    titles = Titles(CLUSTER, replace(Limits(), deed_chain=4))
    moved(titles, 0, 1, 2)
    assert pick_block_to_give(titles, signing_key(2).public, ()) == B0
    moved(titles, 0, 1)
    assert pick_block_to_give(titles, signing_key(1).public, ()) is None


# -- resting across restarts ---------------------------------------------------------------------


def test_what_rests_is_told_in_the_order_in_which_it_ends() -> None:
    allocator = allocator_of(B0)
    for pod, now in (("b", 1.0), ("a", 2.0), ("c", 3.0)):
        slot = allocator.allocate(pod, None, now)
        allocator.free(pod, now)
        assert allocator.resting(now)[-1] == Resting(pod, slot, now + QUARANTINE)
    assert [rest.pod for rest in allocator.resting(2.0 + QUARANTINE)] == ["c"]


def test_what_another_machine_had_rests_anew_and_behind_what_ends_before() -> None:
    allocator = allocator_of(B0)
    slots = {pod: allocator.allocate(pod, None, 0.0) for pod in ("a", "b")}
    allocator.free("a", 0.0)
    allocator.free("b", 1.0)
    assert allocator.rest(Resting("c", slots["a"], 10.0 + QUARANTINE), 10.0)
    allocator.check_invariants()
    assert [rest.pod for rest in allocator.resting(10.0)] == ["b", "c"]
    assert allocator.allocate("d", PLAN.address4(*slots["b"]), 1.0 + QUARANTINE) == slots["b"]


def test_a_rest_is_never_longer_than_a_quarantine() -> None:
    allocator = allocator_of(B0)
    assert allocator.rest(Resting("web", Slot(B0, 2), 1e9), 100.0)
    assert allocator.allocate("a", None, 100.0).host == 3
    assert allocator.allocate("b", None, 100.0 + QUARANTINE).host == 2


@pytest.mark.parametrize("slot", [Slot(B1, 2), Slot(B0, 1), Slot(B0, 7), Slot(B0, 3)])
def test_what_cannot_rest_here_is_left_alone(slot: Slot) -> None:
    allocator = allocator_of(B0)
    allocator.restore("web", B0, 3)
    assert not allocator.rest(Resting("old", slot, 50.0), 0.0)
    assert allocator.resting(0.0) == ()
    allocator.check_invariants()
