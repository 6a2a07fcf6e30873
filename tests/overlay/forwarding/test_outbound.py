"""Packets that go out: whose they are, how they share bursts, how bursts are cut."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from overlay.forwarding.flow import MAX_FLOWS
from overlay.forwarding.outbound import LARGE, MAX_BLOCK, MAX_REJECTED
from overlay.types import Endpoint, NodeId
from overlay.wire.burst import MAX_RUN, BlockKind
from overlay.wire.control import encode
from overlay.wire.messages import Probe
from overlay.wire.virtio import READ_SIZE
from tests.support.pair import (
    ALICE,
    BOB,
    CAROL,
    ENDPOINTS,
    NO_OFFLOAD,
    Alice,
    address,
    foreign,
    open_bursts,
    packet4,
    packet6,
)

BIG = bytes(62_000)


# -- routing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [packet4, packet6])
@pytest.mark.parametrize("peer", [BOB, CAROL])
def test_a_packet_goes_to_the_owner_of_its_destination(alice: Alice, build, peer: NodeId):
    packet = build(ALICE, peer, b"payload")
    alice.send(packet)
    assert [entry[0] for entry in alice.wire] == [ENDPOINTS[peer]]
    assert alice.sent(peer) == [[packet]]
    assert alice.ledger.sent_out == 1


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("10.244.0.2", "10.244.99.1", "no_route"),
        ("fd00::2", "2001:db8::1", "no_route"),
        ("10.244.1.2", "10.244.1.3", "foreign_source"),
        ("192.0.2.9", "10.244.1.2", "foreign_source"),
        ("fd00:0:0:1::2", "fd00:0:0:2::2", "foreign_source"),
        ("10.244.0.2", "10.244.0.3", "local_destination"),
        ("fd00::2", "fd00::3", "local_destination"),
        ("10.244.0.2", "224.0.0.251", "multicast"),
        ("10.244.0.2", "255.255.255.255", "multicast"),
        ("10.244.0.2", "169.254.1.1", "multicast"),
        ("fe80::1", "ff02::2", "multicast"),
        ("fd00::2", "fe80::1", "multicast"),
    ],
)
def test_a_packet_that_must_not_leave_is_counted_by_reason(alice, source, target, reason):
    for _ in range(2):  # once looked up, once remembered or not
        alice.send(foreign(source, target))
    assert alice.wire == []
    assert alice.lost() == {reason: 2}


def test_a_peer_without_an_endpoint_is_no_endpoint(alice: Alice):
    alice.peers[BOB].endpoint = None
    alice.send(packet4(ALICE, BOB))
    del alice.peers[CAROL]
    alice.send(packet6(ALICE, CAROL))
    assert alice.lost() == {"no_endpoint": 2}


def test_a_remembered_flow_follows_the_routes_once_told(alice: Alice):
    packet = packet4(ALICE, BOB)
    alice.send(packet)
    alice.routes.v4.update([], [prefix for prefix, _ in alice.routes.v4.items()])
    alice.send(packet)
    assert len(alice.sent()) == 2, "remembered until told"
    alice.outbound.forget_flows()
    alice.send(packet)
    assert alice.lost() == {"foreign_source": 1}


def test_more_flows_than_are_remembered_all_get_through(alice: Alice):
    """Each of them after the table was forgotten once."""
    alice.routes.v4.insert(IPv4Network("10.128.0.0/9"), BOB)
    source = address(ALICE, 2).packed
    targets = (IPv4Network("10.128.0.0/9")[host].packed for host in range(MAX_FLOWS + 10))
    packets = [packet4(ALICE, BOB)[:-8] + source + target for target in targets]
    for packet in packets:
        alice.accept(packet)
        alice.outbound.check_invariants()
    alice.outbound.flush(0.0)
    alice.send(*packets[:10])
    assert alice.ledger.sent_out == MAX_FLOWS + 20
    assert alice.lost() == {}


# -- malformed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [packet4, packet6])
def test_every_truncation_is_malformed(alice: Alice, build):
    packet = build(ALICE, BOB, b"payload")
    alice.send(packet)  # a remembered flow must not let the others pass
    for size in range(1, len(packet)):
        alice.send(packet[:size])
    assert alice.lost() == {"malformed": len(packet) - 1}
    assert alice.sent() == [[packet]]


def test_a_packet_is_judged_by_its_own_bytes_not_by_those_before_it(alice: Alice):
    """The buffer still holds the end of the last packet."""
    alice.send(packet4(ALICE, BOB, b"a long payload"))
    alice.send(packet4(ALICE, BOB, b"a long payload")[:30])
    assert alice.lost() == {"malformed": 1}


def test_bytes_behind_the_packet_are_malformed(alice: Alice):
    alice.send(packet4(ALICE, BOB) + b"\0")
    assert alice.lost() == {"malformed": 1}


def test_a_packet_that_fits_no_block_is_oversize(alice: Alice):
    most = packet6(ALICE, BOB, bytes(MAX_BLOCK - 50))
    alice.send(most)
    alice.send(packet6(ALICE, BOB, bytes(MAX_BLOCK - 49)))
    assert len(alice.outbound.room()) >= READ_SIZE
    alice.accept(packet6(ALICE, BOB, bytes(0xFFFF)))
    assert alice.lost() == {"oversize": 2}
    assert alice.sent() == [[most]]


def test_only_unreachable_destinations_are_kept_for_an_icmp_error(alice: Alice):
    alice.peers[CAROL].endpoint = None
    unreachable = foreign("10.244.0.2", "10.244.99.1")
    alice.send(
        foreign("10.244.0.2", "224.0.0.1"),
        foreign("10.244.1.2", "10.244.1.3"),
        unreachable,
        packet6(ALICE, CAROL, b"x"),
    )
    assert [(str(reason), packet) for reason, packet in alice.outbound.rejected] == [
        ("no_route", unreachable[len(NO_OFFLOAD) :]),
        ("no_endpoint", packet6(ALICE, CAROL, b"x")[len(NO_OFFLOAD) :]),
    ]


def test_a_scan_does_not_fill_memory_with_rejected_packets(alice: Alice):
    alice.send(*[foreign("10.244.0.2", "10.244.99.1")] * (MAX_REJECTED + 5))
    assert len(alice.outbound.rejected) == MAX_REJECTED
    assert alice.lost() == {"no_route": MAX_REJECTED + 5}


# -- packing ---------------------------------------------------------------------------------------


def test_a_pass_of_small_packets_is_one_burst_and_one_send(alice: Alice):
    packets = [packet4(ALICE, BOB, bytes([index]) * index) for index in range(100)]
    alice.send(*packets)
    assert len(alice.wire) == 1
    assert alice.sent() == [packets]
    assert alice.ledger.sent_out == 100


def test_nothing_leaves_before_the_pass_ends(alice: Alice):
    alice.accept(packet4(ALICE, BOB))
    assert alice.wire == []
    assert alice.ledger.queued_packets == 1
    alice.check()
    alice.outbound.flush(0.0)
    assert len(alice.wire) == 1
    assert alice.ledger.queued_packets == 0


def test_flushing_nothing_sends_nothing(alice: Alice):
    alice.send()
    alice.send(packet4(ALICE, BOB))
    alice.wire.clear()
    alice.send()
    assert alice.wire == []


def test_a_full_burst_leaves_and_the_next_one_begins(alice: Alice):
    packets = [packet4(ALICE, BOB, bytes([index]) * 1472) for index in range(100)]
    alice.send(*packets)
    bursts = alice.sent()
    per_burst = alice.peers[BOB].burst // (len(packets[0]) + 3)
    assert [len(burst) for burst in bursts] == [per_burst, per_burst, 100 - 2 * per_burst]
    assert [packet for burst in bursts for packet in burst] == packets


def test_interleaved_peers_do_not_shrink_each_others_bursts(alice: Alice):
    to_bob = [packet4(ALICE, BOB, bytes([index])) for index in range(40)]
    to_carol = [packet6(ALICE, CAROL, bytes([index])) for index in range(40)]
    for one, other in zip(to_bob, to_carol, strict=True):
        alice.accept(one)
        alice.accept(other)
    alice.outbound.flush(0.0)
    assert len(alice.wire) == 2
    assert alice.sent(BOB) == [to_bob]
    assert alice.sent(CAROL) == [to_carol]


def test_small_packets_travel_in_the_burst_of_the_large_one_behind_them(alice: Alice):
    first, big = packet4(ALICE, BOB, b"1"), packet4(ALICE, BOB, BIG)
    alice.send(first, big)
    assert alice.sent() == [[first, big]]


def test_a_large_packet_is_a_burst_of_its_own_behind_more_than_fits_beside_it(alice: Alice):
    first = [packet4(ALICE, BOB, bytes(1400)) for _ in range(3)]
    big = packet4(ALICE, BOB, BIG)
    alice.send(*first, big)
    assert alice.sent() == [first, [big]]


def test_a_large_packet_never_overtakes_small_ones_that_another_peer_is_between(alice: Alice):
    first, between, big = packet4(ALICE, BOB, b"1"), packet4(ALICE, CAROL), packet4(ALICE, BOB, BIG)
    alice.send(first, between, big)
    assert alice.sent(BOB) == [[first], [big]]
    assert alice.sent(CAROL) == [[between]]


@pytest.mark.parametrize("over", [0, 1])
def test_the_border_between_small_and_large_loses_nothing(alice: Alice, over: int):
    packet = packet4(ALICE, BOB, bytes(LARGE - 3 - len(packet4(ALICE, BOB)) + over))
    assert len(packet) + 3 == LARGE + over
    other = packet4(ALICE, BOB)
    alice.send(packet, packet, other)
    bursts = [[other], [packet, packet]] if over else [[packet, packet, other]]
    assert alice.sent() == bursts


# -- segments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path_mtu", [1280, 1400, 1500, 9000, 65_535])
@pytest.mark.parametrize("size", [0, 1407, 1408, 2863, 30_000, 65_505])
def test_no_datagram_exceeds_the_path_and_every_send_holds_whole_segments(path_mtu, size):
    alice = Alice()
    alice.peers[BOB].use(ENDPOINTS[BOB], path_mtu)
    alice.send(packet4(ALICE, BOB, bytes(size)))
    for _, datagrams, step in alice.wire:
        assert len(datagrams) <= max(MAX_RUN, path_mtu - 28)
        assert (step or len(datagrams)) + 28 <= path_mtu
    for _, datagrams, step in alice.wire[:-1]:
        assert len(datagrams) % step == 0
    assert all(entry[1] for entry in alice.wire)
    (burst,) = open_bursts(alice.wire, alice.theirs[BOB])
    assert set(burst.sizes[:-1]) <= {path_mtu - 28}
    assert [body for _, body in burst.blocks] == [packet4(ALICE, BOB, bytes(size))]
    assert alice.peers[BOB].tx_bytes == sum(burst.sizes)


def test_a_super_packet_of_the_usual_size_is_one_send(alice: Alice):
    alice.send(packet4(ALICE, BOB, BIG))
    (_, datagrams, step), *rest = alice.wire
    assert rest == []
    assert step == 1500 - 28
    assert len(datagrams) > 62_000


def test_the_largest_burst_is_two_sends(alice: Alice):
    """One would reach the frame size from which the kernel segments in software."""
    alice.send(packet4(ALICE, BOB, bytes(65_505)))
    assert [len(entry[1]) <= MAX_RUN for entry in alice.wire] == [True, True]


# -- refused by the kernel -------------------------------------------------------------------------


def test_a_refused_send_loses_every_packet_of_the_burst(alice: Alice):
    alice.refuse = True
    alice.send(*[packet4(ALICE, BOB)] * 7)
    alice.send(packet4(ALICE, CAROL, BIG))
    assert alice.lost() == {"send_failed": 8}
    assert dict(alice.peers[BOB].drops) == {"send_failed": 7}
    assert dict(alice.peers[CAROL].drops) == {"send_failed": 1}
    alice.refuse = False
    alice.send(packet4(ALICE, BOB))
    assert alice.ledger.sent_out == 1


@pytest.mark.parametrize("refused", [1, 2])
def test_half_a_burst_sent_is_a_burst_lost(refused: int):
    """It went in two sends and one was refused: the receiver can do nothing with the other."""

    class Choosy(Alice):
        sends = 0

        def transmit(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
            self.sends += 1
            return self.sends != refused

    choosy = Choosy()
    choosy.send(packet4(ALICE, BOB, bytes(65_505)))
    assert choosy.sends == 2
    assert choosy.lost() == {"send_failed": 1}


def test_a_path_that_lost_its_endpoint_before_the_flush_loses_the_packets(alice: Alice):
    alice.accept(packet4(ALICE, BOB))
    alice.peers[BOB].endpoint = None
    alice.outbound.flush(0.0)
    alice.check()
    assert alice.lost() == {"no_endpoint": 1}


# -- control ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 59_000])
def test_a_control_message_is_a_burst_with_one_block(alice: Alice, size: int):
    message = encode(Probe(1)) + bytes(size)
    keypair = alice.peers[BOB].keypair
    effect = alice.outbound.seal_control(keypair, message, ENDPOINTS[BOB], 1500)
    assert isinstance(effect.datagram, bytes)
    assert effect.segment_size == (1500 - 28 if size else 0)
    wire = [(effect.endpoint, effect.datagram, effect.segment_size)]
    (burst,) = open_bursts(wire, alice.theirs[BOB])
    assert burst.blocks == [(BlockKind.CONTROL, message)]
    assert alice.wire == []


def test_control_and_packets_never_share_a_counter(alice: Alice):
    keypair = alice.peers[BOB].keypair
    control = alice.outbound.seal_control(keypair, b"m", ENDPOINTS[BOB], 1500)
    alice.accept(packet4(ALICE, BOB))
    again = alice.outbound.seal_control(keypair, b"m", ENDPOINTS[BOB], 1500)
    alice.outbound.flush(0.0)
    wire = [(ENDPOINTS[BOB], effect.datagram, 0) for effect in (control, again)]
    bursts = open_bursts(wire + alice.wire, alice.theirs[BOB])
    assert sorted(burst.counter for burst in bursts) == [0, 1, 2]


def test_sealed_bytes_show_nothing_of_the_packet(alice: Alice):
    canary = b"canary-0123456789"
    alice.send(packet4(ALICE, BOB, canary), packet4(ALICE, CAROL, canary * 1200))
    assert all(canary not in datagrams for _, datagrams, _ in alice.wire)
    assert all(address(ALICE, 2).packed not in datagrams for _, datagrams, _ in alice.wire)
