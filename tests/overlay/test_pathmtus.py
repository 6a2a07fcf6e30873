"""Tests of overlay.pathmtus: segments grow as far as the path carries them, and no further."""

from __future__ import annotations

import pytest

from overlay.config import Timing
from overlay.effects import SendDatagram
from overlay.forwarding.path import BASE_PATH_MTU
from overlay.sim import ADDRESSES6, Link, World, udp
from overlay.types import Endpoint, NodeId
from overlay.wire.control import encode
from overlay.wire.header import TYPE_DATA
from overlay.wire.messages import PathProbe, PathProbeReply
from tests.overlay.test_peering import node_id, path_to, peering_of, sent
from tests.sim.worlds import carry, settled

STRANGER = Endpoint("203.0.113.9", 999)


@pytest.mark.parametrize("mtu", [1280, 1300, 1400, 1492, 1500])
def test_replies_raise_the_segment_size_to_what_the_path_carries(mtu: int) -> None:
    world = World(3, link=Link(mtu=mtu))
    world.add_node("node2")
    world.run_until(lambda: bool(world["node1"].snapshot().sessions), timeout=5.0)
    world.run_until(world.converged, timeout=5.0)
    carry(world, "node1", "node2")
    assert path_to(world, "node2", "node1").path_mtu <= mtu
    world.run(world.now + 10.0)
    fits = max(
        size for size in (1280, 1360, 1400, 1420, 1440, 1450, 1460, 1480, 1492, 1500) if size <= mtu
    )
    assert path_to(world, "node2", "node1").path_mtu == fits
    assert path_to(world, "node1", "node2").path_mtu == fits


def probes_of(world: World, since: float) -> int:
    """Datagrams of node1 to node2 that are as large as a probe of a path MTU."""
    return sum(
        len(one) + 28 >= BASE_PATH_MTU for one in sent(world, "node1", "node2", TYPE_DATA, since)
    )


def state(world: World) -> tuple[int, str]:
    (session,) = world["node1"].snapshot().sessions
    return session.mtu, session.mtu_state


def test_a_path_that_carries_no_packets_is_not_probed() -> None:
    world = settled(2)
    world.run(world.now + 100.0)
    assert probes_of(world, 0.0) == 0
    assert state(world) == (BASE_PATH_MTU, "base")


def test_the_first_packet_has_its_path_measured_at_once() -> None:
    world = settled(2)
    carry(world, "node1", "node2")
    world.run(world.now + 0.1)
    assert state(world) == (1500, "settled")


def test_a_path_is_confirmed_as_long_as_it_carries_packets_and_then_falls_back() -> None:
    world = settled(2)
    wait = Timing().path_confirm_interval
    for _ in range(10):
        carry(world, "node1", "node2")
        world.run(world.now + wait / 3)
    assert state(world) == (1500, "settled")
    assert probes_of(world, world.now - wait) == 2  # the size in use, and its control
    world.run(world.now + 2 * wait)
    assert state(world) == (BASE_PATH_MTU, "base")
    began = world.now
    world.run(began + 5 * wait)
    assert probes_of(world, began) == 0
    carry(world, "node1", "node2")
    world.run(world.now + 0.1)
    assert state(world) == (1500, "settled")


def test_a_packet_that_follows_a_rest_passes_where_the_path_has_shrunk() -> None:
    world = settled(2)
    carry(world, "node1", "node2")
    world.run(world.now + 100.0)
    world.set_link("node1", "node2", Link(mtu=1300))
    before = len(world["node2"].delivered)
    ends = [world[name].engine.parts.holdings.address for name in ("node1", "node2")]
    world.send_packet("node1", udp(*ends, bytes(1472)))
    world.run(world.now + 0.1)
    assert len(world["node2"].delivered) == before + 1


def test_a_long_control_message_travels_in_segments_of_the_base_size() -> None:
    world = settled(2)
    carry(world, "node1", "node2")
    world.run(world.now + 1.0)
    assert state(world) == (1500, "settled")
    message = encode(PathProbe(1, bytes(5000)))
    (effect,) = peering_of(world, "node1").send(node_id(world, "node2"), message, world.now)
    assert isinstance(effect, SendDatagram)
    assert effect.segment_size + 28 == BASE_PATH_MTU


@pytest.mark.parametrize(("underlay", "headers"), [(None, 28), (ADDRESSES6, 48)])
def test_a_probe_makes_a_packet_of_exactly_its_size(underlay, headers: int) -> None:
    world = settled(2, **({"underlay": underlay} if underlay else {}))
    began = world.now
    peering, path = peering_of(world, "node1"), path_to(world, "node2", "node1")
    world["node1"].perform(peering.mtus._probe_path(path, [1280, 1337, 1500], world.now))
    datagrams = sent(world, "node1", "node2", TYPE_DATA, began)
    assert [len(datagram) + headers for datagram in datagrams[-3:]] == [1280, 1337, 1500]
    world.run(world.now + 0.1)
    assert dict(world["node2"].snapshot().ledger.drops) == {}


def test_a_kernel_that_refuses_lowers_the_size_at_once_and_it_is_searched_below() -> None:
    world = settled(2)
    carry(world, "node1", "node2")
    world.run(world.now + 3.0)
    machine, path = world["node1"], path_to(world, "node2", "node1")
    world.set_link("node1", "node2", Link(mtu=1450))
    machine.perform(machine.engine.on_too_big(path.endpoint, world.now))
    assert path.path_mtu == BASE_PATH_MTU
    world.run(world.now + 5.0)
    assert path.path_mtu == 1450


def test_a_refusal_about_another_address_changes_nothing() -> None:
    world = settled(2)
    carry(world, "node1", "node2")
    world.run(world.now + 3.0)
    assert world["node1"].engine.on_too_big(STRANGER, world.now) == []
    assert path_to(world, "node2", "node1").path_mtu == 1500


def test_a_reply_to_a_size_never_probed_raises_nothing() -> None:
    world = settled(2, link=Link(mtu=1400))
    carry(world, "node1", "node2")
    world.run(world.now + 5.0)
    peering, peer = peering_of(world, "node1"), node_id(world, "node2")
    assert peering.mtus.on_reply(peer, PathProbeReply(9000), world.now) == []
    assert peering.mtus.on_reply(NodeId(bytes(32)), PathProbeReply(1500), world.now) == []
    assert peering.paths[peer].path_mtu == 1400


def test_a_probe_is_answered_with_its_size() -> None:
    world = settled(2)
    answer = peering_of(world, "node1").on_message(
        node_id(world, "node2"), PathProbe(1234, b""), True, world.now
    )
    assert len(answer) == 1
    assert isinstance(answer[0], SendDatagram)
