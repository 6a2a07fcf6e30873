"""Tests of overlay.state."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.attachment import Attachment, HostPort, Rate
from overlay.errors import WireError
from overlay.state import (
    MAX_NETNS,
    SCHEMA,
    NodeState,
    StoredPod,
    StoredReservation,
    StoredRest,
)
from overlay.types import BlockIndex
from overlay.wire.items import Item
from overlay.wire.packing import pack
from tests.support.attachments import ATTACHMENTS

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
    attachment=ATTACHMENTS,
)
ITEMS = st.builds(Item, st.binary(max_size=64), st.integers(0, U64), st.binary(max_size=60))

HELD = st.builds(
    StoredReservation,
    st.sampled_from(["cni", "docker"]),
    BLOCKS,
    st.integers(0, U32),
    st.integers(0, U64),
)
RESTS = st.builds(StoredRest, NAMES, BLOCKS, st.integers(0, U32), st.integers(0, U64))


def several(elements: st.SearchStrategy, key) -> st.SearchStrategy:
    """Up to four, each key once, in the order in which they are read back."""
    lists = st.lists(elements, max_size=4, unique_by=key)
    return lists.map(lambda some: tuple(sorted(some, key=key)))


def slot_key(held: StoredRest | StoredReservation) -> bytes:
    return b"%d.%d" % (held.block, held.host)


STATES = st.builds(
    NodeState,
    boot=st.integers(0, U32),
    pods=several(PODS, lambda pod: pod.name),
    items=several(ITEMS, lambda item: item.key),
    tokens=st.binary(max_size=40),
    names=st.binary(max_size=40),
    certificate=st.binary(max_size=40),
    blocks_in_use=st.lists(BLOCKS, max_size=4).map(tuple),
    left=st.booleans(),
    told=st.booleans(),
    standing=st.integers(0, 2),
    resting=several(RESTS, slot_key),
    reserved=several(HELD, slot_key),
)

ATTACHED = Attachment(
    container="c0ffee",
    interface="net1",
    network="pods",
    labels=(("pod", "web"),),
    ingress=Rate(8_000, 16_000),
    ports=(HostPort("tcp", 8080, 80, "192.0.2.1"),),
    handed=True,
)
EXAMPLE = NodeState(
    boot=7,
    pods=(
        StoredPod("web", "/run/netns/web", BlockIndex(1), 2, 1_800_000_000, "cli", "b-1", ATTACHED),
    ),
    items=(Item(b"b\0\0\0\1", 1, b"deeds"),),
    tokens=b"t",
    names=b"n",
    certificate=b"c",
    blocks_in_use=(BlockIndex(1),),
    left=True,
    told=True,
    standing=1,
    resting=(StoredRest("db", BlockIndex(1), 3, 1_800_000_009),),
    reserved=(StoredReservation("docker", BlockIndex(1), 4, 1_800_000_001),),
)


@given(STATES)
@settings(max_examples=100)
def test_what_is_stored_is_read_back(state: NodeState) -> None:
    assert NodeState.from_entries(state.entries()) == state


def test_the_entries_are_these() -> None:
    entries = {key.decode("latin-1"): value.hex() for key, value in EXAMPLE.entries().items()}
    assert entries == {
        "schema": "9101",
        "boot": "9107",
        "pods/web": "98a3776562ae2f72756e2f6e65746e732f7765620102ce6b49d200a3636c69a3622d31"
        "98a6633066666565a46e657431a4706f64739192a3706f64a377656292cd1f40cd3e80909194a374"
        "6370cd1f9050a93139322e302e322e31c3",
        "items/b\0\0\0\1": "00000000000000016465656473",
        "tokens": "74",
        "names": "6e",
        "certificate": "63",
        "blocks_in_use": "919101",
        "left": "91c3",
        "told": "91c3",
        "standing": "9101",
        "resting/1.3": "94a264620103ce6b49d209",
        "reserved/1.4": "94a6646f636b65720104ce6b49d201",
    }


def test_the_example_has_every_field_so_that_each_is_tried() -> None:
    assert all(getattr(EXAMPLE, field.name) != field.default for field in fields(NodeState))


def test_a_node_that_never_ran_has_nothing_but_its_schema() -> None:
    assert list(NodeState().entries()) == [b"schema"]
    assert NodeState.from_entries(NodeState().entries()) == NodeState()


def test_nothing_at_all_is_no_state() -> None:
    with pytest.raises(WireError, match="which schema"):
        NodeState.from_entries({})


@given(STATES, st.data())
@settings(max_examples=100)
def test_damaged_values_are_refused_or_are_another_state(state: NodeState, data) -> None:
    entries = state.entries()
    key = data.draw(st.sampled_from(sorted(entries)))
    value = bytearray(entries[key] or b"\0")
    value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = NodeState.from_entries(entries | {key: bytes(value)})
    except WireError:
        return
    assert NodeState.from_entries(read.entries()) == read


@given(st.dictionaries(st.sampled_from([*EXAMPLE.entries(), b"x"]), st.binary(max_size=20)))
def test_any_entries_are_a_state_or_a_wire_error(entries: dict[bytes, bytes]) -> None:
    with suppress(WireError):
        NodeState.from_entries(entries)


def test_a_newer_schema_is_refused_and_its_number_named() -> None:
    newer = EXAMPLE.entries() | {b"schema": pack([SCHEMA + 1])}
    with pytest.raises(WireError, match=f"version {SCHEMA + 1} was written by a newer"):
        NodeState.from_entries(newer)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"boot", [-1]),
        (b"boot", [2**32]),
        (b"boot", [True]),
        (b"boot", []),
        (b"pods/web", ["web", "/ns", 65536, 2, 0]),
        (b"pods/web", ["web", "/" * (MAX_NETNS + 1), 1, 2, 0]),
        (b"pods/web", ["web", "/new\nline", 1, 2, 0]),
        (b"pods/web", ["web", "/ns", 1, 2]),
        (b"pods/web", ["db", "/ns", 1, 2, 0]),
        (b"pods/" + b"w" * 64, ["w" * 64, "/ns", 1, 2, 0]),
        (b"pods/web", ["web", "/ns", 1, 2, 0, "cli", "b"]),
        (b"pods/web", ["web", "/ns", 1, 2, 0, "cli", "b", ["c", "eth0"]]),
        (b"reserved/1.4", ["docker", 1, 5, 0]),
        (b"reserved/1.4", ["d" * 129, 1, 4, 0]),
        (b"items/k", 1),
        (b"blocks_in_use", [[65536]]),
        (b"blocks_in_use", [1]),
        (b"left", [1]),
        (b"later", [1]),
        (b"boot/x", [1]),
        (b"pods", ["web", "/ns", 1, 2, 0]),
        (b"\xff", [1]),
    ],
)
def test_an_entry_that_cannot_be_is_refused(key: bytes, value: object) -> None:
    with pytest.raises(WireError):
        NodeState.from_entries(EXAMPLE.entries() | {key: pack(value)})
