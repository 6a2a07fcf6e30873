"""The kernel as the judge of super-packets: what a pod gets is what the other pod has sent.

    the test ==== tun0 -- kernel -- pod0 ~~~~ eth0 -- kernel -- sockets
      10.244.0.2            node namespace  |  pod namespace     10.244.1.9
                                            '-- what passes here is compared

Without offloads on `pod0` the kernel has to cut super-packets before they pass; with them they
pass whole, and are cut at the socket.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from node.io.tun import Tun
from node.io.udp import SOL_UDP, UDP_GRO
from overlay.forwarding.coalesce import Coalescer
from overlay.wire.burst import BLOCK_HEADER_SIZE, BlockKind, block
from tests.support.builders import ACK, PSH, TCP, UDP, slow_checksum
from tests.support.judge import VNET, completed, is_same, parted, segments
from tests.support.namespace import Namespace, ip
from tests.support.pair import ALICE, BLOCKS
from tests.support.privileged import NEEDS_KERNEL
from tests.support.trains import TIMESTAMPS, Train, packets
from tests.support.waiting import eventually
from tests.support.wiretap import ETHERNET_SIZE, Wiretap

pytestmark = NEEDS_KERNEL

SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
NODE_MAC, POD_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
NEAR = {4: BLOCKS[ALICE][0][2].packed, 6: BLOCKS[ALICE][1][2].packed}
POD = {4: "10.244.1.9", 6: "fd00:0:0:1::9"}
PORT = 2000
MANY = 70
"""More than fit one super-packet."""
SOON = 20.0


class Site:
    """A node with a pod, whose daemon is the test."""

    def __init__(self, node: Namespace, pod: Namespace, tun: Tun) -> None:
        self._node = node
        self.pod = pod
        self.tun = tun

    def write(self, frames: list[bytes]) -> None:
        """Write to the TUN; the kernel takes each as a whole."""
        self._node.run(self._write, frames)

    def _write(self, frames: list[bytes]) -> None:
        for frame in frames:
            assert os.write(self.tun.fileno(), frame) == len(frame)

    def offloads(self, *, on: bool) -> None:
        """Let packets pass to the pod as they are, or as a wire would carry them.

        Without checksums in hardware the kernel takes TSO and USO from the link as well.
        """
        self._node.run(_set_checksums, "pod0", on)

    def passing(self, frames: list[bytes], count: int) -> list[bytes]:
        """The `count` IP packets that pass to the pod when these are written."""
        with Wiretap(self.pod.path, "eth0") as tap:
            self.write(frames)
            eventually(lambda: len(_from_near(tap)) >= count, within=SOON, poll=0.01)
        return _from_near(tap)


def _from_near(tap: Wiretap) -> list[bytes]:
    found = [frame[ETHERNET_SIZE:] for frame in tap.frames]
    return [ip for ip in found if NEAR[4] == ip[12:16] or NEAR[6] == ip[8:24]]


def _set_checksums(link: str, on: bool) -> None:
    value = bytearray(struct.pack("=II", ETHTOOL_STXCSUM, on))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        address = (ctypes.c_char * len(value)).from_buffer(value)
        request = struct.pack("16sP16x", link.encode(), ctypes.addressof(address))
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Namespace() as node, Namespace() as pod:
        tun = node.run(Tun, "tun0")
        try:
            if "uso" not in tun.offloads:
                pytest.skip("super-packets of UDP came with Linux 6.2")
            node.run(_wire_node, pod.path)
            pod.run(_wire_pod)
            yield Site(node, pod, tun)
        finally:
            tun.close()


def _wire_node(pod: str) -> None:
    # A thread that stays on one processor hands the kernel all packets through one queue.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _sysctl("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    ip(
        f"link add pod0 address {NODE_MAC} type veth peer name eth0 address {POD_MAC} netns {pod}",
        "addr add 10.244.1.1/24 dev pod0",
        "addr add fd00:0:0:1::1/64 dev pod0 nodad",
        "link set pod0 up",
        "link set tun0 mtu 1500 up",
        "route add 10.244.0.0/24 dev tun0",
        "route add fd00::/64 dev tun0",
        *(f"neigh add {POD[family]} lladdr {POD_MAC} dev pod0" for family in POD),
    )


def _wire_pod() -> None:
    ip(
        f"addr add {POD[4]}/24 dev eth0",
        f"addr add {POD[6]}/64 dev eth0 nodad",
        "link set eth0 up",
        "route add default via 10.244.1.1",
        "route add default via fd00:0:0:1::1",
        f"neigh add 10.244.1.1 lladdr {NODE_MAC} dev eth0",
        f"neigh add fd00:0:0:1::1 lladdr {NODE_MAC} dev eth0",
    )


def _sysctl(*names: str) -> None:
    for name in names:
        with open(f"/proc/sys/{name}", "w") as file:
            file.write("1")


def joined(frames: list[bytes]) -> list[bytes]:
    """What the packets of a run become on their way to the TUN."""
    plaintext = b"".join(block(BlockKind.OFFLOADED, frame) for frame in frames)
    stride = len(frames[0]) + BLOCK_HEADER_SIZE
    coalescer = Coalescer(tso=True, uso=True)
    found = coalescer.joined_untrusted(memoryview(plaintext), 0, stride, len(frames))
    return [bytes(frame) for frame, _ in found]


def hop(packet: bytes, more: int) -> bytes:
    """The packet with a TTL that is so much higher."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[7] += more
        return bytes(changed)
    changed[8] += more
    changed[10:12] = bytes(2)
    changed[10:12] = slow_checksum(bytes(changed[:20])).to_bytes(2, "big")
    return bytes(changed)


def datagrams(version: int, size: int, **more: object) -> Train:
    return Train(version=version, size=size, count=MANY, **more)


def stream(version: int, size: int, **more: object) -> Train:
    return Train(version=version, size=size, count=MANY, protocol=TCP, **more)


TRAINS = {
    **{f"udp4-{n}": datagrams(4, n) for n in (1, 2, 63, 64, 536, 1000, 1372, 1471, 1472)},
    **{f"udp6-{n}": datagrams(6, n) for n in (1, 2, 63, 64, 536, 1000, 1372, 1451, 1452)},
    **{f"tcp4-{n}": stream(4, n) for n in (1, 64, 999, 1460)},
    **{f"tcp6-{n}": stream(6, n) for n in (1, 64, 999, 1440)},
    "tcp4-options": stream(4, 1448, options=TIMESTAMPS),
    "tcp6-options": stream(6, 1428, options=TIMESTAMPS, sequence=0xFFFF_FF00),
    "tcp4-push": stream(4, 100, odd=((20, "flags", ACK | PSH), (69, "flags", ACK | PSH))),
    "tcp6-ece": stream(6, 100, flags=ACK | 0x40, tos=2),
    "udp4-ecn": datagrams(4, 100, tos=3),
    "udp4-wrap": datagrams(4, 100, identification=0xFFE0),
    "udp6-class": datagrams(6, 100, tos=184),
}
"""Runs of one flow. All of them fit the MTU of the pod's link, 1500."""


@pytest.mark.parametrize("checksum", ["partial", "complete"])
@pytest.mark.parametrize("name", TRAINS)
def test_the_kernel_cuts_a_super_packet_into_the_packets_it_was_made_of(
    site: Site, name: str, checksum: str
) -> None:
    frames = list(packets(replace(TRAINS[name], checksum=checksum), ALICE))
    made = joined(frames)
    assert len(made) < 5, "hardly anything was joined"
    site.offloads(on=False)
    passed = site.passing([*made, *frames], 2 * MANY)
    assert passed[:MANY] == passed[MANY:]
    assert passed[MANY:] == [hop(completed(frame), -1) for frame in frames]
    assert passed[:MANY] == judged(made)


def judged(frames: list[bytes]) -> list[bytes]:
    """What the judge of `tests/overlay/test_packet_path_property.py` believes to pass."""
    cut = (segments(one) if parted(one)[0].gso_type else [completed(one)] for one in frames)
    return [hop(packet, -1) for pieces in cut for packet in pieces]


ZEROS = {
    f"{name}-{checksum}-zero": Train(
        version=version,
        protocol=protocol,
        count=20,
        checksum=checksum,
        odd=((0, "zero", 0), (5, "zero", 0xFFFF), (6, "zero", 0), (19, "zero", 0xFFFF)),
    )
    for name, version, protocol in (
        ("udp4", 4, UDP),
        ("udp6", 6, UDP),
        ("tcp4", 4, TCP),
        ("tcp6", 6, TCP),
    )
    for checksum in ("partial", "complete")
}
"""Runs with checksums of zero, which there are two of."""


@pytest.mark.parametrize("name", ZEROS)
def test_a_checksum_of_zero_stays_the_zero_that_it_is(site: Site, name: str) -> None:
    frames = list(packets(ZEROS[name], ALICE))
    made = joined(frames)
    assert len(made) < len(frames), "nothing was joined"
    site.offloads(on=False)
    passed = site.passing(made, len(frames))
    assert passed == judged(made)
    for packet, frame in zip(passed, frames, strict=True):
        assert is_same(hop(packet, 1), frame)


# -- at the socket ---------------------------------------------------------------------------------


@contextmanager
def receiver(site: Site, version: int, *, gro: bool) -> Iterator[socket.socket]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with site.pod.run(socket.socket, family, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.setsockopt(SOL_UDP, UDP_GRO, gro)
        made.bind((POD[version], PORT))
        yield made


def received(sock: socket.socket, count: int) -> tuple[list[bytes], int]:
    """The datagrams that have come, `count` at least, and how many reads it took."""
    found: list[bytes] = []
    reads = 0
    while select.select([sock], [], [], 0.1 if len(found) >= count else SOON)[0]:
        data, more, _, _ = sock.recvmsg(1 << 17, 64)
        step = next((struct.unpack("=i", value[:4])[0] for _, _, value in more), len(data))
        found += [data[at : at + step] for at in range(0, len(data), step)]
        reads += 1
    return found, reads


@pytest.mark.parametrize("offloads", [True, False])
@pytest.mark.parametrize("gro", [False, True])
@pytest.mark.parametrize("size", [1, 64, 1000, 1400])
@pytest.mark.parametrize("version", [4, 6])
def test_a_socket_gets_each_datagram_once_and_with_its_own_ends(
    site: Site, version: int, size: int, gro: bool, offloads: bool
) -> None:
    frames = list(packets(datagrams(version, size), ALICE))
    site.offloads(on=offloads)
    with receiver(site, version, gro=gro) as sock:
        site.write(joined(frames))
        found, reads = received(sock, MANY)
    assert found == [frame[-size:] for frame in frames]
    assert reads == (len(joined(frames)) if gro and offloads else MANY)


@pytest.mark.parametrize("size", [1, 64, 1000, 1022])
def test_super_packets_of_64_datagrams_are_taken_whole(site: Site, size: int) -> None:
    for version in (4, 6):
        frames = list(packets(datagrams(version, size), ALICE))[:64]
        (made,) = joined(frames)
        assert parted(made)[0].gso_size == size
        assert len(made) == VNET.size + (28 if version == 4 else 48) + 64 * size
        site.write([made])  # asserts that the kernel takes all of it
