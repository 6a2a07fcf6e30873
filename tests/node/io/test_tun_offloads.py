"""Super-packets through the kernel, whatever the far end can take of them.

sockets -- kernel === tun0 === Relay === tun0 === kernel -- sockets     two namespaces
10.77.0.1, fd77::1                                10.77.0.2, fd77::2
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Self

import pytest

from node.io import tun as tun_module
from node.io.tun import Tun
from node.io.udp import SOL_UDP, UDP_SEGMENT
from overlay.wire.virtio import (
    VIRTIO_HEADER_SIZE,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_UDP_L4,
    VirtioHeader,
    segment_untrusted,
)
from tests.support.builders import tcp4, udp4
from tests.support.namespace import in_namespace, ip
from tests.support.privileged import NEEDS_KERNEL
from tests.support.tun import FAR, NEAR, PORT, SOON, with_tun

pytestmark = NEEDS_KERNEL


ALL, NO_USO, CHECKSUM = ("checksum", "tso", "uso"), ("checksum", "tso"), ("checksum",)
FAR_ENDS = [(True, ALL), (True, NO_USO), (True, CHECKSUM), (False, ())]
FAR_IDS = ["all", "no uso", "only checksum", "no header"]


class Relay:
    """Two interfaces in two namespaces, and a thread that copies packets between them.

    Attributes:
        near, far: the interfaces.
        sizes: bytes of every packet copied, the virtio_net_hdr included.
    """

    def __init__(self, far_end: tuple[bool, tuple[str, ...]], *, near_offload: bool = True) -> None:
        self.near = in_namespace(lambda: self._end(near_offload, NEAR, self._connect_later))
        self.far = in_namespace(lambda: self._end(far_end[0], FAR, self._listen))
        self.far.offloads = tuple(name for name in self.far.offloads if name in far_end[1])
        self.sizes: list[int] = []
        self._ended, self._end_now = os.pipe()
        self._thread = threading.Thread(target=self._copy)

    def _end(self, offload: bool, addresses: dict[int, str], sockets: Callable[[], None]) -> Tun:
        """One interface, with the sockets of its side; both keep the namespace alive."""
        tun = Tun("tun0", offload=offload)
        ip(
            f"addr add {addresses[4]}/24 dev tun0",
            f"addr add {addresses[6]}/64 dev tun0 nodad",
            "link set tun0 mtu 1500 up",
        )
        sockets()
        return tun

    def _connect_later(self) -> None:
        self.clients = {key: socket.socket(*key) for key in KINDS}

    def _listen(self) -> None:
        self.servers = {key: socket.socket(*key) for key in KINDS}
        for (family, kind), server in self.servers.items():
            server.bind((FAR[4 if family == socket.AF_INET else 6], PORT))
            if kind == socket.SOCK_STREAM:
                server.listen()

    def _copy(self) -> None:
        room = memoryview(bytearray(70_000))
        other = {self.near: self.far, self.far: self.near}
        while True:
            ready = select.select([self.near, self.far, self._ended], [], [])[0]
            if self._ended in ready:
                return
            for tun in ready:
                while size := tun.read_into(room):
                    self.sizes.append(size)
                    other[tun].write(room[:size])

    def __enter__(self) -> Self:
        self._thread.start()
        for (family, kind), server in self.servers.items():
            if kind == socket.SOCK_DGRAM:
                version = 4 if family == socket.AF_INET else 6
                self._wait_for_route(self.clients[family, kind], server, FAR[version])
        for one in (*self.clients.values(), *self.servers.values()):
            one.settimeout(SOON)
        return self

    @staticmethod
    def _wait_for_route(client: socket.socket, server: socket.socket, target: str) -> None:
        """The kernel makes IPv6 addresses usable a little after it said they were there."""
        server.settimeout(0.1)
        for number in range(200):
            client.sendto(b"%d" % number, (target, PORT))
            with contextlib.suppress(TimeoutError):
                while server.recv(10) != b"%d" % number:  # earlier ones that came late after all
                    pass
                return

    def __exit__(self, *_: object) -> None:
        os.close(self._end_now)
        self._thread.join()
        os.close(self._ended)
        for each in (*self.clients.values(), *self.servers.values(), self.near, self.far):
            each.close()


KINDS = [
    (family, kind)
    for family in (socket.AF_INET, socket.AF_INET6)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
]
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        received += connection.recv(1 << 16)
    return bytes(received)


@pytest.mark.parametrize("offloads", [ALL, NO_USO, CHECKSUM, ("checksum", "uso")])
def test_only_what_the_kernel_cannot_take_is_segmented_in_software(monkeypatch, offloads):
    segmented: list[int] = []

    def segment(header: VirtioHeader, packet: bytes) -> list[bytes]:
        segmented.append(header.gso_type)
        return segment_untrusted(header, packet)

    def work(tun: Tun) -> None:
        tun.offloads = offloads
        udp = udp4(FAR[4], NEAR[4], bytes(3000), dport=PORT)
        tcp = tcp4(FAR[4], NEAR[4], bytes(3000), dport=PORT)
        for kind, size, checksum_at, packet in (
            (VIRTIO_NET_HDR_GSO_UDP_L4, 8, 6, udp),
            (VIRTIO_NET_HDR_GSO_TCPV4, 20, 16, tcp),
            (VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, 20, 16, tcp),
            (VIRTIO_NET_HDR_GSO_NONE, 20, 16, tcp),
        ):
            flags = VIRTIO_NET_HDR_F_NEEDS_CSUM
            header = VirtioHeader(flags, kind, 20 + size, 1000, 20, checksum_at)
            assert tun.write(memoryview(header.encode() + packet))

    monkeypatch.setattr(tun_module, "segment_untrusted", segment)
    with_tun(work, offload=True)
    tcp_kinds = [VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN]
    in_software = [VIRTIO_NET_HDR_GSO_UDP_L4] * ("uso" not in offloads)
    assert segmented == in_software + tcp_kinds * ("tso" not in offloads)


@pytest.mark.parametrize("far_end", FAR_ENDS, ids=FAR_IDS)
@pytest.mark.parametrize("version", [4, 6])
def test_tcp_super_packets_arrive_through_any_far_end(version: int, far_end):
    """Unsegmented where the far kernel can take them, segmented in software where not."""
    data = random.Random(version).randbytes(600_000)
    key = FAMILY[version], socket.SOCK_STREAM
    with Relay(far_end) as relay:
        client, server = relay.clients[key], relay.servers[key]
        client.connect((FAR[version], PORT))
        with server.accept()[0] as connection:
            connection.settimeout(SOON)
            sending = threading.Thread(target=client.sendall, args=(data,))
            sending.start()
            assert receive(connection, len(data)) == data
            sending.join()
            there = max(relay.sizes)
            connection.sendall(data[:100_000])
            assert receive(client, 100_000) == data[:100_000]
    assert there > 10_000, "the near kernel sent super-packets"


@pytest.mark.parametrize("version", [4, 6])
def test_without_offload_packets_have_the_size_of_the_mtu(version: int):
    data = random.Random(version).randbytes(100_000)
    key = FAMILY[version], socket.SOCK_STREAM
    with Relay((False, ()), near_offload=False) as relay:
        client, server = relay.clients[key], relay.servers[key]
        client.connect((FAR[version], PORT))
        with server.accept()[0] as connection:
            connection.settimeout(SOON)
            client.sendall(data)
            assert receive(connection, len(data)) == data
    assert max(relay.sizes) == VIRTIO_HEADER_SIZE + 1500


@pytest.mark.parametrize("far_end", FAR_ENDS, ids=FAR_IDS)
@pytest.mark.parametrize("version", [4, 6])
def test_udp_super_packets_arrive_as_the_datagrams_they_stand_for(version: int, far_end):
    data = random.Random(version).randbytes(5 * 1000 + 7)
    key = FAMILY[version], socket.SOCK_DGRAM
    with Relay(far_end) as relay:
        client, server = relay.clients[key], relay.servers[key]
        segments = [(SOL_UDP, UDP_SEGMENT, (1000).to_bytes(2, sys.byteorder))]
        client.sendmsg([data], segments, 0, (FAR[version], PORT))
        received = [server.recv(9000) for _ in range(6)]
        whole = max(relay.sizes) > 1500
    assert received == [data[at : at + 1000] for at in range(0, len(data), 1000)]
    assert whole == ("uso" in relay.near.offloads)
