"""Tests of overlay.holdings: addresses, pods, and blocks that are given."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overlay.catalog.keys import block_of_key
from overlay.config import Timing
from overlay.errors import ConfigError, OverlayError, RefusedError
from overlay.state import MAX_NETNS, StoredPod
from overlay.types import BlockIndex
from overlay.versions import TOMBSTONE
from overlay.wire.items import Item
from tests.support.clusters import WALL, make_cluster, make_identity
from tests.support.holders import CLUSTER, SMALL, Node, founder, refusal

QUARANTINE = Timing().quarantine


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
    assert node.record.is_outdated()
    node.announce()
    assert not node.record.is_outdated()
    node.learn(node.holdings.give(make_identity(1, CLUSTER).node, 7))
    assert node.record.is_outdated()


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
    before = node.stored()
    assert refusal(node.add, name, address).code == code
    assert node.stored() == before
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
    node.learn(taker.record.make())
    assert refusal(node.holdings.give, taker.id, 8).code == "has-room"
    taker.add("c")  # the others may rest: more than half of five is enough
    node.learn(taker.record.make())
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


# -- everything in any order -------------------------------------------------------------------


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
        item = self.nodes[which].record.make()
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
