"""A worker by itself: orders in, packets through, reports out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from overlay.config import Limits, Timing
from overlay.drops import DropReason
from overlay.effects import Effect, SendDatagram, SetOffload, TellDaemon
from overlay.errors import WireError
from overlay.lanes.messages import (
    PER_MESSAGE,
    Answered,
    Down,
    Key,
    Local,
    Order,
    Peer,
    PeerGone,
    Probed,
    Routes,
    Stats,
    TooBig,
    Traffic,
    Use,
    Wanted,
    decode_report,
    encode,
    pack_prefix,
)
from overlay.lanes.worker import WANTED_INTERVAL, LaneWorker
from overlay.sim import udp
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import TAG_SIZE, BlockKind, block
from overlay.wire.control import encode as encode_message
from overlay.wire.header import TYPE_DATA, TYPE_INITIATION, Header
from overlay.wire.messages import LaneProbe, Message, Probe
from overlay.wire.virtio import NO_OFFLOAD

US, THEM = NodeId(b"u" * 32), NodeId(b"t" * 32)
OURS, THEIRS = ip_address("10.244.0.2"), ip_address("10.244.1.2")
PEER = Peer(THEM, "192.0.2.1", 6875, 1500, 2, 3, live=True, singly=False)
ROUTES = Routes(
    [
        (US, pack_prefix(ip_network("10.244.0.0/24"))),
        (THEM, pack_prefix(ip_network("10.244.1.0/24"))),
    ],
    [],
)
KEYS = bytes(range(256)) * 4
SWAPPED = b"".join(KEYS[at + 32 : at + 64] + KEYS[at : at + 32] for at in range(0, 1024, 64))


class Bench:
    """Lane 1 of a node, and everything it does."""

    def __init__(self, *orders: Order) -> None:
        self.now = 10.0
        self.sent: list[tuple[Endpoint, bytes]] = []
        self.delivered: list[bytes] = []
        self.worker = LaneWorker(
            local=US,
            lane=1,
            limits=Limits(),
            timing=Timing(),
            entropy=random.Random(1).randbytes,
            deliver=self._deliver,
            transmit=self._transmit,
        )
        self.tell(*orders)

    def _deliver(self, packet: memoryview) -> bool:
        self.delivered.append(bytes(packet[len(NO_OFFLOAD) :]))
        return True

    def _transmit(self, endpoint: Endpoint, data: memoryview, _step: int) -> bool:
        self.sent.append((endpoint, bytes(data)))
        return True

    def tell(self, *orders: Order) -> list[Effect]:
        effects = self.worker.on_orders([encode(order) for order in orders], self.now)
        self.worker.check_invariants()
        return effects

    def send(self, packet: bytes) -> list[Effect]:
        self.worker.outbound.room()[: len(NO_OFFLOAD + packet)] = NO_OFFLOAD + packet
        self.worker.outbound.accept(len(NO_OFFLOAD + packet), self.now)
        effects = self.worker.flush(self.now)
        self.worker.check_invariants()
        return effects

    def receive(self, datagram: bytes) -> list[Effect]:
        source = Endpoint("192.0.2.1", 6876)
        effects = self.worker.on_datagrams(memoryview(datagram), 0, source, self.now)
        self.worker.check_invariants()
        return effects


def key(index: int = 7, keys: bytes = KEYS) -> Key:
    return Key(THEM, index, index, 1, 0.0, 180.0, keys)


def proven() -> Bench:
    """A bench whose direct way works."""
    bench = Bench(ROUTES, PEER, key())
    probes = [one for one in bench.tell(Use(THEM, 7)) if isinstance(one, SendDatagram)]
    assert [Header.decode_untrusted(one.datagram).lane for one in probes] == [0x10, 0x11]
    first = next(bench.worker._remotes[THEM]._proofs[way].token for way in [(7, 0)])
    bench.tell(Answered(THEM, first), Answered(THEM, first + 1))
    return bench


def sealed(body: bytes, kind: BlockKind, counter: int = 0) -> bytes:
    """What the peer's lane 1 seals for us: a worker with our keys the other way round."""
    other = Bench(PEER, key(keys=SWAPPED))
    pair = other.worker._keypairs[7 | 0x11 << 32]
    plaintext = block(kind, body)
    header = Header(TYPE_DATA, lane=0x11, receiver=7, counter=counter)
    ciphertext = bytearray(len(plaintext) + TAG_SIZE)
    pair.seal_into(counter, plaintext, header.associated_data(), ciphertext)
    return header.encode() + ciphertext


def reports(effects: list[Effect]) -> list[object]:
    return [decode_report(one.message) for one in effects if isinstance(one, TellDaemon)]


def test_packets_wait_until_a_way_is_proven_and_ask_for_a_session_once_a_second() -> None:
    bench = Bench(ROUTES, PEER)
    packet = udp(OURS, THEIRS, b"1")
    assert reports(bench.send(packet)) == [Wanted([THEM])]
    assert bench.send(packet) == []
    bench.now += WANTED_INTERVAL
    assert reports(bench.send(packet)) == [Wanted([THEM])]
    bench.tell(key(), Use(THEM, 7))
    assert bench.sent == []
    token = next(iter(bench.worker._remotes[THEM]._proofs.values())).token
    bench.tell(Answered(THEM, token))
    assert len(bench.sent) == 3


def test_packets_leave_under_the_keys_of_the_pair_of_lanes() -> None:
    bench = proven()
    bench.send(udp(OURS, THEIRS, b"1"))
    ((endpoint, datagram),) = bench.sent
    assert endpoint == ("192.0.2.1", 6876)
    header = Header.decode_untrusted(datagram)
    assert (header.lane, header.receiver) == (0x11, 7)


def test_packets_arrive_and_only_once() -> None:
    bench = proven()
    packet = udp(THEIRS, OURS, b"1")
    datagram = sealed(NO_OFFLOAD + packet, BlockKind.OFFLOADED)
    assert bench.receive(datagram) == []
    bench.receive(datagram)
    assert bench.delivered == [packet]
    assert bench.worker.ledger.drops == {DropReason.REPLAYED: 1}


@pytest.mark.parametrize("lane", [0x00, 0x10, 0x12, 0x1F])
def test_datagrams_for_another_lane_are_refused(lane: int) -> None:
    bench = proven()
    datagram = bytearray(sealed(b"", BlockKind.CONTROL))
    datagram[3] = lane
    bench.receive(bytes(datagram))
    assert bench.worker.ledger.drops == {DropReason.BAD_HEADER: 1}


def test_a_lane_that_the_peer_does_not_have_is_unknown() -> None:
    bench = proven()
    datagram = bytearray(sealed(b"", BlockKind.CONTROL))
    datagram[3] = 0x51
    bench.receive(bytes(datagram))
    assert bench.worker.ledger.drops == {DropReason.UNKNOWN_INDEX: 1}


def test_a_handshake_is_for_lane_0() -> None:
    bench = proven()
    assert bench.receive(Header(TYPE_INITIATION).encode() + bytes(200)) == []
    assert bench.worker.ledger.drops == {DropReason.BAD_HEADER: 1}


def test_a_probe_is_reported_for_the_daemon_to_answer() -> None:
    bench = proven()
    effects = bench.receive(sealed(encode_message(LaneProbe(1, 99)), BlockKind.CONTROL))
    assert reports(effects) == [Probed(THEM, 1, 99)]


@pytest.mark.parametrize("message", [Probe(1), None])
def test_any_other_control_message_is_out_of_place(message: Message | None) -> None:
    bench = proven()
    body = encode_message(message) if message else b"\xff"
    assert bench.receive(sealed(body, BlockKind.CONTROL)) == []
    assert bench.worker.ledger.drops == {DropReason.BAD_CONTROL: 1}


def test_routes_come_and_go() -> None:
    bench = proven()
    bench.tell(Routes([], [pack_prefix(ip_network("10.244.1.0/24"))]))
    bench.send(udp(OURS, THEIRS, b"1"))
    assert bench.sent == []
    assert bench.worker.ledger.drops == {DropReason.NO_ROUTE: 1}


def test_who_sends_to_nobody_is_told_from_the_nodes_address() -> None:
    bench = Bench(ROUTES, Local("10.244.0.1", ""))
    bench.send(udp(OURS, ip_address("10.244.9.9"), b"1"))
    (answer,) = bench.delivered
    assert ip_address(answer[12:16]) == ip_address("10.244.0.1")


def test_a_session_that_will_not_come_loses_what_waits() -> None:
    bench = Bench(ROUTES, PEER)
    bench.send(udp(OURS, THEIRS, b"1"))
    bench.tell(Down(THEM))
    assert bench.worker.ledger.drops == {DropReason.NO_SESSION: 1}


def test_a_peer_that_is_gone_leaves_nothing() -> None:
    bench = proven()
    bench.tell(PeerGone(THEM), PeerGone(THEM))
    assert bench.worker._keypairs == {}
    assert bench.worker._paths == {}


def test_packets_to_a_node_without_a_path_wait_until_the_daemon_has_made_one() -> None:
    bench = Bench(ROUTES)
    assert reports(bench.send(udp(OURS, THEIRS, b"1"))) == [Wanted([THEM])]
    assert bench.worker.ledger.queued_packets == 1
    bench.tell(Down(THEM))
    assert bench.worker.ledger.drops == {DropReason.NO_SESSION: 1}
    bench.send(udp(OURS, THEIRS, b"2"))
    assert bench.worker.ledger.drops == {DropReason.NO_SESSION: 1, DropReason.NO_ENDPOINT: 1}


def test_it_is_settled_when_every_session_can_be_used() -> None:
    bench = Bench(ROUTES)
    assert not bench.worker.settled, "without a session nothing shows that it works"
    bench = proven()
    assert bench.worker.settled
    bench.tell(Peer(NodeId(b"x" * 32), "192.0.2.3", 6875, 1500, 1, 1, live=True, singly=False))
    assert not bench.worker.settled
    bench.tell(Peer(NodeId(b"x" * 32), "192.0.2.3", 6875, 1500, 1, 1, live=False, singly=False))
    assert bench.worker.settled


def test_what_the_daemon_found_out_about_segmented_sends_is_true_of_every_port() -> None:
    bench = proven()
    near, far = [6875, 6876], [7000, 7001]
    singly = replace(PEER, singly=True)
    for peer, off, on in (
        (singly, near, []),
        (singly, [], []),  # said once
        (replace(singly, lanes=4), [6877, 6878], []),
        (singly, [], [6877, 6878]),
        (replace(singly, port=7000), far, near),
        (replace(singly, host="", port=0), [], far),
        (singly, near, []),
        (PEER, [], near),
    ):
        assert segmenting(bench.tell(peer)) == (ports(off), ports(on))
    bench.tell(singly)
    moved = replace(singly, host="192.0.2.9")
    assert segmenting(bench.tell(moved)) == (ports(near, "192.0.2.9"), ports(near))
    assert segmenting(bench.tell(PeerGone(THEM))) == ([], ports(near, "192.0.2.9"))


def test_whoever_comes_back_as_another_node_keeps_what_was_found_out_about_its_endpoint() -> None:
    bench = proven()
    singly = replace(PEER, singly=True)
    bench.tell(singly)
    assert segmenting(bench.tell(replace(singly, node=NodeId(b"x" * 32)))) == (
        ports([6875, 6876]),
        [],
    )
    assert segmenting(bench.tell(PeerGone(THEM))) == ([], [])
    assert segmenting(bench.tell(PeerGone(NodeId(b"x" * 32)))) == ([], ports([6875, 6876]))


def ports(numbers: list[int], host: str = "192.0.2.1") -> list[Endpoint]:
    return [Endpoint(host, number) for number in numbers]


def segmenting(effects: list[Effect]) -> tuple[list[Endpoint | None], list[Endpoint | None]]:
    """Endpoints to which segmented sends are now off, and those to which they are on again."""
    told = [effect for effect in effects if isinstance(effect, SetOffload)]
    assert {effect.name for effect in told} <= {"udp_gso"}
    off, on = ([one.endpoint for one in told if one.on is which] for which in (False, True))
    return off, on


def test_counters_are_reported_and_peers_only_when_they_changed() -> None:
    bench = proven()
    bench.send(udp(OURS, THEIRS, b"1"))
    stats, traffic = [decode_report(data) for data in bench.worker.stats(0.5)]
    assert isinstance(stats, Stats)
    assert (stats.received, stats.sent, stats.queued, stats.cpu) == (1, 1, 0, 0.5)
    assert isinstance(traffic, Traffic)
    assert traffic.peers[0][0] == THEM
    assert traffic.peers[0][1] > 0
    assert len(bench.worker.stats(0.6)) == 1


def test_many_peers_are_several_reports() -> None:
    bench = Bench()
    for number in range(PER_MESSAGE + 1):
        bench.tell(
            Peer(NodeId(number.to_bytes(32)), "192.0.2.9", 1, 1500, 1, 1, live=False, singly=False)
        )
    assert len(bench.worker.stats(0.0)) == 3


def test_what_is_too_big_for_the_interface_is_reported() -> None:
    bench = proven()
    effects = bench.worker.on_too_big(Endpoint("192.0.2.1", 6876), bench.now)
    assert reports(effects) == [TooBig(THEM)]
    assert bench.worker.on_too_big(Endpoint("192.0.2.1", 1), bench.now) == []


def test_what_is_no_order_is_refused() -> None:
    bench = Bench()
    with pytest.raises(WireError):
        bench.worker.on_orders([b"\x91\x63"], bench.now)


@pytest.mark.parametrize(
    "verb",
    [
        lambda worker: worker.start(0.0),
        lambda worker: worker.stop(0.0),
        lambda worker: worker.on_persist_failed([], "", 0.0),
    ],
)
def test_a_driver_can_drive_it(verb: Callable[[LaneWorker], list[Effect]]) -> None:
    assert verb(Bench().worker) == []
    assert Bench().worker.next_deadline() is None
