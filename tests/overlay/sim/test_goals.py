"""Tests of questions to nodes: each turns from no to yes when, and only when, it should."""

from __future__ import annotations

import pytest

from overlay.sim import World, goals
from overlay.sim.goals import identity


@pytest.fixture
def world() -> World:
    """Three settled nodes."""
    world = World(1)
    for name in ("node2", "node3"):
        world.add_node(name)
    world.run_until(world.converged, timeout=5.0)
    world.run(world.now + 1.0)
    return world


def holds(world: World, goal: goals.Goal, observers: str = "node1 node3") -> list[bool]:
    return [goal(world[name]) for name in observers.split()]


def test_a_route_is_there_when_packets_would_take_it(world):
    goal = goals.routes_to(lambda: world.machines.get("node4"))
    assert holds(world, goal) == [False, False]
    world.partition(["node3"], ["node1", "node2", "node4"])
    world.add_node("node4")
    world.run(world.now + 3.0)
    assert holds(world, goal, "node1 node2 node3 node4") == [True, True, False, True]
    world.crash("node4")
    assert holds(world, goal) == [False, False]


def test_a_route_to_a_later_block_is_there_when_that_block_is_used(world):
    machine = world["node1"]
    goal = goals.routes_to(lambda: machine, 1)
    assert holds(world, goal) == [False, False]
    world.partition(["node3"], ["node1", "node2"])
    pod = 0
    while len(machine.engine.parts.holdings.blocks_in_use) < 2:
        machine.add_pod(f"pod{(pod := pod + 1)}")
    world.run(world.now + 2.0)
    assert holds(world, goal) == [True, False]
    world.heal()
    world.run(world.now + 3.0)
    assert holds(world, goal) == [True, True]


def test_a_version_is_known_when_it_or_a_newer_one_arrived(world):
    machine = world["node2"]
    version = goals.own_version(machine)
    assert version > 0
    world.partition(["node3"], ["node1", "node2"])
    machine.add_pod("web")
    world.run(world.now + 2.0)
    newer = goals.own_version(machine)
    assert newer > version
    assert holds(world, goals.knows_version(identity(machine), version)) == [True, True]
    assert holds(world, goals.knows_version(identity(machine), newer)) == [True, False]


def test_a_pod_is_known_to_be_there_or_not(world):
    machine = world["node2"]
    there = goals.knows_pod(identity(machine), "web", there=True)
    gone = goals.knows_pod(identity(machine), "web", there=False)
    assert holds(world, there) == [False, False]
    assert holds(world, gone) == [True, True]
    machine.add_pod("web")
    world.run(world.now + 2.0)
    assert holds(world, there) == [True, True]
    machine.remove_pod("web")
    world.run(world.now + 2.0)
    assert holds(world, gone) == [True, True]
    assert holds(world, there) == [False, False]


def test_a_leave_is_known_and_settles_what_was_asked_of_its_pods(world):
    machine = world["node2"]
    left = goals.knows_left(identity(machine))
    pod = goals.knows_pod(identity(machine), "never", there=True)
    assert holds(world, left) == [False, False]
    machine.leave()
    world.run(world.now + 2.0)
    assert holds(world, left) == [True, True]
    assert holds(world, pod) == [True, True]


def test_a_death_is_noticed_and_a_later_start_settles_the_question(world):
    machine = world["node2"]
    boot = goals.own_version(machine) >> goals.BOOT_SHIFT
    dead = goals.holds_for_dead(identity(machine), boot)
    ready = goals.holds_for_ready(identity(machine))
    assert holds(world, dead) == [False, False]
    assert holds(world, ready, "node1 node2 node3") == [True, True, True]
    world.crash("node2")
    world.run_until(lambda: all(holds(world, dead)), timeout=60.0)
    assert holds(world, ready) == [False, False]
    world.restart("node2")
    world.run_until(lambda: all(holds(world, ready)), timeout=10.0)
    assert holds(world, dead) == [True, True]
