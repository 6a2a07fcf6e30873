"""The TUN interface, with as many offloads as the kernel has.

With `IFF_VNET_HDR` every packet travels behind a 10-byte virtio_net_hdr, and after `TUNSETOFFLOAD`
the kernel hands over TCP and UDP super-packets of up to 64 KB unsegmented, checksums unfinished.
One read then moves what would have been 44. Kernels that lack an offload refuse the ioctl; we ask
for less until they agree, and do in software what is left (`overlay.wire.virtio`).

An interface goes with the last descriptor of it, unless it was told to stay (`Tun.keep`). Then it
is there without a reader when a process was killed: what is routed to it is dropped, and the next
process attaches to it. A queue that another process passed on is taken over as it is.

References:
    Linux Documentation/networking/tuntap.rst; include/uapi/linux/if_tun.h (ioctls and flags).
    virtio 1.2, section 5.1.6 (the header).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Collection
from contextlib import suppress
from struct import Struct
from typing import Final

import pytun

from node.errors import NodeError
from overlay.errors import WireError
from overlay.wire.virtio import (
    NO_OFFLOAD,
    READ_SIZE,
    VIRTIO_HEADER_SIZE,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_UDP_L4,
    VirtioHeader,
    segment_untrusted,
)

TUNSETPERSIST: Final = 0x400454CB
TUNGETIFF: Final = 0x800454D2
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETQUEUE: Final = 0x400454D9
IFF_ATTACH_QUEUE: Final = 0x0200
IFF_DETACH_QUEUE: Final = 0x0400
IFF_PERSIST: Final = 0x0800
TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_TSO_ECN: Final = 0x08
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40

OFFLOADS: Final = {
    "checksum": TUN_F_CSUM,
    "tso": TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
    "uso": TUN_F_USO4 | TUN_F_USO6,
}
"""What can be asked of the kernel. It gives `tso` and `uso` only together with `checksum`."""

_GIVEN_UP_FIRST: Final = ("uso", "tso", "checksum")
"""USO came with Linux 6.2, the rest is older than Debian."""


class TunError(NodeError):
    """The TUN interface could not be made, or is gone."""


class Tun:
    """A TUN interface of this network namespace. Gone when closed, also one that was kept.

    Error contract: after `read_into` raised, the interface is gone for good; writes are refused and
    reads raise until `reopen` succeeds.

    Args:
        name: interface name, at most 15 bytes.
        offload: names in `OFFLOADS` to ask the kernel for; none of them forces the software path,
            for kernels (and tests) that need it. True is all of them.
        queues: whether several processes shall read from it. An interface made with either cannot
            be opened with the other.
        descriptor: a queue that another process made and passed on; closed with this. The
            interface is then not made.

    Attributes:
        kept: whether the interface outlives this process if that is killed.

    Raises:
        TunError: no /dev/net/tun, no permission, the name is taken, or `descriptor` is not a queue
            of such an interface; then it is still open.
    """

    def __init__(
        self,
        name: str,
        *,
        offload: bool | Collection[str] = True,
        queues: bool = False,
        descriptor: int | None = None,
    ) -> None:
        self.name = name
        self._queues = queues
        self.offloads: tuple[str, ...] = ()
        self._wanted = _names(offload)
        self._header = bool(self._wanted)
        if descriptor is None:
            self._open()
        else:
            self._adopt(descriptor)

    @property
    def _flags(self) -> int:
        flags = pytun.IFF_TUN | pytun.IFF_NO_PI | (pytun.IFF_VNET_HDR if self._header else 0)
        return int(flags | (pytun.IFF_MULTI_QUEUE if self._queues else 0))

    def _open(self) -> None:
        self._use(_make_device(self.name, self._flags))

    def _adopt(self, descriptor: int) -> None:
        name, flags = _read_interface(descriptor)
        if (name, flags & ~IFF_PERSIST) != (self.name, self._flags):
            why = f"the interface {name or self.name} that was passed on is another kind"
            raise TunError(why, "stop the daemon and start it again")
        self._use(descriptor)

    def _use(self, descriptor: int) -> None:
        self._fd = descriptor
        self.offloads = _negotiate(self._fd, self._wanted) if self._header else ()
        self.kept = bool(_read_interface(descriptor)[1] & IFF_PERSIST)
        os.set_blocking(self._fd, False)
        # An interface lives as long as its descriptor: no child may keep it when the daemon ends.
        os.set_inheritable(self._fd, False)

    def reopen(self) -> None:
        """Make the interface anew, when somebody removed it. `fileno` changes.

        Raises:
            TunError: as when it was made first; nothing has changed then.
        """
        gone = self._fd
        self._open()
        with suppress(OSError):  # it may only be elsewhere: nobody shall keep it there
            fcntl.ioctl(gone, TUNSETPERSIST, 0)
        os.close(gone)

    def keep(self) -> None:
        """Let the interface outlive this process, until `close`. Twice is fine.

        Raises:
            TunError: it is gone. Nothing else.
        """
        self._set_kept(kept=True)

    def unkeep(self) -> None:
        """Let the interface go with the last descriptor again. Twice is fine.

        Raises:
            TunError: it is gone. Nothing else.
        """
        self._set_kept(kept=False)

    def _set_kept(self, *, kept: bool) -> None:
        if kept == self.kept:
            return
        try:
            fcntl.ioctl(self._fd, TUNSETPERSIST, int(kept))
        except OSError as error:
            raise self._gone() from error
        self.kept = kept

    def is_there(self) -> bool:
        """Whether there is an interface of that name here, and this reads from it."""
        try:
            socket.if_nametoindex(self.name)
        except OSError:
            return False
        return _read_interface(self._fd)[0] == self.name

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        return self._fd

    def read_into(self, room: memoryview) -> int:
        """Read one packet behind its virtio_net_hdr; 0 when there is none now.

        Raises:
            TunError: somebody removed the interface. The descriptor is readable for ever then.
        """
        try:
            if self._header:
                return int(os.readv(self._fd, [room]))
            room[:VIRTIO_HEADER_SIZE] = NO_OFFLOAD
            return VIRTIO_HEADER_SIZE + int(os.readv(self._fd, [room[VIRTIO_HEADER_SIZE:]]))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone() from error

    def read_run(self, room: memoryview, *, gap: int, most: int, large: int) -> list[int]:
        """Read packets one behind the other; see `TunPort`."""
        sizes: list[int] = []
        at, end = 0, len(room) - READ_SIZE
        # This loop runs once per packet: the plain call instead of `read_into`, where it does.
        fd, readv = self._fd, os.readv
        try:
            while at <= end and len(sizes) < most:
                size = readv(fd, [room[at:]]) if self._header else self.read_into(room[at:])
                if not size:
                    break
                sizes.append(size)
                if size > large:
                    break
                at += size + gap
        except BlockingIOError:
            pass
        except (OSError, TunError) as error:
            if not sizes:  # else the next call says so
                raise self._gone() from error
        return sizes

    def _gone(self) -> TunError:
        return TunError(f"interface {self.name} is gone", "restart the daemon")

    def write(self, packet: memoryview) -> bool:
        """Inject one packet; segments it first where the kernel cannot."""
        if self._needs_software(packet):
            return self._write_segments(packet)
        return self._write(packet)

    def _needs_software(self, packet: memoryview) -> bool:
        if not self._header:
            return True
        gso_type = packet[1]
        if not gso_type:
            partial = packet[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM
            return bool(partial) and "checksum" not in self.offloads
        offload = "uso" if gso_type == VIRTIO_NET_HDR_GSO_UDP_L4 else "tso"
        return offload not in self.offloads

    def _write_segments(self, packet: memoryview) -> bool:
        try:
            header = VirtioHeader.decode_untrusted(packet)
            pieces = segment_untrusted(header, bytes(packet[VIRTIO_HEADER_SIZE:]))
        except WireError:
            return False
        front = NO_OFFLOAD if self._header else b""
        written = [self._write(memoryview(front + piece)) for piece in pieces]
        return all(written)

    def _write(self, packet: memoryview) -> bool:
        try:
            os.write(self._fd, packet)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the interface; the kernel removes it with its routes. Safe to call twice."""
        with suppress(TunError):
            self.unkeep()
        self.let_go()

    def let_go(self) -> None:
        """Close the descriptor alone: whether the interface stays is somebody else's affair."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)


class TunQueue(Tun):
    """One more queue of an interface that another process has made, for a lane of its own.

    The kernel spreads flows over the queues that are attached. This one is not until `attach`, so
    that no packet goes to a lane that has no keys yet.

    Raises:
        TunError: as for `Tun`, or the interface does not exist, or has only one queue.
    """

    def __init__(self, name: str, *, offload: bool | Collection[str] = True) -> None:
        self.attached = False
        super().__init__(name, offload=offload, queues=True)

    def _open(self) -> None:
        try:
            socket.if_nametoindex(self.name)  # opening a name that is free would make it
        except OSError as error:
            raise self._gone() from error
        super()._open()
        try:
            if not self.attached:
                self._set_queue(IFF_DETACH_QUEUE)
        except TunError:
            self.let_go()
            raise

    def close(self) -> None:
        """Close the queue; how long the interface stays is the affair of who made it."""
        self.let_go()

    def attach(self) -> None:
        """Take a share of the flows from now on.

        Raises:
            TunError: the interface is gone; `reopen` attaches when it is back. Nothing else.
        """
        self.attached = True
        self._set_queue(IFF_ATTACH_QUEUE)

    def _set_queue(self, flag: int) -> None:
        try:
            fcntl.ioctl(self._fd, TUNSETQUEUE, _IFREQ.pack(b"", flag))
        except OSError as error:
            raise self._gone() from error


_IFREQ: Final = Struct("16sH22x")
"""struct ifreq with flags, as TUNSETQUEUE reads it."""


def _read_interface(descriptor: int) -> tuple[str, int]:
    """Name and flags of the interface behind a descriptor; of none if there is none."""
    try:
        raw = fcntl.ioctl(descriptor, TUNGETIFF, _IFREQ.pack(b"", 0))
    except OSError:
        return "", 0
    name, flags = _IFREQ.unpack(raw)
    return name.rstrip(b"\0").decode(errors="replace"), flags


def _make_device(name: str, flags: int) -> int:
    try:
        device = pytun.TunTapDevice(name=name, flags=flags)
    except OSError as error:  # pytun.Error is one; without a number when it refused the name itself
        why, fix = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
        raise TunError(f"cannot make the interface {name}: {why}", fix) from error
    descriptor = os.dup(device.fileno())
    device.close()
    return descriptor


_REASONS: Final = {
    errno.ENOENT: (
        "/dev/net/tun does not exist",
        "load the tun module, or give it to the container",
    ),
    errno.ENODEV: ("/dev/net/tun has no driver behind it", "load the tun module"),
    errno.EACCES: ("/dev/net/tun may not be opened", "run as root"),
    errno.EPERM: ("permission denied", "run as root, with CAP_NET_ADMIN"),
    errno.ENOTTY: (
        "/dev/net/tun is not the TUN device",
        "load the tun module, or give the device to the container",
    ),
    errno.EBUSY: ("the name is taken", "stop the other daemon, or set another `tun` name"),
    errno.EINVAL: (
        "the name is taken by another kind of interface, or is not one",
        "set another `tun` name",
    ),
}


def _names(offload: bool | Collection[str]) -> tuple[str, ...]:
    if isinstance(offload, bool):
        return tuple(OFFLOADS) if offload else ()
    return tuple(name for name in OFFLOADS if name in offload and "checksum" in offload)


def _negotiate(fd: int, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Ask for what is wanted, then for less, until the kernel agrees."""
    given_up = (name for name in _GIVEN_UP_FIRST if name in wanted)
    while True:
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, sum(OFFLOADS[name] for name in wanted))
        except OSError:
            refused = next(given_up, None)
            if refused is None:
                return ()
            wanted = tuple(name for name in wanted if name != refused)
        else:
            return wanted
