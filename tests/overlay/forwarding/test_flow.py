from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.forwarding.flow import Owners, ends, flow_untrusted, owners
from overlay.wire.ip import endpoints
from tests.support.pair import ALICE, BOB, CAROL, Routes, address, packet4, packet6

HEADER = 10


def flow(packet: bytes) -> bytes | None:
    return flow_untrusted(memoryview(packet), HEADER, len(packet))


@pytest.mark.parametrize(("version", "build"), [(4, packet4), (6, packet6)])
@pytest.mark.parametrize("size", [0, 1, 1400, 65_000])
def test_a_flow_is_the_two_addresses(version: int, build, size: int):
    found = flow(build(ALICE, BOB, bytes(size)))
    source, target = address(ALICE, 2, version), address(BOB, 2, version)
    assert found == source.packed + target.packed
    assert ends(found) == (version, int(source), int(target))


@pytest.mark.parametrize("build", [packet4, packet6])
@pytest.mark.parametrize("payload", [b"", b"payload"])
def test_a_packet_that_says_another_length_has_no_flow(build, payload: bytes):
    packet = build(ALICE, BOB, payload)
    assert flow(packet + b"\0") is None
    for size in range(HEADER, len(packet)):
        assert flow(packet[:size]) is None


@given(st.binary(max_size=64))
def test_what_has_a_flow_is_a_packet_for_the_parser_too(packet: bytes):
    found = flow_untrusted(memoryview(packet), 0, len(packet))
    if found is not None:
        assert ends(found) == endpoints(packet)


@pytest.mark.parametrize("first", [first for first in range(256) if first >> 4 not in (4, 6)])
def test_other_versions_have_no_flow(first: int):
    """Not even one that is known: a remembered flow must not let a broken header pass."""
    for build in (packet4, packet6):
        packet = bytearray(build(ALICE, BOB))
        packet[HEADER] = first
        assert flow(bytes(packet)) is None


@pytest.mark.parametrize("words", range(16))
def test_an_ipv4_header_is_at_least_five_words_and_inside_the_packet(words: int):
    packet = bytearray(packet4(ALICE, BOB, bytes(20)))
    packet[HEADER] = 0x40 | words
    assert (flow(bytes(packet)) is not None) == (5 <= words <= 10)


def test_what_surrounds_the_packet_does_not_matter():
    packet = packet4(ALICE, BOB, b"payload")[HEADER:]
    buffer = memoryview(b"\xff" * 7 + packet + b"\xff" * 9)
    assert flow_untrusted(buffer, 7, 7 + len(packet)) == flow(bytes(HEADER) + packet)


def test_owners_come_from_the_table_of_the_family():
    routes = Routes()
    assert owners(routes, flow(packet4(ALICE, BOB))) == Owners(ALICE, BOB)
    assert owners(routes, flow(packet6(CAROL, ALICE))) == Owners(CAROL, ALICE)
    nobody = ip_address("198.51.100.1").packed
    assert owners(routes, address(ALICE, 2).packed + nobody) == Owners(ALICE, None)
