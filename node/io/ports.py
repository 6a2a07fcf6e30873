"""What the driver needs of a TUN interface and of a UDP socket.

The real ones are `node.io.tun` and `node.io.udp`; `node.io.memory` has twins for tests without
root. All are non-blocking and owned by one event loop.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from overlay.types import Endpoint


class Received(NamedTuple):
    """What one read of the socket gave.

    Attributes:
        datagrams: one datagram, or several of one sender back to back; valid until the next read.
        step: the size of each but the last; 0 when there is one.
        source: the sender.
    """

    datagrams: memoryview
    step: int
    source: Endpoint


class TunPort(Protocol):
    """A TUN interface that reads and writes packets behind a virtio_net_hdr."""

    name: str

    @property
    def offloads(self) -> tuple[str, ...]:
        """What the kernel hands over and takes unsegmented (`checksum`, `tso`, `uso`)."""
        ...

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        ...

    def read_run(self, room: memoryview, *, gap: int, most: int, large: int) -> list[int]:
        """Read packets (header first) one behind the other, `gap` bytes apart.

        Args:
            room: where the first one goes.
            gap: bytes left free between two packets.
            most: packets to read, 1 or more.
            large: a packet over this size ends the run, because it is better used while it is
                in the processor's cache.

        Returns:
            The size of each; none when there is none now. Ends early where `room` might not hold
            another one.

        Raises:
            OverlayError: somebody removed the interface, and nothing was read; see `reopen`.
                Nothing else.
        """
        ...

    def reopen(self) -> None:
        """Make the interface anew after it was removed. `fileno` changes.

        Raises:
            OverlayError: it cannot be made; nothing has changed. Nothing else.
        """
        ...

    def is_there(self) -> bool:
        """Whether there is an interface of that name here, and this reads from it."""
        ...

    def write(self, packet: memoryview) -> bool:
        """Write one packet (header first); False when the kernel refused it."""
        ...

    def close(self) -> None:
        """Close the interface; the kernel removes it."""
        ...


class DatagramPort(Protocol):
    """A UDP socket."""

    local: Endpoint

    @property
    def offloads(self) -> tuple[str, ...]:
        """`udp_gso` and `udp_gro` where in use."""
        ...

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        ...

    def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        """Send datagrams of `step` bytes each, back to back (0: one); False when refused."""
        ...

    def receive(self) -> Received | None:
        """Read once; None when there is nothing now."""
        ...

    def set_offload(self, name: str, *, on: bool, endpoint: Endpoint | None) -> None:
        """Use `udp_gso` towards `endpoint` (None: anybody), or `udp_gro`, from now on, or not."""
        ...

    def take_too_big(self) -> set[Endpoint]:
        """Endpoints whose datagrams the kernel refused as too big since the last call."""
        ...

    def close(self) -> None:
        """Close the socket."""
        ...
