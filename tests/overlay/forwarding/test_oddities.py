"""Inner packets that parsers disagree about: dropped, or carried as they are; never half of either.

The overlay looks at lengths and addresses of the IP header and at nothing behind it. So there is no
transport header that a tiny fragment could hide, and no chain of extension headers to walk: options
and fragments, overlapping ones too, are the business of the kernel that receives them. What that
kernel makes of them is compared with a kernel that has no overlay in tests/netns/test_oddities.py.
"""

from __future__ import annotations

import pytest

from overlay.wire.burst import BlockKind, block
from overlay.wire.ip import parse_untrusted
from overlay.wire.virtio import NO_OFFLOAD
from tests.support.builders import udp4, udp6
from tests.support.oddities import MALFORMED, MARTIANS, ODDITIES, SOUND, Oddity
from tests.support.pair import ALICE, BOB, ENDPOINTS, Pair, address, sealed

MARK = b"marked!!"
UDP = {4: udp4, 6: udp6}
HERE = ENDPOINTS[ALICE]
PLACES = [
    (version, which, martian)
    for version, martians in MARTIANS.items()
    for which in (0, 1)
    for martian in martians
]


def ends(version: int) -> list[object]:
    return [address(ALICE, 2, version), address(BOB, 2, version)]


@pytest.mark.parametrize("case", ODDITIES, ids=lambda case: f"IPv{case.version} {case.name}")
def test_an_odd_packet_is_dropped_at_both_ends_or_carried_unchanged(pair: Pair, case: Oddity):
    packet = case.make(tuple(ends(case.version)), MARK)
    parse_untrusted(packet)
    pair.alice.send(NO_OFFLOAD + packet)
    pair.carry()
    # And from a peer that does not check what it sends.
    for kind, front in ((BlockKind.PACKET, b""), (BlockKind.OFFLOADED, NO_OFFLOAD)):
        pair.bob.receive(sealed(pair, block(kind, front + packet)), source=HERE)
    if case.verdict == SOUND:
        assert pair.bob.delivered == [NO_OFFLOAD + packet] * 3
        assert (pair.alice.lost(), pair.bob.lost()) == ({}, {})
    else:
        assert case.verdict == MALFORMED
        assert (pair.alice.wire, pair.bob.delivered) == ([], [])
        assert (pair.alice.lost(), pair.bob.lost()) == ({MALFORMED: 1}, {MALFORMED: 2})


@pytest.mark.parametrize(("version", "which", "martian"), PLACES)
def test_a_packet_from_or_to_a_martian_goes_nowhere(pair: Pair, version, which, martian):
    pair_of_ends = ends(version)
    pair_of_ends[which] = martian
    packet = UDP[version](*pair_of_ends, MARK)
    pair.alice.send(NO_OFFLOAD + packet)
    pair.bob.receive(sealed(pair, block(BlockKind.PACKET, packet)), source=HERE)
    assert (pair.alice.wire, pair.bob.delivered) == ([], [])
    (sent,), (received,) = pair.alice.lost(), pair.bob.lost()
    assert sent in ({"foreign_source"} if which == 0 else {"multicast", "no_route"})
    assert received == ("spoofed_source" if which == 0 else "not_ours")


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_from_the_receivers_own_address_is_spoofed(pair: Pair, version):
    own = address(BOB, 2, version)
    packet = UDP[version](own, own, MARK)
    pair.bob.receive(sealed(pair, block(BlockKind.PACKET, packet)), source=HERE)
    assert pair.bob.lost() == {"spoofed_source": 1}
    assert pair.bob.delivered == []


def test_fragments_that_overlap_are_carried_in_order(pair: Pair):
    """Which of them wins is the end host's decision, as without an overlay."""
    parts = [case for case in ODDITIES if "fragment" in case.name and case.version == 4]
    packets = [NO_OFFLOAD + case.make(tuple(ends(4)), MARK) for case in parts]
    assert len(packets) > 4
    pair.alice.send(*packets)
    pair.carry()
    assert pair.bob.delivered == packets
