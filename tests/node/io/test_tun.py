"""The TUN against the kernel, in namespaces that are gone after each test.

sockets -- kernel === tun0 === the test                                      one namespace
10.77.0.1, fd77::1             10.77.0.2, fd77::2

sockets -- kernel === tun0 === Relay === tun0 === kernel -- sockets          two of them
10.77.0.1, fd77::1                                10.77.0.2, fd77::2
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Self, TypeVar

import pytest
import pytun

from node.io import tun as tun_module
from node.io.tun import Tun, TunError, TunQueue
from node.io.udp import SOL_UDP, UDP_SEGMENT
from overlay.wire.ip import parse_untrusted
from overlay.wire.virtio import (
    NO_OFFLOAD,
    READ_SIZE,
    VIRTIO_HEADER_SIZE,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_UDP_L4,
    VirtioHeader,
    segment_untrusted,
)
from tests.support.builders import (
    checksums_are_right,
    pseudo4,
    slow_checksum,
    tcp4,
    udp4,
    udp6,
)
from tests.support.namespace import current, in_namespace, ip
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL

T = TypeVar("T")
NEAR = {4: "10.77.0.1", 6: "fd77::1"}
FAR = {4: "10.77.0.2", 6: "fd77::2"}
PORT, FAR_PORT = 5000, 6000


def with_tun(work: Callable[[Tun], T], *, offload: bool) -> T:
    """Run `work` with an interface that is up and has addresses of both families."""

    def inside() -> T:
        tun = Tun("tun0", offload=offload)
        try:
            ip(
                f"addr add {NEAR[4]}/24 dev tun0",
                f"addr add {NEAR[6]}/64 dev tun0 nodad",
                "link set tun0 mtu 1500 up",
            )
            return work(tun)
        finally:
            tun.close()

    return in_namespace(inside)


def read(tun: Tun, *, protocol: int) -> tuple[VirtioHeader, bytes]:
    """The next packet of `protocol`; the kernel also sends multicast of its own."""
    room = memoryview(bytearray(b"\xff" * 70_000))
    while select.select([tun], [], [], 2.0)[0]:
        packet = bytes(room[: tun.read_into(room)])
        view = parse_untrusted(packet, VIRTIO_HEADER_SIZE)
        if view is not None and view.protocol == protocol and packet[VIRTIO_HEADER_SIZE:]:
            return VirtioHeader.decode_untrusted(packet), packet[VIRTIO_HEADER_SIZE:]
    pytest.fail(f"no packet of protocol {protocol} came")


def drain(tun: Tun) -> None:
    """Read what the kernel says of itself on a new interface."""
    room = memoryview(bytearray(70_000))
    while tun.read_into(room):
        pass


def listener(version: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    bound = socket.socket(family, kind)
    bound.settimeout(2.0)
    bound.bind((NEAR[version], PORT))
    return bound


# -- making and closing ----------------------------------------------------------------------------


def test_the_interface_exists_while_it_is_open_and_only_in_its_namespace():
    before = current()

    def inside() -> None:
        assert current() != before
        tun = Tun("tun0")
        assert "tun0" in ip("-o link")
        assert tun.name == "tun0"
        assert not os.get_inheritable(tun.fileno())
        tun.close()
        assert "tun0" not in ip("-o link")
        tun.close()

    in_namespace(inside)
    assert current() == before
    assert "tun0" not in ip("-o link")


def test_a_modern_kernel_takes_all_offloads_and_none_are_claimed_without():
    assert with_tun(lambda tun: tun.offloads, offload=True)[:2] == ("checksum", "tso")
    assert with_tun(lambda tun: tun.offloads, offload=False) == ()


@pytest.mark.parametrize("fewer", [1, 2, 3, 4])
def test_a_kernel_with_fewer_offloads_gets_what_it_has(monkeypatch, fewer: int):
    real, refused = tun_module.fcntl.ioctl, []

    def old_kernel(fd: int, request: int, mask: int) -> int:
        if len(refused) < fewer:
            refused.append(mask)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, request, mask)

    monkeypatch.setattr(tun_module.fcntl, "ioctl", old_kernel)
    names = with_tun(lambda tun: tun.offloads, offload=True)
    assert names == ("checksum", "tso", "uso")[: max(3 - fewer, 0)]


SUBSETS = [(), ("checksum",), ("checksum", "tso"), ("checksum", "uso"), ("checksum", "tso", "uso")]


@pytest.mark.parametrize("wanted", SUBSETS, ids=str)
def test_only_what_is_asked_for_is_negotiated(wanted: tuple[str, ...]):
    masks = []
    real = tun_module.fcntl.ioctl

    def watched(fd: int, request: int, mask: int) -> int:
        masks.append(mask)
        return real(fd, request, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tun_module.fcntl, "ioctl", watched)
        assert with_tun(lambda tun: tun.offloads, offload=wanted) == wanted
    assert masks == ([sum(tun_module.OFFLOADS[name] for name in wanted)] if wanted else [])


def test_nothing_is_asked_for_without_checksums():
    assert with_tun(lambda tun: tun.offloads, offload=("tso", "uso")) == ()


def test_a_partial_checksum_is_completed_where_the_kernel_does_not_take_it(monkeypatch):
    """A header without a super-packet, on an interface that has the header and no offload."""
    real = tun_module.fcntl.ioctl

    def refuse(fd: int, request: int, mask: int) -> int:
        if mask:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, request, mask)

    def work(tun: Tun) -> None:
        assert (tun.offloads, tun._header) == ((), True)
        written: list[bytes] = []
        write = tun._write
        monkeypatch.setattr(tun, "_write", lambda p: written.append(bytes(p)) or write(p))
        whole = udp4(FAR[4], NEAR[4], b"there", sport=FAR_PORT, dport=PORT)
        # What a sender leaves in the field: the sum of the pseudo header, not complemented.
        pseudo = ~slow_checksum(pseudo4(FAR[4], NEAR[4], 17, 13)) & 0xFFFF
        partial = whole[:26] + pseudo.to_bytes(2, "big") + whole[28:]
        header = VirtioHeader(VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 28, 0, 20, 6)
        with listener(4, socket.SOCK_DGRAM) as near:
            assert tun.write(memoryview(header.encode() + partial))
            assert near.recvfrom(100)[0] == b"there"
        assert written == [NO_OFFLOAD + whole]

    monkeypatch.setattr(tun_module.fcntl, "ioctl", refuse)
    with_tun(work, offload=True)


@pytest.mark.parametrize(
    ("name", "before", "why"),
    [
        ("tun1", lambda: Tun("tun1"), "the name is taken"),
        ("br0", lambda: ip("link add br0 type bridge"), "taken by another kind of interface"),
        ("a/b", lambda: None, "or is not one"),
        ("x" * 16, lambda: None, "name too long"),
    ],
)
def test_a_name_that_cannot_be_had_is_one_clear_clause(name: str, before, why: str):
    def inside() -> None:
        held = before()
        with pytest.raises(TunError, match=why) as caught:
            Tun(name)
        assert str(caught.value).startswith(f"cannot make the interface {name}: ")
        del held

    in_namespace(inside)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENODEV])
def test_a_machine_that_cannot_make_one_says_what_to_do(monkeypatch, code: int):
    def refuse(**_arguments: object) -> None:
        raise pytun.Error(code, os.strerror(code))

    monkeypatch.setattr(tun_module.pytun, "TunTapDevice", refuse)
    with pytest.raises(TunError, match="cannot make the interface tun0: ") as caught:
        Tun("tun0")
    assert caught.value.fix


# -- plain packets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offload", [True, False])
def test_nothing_to_read_is_zero(offload: bool):
    def inside() -> int:
        tun = Tun("tun0", offload=offload)  # down: the kernel has nothing to say of itself
        try:
            return tun.read_into(memoryview(bytearray(70_000)))
        finally:
            tun.close()

    assert in_namespace(inside) == 0


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_written_arrives_and_its_answer_is_read(version: int, offload: bool):
    build = udp4 if version == 4 else udp6

    def work(tun: Tun) -> None:
        with listener(version, socket.SOCK_DGRAM) as near:
            packet = build(FAR[version], NEAR[version], b"there", sport=FAR_PORT, dport=PORT)
            assert tun.write(memoryview(NO_OFFLOAD + packet))
            assert near.recvfrom(100)[0] == b"there"
            near.sendto(b"back", (FAR[version], FAR_PORT))
            header, answer = read(tun, protocol=17)
            assert answer.endswith(b"back")
            if not offload:
                assert header == VirtioHeader.decode_untrusted(NO_OFFLOAD)
                assert checksums_are_right(answer)

    with_tun(work, offload=offload)


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize(
    "packet",
    [
        NO_OFFLOAD,
        NO_OFFLOAD + b"\x55" * 40,
        VirtioHeader(1, 1, 0xFFFF, 0, 0xFFFF, 0xFFFF).encode() + udp4(FAR[4], NEAR[4]),
        VirtioHeader(0, 99, 0, 1, 0, 0).encode() + udp4(FAR[4], NEAR[4]),
    ],
    ids=["empty", "no version", "header beyond the packet", "unknown kind"],
)
def test_what_the_kernel_refuses_is_false(packet: bytes, offload: bool):
    assert not with_tun(lambda tun: tun.write(memoryview(packet)), offload=offload)


def test_an_interface_that_is_down_reads_nothing_and_refuses_writes():
    def work(tun: Tun) -> None:
        ip("link set tun0 down")
        drain(tun)
        assert tun.read_into(memoryview(bytearray(70_000))) == 0
        assert not tun.write(memoryview(NO_OFFLOAD + udp4(FAR[4], NEAR[4])))

    with_tun(work, offload=True)


# -- super-packets ---------------------------------------------------------------------------------

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
            one.settimeout(5.0)
        return self

    @staticmethod
    def _wait_for_route(client: socket.socket, server: socket.socket, target: str) -> None:
        """The kernel makes IPv6 addresses usable a little after it said they were there."""
        server.settimeout(0.1)
        for _ in range(50):
            client.sendto(b"ready?", (target, PORT))
            try:
                server.recv(10)
            except TimeoutError:
                continue
            break
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # earlier ones that came late after all
            while server.recv(10):
                pass

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
            connection.settimeout(5.0)
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
            connection.settimeout(5.0)
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


# -- many at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("offload", [True, False])
def test_packets_are_read_one_behind_the_other(offload: bool):
    def work(tun: Tun) -> None:
        drain(tun)
        datas = [bytes([number]) * (10 + number) for number in range(9)]
        with listener(4, socket.SOCK_DGRAM) as client:
            for data in datas:
                client.sendto(data, (FAR[4], PORT))
        room = memoryview(bytearray(200_000))
        bounds = {"gap": 3, "large": 16_384}
        at, found = 0, []
        for most, expected in ((4, 4), (100, 5), (100, 0)):
            sizes = tun.read_run(room[at:], most=most, **bounds)
            assert len(sizes) == expected
            for size in sizes:
                found.append(bytes(room[at + VIRTIO_HEADER_SIZE + 28 : at + size]))
                at += size + 3
        assert found == datas

    with_tun(work, offload=offload)


def test_a_run_of_reads_ends_behind_a_large_packet_and_where_room_gets_short():
    def work(tun: Tun) -> None:
        drain(tun)
        with listener(4, socket.SOCK_DGRAM) as client:
            for size in (10, 1400, 10, 1300, 10):
                client.sendto(bytes(size), (FAR[4], PORT))
        room = memoryview(bytearray(200_000))
        bounds = {"gap": 3, "most": 100, "large": 1000}
        assert [len(tun.read_run(room, **bounds)) for _ in range(2)] == [2, 2]
        assert tun.read_run(room[: READ_SIZE - 1], **bounds) == []
        assert len(tun.read_run(room[:READ_SIZE], **bounds)) == 1

    with_tun(work, offload=True)


def test_reading_a_run_from_a_removed_interface_raises():
    def work(tun: Tun) -> None:
        ip("link del tun0")
        with pytest.raises(TunError, match="interface tun0 is gone"):
            tun.read_run(memoryview(bytearray(70_000)), gap=3, most=9, large=1)

    with_tun(work, offload=True)


# -- removed by somebody ---------------------------------------------------------------------------


@pytest.mark.parametrize("offload", [True, False])
def test_a_removed_interface_raises_and_can_be_made_anew(offload: bool):
    def work(tun: Tun) -> None:
        room = memoryview(bytearray(70_000))
        ip("link del tun0")
        assert not tun.write(memoryview(NO_OFFLOAD + udp4(FAR[4], NEAR[4])))
        for _ in range(2):
            with pytest.raises(TunError, match="interface tun0 is gone"):
                tun.read_into(room)
        tun.reopen()
        assert tun.read_into(room) == 0
        ip(f"addr add {NEAR[4]}/24 dev tun0", "link set tun0 up")
        with listener(4, socket.SOCK_DGRAM) as near:
            packet = udp4(FAR[4], NEAR[4], b"x", sport=FAR_PORT, dport=PORT)
            assert tun.write(memoryview(NO_OFFLOAD + packet))
            assert near.recv(100) == b"x"

    with_tun(work, offload=offload)


def test_a_removed_interface_whose_name_was_taken_stays_gone():
    def work(tun: Tun) -> None:
        ip("link del tun0", "link add tun0 type bridge")
        with pytest.raises(TunError, match="taken by another kind"):
            tun.reopen()
        with pytest.raises(TunError, match="is gone"):
            tun.read_into(memoryview(bytearray(70_000)))
        ip("link del tun0")
        tun.reopen()

    with_tun(work, offload=True)


# -- queues ----------------------------------------------------------------------------------------


def echo_requests(count: int) -> None:
    """Datagrams from so many ports: as many flows."""
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"flow", (FAR[4], FAR_PORT))


def waiting(tun: Tun) -> int:
    """How many IPv4 datagrams wait in a queue."""
    room, found = memoryview(bytearray(70_000)), 0
    while size := tun.read_into(room):
        view = parse_untrusted(bytes(room[:size]), VIRTIO_HEADER_SIZE)
        found += view is not None and view.version == 4 and view.protocol == 17
    return found


def test_a_second_queue_gets_its_share_from_when_it_is_attached() -> None:
    def inside() -> tuple[list[tuple[int, int]], tuple[bool, bool]]:
        first = Tun("tun0", queues=True)
        ip(f"addr add {NEAR[4]}/24 dev tun0", "link set tun0 up")
        second = TunQueue("tun0")
        was = second.attached
        shares = []
        echo_requests(64)
        shares.append((waiting(first), waiting(second)))
        second.attach()
        echo_requests(64)
        shares.append((waiting(first), waiting(second)))
        second.close()
        echo_requests(64)
        shares.append((waiting(first), 0))
        first.close()
        return shares, (was, second.attached)

    shares, attached = in_namespace(inside)
    assert attached == (False, True)
    assert shares[0] == (64, 0)
    assert sum(shares[1]) == 64
    assert min(shares[1]) > 8, shares
    assert shares[2] == (64, 0)


def test_a_queue_never_makes_the_interface_itself() -> None:
    def inside() -> str:
        with pytest.raises(TunError) as caught:
            TunQueue("tun0")
        assert "tun0" not in {name for _, name in socket.if_nameindex()}
        return str(caught.value)

    assert in_namespace(inside) == "interface tun0 is gone"


def test_an_interface_with_one_queue_has_no_second_and_is_left_alone() -> None:
    def inside() -> str:
        only = Tun("tun0")
        with pytest.raises(TunError) as caught:
            TunQueue("tun0")
        assert only.read_into(memoryview(bytearray(70_000))) >= 0
        only.close()
        return str(caught.value)

    assert in_namespace(inside).startswith("cannot make the interface tun0: ")


def test_a_queue_whose_interface_is_gone_says_so_and_comes_back_with_it() -> None:
    def inside() -> list[int]:
        first = Tun("tun0", queues=True)
        second = TunQueue("tun0")
        second.attach()
        ip("link del tun0")
        for tun in (first, second):
            with pytest.raises(TunError):
                tun.read_into(memoryview(bytearray(70_000)))
        with pytest.raises(TunError):
            second.reopen()
        first.reopen()
        second.reopen()
        ip(f"addr add {NEAR[4]}/24 dev tun0", "link set tun0 up")
        echo_requests(64)
        shares = [waiting(first), waiting(second)]
        second.close()
        first.close()
        return shares

    shares = in_namespace(inside)
    assert sum(shares) == 64
    assert min(shares) > 8
