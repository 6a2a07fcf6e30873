from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overlay.errors import WireError
from overlay.wire.burst import (
    BLOCK_HEADER_SIZE,
    MAX_BURST,
    MAX_RUN,
    TAG_SIZE,
    BlockKind,
    Cutter,
    Gatherer,
    block,
    blocks_untrusted,
    burst_limit,
    cut_copies,
    is_run_untrusted,
    segment_payload,
)
from overlay.wire.header import HEADER_SIZE, MAX_SEGMENTS, TYPE_DATA, Header

SMALLEST_PAYLOAD = segment_payload(1280, 48)
LARGEST_CIPHERTEXT = MAX_BURST + TAG_SIZE
# Made once: their buffers are reused from burst to burst, which is half of what is tested.
CUTTER, GATHERER = Cutter(), Gatherer()

payloads = st.integers(SMALLEST_PAYLOAD, 9000) | st.sampled_from([1216, 1436, 1456, 8956, 65_487])
sizes = st.integers(1, LARGEST_CIPHERTEXT)


def pattern(size: int) -> bytes:
    """Bytes that differ from their neighbours and from those one segment further."""
    return (b"".join(at.to_bytes(3, "big") for at in range(size // 3 + 1)))[:size]


def cut(ciphertext: bytes, payload: int, counter: int = 7) -> tuple[bytes, int]:
    """What a sender does: the datagrams of a burst back to back, and their step."""
    size = len(ciphertext)
    header = Header(TYPE_DATA, 0, (size - 1) // payload, 0, 9, counter).encode()
    if size <= payload:
        CUTTER.single[:size] = ciphertext
        return bytes(CUTTER.headed(header, size)), HEADER_SIZE + size
    CUTTER.ciphertext[:size] = ciphertext
    return bytes(CUTTER.cut(header, size, payload)), HEADER_SIZE + payload


# -- cutting and gathering -------------------------------------------------------------------------


@settings(max_examples=150)
@given(sizes, payloads)
def test_cutting_is_what_the_obvious_way_does(size: int, payload: int):
    ciphertext = pattern(size)
    datagrams, _ = cut(ciphertext, payload)
    header = Header(TYPE_DATA, 0, (size - 1) // payload, 0, 9, 7).encode()
    copies = cut_copies(header, ciphertext, payload)
    assert datagrams == b"".join(copies)
    assert len(copies) <= MAX_SEGMENTS
    for index, copy in enumerate(copies):
        assert Header.decode_untrusted(copy) == Header(TYPE_DATA, index, len(copies) - 1, 0, 9, 7)


@settings(max_examples=150)
@given(sizes, payloads, st.integers(0, 300), st.integers(0, 300))
@example(size=2 * 1456 + 1, payload=1456, before=0, after=0)
@example(size=2 * 1456, payload=1456, before=0, after=1)
def test_gathering_undoes_cutting(size: int, payload: int, before: int, after: int):
    """Wherever in the buffer the burst lies, and whatever is around it."""
    ciphertext = pattern(size)
    datagrams, step = cut(ciphertext, payload)
    buffer = memoryview(b"\xee" * before + datagrams + b"\xee" * after)
    end = before + len(datagrams)
    assert bytes(GATHERER.gather(buffer, before, step, end)) == ciphertext


def test_a_burst_leaves_nothing_behind_for_the_next():
    """The buffers are reused: a short burst after a long one must not show the long one."""
    cut(b"\xff" * LARGEST_CIPHERTEXT, SMALLEST_PAYLOAD)
    datagrams, step = cut(b"ab" * 1000, SMALLEST_PAYLOAD)
    assert bytes(GATHERER.gather(memoryview(datagrams), 0, step, len(datagrams))) == b"ab" * 1000


def test_a_single_datagram_is_header_and_ciphertext():
    assert cut(b"secret", 1456)[0].hex() == "04000000000000090000000000000007" + b"secret".hex()


def test_segments_look_as_the_protocol_says():
    """Golden: two full segments and a short one of a burst, at a toy payload of four bytes."""
    header = Header(TYPE_DATA, 0, 2, 0, 0x01020304, 0x05).encode()
    assert [datagram.hex() for datagram in cut_copies(header, b"ABCDEFGHIJ", 4)] == [
        "04000200010203040000000000000005" + b"ABCD".hex(),
        "04010200010203040000000000000005" + b"EFGH".hex(),
        "04020200010203040000000000000005" + b"IJ".hex(),
    ]


@pytest.mark.parametrize("overhead", [28, 48])
@pytest.mark.parametrize("path_mtu", [1280, 1400, 1500, 9000])
def test_a_segment_fills_the_path_and_any_burst_fits_the_index(path_mtu: int, overhead: int):
    payload = segment_payload(path_mtu, overhead)
    assert payload + HEADER_SIZE + overhead == path_mtu
    assert -(-LARGEST_CIPHERTEXT // payload) <= MAX_SEGMENTS


def test_a_run_of_segments_stays_below_the_frame_the_kernel_splits_itself():
    ethernet_ipv6_udp = 14 + 40 + 8
    assert MAX_RUN + ethernet_ipv6_udp < 65_536
    for path_mtu in range(1280, 9217):
        payload = segment_payload(path_mtu, 28)
        sealed = burst_limit(payload) + TAG_SIZE
        segments = -(-sealed // payload)
        assert segments <= MAX_SEGMENTS
        assert sealed + segments * HEADER_SIZE <= MAX_RUN
    assert -(-burst_limit(segment_payload(1500, 28)) // segment_payload(1500, 28)) == 44


# -- telling a run from a jumble -------------------------------------------------------------------

STEP = HEADER_SIZE + 50


def run_of(count: int, counter: int = 7, last: int | None = None) -> list[bytes]:
    header = Header(TYPE_DATA, 0, count - 1 if last is None else last, 0, 9, counter).encode()
    return cut_copies(header, pattern(count * 50 - 5), 50)


def is_run(datagrams: list[bytes], start: int = 0) -> bool:
    buffer = memoryview(b"\x00" * start + b"".join(datagrams))
    return is_run_untrusted(buffer, start, STEP, len(datagrams))


@pytest.mark.parametrize("count", [2, 3, 43, 64])
@pytest.mark.parametrize("start", [0, 1, STEP, 1000])
def test_a_burst_in_order_is_a_run(count: int, start: int):
    assert is_run(run_of(count), start)


@given(st.permutations(list(range(6))))
def test_shuffled_segments_are_a_run_only_in_order(order: list[int]):
    segments = [datagram.ljust(STEP, b"\0") for datagram in run_of(6)]
    assert is_run([segments[index] for index in order]) == (order == sorted(order))


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_missing_or_repeated_segment_breaks_the_run(missing: int, instead: int):
    segments = [datagram.ljust(STEP, b"\0") for datagram in run_of(6)]
    segments[missing] = segments[instead]
    assert is_run(segments) == (missing == instead)


@given(st.integers(0, 5), st.integers(1, 255))
def test_a_segment_of_another_burst_breaks_the_run(foreign: int, distance: int):
    segments = [datagram.ljust(STEP, b"\0") for datagram in run_of(6)]
    segments[foreign] = run_of(6, counter=7 + distance)[foreign].ljust(STEP, b"\0")
    assert not is_run(segments)


# -- blocks ----------------------------------------------------------------------------------------


def test_blocks_look_as_the_protocol_says():
    plaintext = (
        block(BlockKind.PACKET, b"E")
        + block(BlockKind.OFFLOADED, b"")
        + block(BlockKind.CONTROL, b"hi")
    )
    assert plaintext == bytes.fromhex("0001 01 45 0000 02 0002 03 6869")
    assert list(blocks_untrusted(memoryview(plaintext))) == [(1, b"E"), (2, b""), (3, b"hi")]


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8))
def test_reading_blocks_undoes_writing_them(blocks: list[tuple[int, bytes]]):
    plaintext = b"".join(
        len(body).to_bytes(2, "big") + bytes([kind]) + body for kind, body in blocks
    )
    assert list(blocks_untrusted(memoryview(plaintext))) == blocks


def test_the_largest_block_is_read_whole():
    body = pattern(0xFFFF)
    plaintext = block(BlockKind.CONTROL, body)
    assert len(plaintext) <= MAX_BURST
    assert list(blocks_untrusted(memoryview(plaintext))) == [(3, body)]


def test_no_bytes_are_no_blocks():
    assert list(blocks_untrusted(memoryview(b""))) == []


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.data())
def test_every_truncation_raises_after_the_blocks_that_are_whole(bodies, data):
    plaintext = b"".join(block(BlockKind.PACKET, body) for body in bodies)
    at = data.draw(st.integers(0, len(plaintext)))
    ends = [0]
    for body in bodies:
        ends.append(ends[-1] + BLOCK_HEADER_SIZE + len(body))
    blocks = blocks_untrusted(memoryview(plaintext)[:at])
    whole = bodies[: sum(end <= at for end in ends[1:])]
    assert [bytes(body) for _, body in islice(blocks, len(whole))] == whole
    if at in ends:
        assert list(blocks) == []
    else:
        with pytest.raises(WireError):
            next(blocks)


@given(st.binary(max_size=200))
def test_any_bytes_are_blocks_or_one_wire_error(plaintext: bytes):
    read = 0
    try:
        for _, body in blocks_untrusted(memoryview(plaintext)):
            read += BLOCK_HEADER_SIZE + len(body)
    except WireError:
        assert read < len(plaintext)
    else:
        assert read == len(plaintext)
