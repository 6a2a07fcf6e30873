"""Tests of overlay.tenants: pods of runtimes, and addresses that are reserved for them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from overlay.attachment import Attachment, HostPort
from overlay.config import Timing
from overlay.errors import ConfigError, RefusedError
from overlay.ipam.allocator import Allocator
from overlay.ipam.plan import BlockPlan
from overlay.state import StoredPod
from overlay.tenants import Tenants
from overlay.types import BlockIndex
from tests.support.clusters import make_cluster

PLAN = BlockPlan(make_cluster("10.1.0.0/24", "fd00::/48", block_prefix=29))  # blocks of 5 pods
QUARANTINE = Timing().quarantine
FIRST = ip_address("10.1.0.2")


def tenants(*, pods=(), reserved=()) -> Tenants:
    allocator = Allocator(PLAN, QUARANTINE)
    allocator.add_block(BlockIndex(0))
    return Tenants(PLAN, allocator, pods, reserved)


def add(held: Tenants, name: str, address="", owner="docker", now=0.0, **said) -> StoredPod:
    attachment = Attachment(**said)
    held.check(name, "", owner, attachment)
    wanted = ip_address(address) if address else None
    block, host = held.take(name, wanted, owner, now)
    return held.add(StoredPod(name, "", block, host, 0, owner, "", attachment))


def code(function, *args, **kwargs) -> str:
    with pytest.raises(RefusedError) as caught:
        function(*args, **kwargs)
    return caught.value.code


def test_a_pod_is_found_by_its_container_and_interface_until_it_is_removed() -> None:
    held = tenants()
    first = add(held, "a", container="c1")
    second = add(held, "b", container="c1", interface="net1")
    assert held.pod_of("c1", "eth0") == first
    assert held.pod_of("c1", "net1") == second
    assert held.pod_of("c2", "eth0") is held.pod_of("", "eth0") is None
    assert code(add, held, "c", container="c1") == "exists"
    held.remove("a", 0.0)
    assert held.pod_of("c1", "eth0") is None
    assert add(held, "c", container="c1") == held.pod_of("c1", "eth0")
    held.check_invariants()


def test_pods_of_persons_have_no_container_and_may_be_many() -> None:
    held = tenants()
    add(held, "a", owner="cli")
    add(held, "b", owner="cli")
    held.check_invariants()


def test_a_node_has_one_network_for_each_owner() -> None:
    held = tenants()
    add(held, "a", owner="cni", network="pods")
    assert code(add, held, "b", owner="cni", network="other") == "other-network"
    add(held, "b", owner="docker", network="other")
    add(held, "c", owner="cni")
    held.remove("a", 0.0)
    add(held, "d", owner="cni", network="other")


def test_a_port_of_the_node_leads_to_one_pod() -> None:
    held = tenants()
    add(held, "a", ports=(HostPort("tcp", 80, 8080),))
    assert code(add, held, "b", ports=(HostPort("tcp", 80, 80, "192.0.2.1"),)) == "port-taken"
    add(held, "b", ports=(HostPort("udp", 80, 80),))
    held.remove("a", 0.0)
    add(held, "c", ports=(HostPort("tcp", 80, 80),))


@pytest.mark.parametrize("owner", ["", "o" * 129, "a\n"])
def test_an_owner_has_a_name(owner: str) -> None:
    held = tenants()
    with pytest.raises(ConfigError):
        add(held, "a", owner=owner)
    with pytest.raises(ConfigError):
        held.reserve(owner, None, 0.0, 0.0)
    assert held.pods == held.reserved == {}


def test_a_reserved_address_is_for_a_pod_of_its_owner_that_names_it() -> None:
    held = tenants()
    reserved = held.reserve("docker", None, 7.9, 0.0)
    assert (reserved.owner, reserved.host, reserved.since) == ("docker", 2, 7)
    assert held.holder_of(reserved) == ""
    assert add(held, "other").host == 3
    assert code(add, held, "mine", str(FIRST), owner="cli") == "address-taken"
    assert code(held.reserve, "docker", FIRST, 0.0, 0.0) == "address-taken"
    assert add(held, "web", "fd00::2").host == 2  # of either family
    assert held.holder_of(reserved) == "web"
    assert code(add, held, "late", str(FIRST)) == "address-taken"
    held.check_invariants()


def test_the_address_of_a_deleted_pod_is_its_reservations_again() -> None:
    held = tenants()
    held.reserve("docker", FIRST, 0.0, 0.0)
    for name in ("a", "b"):  # no rest: the owner says which pod has it
        add(held, name, str(FIRST))
        held.remove(name, 0.0)
        held.check_invariants()
    assert add(held, "c").host == 3


@pytest.mark.parametrize("first", ["pod", "reservation"])
def test_an_address_rests_once_both_pod_and_reservation_are_gone(first: str) -> None:
    held = tenants()
    held.reserve("docker", FIRST, 0.0, 0.0)
    add(held, "web", str(FIRST))
    ends = [lambda: held.remove("web", 1.0), lambda: held.release("docker", FIRST, 1.0)]
    for end in ends if first == "pod" else reversed(ends):
        assert code(add, held, "other", str(FIRST), owner="cli") == "address-taken"
        end()
    held.check_invariants()
    assert code(add, held, "other", str(FIRST), now=2.0) == "address-taken"
    assert add(held, "other", str(FIRST), now=1.0 + QUARANTINE).host == 2


def test_the_same_owner_gets_an_address_again_that_it_names() -> None:
    held = tenants()
    held.reserve("docker", FIRST, 0.0, 0.0)
    assert held.release("docker", FIRST, 0.0)
    assert held.reserve("docker", None, 0.0, 1.0).host == 3
    assert code(held.reserve, "podman", FIRST, 0.0, 1.0) == "address-taken"
    assert held.reserve("docker", FIRST, 0.0, 1.0).host == 2


def test_only_its_owner_ends_a_reservation_and_twice_is_fine() -> None:
    held = tenants()
    held.reserve("docker", FIRST, 0.0, 0.0)
    assert not held.release("cni", FIRST, 0.0)
    assert not held.release("docker", ip_address("192.0.2.1"), 0.0)
    assert held.release("docker", ip_address("fd00::2"), 0.0)
    assert not held.release("docker", FIRST, 0.0)


def test_an_address_outside_the_cluster_cannot_be_reserved() -> None:
    held = tenants()
    assert code(held.reserve, "docker", ip_address("203.0.113.1"), 0.0, 0.0) == "address-not-ours"
    assert not held.reserved


def test_there_are_as_many_reservations_as_addresses() -> None:
    held = tenants()
    for _ in range(PLAN.capacity):
        held.reserve("docker", None, 0.0, 0.0)
    assert code(held.reserve, "docker", None, 0.0, 0.0) == "no-free-address"
    held.check_invariants()


def test_nothing_is_given_of_a_block_that_is_lost_reserved_or_not() -> None:
    allocator = Allocator(PLAN, QUARANTINE)
    allocator.add_block(BlockIndex(0))
    held = Tenants(PLAN, allocator, (), ())
    held.reserve("docker", FIRST, 0.0, 0.0)
    allocator.close_all_but(())
    assert code(add, held, "web", str(FIRST)) == "address-not-ours"


def test_pods_and_reservations_are_as_before_after_a_restart() -> None:
    held = tenants()
    held.reserve("docker", FIRST, 0.0, 0.0)
    held.reserve("docker", None, 0.0, 0.0)
    add(held, "web", str(FIRST), container="c1")
    again = tenants(pods=held.pods.values(), reserved=held.reserved.values())
    again.check_invariants()
    assert (again.pods, again.reserved) == (held.pods, held.reserved)
    assert again.pod_of("c1", "eth0") == held.pods["web"]
    again.remove("web", 0.0)
    assert code(add, again, "other", str(FIRST), owner="cli") == "address-taken"


def test_all_is_forgotten_when_the_node_leaves() -> None:
    held = tenants()
    held.reserve("docker", None, 0.0, 0.0)
    add(held, "web", container="c1")
    held.clear()
    assert (held.pods, held.reserved, held.pod_of("c1", "eth0")) == ({}, {}, None)
    held.check_invariants()
