"""Tests of overlay.resting: what rests goes on resting, and for no longer than a quarantine."""

from __future__ import annotations

import pytest

from overlay.catalog.records import PodEntry
from overlay.ipam.allocator import Allocator
from overlay.ipam.plan import BlockPlan
from overlay.resting import rest_all, restore_rests, stored_rest
from overlay.types import BlockIndex
from tests.support.clusters import make_cluster

PLAN = BlockPlan(make_cluster("10.1.0.0/24", "fd00::/48", block_prefix=29))
B0 = BlockIndex(0)
EPOCH = 1_000_000.0


def allocator() -> Allocator:
    made = Allocator(PLAN, 60.0)
    made.add_block(B0)
    return made


@pytest.mark.parametrize(
    ("step", "rests_for"), [(0.0, 40.0), (-3600.0, 60.0), (10.0, 30.0), (3600.0, 0.0)]
)
def test_a_clock_that_was_set_shifts_the_end_by_as_much_at_most(step, rests_for) -> None:
    before = allocator()
    before.allocate("web", None, 10.0)
    before.free("web", 10.0)
    stored = [stored_rest(rest, EPOCH) for rest in before.rests.values()]
    assert [(rest.pod, rest.host, rest.until) for rest in stored] == [("web", 2, 1_000_070)]
    after = allocator()  # 20 s later, on a machine that has just started
    restore_rests(after, stored, EPOCH + 30.0 + step, 0.0)
    assert len(after.resting(rests_for - 0.1)) == (1 if rests_for else 0)
    assert after.resting(rests_for) == ()


def test_addresses_of_another_machines_pods_rest_but_for_those_in_use() -> None:
    made = allocator()
    made.allocate("mine", None, 0.0)
    rest_all(made, [PodEntry(f"p{host}", B0, host, 0) for host in (2, 3)], 60.0, 5.0)
    assert [(rest.pod, rest.slot.host, rest.until) for rest in made.resting(5.0)] == [
        ("p3", 3, 65.0)
    ]
