"""Tests of what acts have in common."""

from __future__ import annotations

import pytest

from overlay.sim.mishaps import Move
from overlay.sim.selection import Selection
from overlay.sim.stage import Act, runs
from tests.overlay.sim.plays import play


def test_what_is_done_to_running_machines_spares_the_others():
    one = play("")
    one.world.run(1.0)
    one.world["node2"].pause()
    one.world.crash("node3")
    assert Move(nodes=Selection(("all",))).targets(one) == ["node1", "node4"]
    assert [runs(machine) for machine in one.world.machines.values()] == [True, False, False, True]


def test_an_act_that_does_not_say_what_it_does_is_none():
    with pytest.raises(TypeError):
        Act()
