"""Tests of overlay.losses: when a peer is told that its bursts stay incomplete."""

from __future__ import annotations

from types import SimpleNamespace

from overlay.effects import SendControl
from overlay.losses import REPORT_INTERVAL, LossReports
from overlay.sim import Link, udp
from overlay.types import NodeId
from overlay.wire.control import decode_untrusted
from overlay.wire.header import TYPE_DATA, Header
from overlay.wire.messages import SegmentLoss
from overlay.wire.reassembly import Reassembly
from tests.sim.worlds import carry, settled

NODE, OTHER = NodeId(b"a" * 32), NodeId(b"b" * 32)
KEYPAIRS = {
    1: SimpleNamespace(node=NODE),
    2: SimpleNamespace(node=NODE),
    3: SimpleNamespace(node=OTHER),
    4: SimpleNamespace(node=None),
}


class Bench:
    """A table of incomplete bursts, and the reports about it."""

    def __init__(self) -> None:
        self.table = Reassembly(per_session=64, total=512, expires_after=1.0)
        self.reports = LossReports(self.table, KEYPAIRS)
        self._counter = 0

    def lose(self, receiver: int, now: float) -> None:
        """One burst that is given up at `now`."""
        self._counter += 1
        header = Header(TYPE_DATA, 0, 3, 0, receiver, self._counter)
        self.table.take(header, memoryview(b"piece"), None, now - 1.0)
        self.table.expire(now)

    def said(self, now: float) -> list[tuple[NodeId, int]]:
        found = []
        for effect in self.reports.on_deadline(now):
            assert isinstance(effect, SendControl)
            message = decode_untrusted(effect.message)
            assert isinstance(message, SegmentLoss)
            found.append((effect.node, message.bursts))
        return found


def test_without_loss_nothing_is_said_and_nothing_is_due() -> None:
    bench = Bench()
    assert bench.said(5.0) == []
    assert bench.reports.next_deadline() is None


def test_each_peer_is_told_how_many_of_its_bursts_were_given_up() -> None:
    bench = Bench()
    for receiver in (1, 2, 2, 3):
        bench.lose(receiver, 5.0)
    assert bench.said(5.0) == [(NODE, 3), (OTHER, 1)]
    assert bench.said(9.0) == []


def test_reports_are_a_second_apart_and_lose_nothing() -> None:
    bench = Bench()
    bench.lose(1, 5.0)
    assert bench.said(5.0) == [(NODE, 1)]
    bench.lose(1, 5.2)
    assert bench.said(5.2) == []
    bench.lose(3, 5.4)
    assert bench.said(5.4) == []
    assert bench.reports.next_deadline() == 5.0 + REPORT_INTERVAL
    assert bench.said(6.0) == [(NODE, 1), (OTHER, 1)]
    assert bench.reports.next_deadline() is None


def test_strangers_and_joiners_are_told_nothing() -> None:
    bench = Bench()
    for receiver in (4, 77):
        bench.lose(receiver, 5.0)
    assert bench.said(5.0) == []
    assert bench.reports.next_deadline() is None


def test_a_sender_learns_from_it_that_its_path_became_a_black_hole() -> None:
    world = settled(2)
    world.run(world.now + 3.0)
    web, db = world["node1"].add_pod("web"), world["node2"].add_pod("db")
    world.run(world.now + 3.0)
    path = world["node1"].engine.parts.paths[world["node2"].membership.identity.node]
    carry(world, "node1", "node2")
    world.run(world.now + 1.0)
    assert path.path_mtu == 1500
    began = world.now
    world.set_link("node1", "node2", Link(mtu=1400))
    for _ in range(40):  # a burst of three segments, the last of them short, every 0.1 s
        world.send_packet("node1", udp(web.address, db.address, bytes(3000)))
        world.run(world.now + 0.1)
    assert path.path_mtu < 1500
    assert world.now - began < 5.0
    world.run(world.now + 5.0)
    assert path.path_mtu == 1400


def test_three_percent_of_datagrams_lost_at_random_shrink_nothing() -> None:
    world = settled(2, link=Link(loss=0.03))
    web, db = world["node1"].add_pod("web"), world["node2"].add_pod("db")
    world.run(world.now + 5.0)
    peering = world["node1"].engine.parts.peering
    path = peering.paths[world["node2"].membership.identity.node]
    asked, confirm = [], peering.mtus.on_segment_loss
    peering.mtus.on_segment_loss = lambda *given: asked.append(given) or confirm(*given)
    carry(world, "node1", "node2")
    world.run(world.now + 5.0)
    for _ in range(300):  # half a minute of bursts of eight segments: one in five is hit
        world.send_packet("node1", udp(web.address, db.address, bytes(11_000)))
        world.run(world.now + 0.1)
        assert path.path_mtu == 1500
    assert len(asked) > 10, "little was reported: it proves nothing"
