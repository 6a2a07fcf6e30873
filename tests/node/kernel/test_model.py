from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from node.kernel.model import Route, default_metric, is_veth_name, peer_name, veth_name
from tests.support.kernel import held, route


@given(st.text(max_size=80))
def test_every_pod_name_gives_a_valid_interface_name(pod: str) -> None:
    link = veth_name(pod)
    assert is_veth_name(link)
    assert not is_veth_name(peer_name(pod))
    assert len(peer_name(pod)) == len(link)
    assert len(link) <= 15
    assert link.isascii()
    assert "/" not in link


def test_interfaces_of_others_are_not_taken_for_veths() -> None:
    for link in (
        "music0",
        "mus",
        "muslin0",
        "eth0",
        "mus0123456789a",
        "musABCDEF0123",
        "xmus0123456789",
    ):
        assert not is_veth_name(link)


def test_different_pods_have_different_veths() -> None:
    assert len({veth_name(f"pod{number}") for number in range(2000)}) == 2000


def test_each_family_has_the_kernels_own_default_metric() -> None:
    assert default_metric(ip_network("10.0.0.0/8")) == 0
    assert default_metric(ip_network("fd00::/8")) == 1024


def test_things_read_as_ip_route_writes_them() -> None:
    assert str(Route(ip_network("10.0.0.0/8"))) == "unreachable 10.0.0.0/8"
    assert str(route("10.0.0.0/8", "muslin0")) == "route 10.0.0.0/8 dev muslin0"
    assert str(held("muslin0", "10.0.0.1/32")) == "address 10.0.0.1/32 on muslin0"
