"""Tests of overlay.state."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.errors import WireError
from overlay.state import MAX_NETNS, NodeState, StoredPod
from overlay.types import BlockIndex
from overlay.wire.items import Item

U16, U32, U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
BLOCKS = st.integers(0, U16).map(BlockIndex)
PODS = st.builds(
    StoredPod,
    name=NAMES,
    netns=st.text(max_size=40).filter(str.isprintable),
    block=BLOCKS,
    host=st.integers(0, U32),
    since=st.integers(0, U64),
)
ITEMS = st.builds(Item, st.binary(max_size=64), st.integers(0, U64), st.binary(max_size=60))
STATES = st.builds(
    NodeState,
    boot=st.integers(0, U32),
    pods=st.lists(PODS, max_size=4).map(tuple),
    items=st.lists(ITEMS, max_size=4).map(tuple),
    tokens=st.binary(max_size=40),
    names=st.binary(max_size=40),
    blocks_in_use=st.lists(BLOCKS, max_size=4).map(tuple),
    left=st.booleans(),
)

EXAMPLE = NodeState(
    boot=7,
    pods=(StoredPod("web", "/run/netns/web", BlockIndex(1), 2, 1_800_000_000),),
    items=(Item(b"b\0\0\0\1", 1, b"deeds"),),
    tokens=b"t",
    names=b"n",
    blocks_in_use=(BlockIndex(1),),
    left=False,
)


@given(STATES)
@settings(max_examples=100)
def test_what_is_encoded_is_decoded(state: NodeState) -> None:
    assert NodeState.decode(state.encode()) == state


def test_the_stored_bytes_are_these() -> None:
    assert EXAMPLE.encode().hex() == (
        "980107"  # eight fields, format 1, boot 7
        "9195a3776562ae2f72756e2f6e65746e732f7765620102ce6b49d200"  # the pod
        "9193c405620000000101c4056465656473"  # the item
        "c40174c4016e"  # tokens, names
        "9101c2"  # blocks in use, left
    )


def test_a_node_that_never_ran_has_an_empty_state() -> None:
    assert NodeState.decode(NodeState().encode()) == NodeState()


@given(STATES, st.data())
@settings(max_examples=100)
def test_damaged_bytes_are_refused_or_are_another_state(state: NodeState, data) -> None:
    encoded = bytearray(state.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = NodeState.decode(bytes(encoded))
    except WireError:
        return
    assert NodeState.decode(decoded.encode()) == decoded


@given(st.binary(max_size=80))
def test_any_bytes_are_a_state_or_a_wire_error(stored: bytes) -> None:
    with suppress(WireError):
        NodeState.decode(stored)


def test_every_truncation_is_refused() -> None:
    encoded = EXAMPLE.encode()
    for size in range(len(encoded)):
        with pytest.raises(WireError):
            NodeState.decode(encoded[:size])


def test_a_newer_format_is_refused_and_its_number_named() -> None:
    newer = msgpack.packb([2, *msgpack.unpackb(EXAMPLE.encode())[1:]])
    with pytest.raises(WireError, match="version 2"):
        NodeState.decode(newer)


def test_fields_of_a_later_version_are_ignored() -> None:
    later = msgpack.packb([*msgpack.unpackb(EXAMPLE.encode()), "more"])
    assert NodeState.decode(later) == EXAMPLE


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (1, -1),
        (1, 2**32),
        (1, True),
        (2, [["web", "/ns", 65536, 2, 0]]),
        (2, [["w" * 64, "/ns", 1, 2, 0]]),
        (2, [["web", "/" * (MAX_NETNS + 1), 1, 2, 0]]),
        (2, [["web", "/new\nline", 1, 2, 0]]),
        (3, [["key", 1, b""]]),
        (4, "text"),
        (6, [65536]),
        (6, 1),
        (7, 1),
    ],
)
def test_a_field_out_of_range_is_refused(index: int, value: object) -> None:
    fields = msgpack.unpackb(EXAMPLE.encode())
    fields[index] = value
    with pytest.raises(WireError):
        NodeState.decode(msgpack.packb(fields))
