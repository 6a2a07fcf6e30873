"""Everyone is probed once per interval, never all at once."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from overlay.gossip.schedule import ProbeSchedule
from overlay.types import NodeId

NODES = [NodeId(bytes([number]) * 32) for number in range(50)]


def run(schedule, until, now=0.0):
    probes = []
    wakeups = 0
    while (at := schedule.next_deadline()) is not None and at <= until:
        now = max(now, at)
        probes += [(now, node) for node in schedule.due(now)]
        wakeups += 1
    return probes, wakeups


def test_each_member_is_probed_once_per_interval(rng):
    schedule = ProbeSchedule(2.0, rng)
    for node in NODES:
        schedule.add(node, 0.0)
    probes, _ = run(schedule, 200.0)
    counts = Counter(node for _, node in probes)
    assert set(counts) == set(NODES)
    assert all(95 <= count <= 112 for count in counts.values())
    for node in NODES[:5]:
        times = [at for at, probed in probes if probed == node]
        gaps = [b - a for a, b in pairwise(times)]
        assert min(gaps) >= 1.6
        assert max(gaps) <= 2.2


def test_probes_spread_over_the_interval_and_share_wakeups(rng):
    schedule = ProbeSchedule(2.0, rng)
    for node in NODES:
        schedule.add(node, 0.0)
    run(schedule, 100.0)
    probes, wakeups = run(schedule, 300.0)
    per_fifth = Counter(int(at / 0.4) for at, _ in probes)
    assert max(per_fifth.values()) <= len(NODES) / 2
    assert wakeups <= 300 / (2.0 * 0.05)


def test_a_new_member_is_probed_soon(rng):
    schedule = ProbeSchedule(2.0, rng)
    schedule.add(NODES[0], 10.0)
    assert 10.0 <= schedule.next_deadline() <= 10.5


def test_a_removed_member_is_not_probed_and_leaves_no_deadline(rng):
    schedule = ProbeSchedule(2.0, rng)
    schedule.add(NODES[0], 0.0)
    schedule.remove(NODES[0])
    schedule.remove(NODES[0])
    assert schedule.next_deadline() is None
    assert schedule.due(100.0) == []


def test_a_member_that_comes_back_is_probed_once_per_interval(rng):
    schedule = ProbeSchedule(2.0, rng)
    schedule.add(NODES[1], 0.0)
    for _ in range(5):
        schedule.add(NODES[0], 0.0)
        schedule.remove(NODES[0])
        schedule.add(NODES[0], 0.0)
    assert Counter(schedule.due(1.0)) == {NODES[0]: 1, NODES[1]: 1}


def test_the_same_seed_gives_the_same_probes():
    def probes(seed):
        schedule = ProbeSchedule(2.0, random.Random(seed))
        for node in NODES[:5]:
            schedule.add(node, 0.0)
        return run(schedule, 50.0)

    assert probes(1) == probes(1)
    assert probes(1) != probes(2)
