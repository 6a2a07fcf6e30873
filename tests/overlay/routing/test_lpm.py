"""Tests of overlay.routing.lpm: the fast match is the slow one."""

from __future__ import annotations

import random
import timeit
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.routing.lpm import CACHE_SIZE, IPV4_BITS, IPV6_BITS, LongestPrefixMatch
from overlay.routing.slow import SlowMatch
from overlay.types import Prefix

Target = TypeVar("Target")

NETWORKS = {IPV4_BITS: IPv4Network, IPV6_BITS: IPv6Network}


def prefixes(bits: int) -> st.SearchStrategy[Prefix]:
    """Prefixes that often contain each other: few different leading bits, any length."""
    lengths = st.one_of(st.sampled_from([0, bits, bits // 2]), st.integers(0, bits))
    leading = st.sampled_from([0, 1, 2**8 - 1, 2**8 - 2])

    def build(length: int, high: int, low: int) -> Prefix:
        value = (high << (bits - 8)) | low
        return NETWORKS[bits]((value >> (bits - length) << (bits - length), length))

    return st.builds(build, lengths, leading, st.integers(0, 3))


def addresses(bits: int) -> st.SearchStrategy[int]:
    near = st.builds(
        lambda high, low: (high << (bits - 8)) | low,
        st.sampled_from([0, 1, 2**8 - 1, 2**8 - 2]),
        st.integers(0, 4),
    )
    return st.one_of(near, st.integers(0, 2**bits - 1))


def itself(target: Target) -> Target:
    return target


@pytest.mark.parametrize("bits", [IPV4_BITS, IPV6_BITS])
@settings(max_examples=60)
@given(data=st.data())
def test_it_finds_what_the_slow_one_finds(bits: int, data: st.DataObject) -> None:
    fast: LongestPrefixMatch[int, int] = LongestPrefixMatch(bits, itself)
    slow: SlowMatch[int] = SlowMatch()
    actions = st.tuples(st.sampled_from(["insert", "insert", "remove"]), prefixes(bits))
    for step, (action, prefix) in enumerate(data.draw(st.lists(actions, max_size=12))):
        if action == "insert":
            fast.insert(prefix, step)
            slow.insert(prefix, step)
        else:
            fast.remove(prefix)
            slow.remove(prefix)
        for address in data.draw(st.lists(addresses(bits), max_size=4)):
            assert fast.lookup(address) == slow.lookup(address)
            assert fast.lookup(address) == slow.lookup(address), "cached"
        fast.check_invariants()


@pytest.mark.parametrize("bits", [IPV4_BITS, IPV6_BITS])
@settings(max_examples=40)
@given(data=st.data())
def test_items_gives_back_what_was_put_in(bits: int, data: st.DataObject) -> None:
    routes = data.draw(st.dictionaries(prefixes(bits), st.integers(), max_size=10))
    match: LongestPrefixMatch[int, int] = LongestPrefixMatch(bits, itself)
    half = NETWORKS[bits]((1 << (bits - 1), 1))
    match.insert(half, -1)
    match.update(routes.items(), [half] if half not in routes else [])
    match.check_invariants()
    assert dict(match.items()) == routes
    assert len(match) == len(routes)


def test_items_come_longest_first_then_by_address() -> None:
    match: LongestPrefixMatch[str, str] = LongestPrefixMatch(IPV4_BITS, itself)
    for text in ("10.1.0.0/16", "0.0.0.0/0", "10.0.0.0/16", "10.1.2.3/32"):
        match.insert(ip_network(text), text)
    expected = ["10.1.2.3/32", "10.0.0.0/16", "10.1.0.0/16", "0.0.0.0/0"]
    assert [target for _, target in match.items()] == expected


def test_a_change_is_seen_by_addresses_that_were_cached() -> None:
    match: LongestPrefixMatch[str, str] = LongestPrefixMatch(IPV4_BITS, itself)
    match.insert(ip_network("0.0.0.0/0"), "old")
    assert match.lookup(5) == "old"
    match.insert(ip_network("0.0.0.0/8"), "new")
    assert match.lookup(5) == "new"
    match.remove(ip_network("0.0.0.0/8"))
    assert match.lookup(5) == "old"
    match.update([], [prefix for prefix, _ in match.items()])
    assert match.lookup(5) is None


def test_a_lookup_answers_with_part_of_the_target_and_get_with_all_of_it() -> None:
    match: LongestPrefixMatch[tuple[str, float], str] = LongestPrefixMatch(
        IPV4_BITS, lambda target: target[0]
    )
    match.insert(ip_network("10.0.0.0/8"), ("a", 1.0))
    assert [match.lookup(10 << 24), match.lookup(10 << 24)] == ["a", "a"]
    assert match.get(ip_network("10.0.0.0/8")) == ("a", 1.0)
    assert match.get(ip_network("10.0.0.0/9")) is None
    match.check_invariants()


def test_the_cache_is_bounded() -> None:
    match: LongestPrefixMatch[str, str] = LongestPrefixMatch(IPV6_BITS, itself)
    match.insert(ip_network("::/0"), "all")
    for address in range(CACHE_SIZE + 10):
        assert match.lookup(address) == "all"
    match.check_invariants()


def test_a_lookup_in_a_typical_table_is_fast() -> None:
    """0.1 us on an idle machine; the bound is loose, because the machine may be busy."""
    rng = random.Random(7)
    match: LongestPrefixMatch[object, object] = LongestPrefixMatch(IPV4_BITS, itself)
    match.update([(ip_network((i << 8, 24)), object()) for i in range(256)], [])
    known = [rng.getrandbits(16) for _ in range(1000)]

    def all_of_them(lookup: Callable[[int], object] = match.lookup) -> None:
        for address in known:
            lookup(address)

    assert min(timeit.repeat(all_of_them, number=5, repeat=5)) / 5 / len(known) < 1e-6
