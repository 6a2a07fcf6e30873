"""Somebody in the underlay who is no member: can see what passes, send anything, prove nothing."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from node.kernel import netns
from node.lab.wiring import BRIDGE
from overlay.types import DEFAULT_PORT, Endpoint
from tests.support.labs import Lab
from tests.support.processes import run
from tests.support.wiretap import UDP, UDP_SIZE, Wiretap

LINK = "eth0"
IPV4 = b"\x08\x00"
ADDRESS = "198.51.100.200"
IPV4_HEADER = struct.Struct(">BBHHHBBH4s4s")


class Stranger:
    """A namespace on the underlay of a lab.

    Args:
        lab: whose underlay it is, IPv4.
        namespace: where the stranger is.
    """

    def __init__(self, lab: Lab, namespace: str) -> None:
        self._lab = lab
        self._tap = Wiretap(namespace, LINK)
        self._socket = netns.run_in(namespace, socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._raw = netns.run_in(
            namespace, socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what comes to the stranger, for the time of a `with` block."""
        with self._tap, self._socket, self._raw:
            yield

    def send(self, node: str, payloads: Iterable[bytes]) -> None:
        """Send datagrams to a node's daemon, from the stranger's own address."""
        target = (self._lab.underlay_address(node), DEFAULT_PORT)
        for payload in payloads:
            self._socket.sendto(payload, target)

    def send_as(self, source: Endpoint, node: str, payload: bytes) -> None:
        """Send a datagram to a node's daemon that claims to be from `source`."""
        target = self._lab.underlay_address(node)
        packet = _forged(source, Endpoint(target, DEFAULT_PORT), payload)
        self._raw.sendto(packet, (target, 0))

    @property
    def heard(self) -> list[bytes]:
        """IP packets that were sent to the stranger; on a link, ARP is no answer."""
        packets = [frame[14:] for frame in self._tap.frames if frame[12:14] == IPV4]
        return [packet for packet in packets if packet[16:20] == socket.inet_aton(ADDRESS)]


def _forged(source: Endpoint, target: Endpoint, payload: bytes) -> bytes:
    hosts = socket.inet_aton(source.host), socket.inet_aton(target.host)
    size = UDP_SIZE + len(payload)
    # The kernel completes length and checksum of the IP header; UDP over IPv4 may have none.
    header = IPV4_HEADER.pack(0x45, 0, 0, 0, 0, 64, UDP, 0, *hosts)
    return header + struct.pack(">HHHH", source.port, target.port, size, 0) + payload


@contextmanager
def stranger_in(lab: Lab) -> Iterator[Stranger]:
    """A stranger in the underlay of a lab, for the time of a `with` block."""
    namespace = f"{lab.name}-stranger"
    netns.create(namespace)
    try:
        for words in (
            f"link add stranger type veth peer name {LINK} netns {namespace}",
            f"link set stranger master {BRIDGE}",
            "link set stranger up",
        ):
            run(lab.underlay, "ip", *words.split())
        for words in (f"addr add {ADDRESS}/24 dev {LINK}", f"link set {LINK} up"):
            run(namespace, "ip", *words.split())
        stranger = Stranger(lab, namespace)
        with stranger.listening():
            yield stranger
    finally:
        netns.delete(namespace)
