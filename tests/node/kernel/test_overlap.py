from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from node.kernel.overlap import HostRoute, find_overlap
from overlay.types import Prefix

CLUSTER = [ip_network("10.244.0.0/16"), ip_network("fd12::/48")]


def overlap_of(prefix: str, *, leads_nowhere: bool = False) -> object:
    return find_overlap([HostRoute(ip_network(prefix), "eth0", leads_nowhere)], CLUSTER)


def test_routes_inside_around_and_equal_to_a_range_overlap() -> None:
    for prefix in ("10.244.7.0/24", "10.0.0.0/8", "10.244.0.0/16", "fd12:0:0:5::/64", "fd00::/8"):
        assert overlap_of(prefix) is not None


def test_neighbours_do_not_overlap() -> None:
    for prefix in ("10.245.0.0/16", "10.243.255.0/24", "192.168.0.0/16", "fe80::/64", "fd13::/48"):
        assert overlap_of(prefix) is None


def test_default_routes_do_not_overlap_in_one_piece_or_in_halves() -> None:
    for prefix in ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "8000::/1"):
        assert overlap_of(prefix) is None


def test_routes_that_lead_nowhere_have_nothing_to_lose() -> None:
    assert overlap_of("10.0.0.0/8", leads_nowhere=True) is None


prefixes = st.tuples(st.integers(0, 2**16 - 1), st.integers(2, 16)).map(
    lambda pair: ip_network((pair[0] << 16, pair[1]), strict=False)
)


@given(st.lists(prefixes, max_size=5), prefixes)
def test_overlap_means_that_an_address_is_in_both(routes: list[Prefix], wanted: Prefix) -> None:
    found = find_overlap([HostRoute(prefix, "eth0") for prefix in routes], [wanted])
    shared = [
        prefix
        for prefix in routes
        if wanted.network_address in prefix or prefix.network_address in wanted
    ]
    assert (found is not None) == bool(shared)
    if found is not None:
        assert found[0].prefix == shared[0]


def test_the_route_is_shown_as_ip_route_writes_it() -> None:
    assert str(HostRoute(ip_network("10.0.0.0/8"), "eth0")) == "10.0.0.0/8 dev eth0"
    assert str(HostRoute(ip_network("10.0.0.0/8"), "")) == "10.0.0.0/8"
