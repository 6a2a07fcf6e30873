"""The TUN against the kernel, in namespaces that are gone after each test.

sockets -- kernel === tun0 === the test                                      one namespace
10.77.0.1, fd77::1             10.77.0.2, fd77::2
"""

from __future__ import annotations

import errno
import os
import socket

import pytest
import pytun

from node.io import tun as tun_module
from node.io.tun import Tun, TunError, TunQueue
from overlay.wire.virtio import (
    NO_OFFLOAD,
    READ_SIZE,
    VIRTIO_HEADER_SIZE,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VirtioHeader,
)
from tests.support.builders import checksums_are_right, pseudo4, slow_checksum, udp4, udp6
from tests.support.namespace import current, in_namespace, ip
from tests.support.privileged import NEEDS_KERNEL
from tests.support.tun import (
    FAR,
    FAR_PORT,
    NEAR,
    PORT,
    SOON,
    drain,
    echo_requests,
    listener,
    read,
    waiting,
    with_silent_tun,
    with_tun,
)
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL


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
        if request == tun_module.TUNSETOFFLOAD:
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
        if isinstance(held, Tun):
            held.close()

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


# -- many at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("offload", [True, False])
def test_packets_are_read_one_behind_the_other(offload: bool):
    def work(tun: Tun) -> None:
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

    with_silent_tun(work, offload=offload)


def test_a_run_of_reads_ends_behind_a_large_packet_and_where_room_gets_short():
    def work(tun: Tun) -> None:
        with listener(4, socket.SOCK_DGRAM) as client:
            for size in (10, 1400, 10, 1300, 10):
                client.sendto(bytes(size), (FAR[4], PORT))
        room = memoryview(bytearray(200_000))
        bounds = {"gap": 3, "most": 100, "large": 1000}
        assert [len(tun.read_run(room, **bounds)) for _ in range(2)] == [2, 2]
        assert tun.read_run(room[: READ_SIZE - 1], **bounds) == []
        assert len(tun.read_run(room[:READ_SIZE], **bounds)) == 1

    with_silent_tun(work, offload=True)


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


# -- an interface that stays, and one that is passed on --------------------------------------------


def link(name: str) -> set[str]:
    """The flags of a link as `ip` shows them; none if there is no such link."""
    shown = ip(f"-o link show {name}") if name in links() else "<>"
    return set(shown[shown.index("<") + 1 : shown.index(">")].split(",")) - {""}


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_one_that_is_kept_outlives_its_reader_and_is_attached_to_again() -> None:
    def inside() -> None:
        tun = Tun("tun0")
        ip(f"addr add {NEAR[4]}/24 dev tun0", "link set tun0 up")
        tun.keep()
        index = socket.if_nametoindex("tun0")
        os.close(tun.fileno())  # as when the process is killed
        eventually(lambda: "NO-CARRIER" in link("tun0"), within=SOON)
        echo_requests(3)  # refused by nobody: they are dropped
        again = Tun("tun0")
        assert again.kept
        assert socket.if_nametoindex("tun0") == index
        assert "LOWER_UP" in link("tun0")
        assert waiting(again) == 0
        echo_requests(3)
        assert waiting(again) == 3
        again.close()
        assert "tun0" not in links()

    in_namespace(inside)


def test_one_that_is_no_longer_kept_goes_with_its_last_descriptor() -> None:
    def inside() -> None:
        tun = Tun("tun0")
        tun.keep()
        tun.unkeep()
        other = os.dup(tun.fileno())
        os.close(tun.fileno())
        assert "tun0" in links()
        os.close(other)
        assert "tun0" not in links()

    in_namespace(inside)


def test_what_was_kept_with_other_queues_is_refused() -> None:
    def inside() -> None:
        tun = Tun("tun0")
        tun.keep()
        os.close(tun.fileno())
        with pytest.raises(TunError):
            Tun("tun0", queues=True)
        Tun("tun0").close()

    in_namespace(inside)


@pytest.mark.parametrize("queues", [False, True])
def test_a_queue_that_is_passed_on_loses_nothing_that_waits_in_it(queues: bool) -> None:
    def inside() -> None:
        first = Tun("tun0", queues=queues)
        ip(f"addr add {NEAR[4]}/24 dev tun0", "link set tun0 up")
        echo_requests(5)
        descriptor = os.dup(first.fileno())
        second = Tun("tun0", queues=queues, descriptor=descriptor)
        os.close(first.fileno())
        assert second.offloads == first.offloads
        echo_requests(2)
        assert waiting(second) == 7
        second.close()
        assert "tun0" not in links()

    in_namespace(inside)


def test_what_is_passed_on_must_be_a_queue_of_just_that_interface() -> None:
    def inside() -> None:
        first = Tun("tun0")
        for name, settings in (("tun1", {}), ("tun0", {"offload": False}), ("tun0", {"queues": 1})):
            with pytest.raises(TunError, match="another kind"):
                Tun(name, descriptor=first.fileno(), **settings)
        near, far = socket.socketpair()
        with near, far, pytest.raises(TunError, match="another kind"):
            Tun("tun0", descriptor=near.fileno())
        first.close()

    in_namespace(inside)


def test_a_lane_that_ends_leaves_a_kept_interface_as_it_is() -> None:
    def inside() -> None:
        first = Tun("tun0", queues=True)
        first.keep()
        TunQueue("tun0").close()
        os.close(first.fileno())
        assert "tun0" in links()
        Tun("tun0", queues=True).close()

    in_namespace(inside)
