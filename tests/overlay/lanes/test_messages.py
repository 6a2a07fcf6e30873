"""Orders and reports: what goes in comes out, and what is neither is refused."""

from __future__ import annotations

from dataclasses import astuple
from ipaddress import ip_network
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.drops import DropReason
from overlay.errors import WireError
from overlay.lanes.messages import (
    LANE_KEYS_SIZE,
    MESSAGE_LIMIT,
    PER_MESSAGE,
    Answered,
    Down,
    Failed,
    Key,
    KeyGone,
    LaneReport,
    Local,
    Order,
    Peer,
    PeerGone,
    Probed,
    Ready,
    Routes,
    Stats,
    TooBig,
    Traffic,
    Use,
    Wanted,
    Worn,
    decode_order,
    decode_report,
    encode,
    lane_keys,
    pack_prefix,
    unpack_prefix,
)
from overlay.types import NodeId
from overlay.wire.packing import pack

NODE = NodeId(b"n" * 32)

ORDERS: list[Order] = [
    Local("10.244.0.1", ""),
    Routes([(NODE, b"\x0a\xf4\0\0\x18")], [b"\x0a\xf4\1\0\x18"]),
    Peer(NODE, "192.0.2.1", 6875, 1500, 2, 3, live=True, singly=False),
    PeerGone(NODE),
    Key(NODE, 7, 9, 1, 1.5, 181.5, b"k" * 16 * LANE_KEYS_SIZE),
    KeyGone(7),
    Use(NODE, 7),
    Down(NODE),
    Answered(NODE, 5),
]
REPORTS: list[LaneReport] = [
    Ready(),
    Stats(3, 1, 1, [("no_route", 1)], 0.25),
    Traffic([(NODE, 10, 20, None, []), (NODE, 1, 2, 5.5, [("no_route", 1)])]),
    Wanted([NODE]),
    Probed(NODE, 2, 5),
    TooBig(NODE),
    Failed("the port is in use"),
    Worn([NODE]),
]


def lists(value: object) -> object:
    """Arrays are arrays, whatever they were."""
    return [lists(one) for one in value] if isinstance(value, list | tuple) else value


def test_there_is_an_example_of_each() -> None:
    assert [type(order) for order in ORDERS] == list(get_args(Order))
    assert [type(report) for report in REPORTS] == list(get_args(LaneReport))


@pytest.mark.parametrize("order", ORDERS, ids=lambda one: type(one).__name__)
def test_an_order_arrives_as_it_was_given(order: Order) -> None:
    arrived = decode_order(encode(order))
    assert type(arrived) is type(order)
    assert lists(astuple(arrived)) == lists(astuple(order))


@pytest.mark.parametrize("report", REPORTS, ids=lambda one: type(one).__name__)
def test_a_report_arrives_as_it_was_given(report: LaneReport) -> None:
    arrived = decode_report(encode(report))
    assert type(arrived) is type(report)
    assert lists(astuple(arrived)) == lists(astuple(report))


@pytest.mark.parametrize(
    "data", [b"", b"\xc0", pack([99]), pack([8]), pack([8, NODE, 1]), pack("Down"), pack([0])]
)
def test_what_is_no_order_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_order(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for decode in (decode_order, decode_report):
        try:
            decode(data)
        except WireError:
            continue


def test_the_longest_messages_fit_the_pipe() -> None:
    drops = [(str(reason), 1 << 40) for reason in DropReason][:16]
    peers = [(NODE, 1 << 60, 1 << 60, 1e9, drops)] * PER_MESSAGE
    assert len(encode(Traffic(peers))) < MESSAGE_LIMIT
    assert len(encode(Wanted([NODE] * PER_MESSAGE))) < MESSAGE_LIMIT
    assert len(encode(Routes([(NODE, b"p" * 17)] * PER_MESSAGE, []))) < MESSAGE_LIMIT


@pytest.mark.parametrize("text", ["10.244.0.0/16", "0.0.0.0/0", "10.1.2.3/32", "fd00::/64", "::/0"])
def test_a_prefix_is_what_it_was(text: str) -> None:
    assert unpack_prefix(pack_prefix(ip_network(text))) == ip_network(text)


def test_keys_are_taken_apart_by_lane() -> None:
    keys = bytes(range(256)) * 4
    assert lane_keys(keys, 0) == (keys[:32], keys[32:64])
    assert lane_keys(keys, 15) == (keys[960:992], keys[992:1024])


def test_no_key_is_in_the_text_of_an_order() -> None:
    assert "kkk" not in repr(ORDERS[4])
