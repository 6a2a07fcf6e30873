from __future__ import annotations

import errno
import os
import random
import select
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from node.io import udp as udp_module
from node.io.udp import UdpError, UdpSocket
from overlay.types import Endpoint
from tests.support.namespace import in_namespace
from tests.support.privileged import NEEDS_KERNEL

FOUR = str(IPv4Address("127.64.0.1") + os.getpid() % (1 << 20))
"""Ours alone: nobody sends there to a port that was another test's a moment ago."""

LOOPBACK = {4: FOUR, 6: "::1"}
Make = Callable[..., UdpSocket]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes sockets on free ports, and closes them."""
    made: list[UdpSocket] = []

    def one(host: str = FOUR, port: int = 0, **offloads: bool) -> UdpSocket:
        made.append(UdpSocket(Endpoint(host, port), **offloads))
        return made[-1]

    yield one
    for each in made:
        each.close()


def reads(udp: UdpSocket, size: int) -> list[tuple[bytes, int, Endpoint]]:
    """Reads until `size` bytes are there or nothing more comes."""
    taken: list[tuple[bytes, int, Endpoint]] = []
    while sum(len(one[0]) for one in taken) < size:
        if not select.select([udp], [], [], 20.0)[0]:
            break
        received = udp.receive()
        if received is not None:
            taken.append((bytes(received.datagrams), received.step, received.source))
    return taken


def datagrams(taken: list[tuple[bytes, int, Endpoint]]) -> list[bytes]:
    """The single datagrams of some reads."""
    found = []
    for data, step, _ in taken:
        step = step or len(data)
        found += [data[at : at + step] for at in range(0, len(data), step)]
    return found


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# -- sending and receiving -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize("gro", [True, False])
@pytest.mark.parametrize(("size", "step"), [(43 * 1472 + 7, 1472), (3000, 1000), (5, 1472), (1, 0)])
def test_datagrams_arrive_as_they_were_cut(make: Make, version, gso, gro, size: int, step: int):
    """Whatever the kernel does for us, the receiver sees the same datagrams."""
    sender, receiver = make(LOOPBACK[version], gso=gso), make(LOOPBACK[version], gro=gro)
    sent = content(size)
    assert sender.send(receiver.local, memoryview(sent), step)
    taken = reads(receiver, size)
    pieces = [sent[at : at + (step or size)] for at in range(0, size, step or size)]
    assert datagrams(taken) == pieces
    assert {source for _, _, source in taken} == {sender.local}
    if not gro:
        assert [step for _, step, _ in taken] == [0] * len(pieces)
    assert receiver.receive() is None


def test_a_run_is_one_send_and_one_read_where_the_kernel_can(make: Make):
    sender, receiver = make(), make()
    if sender.offloads != ("udp_gso", "udp_gro"):
        pytest.skip("this kernel has no UDP segmentation or receive offload")
    assert sender.send(receiver.local, memoryview(content(40 * 1472)), 1472)
    ((data, step, _),) = reads(receiver, 40 * 1472)
    assert (len(data), step) == (40 * 1472, 1472)


def test_switched_off_offloads_are_not_claimed(make: Make):
    assert make(gso=False, gro=False).offloads == ()


def test_a_kernel_that_refuses_segmentation_gets_single_datagrams(make: Make, monkeypatch):
    """Some devices lack the checksum offload that it needs: sends must go on at once."""
    sender, receiver = make(), make(gro=False)

    class Refusing:
        """The sender's socket on such a device."""

        calls = 0

        def __init__(self, inner: socket.socket) -> None:
            self.sendto = inner.sendto
            self.close = inner.close

        def sendmsg(self, *_arguments: object) -> int:
            Refusing.calls += 1
            raise OSError(errno.EIO, "no checksum offload")

    monkeypatch.setattr(sender, "_socket", Refusing(sender._socket))
    sent = content(3000)
    for _ in range(2):
        assert sender.send(receiver.local, memoryview(sent), 1000)
        assert datagrams(reads(receiver, 3000)) == [sent[:1000], sent[1000:2000], sent[2000:]]
    assert Refusing.calls == 1, "it is not asked again"
    assert "udp_gso" not in sender.offloads


def test_segmentation_is_switched_off_for_one_endpoint_alone(make: Make):
    sender, spared, other = make(gro=False), make(), make()
    data = content(10 * 1000)
    sender.set_offload("udp_gso", on=False, endpoint=spared.local)
    for receiver, steps in ((spared, {0}), (other, {1000})):
        assert sender.send(receiver.local, memoryview(data), 1000)
        taken = reads(receiver, len(data))
        assert {step for _, step, _ in taken} == steps
        assert b"".join(datagrams(taken)) == data
    assert sender.offloads == ("udp_gso",), "for the others"
    sender.set_offload("udp_gso", on=True, endpoint=spared.local)
    assert sender.send(spared.local, memoryview(data), 1000)
    assert [step for _, step, _ in reads(spared, len(data))] == [1000]


def test_offloads_are_switched_off_for_good(make: Make):
    sender, receiver = make(), make()
    sender.set_offload("udp_gso", on=False, endpoint=None)
    assert sender.offloads == ("udp_gro",)
    receiver.set_offload("udp_gro", on=False, endpoint=None)
    assert receiver.offloads == ("udp_gso",)
    full = make(gro=False)
    data = content(10 * 1000)
    for one in (sender, full):
        assert one.send(receiver.local, memoryview(data), 1000)
        assert [step for _, step, _ in reads(receiver, len(data))] == [0] * 10
    receiver.set_offload("udp_gro", on=True, endpoint=None)
    assert "udp_gro" in receiver.offloads


def test_the_endpoints_without_segmentation_do_not_grow_for_ever(make: Make, monkeypatch):
    monkeypatch.setattr(udp_module, "_MAX_CACHED", 3)
    sender = make()
    for port in range(1, 9):
        sender.set_offload("udp_gso", on=False, endpoint=Endpoint(FOUR, port))
    assert 0 < len(sender._singly) <= 3


def test_nothing_to_read_is_none(make: Make):
    assert make().receive() is None


def test_senders_are_told_apart(make: Make):
    receiver, first, second = make(), make(), make()
    first.send(receiver.local, memoryview(b"first"), 0)
    second.send(receiver.local, memoryview(b"second"), 0)
    assert {(data, source) for data, _, source in reads(receiver, 11)} == {
        (b"first", first.local),
        (b"second", second.local),
    }


def test_one_socket_serves_both_families(make: Make):
    """And the addresses of IPv4 peers look the same as on an IPv4 socket."""
    dual, four, six = make("::"), make(FOUR), make("::1")
    port = dual.local.port
    four.send(Endpoint(FOUR, port), memoryview(b"four"), 0)
    six.send(Endpoint("::1", port), memoryview(b"six"), 0)
    assert {(data, source) for data, _, source in reads(dual, 7)} == {
        (b"four", four.local),
        (b"six", six.local),
    }
    # Bound to no address, it sends from the one the kernel chooses.
    for peer, source in ((four, "127.0.0.1"), (six, "::1")):
        assert dual.send(peer.local, memoryview(content(2500)), 1000)
        taken = reads(peer, 2500)
        assert [len(one) for one in datagrams(taken)] == [1000, 1000, 500]
        assert {sender for _, _, sender in taken} == {Endpoint(source, port)}


def test_a_send_nobody_receives_is_not_an_error(make: Make):
    """ICMP says that the port is closed; the next send and read must not suffer for it."""
    sender, receiver = make(), make()
    closed = make()
    nowhere = closed.local
    closed.close()
    for _ in range(3):
        sender.send(nowhere, memoryview(b"x"), 0)
        assert sender.receive() is None
    assert sender.send(receiver.local, memoryview(b"x"), 0)
    assert sender.take_too_big() == set()


def test_an_error_of_an_earlier_send_is_nothing_to_read(make: Make, monkeypatch):
    receiver = make()

    class Refused:
        """A kernel that reports on reading that a port was closed."""

        close = receiver._socket.close

        def recvmsg_into(self, *_arguments: object) -> None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(receiver, "_socket", Refused())
    assert receiver.receive() is None


def test_without_privileges_buffers_are_as_large_as_the_kernel_allows(make: Make, monkeypatch):
    default = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    usual = default.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    default.close()
    assert make()._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= usual
    for forced in ("SO_SNDBUFFORCE", "SO_RCVBUFFORCE"):
        monkeypatch.setattr(udp_module, forced, 9999)
    assert make()._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= usual


@pytest.mark.parametrize("gso", [True, False])
def test_a_destination_out_of_reach_is_refused_and_not_too_big(make: Make, gso: bool):
    """An IPv4 socket has no way to IPv6 addresses."""
    sender = make(FOUR, gso=gso)
    for size in (1, 3000):
        assert not sender.send(Endpoint("2001:db8::1", 9), memoryview(bytes(size)), 1000)
    assert sender.take_too_big() == set()


@pytest.mark.parametrize(("size", "step"), [(65_508, 0), (65_508 * 2, 65_508)])
def test_what_no_datagram_can_hold_is_too_big(make: Make, size: int, step: int):
    sender, receiver = make(), make()
    assert not sender.send(receiver.local, memoryview(bytes(size)), step)
    assert sender.take_too_big() == {receiver.local}
    assert sender.take_too_big() == set(), "told once"


def test_port_zero_is_refused_and_says_nothing_about_sizes(make: Make):
    sender = make()
    assert not sender.send(Endpoint(FOUR, 0), memoryview(b"x"), 0)
    assert sender.take_too_big() == set()


def test_many_peers_do_not_grow_the_caches_for_ever(make: Make):
    sender = make()
    for port in range(1, 5000):
        sender._target(Endpoint(FOUR, port))
        sender._source((FOUR, port))
    assert max(len(sender._targets), len(sender._sources)) <= 4096


# -- making and closing ----------------------------------------------------------------------------


def test_the_port_the_kernel_chose_is_known(make: Make):
    assert make(FOUR, 0).local.port > 0
    assert make("::1", 0).local.host == "::1"


@pytest.mark.parametrize("host", [pytest.param(FOUR, id="127"), "::1", "::", "0.0.0.0"])
def test_a_port_in_use_is_one_clear_clause(make: Make, host: str):
    port = make(host).local.port
    with pytest.raises(UdpError) as caught:
        make(host, port)
    assert caught.value.why == f"cannot listen on {Endpoint(host, port)}: the UDP port is in use"
    assert caught.value.fix


def test_a_foreign_address_is_one_clear_clause(make: Make):
    with pytest.raises(UdpError, match=r"192\.0\.2\.1:9: this machine does not have the address"):
        make("192.0.2.1", 9)


def test_without_ipv6_all_addresses_are_the_ipv4_ones(make: Make, monkeypatch):
    real = socket.socket

    def without_ipv6(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    alone, peer = make("::"), make(FOUR)
    assert alone.send(peer.local, memoryview(b"x"), 0)
    assert reads(peer, 1)[0][2] == Endpoint("127.0.0.1", alone.local.port)
    with pytest.raises(UdpError, match="this machine has no IPv6") as caught:
        make("::1")
    assert caught.value.fix == "listen on an IPv4 address"


def test_a_closed_socket_frees_its_port(make: Make):
    first = make()
    first.close()
    assert make(FOUR, first.local.port).local == first.local


# -- the interface's MTU ---------------------------------------------------------------------------

MTU = 1400
FOUR_INSIDE, SIX_INSIDE = "10.77.0.1", "fd77::1"


class TestSmallInterface:
    """A loopback with a small MTU, and a socket that listens on everything."""

    pytestmark = NEEDS_KERNEL

    @pytest.mark.parametrize("host", [FOUR_INSIDE, SIX_INSIDE])
    @pytest.mark.parametrize("gso", [True, False])
    def test_datagrams_above_its_mtu_are_refused_and_told(self, host: str, gso: bool):
        def work() -> list[tuple[bool, bool]]:
            sender, receiver = UdpSocket(Endpoint("::", 0), gso=gso), UdpSocket(Endpoint("::", 0))
            target = Endpoint(host, receiver.local.port)
            fits = MTU - target.ip_overhead
            outcomes = []
            for step, count in ((fits, 1), (fits, 5), (fits + 1, 1), (fits + 1, 5)):
                data = memoryview(bytes(step * count))
                sent = sender.send(target, data, step if count > 1 else 0)
                outcomes.append((sent, sender.take_too_big() == {target}))
            sender.close()
            receiver.close()
            return outcomes

        outcomes = in_namespace(
            work,
            f"link set lo mtu {MTU}",
            f"addr add {FOUR_INSIDE}/32 dev lo",
            f"addr add {SIX_INSIDE}/128 dev lo nodad",
        )
        assert outcomes == [(True, False), (True, False), (False, True), (False, True)]


@pytest.mark.parametrize("version", [4, 6])
def test_a_socket_that_is_passed_on_keeps_what_waits_in_it(make: Make, version: int):
    first, far = make(LOOPBACK[version]), make(LOOPBACK[version])
    far.send(first.local, memoryview(b"waits"), 0)
    copy = os.dup(first.fileno())
    first.close()
    second = UdpSocket(first.local, descriptor=copy)
    assert second.local == first.local
    assert second.offloads == far.offloads
    assert datagrams(reads(second, 5)) == [b"waits"]
    second.send(far.local, memoryview(b"back"), 0)
    assert datagrams(reads(far, 4)) == [b"back"]
    second.close()


def test_what_is_passed_on_must_listen_just_there(make: Make):
    udp, tcp = make(), socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with tcp:
        tcp.bind((FOUR, 0))
        port = tcp.getsockname()[1]
        for descriptor, listen in (
            (udp.fileno(), Endpoint(FOUR, udp.local.port % 65535 + 1)),
            (udp.fileno(), Endpoint("::1", udp.local.port)),
            (tcp.fileno(), Endpoint(FOUR, port)),
        ):
            with pytest.raises(UdpError, match="does not listen on"):
                UdpSocket(listen, descriptor=descriptor)
        assert udp.local.port  # both are open still
        reading, writing = os.pipe()
        with pytest.raises(UdpError, match="does not listen on"):
            UdpSocket(udp.local, descriptor=reading)
        os.close(reading)
        os.close(writing)
