"""Tests of overlay.channel."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.channel import SEGMENT_SIZE, Channel
from overlay.config import Limits, Timing
from overlay.drops import DropReason
from overlay.errors import AuthError, OverlayError, WireError
from overlay.session.transport import Keypair
from overlay.wire.burst import BlockKind, block, cut_copies
from overlay.wire.control import encode
from overlay.wire.header import HEADER_SIZE, Header
from overlay.wire.items import Item
from overlay.wire.messages import Delta, Message, Probe, ProbeReply
from tests.support.pair import ALICE, BOB, LIFE, keypairs

LARGE = Delta((Item(b"n" * 33, 1, random.Random(1).randbytes(30_000)),))


def ends() -> tuple[Channel, Channel]:
    return tuple(Channel(keypair, Timing(), Limits()) for keypair in keypairs(ALICE, BOB))


def receive(channel: Channel, datagrams: list[bytes], now: float = 0.0) -> list[Message]:
    return [message for each in datagrams for message in channel.open_untrusted(each, now)]


def test_a_message_arrives_in_one_datagram() -> None:
    here, there = ends()
    datagrams = here.seal(Probe(7))
    assert len(datagrams) == 1
    assert receive(there, datagrams) == [Probe(7)]


def test_a_large_message_arrives_in_segments_in_any_order() -> None:
    here, there = ends()
    datagrams = here.seal(LARGE)
    assert len(datagrams) == 26
    assert {len(each) for each in datagrams[:-1]} == {SEGMENT_SIZE}
    random.Random(2).shuffle(datagrams)
    assert receive(there, datagrams) == [LARGE]


def test_both_directions_count_on_their_own() -> None:
    here, there = ends()
    for sequence in range(3):
        assert receive(there, here.seal(Probe(sequence))) == [Probe(sequence)]
        assert receive(here, there.seal(ProbeReply(sequence))) == [ProbeReply(sequence)]


def test_a_burst_is_opened_once() -> None:
    here, there = ends()
    datagrams = here.seal(Probe(1))
    receive(there, datagrams)
    with pytest.raises(AuthError, match="seen before"):
        receive(there, datagrams)


@given(data=st.data())
def test_a_changed_bit_anywhere_is_refused_and_changes_nothing(data: st.DataObject) -> None:
    here, there = ends()
    (datagram,) = here.seal(Probe(1))
    at = data.draw(st.integers(0, len(datagram) - 1))
    changed = bytearray(datagram)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    if changed[1] <= changed[2] < 64 and changed[2]:
        return  # a segment of a longer burst: it waits for the rest
    with pytest.raises((AuthError, WireError)):
        there.open_untrusted(bytes(changed), 0.0)
    assert receive(there, [datagram]) == [Probe(1)]


@given(st.binary(max_size=80))
def test_random_bytes_raise_errors_of_ours_only(datagram: bytes) -> None:
    with pytest.raises(OverlayError):
        ends()[1].open_untrusted(datagram, 0.0)


@pytest.mark.parametrize(
    "change",
    [{"type": 1}, {"lane": 1}, {"receiver": 5}, {"last": 64}, {"index": 1}],
)
def test_segments_that_are_not_for_this_keypair_are_refused(change: dict[str, int]) -> None:
    here, there = ends()
    (datagram,) = here.seal(Probe(1))
    header = Header.decode_untrusted(datagram)._replace(**change)
    with pytest.raises(WireError):
        there.open_untrusted(header.encode() + datagram[HEADER_SIZE:], 0.0)


def test_a_burst_too_short_for_a_tag_is_refused() -> None:
    here, there = ends()
    (datagram,) = here.seal(Probe(1))
    with pytest.raises(WireError, match="tag"):
        there.open_untrusted(datagram[: HEADER_SIZE + 15], 0.0)


def test_nothing_is_opened_under_keys_that_are_too_old() -> None:
    here, there = ends()
    assert here.usable(LIFE - 1)
    assert not there.usable(LIFE)
    with pytest.raises(WireError):
        receive(there, here.seal(Probe(1)), now=LIFE)


def test_segments_are_not_kept_for_ever() -> None:
    here, there = ends()
    datagrams = here.seal(LARGE)
    assert receive(there, datagrams[:-1], now=3.0) == []
    assert there.next_deadline() == 3.0 + Timing().reassembly_after
    there.expire(4.0)
    assert there.next_deadline() is None
    assert receive(there, datagrams[-1:], now=4.0) == []


def sealed(keypair: Keypair, plaintext: bytes) -> list[bytes]:
    header = Header(4, receiver=keypair.remote_index, counter=keypair.next_counter())
    out = bytearray(len(plaintext) + 16)
    keypair.seal_into(header.counter, plaintext, header.associated_data(), out)
    return cut_copies(header.encode(), bytes(out), 10_000)


def test_blocks_that_are_no_control_messages_are_passed_over() -> None:
    mine, others = keypairs(ALICE, BOB)
    plaintext = block(BlockKind.PACKET, b"ip") + block(BlockKind.CONTROL, encode(Probe(1)))
    channel = Channel(others, Timing(), Limits())
    assert receive(channel, sealed(mine, plaintext)) == [Probe(1)]


def test_a_burst_of_bad_blocks_is_a_wire_error() -> None:
    mine, others = keypairs(ALICE, BOB)
    channel = Channel(others, Timing(), Limits())
    for plaintext in (b"\xff", block(BlockKind.CONTROL, b"\xc1")):
        with pytest.raises(WireError):
            receive(channel, sealed(mine, plaintext))


def test_errors_name_the_counter_they_belong_to() -> None:
    here, there = ends()
    (datagram,) = here.seal(Probe(1))
    with pytest.raises(AuthError) as caught:
        there.open_untrusted(datagram[:-1] + bytes([datagram[-1] ^ 1]), 0.0)
    assert caught.value.reason is DropReason.BAD_TAG
    there.open_untrusted(datagram, 0.0)
    with pytest.raises(AuthError) as caught:
        there.open_untrusted(datagram, 0.0)
    assert caught.value.reason is DropReason.REPLAYED
