"""Tests of what befalls single machines."""

from __future__ import annotations

import pytest

from overlay.errors import ConfigError
from overlay.sim import Power
from overlay.sim.mishaps import ClockRate, Slow
from overlay.sim.selection import Selection
from overlay.sim.world import EPOCH
from tests.overlay.sim.plays import event, play

NODE2 = '"node2"'


def test_a_pause_ends_by_itself():
    one = play(event(2, "pause", nodes=NODE2, seconds="3"))
    one.world.run(4.9)
    assert one.world["node2"].power is Power.PAUSED
    one.world.run(5.1)
    assert one.world["node2"].power is Power.RUNNING


def test_starvation_lasts_as_long_as_it_should():
    one = play(
        event(2, "slow", nodes=NODE2, seconds="3") + event(2, "slow", nodes='"node3"', share="1")
    )
    one.world.run(4.9)
    assert one.world["node2"].starved
    one.world.run(5.1)
    assert not one.world["node2"].starved
    assert one.world["node3"].starved
    with pytest.raises(ConfigError):
        Slow(nodes=Selection((1,)), share=5.0)


def test_disks_are_slow_and_full_for_a_while():
    one = play(
        event(2, "disk", nodes=NODE2, latency="0.5")
        + event(3, "full-disk", nodes='"node3"', seconds="2")
        + event(4, "pod-add", nodes='"node3"')
        + event(6, "pod-add", nodes='"node3"', label='"later"')
    )
    one.world.run(3.5)
    assert one.world["node2"].disk.latency == 0.5
    outcome = one.run()
    # The first one is kept in memory, or refused if the node knew already that it stores nothing.
    pods = one.world["node3"].engine.parts.holdings.pods.values()
    assert max(pod.since for pod in pods) == int(EPOCH) + 6
    assert one.world.trace.notes("disk.failed", "node3")
    assert outcome.agree


def test_clocks_are_stepped_and_drift():
    one = play(
        event(2, "clock-step", nodes=NODE2, seconds="-60")
        + event(2, "clock-rate", nodes=NODE2, ppm="1e5")
    )
    one.world.run(1.0)
    epoch = one.world["node2"].time.epoch
    one.world.run(12.0)
    assert one.world["node2"].time.epoch == epoch - 60.0
    assert one.world["node2"].now == pytest.approx(13.0)
    with pytest.raises(ConfigError):
        ClockRate(nodes=Selection((1,)), ppm=-1e6)


def test_a_moved_machine_has_another_address():
    one = play(event(2, "move", nodes=NODE2))
    one.world.run(1.0)
    before = one.world["node2"].endpoint
    assert one.run().agree
    assert one.world["node2"].endpoint != before


def test_a_machine_is_put_back_to_its_last_backup():
    one = play(
        event(2, "backup", nodes=NODE2)
        + event(3, "pod-add", nodes=NODE2)
        + event(5, "restore", nodes='"all"'),
        until=6,
    )
    one.run()
    assert [note.fields["machine"] for note in one.world.trace.notes("disk.restored")] == ["node2"]
    assert one.world["node2"].engine.parts.holdings.pods == {}


def test_clones_run_beside_their_originals_and_are_judged_by_nobody():
    one = play(event(2, "clone", nodes=NODE2, every="1", times="2"), until=50)
    outcome = one.run()
    assert {"node2-clone1", "node2-clone2"} <= one.world.machines.keys()
    assert one.world["node2-clone1"].live
    assert not outcome.deaths.subjects & {"node2", "node2-clone1"}
