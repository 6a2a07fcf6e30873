from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from node.kernel import messages
from node.kernel.model import Link, Route
from tests.support.kernel import held, route

NAMES = {1: "lo", 7: "muslin0"}


class Message(dict[str, object]):
    """A netlink message as pyroute2 hands it over."""

    def __init__(self, header: Mapping[str, object], **attributes: object) -> None:
        super().__init__(header)
        self.attributes = attributes

    def get_attr(self, name: str) -> object:
        return self.attributes.get(name)


def test_a_link_is_read_with_all_its_attributes() -> None:
    message = Message(
        {"index": 7, "flags": 1, "ifname": "muslin0"},
        IFLA_MTU=1500,
        IFLA_GSO_MAX_SIZE=62000,
        IFLA_TXQLEN=256,
    )
    assert messages.parse_link(message) == Link("muslin0", True, 1500, 62000, 256, None)
    assert messages.link_names([message]) == {7: "muslin0"}
    assert messages.is_up(message)
    assert not messages.is_loopback(message)


def advertised(value: int, flags: int = 1) -> bool:
    settings = Message({}, IFLA_INET6_CONF={"accept_ra": value})
    families = Message({}, AF_INET6=settings)
    return messages.takes_advertisements(Message({"flags": flags}, IFLA_AF_SPEC=families))


def test_only_accept_ra_1_is_lost_by_forwarding() -> None:
    assert [advertised(value) for value in (0, 1, 2)] == [False, True, False]
    assert not advertised(1, messages.IFF_LOOPBACK)
    assert not messages.takes_advertisements(Message({"flags": 1}))


def test_an_address_on_a_point_to_point_link_is_the_near_end() -> None:
    message = Message(
        {"index": 7, "prefixlen": 32, "scope": 0, "flags": 128},
        IFA_ADDRESS="10.0.0.9",
        IFA_LOCAL="10.0.0.1",
    )
    assert messages.parse_address(message, NAMES) == (held("muslin0", "10.0.0.1/32"), True)


def for_peers(address: str, scope: int = 0, flags: int = 128) -> bool:
    header = {"index": 7, "prefixlen": 32, "scope": scope, "flags": flags & 0xFF}
    message = Message(header, IFA_ADDRESS=address, IFA_FLAGS=flags)
    return messages.parse_address(message, NAMES).for_peers


def test_only_lasting_global_usable_addresses_are_for_peers() -> None:
    assert for_peers("2001:db8::1")
    assert not for_peers("fe80::1", scope=253)
    assert not for_peers("169.254.3.4")
    assert not for_peers("::1", scope=254)
    for flag in (0x01, 0x08, 0x20, 0x40):
        assert not for_peers("2001:db8::1", flags=flag)


def test_routes_are_read_with_and_without_a_destination() -> None:
    header = {"family": 10, "dst_len": 0, "type": 1, "proto": 109}
    message = Message(header, RTA_OIF=7, RTA_GATEWAY="fe80::1", RTA_PRIORITY=1024)
    expected = Route(ip_network("::/0"), "muslin0", gateway=ip_address("fe80::1"), metric=1024)
    assert messages.parse_route(message, NAMES) == expected
    unreachable = Message({"family": 2, "dst_len": 8, "type": 7}, RTA_DST="10.0.0.0", RTA_OIF=1)
    assert messages.parse_route(unreachable, NAMES) == route("10.0.0.0/8")
    assert messages.parse_host_route(unreachable, NAMES).leads_nowhere


routes = st.builds(
    route,
    st.sampled_from(["10.0.0.0/8", "10.1.2.3/32", "0.0.0.0/0"]),
    st.sampled_from(["", "muslin0"]),
    source=st.sampled_from(["", "10.1.0.1"]),
    metric=st.integers(0, 2**31 - 1),
)


@given(routes)
def test_a_route_that_is_asked_for_reads_back_as_itself(wanted: Route) -> None:
    request = messages.route_request(wanted, 7 if wanted.link else None)
    network = ip_network(str(request["dst"]))
    answer = Message(
        {"family": request["family"], "dst_len": network.prefixlen, "type": request["type"]},
        RTA_DST=str(network.network_address) if network.prefixlen else None,
        RTA_OIF=request.get("oif"),
        RTA_PREFSRC=request.get("prefsrc"),
        RTA_PRIORITY=request["priority"],
    )
    assert messages.parse_route(answer, NAMES) == wanted
    assert request["proto"] == 109


def test_device_routes_have_link_scope_and_others_do_not() -> None:
    gateway = Route(ip_network("0.0.0.0/0"), "muslin0", gateway=ip_address("169.254.1.1"))
    assert messages.route_request(route("10.0.0.0/8", "muslin0"), 7)["scope"] == 253
    assert messages.route_request(gateway, 7)["scope"] == 0
    assert messages.route_request(route("10.0.0.0/8"), None)["scope"] == 0


def test_only_given_attributes_of_a_link_are_set() -> None:
    assert messages.link_request(Link("x")) == {}
    assert messages.link_request(Link("x", mtu=9, txqueuelen=0)) == {"mtu": 9, "txqlen": 0}


def test_an_address_request_names_family_and_length() -> None:
    assert messages.address_request(held("x", "fd00::1/128"), 7) == {
        "family": 10,
        "index": 7,
        "address": "fd00::1",
        "prefixlen": 128,
    }
