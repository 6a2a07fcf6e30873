from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

from node.kernel import packed
from node.kernel.messages import FAMILIES
from node.kernel.model import Link, Neighbour, Route
from node.kernel.overlap import HostRoute
from tests.support.kernel import held, route

NAMES = {7: "muslin0", 9: "musx"}


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def link(name: str, *more: bytes, flags: int = 1, index: int = 7) -> bytes:
    """A link, from its family header on."""
    head = packed.LINK_HEADER.pack(0, 0, index, flags, 0)
    return head + attribute(3, name.encode() + b"\0") + b"".join(more)


def conf(*values: tuple[int, int], size: int = 34) -> bytes:
    """An array of settings, `(place, value)`; the others are 0."""
    numbers = [0] * size
    for place, value in values:
        numbers[place] = value
    return struct.pack(f"={size}i", *numbers)


def families(settings4: bytes = b"", settings6: bytes = b"", mode: int = 1) -> bytes:
    """IFLA_AF_SPEC."""
    inet = attribute(2, attribute(1, settings4)) if settings4 else b""
    six = attribute(2, settings6) + attribute(8, bytes([mode])) if settings6 else b""
    return attribute(26, inet + (attribute(10, six) if six else b""))


def test_a_link_is_read_with_all_its_attributes() -> None:
    message = link(
        "musx",
        attribute(1, bytes.fromhex("021122334455")),
        attribute(4, u32(1500)),
        attribute(10, u32(5)),
        attribute(18, attribute(1, b"veth\0")),
        attribute(13, u32(256)),
        attribute(20, b"a pod\0"),
        attribute(37, u32(3)),
        attribute(41, u32(62000)),
    )
    found = packed.parse_link(message)
    assert found.link == Link("musx", True, 1500, 62000, 256, "a pod", "02:11:22:33:44:55", 5)
    assert found.link.kind == "veth"
    assert (found.index, found.namespace, found.loopback) == (7, 3, False)


def test_a_link_without_a_station_address_has_none() -> None:
    assert packed.parse_link(link("muslin0", attribute(1, b""), flags=0)).link == Link(
        "muslin0", up=False, master=0
    )


def test_settings_come_along_with_the_link() -> None:
    message = link("musx", families(conf((0, 1), (7, 2)), conf((3, 2), (26, 1)), mode=3))
    settings = dict(packed.parse_link(message).settings())
    assert settings["net/ipv4/conf/musx/forwarding"] == "1"
    assert settings["net/ipv4/conf/musx/rp_filter"] == "2"
    assert settings["net/ipv4/conf/musx/proxy_arp"] == "0"
    assert settings["net/ipv6/conf/musx/accept_ra"] == "2"
    assert settings["net/ipv6/conf/musx/disable_ipv6"] == "1"
    assert settings["net/ipv6/conf/musx/addr_gen_mode"] == "3"


def test_a_link_without_ipv6_has_no_settings_of_it() -> None:
    settings = dict(packed.parse_link(link("musx", families(conf((0, 1))))).settings())
    assert not any("ipv6" in path for path in settings)


def advertised(value: int, flags: int = 1) -> bool:
    message = link("wan0", families(settings6=conf((3, value))), flags=flags)
    return packed.parse_link(message).takes_advertisements


def test_only_accept_ra_1_is_lost_by_forwarding() -> None:
    assert [advertised(value) for value in (0, 1, 2)] == [False, True, False]
    assert not advertised(1, flags=8)
    assert not packed.parse_link(link("wan0")).takes_advertisements


def test_an_address_on_a_point_to_point_link_is_the_near_end() -> None:
    ends = attribute(1, bytes([10, 0, 0, 9])) + attribute(2, bytes([10, 0, 0, 1]))
    message = packed.ADDRESS_HEADER.pack(2, 32, 0, 0, 7) + ends
    found = packed.parse_address(message, NAMES)
    assert (found.index, found.value) == (7, held("muslin0", "10.0.0.1/32"))


def test_an_address_of_a_foreign_link_is_none_of_ours() -> None:
    message = packed.ADDRESS_HEADER.pack(2, 32, 0, 0, 8) + attribute(1, bytes(4))
    assert packed.parse_address(message, NAMES).value is None


def for_peers(address: str, scope: int = 0, flags: int = 128) -> bool:
    said = ip_address(address)
    head = packed.ADDRESS_HEADER.pack(FAMILIES[said.version], 32, flags & 0xFF, scope, 7)
    message = head + attribute(1, said.packed) + attribute(8, u32(flags))
    return packed.parse_held(message, NAMES).for_peers


def test_only_lasting_global_usable_addresses_are_for_peers() -> None:
    assert for_peers("2001:db8::1")
    assert not for_peers("fe80::1", scope=253)
    assert not for_peers("169.254.3.4")
    assert not for_peers("::1", scope=254)
    for flag in (0x01, 0x08, 0x20, 0x40):
        assert not for_peers("2001:db8::1", flags=flag)


def test_an_address_without_the_attribute_of_flags_has_those_of_the_header() -> None:
    message = packed.ADDRESS_HEADER.pack(2, 24, 0x20, 0, 8) + attribute(1, bytes([10, 0, 0, 1]))
    assert packed.parse_held(message, NAMES) == (held("", "10.0.0.1/24"), False)


def routed(
    *more: bytes,
    length: int,
    kind: int = 1,
    family: int = 2,
    proto: int = 109,
    table: int = 254,
) -> bytes:
    head = packed.ROUTE_HEADER.pack(family, length, 0, 0, table, proto, 0, kind, 0)
    return head + b"".join(more)


def test_routes_are_read_with_and_without_a_destination() -> None:
    way = attribute(4, u32(7)), attribute(5, ip_address("fe80::1").packed), attribute(6, u32(1024))
    found = packed.parse_route(routed(*way, length=0, family=10), NAMES)
    wanted = Route(ip_network("::/0"), "muslin0", gateway=ip_address("fe80::1"), metric=1024)
    assert (found.index, found.value) == (7, wanted)
    target = attribute(1, bytes([10, 0, 0, 0]))
    source = attribute(7, bytes([10, 1, 0, 1]))
    message = routed(target, source, attribute(4, u32(9)), length=8)
    found = packed.parse_route(message, NAMES)
    assert found.value == route("10.0.0.0/8", "musx", source="10.1.0.1")


def test_a_route_that_leads_nowhere_has_no_link_whatever_the_kernel_says() -> None:
    message = routed(attribute(1, bytes([10, 0, 0, 0])), attribute(4, u32(1)), length=8, kind=7)
    found = packed.parse_route(message, NAMES)
    assert (found.index, found.value) == (0, route("10.0.0.0/8"))


def test_routes_of_others_and_of_other_tables_are_none_of_ours() -> None:
    message = routed(attribute(1, bytes([10, 0, 0, 0])), attribute(4, u32(7)), length=8, proto=4)
    assert packed.parse_route(message, NAMES).value is None
    head = packed.ROUTE_HEADER.pack(2, 0, 0, 0, 255, 109, 0, 1, 0)
    assert packed.parse_route(head, NAMES).value is None


def test_a_route_of_anybody_may_lead_nowhere() -> None:
    target, way = attribute(1, bytes([10, 0, 0, 0])), attribute(4, u32(7))
    message = routed(target, way, length=8, kind=7, table=52)
    assert packed.parse_host_route(message, NAMES) == HostRoute(
        ip_network("10.0.0.0/8"), "muslin0", leads_nowhere=True, table=52
    )


def test_a_route_over_several_links_has_none_and_a_table_may_be_above_255() -> None:
    message = routed(attribute(15, u32(51820)), length=0, family=10, proto=4, table=252)
    assert packed.parse_host_route(message, NAMES) == HostRoute(ip_network("::/0"), "", table=51820)


def test_own_routes_are_told_by_their_header() -> None:
    assert packed.is_own_route(routed(length=0))
    assert not packed.is_own_route(routed(length=0, proto=4))


def known(state: int, index: int = 9, family: int = 2) -> Neighbour | None:
    head = packed.NEIGHBOUR_HEADER.pack(family, index, state, 0, 1)
    station = attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes.fromhex("021122334455"))
    return packed.parse_neighbour(head + station, NAMES).value


def test_only_permanent_neighbours_on_our_links_are_ours() -> None:
    assert known(0x80) == Neighbour("musx", ip_address("10.0.0.2"), "02:11:22:33:44:55")
    assert known(0x02) is None
    assert known(0x80, index=8) is None
    assert known(0x80, family=7) is None, "a bridge's table"
