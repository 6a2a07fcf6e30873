from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from node.kernel.errors import KernelError
from node.kernel.netlink import Netlink
from node.kernel.overlap import HostRoute
from node.kernel.survey import explained
from tests.support.namespace import Namespace, ip
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL


def test_what_the_kernel_says_names_what_was_done() -> None:
    with pytest.raises(KernelError) as caught, explained("making a link"):
        raise NetlinkError(1, "Not Allowed Here.")
    assert caught.value.why == "making a link: not Allowed Here"
    with pytest.raises(KernelError, match="making a link"), explained("making a link"):
        raise PermissionError(1, "Operation not permitted")


def test_a_machine_without_a_way_to_others_has_no_address_for_them() -> None:
    def work() -> None:
        with Netlink() as netlink:
            ip("link set lo mtu 60000 up")
            assert netlink.local_addresses() == []
            assert netlink.underlay_mtu() is None

    with Namespace() as namespace:
        namespace.run(work)


def test_what_the_kernel_takes_for_its_own_is_seen_single_addresses_and_ranges() -> None:
    def work() -> None:
        ip(
            "link set lo up",
            "link add a0 type veth peer name b0",
            "link set b0 up",
            "link set a0 addrgenmode none up",
            "addr add 192.0.2.1/24 dev a0",
            "addr add 2001:db8::1/64 dev a0 nodad",
            "route add local 198.51.100.0/24 dev lo",
            "route add 203.0.113.0/24 dev a0",
            "link add c0 type veth peer name d0",
            "addr add 192.0.2.9/24 dev c0",
        )
        with Netlink() as netlink:
            held = set(map(str, netlink.held_prefixes()))
        single = {"127.0.0.1/32", "192.0.2.1/32", "192.0.2.9/32", "::1/128", "2001:db8::1/128"}
        assert held - {one for one in held if one.startswith("fe80")} == {
            *single,
            "127.0.0.0/8",
            "198.51.100.0/24",
        }, "on a link that is down as well; not what is broadcast"

    with Namespace() as namespace:
        namespace.run(work)


def test_the_machines_own_routes_and_addresses_are_seen() -> None:
    def work() -> None:
        ip(
            "link add a0 mtu 1400 type veth peer name b0",
            "link set b0 up",
            "link set a0 up",
            "addr add 192.0.2.1/24 dev a0",
            "addr add 198.51.100.1/24 dev b0",
            "route add default via 198.51.100.9",
            "route add 203.0.113.0/24 dev a0 proto 109",
            "link add c0 type veth peer name d0",
            "addr add 192.0.2.9/24 dev c0",
        )
        with Netlink() as netlink:
            assert set(map(str, netlink.local_addresses())) == {"192.0.2.1", "198.51.100.1"}
            assert netlink.local_addresses()[0] == ip_address("198.51.100.1")
            assert netlink.underlay_mtu([ip_network("198.51.100.0/24")]) == 1400
            routes = netlink.host_routes()
            assert HostRoute(ip_network("192.0.2.0/24"), "a0") in routes
            assert not any(route.prefix == ip_network("203.0.113.0/24") for route in routes)

    with Namespace() as namespace:
        namespace.run(work)
