"""Proofs: who dies is noticed; who is slow, paused, far or cut off for a while is not killed."""

from __future__ import annotations

import pytest

from overlay.gossip.awareness import Awareness
from overlay.gossip.hearsay import Hearsay
from overlay.gossip.probe import Probes
from overlay.sim import Link, World
from overlay.views import NodeState
from tests.sim.worlds import settled

BAD = Link(latency=0.02, jitter=0.01, loss=0.25)


def states(world: World, name: str) -> set[NodeState]:
    """What all other nodes that run think of `name`."""
    return {
        {node.name: node.state for node in machine.snapshot().nodes}[name]
        for machine in world.live()
        if machine.name != name
    }


def deaths(world: World) -> set[tuple[str, str]]:
    """Who was declared dead so far, and by whom."""
    found = set()
    for name in world.machines:
        found |= {(name, note.fields["peer"]) for note in world.trace.notes("member.dead", name)}
    return found


def seen_dead(world: World) -> set[str]:
    return {peer for _, peer in deaths(world)}


def test_a_crash_is_noticed_by_all_of_eight_within_eight_seconds() -> None:
    for seed in range(1, 4):
        world = settled(8, seed=seed)
        world.run(world.now + 3.0)
        world.crash("node5")
        took = world.run_until(lambda w=world: states(w, "node5") == {NodeState.DEAD}, 8.0)
        assert 5.0 <= took <= 8.0
        assert deaths(world) == {(m.name, "node5") for m in world.live()}
        routes = {(r.node, r.stale) for r in world["node1"].snapshot().routes}
        assert ("node5", True) in routes  # they stay, and show it
        assert {stale for node, stale in routes if node != "node5"} == {False}


def test_a_pause_of_five_seconds_kills_nobody() -> None:
    for seed in range(1, 4):
        world = settled(8, seed=seed)
        world.run(world.now + 3.0)
        world["node5"].pause()
        world.run(world.now + 5.0)
        assert states(world, "node5") == {NodeState.SUSPECT}
        world["node5"].resume()
        world.run_until(lambda w=world: states(w, "node5") == {NodeState.READY}, 3.0)
        world.run(world.now + 10.0)
        assert deaths(world) == set()


def test_a_machine_that_was_suspended_for_a_minute_blames_nobody_when_it_wakes() -> None:
    world = settled(8)
    world.run(world.now + 3.0)
    world["node5"].pause()
    world.run(world.now + 60.0)
    assert states(world, "node5") == {NodeState.DEAD}
    world["node5"].resume()
    world.run_until(lambda: states(world, "node5") == {NodeState.READY}, 5.0)
    world.run(world.now + 20.0)
    assert seen_dead(world) == {"node5"}
    assert world.converged()


def test_halves_that_took_each_other_for_dead_merge_and_agree_within_five_seconds() -> None:
    for seed in range(1, 4):
        world = settled(8, seed=seed)
        names = list(world.machines)
        world.partition(names[:4], names[4:])
        world.run(world.now + 30.0)
        assert len(deaths(world)) == 4 * 4 * 2
        world["node2"].add_pod("here")
        world["node7"].add_pod("there")
        world.run(world.now + 2.0)
        world.heal()

        def agree(world: World = world) -> bool:
            known = [{pod.name for pod in m.snapshot().pods} for m in world.live()]
            ready = all(states(world, name) == {NodeState.READY} for name in world.machines)
            return ready and world.converged() and all(pods == {"here", "there"} for pods in known)

        assert world.run_until(agree, 5.0) <= 5.0
        assert len(deaths(world)) == 4 * 4 * 2  # and nobody of their own side meanwhile


def test_a_node_that_only_some_can_reach_is_not_taken_for_dead() -> None:
    world = settled(8)
    for other in ("node1", "node2", "node3", "node4"):
        world.cut("node5", other)
    world.run(world.now + 30.0)
    assert deaths(world) == set()
    paths = {node.name: node.path for node in world["node1"].snapshot().nodes}
    assert (paths["node5"], paths["node6"]) == ("none", "direct")
    assert [problem.code for problem in world["node1"].snapshot().problems] == ["no-path"]
    assert world["node6"].snapshot().problems == ()
    world.heal()
    world.run_until(lambda: world["node1"].snapshot().problems == (), 10.0)


def test_nobody_dies_of_a_path_that_loses_a_quarter() -> None:
    world = settled(8, link=BAD)
    world.run(world.now + 120.0)
    assert deaths(world) == set()
    assert world.converged()
    world.crash("node3")
    world.run_until(lambda: states(world, "node3") == {NodeState.DEAD}, 20.0)


def test_a_new_pod_is_known_everywhere_in_a_moment_even_in_a_larger_cluster() -> None:
    world = settled(30)
    world.run(world.now + 3.0)

    def known() -> bool:
        return all(any(p.name == "web" for p in m.snapshot().pods) for m in world.live())

    world["node17"].add_pod("web")
    assert world.run_until(known, 1.0) <= 0.5


def test_with_a_quarter_of_all_datagrams_lost_a_new_pod_is_known_everywhere_soon() -> None:
    world = settled(12, link=BAD)
    world.run(world.now + 5.0)
    world["node7"].add_pod("web")
    world.run_until(
        lambda: all(any(p.name == "web" for p in m.snapshot().pods) for m in world.live()), 3.0
    )


def test_a_node_is_believed_again_as_soon_as_it_is_back() -> None:
    world = settled(8)
    world.crash("node5")
    world.run(world.now + 60.0)
    world.restart("node5")
    took = world.run_until(lambda: states(world, "node5") == {NodeState.READY}, 3.0)
    assert took <= 1.0
    assert states(world, "node1") == {NodeState.READY}


def test_everybody_keeps_sessions_with_few_others_only() -> None:
    world = settled(40, cidr6=None)
    world.run(world.now + 100.0)  # those of the joining have ended
    sessions = [len(machine.snapshot().sessions) for machine in world.live()]
    assert max(sessions) <= 20
    assert sum(sessions) / len(sessions) <= 14
    unknown = [n for n in world["node9"].snapshot().nodes if n.seen is None]
    assert len(unknown) >= 10
    assert {node.state for node in unknown} == {NodeState.READY}


# -- slow nodes ------------------------------------------------------------------------------------


def starve(world: World, name: str, awake: float, period: float) -> None:
    """Let a machine run for `awake` of every `period` seconds, from now on.

    When it wakes all its timers fire before it reads its socket, as they may.
    """
    machine = world[name]
    while (machine.engine.next_deadline() or world.now) < world.now:
        machine.perform(machine.engine.on_deadline(world.now))
    machine.resume()
    world.clock.at(world.now + awake, machine.pause)
    world.clock.at(world.now + period, lambda: starve(world, name, awake, period))


def false_deaths(seed: int) -> set[tuple[str, str]]:
    """Healthy nodes that were declared dead while two of eight were starved for two minutes."""
    world = settled(8, seed=seed)
    world.run(world.now + 3.0)
    slow = {"node3": (0.06, 2.0), "node6": (0.01, 7.0)}
    for name, (awake, period) in slow.items():
        starve(world, name, awake, period)
    world.run(world.now + 120.0)
    return {(by, dead) for by, dead in deaths(world) if dead not in slow}


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_node_without_processor_time_never_has_a_healthy_one_declared_dead(seed: int) -> None:
    assert false_deaths(seed) == set()


def test_without_the_refinements_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local health, lateness, confirmations, and other signs of life than acknowledgements, off."""
    monkeypatch.setattr(Awareness, "scale", lambda self, timeout: timeout)
    monkeypatch.setattr(Probes, "on_heard", lambda self, node, at: None)
    monkeypatch.setattr(Hearsay, "on_heard", lambda self, node, at, now: None)
    monkeypatch.setattr("overlay.gossip.liveness.LATE", float("inf"))
    monkeypatch.setattr("overlay.gossip.liveness.timeout", lambda c, k, least, most: least)
    assert any(false_deaths(seed) for seed in range(1, 5))


@pytest.mark.parametrize(("loss", "seed"), [(0.0, 1), (0.05, 2)])
def test_a_third_that_dies_at_once_is_noticed_and_nobody_else(loss: float, seed: int) -> None:
    world = settled(24, seed=seed, link=Link(latency=0.01, jitter=0.005, loss=loss))
    world.run(world.now + 5.0)
    gone = [f"node{number}" for number in range(3, 25, 3)]
    for name in gone:
        world.crash(name)
    world.run_until(lambda: all(states(world, name) == {NodeState.DEAD} for name in gone), 30.0)
    world.run(world.now + 10.0)
    assert seen_dead(world) == set(gone)
