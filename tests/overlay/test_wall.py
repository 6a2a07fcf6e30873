"""Tests of overlay.wall."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from overlay.sim import World
from overlay.views import NodeState
from overlay.wall import Wall, rfc3339
from overlay.wire.packing import MAX_TIME
from tests.sim.worlds import settled

YEAR = 365 * 86_400.0


def test_setting_the_clock_moves_the_wall_and_nothing_else() -> None:
    wall = Wall(1000.0)
    assert wall.at(5.0) == 1005.0
    wall.epoch = 500.0
    assert wall.at(5.0) == 505.0


@given(st.integers(0, MAX_TIME))
@example(951_782_400)  # 29 February of a year that 400 divides
@example(4_107_542_399)  # the last second of a February without one, which 100 divides
def test_moments_are_those_of_the_calendar(unix: int) -> None:
    expected = datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")
    assert rfc3339(unix) == expected


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
    assert world["node1"].engine.parts.sessions.peers  # nobody was forgotten
    world.add_node("late")
    world.run(world.now + 3.0)
    assert "late" in {node.name for node in world["node2"].snapshot().nodes}
    assert len({machine.engine.parts.store.root() for machine in world.live()}) == 1
    engine.on_clock(engine.parts.wall.epoch + 20 * YEAR)  # all certificates have ended
    world.run(world.now + 3.0)
    assert not engine.parts.sessions.keypairs
    engine.on_clock(engine.parts.wall.epoch - 19 * YEAR)
    world.run_until(world.converged, timeout=60.0)
