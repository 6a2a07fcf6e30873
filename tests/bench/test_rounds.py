"""Tests of the order of a run, without building anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import rounds
from bench.compare import CONTESTANTS
from bench.contestants import Running
from bench.rounds import Plan, Ticker, attempt, run_plan
from bench.topology import Underlay
from bench.workloads import Figures, Scene, Workload
from node.errors import NodeError
from tests.bench.test_topology import made

NONE, VXLAN = CONTESTANTS[:2]


@pytest.fixture
def seen(monkeypatch):
    """What is done, in order; nothing is built."""
    order: list[str] = []

    @contextmanager
    def standing(contestants, progress, lab) -> Iterator[tuple[object, list[Running]]]:
        pids = {each.name: (100 + at,) for at, each in enumerate(contestants)}
        order.append("up")
        yield made(), [Running(name, "a", "b", "c", own) for name, own in pids.items()]
        order.append("down")

    monkeypatch.setattr(rounds, "standing", standing)
    monkeypatch.setattr(rounds, "set_underlay", lambda _, underlay: order.append(str(underlay)))
    return order


def workload(order: list[str], failures: int = 0) -> Workload:
    left = [failures]

    def measure(scene: Scene) -> Figures:
        order.append(scene.running.name)
        if left[0]:
            left[0] -= 1
            raise NodeError("it did not work")
        return {"tcp1": float(scene.others[0])}

    return Workload("tcp1", "TCP", measure)


def test_rounds_are_interleaved_and_underlays_follow_each_other(seen):
    one = workload(seen)
    plan = Plan([NONE, VXLAN], {Underlay.VETH: [one], Underlay.WIRE: [one]}, 2, 1)
    samples = run_plan(plan, lambda _: None)
    turns = ["none", "vxlan"] * 2
    assert seen == ["up", "veth", *turns, "wire", *turns, "down"]
    assert [(s.underlay, s.round, s.contestant) for s in samples[:3]] == [
        ("veth", 1, "none"),
        ("veth", 1, "vxlan"),
        ("veth", 2, "none"),
    ]


def test_daemons_of_all_others_are_watched(seen):
    plan = Plan([NONE, VXLAN], {Underlay.VETH: [workload(seen)]}, 1, 1)
    assert [sample.figures["tcp1"] for sample in run_plan(plan, lambda _: None)] == [101, 100]


def test_a_measurement_that_fails_is_tried_again_and_then_left_out(seen):
    said: list[str] = []
    scene = Scene(made(), Running("vxlan", "a", "b", "c"), (1,))
    assert attempt(workload(seen, failures=1), scene, said.append) == {"tcp1": 1.0}
    assert attempt(workload(seen, failures=2), scene, said.append) == {}
    assert said == ["vxlan: TCP: it did not work"] * 3


def test_the_cost_of_a_plan_is_known_before():
    one = Workload("x", "x", lambda _: {}, lambda seconds: 3.0 * seconds)
    plan = Plan([NONE, VXLAN], {Underlay.VETH: [one, one], Underlay.WIRE: [one]}, 5, 2)
    assert plan.cost() == 3 * 6.0 * 2 * 5


def test_what_is_left_follows_the_pace_so_far():
    said: list[str] = []
    times = iter([100.0, 120.0])
    ticker = Ticker(100.0, said.append, clock=lambda: next(times))
    ticker.step(10.0, "one")
    assert said == ["one   3:00 left"]
