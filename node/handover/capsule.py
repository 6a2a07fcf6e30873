"""What one daemon leaves to the next: an engine's knowledge, in memory that only descriptors reach.

A memfd is a file without a name: it is gone with its last descriptor, never in a file system, and
once sealed nobody can change it, whoever has a descriptor. It is memory, though, and like all
memory it may be swapped out: a machine that swaps to a disk that others may read needs encrypted
swap, for this as for the daemon itself.

A capsule is good once: two engines that had the same keys with the same counters would use nonces
twice. Between two processes that talk to each other that is certain (`node.handover.speech`). One
that is left with the service manager is numbered, and its number is stored by whoever uses it,
before that (`node.handover.store`).

References:
    memfd_create(2), section "File sealing"; fcntl(2), F_ADD_SEALS.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from typing import Final

from node.errors import NodeError
from overlay.errors import WireError
from overlay.wire.packing import U32, Fields, pack

FORMAT: Final = 1
"""Grows whenever a capsule, or what is said around it, changes its meaning."""

LARGEST: Final = 256 << 20
"""Bytes. A session takes a few hundred, a member about a kilobyte."""

CAPSULE: Final = "capsule"
TUN: Final = "tun"
UDP: Final = "udp"
LOCK: Final = "lock"
CONTROL: Final = "control"
DOCKER: Final = "docker"
"""Names of descriptors that are passed on."""

_NAME: Final = "muslin-handover"
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_NOEXEC_SEAL: Final = 0x0008


@dataclass(frozen=True, slots=True)
class Capsule:
    """All that is passed on and is no descriptor.

    Attributes:
        engine: what `Engine.hand_over` gave. Secret.
        number: of those that are left with the service manager; 0 otherwise.
        format: `FORMAT` of who made it.
    """

    engine: bytes = field(repr=False)
    number: int = 0
    format: int = FORMAT

    def seal(self) -> int:
        """A descriptor of it, not inherited by programs that this process runs.

        Raises:
            NodeError: the kernel refused: no memory. Nothing else.
        """
        try:
            return _seal(pack(list(astuple(self))))
        except OSError as error:
            raise NodeError.of("making memory to hand over in", error) from error

    @classmethod
    def unseal(cls, descriptor: int) -> Capsule:
        """Read what `seal` made; the descriptor stays open.

        Raises:
            NodeError: it did not, or another version of Muslin did (`other-version`). Nothing else.
        """
        try:
            data = _unseal(descriptor)
        except OSError as error:
            raise NodeError.of("reading what was handed over", error) from error
        try:
            fields = Fields.unpack_untrusted(data, LARGEST, "capsule", count=3)
            found = cls(fields.bytes(0), fields.integer(1), fields.integer(2, 0, U32))
        except WireError as error:
            raise NodeError(f"what was handed over cannot be read ({error})") from error
        if found.format != FORMAT:
            raise NodeError(
                "what was handed over is from another version of Muslin",
                "stop the daemon and start it again",
                "other-version",
            )
        return found


def _seal(data: bytes) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        handle = os.memfd_create(_NAME, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        handle = os.memfd_create(_NAME, flags)  # Linux before 6.3
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        with suppress(OSError):
            os.close(handle)
        raise
    return handle


def _unseal(descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise OSError(0, "no capsule")
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise OSError(0, "it is not sealed")
    data, at = bytearray(), 0
    while at < status.st_size:
        piece = os.pread(descriptor, status.st_size - at, at)
        data += piece
        at += len(piece)
    return bytes(data)
