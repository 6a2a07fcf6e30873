"""Tests of the member that lies: it does, and nobody believes what is not its own."""

from __future__ import annotations

import random

import pytest

from overlay.sim import World
from overlay.sim.hostile import NAME, Hostile
from tests.sim.worlds import settled


@pytest.fixture
def world() -> World:
    return settled(3)


def hostile_in(world: World) -> Hostile:
    hostile = Hostile(world, random.Random(1))
    assert hostile.act() == "joins"
    world.run_until(world.converged, timeout=20.0)
    return hostile


def test_it_joins_is_not_judged_and_its_lies_do_no_harm(world):
    hostile = hostile_in(world)
    world[NAME].engine.ledger.tun_in += 1
    said = set()
    for _ in range(60):
        said.add((hostile.act() or "nothing").split()[0])
        world.run(world.now + 0.2)
    assert {"forges", "repeats", "says", "jumps"} <= said
    refused = [world[name].engine.parts.store.refused for name in ("node1", "node2", "node3")]
    assert sum(refused) > 0
    world.crash(NAME)
    for _ in range(60):
        world.run(world.now + 0.5)
    assert world.settled()


def test_it_signs_a_block_of_its_own_over_twice(world):
    hostile = hostile_in(world)
    signed = set()
    for _ in range(100):
        done = hostile.act() or ""
        if done.startswith("signs block"):
            signed.add(int(done.split()[2]))
        world.run(world.now + 0.5)
        if world.inspector.register.forked:
            break
    assert world.inspector.register.forked <= signed
    assert signed


def test_it_does_nothing_while_it_is_off(world):
    hostile = hostile_in(world)
    world.crash(NAME)
    assert hostile.act() is None
