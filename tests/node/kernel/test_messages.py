from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from node.kernel import messages


class Message(dict[str, object]):
    """A netlink message as pyroute2 hands it over."""

    def __init__(self, header: Mapping[str, object], **attributes: object) -> None:
        super().__init__(header)
        self.attributes = attributes

    def get_attr(self, name: str) -> object:
        return self.attributes.get(name)


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
