"""Tests of overlay.wall."""

from __future__ import annotations

from overlay.sim import World
from overlay.views import NodeState
from overlay.wall import Wall
from tests.sim.worlds import settled

YEAR = 365 * 86_400.0


def test_setting_the_clock_moves_the_wall_and_nothing_else() -> None:
    wall = Wall(1000.0)
    assert wall.at(5.0) == 1005.0
    wall.epoch = 500.0
    assert wall.at(5.0) == 505.0


def states(world: World) -> set[NodeState]:
    return {node.state for machine in world.live() for node in machine.snapshot().nodes}


def test_a_clock_that_is_set_kills_nobody_and_reaches_certificates_and_pods() -> None:
    world = settled(3)
    engine = world["node2"].engine
    engine.on_clock(engine.parts.wall.epoch + YEAR)
    world.run(world.now + 60.0)
    assert states(world) == {NodeState.READY}
    since = world["node2"].add_pod("web").since
    assert since - engine.parts.wall.epoch < world.now + 1.0
    engine.on_clock(engine.parts.wall.epoch - 2 * YEAR)  # all certificates are from the future
    world.run(world.now + 60.0)
    assert states(world) == {NodeState.READY}
    assert world["node1"].engine.parts.sessions._peers  # nobody was forgotten
    world.add_node("late")
    world.run(world.now + 3.0)
    assert "late" not in {node.name for node in world["node2"].snapshot().nodes}
    engine.on_clock(engine.parts.wall.epoch + YEAR)
    world.run_until(world.converged, timeout=60.0)
