from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from node.kernel import messages
from node.kernel.overlap import HostRoute
from tests.support.kernel import held

NAMES = {1: "lo", 7: "muslin0"}


class Message(dict[str, object]):
    """A netlink message as pyroute2 hands it over."""

    def __init__(self, header: Mapping[str, object], **attributes: object) -> None:
        super().__init__(header)
        self.attributes = attributes

    def get_attr(self, name: str) -> object:
        return self.attributes.get(name)


def test_links_are_known_by_number_and_name() -> None:
    message = Message({"index": 7, "flags": 1, "ifname": "muslin0"})
    assert messages.link_names([message]) == {7: "muslin0"}
    assert messages.is_up(message)
    assert not messages.is_loopback(message)


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


def test_a_route_of_anybody_may_lead_nowhere() -> None:
    fields = {"family": 2, "dst_len": 8, "type": 7, "table": 52}
    unreachable = Message(fields, RTA_DST="10.0.0.0", RTA_OIF=1)
    assert messages.parse_host_route(unreachable, NAMES) == HostRoute(
        ip_network("10.0.0.0/8"), "lo", leads_nowhere=True, table=52
    )


def test_tables_are_those_that_rules_lead_any_packet_to() -> None:
    def rule(table: int, action: int = 1, **attributes: int) -> Message:
        return Message({"table": table, "action": action}, **attributes)

    rules = [
        rule(255),
        rule(52),
        rule(252, FRA_TABLE=51820),  # numbers above 255 have an attribute
        rule(0, action=6),
        rule(0, FRA_L3MDEV=1),
        rule(254),
        rule(52),
    ]
    assert messages.consulted_tables(rules) == [52, 51820, 254]


def test_a_table_of_its_own_leads_back_by_the_link() -> None:
    near, away = messages.way_back(ip_address("169.254.1.1"), 7, 99)
    assert (near["dst"], near["oif"], near["table"]) == ("169.254.1.1/32", 7, 99)
    assert (away["dst"], away["gateway"]) == ("0.0.0.0/0", "169.254.1.1")
    assert messages.way_back(ip_address("fe80::1"), 7, 99)[1]["dst"] == "::/0"
    assert messages.table_of("net1") != messages.table_of("net2")
    assert 255 < messages.table_of("net1") < 2**31


def test_a_rule_is_known_by_its_protocol_and_priority() -> None:
    source = ip_address("fd00::2")
    request = messages.rule_request(source, 99)
    assert (request["src"], request["src_len"], request["family"]) == ("fd00::2", 128, 10)
    ours = {
        "FRA_SRC": "fd00::2",
        "FRA_TABLE": 99,
        "FRA_PROTOCOL": request["protocol"],
        "FRA_PRIORITY": request["priority"],
    }
    assert messages.own_rule(Message({}, **ours)) == (source, 99)
    for other in ({"FRA_PROTOCOL": 2}, {"FRA_PRIORITY": 5}, {"FRA_SRC": None}):
        assert messages.own_rule(Message({}, **(ours | other))) is None
