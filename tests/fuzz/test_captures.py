"""Every frame of many captures, at every way into a node: no exception, no answer, no change.

The captures are tcpdump's own test cases, from link types of all kinds, many cut or malformed on
purpose. Each frame is tried as it is, and from its IP header on where scapy finds one.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from scapy.config import conf
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.utils import RawPcapReader

from overlay.drops import DropReason
from overlay.forwarding.flow import MAX_FLOWS, flow_untrusted
from overlay.session.transport import Keypair
from overlay.sim import World
from overlay.views import Snapshot
from overlay.wire.burst import BlockKind, block
from overlay.wire.header import TYPE_COOKIE_REPLY, TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE
from overlay.wire.virtio import NO_OFFLOAD
from tests.fuzz import strangers
from tests.overlay.test_engine import STRANGER, burst, everything, keypair_of
from tests.sim.worlds import settled
from tests.support.pair import ALICE, BOB, Pair, address
from tests.support.pcap import all_frames, read_frames

FILES, FRAMES, DIFFERENT = 560, 7405, 5409
"""How many there are; all of them can be read, those that are cut up to where they end."""
LONGEST = 65_000
"""Bytes that a TUN, or a block of a burst, can give."""
GROWTH = 100_000
"""Bytes that a node may have more after it has seen every frame once more."""


@cache
def frames_in(folder: Path) -> tuple[bytes, ...]:
    """Every different frame, and every IP packet inside of one."""
    found = [*all_frames(folder), *packets_in(folder)]
    return tuple(dict.fromkeys(frame[:LONGEST] for frame in found))


def packets_in(folder: Path) -> Iterator[bytes]:
    """What begins with an IP header behind whatever link header."""
    for path in sorted(folder.glob("*.pcap")):
        with RawPcapReader(str(path)) as reader:
            link = conf.l2types.num2layer.get(reader.linktype & 0xFFFF)
            for frame, _ in reader:
                if link is not None:
                    yield from _packets_of(link, frame)


def _packets_of(link: type, frame: bytes) -> Iterator[bytes]:
    try:
        layer = link(frame)
    except Exception:  # it gives up in many ways; the frame itself is tried all the same
        return
    while layer:
        if isinstance(layer, IP | IPv6):
            yield bytes(layer.original)
        layer = layer.payload


@pytest.fixture(scope="module")
def frames(vectors: Path) -> tuple[bytes, ...]:
    return frames_in(vectors / "pcaps")


def test_all_captures_are_read(vectors: Path) -> None:
    folder = vectors / "pcaps"
    paths = sorted(folder.glob("*.pcap"))
    counts = [sum(1 for _ in read_frames(path)) for path in paths]
    assert (len(paths), sum(counts)) == (FILES, FRAMES)
    assert len(all_frames(folder)) == DIFFERENT
    assert len(frames_in(folder)) > DIFFERENT + 500, "IP packets inside of others"
    unreadable = [path.name for path, count in zip(paths, counts, strict=True) if not count]
    by_scapy = []
    for path in paths:
        with RawPcapReader(str(path)) as reader:
            by_scapy.append(sum(1 for _ in reader))
    assert by_scapy == counts, "two readers of captures, one answer"
    assert unreadable == ["empty.pcap"], "it is, by its name"


def test_as_datagrams_of_a_stranger_they_get_no_answer_and_change_nothing(frames) -> None:
    """The state is compared after each one."""
    for frame in frames:
        assert strangers.undisturbed(frame, STRANGER) == []


def test_as_bodies_of_our_own_datagrams_they_do_no_more(frames) -> None:
    engine, now = strangers.world()[strangers.NODE].engine, strangers.world().now
    before = everything(engine, now)
    for frame in frames:
        for kind in (TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY, TYPE_DATA):
            datagram = memoryview(bytes([kind]) + frame)
            for step in (0, 64):
                assert engine.on_datagrams(datagram, step, STRANGER, now) == []
    assert everything(engine, now) == before
    engine.ledger.check_invariants()
    engine.parts.inbound.check_invariants()


def test_a_node_that_has_seen_them_all_grows_no_more(frames) -> None:
    engine, now = strangers.world()[strangers.NODE].engine, strangers.world().now

    def see_all() -> None:
        for frame in frames:
            for datagram in (frame, bytes([TYPE_DATA]) + frame):
                engine.on_datagrams(memoryview(datagram), 0, STRANGER, now)

    see_all()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        see_all()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < GROWTH


def test_as_packets_of_a_pod_they_are_dropped_and_counted(frames) -> None:
    for frame in frames:
        strangers.from_pod(frame)
    engine = strangers.world()[strangers.NODE].engine
    assert len(engine.outbound._flows) <= MAX_FLOWS
    assert {reason for reason, count in engine.ledger.view().drops.items() if count} >= {
        DropReason.MALFORMED,
        DropReason.FOREIGN_SOURCE,
        DropReason.MULTICAST,
    }


@pytest.mark.parametrize("kind", [BlockKind.PACKET, BlockKind.OFFLOADED, BlockKind.CONTROL, 99])
def test_from_a_member_they_change_nothing_but_counters(frames, kind, monkeypatch) -> None:
    """Behind a session, as packets (none has a source that is the member's) and as messages."""
    # So many at once are a flood, and would be cut off before they are read.
    monkeypatch.setattr("overlay.allowance.Allowances.spend", lambda *_: None)
    world = settled(2)
    world.run(world.now + 1.0)
    machine = world["node1"]
    keypair = keypair_of(world, "node2", "node1")
    hear(world, keypair, block(kind, b""))
    before, was = state_of(world), machine.engine.ledger.view()
    for frame in frames:
        assert hear(world, keypair, block(kind, frame)) == []
    assert state_of(world) == before
    assert machine.delivered == []
    named = {one.code for one in machine.snapshot().problems}
    assert named == ({"member-malformed-message"} if kind is BlockKind.CONTROL else set())
    after = machine.engine.ledger.view()
    assert sum(after.drops.values()) - sum(was.drops.values()) == len(frames)
    machine.engine.ledger.check_invariants()


def hear(world: World, keypair: Keypair, plaintext: bytes) -> list[object]:
    """Give the first node a burst from the second."""
    datagram, source = memoryview(burst(keypair, plaintext)), world["node2"].endpoint
    return world["node1"].engine.on_datagrams(datagram, 0, source, world.now)


def state_of(world: World) -> tuple[object, ...]:
    """All state but counters, those of the session and of complaints among them."""
    shown, *others, paths = everything(world["node1"].engine, world.now)
    names = [name for name in Snapshot.__slots__ if name != "ledger"]
    counted = {"sessions", "problems"}
    kept = [value for name, value in zip(names, shown, strict=True) if name not in counted]
    return kept, *others, [path[:4] for path in paths]


def test_between_two_pods_they_travel_unchanged_or_not_at_all(frames) -> None:
    """With addresses of the pods in them. What one end sends, the other end takes."""
    pair = Pair()
    sent = []
    for frame in frames:
        packet = readdressed(frame)
        pair.alice.send(NO_OFFLOAD + packet)
        if flow_untrusted(memoryview(packet), 0, len(packet)) is not None:
            sent.append(NO_OFFLOAD + packet)
        pair.carry()
    assert len(sent) > 1000
    assert sorted(pair.bob.delivered) == sorted(sent)
    assert pair.alice.lost() == {"malformed": len(frames) - len(sent)}
    assert pair.bob.lost() == {}


def readdressed(frame: bytes) -> bytes:
    """The same from a pod of Alice to one of Bob, if it is an IP packet at all."""
    version = frame[0] >> 4 if frame else 0
    at, size = {4: (12, 20), 6: (8, 40)}.get(version, (0, 1 << 20))
    if len(frame) < size:
        return frame
    ends = address(ALICE, 2, version).packed + address(BOB, 2, version).packed
    return frame[:at] + ends + frame[size:]
