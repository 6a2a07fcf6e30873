"""Changes go at once after a pause, and together when they come in a row."""

from __future__ import annotations

from overlay.pace import Pace
from overlay.sim import World
from overlay.sim.machine import Machine
from tests.sim.worlds import settled


def test_the_first_change_after_a_pause_goes_at_once() -> None:
    pace = Pace(0.5)
    assert pace.on_change(0.0)
    pace.on_announced(0.0)
    assert pace.due_at is None
    assert pace.on_change(0.5)


def test_changes_in_a_row_wait_for_the_end_of_the_interval_and_no_longer() -> None:
    pace = Pace(0.5)
    pace.on_announced(1.0)
    for now in (1.1, 1.2, 1.4):
        assert not pace.on_change(now)
        assert pace.due_at == 1.5
    assert not pace.is_due(1.49)
    assert pace.is_due(1.5)


def test_what_may_wait_longer_goes_with_what_may_not() -> None:
    pace = Pace(0.5)
    assert not pace.on_change(5.0, wait=2.0)
    assert pace.due_at == 7.0
    assert pace.on_change(5.5)
    pace.on_announced(5.5)
    assert pace.due_at is None


def version(machine: Machine) -> int:
    parts = machine.engine.parts
    return parts.store.get(parts.own_key).version


def pods_known_to(world: World, name: str) -> set[str]:
    return {pod.name for pod in world[name].snapshot().pods}


def test_a_hundred_pods_at_once_make_a_handful_of_versions() -> None:
    world = settled(3)
    machine = world["node2"]
    before = version(machine)
    writes = machine.disk.writes
    for number in range(100):
        machine.add_pod(f"web-{number}")
        world.run(world.now + 0.01)
    assert machine.disk.writes - writes >= 100, "each is stored when it is answered"
    world.run(world.now + 2.0)
    assert 2 <= version(machine) - before <= 5
    assert len(pods_known_to(world, "node3")) == 100


def test_what_was_not_announced_before_a_crash_is_after_it() -> None:
    world = settled(2)
    machine = world["node2"]
    machine.add_pod("first")
    machine.add_pod("second")
    world.crash("node2")
    world.restart("node2")
    world.run(world.now + 3.0)
    assert pods_known_to(world, "node1") == {"first", "second"}


def test_a_block_given_away_is_told_at_once_and_the_number_of_the_rest_later() -> None:
    world = settled(2)
    founder = world["node1"]
    world.run(world.now + 5.0)
    before = version(founder)
    world.add_node("node3")
    world.run_until(lambda: bool(world["node3"].snapshot().own_prefixes), timeout=1.5)
    assert version(founder) == before
    world.run(world.now + 3.0)
    assert version(founder) == before + 1
    free = founder.engine.parts.holdings.free_count()
    record = world["node2"].engine.parts.catalog.nodes[founder.membership.identity.node]
    assert record.free_blocks == free
