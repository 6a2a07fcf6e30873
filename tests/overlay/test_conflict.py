"""Tests of overlay.conflict: who freezes, who speaks, who keeps quiet.

What comes of it in a whole cluster is proven in `tests/sim/test_identity.py`.
"""

from __future__ import annotations

import pytest

from overlay.catalog.records import sign_record
from overlay.conflict import CODE, DOUBT, REASSERT_INTERVAL, SETTLED_AFTER, Conflict, Standing
from overlay.effects import Persist, Report
from overlay.errors import RefusedError
from overlay.sim import Machine, World
from overlay.state import LAST_STANDING, NodeState
from overlay.types import Endpoint
from overlay.wire.items import Item
from overlay.wire.messages import Delta
from tests.sim.worlds import settled

ELSEWHERE = (Endpoint("198.51.100.9", 6875),)


def conflict_of(machine: Machine) -> Conflict:
    return machine.engine.conflict


def forged(machine: Machine, *, boots: int = 1, conflict: bool = False, **fields: object) -> Item:
    """What a second machine with this identity would sign."""
    parts = machine.engine.parts
    fields.setdefault("blocks_in_use", parts.holdings.blocks_in_use)
    version = (parts.record.versions.boot + boots) << 32
    return sign_record(machine.membership.identity, version=version, conflict=conflict, **fields)


def hear(world: World, machine: Machine, item: Item) -> list[object]:
    sender = world["node1"].membership.identity.node
    effects = machine.engine._on_message(sender, Delta((item,)), world.now)
    effects = machine.engine._settle(effects, world.now)
    machine.perform(effects)
    return effects


def code(call, *arguments: object) -> str:
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return caught.value.code


def own_record(machine: Machine):
    return machine.engine.parts.catalog.nodes[machine.engine.parts.local]


def settled_node(
    seconds: float = SETTLED_AFTER + 1, *, check: bool = True
) -> tuple[World, Machine]:
    world = settled(3, check=check)
    world.run(world.now + seconds)
    return world, world["node2"]


def test_a_newer_record_of_ours_freezes_is_stored_and_outdone_once() -> None:
    world, machine = settled_node()
    machine.add_pod("web")
    effects = hear(world, machine, forged(machine, endpoints=ELSEWHERE))
    kinds = [type(effect) for effect in effects]
    assert kinds.index(Persist) < kinds.index(Report)
    assert conflict_of(machine).standing is Standing.HOLDS
    assert NodeState.from_entries(machine.disk.entries).standing == Standing.HOLDS
    record = own_record(machine)
    assert record.conflict
    assert [pod.name for pod in record.pods] == ["web"]
    assert record.endpoints == (machine.endpoint,)
    assert not machine.engine.parts.sessions.voice.quiet


def test_a_flagged_record_with_our_addresses_is_followed_in_silence() -> None:
    world, machine = settled_node()
    item = forged(machine, endpoints=(machine.endpoint,), conflict=True)
    hear(world, machine, item)
    assert conflict_of(machine).standing is Standing.HOLDS
    assert machine.engine.parts.store.get(item.key) == item
    assert not machine.engine.parts.sessions.voice.quiet


def test_a_flagged_record_that_leaves_out_what_is_here_is_answered_but_not_all_the_time() -> None:
    world, machine = settled_node(check=False)  # what is forged here is on nobody's disk
    pod = machine.add_pod("web")
    answers = 0
    for boots in range(1, 30):
        item = forged(machine, boots=boots, endpoints=(machine.endpoint,), conflict=True)
        hear(world, machine, item)
        answers += machine.engine.parts.store.get(item.key) != item
        world.run(world.now + 0.5)
    assert 1 <= answers <= 2
    world.run(world.now + REASSERT_INTERVAL)
    assert pod.name in {view.name for view in world["node1"].snapshot().pods}


def test_a_flagged_record_of_another_machine_makes_this_one_quiet_at_once() -> None:
    world, machine = settled_node()
    item = forged(machine, endpoints=ELSEWHERE, conflict=True)
    hear(world, machine, item)
    assert conflict_of(machine).standing is Standing.COPY
    assert machine.engine.parts.sessions.voice.quiet
    assert all(path.keypair is None for path in machine.engine.parts.paths.values())
    assert machine.engine.parts.store.get(item.key) == item
    world.restart("node2")
    assert machine.engine.parts.sessions.voice.quiet


def test_a_node_that_has_just_started_signs_again_what_others_route_by() -> None:
    world, machine = settled_node()
    world.restart("node2")
    item = forged(machine, endpoints=(machine.endpoint,), blocks_in_use=[7, 9])
    hear(world, machine, item)
    assert conflict_of(machine).standing is Standing.COPY
    record = own_record(machine)
    assert (record.conflict, record.blocks_in_use) == (True, (7, 9))
    assert not machine.engine.parts.sessions.voice.quiet


def test_a_frozen_node_hands_out_nothing_and_takes_pods_back() -> None:
    world, machine = settled_node()
    machine.add_pod("web")
    hear(world, machine, forged(machine))
    assert code(machine.add_pod, "other") == code(machine.leave) == CODE
    assert CODE in {problem.code for problem in machine.snapshot().problems}
    machine.remove_pod("web")
    world.run(world.now + 1.0)
    assert own_record(machine).pods == ()
    assert own_record(machine).conflict


def test_a_claim_goes_above_everything_and_wants_stamps_above_it_too() -> None:
    world, machine = settled_node()
    hear(world, machine, forged(machine, boots=5))
    boot = own_record(machine).boot
    machine.perform(machine.engine.claim(world.now))
    assert own_record(machine).boot == boot + 1
    assert not own_record(machine).conflict
    assert machine.engine.parts.sessions.voice.stamp(-1) >> 32 == boot + 1
    machine.add_pod("web")
    assert NodeState.from_entries(machine.disk.entries).standing == Standing.SOLE


def test_a_refused_stamp_makes_a_new_start_quiet_until_it_is_explained() -> None:
    world = settled(3)
    world.crash("node2")
    world.partition(["node1"], ["node2"], ["node3"])
    world.restart("node2")
    machine, node = world["node2"], world["node1"].membership.identity.node
    conflict, voice = conflict_of(machine), machine.engine.parts.sessions.voice
    assert conflict.on_stamp_refused(node, world.now)
    assert (voice.quiet, voice.herald) == (True, node)
    assert code(machine.add_pod, "web") == CODE
    assert code(machine.engine.claim, world.now) == "no-member"
    assert conflict.on_stamp_refused(world["node3"].membership.identity.node, world.now) == []
    assert voice.herald == node
    world.run(world.now + DOUBT + 1.0)  # nobody could sign it: it was a lie
    assert not voice.quiet
    machine.add_pod("web")


def test_a_refused_stamp_of_a_node_in_touch_is_not_worth_a_doubt() -> None:
    world, machine = settled_node()
    node = world["node1"].membership.identity.node
    assert conflict_of(machine).on_stamp_refused(node, world.now) == []
    machine.add_pod("web")


def test_every_standing_can_be_stored() -> None:
    assert max(Standing) == LAST_STANDING
