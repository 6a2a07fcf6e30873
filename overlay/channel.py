"""Control messages over one keypair, for a process that has no packet path.

A node's control messages travel beside its packets, through `overlay.forwarding`. A joining process
has only one peer and a handful of messages, so here the same format is written and read the plain
way:

    message --> block --> burst --> ciphertext --> segments of 1200 bytes, behind headers
    message <-- block <-- burst <-- ciphertext <-- reassembly <------------------'

The checks and their order are those of `overlay.forwarding.inbound`.
"""

from __future__ import annotations

from typing import Final

from overlay.config import Limits, Timing
from overlay.drops import DropReason
from overlay.errors import AuthError, WireError
from overlay.session.transport import Keypair
from overlay.wire.burst import TAG_SIZE, BlockKind, block, blocks_untrusted, cut_copies
from overlay.wire.control import decode_untrusted, encode
from overlay.wire.header import HEADER_SIZE, TYPE_DATA, Header
from overlay.wire.messages import Message
from overlay.wire.reassembly import Reassembly

SEGMENT_SIZE: Final = 1200
"""Bytes of a datagram, header included: passes any path without knowing its MTU."""


class Channel:
    """Seals and opens control messages under one keypair.

    Args:
        keypair: of a finished handshake.
        timing: `reassembly_after`.
        limits: `reassembly_per_session`.
    """

    __slots__ = ("_keypair", "_reassembly")

    def __init__(self, keypair: Keypair, timing: Timing, limits: Limits) -> None:
        self._keypair = keypair
        self._reassembly = Reassembly(
            per_session=limits.reassembly_per_session,
            total=limits.reassembly_per_session,
            expires_after=timing.reassembly_after,
        )

    def usable(self, now: float) -> bool:
        """Whether the keypair may still be used."""
        return self._keypair.usable(now)

    def seal(self, message: Message) -> list[bytes]:
        """The datagrams that carry `message`, in a burst of its own.

        Raises:
            CapacityError: the message is too large, or the keypair is used up. Nothing else.
        """
        plaintext = block(BlockKind.CONTROL, encode(message))
        ciphertext = bytearray(len(plaintext) + TAG_SIZE)
        payload = SEGMENT_SIZE - HEADER_SIZE
        header = Header(
            TYPE_DATA,
            last=-(-len(ciphertext) // payload) - 1,
            receiver=self._keypair.remote_index,
            counter=self._keypair.next_counter(),
        )
        associated = header.associated_data()
        self._keypair.seal_into(header.counter, plaintext, associated, ciphertext)
        return cut_copies(header.encode(), bytes(ciphertext), payload)

    def open_untrusted(self, datagram: bytes, now: float) -> list[Message]:
        """The messages of the burst that `datagram` completes; none while segments are missing.

        Error contract: after an error nothing has changed, except that a segment may wait for the
        rest of its burst.

        Raises:
            WireError: no segment of a burst for this keypair, or what is in it does not parse.
            AuthError: replayed, or it does not verify. Nothing else.
        """
        header = Header.decode_untrusted(datagram)
        if header.type != TYPE_DATA or header.fault() or header.lane:
            raise WireError("no segment of a burst")
        if header.receiver != self._keypair.local_index or not self._keypair.usable(now):
            raise WireError("a segment for another keypair")
        if not self._keypair.replay.check(header.counter):
            raise AuthError("a burst that was seen before", DropReason.REPLAYED)
        ciphertext: bytes | None = datagram[HEADER_SIZE:]
        if header.last:
            piece = memoryview(datagram)[HEADER_SIZE:]
            ciphertext = self._reassembly.take(header, piece, None, now).ciphertext
        return [] if ciphertext is None else self._open(header, ciphertext)

    def _open(self, header: Header, ciphertext: bytes) -> list[Message]:
        if len(ciphertext) < TAG_SIZE:
            raise WireError("a burst without a tag")
        plaintext = bytearray(len(ciphertext) - TAG_SIZE)
        associated = header.associated_data()
        self._keypair.open_into(header.counter, ciphertext, associated, plaintext)
        self._keypair.replay.accept(header.counter)
        blocks = blocks_untrusted(memoryview(plaintext))
        return [decode_untrusted(body) for kind, body in blocks if kind == BlockKind.CONTROL]

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next."""
        return self._reassembly.next_deadline()

    def expire(self, now: float) -> None:
        """Forget bursts whose segments did not come in time."""
        self._reassembly.expire(now)
