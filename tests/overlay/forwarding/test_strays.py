"""Tests of overlay.forwarding.strays: who sends what is not its own is named, the early are not."""

from __future__ import annotations

from ipaddress import ip_network

from overlay.faults import Fault
from overlay.forwarding.strays import FORGET_AFTER, MOST, PATIENCE, Strays
from overlay.routing.table import Announcement, RouteTable
from overlay.types import NodeId

LOCAL, LIAR, VICTIM = (NodeId(bytes([number] * 32)) for number in (1, 2, 3))
HERE, THERE, OTHERS = bytes([10, 244, 1, 2]), bytes([10, 244, 2, 2]), bytes([10, 244, 3, 2])
NOBODY = bytes([10, 244, 9, 9])


def routes(**moved: NodeId) -> RouteTable:
    table = RouteTable()
    homes = {"10.244.1.0/24": LOCAL, "10.244.2.0/24": LIAR, "10.244.3.0/24": VICTIM} | moved
    table.replace(
        [Announcement(ip_network(one), node, "block") for one, node in homes.items()], 0.0
    )
    return table


def test_a_single_packet_from_an_address_of_another_is_named_after_a_while() -> None:
    strays = Strays()
    strays.note(LIAR, Fault.FOREIGN_SOURCE, OTHERS + HERE, 3, 10.0)
    assert strays.judge(routes(), LOCAL, 10.0 + PATIENCE / 2) == []
    (named,) = strays.judge(routes(), LOCAL, 10.0 + PATIENCE)
    assert named[:3] == (LIAR, Fault.FOREIGN_SOURCE, 3)
    assert "from 10.244.3.2 to 10.244.1.2" in named.evidence
    assert strays.judge(routes(), LOCAL, 20.0) == []


def test_whose_news_came_late_is_not_named() -> None:
    strays = Strays()
    strays.note(LIAR, Fault.FOREIGN_SOURCE, OTHERS + HERE, 1, 10.0)
    assert strays.judge(routes(**{"10.244.3.0/24": LIAR}), LOCAL, 10.0 + PATIENCE) == []
    assert strays.judge(routes(), LOCAL, 30.0) == []


def test_an_address_of_nobody_is_a_lie_only_if_it_goes_on() -> None:
    strays = Strays()
    strays.note(LIAR, Fault.FOREIGN_SOURCE, NOBODY + HERE, 1, 10.0)
    assert strays.judge(routes(), LOCAL, 10.0 + PATIENCE) == []
    strays.note(LIAR, Fault.FOREIGN_SOURCE, NOBODY + HERE, 1, 10.0 + PATIENCE)
    assert len(strays.judge(routes(), LOCAL, 10.0 + PATIENCE)) == 1


def test_a_destination_that_is_not_here_is_a_lie_only_if_it_goes_on() -> None:
    strays = Strays()
    strays.note(LIAR, Fault.FOREIGN_DESTINATION, THERE + OTHERS, 1, 10.0)
    assert strays.judge(routes(), LOCAL, 10.0 + FORGET_AFTER) == []
    for at in (20.0, 20.0 + PATIENCE):
        strays.note(LIAR, Fault.FOREIGN_DESTINATION, THERE + OTHERS, 1, at)
    (named,) = strays.judge(routes(), LOCAL, 20.0 + PATIENCE)
    assert named[:3] == (LIAR, Fault.FOREIGN_DESTINATION, 2)


def test_a_block_that_came_here_meanwhile_makes_nobody_a_liar() -> None:
    strays = Strays()
    for at in (20.0, 20.0 + PATIENCE):
        strays.note(LIAR, Fault.FOREIGN_DESTINATION, THERE + OTHERS, 1, at)
    assert strays.judge(routes(**{"10.244.3.0/24": LOCAL}), LOCAL, 20.0 + PATIENCE) == []


def test_ipv6_addresses_are_written_as_such() -> None:
    strays, one = Strays(), bytes.fromhex("fd4d0075000000030000000000000002")
    for at in (0.0, PATIENCE):
        strays.note(LIAR, Fault.FOREIGN_SOURCE, one + one, 1, at)
    (named,) = strays.judge(routes(), LOCAL, PATIENCE)
    assert "fd4d:75:0:3::2" in named.evidence


def test_it_remembers_so_many_and_no_more() -> None:
    strays = Strays()
    for number in range(2 * MOST):
        strays.note(NodeId(number.to_bytes(32, "big")), Fault.FOREIGN_SOURCE, OTHERS + HERE, 1, 0.0)
    assert len(strays.judge(routes(), LOCAL, PATIENCE)) == MOST
