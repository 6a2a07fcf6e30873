"""Measurements over loopback, against a real far end."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from node.bench import near
from node.bench.near import Near, Step, steps
from node.errors import NodeError
from tests.node.bench.ends import HERE, TASK, far_end

BRIEFLY = 0.1


def test_round_trips_come_first_and_each_way_has_its_turn() -> None:
    assert steps(("to", "from"), underlay=True) == [
        Step("overlay", "datagrams"),
        Step("underlay", "datagrams"),
        Step("overlay", "to"),
        Step("underlay", "to"),
        Step("overlay", "from"),
        Step("underlay", "from"),
    ]
    assert steps(("from",), underlay=False) == [
        Step("overlay", "datagrams"),
        Step("overlay", "from"),
    ]
    assert Step("underlay", "to").words == "beside it: TCP to"


@pytest.mark.parametrize("streams", [1, 3])
def test_both_ways_and_both_directions_are_measured(streams: int) -> None:
    with far_end() as end, Near(end.offer(), streams, BRIEFLY) as measuring:
        for step in steps(("to", "from"), underlay=True):
            measuring.run(step)
        for way in (measuring.figures.overlay, measuring.figures.underlay):
            assert way.faults == []
            assert [stream.direction for stream in way.streams] == ["to", "from"]
            for stream in way.streams:
                assert stream.rate > 0
                assert stream.segments > 0
                assert stream.here is not None
                assert stream.there is not None
            assert way.datagrams is not None
            assert way.datagrams.sent == round(BRIEFLY * near.RATE)
            assert way.datagrams.loss < 1
            assert (way.datagrams.percentile(0.5) or 0) > 0
    assert measuring.figures.ratio("to")


def test_what_does_not_work_beside_the_overlay_is_a_fault_and_no_failure() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        nothing = server.getsockname()[1]
    with far_end() as end, Near(end.offer(underlay_port=nothing), 1, BRIEFLY) as measuring:
        for step in steps(("to",), underlay=True):
            measuring.run(step)
        assert measuring.figures.overlay.stream("to") is not None
        assert measuring.figures.underlay.streams == []
        assert measuring.figures.underlay.faults == [
            "no answer on UDP: a firewall?",
            "connection refused on TCP",
        ]


def test_a_firewall_that_drops_is_called_one(monkeypatch) -> None:
    monkeypatch.setattr(near, "UNDERLAY_PATIENCE", 0.05)
    with socket.socket() as full:  # one connection fills its queue; the next gets no answer
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        with (
            closing(socket.create_connection(full.getsockname())),
            far_end() as end,
            Near(end.offer(underlay_port=full.getsockname()[1]), 1, BRIEFLY) as measuring,
        ):
            measuring.run(Step("underlay", "to"))
            assert measuring.figures.underlay.faults == ["no answer on TCP: a firewall?"]


def test_a_far_end_that_cannot_be_reached_is_one_clause_with_a_remedy() -> None:
    with far_end() as end:
        offer = end.offer()
    with pytest.raises(NodeError, match="cannot be reached through the overlay") as caught:
        Near(offer, 1, BRIEFLY).__enter__()
    assert caught.value.fix == f"try muslin ping {HERE}"


def test_a_far_end_that_dies_is_one_clause_and_no_hanging() -> None:
    with far_end() as end, Near(end.offer(), 2, 60.0) as measuring:
        killer = threading.Timer(0.3, end.process.kill)
        killer.start()
        with pytest.raises(NodeError, match="node2 stopped answering"):
            measuring.run(Step("overlay", "to"))
        killer.join()


def test_a_far_end_that_falls_silent_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(near, "STALL", 0.2)
    with socket.create_server((HERE, 0)) as mute, far_end() as end:
        offer = replace(end.offer(), port=mute.getsockname()[1])
        with (
            Near(offer, 1, BRIEFLY) as measuring,
            pytest.raises(NodeError, match="no answer on TCP"),
        ):
            measuring.run(Step("overlay", "to"))


def test_datagrams_that_do_not_come_back_are_not_sent_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(near, "STALL", 0.2)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute,
        far_end() as end,
    ):
        mute.bind(("127.0.0.2", 0))
        port = mute.getsockname()[1]
        with Near(end.offer(underlay_port=port), 1, 60.0) as measuring:
            measuring.run(Step("underlay", "datagrams"))
            assert measuring.figures.underlay.datagrams is None
            assert measuring.figures.underlay.faults == ["no answer on UDP: a firewall?"]


def test_the_time_that_a_slow_path_needs_is_not_silence(monkeypatch) -> None:
    monkeypatch.setattr(near, "STALL", 0.2)
    left = iter([3, 2, 1, 0])
    monkeypatch.setattr(near, "waiting_in", lambda _: next(left))
    one, other = socket.socketpair()
    with one, other:
        near._wait_until_sent(one)
        monkeypatch.setattr(near, "waiting_in", lambda _: 3)
        with pytest.raises(TimeoutError):
            near._wait_until_sent(one)


def test_leaving_ends_the_far_end() -> None:
    with far_end(replace(TASK, seconds=60.0)) as end:
        with Near(end.offer(), 1, BRIEFLY):
            pass
        assert end.ends() == 0


def test_a_daemon_whose_namespace_is_not_there_is_named() -> None:
    with far_end() as end, pytest.raises(NodeError, match="process 999999999") as caught:
        Near(end.offer(daemon=999_999_999), 1, BRIEFLY).__enter__()
    assert "on the node" in caught.value.fix
