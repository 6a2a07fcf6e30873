"""Twins of the ports in memory: the driver and the daemon run on them without root.

Each is readable through a real descriptor (an eventfd), so the event loop treats it like the real
one.
"""

from __future__ import annotations

import os
from collections import deque

from node.io.ports import Received
from overlay.types import Endpoint
from overlay.wire.virtio import READ_SIZE


class _Readable:
    """A descriptor that is readable while something waits."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        return self._event

    def _set(self) -> None:
        os.eventfd_write(self._event, 1)

    def _clear(self) -> None:
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._event)


class MemoryTun(_Readable):
    """A TUN whose kernel side is two lists: `inject` what pods send, read `written`."""

    def __init__(self, name: str = "memory0") -> None:
        super().__init__()
        self.name = name
        self.offloads: tuple[str, ...] = ("checksum", "tso", "uso")
        self.written: list[bytes] = []
        self._waiting: deque[bytes] = deque()

    def is_there(self) -> bool:
        """Always."""
        return True

    def reopen(self) -> None:
        """Nobody can remove it; there is nothing to make anew."""

    def inject(self, packet: bytes) -> None:
        """Make `packet` (virtio_net_hdr first) readable."""
        self._waiting.append(packet)
        self._set()

    def read_run(self, room: memoryview, *, gap: int, most: int, large: int) -> list[int]:
        """Read packets one behind the other; see `TunPort`."""
        sizes: list[int] = []
        at, end = 0, len(room) - READ_SIZE
        while at <= end and len(sizes) < most:
            if not self._waiting:
                self._clear()
                break
            packet = self._waiting.popleft()
            size = len(packet)
            room[at : at + size] = packet
            sizes.append(size)
            if size > large:
                break
            at += size + gap
        return sizes

    def write(self, packet: memoryview) -> bool:
        """Record what would have reached the kernel."""
        self.written.append(bytes(packet))
        return True


class MemoryNetwork:
    """An underlay that delivers every datagram at once, between `MemoryUdp` sockets."""

    def __init__(self) -> None:
        self.sockets: dict[Endpoint, MemoryUdp] = {}


class MemoryUdp(_Readable):
    """A UDP socket on a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, local: Endpoint) -> None:
        super().__init__()
        self.local = local
        self.offloads: tuple[str, ...] = ("udp_gso", "udp_gro")
        self.set: list[tuple[str, bool, Endpoint | None]] = []
        self._network = network
        self._waiting: deque[Received] = deque()
        network.sockets[local] = self

    def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        """Deliver to whoever is bound to `endpoint`; lost when nobody is, as in real life."""
        target = self._network.sockets.get(endpoint)
        if target is not None:
            target.put(Received(memoryview(bytes(datagrams)), step, self.local))
        return True

    def set_offload(self, name: str, *, on: bool, endpoint: Endpoint | None) -> None:
        """Memory segments nothing; what was asked for is written down."""
        self.set.append((name, on, endpoint))

    def put(self, received: Received) -> None:
        """Make a read available."""
        self._waiting.append(received)
        self._set()

    def receive(self) -> Received | None:
        """Read once; None when there is nothing now."""
        if not self._waiting:
            self._clear()
            return None
        return self._waiting.popleft()

    def take_too_big(self) -> set[Endpoint]:
        """Nothing is too big for memory."""
        return set()

    def close(self) -> None:
        """Leave the network: what is sent here from now on is lost."""
        self._network.sockets.pop(self.local, None)
        super().close()
