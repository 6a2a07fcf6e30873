"""What is to be stored: only what differs, and what could not be stored before."""

from __future__ import annotations

import sys
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.sim import World
from overlay.state import FAMILIES, NodeState, family, prefix_of
from overlay.storing import Unstored
from overlay.wire.items import Item
from overlay.wire.packing import pack
from tests.overlay.test_state import EXAMPLE, STATES


def carried_out(entries: dict[bytes, bytes], changes) -> dict[bytes, bytes]:
    after = entries | {key: value for key, value in changes if value is not None}
    return {key: after[key] for key in after if (key, None) not in changes}


def test_only_what_differs_is_handed_out_and_only_once() -> None:
    unstored = Unstored(EXAMPLE)
    assert unstored.take(EXAMPLE, {}) == ()
    other = replace(EXAMPLE, boot=8, tokens=b"", pods=())
    item = Item(b"k", 2, b"body")
    assert unstored.take(other, {"items": {b"k": item, b"gone": None}}) == (
        (b"boot", pack([8])),
        (b"items/gone", None),
        (b"items/k", bytes(7) + b"\2body"),
        (b"pods/web", None),
        (b"tokens", None),
    )
    assert unstored.take(other, {}) == ()


def test_what_was_refused_is_handed_out_again_with_the_value_of_then() -> None:
    unstored = Unstored(NodeState())
    lost = unstored.take(
        NodeState(boot=1, pods=EXAMPLE.pods), {"items": {b"k": Item(b"k", 1, b"")}}
    )
    assert unstored.refuse(lost) == {b"k"}
    changes = unstored.take(NodeState(boot=1, left=True), {})
    assert dict(changes) == {b"boot": pack([1]), b"left": pack([True]), b"pods/web": None}


def differing(before: NodeState, after: NodeState, name: str) -> dict[bytes, object]:
    """What of a family is not as it was, by key; None for what is gone."""
    old, new, prefix = family(before, name), family(after, name), prefix_of(name)
    return {
        key.removeprefix(prefix): new.get(key)
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
    }


@given(st.lists(st.tuples(STATES, st.booleans(), st.booleans()), max_size=8), STATES)
@settings(max_examples=100)
def test_whatever_is_refused_the_disk_follows_as_soon_as_it_takes_something(steps, last) -> None:
    unstored, disk, behind = Unstored(NodeState()), NodeState().entries(), set()
    before = NodeState()
    for state, works, told in [*steps, (last, True, True)]:
        items = {item.key: item for item in state.items}
        touched = items.keys() | {item.key for item in before.items} | behind
        changed = {name: differing(before, state, name) for name in FAMILIES} if told else {}
        changed["items"] = {key: items.get(key) for key in touched}
        changes = unstored.take(state, changed)
        if works:
            disk, behind = carried_out(disk, changes), set()
        else:
            behind |= unstored.refuse(changes)
        before = state
    assert NodeState.from_entries(disk) == last


def test_of_a_family_that_says_what_has_changed_nothing_else_is_looked_at() -> None:
    unstored = Unstored(EXAMPLE)
    new = replace(EXAMPLE.pods[0], name="new")
    same = {"pods": {b"web": EXAMPLE.pods[0], b"never": None}}
    assert unstored.take(replace(EXAMPLE, pods=()), same) == ()
    changes = unstored.take(EXAMPLE, {"pods": {b"web": None, b"new": new}})
    assert [key for key, value in changes if value is None] == [b"pods/web"]
    assert [key for key, value in changes if value is not None] == [b"pods/new"]
    assert unstored.refuse(changes) == set()
    assert unstored.take(EXAMPLE, {"pods": {}}) == changes


def test_what_storing_costs_does_not_grow_with_what_is_stored() -> None:
    """A node may hold ten thousand addresses for others, and gives out one at a time."""
    counts = []
    for held in (10, 1_000):
        world = World(seed=1, block_prefix=20)
        world.run(5.0)
        engine = world["node1"].engine
        for _ in range(held):
            engine.parts.holdings.tenants.reserve("docker", None, 0.0, world.now)
        engine.reserve("docker", None, world.now)  # the first time all is compared
        counts.append([calls(work) for work in a_change_of_each_kind(engine, world.now)])
    few, many = counts
    assert [more <= 1.2 * less for less, more in zip(few, many, strict=True)] == [True] * 4


def a_change_of_each_kind(engine, now: float):
    held, _ = engine.reserve("docker", None, now)
    yield lambda: engine.reserve("docker", None, now)
    yield lambda: engine.add_pod("web", "/ns/web", held.address, now, owner="docker")
    yield lambda: engine.remove_pod("web", now)
    yield lambda: engine.release_reserved("docker", held.address, now)


def calls(work) -> int:
    """How many functions of Python's were called."""
    count = 0

    def note(frame, event: str, _) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
