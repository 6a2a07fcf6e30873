"""Tests of the simulated crowd: what it measures did happen, and its faults have effects."""

from __future__ import annotations

import mmap

import pytest

from bench import crowd
from bench.crowd import LAN, Crowd, resident
from node.errors import NodeError


@pytest.fixture(scope="module")
def settled() -> Crowd:
    """Twelve nodes that have joined."""
    found = Crowd(12, 1)
    found.join()
    return found


def test_all_are_there_after_the_join():
    found = Crowd(8, 1)
    assert len(found.world.live()) == crowd.SEEDS
    joined = found.join()
    assert len(found.world.live()) == 8
    assert found.world.settled()
    assert 0.0 < joined.seconds < 30.0


def test_nodes_that_route_otherwise_than_their_records_say_are_an_error():
    found = Crowd(5, 1)
    routes = found.world["node2"].engine.parts.routes
    routes.lookup4 = lambda _address: None
    with pytest.raises(NodeError, match="node2 lacks routes"):
        found.join()


def test_what_is_sent_at_rest_is_what_the_machines_counted(settled):
    sent = [machine.traffic.out_bytes for machine in settled.world.live()]
    began = settled.world.now
    steady = settled.traffic(45.0)
    assert settled.world.now - began == pytest.approx(45.0 + crowd.QUIET)
    assert 0.0 < steady.bytes < steady.busiest
    assert steady.bytes * 12 * crowd.QUIET < sum(
        machine.traffic.out_bytes for machine in settled.world.live()
    ) - sum(sent)


def test_a_lossy_network_is_slower_and_mended_afterwards(settled):
    clean, lossy = settled.route(0.0), settled.route(0.5)
    assert clean.p50 <= clean.p99 <= clean.longest < lossy.longest
    assert {pipe.link for pipe in settled.world.underlay._pipes.values()} == {LAN}


def test_a_wait_that_does_not_end_is_an_error(settled, monkeypatch):
    monkeypatch.setattr(crowd, "PATIENCE", 1.0)
    with pytest.raises(NodeError, match="12 nodes needed more than 1 s to know"):
        settled.route(1.0)


def test_the_dead_are_suspected_before_they_are_dead():
    found = Crowd(8, 2)
    found.join()
    died = found.death()
    assert (died.gone, len(found.world.live())) == (2, 6)
    assert 0.0 < died.suspected < died.first <= died.noticed < 30.0
    assert (died.false_reports, died.false_subjects) == (0, 0)


def test_too_few_nodes_are_refused():
    with pytest.raises(NodeError, match="at least 3"):
        Crowd(2, 1)


def test_memory_is_what_the_process_has():
    before = resident()
    with mmap.mmap(-1, 1 << 24) as held:  # fresh pages; an object may get some that were there
        held.write(b"\xff" * len(held))
        assert resident() - before > len(held) // 2
