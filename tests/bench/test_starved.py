"""Tests of starved nodes: they do harm without the refinements, and none with them."""

from __future__ import annotations

from bench import starved as module
from bench.starved import Slowness, slowness, starved, unrefined
from overlay.gossip import liveness
from overlay.gossip.awareness import Awareness


def test_a_starved_node_has_healthy_ones_declared_dead_only_without_the_refinements():
    assert slowness(8, 1, refined=False).false_reports > 0
    assert slowness(8, 1, refined=True).false_reports == 0


def test_the_refinements_are_back_afterwards():
    doubting = Awareness()
    doubting.apply(1)
    late = liveness.LATE
    with unrefined():
        assert (doubting.scale(1.0), liveness.LATE) == (1.0, float("inf"))
    assert (doubting.scale(1.0), liveness.LATE) == (2.0, late)


def test_starved_nodes_are_shown_with_and_without_the_refinements(monkeypatch):
    def slowness(nodes: int, seed: int, *, refined: bool) -> Slowness:
        return Slowness(nodes, 1, seed, 0 if refined else 7, 0 if refined else seed)

    monkeypatch.setattr(module, "slowness", slowness)
    assert starved(20, 3, 2).rows == [
        ["seed 3", "1 of 20", "0 (0 reports)", "3 (7 reports)"],
        ["seed 4", "1 of 20", "0 (0 reports)", "4 (7 reports)"],
    ]
