"""Tests of a machine's socket."""

from __future__ import annotations

from overlay.sim.clock import Clock
from overlay.sim.link import Link
from overlay.sim.port import Port
from overlay.sim.trace import Trace
from overlay.sim.underlay import Underlay
from overlay.types import Endpoint

HERE, THERE, ELSEWHERE = (Endpoint(f"198.18.0.{number}", 1) for number in (1, 2, 3))


def two() -> tuple[Clock, Port, Port, list]:
    clock, reads = Clock(), []
    link = Link(coalesce=True)
    underlay = Underlay(seed="1", clock=clock, trace=Trace(), link=link)
    near = Port("near", HERE, underlay, lambda *_: None)
    far = Port("far", THERE, underlay, lambda *read: reads.append(read))
    return clock, near, far, reads


def test_sends_are_counted_by_datagram_with_their_headers():
    clock, near, _, reads = two()
    near.send(THERE, b"aabbc", 2)
    clock.run(until=1.0)
    assert reads == [(b"aabbc", 2, HERE)]
    assert (near.traffic.out_messages, near.traffic.out_bytes) == (3, 5 + 3 * 28)


def test_a_peer_without_segmentation_gets_its_datagrams_one_by_one():
    clock, near, _, reads = two()
    near.segment(THERE, on=False)
    near.send(THERE, b"aabbc", 2)
    clock.run(until=1.0)
    assert [buffer for buffer, _, _ in reads] == [b"aa", b"bb", b"c"]
    near.segment(THERE, on=True)
    near.send(THERE, b"aabbc", 2)
    clock.run(until=2.0)
    assert len(reads) == 4


def test_who_has_moved_is_found_at_the_new_address_only():
    clock, near, far, reads = two()
    far.move(ELSEWHERE)
    near.send(THERE, b"old", 0)
    near.send(ELSEWHERE, b"new", 0)
    clock.run(until=1.0)
    assert [buffer for buffer, _, _ in reads] == [b"new"]
    assert far.endpoint == ELSEWHERE
