"""Tests of overlay.wire.routes."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import ConfigError, WireError
from overlay.types import Prefix
from overlay.wire.packing import Fields
from overlay.wire.routes import (
    ROUTES_MAX,
    check_outside,
    pack_routes,
    routes_untrusted,
    sort_routes,
)
from tests.support.clusters import make_cluster

prefixes = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(
        lambda pair: IPv4Network(pair, strict=False)
    ),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(1, 128)).map(
        lambda pair: IPv6Network(pair, strict=False)
    ),
)


def read(value: object) -> tuple[Prefix, ...]:
    return routes_untrusted(Fields([value], "test"), 0)


@given(st.lists(prefixes, max_size=ROUTES_MAX))
def test_what_is_sorted_and_packed_is_read_back(given_routes: list[Prefix]) -> None:
    routes = sort_routes(given_routes)
    assert set(routes) == set(given_routes)
    assert read(pack_routes(routes)) == routes


@given(st.lists(prefixes, min_size=2, max_size=ROUTES_MAX, unique=True), st.randoms())
def test_another_order_is_refused(routes: list[Prefix], rng) -> None:
    shuffled = list(routes)
    rng.shuffle(shuffled)
    if tuple(shuffled) == sort_routes(routes):
        assert read(pack_routes(shuffled)) == tuple(shuffled)
        return
    with pytest.raises(WireError, match="order"):
        read(pack_routes(shuffled))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [b""],
        [bytes(6)],
        [bytes(18)],
        ["x"],
        [b"\x0a\0\0\0\x21"],
        [b"\x0a\0\0\1\x08"],
        [bytes(5)],
        [bytes(17)],
        [b"\x0a\0\0\0\x08"] * 2,
        [bytes([net, 0, 0, 0, 8]) for net in range(1, 10)],
    ],
)
def test_what_is_no_list_of_outside_routes_is_refused(value: object) -> None:
    with pytest.raises(WireError):
        read(value)


@pytest.mark.parametrize("text", ["10.244.0.0/16", "10.244.9.0/24", "10.0.0.0/8", "fd4d::/16"])
def test_routes_that_overlap_the_cluster_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="overlaps the cluster's own range"):
        check_outside([ip_network(text)], make_cluster())


def test_other_routes_are_outside() -> None:
    check_outside([ip_network("10.245.0.0/16"), ip_network("fd4e::/16")], make_cluster())
    check_outside([ip_network("fd4d::/16")], make_cluster(cidr6=None))
