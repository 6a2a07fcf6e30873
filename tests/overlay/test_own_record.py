"""Tests of overlay.own_record, and of what a restart brings back."""

from __future__ import annotations

import pytest

from overlay.catalog.records import ENDPOINTS_MAX, NodeRecord, PodEntry, sign_record
from overlay.config import Limits
from overlay.errors import CapacityError
from overlay.resting import rest_all, restore_rests
from overlay.state import NodeState, StoredRest
from overlay.types import BlockIndex, Endpoint
from tests.support.clusters import WALL
from tests.support.holders import Node, founder, refusal

HERE = Endpoint("192.0.2.1", 6875)


def test_the_record_says_what_the_node_holds() -> None:
    node = founder()
    node.record.endpoints = (HERE,)
    node.add("b")
    node.add("a")
    record = node.announce()
    assert (record.name, record.software, record.is_authority) == ("node0", "1.2.3", True)
    assert (record.endpoints, record.blocks_in_use, record.free_blocks) == ((HERE,), (0,), 15)
    assert [(pod.name, pod.block, pod.host, pod.since) for pod in record.pods] == [
        ("a", 0, 3, WALL),
        ("b", 0, 2, WALL),
    ]


def test_a_node_with_many_addresses_announces_as_many_as_others_take() -> None:
    node = founder()
    node.record.endpoints = tuple(Endpoint(f"192.0.2.{n}", 1) for n in range(1, 41))
    assert node.announce().endpoints == node.record.endpoints[:ENDPOINTS_MAX]


def test_versions_grow_over_restarts_even_when_the_last_ones_were_never_stored() -> None:
    node = founder()
    state = node.stored()
    versions = [node.announce().version for _ in range(3)]
    # The crash: what `state` holds is all that is left.
    again = Node(state=NodeState(state.boot + 1, blocks_in_use=state.blocks_in_use))
    versions += [again.announce().version for _ in range(2)]
    assert versions == sorted(set(versions))
    assert [version >> 32 for version in versions] == [1, 1, 1, 2, 2]


def test_versions_go_on_from_a_record_of_this_node_that_is_newer_than_its_state() -> None:
    node = founder()
    backup = node.stored()
    later = node.restarted().restarted().announce().version
    restored = Node(state=NodeState(backup.boot + 1, blocks_in_use=backup.blocks_in_use))
    restored.announce()
    assert restored.record.versions.overtaken_by() is None
    restored.learn(sign_record(restored.identity, version=later))
    assert restored.record.versions.overtaken_by() is not None
    assert restored.announce().version == later + 1
    assert restored.record.versions.overtaken_by() is None


def test_a_record_of_another_machine_can_be_followed_or_left_behind() -> None:
    node = founder()
    node.learn(sign_record(node.identity, version=7 << 32 | 9))
    node.record.versions.follow(node.record.versions.overtaken_by())
    assert node.record.versions.overtaken_by() is None
    assert node.announce().version == 7 << 32 | 10
    node.learn(sign_record(node.identity, version=9 << 32))
    assert node.record.versions.raise_boot() == 10
    assert node.announce().version == 10 << 32 | 1
    assert node.record.versions.raise_boot() == 11


def test_what_another_machine_said_is_signed_again_with_the_flag() -> None:
    node = founder()
    pods = (PodEntry("web", BlockIndex(3), 2, WALL),)
    other = NodeRecord(
        node.identity.certificate, 5, (HERE,), (BlockIndex(3),), free_blocks=4, pods=pods
    )
    item = node.record.make(conflict=True, content=other)
    node.learn(item)
    record = node.catalog.nodes[node.id]
    assert record.conflict
    assert (record.endpoints, record.blocks_in_use, record.pods) == ((HERE,), (3,), pods)
    assert record.free_blocks == 0


def test_a_claim_goes_on_from_what_the_other_machine_did() -> None:
    node = founder()
    node.add("mine")
    pods = tuple(PodEntry(f"p{host}", BlockIndex(host % 2), host, WALL) for host in (2, 3, 4))
    blocks = (BlockIndex(0), BlockIndex(1))
    node.holdings.use_blocks(blocks)
    rest_all(node.holdings.allocator, pods, node.holdings.quarantine, 10.0)
    assert node.holdings.blocks_in_use == [0, 1]
    assert {rest.slot for rest in node.holdings.allocator.resting(10.0)} == {(0, 4), (1, 3)}


def test_addresses_rest_on_across_a_restart_and_a_clock_that_was_set() -> None:
    node = founder()
    node.add("web", now=10.0)
    node.holdings.remove_pod("web", 10.0)
    state = node.stored(epoch=WALL)
    assert state.resting == (StoredRest("web", BlockIndex(0), 2, WALL + 70),)
    for step, free_at in ((0.0, 49.5), (-3600.0, 60.0), (10.0, 39.5), (3600.0, 0.0)):
        again = Node(state=state)
        epoch = WALL + 20.5 + step
        restore_rests(again.holdings.allocator, state.resting, epoch, 0.0)
        assert len(again.holdings.allocator.resting(free_at - 0.1)) == (1 if free_at else 0)
        assert again.holdings.allocator.resting(free_at) == ()


@pytest.mark.parametrize(("version", "left"), [(9 << 32, True), ((1 << 64) - 1, False)])
def test_a_record_that_ends_a_node_is_not_outdone(version: int, left: bool) -> None:
    restored = founder()
    restored.learn(sign_record(restored.identity, version=version, left=left))
    assert restored.record.versions.overtaken_by() is None
    assert restored.record.make().version == (1 << 32) + 1


def test_pods_leave_room_in_the_record_for_what_changes_without_being_asked() -> None:
    node = founder(limits=Limits(record=2000))
    names = [f"a-pod-with-a-long-name-{number}" for number in range(200)]
    while node.record.has_room(names[0], WALL):
        node.add(names.pop(0))
    assert 10 < len(node.holdings.pods) < 200
    node.record.endpoints = (HERE,)
    assert node.announce().endpoints == (HERE,)


def test_a_record_over_the_limit_is_not_made() -> None:
    node = founder(limits=Limits(record=700))
    node.announce()
    for number in range(20):
        node.add(f"a-pod-with-a-long-name-{number}")
    with pytest.raises(CapacityError) as caught:
        node.record.make()
    assert caught.value.limit == "record"


def test_everything_is_there_again_after_a_restart() -> None:
    node = founder()
    node.add("web")
    node.announce()
    again = node.restarted()
    assert again.holdings.pods == node.holdings.pods
    assert again.holdings.blocks_in_use == node.holdings.blocks_in_use
    assert again.holdings.address == node.holdings.address
    assert again.add("next").host == 3
    assert refusal(again.add, "web").code == "pod-exists"
