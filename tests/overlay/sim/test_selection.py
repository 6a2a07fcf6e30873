"""Tests of choosing nodes."""

from __future__ import annotations

import random

import pytest

from overlay.errors import ConfigError
from overlay.sim.selection import Pool, Selection

NAMES = [f"node{number}" for number in range(1, 11)]
POOL = Pool(NAMES, {"west": ["node2", "node9"]}, founder="node1", taken=["node3", "node4"])


def chosen(value: object, pool: Pool = POOL, seed: int = 1) -> list[str]:
    return Selection.read(value, "nodes").choose(pool, random.Random(seed))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("node3", ["node3"]),
        ("node8..node10", ["node8", "node9", "node10"]),
        ("west", ["node2", "node9"]),
        ("all", NAMES),
        ("rest", [name for name in NAMES if name not in ("node3", "node4")]),
        (["node9", "node2..node3"], ["node2", "node3", "node9"]),
    ],
)
def test_what_is_named_is_chosen_in_the_order_of_the_pool(value, expected):
    assert chosen(value) == expected


@pytest.mark.parametrize(("value", "count"), [(3, 3), ("30%", 3), ("1%", 1), (99, 7), ("100%", 7)])
def test_counts_and_shares_are_drawn_by_the_seed_and_spare_the_founder_and_the_taken(value, count):
    first = chosen(value)
    assert len(first) == count
    assert {"node1", "node3", "node4"}.isdisjoint(first)
    assert chosen(value) == first
    assert count == 7 or any(chosen(value, seed=seed) != first for seed in range(2, 9))


def test_what_is_drawn_comes_on_top_of_what_is_named():
    assert len(chosen(["node2", 2])) == 3


def test_known_names_that_are_no_candidates_are_passed_over_and_unknown_ones_refused():
    pool = Pool(["node2"], known=NAMES)
    assert chosen(["node2", "node5"], pool) == ["node2"]
    for unknown in ("node11", "node9..node11", "east"):
        with pytest.raises(ConfigError, match="there is no node and no group"):
            chosen(unknown)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "", [""], {}, "130%", ["node1", 0]])
def test_what_is_no_selection_is_refused_by_its_key(value):
    with pytest.raises(ConfigError) as refused:
        Selection.read(value, "event[1].nodes")
    assert refused.value.key == "event[1].nodes"
