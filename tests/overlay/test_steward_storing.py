"""Tests of overlay.steward: stored before announced, whatever happens."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from overlay.catalog.keys import node_key
from overlay.catalog.records import sign_record
from overlay.conflict import MEETING
from overlay.effects import Persist
from overlay.errors import OverlayError
from overlay.sim import Machine, World
from overlay.state import NodeState
from overlay.types import Endpoint
from overlay.wire.messages import BlockRequest
from tests.sim.worlds import LOSSY, knows_pod, settled
from tests.support.stewards import (
    FULL,
    announced_but_not_stored,
    assert_stored_first,
    check,
    refused,
)

# -- stored before it is announced -------------------------------------------------------------


def test_every_operation_is_stored_before_anything_is_sent() -> None:
    world = settled(3)
    world.run(world.now + 3.0)
    founder, other = world["node1"].engine, world["node2"].engine
    taker = world.membership("node9").identity.node
    now = world.now
    operations = [
        founder.add_pod("web", "/ns", None, now)[1],
        founder.remove_pod("web", now)[1],
        founder.mint_token(60.0, now)[1],
        founder._steward.on_block_request(taker, BlockRequest(1), now),
        founder.on_endpoints((Endpoint("192.0.2.1", 1),), now),
        other.leave(now),
        founder.stop(now),
    ]
    for effects in operations:
        assert_stored_first(effects)


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_ever_knows_what_is_not_on_the_disk_of_who_made_it(seed: int) -> None:
    """Pods come and go, nodes join, leave and crash, disks fill up, paths are cut."""
    rng = random.Random(seed)
    world = settled(4, seed=seed, link=LOSSY, cidr=IPv4Network("10.244.0.0/20"))
    world.every(0.2, lambda: check(world))
    for step in range(40):
        machine = world[rng.choice(list(world.machines))]
        action = rng.randrange(8)
        with suppress(OverlayError):
            if not machine.live:
                machine.start() if not machine.left else None
            elif action < 2:
                machine.add_pod(f"pod{step}")
            elif action == 2:
                machine.remove_pod(rng.choice(sorted(machine.engine.parts.holdings.pods) or ["x"]))
            elif action == 3:
                machine.disk.fail(rng.choice([0, 1, 3, 10]))
            elif action == 4:
                machine.crash()
                machine.start()
            elif action == 5 and len(world.machines) < 9:
                world.add_node(f"node{len(world.machines) + 1}")
            elif action == 6 and step > 20:
                machine.leave()
            elif action == 7:
                world.cut(machine.name, "node1") if step % 2 else world.heal()
        world.run(world.now + rng.uniform(0.0, 0.6))
    for machine in world.machines.values():
        machine.disk.fail(0)
    world.heal()
    world.run_until(world.converged, timeout=60.0)
    world.run(world.now + 5.0)
    for machine in world.live():
        assert machine.stored == everything(machine)


def test_when_the_clock_is_set_what_rests_is_stored_with_its_new_end() -> None:
    world = settled(2)
    machine = world["node2"]
    machine.add_pod("web")
    machine.remove_pod("web")
    world.run(world.now + 1.0)
    (before,) = machine.stored.resting
    machine.engine.on_clock(machine.engine.parts.wall.epoch + 3600.0)
    machine.add_pod("db")
    world.run(world.now + 1.0)
    assert machine.stored.resting == (replace(before, until=before.until + 3600),)


def everything(machine: Machine) -> NodeState:
    """What a node knows that is to be on its disk."""
    parts = machine.engine.parts
    registrar = parts.registrar
    state = parts.holdings.stored(
        parts.record.versions.boot,
        tokens=registrar.tokens.encode() if registrar else b"",
        names=registrar.encode() if registrar else b"",
        standing=machine.engine.conflict.standing,
        epoch=parts.wall.epoch,
    )
    return replace(state, items=tuple(parts.store.items()))


# -- a disk that does not write ----------------------------------------------------------------


def test_what_cannot_be_stored_is_not_announced_and_is_once_it_can() -> None:
    world = settled(3)
    machine = world["node2"]
    machine.disk.fail(FULL)
    machine.add_pod("web")  # taken before anyone could know that the disk is full
    world.run(world.now + 10.0)
    assert machine.engine.not_stored
    assert not knows_pod(world, "node1", "web")
    check(world)
    machine.disk.fail(0)
    world.run_until(lambda: knows_pod(world, "node1", "web"), timeout=5.0)
    assert not machine.engine.not_stored
    world.run_until(lambda: knows_pod(world, "node3", "web"), timeout=1.0)
    check(world)


def test_what_could_not_be_stored_is_part_of_what_is_stored_next() -> None:
    world = settled(3)
    machine = world["node2"]
    world.run(world.now + 5.0)
    machine.disk.fail(4)
    before = dict(machine.disk.entries)
    machine.add_pod("web")
    world["node1"].add_pod("db")
    machine.perform(machine.engine.on_endpoints((Endpoint("192.0.2.1", 1),), world.now))
    assert machine.disk.entries == before
    machine.remove_pod("web")
    world.run(world.now + 10.0)
    assert machine.stored == everything(machine)
    differ = {key for key, value in machine.disk.entries.items() if before.get(key) != value}
    # Its record and the other's, and the address that rests; no pod.
    assert {key[:7] for key in differ} == {b"items/n", b"resting"}


def test_a_change_is_stored_as_what_differs_and_not_as_all_that_is_known() -> None:
    world = settled(5)
    world.run(world.now + 5.0)
    machine = world["node2"]
    own = b"items/" + node_key(machine.membership.identity.node)
    _, effects = machine.engine.add_pod("web", "/ns", None, world.now)
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert [key for key, _ in persist.changes] == [own, b"pods/web"]
    machine.perform(effects)
    _, effects = machine.engine.remove_pod("web", world.now)
    (persist,) = [effect for effect in effects if isinstance(effect, Persist)]
    # So soon after the first change, the record is made anew later.
    assert [key for key, _ in persist.changes] == [b"pods/web", b"resting/1.2"]
    assert dict(persist.changes)[b"pods/web"] is None


def test_items_that_are_not_taken_over_at_a_start_leave_the_disk() -> None:
    world = settled(2)
    stranger = World(9).membership("node9").identity
    foreign = sign_record(stranger, version=1)
    machine = world["node2"]
    world.crash("node2")
    state = machine.stored
    machine.disk.restore(replace(state, items=(*state.items, foreign)).entries())
    machine.start()
    world.run(world.now + 5.0)
    assert foreign not in machine.stored.items
    assert machine.stored == everything(machine)


def test_without_sync_a_loss_of_power_takes_back_what_was_announced() -> None:
    """What a disk that breaks its promise costs: the check above sees it."""
    world = settled(3, check=False)
    machine = world["node2"]
    world.run(world.now + 5.0)
    machine.add_pod("kept")
    world.run(world.now + 2.0)
    world.power_loss("node2")
    check(world)
    machine.start()
    world.run(world.now + MEETING)
    machine.disk.fsync = False
    machine.add_pod("lost")
    world.run_until(lambda: knows_pod(world, "node1", "lost"), timeout=5.0)
    world.power_loss("node2")
    assert any("is at node1" in lost for lost in announced_but_not_stored(world))


def test_what_waited_for_a_session_is_not_sent_when_it_could_not_be_stored() -> None:
    world = settled(3)
    machine = world["node2"]
    machine.add_pod("web")
    world.run(world.now + 5.0)
    world.restart("node2")  # no session yet: whatever is announced has to wait for one
    machine.disk.fail(FULL)
    machine.remove_pod("web")
    world.run(world.now + 5.0)
    assert machine.snapshot().sessions
    assert knows_pod(world, "node1", "web")
    check(world)


def test_a_start_that_cannot_be_stored_is_not_announced() -> None:
    world = settled(3)
    world.crash("node2")
    world["node2"].disk.fail(FULL)
    world.restart("node2")
    world.every(0.05, lambda: check(world))
    world.run(world.now + 5.0)
    assert not world["node2"].live  # as the daemon ends: the next start would be number 2, too
    world["node2"].disk.fail(0)
    world.restart("node2")
    world.run(world.now + 5.0)
    node = world["node2"].membership.identity.node
    assert world["node1"].engine.parts.catalog.nodes[node].boot == 2


def test_requests_are_refused_while_nothing_can_be_stored() -> None:
    world = settled(3)
    for name in ("node1", "node2"):
        world[name].disk.fail(FULL)
        world[name].add_pod("first")
    assert refused(world["node1"].mint_token) == "not-stored"
    assert refused(world["node2"].add_pod, "second") == "not-stored"
    assert refused(world["node2"].leave) == "not-stored"
    assert "second" not in world["node2"].engine.parts.holdings.pods


def test_the_failure_is_reported_once_and_the_disk_is_tried_again() -> None:
    world = settled(1)
    world["node1"].disk.fail(5, "read-only file system")
    world["node1"].add_pod("web")
    world.run(world.now + 2.5)
    (report,) = world.trace.notes("state.not-stored", "node1")
    assert report.fields["why"] == "read-only file system"
    world.run(world.now + 5.0)
    assert [pod.name for pod in world["node1"].stored.pods] == ["web"]
    assert world["node1"].snapshot().problems == ()


def test_a_block_request_is_refused_without_saying_what_is_wrong_here() -> None:
    world = settled(1)
    world["node1"].disk.fail(FULL, "/secret/path is full")
    world["node1"].add_pod("web")
    world.add_node("node2")
    world.run(world.now + 3.0)
    (problem, *_) = world["node2"].snapshot().problems
    assert problem.code == "no-block"
    assert "cannot store" in problem.why
    assert "secret" not in problem.why
    assert len(world["node1"].engine.parts.holdings.owned()) == 256


def test_a_joiner_is_refused_while_nothing_can_be_stored_and_its_token_stays_good() -> None:
    world = settled(1)
    token = world["node1"].mint_token()
    world["node1"].disk.fail(FULL)
    world["node1"].add_pod("web")
    early = world.join("node2", token)
    world.run(world.now + 3.0)
    assert early.failure is not None
    assert early.failure.code == "not-stored"
    world["node1"].disk.fail(0)
    world.run(world.now + 2.0)
    late = world.join("node3", token)
    world.run(world.now + 3.0)
    assert late.failure is None
    assert "node3" in world.machines


def test_a_grant_that_could_not_be_stored_is_not_given_to_who_asks_again() -> None:
    world = settled(1)
    token = world["node1"].mint_token()
    world["node1"].disk.fail(FULL)
    applicant = world.join("node2", token)
    world.run(world.now + 3.0)
    assert applicant.failure is not None
    assert applicant.failure.code == "not-stored"
    assert "node2" not in world.machines
