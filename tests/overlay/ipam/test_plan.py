"""Tests of overlay.ipam.plan."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.ipam.plan import FIRST_POD_HOST, NODE_HOST, BlockPlan
from overlay.types import BlockIndex
from tests.support.clusters import make_cluster

PLAN = BlockPlan(make_cluster("10.244.0.0/16", "fd4d:75::/48"))


def test_the_usual_cluster_has_256_blocks_of_253_pods() -> None:
    assert (PLAN.blocks, PLAN.capacity, PLAN.last_pod_host) == (256, 253, 254)
    assert (NODE_HOST, FIRST_POD_HOST) == (1, 2)


def test_a_block_is_an_ipv4_and_an_ipv6_prefix() -> None:
    assert PLAN.prefix4(BlockIndex(0)) == IPv4Network("10.244.0.0/24")
    assert PLAN.prefix4(BlockIndex(255)) == IPv4Network("10.244.255.0/24")
    assert PLAN.prefix6(BlockIndex(0)) == IPv6Network("fd4d:75::/64")
    assert PLAN.prefix6(BlockIndex(255)) == IPv6Network("fd4d:75:0:ff::/64")


def test_a_host_number_is_an_address_in_both() -> None:
    assert PLAN.address4(BlockIndex(3), 9) == IPv4Address("10.244.3.9")
    assert PLAN.address6(BlockIndex(3), 9) == IPv6Address("fd4d:75:0:3::9")


def test_without_ipv6_there_are_no_ipv6_addresses() -> None:
    plan = BlockPlan(make_cluster(cidr6=None))
    assert plan.prefix6(BlockIndex(1)) is None
    assert plan.address6(BlockIndex(1), 1) is None
    assert plan.index_of(IPv6Address("fd00::1")) is None
    assert plan.host_of(IPv6Address("fd00::1")) is None


@given(data=st.data())
def test_addresses_lead_back_to_block_and_host(data: st.DataObject) -> None:
    ranges = [("10.0.0.0/8", "fd00::/48", 24), ("192.168.4.0/22", "fd00::/60", 26)]
    cidr, cidr6, block_prefix = data.draw(st.sampled_from([*ranges, ("10.1.0.0/28", None, 30)]))
    plan = BlockPlan(make_cluster(cidr, cidr6, block_prefix))
    index = BlockIndex(data.draw(st.integers(0, plan.blocks - 1)))
    host = data.draw(st.integers(0, (1 << plan.host_bits) - 1))
    for address, prefix in (
        (plan.address4(index, host), plan.prefix4(index)),
        (plan.address6(index, host), plan.prefix6(index)),
    ):
        if address is not None:
            assert prefix is not None
            assert address in prefix
            assert (plan.index_of(address), plan.host_of(address)) == (index, host)


@given(st.ip_addresses())
def test_index_of_agrees_with_the_prefixes(address: IPv4Address | IPv6Address) -> None:
    index = PLAN.index_of(address)
    inside = address in IPv4Network("10.244.0.0/16") or address in IPv6Network("fd4d:75::/56")
    assert (index is not None) == inside


@pytest.mark.parametrize(
    "outside", ["10.243.255.255", "10.245.0.0", "fd4d:74:ffff:ffff::", "fd4d:75:0:100::"]
)
def test_neighbours_of_the_range_are_in_no_block(outside: str) -> None:
    address = IPv6Address(outside) if ":" in outside else IPv4Address(outside)
    assert PLAN.index_of(address) is None
    assert PLAN.host_of(address) is None


def test_an_ipv6_host_without_ipv4_twin_is_no_host() -> None:
    assert PLAN.host_of(IPv6Address("fd4d:75:0:3::ff")) == 255
    assert PLAN.host_of(IPv6Address("fd4d:75:0:3::100")) is None


def test_pods_get_neither_network_node_nor_broadcast() -> None:
    assert [host for host in range(256) if not PLAN.is_pod_host(host)] == [0, 1, 255]


def test_the_smallest_block_holds_one_pod() -> None:
    plan = BlockPlan(make_cluster("10.1.0.0/28", None, 30))
    assert (plan.blocks, plan.capacity) == (4, 1)


@pytest.mark.parametrize("index", [-1, 256])
def test_a_block_out_of_range_is_a_callers_defect(index: int) -> None:
    assert index not in PLAN
    with pytest.raises(IndexError):
        PLAN.prefix4(BlockIndex(index))
    with pytest.raises(IndexError):
        PLAN.address6(BlockIndex(index), 1)


def test_what_it_remembers_is_bounded_and_makes_no_difference() -> None:
    plan, forgetful = PLAN, BlockPlan(make_cluster("10.244.0.0/16", "fd4d:75::/48"), remember=2)
    for index in (*range(5), 0):
        block = BlockIndex(index)
        assert forgetful.prefix4(block) == plan.prefix4(block)
        assert forgetful.prefix6(block) == plan.prefix6(block)
        assert max(len(forgetful._made4), len(forgetful._made6)) <= 2
