"""Tests of playing scenarios."""

from __future__ import annotations

import pytest

from overlay.errors import ConfigError
from overlay.sim.inspector import InvariantError
from overlay.sim.play import Play
from overlay.sim.scenario import parse
from tests.overlay.sim.plays import event, play


def test_a_cluster_begins_with_the_nodes_it_should_have_and_agrees():
    one = play("seeds = 2\nover = 3.0\n", nodes=6, until=15)
    outcome = one.run()
    (begin,) = outcome.events
    assert (begin.label, begin.at, len(begin.seconds), begin.missing) == ("begin", 3.0, 6, ())
    assert outcome.agree
    assert (outcome.nodes, outcome.now, outcome.broken) == (6, 15.0, "")
    assert outcome.checks > 20
    started = {note.node: note.at for note in one.world.trace.notes("machine.started")}
    assert started["node2"] == 0.0
    assert started["node6"] == 2.5


def test_events_repeat_and_draw_anew():
    one = play(event(5, "pod-add", nodes="1", every="2", times="8"), nodes=8, until=25)
    outcome = one.run()
    hit = [machine.name for machine in one.world.live() if machine.engine.parts.holdings.pods]
    assert len(hit) > 1
    assert "node1" not in hit
    assert outcome.events[1].times == 8


def test_a_refusal_is_counted_and_the_play_goes_on():
    one = play(
        event(2, "full-disk", nodes='"node2"', seconds="9")
        + event(4, "pod-add", nodes='"node2"', every="1", times="2")
    )
    outcome = one.run()
    assert outcome.refusals >= 1
    assert one.world.trace.notes("event.refused", "node2")


@pytest.mark.parametrize(
    "events",
    [
        event(2, "crash", nodes='"node9"'),
        '[groups]\nwest = "node9"\n',
        '[[nat]]\nnodes = "node1"\n',
    ],
)
def test_a_scenario_about_nodes_that_there_are_not_is_refused(events):
    with pytest.raises(ConfigError):
        play(events).run()


def test_clocks_are_as_wrong_as_the_scenario_says():
    one = play("clock_skew = 5.0\nclock_drift = 500.0\n", until=20)
    one.run()
    skews = [one.world[f"node{number}"].time.epoch for number in (2, 3, 4)]
    assert len(set(skews)) == 3
    assert one.world["node1"].now == 20.0
    assert one.world.converged()


def test_links_between_groups_hold_for_who_joins_them_later():
    one = play(
        '[groups]\nfar = "node2"\n[[links]]\nbetween = ["far", "node1"]\nlink = { latency = 0.3 }\n'
        + event(3, "join", group='"far"'),
        until=10,
    )
    one.run()
    pipe = one.world.underlay._pipe
    assert pipe("node5", "node1").link.latency == 0.3
    assert pipe("node3", "node1").link.latency == 0.01


def test_machines_behind_a_nat_are_members():
    one = play('[[nat]]\nnodes = "node2..node3"\nkind = "full-cone"\n', until=10)
    assert one.run().agree
    assert one.world["node2"].endpoint.host.startswith("172.16.")
    assert one.world["node4"].endpoint.host.startswith("198.18.")


def test_an_invariant_that_breaks_ends_the_play_and_is_named():
    one = play("", until=50)

    def broken() -> None:
        raise InvariantError("two owners", [])

    one.world.clock.at(7.5, broken)
    outcome = one.run()
    assert outcome.broken == "two owners"
    assert outcome.now < 9.0


def test_what_is_broken_in_the_end_counts_even_if_no_event_showed_it(monkeypatch):
    one = play("", until=5)

    def broken() -> None:
        raise InvariantError("two owners", [])

    monkeypatch.setattr(one.world, "check_invariants", broken)
    outcome = one.run()
    assert (outcome.broken, outcome.now) == ("two owners", 5.0)
    assert outcome.failures([]) == ["an invariant is broken: two owners"]


def test_clocks_are_as_wrong_as_the_cluster_says_each_its_own_way():
    one = play("", until=10, nodes=6, cluster="clock_skew = 3.0\nclock_drift = 5e4")
    one.run()
    clocks = one.world.clocks
    assert clocks.keys() == {f"node{number}" for number in range(2, 7)}
    rates, skews = ({getattr(one, key) for one in clocks.values()} for key in ("rate", "skew"))
    assert len(rates) == len(skews) == 5
    assert all(0.95 <= rate <= 1.05 for rate in rates)
    assert all(-3.0 <= skew <= 3.0 for skew in skews)
    right = play("", until=10).world
    assert not right.clocks


def test_progress_is_told_each_virtual_second():
    seen = []
    play("", until=5).run(on_progress=lambda one: seen.append((one.world.now, one.waiting())))
    assert [round(at, 6) for at, _ in seen] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert seen[-1][1] == 0


def test_only_who_is_there_is_waited_for():
    seen = []
    one = play("", until=6, cluster="over = 5.0")
    one.run(on_progress=lambda one: seen.append((one.waiting(), len(one.world.live()))))
    assert [live for _, live in seen][:2] == [1, 2]  # the others are to come, and expected
    assert all(waiting <= live for waiting, live in seen)
    assert seen[0][0] == 1


def test_steady_traffic_is_measured_outside_of_events():
    outcome = play(event(10, "pod-add", nodes='"all"', count="9"), until=40).run()
    assert outcome.steady is not None
    assert outcome.peak is not None
    assert 0 < outcome.steady.bytes < outcome.peak.busiest


def test_the_same_seed_plays_the_same_and_another_one_does_not():
    text = 'title = "t"\nuntil = 10\n[cluster]\nnodes = 4\n[link]\npreset = "wan"\n'
    text += event(4, "crash", nodes="1") + event(6, "start", nodes='"all"')

    def fingerprint(seed: int) -> str:
        one = Play(parse(text), seed=seed, keep_datagrams=True)
        one.run()
        return one.world.trace.fingerprint()

    assert fingerprint(7) == fingerprint(7)
    assert fingerprint(7) != fingerprint(8)
