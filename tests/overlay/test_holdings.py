"""Tests of overlay.holdings."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.catalog.catalog import Catalog
from overlay.catalog.keys import block_of_key
from overlay.catalog.records import (
    ENDPOINTS_MAX,
    NodeRecord,
    PodEntry,
    check_validity,
    open_record_untrusted,
    sign_record,
)
from overlay.config import Limits, Timing
from overlay.errors import CapacityError, ConfigError, OverlayError, RefusedError
from overlay.holdings import Holdings
from overlay.ipam.plan import BlockPlan
from overlay.resting import rest_all, restore_rests
from overlay.state import MAX_NETNS, NodeState, StoredPod, StoredRest
from overlay.types import BlockIndex, Endpoint
from overlay.versions import TOMBSTONE
from overlay.wire.items import Item
from tests.support.clusters import WALL, make_cluster, make_identity

CLUSTER = make_cluster("10.244.0.0/20")
SMALL = make_cluster("10.244.0.0/27", "fd4d:75:736c::/48", block_prefix=29)
"""Four blocks with five pod addresses each."""

QUARANTINE = Timing().quarantine
HERE = Endpoint("192.0.2.1", 6875)


class Node:
    """One node's holdings, and the catalog in which its items take effect."""

    def __init__(self, number: int = 0, *, cluster=CLUSTER, state=None, limits=None) -> None:
        self.cluster = cluster
        self.identity = make_identity(number, cluster)
        self.id = self.identity.node
        self.plan = BlockPlan(cluster)
        self.limits = limits or Limits()
        self.catalog = Catalog(cluster, self.plan, self.limits)
        self.items: dict[bytes, Item] = {}
        state = state or NodeState(boot=1)
        self.learn(*state.items)
        self.holdings = Holdings(
            identity=self.identity,
            catalog=self.catalog,
            plan=self.plan,
            state=state,
            software="1.2.3",
            is_authority=number == 0,
            limits=self.limits,
        )

    def learn(self, *items: Item) -> None:
        for item in items:
            self.catalog.apply(item)
            self.items[item.key] = item

    def announce(self) -> NodeRecord:
        """The record as others read it, after all their checks."""
        item = self.holdings.record()
        self.learn(item)
        record = open_record_untrusted(item, self.cluster, self.plan, Limits())
        check_validity(record, WALL + 1, known=False)
        return record

    def add(self, name: str, address: str = "", now: float = 0.0) -> StoredPod:
        wanted = (IPv6Address if ":" in address else IPv4Address)(address) if address else None
        return self.holdings.add_pod(name, f"/run/netns/{name}", wanted, WALL + now, now)

    def restarted(self) -> Node:
        state = replace(self.holdings.stored(), items=tuple(self.items.values()))
        again = NodeState.from_entries(state.entries())
        return Node(
            0 if self.id == self.cluster.genesis else 1,
            cluster=self.cluster,
            state=NodeState(
                again.boot + 1,
                again.pods,
                again.items,
                blocks_in_use=again.blocks_in_use,
                left=again.left,
            ),
        )


def founder(**arguments: object) -> Node:
    """The founding node with its first block in use."""
    node = Node(**arguments)
    assert node.holdings.use_a_block()
    return node


def refusal(call, *arguments: object) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value


# -- addresses ---------------------------------------------------------------------------------


def test_the_node_has_the_first_address_of_its_first_block() -> None:
    node = founder()
    assert node.holdings.address == IPv4Address("10.244.0.1")
    assert node.holdings.address6 == IPv6Address("fd4d:75:736c::1")
    assert node.holdings.use_a_block()
    assert node.holdings.address == IPv4Address("10.244.0.1")


def test_without_a_block_there_is_no_address() -> None:
    node = Node(1)
    assert not node.holdings.use_a_block()
    assert (node.holdings.address, node.holdings.address6) == (None, None)


def test_a_cluster_without_ipv6_has_no_second_address() -> None:
    node = founder(cluster=make_cluster("10.244.0.0/20", None))
    assert node.holdings.address is not None
    assert node.holdings.address6 is None


def test_blocks_are_owned_free_or_in_use() -> None:
    node = founder()
    assert len(node.holdings.owned()) == 16
    assert node.holdings.free() == list(range(1, 16))
    assert node.holdings.is_outdated()
    node.announce()
    assert not node.holdings.is_outdated()
    node.learn(node.holdings.give(make_identity(1, CLUSTER).node, 7))
    assert node.holdings.is_outdated()


# -- pods --------------------------------------------------------------------------------------


def test_pods_get_the_lowest_free_host() -> None:
    node = founder()
    hosts = [(pod.block, pod.host) for pod in (node.add("a"), node.add("b"))]
    assert hosts == [(0, 2), (0, 3)]
    assert node.holdings.pods["a"] == StoredPod("a", "/run/netns/a", BlockIndex(0), 2, WALL)


@pytest.mark.parametrize("address", ["10.244.0.9", "fd4d:75:736c::9"])
def test_a_pod_may_ask_for_an_address_of_either_family(address: str) -> None:
    pod = founder().add("web", address)
    assert (pod.block, pod.host) == (0, 9)


@pytest.mark.parametrize(
    ("name", "address", "code"),
    [
        ("here", "", "pod-exists"),
        ("new", "10.244.0.2", "address-taken"),
        ("new", "10.244.0.1", "address-taken"),
        ("new", "10.244.0.0", "address-taken"),
        ("new", "10.244.0.255", "address-taken"),
        ("new", "fd4d:75:736c::1", "address-taken"),
        ("new", "10.244.1.2", "address-not-ours"),
        ("new", "192.0.2.1", "address-not-ours"),
        ("new", "fd4d:75:736c::1:2", "address-not-ours"),
    ],
)
def test_a_pod_is_refused_with_a_code_and_nothing_changes(
    name: str, address: str, code: str
) -> None:
    node = founder()
    node.add("here")
    before = node.holdings.stored()
    assert refusal(node.add, name, address).code == code
    assert node.holdings.stored() == before
    assert node.add("next").host == 3


def test_a_pod_needs_a_block() -> None:
    error = refusal(Node(1).add, "web")
    assert (error.code, bool(error.fix)) == ("no-block", True)


def test_pods_are_refused_when_every_owned_block_is_full() -> None:
    node = founder(cluster=SMALL)
    for number in range(20):
        node.add(f"pod{number}")
    assert node.holdings.blocks_in_use == [0, 1, 2, 3]
    assert refusal(node.add, "late").code == "no-free-address"
    assert "late" not in node.holdings.pods


@pytest.mark.parametrize("name", ["", "Upper", "a.b", "-", "x" * 64, "ünicode"])
def test_a_pod_needs_a_name_that_is_one(name: str) -> None:
    node = founder()
    with pytest.raises(ConfigError):
        node.add(name)
    assert node.holdings.pods == {}


@pytest.mark.parametrize("netns", ["/run/\n", "/" * (MAX_NETNS + 1), "/run/\udc80"])
def test_what_could_not_be_read_back_is_not_stored(netns: str) -> None:
    node = founder()
    with pytest.raises(ConfigError) as caught:
        node.holdings.add_pod("web", netns, None, WALL, 0.0)
    assert caught.value.key == "--netns"
    assert node.holdings.pods == {}


def test_a_removed_pods_address_rests_before_another_gets_it() -> None:
    node = founder()
    node.add("old")
    assert node.holdings.remove_pod("old", 10.0).host == 2
    assert node.add("soon", now=11.0).host == 3
    assert node.add("later", now=10.0 + QUARANTINE).host == 2


def test_removing_a_pod_that_is_not_there_says_which_are() -> None:
    node = founder()
    node.add("web")
    error = refusal(node.holdings.remove_pod, "wbe", 0.0)
    assert error.code == "no-such-pod"
    assert "web" in error.fix
    assert "none" in refusal(Node(1).holdings.remove_pod, "web", 0.0).fix


# -- giving ------------------------------------------------------------------------------------


def test_a_given_block_belongs_to_the_taker_as_soon_as_it_is_applied() -> None:
    node, taker = founder(), make_identity(1, CLUSTER).node
    deed = node.holdings.give(taker, 7)
    assert 1 in node.holdings.owned()  # not before it was applied
    node.learn(deed)
    assert block_of_key(deed.key) == 1
    assert node.catalog.titles.blocks_of(taker) == (1,)
    assert node.holdings.free() == list(range(2, 16))


def test_the_same_request_again_gets_the_same_deed() -> None:
    node, taker = founder(), make_identity(1, CLUSTER).node
    deed = node.holdings.give(taker, 7)
    node.learn(deed)
    assert node.holdings.give(taker, 7) == deed
    assert node.restarted().holdings.give(taker, 7) == deed


def test_a_taker_that_uses_its_block_gets_another_but_not_for_the_old_request() -> None:
    node, taker = founder(cluster=SMALL), Node(1, cluster=SMALL)
    deed = node.holdings.give(taker.id, 7)
    node.learn(deed)
    taker.learn(deed)
    assert taker.holdings.use_a_block()
    for pod in "ab":
        taker.add(pod)
    node.learn(taker.holdings.record())
    assert refusal(node.holdings.give, taker.id, 8).code == "has-room"
    taker.add("c")  # the others may rest: more than half of five is enough
    node.learn(taker.holdings.record())
    assert node.holdings.give(taker.id, 7) == deed
    assert block_of_key(node.holdings.give(taker.id, 8).key) == 2


def test_a_member_that_passes_its_block_on_gets_no_other_for_it() -> None:
    node, taker = founder(), Node(1)
    deed = node.holdings.give(taker.id, 7)
    node.learn(deed)
    taker.learn(deed)
    node.learn(taker.holdings.give(make_identity(2, CLUSTER).node, 7))
    assert node.catalog.titles.blocks_of(taker.id) == ()
    assert refusal(node.holdings.give, taker.id, 8).code == "has-room"


def test_the_founder_that_asks_gets_a_block_that_was_given_away_back() -> None:
    giver, taker = Node(1), founder()
    assert refusal(giver.holdings.give, taker.id, 8).code == "no-free-block"
    giver.learn(taker.holdings.give(giver.id, 7))
    assert block_of_key(giver.holdings.give(taker.id, 7).key) == 1


def test_blocks_in_use_are_never_given_and_then_there_are_none() -> None:
    node = founder(cluster=SMALL)
    takers = [make_identity(number, SMALL).node for number in range(1, 5)]
    for taker in takers[:3]:
        node.learn(node.holdings.give(taker, 7))
    assert refusal(node.holdings.give, takers[3], 7).code == "no-free-block"
    assert node.holdings.owned() == {0}


def test_a_leaving_node_signs_everything_over_and_keeps_nothing() -> None:
    giver, leaver = founder(), Node(1)
    leaver.learn(giver.holdings.give(leaver.id, 7))
    leaver.holdings.use_a_block()
    leaver.add("web")
    leaver.announce()
    items = leaver.holdings.hand_back(giver.id)
    leaver.learn(*items)
    assert [block_of_key(item.key) for item in items] == [1]
    assert leaver.holdings.owned() == set()
    assert (leaver.holdings.pods, leaver.holdings.blocks_in_use) == ({}, [])
    record = leaver.announce()
    assert (record.left, record.pods, record.blocks_in_use) == (True, (), ())
    assert record.version == TOMBSTONE == (1 << 64) - 1
    giver.learn(*items)
    assert 1 in giver.holdings.free()
    giver.catalog.check_invariants()


# -- the record --------------------------------------------------------------------------------


def test_the_record_says_what_the_node_holds() -> None:
    node = founder()
    node.holdings.endpoints = (HERE,)
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
    node.holdings.endpoints = tuple(Endpoint(f"192.0.2.{n}", 1) for n in range(1, 41))
    assert node.announce().endpoints == node.holdings.endpoints[:ENDPOINTS_MAX]


def test_versions_grow_over_restarts_even_when_the_last_ones_were_never_stored() -> None:
    node = founder()
    state = node.holdings.stored()
    versions = [node.announce().version for _ in range(3)]
    # The crash: what `state` holds is all that is left.
    again = Node(state=NodeState(state.boot + 1, blocks_in_use=state.blocks_in_use))
    versions += [again.announce().version for _ in range(2)]
    assert versions == sorted(set(versions))
    assert [version >> 32 for version in versions] == [1, 1, 1, 2, 2]


def test_versions_go_on_from_a_record_of_this_node_that_is_newer_than_its_state() -> None:
    node = founder()
    backup = node.holdings.stored()
    later = node.restarted().restarted().announce().version
    restored = Node(state=NodeState(backup.boot + 1, blocks_in_use=backup.blocks_in_use))
    restored.announce()
    assert restored.holdings.versions.overtaken_by() is None
    restored.learn(sign_record(restored.identity, version=later))
    assert restored.holdings.versions.overtaken_by() is not None
    assert restored.announce().version == later + 1
    assert restored.holdings.versions.overtaken_by() is None


def test_a_record_of_another_machine_can_be_followed_or_left_behind() -> None:
    node = founder()
    node.learn(sign_record(node.identity, version=7 << 32 | 9))
    node.holdings.versions.follow(node.holdings.versions.overtaken_by())
    assert node.holdings.versions.overtaken_by() is None
    assert node.announce().version == 7 << 32 | 10
    node.learn(sign_record(node.identity, version=9 << 32))
    assert node.holdings.versions.raise_boot() == 10
    assert node.announce().version == 10 << 32 | 1
    assert node.holdings.versions.raise_boot() == 11


def test_what_another_machine_said_is_signed_again_with_the_flag() -> None:
    node = founder()
    pods = (PodEntry("web", BlockIndex(3), 2, WALL),)
    other = NodeRecord(
        node.identity.certificate, 5, (HERE,), (BlockIndex(3),), free_blocks=4, pods=pods
    )
    item = node.holdings.record(conflict=True, content=other)
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
    rest_all(node.holdings.allocator, pods, QUARANTINE, 10.0)
    assert node.holdings.blocks_in_use == [0, 1]
    assert {rest.slot for rest in node.holdings.allocator.resting(10.0)} == {(0, 4), (1, 3)}


def test_addresses_rest_on_across_a_restart_and_a_clock_that_was_set() -> None:
    node = founder()
    node.add("web", now=10.0)
    node.holdings.remove_pod("web", 10.0)
    state = node.holdings.stored(epoch=WALL)
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
    assert restored.holdings.versions.overtaken_by() is None
    assert restored.holdings.record().version == (1 << 32) + 1


def test_pods_leave_room_in_the_record_for_what_changes_without_being_asked() -> None:
    node = founder(limits=Limits(record=2000))
    names = (f"a-pod-with-a-long-name-{number}" for number in range(200))
    while node.holdings.has_room():
        node.add(next(names))
    assert 10 < len(node.holdings.pods) < 200
    node.holdings.endpoints = (HERE,)
    assert node.announce().endpoints == (HERE,)


def test_a_record_over_the_limit_is_not_made() -> None:
    node = founder(limits=Limits(record=700))
    node.announce()
    for number in range(20):
        node.add(f"a-pod-with-a-long-name-{number}")
    with pytest.raises(CapacityError) as caught:
        node.holdings.record()
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


class HoldingsMachine(RuleBasedStateMachine):
    """Two nodes give, take, use, restart, in any order; no address and no block has two owners."""

    names = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])

    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Node(0, cluster=SMALL), Node(1, cluster=SMALL)]
        self.now = 0.0
        self.requests = 0
        self.versions: dict[bytes, int] = {}

    def share(self, *items: Item) -> None:
        for node in self.nodes:
            node.learn(*items)

    @rule(which=st.integers(0, 1))
    def use(self, which: int) -> None:
        self.nodes[which].holdings.use_a_block()

    @rule(which=st.integers(0, 1))
    def announce(self, which: int) -> None:
        item = self.nodes[which].holdings.record()
        assert item.version > self.versions.get(item.key, 0)
        self.versions[item.key] = item.version
        self.share(item)

    @rule(giver=st.integers(0, 1))
    def give(self, giver: int) -> None:
        self.requests += 1
        with suppress(RefusedError):
            self.share(self.nodes[giver].holdings.give(self.nodes[1 - giver].id, self.requests))

    @rule(which=st.integers(0, 1), name=names, passed=st.floats(0, 40))
    def add(self, which: int, name: str, passed: float) -> None:
        self.now += passed
        node = self.nodes[which]
        before = dict(node.holdings.pods)
        try:
            node.add(name, now=self.now)
        except OverlayError:
            assert node.holdings.pods == before

    @rule(which=st.integers(0, 1), name=names)
    def remove(self, which: int, name: str) -> None:
        if name in self.nodes[which].holdings.pods:
            self.nodes[which].holdings.remove_pod(name, self.now)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.nodes[which] = self.nodes[which].restarted()

    @invariant()
    def everything_has_one_owner(self) -> None:
        first, second = (node.holdings for node in self.nodes)
        assert not first.owned() & second.owned()
        for holdings in (first, second):
            assert set(holdings.blocks_in_use) <= holdings.owned()
            slots = [(pod.block, pod.host) for pod in holdings.pods.values()]
            assert len(set(slots)) == len(slots)
            assert {block for block, _ in slots} <= set(holdings.blocks_in_use)


TestHoldingsMachine = HoldingsMachine.TestCase
TestHoldingsMachine.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
