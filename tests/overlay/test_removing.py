"""Tests of overlay.removing: what `muslin remove` refuses, and what it does at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.catalog.records import sign_record
from overlay.catalog.removals import Removal, sign_removal
from overlay.effects import RemovalShown
from overlay.errors import RefusedError
from overlay.sim import World
from overlay.types import NodeId
from overlay.versions import TOMBSTONE
from overlay.views import NodeState
from overlay.wire.messages import Delta
from tests.sim.worlds import routes_to, settled


def refused(world: World, by: str, name: str, **options: bool) -> RefusedError:
    before = world[by].snapshot()
    with pytest.raises(RefusedError) as caught:
        world[by].remove(name, **options)
    assert world[by].snapshot() == before
    return caught.value


def with_a_dead_node() -> World:
    """Three nodes of which node3 is off and known to be."""
    world = settled(3)
    world["node3"].add_pod("web")
    world.run(world.now + 1.0)
    world.crash("node3")
    world.run_until(lambda: state_of(world, "node3") is NodeState.DEAD, timeout=120.0)
    return world


def state_of(world: World, name: str, seen_by: str = "node1") -> NodeState:
    return {node.name: node.state for node in world[seen_by].snapshot().nodes}[name]


def test_only_the_authoritys_node_removes_and_not_itself() -> None:
    world = settled(2)
    assert refused(world, "node2", "node1").code == "not-authority"
    assert refused(world, "node1", "node1").code == "itself"
    assert refused(world, "node1", "nobody").code == "no-such-node"


def test_a_node_that_is_heard_is_removed_only_by_force() -> None:
    world = settled(2)
    error = refused(world, "node1", "node2")
    assert (error.code, "--force" in error.fix) == ("node-alive", True)
    world["node1"].remove("node2", force=True)
    assert state_of(world, "node2") is NodeState.REMOVED


def test_a_node_that_left_or_was_removed_is_not_removed_again() -> None:
    world = with_a_dead_node()
    world["node1"].remove("node3")
    assert refused(world, "node1", "node3").code == "already-removed"
    world["node2"].leave()
    world.run_until(lambda: world["node2"].left, timeout=10.0)
    assert refused(world, "node1", "node2", force=True).code == "has-left"


def test_a_node_that_left_is_removed_when_its_deeds_were_lost() -> None:
    world = settled(2, check=False)  # no disk has stored that tombstone
    (block,) = world["node2"].engine.parts.holdings.owned()
    founder = world["node1"]
    tombstone = sign_record(world["node2"].membership.identity, version=TOMBSTONE, left=True)
    founder.engine.parts.gossip.on_message(NodeId(bytes(32)), Delta((tombstone,)), founder.now)
    founder.engine._steward.learn(founder.now)
    assert state_of(world, "node2") is NodeState.LEFT
    founder.remove("node2")
    assert founder.engine.parts.catalog.titles.owner(block) == founder.membership.identity.node


def quiet_member(world: World) -> str:
    """A member with a certificate made by hand, of which nobody has a record; returns its id."""
    quiet = world.add_node("quiet")
    quiet.engine.parts.gossip.mute(True)
    quiet.engine.parts.peering.drop_waiting()
    identity = quiet.membership.identity
    world.run_until(lambda: talks_to(world, identity.node.hex()), timeout=5.0)
    return identity.node.hex()


def talks_to(world: World, node: str, name: str = "node1") -> bool:
    return node in {session.id for session in world[name].snapshot().sessions}


def test_a_member_that_keeps_quiet_is_removed_by_the_id_of_its_session() -> None:
    world = settled(2)
    node = quiet_member(world)
    assert refused(world, "node1", "quiet").code == "no-such-node"
    world["node1"].remove(node)
    world.run_until(lambda: not talks_to(world, node), timeout=5.0)
    assert refused(world, "node1", node, force=True).code == "already-removed"


def test_an_id_that_was_never_heard_takes_force_and_the_own_one_does_not_help() -> None:
    world = settled(2)
    nobody, own = "ab" * 32, world["node1"].membership.identity.node.hex()
    error = refused(world, "node1", nobody)
    assert (error.code, "--force" in error.fix) == ("no-such-node", True)
    assert refused(world, "node1", own, force=True).code == "itself"
    world["node1"].remove(nobody, force=True)
    assert NodeId(bytes.fromhex(nobody)) in world["node1"].engine.parts.catalog.removed


def test_of_two_nodes_with_one_name_the_id_says_which_is_meant() -> None:
    world = settled(3)
    older = world["node3"].membership.identity.node
    world.crash("node3")
    catalog = world["node1"].engine.parts.catalog
    record = catalog.nodes[older]
    later = replace(record.certificate, node=NodeId(bytes(32)), serial=99)
    catalog.nodes[NodeId(bytes(32))] = replace(record, certificate=later)
    assert catalog.by_name("node3").node != older
    world["node1"].remove(older.hex(), force=True)
    assert list(catalog.removed) == [older]


def test_its_routes_pods_and_session_are_gone_and_others_follow_within_seconds() -> None:
    world = with_a_dead_node()
    assert routes_to(world, "node3", seen_by="node2")
    world["node1"].remove("node3")
    for name in ("node1", "node2"):
        world.run_until(lambda name=name: not routes_to(world, "node3", name), timeout=10.0)
        shown = world[name].snapshot()
        assert [pod for pod in shown.pods if pod.node == "node3"] == []
        assert state_of(world, "node3", name) is NodeState.REMOVED
    world.run(world.now + 5.0)
    assert all(session.node != "node3" for session in world["node2"].snapshot().sessions)
    world.check_invariants()


def test_a_removed_node_that_comes_back_is_refused_everywhere_even_by_old_records() -> None:
    world = with_a_dead_node()
    world["node1"].remove("node3")
    world.run(world.now + 5.0)
    world.restart("node3")
    world.run(world.now + 20.0)
    for name in ("node1", "node2"):
        assert state_of(world, "node3", name) is NodeState.REMOVED
        assert routes_to(world, "node3", name) == []
        assert all(session.node != "node3" for session in world[name].snapshot().sessions)
    world.check_invariants()


def test_a_removed_node_that_still_runs_is_told_and_does_not_start_again() -> None:
    world = settled(3)
    world["node3"].add_pod("web")
    world["node1"].remove("node3", force=True)
    world.run(world.now + 5.0)
    (problem,) = [p for p in world["node3"].snapshot().problems if p.code == "removed"]
    assert "token" in problem.fix
    with pytest.raises(RefusedError) as caught:
        world["node3"].add_pod("more")
    assert caught.value.code == "node-removed"
    with pytest.raises(RefusedError) as caught:
        world["node3"].leave()
    assert caught.value.code == "node-removed"
    world.restart("node3")
    assert not world["node3"].live
    (note,) = world.trace.notes("machine.refused", "node3")
    assert "removed" in note.fields["why"]


def test_a_removed_node_that_was_off_learns_of_it_when_it_comes_back() -> None:
    world = with_a_dead_node()
    world["node1"].remove("node3")
    world.run(world.now + 5.0)
    world.restart("node3")
    shown = lambda: {problem.code for problem in world["node3"].snapshot().problems}  # noqa: E731
    assert "removed" not in shown()
    world.run(world.now + 3.0)
    assert "removed" in shown()
    assert all(session.node != "node3" for session in world["node1"].snapshot().sessions)
    world.restart("node3")
    assert not world["node3"].live


def test_a_removal_that_the_authority_did_not_sign_impresses_nobody() -> None:
    world = settled(2)
    machine, liar = world["node2"], world["node1"].membership.identity
    world.inspector.excuse(liar.node)
    forged = sign_removal(
        liar.signing,  # it has the authority's key, but this is its own
        Removal(machine.membership.identity.node, 0, "node2", 1),
        cluster=liar.certificate.cluster,
    )
    machine.perform(machine.engine._settle([RemovalShown(liar.node, forged.body)], machine.now))
    world.run(world.now + 3.0)
    # What it shows is that node1 lies, and nothing else.
    assert [one.code for one in machine.snapshot().problems] == ["member-forged-removal"]
    assert machine.engine.parts.holdings.ended is None


def test_the_name_of_a_removed_node_is_free_but_its_keys_are_not() -> None:
    world = settled(1)
    world.join("twin")
    world.run_until(world.converged, timeout=5.0)
    registrar = world["node1"].engine.parts.registrar
    world.crash("twin")
    world["node1"].remove("twin", force=True)
    assert registrar is not None
    assert world["node1"].engine._steward.gone_names(registrar) == {"twin"}


def test_a_node_that_was_certified_and_never_seen_can_be_removed_by_name() -> None:
    world = settled(2)
    registrar = world["node1"].engine.parts.registrar
    assert registrar is not None
    ghost = world.membership("ghost").identity.node
    registrar.reserve("ghost", ghost)
    assert refused(world, "node1", "spectre").code == "no-such-node"
    world["node1"].remove("ghost")
    assert ghost in world["node1"].engine.parts.catalog.removed


@pytest.mark.parametrize("went", ["left", "removed"])
def test_nobody_is_waited_for_who_got_the_name_of_one_that_is_gone_and_never_came(went) -> None:
    world = settled(3)
    founder, gone = world["node1"], world["node3"]
    registrar = founder.engine.parts.registrar
    assert registrar is not None
    if went == "left":
        gone.leave()
        world.run_until(lambda: gone.left, timeout=10.0)
    else:
        founder.remove("node3", force=True)
    ghost = world.membership("ghost").identity.node
    registrar.reserve("node3", ghost)  # as a join that was granted and then given up
    founder.remove("node2", force=True)
    assert founder.engine.landlord.waiting_for() == ["node3"]
    founder.remove("node3")
    assert ghost in founder.engine.parts.catalog.removed
    assert founder.engine.landlord.waiting_for() == []
    assert refused(world, "node1", "node3").code in ("has-left", "already-removed")


def test_a_removal_that_cannot_be_stored_is_not_announced() -> None:
    world = with_a_dead_node()
    world["node1"].disk.fail(1_000)
    world["node1"].remove("node3")  # noticed only when it is written
    world.run(world.now + 5.0)
    assert state_of(world, "node3", seen_by="node2") is NodeState.DEAD
    with pytest.raises(RefusedError) as caught:
        world["node1"].remove("node3")
    assert caught.value.code == "not-stored"
    world["node1"].disk.fail(0)
    world.run_until(lambda: state_of(world, "node3", "node2") is NodeState.REMOVED, timeout=10.0)
