"""Tests of telling false deaths from true ones."""

from __future__ import annotations

import pytest

from overlay.sim import World
from overlay.sim.deaths import GRACE, Deaths
from overlay.sim.faults import Starvation


@pytest.fixture
def world() -> World:
    """Three nodes that have been well for long."""
    world = World(1)
    for name in ("node2", "node3"):
        world.add_node(name)
    world.run(20.0)
    return world


def declare(world: World, node: str, peer: str) -> None:
    world.trace.note("member.dead", node, {"peer": peer}, world.now)


def test_a_healthy_node_that_is_declared_dead_is_an_error(world):
    deaths = Deaths(world)
    declare(world, "node1", "node2")
    declare(world, "node3", "node2")
    assert (deaths.reports, deaths.false_reports) == (2, 2)
    assert deaths.false_subjects == deaths.subjects == {"node2"}


@pytest.mark.parametrize(
    "suffer",
    [
        lambda world: world.crash("node2"),
        lambda world: world["node2"].pause(),
        lambda world: world["node2"].starve(Starvation()),
        lambda world: world.cut("node1", "node2", one_way=True),
        lambda world: world.cut("node2", "node1", one_way=True),
    ],
)
def test_a_node_that_suffers_may_be_declared_dead(world, suffer):
    deaths = Deaths(world)
    suffer(world)
    declare(world, "node1", "node2")
    assert deaths.subjects == {"node2"}
    assert deaths.false_subjects == set()


@pytest.mark.parametrize(
    ("suffer", "recover"),
    [
        (lambda world: world.crash("node2"), lambda world: world.restart("node2")),
        (lambda world: world["node2"].pause(), lambda world: world["node2"].resume()),
        (
            lambda world: world["node2"].starve(Starvation()),
            lambda world: world["node2"].starve(None),
        ),
        (lambda world: world.cut("node1", "node2"), lambda world: world.heal()),
        (lambda world: None, lambda world: world.move("node2")),
    ],
)
def test_after_that_for_a_while_and_not_for_ever(world, suffer, recover):
    deaths = Deaths(world)
    suffer(world)
    world.run(world.now + 1.0)
    recover(world)
    world.run(world.now + GRACE - 0.1)
    declare(world, "node1", "node2")
    assert deaths.false_subjects == set()
    world.run(world.now + 0.2)
    declare(world, "node1", "node2")
    assert deaths.false_subjects == {"node2"}


def test_the_report_it_counts_is_the_one_that_engines_make(world):
    deaths = Deaths(world)
    world.crash("node2")
    world.run(world.now + 60.0)
    assert deaths.subjects == {"node2"}
    assert deaths.reports == 2
