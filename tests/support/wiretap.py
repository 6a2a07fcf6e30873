"""What passes a link, as somebody on the wire sees it.

Virtual links carry runs of datagrams uncut, with the size of each in a virtio_net_hdr beside the
frame. `datagrams` cuts them, so that each is what a real wire would have carried.

References:
    packet(7), PACKET_VNET_HDR; virtio 1.2, section 5.1.6 (the header).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from node.kernel import netns
from overlay.types import Endpoint

SOL_PACKET = 263
PACKET_VNET_HDR = 15
SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
ETH_P_IPV4 = 0x0800
ETH_P_IPV6 = 0x86DD
UDP = 17

VNET_HEADER = struct.Struct("<BBHHHH")
ETHERNET_SIZE = 14
UDP_SIZE = 8
LARGEST = 1 << 17
BUFFER = 64 << 20
POLL = 0.05


class Datagram(NamedTuple):
    """One UDP datagram on the wire."""

    source: Endpoint
    destination: Endpoint
    payload: bytes


class Wiretap:
    """Listens on a link, both directions, for the time of a `with` block.

    Args:
        namespace: where the link is.
        link: its name.
        most: bytes kept of each packet, with its virtio_net_hdr. Of a run of datagrams that is cut
            so, no more than the first may be left: enough to see which burst it was.
    """

    def __init__(self, namespace: str, link: str, most: int = LARGEST) -> None:
        self._most = most
        self._socket = netns.run_in(namespace, _listen, link)
        self._packets: list[bytes] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tap-{link}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take what has passed until now, and listen no more. Twice is fine."""
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                self._packets.append(self._socket.recv(self._most))
        # What came before the end may still wait. Traffic that goes on must not keep us here.
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._packets.append(self._socket.recv(self._most))

    @property
    def packets(self) -> list[bytes]:
        """Everything so far behind its virtio_net_hdr. On a TUN there is no Ethernet header."""
        return list(self._packets)

    @property
    def frames(self) -> list[bytes]:
        """Everything so far, Ethernet header first; runs of datagrams uncut."""
        return [packet[VNET_HEADER.size :] for packet in list(self._packets)]

    @property
    def datagrams(self) -> list[Datagram]:
        """The UDP datagrams so far, each as a wire would have carried it."""
        return [found for packet in list(self._packets) for found in _datagrams(packet)]


def _listen(link: str) -> socket.socket:
    # Without a protocol it hears nothing until it is bound to the link.
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tap.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    tap.bind((link, ETH_P_ALL))
    tap.settimeout(POLL)
    return tap


def _datagrams(packet: bytes) -> Iterator[Datagram]:
    _, gso_type, _, step, _, _ = VNET_HEADER.unpack_from(packet)
    ends = udp_in(packet[VNET_HEADER.size :])
    if ends is None:
        return
    step = step if gso_type else len(ends.payload)
    for at in range(0, len(ends.payload), step or 1):
        yield ends._replace(payload=ends.payload[at : at + step])


def udp_in(frame: bytes) -> Datagram | None:
    """The UDP datagram, or the run of them, in an Ethernet frame; None if it is something else."""
    kind = int.from_bytes(frame[12:14], "big")
    packet = frame[ETHERNET_SIZE:]
    if kind == ETH_P_IPV4 and packet[9] == UDP:
        family, start, addresses = socket.AF_INET, (packet[0] & 15) * 4, packet[12:20]
    elif kind == ETH_P_IPV6 and packet[6] == UDP:
        family, start, addresses = socket.AF_INET6, 40, packet[8:40]
    else:
        return None
    source, destination, size = struct.unpack_from(">HHH", packet, start)
    half = len(addresses) // 2
    near, far = (socket.inet_ntop(family, host) for host in (addresses[:half], addresses[half:]))
    # Behind the data there may be padding; in a run the length is that of the whole run.
    payload = packet[start + UDP_SIZE : start + size] if size else packet[start + UDP_SIZE :]
    return Datagram(Endpoint(near, source), Endpoint(far, destination), payload)
