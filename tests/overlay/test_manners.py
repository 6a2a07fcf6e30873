"""Tests of overlay.manners: what is noted is told, at a pace, and forgotten after a while."""

from __future__ import annotations

from overlay.complaints import KEPT_FOR, Complaint
from overlay.faults import FAULTS, Fault
from overlay.sim import World
from overlay.sim.machine import Machine
from overlay.types import NodeId
from tests.sim.worlds import settled


def own_record(machine: Machine):
    parts = machine.engine.parts
    return parts.catalog.nodes[parts.local]


def note(world: World, name: str, about: str, fault: Fault = Fault.FORGED_RECORD) -> Complaint:
    node = world[about].membership.identity.node
    world.inspector.excuse(node)
    world[name].engine.parts.complaints.note(node, fault, world.now, "seen")
    return Complaint(node, fault)


def said(world: World, name: str) -> list[str]:
    return [one.what for one in world[name].snapshot().notices if one.code == "member-accused"]


def test_what_is_noted_is_in_status_at_once_and_in_that_of_others_soon() -> None:
    world = settled(3)
    world.run(world.now + 3.0)
    complaint = note(world, "node1", "node3")
    (problem,) = world["node1"].snapshot().problems
    assert problem.code == "member-forged-record"
    assert problem.what == "node node3 misbehaves: forged-record"
    assert "seen" in problem.why
    assert "node3" in problem.fix
    world.run_until(lambda: said(world, "node2") != [], timeout=3.0)
    assert said(world, "node2") == ["node1 complains of node3: forged-record"]
    assert said(world, "node3") == said(world, "node2")
    assert own_record(world["node1"]).complaints == (complaint,)
    (told,) = world.trace.notes("member.misbehaves", "node1")
    assert told.fields == {"peer": "node3", "code": "forged-record", "why": "seen"}


def test_repetitions_make_no_new_record_and_no_new_line_in_the_log() -> None:
    world = settled(3)
    note(world, "node1", "node3")
    world.run(world.now + 5.0)
    version = own_record(world["node1"]).version
    for _ in range(20):
        note(world, "node1", "node3")
        world.run(world.now + 1.0)
    assert own_record(world["node1"]).version == version
    assert len(world.trace.notes("member.misbehaves", "node1")) == 1


def test_it_is_taken_back_ten_minutes_after_the_last_time() -> None:
    world = settled(2)
    note(world, "node1", "node2")
    world.run(world.now + 3.0)
    assert said(world, "node2")
    world.run(world.now + KEPT_FOR + 3.0)
    assert world["node1"].snapshot().problems == world["node2"].snapshot().problems == ()


def test_a_removed_member_is_complained_of_no_more() -> None:
    world = settled(3)
    note(world, "node1", "node3")
    world.run(world.now + 3.0)
    world.crash("node3")
    world["node1"].remove("node3", force=True)
    world.run(world.now + 3.0)
    for name in ("node1", "node2"):
        assert not [one for one in world[name].snapshot().problems if "member-" in one.code]


def test_who_names_nobody_that_is_known_says_nothing() -> None:
    world = settled(2)
    parts = world["node1"].engine.parts
    nobody = NodeId(parts.local[:-1] + b"?")
    world.inspector.excuse(nobody)
    parts.complaints.note(nobody, Fault.FORGED_DEED, world.now)
    world.run(world.now + 3.0)
    assert own_record(world["node1"]).complaints
    assert said(world, "node2") == []


def test_all_faults_at_once_are_a_few_complaints_and_the_record_stays_small() -> None:
    world = settled(3)
    for fault in FAULTS:
        note(world, "node1", "node2", fault)
        note(world, "node1", "node3", fault)
    world.run(world.now + 3.0)
    assert len(own_record(world["node1"]).complaints) == 8
    assert {one.node for one in own_record(world["node1"]).complaints} == {
        world[name].membership.identity.node for name in ("node2", "node3")
    }


def test_a_complaint_does_not_outlive_a_restart() -> None:
    world = settled(2)
    note(world, "node1", "node2")
    world.run(world.now + 3.0)
    world.restart("node1")
    world.run(world.now + 5.0)
    assert own_record(world["node1"]).complaints == ()
    assert said(world, "node2") == []
