"""Tests of showing a node what it has said and forgotten: who, when, how often, and when not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from overlay.catalog.keys import node_key
from overlay.conflict import Standing
from overlay.effects import SendControl
from overlay.reminders import LOOKS, MOST, PATIENCE, SPREAD, Reminders
from overlay.sim import World
from overlay.types import NodeId
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta
from tests.sim.worlds import knows_pod, settled


def forgetful(world: World, name: str, pods: int = 1) -> None:
    """Put a node's state of before its last pods back, cut off from everybody."""
    state = dict(world[name].disk.entries)
    for number in range(pods):
        world[name].add_pod(f"since{number}")
    world.run(world.now + 3.0)
    world.restore(name, state)


def reminders_of(world: World, name: str):
    return world[name].engine.parts.knowledge._reminders


def test_who_has_a_session_shows_the_record_until_its_owner_knows():
    world = settled(3)
    before = world["node1"].engine.parts.catalog.nodes[world["node2"].engine.identity.node]
    forgetful(world, "node2")
    later = world["node1"].engine.parts.catalog.nodes[before.node]
    assert later.version > before.version
    world.run(world.now + 3.0)
    notes = world.trace.notes("record.recalled", "node2")
    assert len(notes) == 1
    now = world["node1"].engine.parts.catalog.nodes[before.node]
    assert now.conflict
    assert now.resumed >= later.version
    assert [pod.name for pod in now.pods] == ["since0"], "others still reach what they knew"
    world.run(world.now + 3.0)
    assert not reminders_of(world, "node1")._reminders


def test_an_honest_restart_reminds_nobody():
    world = settled(3)
    for number in range(4):
        world["node2"].add_pod(f"pod{number}")
        world.run(world.now + 0.3 * number)
        world.crash("node2")
        world.restart("node2")
        world.run(world.now + 2.0)
    world.run_until(world.settled, timeout=10.0)
    assert not world.trace.notes("record.recalled")
    assert not any(reminders_of(world, name)._reminders for name in world.machines)


def test_who_held_the_record_while_it_was_away_shows_it_when_it_returns():
    """The owner has talked to others for long: what it holds now is what others route to."""
    world = settled(4)
    state = dict(world["node2"].disk.entries)
    world.partition(["node2", "node4"], ["node1", "node3"])
    world["node2"].add_pod("gone")
    world.run(world.now + 3.0)
    world.crash("node2")
    world.heal()
    world.partition(["node4"], ["node1", "node2", "node3"])
    world.restore("node2", state)
    world.run(world.now + 8.0)
    world["node2"].add_pod("now")
    world.run(world.now + 2.0)
    assert not world["node2"].engine.conflict.frozen, "nobody could know"
    world.heal()
    world.run_until(lambda: world["node2"].engine.conflict.frozen, timeout=30.0)
    world.run(world.now + 2.0)
    assert world["node2"].engine.conflict.standing is Standing.HOLDS
    assert all(knows_pod(world, name, "now") for name in world.machines)


class Member:
    """A record, as far as reminders look at it."""

    def __init__(self, number: int, version: int, resumed: int = 0) -> None:
        self.node = NodeId(bytes([number]) * 32)
        self.version, self.boot, self.resumed = version, version >> 32, resumed
        self.body, self.left, self.conflict = b"body", False, False


def reminders(member: Member, *, session: bool) -> Reminders:
    path = SimpleNamespace(keypair=object() if session else None)
    catalog = SimpleNamespace(nodes={member.node: member})
    return Reminders(NodeId(bytes(32)), catalog, {member.node: path} if session else {})


def looks_that_show(made: Reminders, most: int = 100) -> list[int]:
    return [look for look in range(most) if made.on_look()]


BEFORE, AFTER = 1 << 32 | 9, 2 << 32 | 1


def test_what_is_lost_is_said_again_and_not_for_ever():
    made = reminders(Member(3, AFTER, resumed=1 << 32 | 8), session=True)
    made.compare(Member(3, BEFORE))
    (effect,) = made.on_look()
    item = Item(node_key(NodeId(b"\x03" * 32)), BEFORE, b"body")
    assert effect == SendControl(NodeId(b"\x03" * 32), encode(Delta((item,))))
    assert looks_that_show(made) == list(range(LOOKS - 1))
    assert made.on_look() == []


def test_who_has_no_session_waits_and_not_all_equally_long():
    first = set()
    for number in range(1, SPREAD):
        made = reminders(Member(number, AFTER), session=False)
        made.compare(Member(number, BEFORE))
        first.add(looks_that_show(made)[0])
    assert min(first) >= PATIENCE
    assert len(first) == SPREAD - 1


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (Member(3, AFTER, resumed=BEFORE), "it remembers"),
        (Member(3, AFTER, resumed=BEFORE + 5), "it knows later ones"),
        (Member(3, BEFORE + 1), "it goes on under the same boot number"),
        (Member(3, BEFORE), "nothing new"),
    ],
)
def test_nobody_is_reminded_of_what_is_not_forgotten(after, why):
    made = reminders(after, session=True)
    made.compare(Member(3, BEFORE))
    assert looks_that_show(made) == [], why


@pytest.mark.parametrize("what", ["left", "conflict"])
def test_who_is_gone_or_knows_is_not_reminded(what):
    after = Member(3, AFTER)
    made = reminders(after, session=True)
    made.compare(Member(3, BEFORE))
    assert made.on_look()
    setattr(after, what, True)
    assert not made.on_look()


def test_what_is_remembered_of_others_is_bounded():
    made = reminders(Member(3, AFTER), session=True)
    made._catalog.nodes.update({m.node: m for m in (Member(n, AFTER) for n in range(1, 200))})
    for number in range(1, 200):
        made.compare(Member(number, BEFORE))
    assert len(made._reminders) == MOST
