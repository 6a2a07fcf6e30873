"""Bursts: many packets, one seal, one system call.

A burst is what one pass over the TUN yields for one peer. Its plaintext is a run of blocks:

     0               2       3
     +-------+-------+-------+----------------------+-------+-------+-------+---
     |    length     | kind  | `length` bytes       |    length     | kind  | ...
     +-------+-------+-------+----------------------+-------+-------+-------+---

Sealed, it becomes one ciphertext (16 bytes longer, for the tag), which is cut into equal segments;
only the last may be shorter. Each segment travels in a datagram of its own behind a copy of the
outer header that differs in `index` alone:

    header 0 | ciphertext[0:s]    header 1 | ciphertext[s:2s]    ...    header n | the rest

One `sendmsg` with UDP_SEGMENT hands all of them to the kernel, and UDP_GRO usually gives them back
in one buffer. Cutting and gathering are one strided copy each, whatever the number of segments:
that is the difference between this and a Python loop per packet.

References:
    Linux Documentation/networking/segmentation-offloads.rst (UDP_SEGMENT, UDP_GRO).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

import numpy as np

from overlay.errors import WireError
from overlay.wire.header import HEADER_SIZE, MAX_SEGMENTS

# -- specification ---------------------------------------------------------------------------------

BLOCK: Final = Struct(">HB")
BLOCK_HEADER_SIZE: Final = BLOCK.size
TAG_SIZE: Final = 16


class BlockKind(IntEnum):
    """What a block holds. Append only; receivers skip and count kinds they do not know."""

    PACKET = 1  #: an IPv4 or IPv6 packet, checksums complete
    OFFLOADED = 2  #: a virtio_net_hdr (10 bytes, little endian), then an IP packet
    CONTROL = 3  #: a control message (`overlay.wire.control`)


MAX_BURST: Final = BLOCK_HEADER_SIZE + 0xFFFF
"""Largest plaintext of a burst: one block of the largest length a block can say."""

MAX_CIPHERTEXT: Final = MAX_BURST + TAG_SIZE
"""What all segments of a burst have together, at most. Receivers hold no more than that for one."""

# -- implementation --------------------------------------------------------------------------------

MAX_RUN: Final = 65_472
"""Bytes handed to the kernel in one segmented send. With Ethernet, IPv6 and UDP headers (62) the
frame stays below 65,536; from there the kernel segments in software, 2.6 times slower."""

_INDEXES: Final = bytes(range(MAX_SEGMENTS))
_INDEX_COLUMN: Final = np.arange(MAX_SEGMENTS, dtype=np.uint8)
_INDEX_AT: Final = 1
_COUNTER_LOW_AT: Final = HEADER_SIZE - 1


def segment_payload(path_mtu: int, ip_overhead: int) -> int:
    """Ciphertext bytes per segment on a path.

    Args:
        path_mtu: largest IP packet the path carries, 1280 or more.
        ip_overhead: bytes of IP and UDP header, 28 or 48 (`Endpoint.ip_overhead`).
    """
    return path_mtu - ip_overhead - HEADER_SIZE


def burst_limit(payload: int) -> int:
    """Largest plaintext of a burst whose segments of `payload` bytes leave in one send.

    >>> burst_limit(segment_payload(1500, 28))
    64048
    """
    segments = min(max(MAX_RUN // (payload + HEADER_SIZE), 1), MAX_SEGMENTS)
    return min(segments * payload, MAX_CIPHERTEXT) - TAG_SIZE


def block(kind: BlockKind, body: bytes) -> bytes:
    """One block.

    >>> block(BlockKind.CONTROL, b"hi").hex()
    '0002036869'
    """
    return BLOCK.pack(len(body), kind) + body


def block_untrusted(plaintext: memoryview, position: int) -> tuple[int, memoryview]:
    """Kind and body of the block at `position`; the view aliases `plaintext`.

    Raises:
        WireError: the block reaches past the end. Nothing else.
    """
    left = len(plaintext) - position - BLOCK_HEADER_SIZE
    if left < 0:
        raise WireError(f"{left + BLOCK_HEADER_SIZE} bytes where a block header should be")
    length, kind = BLOCK.unpack_from(plaintext, position)
    if length > left:
        raise WireError(f"a block of {length} bytes where {left} are left")
    start = position + BLOCK_HEADER_SIZE
    return kind, plaintext[start : start + length]


def blocks_untrusted(plaintext: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The (kind, body) of each block, in order; the views alias `plaintext`.

    Raises:
        WireError: a block reaches past the end. What was yielded before stands. Nothing else.
    """
    position, end = 0, len(plaintext)
    while position < end:
        kind, body = block_untrusted(plaintext, position)
        yield kind, body
        position += BLOCK_HEADER_SIZE + len(body)


def run_length_untrusted(plaintext: memoryview, position: int, stride: int, most: int) -> int:
    """How many blocks from `position` on have the header of the first.

    Args:
        plaintext: of a burst.
        position: where a block of `stride` bytes begins, its header included.
        stride: bytes from one block to the next.
        most: blocks of that size that fit into the rest, 1 or more.
    """
    rows = np.frombuffer(plaintext, np.uint8, most * stride, position).reshape(most, stride)
    headers = rows[:, :BLOCK_HEADER_SIZE]
    differing = np.flatnonzero((headers != headers[0]).any(axis=1))
    return int(differing[0]) if len(differing) else most


class Cutter:
    """Cuts ciphertexts into headed segments, in a buffer it owns and reuses.

    The ciphertext is sealed straight into `ciphertext`; `cut` then makes the datagrams with one
    strided copy. The result is valid until the next `cut`.
    """

    __slots__ = ("_datagrams", "_sealed", "_sent", "ciphertext", "single")

    def __init__(self) -> None:
        # The last row of `cut` may reach past the ciphertext by most of a segment.
        capacity = 2 * MAX_CIPHERTEXT
        self._sealed = np.zeros(capacity, np.uint8)
        self._datagrams = np.zeros(capacity + MAX_SEGMENTS * HEADER_SIZE, np.uint8)
        self._sent = memoryview(self._datagrams.data).cast("B")
        self.ciphertext = memoryview(self._sealed.data).cast("B")
        self.single = self._sent[HEADER_SIZE:]
        """Where to seal a ciphertext that fits one segment: no copy is needed then."""

    def cut(self, header: bytes, size: int, payload: int) -> memoryview:
        """The datagrams of the first `size` bytes of `ciphertext`, back to back.

        Args:
            header: outer header with index 0 and the right `last`.
            size: bytes of ciphertext, more than `payload`.
            payload: ciphertext bytes per segment; each datagram but the last has
                `payload + HEADER_SIZE` bytes.
        """
        count = -(-size // payload)
        step = payload + HEADER_SIZE
        rows = self._datagrams[: count * step].reshape(count, step)
        # The last row copies stale bytes behind the ciphertext; they are not part of the result.
        rows[:, HEADER_SIZE:] = self._sealed[: count * payload].reshape(count, payload)
        rows[:, :HEADER_SIZE] = np.frombuffer(header, np.uint8)
        rows[:, _INDEX_AT] = _INDEX_COLUMN[:count]
        return self._sent[: size + count * HEADER_SIZE]

    def headed(self, header: bytes, size: int) -> memoryview:
        """The one datagram of `size` bytes of ciphertext sealed into `single`."""
        self._sent[:HEADER_SIZE] = header
        return self._sent[: HEADER_SIZE + size]


def is_run_untrusted(buffer: memoryview, start: int, step: int, count: int) -> bool:
    """Whether `count` datagrams from `start`, `step` bytes apart, are segments 0.. of one burst.

    Looks at the index and the lowest counter byte of each: enough to tell bursts apart that the
    kernel joined; the AEAD tag decides the rest.
    """
    end = start + (count - 1) * step + HEADER_SIZE
    if buffer[start + _INDEX_AT : end : step].tobytes() != _INDEXES[:count]:
        return False
    low = buffer[start + _COUNTER_LOW_AT : end : step].tobytes()
    return low == low[:1] * count


class Gatherer:
    """Joins the segments of a burst that arrived in one buffer, in a buffer it owns and reuses."""

    __slots__ = ("_joined", "_view")

    def __init__(self) -> None:
        self._joined = np.zeros(1 << 17, np.uint8)
        self._view = memoryview(self._joined.data).cast("B")

    def gather(self, buffer: memoryview, start: int, step: int, end: int) -> memoryview:
        """The ciphertext of the segments in `buffer[start:end]`, `step` bytes apart.

        The result is valid until the next call. `end - start` is at most 65,535: it came in one
        `recvmsg`.
        """
        payload = step - HEADER_SIZE
        whole = (end - start) // step
        source = np.frombuffer(buffer, np.uint8, whole * step, start).reshape(whole, step)
        joined = whole * payload
        self._joined[:joined].reshape(whole, payload)[:] = source[:, HEADER_SIZE:]
        rest = end - start - whole * step - HEADER_SIZE
        if rest > 0:
            self._view[joined : joined + rest] = buffer[end - rest : end]
            joined += rest
        return self._view[:joined]


def cut_copies(header: bytes, ciphertext: bytes, payload: int) -> list[bytes]:
    """The datagrams of a burst as separate bytes: the obvious way, for rare senders and tests."""
    pieces = [ciphertext[at : at + payload] for at in range(0, len(ciphertext), payload)]
    return [
        header[:_INDEX_AT] + bytes([index]) + header[_INDEX_AT + 1 :] + piece
        for index, piece in enumerate(pieces)
    ]
