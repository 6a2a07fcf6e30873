"""Tests of the workloads with a line that answers from memory."""

from __future__ import annotations

import subprocess

import pytest

from bench import workloads
from bench.contestants import Running
from bench.figures import BY_KEY
from bench.parse import Datagrams, Stream
from bench.topology import Underlay
from bench.usage import Usage
from bench.workloads import BY_NAME, WORKLOADS, Scene, memory, ramp_up, rtt_idle, tcp1, udp64
from node.errors import NodeError
from tests.bench.test_topology import made

VXLAN = Running("vxlan", "a", "b", "10.98.2.2")
TINC = Running("tinc", "a", "b", "10.95.2.2", (7, 8))


@pytest.fixture
def counted(monkeypatch):
    """Two seconds of CPU and 10,000 frames pass with each measurement."""
    spent, frames = iter(range(0, 100, 2)), iter(range(0, 100_000, 10_000))
    monkeypatch.setattr(
        workloads, "usage", lambda pids: Usage(next(spent) if pids else 0.0, 3_000_000, 5_000_000)
    )
    monkeypatch.setattr(
        workloads.Ground, "wire_counters", lambda _: (1500 * (count := next(frames)), count)
    )
    monkeypatch.setattr(workloads, "tcp", lambda *_: Stream(4.0, 1_000_000_000))


def test_daemons_are_billed_per_gigabyte(counted):
    figures = tcp1(Scene(made(), TINC))
    assert figures == {"tcp1": 4.0, "cpu": 2.0, "frame": 1500.0, "others-cpu": 0.0}


def test_the_kernel_has_no_daemons_to_bill(counted):
    assert "cpu" not in tcp1(Scene(made(), VXLAN))
    assert memory(Scene(made(), VXLAN)) == {}


def test_what_the_others_use_meanwhile_is_shown(counted):
    assert tcp1(Scene(made(), VXLAN, others=(9,), seconds=4))["others-cpu"] == 0.5


def test_memory_is_in_megabytes(counted):
    assert memory(Scene(made(), TINC)) == {"rss": 3.0, "rss-peak": 5.0}


def test_udp_is_overloaded_first_and_searched_from_there(monkeypatch):
    rates: list[float] = []

    def datagrams(running: Running, size: int, rate: float) -> Datagrams:
        assert size == 64
        rates.append(rate)
        return Datagrams(80_000, 0.5) if not rate else Datagrams(min(rate, 9e4), rate > 9e4)

    monkeypatch.setattr(workloads, "_datagrams", datagrams)
    figures = udp64(Scene(made(), VXLAN))
    assert rates[:2] == [0, 104_000]
    assert figures["udp64-over"] == 80.0
    assert 72 <= figures["udp64"] <= 90


def test_where_nothing_arrives_there_is_nothing_to_search(monkeypatch):
    monkeypatch.setattr(workloads, "_datagrams", lambda *_: Datagrams(0.0, 1.0))
    with pytest.raises(NodeError, match="no datagram arrived"):
        udp64(Scene(made(), VXLAN))


def test_a_load_that_has_ended_is_no_load():
    with subprocess.Popen(["true"]) as load, pytest.raises(NodeError, match="ended before"):
        ramp_up(load)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as load:
        ramp_up(load)
        assert load.poll() is None
        load.communicate()


def test_round_trips_are_percentiles_of_all_answers(monkeypatch):
    monkeypatch.setattr(workloads, "ping", lambda *_: tuple(range(1, 101)))
    assert rtt_idle(Scene(made(), VXLAN)) == {"rtt-p50": 50, "rtt-p99": 99}


def test_names_are_unique_and_the_wire_runs_a_part():
    assert len(BY_NAME) == len(WORKLOADS)
    on_wire = {each.name for each in WORKLOADS if Underlay.WIRE in each.underlays}
    assert on_wire == {"tcp1", "udp64", "rtt"}
    assert {each.name for each in WORKLOADS if Underlay.VETH in each.underlays} == set(BY_NAME)


def test_a_figure_of_every_workload_is_known():
    assert {"tcp1", "tcp8", "tcp-both", "udp1300", "udp64", "connections"} <= BY_KEY.keys()
