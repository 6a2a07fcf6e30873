from __future__ import annotations

import pytest

from overlay.effects import SendDatagram
from overlay.forwarding.ledger import Ledger
from overlay.forwarding.path import PeerPath
from overlay.forwarding.sealer import Sealer
from overlay.types import Endpoint
from overlay.wire.burst import MAX_RUN, BlockKind, block
from overlay.wire.header import HEADER_SIZE
from tests.support.pair import ALICE, BOB, ENDPOINTS, keypairs, open_bursts


class Wire:
    """Takes what is sent; refuses while `full`."""

    def __init__(self) -> None:
        self.sent: list[tuple[Endpoint, bytes, int]] = []
        self.full = False

    def transmit(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        if not self.full:
            self.sent.append((endpoint, bytes(datagrams), step))
        return not self.full


@pytest.fixture
def wire() -> Wire:
    return Wire()


def path(endpoint: Endpoint | None = ENDPOINTS[BOB], mtu: int = 1500) -> PeerPath:
    made = PeerPath(BOB)
    made.use(endpoint, mtu)
    return made


@pytest.mark.parametrize("size", [0, 1400, 1437, 1438, 30_000, 64_045, 65_535])
@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
def test_a_burst_opens_to_what_was_sealed(wire: Wire, size: int, mtu: int):
    ours, theirs = keypairs(ALICE, BOB)
    ledger, peer = Ledger(), path(mtu=mtu)
    plaintext = block(BlockKind.OFFLOADED, (bytes(range(251)) * 262)[:size])
    Sealer(ledger, wire.transmit).seal(peer, ours, memoryview(plaintext), 5)
    assert ledger.sent_out == 5
    assert peer.tx_bytes == sum(len(datagrams) for _, datagrams, _ in wire.sent)
    assert all(len(datagrams) <= MAX_RUN for _, datagrams, _ in wire.sent)
    assert all(step in (0, peer.payload + HEADER_SIZE) for _, _, step in wire.sent)
    [burst] = open_bursts(wire.sent, theirs)
    assert [block(BlockKind(kind), body) for kind, body in burst.blocks] == [plaintext]


@pytest.mark.parametrize("mtu", [1280, 1500, 8213, 9000])
def test_what_fills_the_burst_limit_is_one_send_and_a_segment_more_is_two(wire: Wire, mtu: int):
    ours, _ = keypairs(ALICE, BOB)
    peer = path(mtu=mtu)
    sealer = Sealer(Ledger(), wire.transmit)
    sealer.seal(peer, ours, memoryview(bytes(peer.burst)), 1)
    assert len(wire.sent) == 1
    sealer.seal(peer, ours, memoryview(bytes(peer.burst + peer.payload)), 1)
    assert len(wire.sent) == 3


def test_a_refused_send_loses_all_its_packets_and_says_so(wire: Wire):
    ours, _ = keypairs(ALICE, BOB)
    ledger, peer = Ledger(), path()
    wire.full = True
    Sealer(ledger, wire.transmit).seal(peer, ours, memoryview(bytes(100)), 7)
    assert ledger.view().drops == peer.drops == {"send_failed": 7}


def test_without_an_endpoint_no_counter_is_spent(wire: Wire):
    ours, _ = keypairs(ALICE, BOB)
    ledger = Ledger()
    Sealer(ledger, wire.transmit).seal(path(endpoint=None), ours, memoryview(bytes(9)), 2)
    assert ledger.view().drops == {"no_endpoint": 2}
    assert ours.counter == 0


def test_a_control_message_is_an_effect_and_sends_nothing_itself(wire: Wire):
    ours, theirs = keypairs(ALICE, BOB)
    effect = Sealer(Ledger(), wire.transmit).control(ours, b"message", ENDPOINTS[BOB], 1500)
    assert isinstance(effect, SendDatagram)
    assert wire.sent == []
    [burst] = open_bursts([(effect.endpoint, effect.datagram, effect.segment_size)], theirs)
    assert burst.blocks == [(BlockKind.CONTROL, b"message")]
