"""Tests of single steps: each does what its name says, or says that it cannot."""

from __future__ import annotations

import pytest

from overlay.errors import RefusedError
from overlay.sim import Power
from overlay.sim.schedules import Schedule
from overlay.sim.steps import STEPS

DO = {name: step for name, _, step in STEPS}


@pytest.fixture
def schedule() -> Schedule:
    """A small settled world."""
    schedule = Schedule(2)
    schedule.most = 10
    schedule.world.run_until(schedule.world.converged, timeout=60.0)
    return schedule


def powers(schedule: Schedule) -> list[Power]:
    return [machine.power for machine in schedule.world.machines.values()]


@pytest.mark.parametrize(
    ("name", "after"),
    [("crash", Power.OFF), ("power-loss", Power.OFF), ("pause", Power.PAUSED)],
)
def test_a_machine_stops_and_goes_on(schedule, name, after):
    assert DO[name](schedule) in schedule.world.machines
    assert powers(schedule).count(after) == 1
    back = "resume" if after is Power.PAUSED else "start"
    assert DO[back](schedule) is not None
    assert powers(schedule).count(after) == 0
    assert DO[back](schedule) is None  # there is none left


def test_a_node_joins_until_there_are_enough(schedule):
    before = len(schedule.world.machines)
    while DO["join"](schedule) is not None:
        schedule.world.run(schedule.world.now + 1.0)
    assert len(schedule.world.machines) == schedule.most > before


def test_pods_come_and_go(schedule):
    assert DO["remove-pod"](schedule) is None
    assert DO["add-pod"](schedule).startswith("node")
    for _ in range(10):  # it may draw a node that has none
        if DO["remove-pod"](schedule):
            break
    pods = [p for m in schedule.world.live() for p in m.engine.parts.holdings.pods]
    assert pods == []


def test_a_wanted_address_is_given_or_refused(schedule):
    answers = []
    for _ in range(30):
        try:
            answers.append(DO["add-fixed-pod"](schedule))
        except RefusedError as refused:
            answers.append(refused.code)
    assert {"address-taken", "address-not-ours"} <= set(answers)
    assert any(" 10.244." in answer for answer in answers)


def test_the_network_is_cut_and_healed(schedule):
    cuts = schedule.world.underlay.cuts
    names = list(schedule.world.machines)
    assert DO["partition"](schedule)
    assert DO["cut"](schedule)
    pairs = [(a, b) for a in names for b in names if cuts.severed(a, b)]
    assert pairs
    assert DO["heal"](schedule) == ""
    assert not any(cuts.severed(a, b) for a in names for b in names)


def test_a_disk_fails_and_is_mended(schedule):
    assert "times" in DO["fail-disk"](schedule)
    assert DO["mend-disk"](schedule) in schedule.world.machines


def test_a_slow_disk_and_a_clock_that_was_set_are_right_again_in_the_end(schedule):
    name = DO["slow-disk"](schedule).split(",")[0]
    assert schedule.world[name].disk.latency > 0.0
    right = {name: machine.time.epoch for name, machine in schedule.world.machines.items()}
    name = DO["step-clock"](schedule).split(",")[0]
    assert schedule.world[name].time.epoch != right[name]
    schedule._end_faults()
    assert not any(machine.disk.latency for machine in schedule.world.machines.values())
    assert {name: one.time.epoch for name, one in schedule.world.machines.items()} == right


def test_state_comes_back_by_backup_and_by_copy(schedule):
    assert DO["restore"](schedule) is None
    name = DO["back-up"](schedule)
    assert DO["restart"](schedule)
    assert DO["restore"](schedule) == name
    assert (
        schedule.world[name].membership.identity.node in schedule.world.inspector.register.suspects
    )
    assert " as copy-of-" in DO["clone"](schedule)
    assert DO["clone"](schedule) is None


def test_nobody_leaves_a_cluster_of_two(schedule):
    for machine in list(schedule.world.machines.values())[2:]:
        machine.crash()
    assert DO["leave"](schedule) is None
