from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from node.io.memory import MemoryNetwork, MemoryTun, MemoryUdp
from overlay.types import Endpoint
from overlay.wire.virtio import READ_SIZE

A, B = Endpoint("192.0.2.1", 1), Endpoint("2001:db8::2", 2)


@pytest.fixture
def tun() -> Iterator[MemoryTun]:
    made = MemoryTun()
    yield made
    made.close()


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    made = MemoryNetwork()
    yield made
    for udp in list(made.sockets.values()):
        udp.close()


def is_readable(port: MemoryTun | MemoryUdp) -> bool:
    return bool(select.select([port], [], [], 0)[0])


def read(tun: MemoryTun) -> bytes:
    room = memoryview(bytearray(READ_SIZE))
    return bytes(room[: sum(tun.read_run(room, gap=0, most=1, large=0))])


# -- TUN -------------------------------------------------------------------------------------------


def test_injected_packets_are_read_in_order_and_readable_until_then(tun: MemoryTun):
    assert not is_readable(tun)
    tun.inject(b"one")
    tun.inject(b"two")
    assert is_readable(tun)
    assert read(tun) == b"one"
    assert is_readable(tun), "one is left"
    assert read(tun) == b"two"
    assert read(tun) == b""
    assert not is_readable(tun), "or an event loop would spin"


def test_a_packet_injected_after_the_queue_was_empty_wakes_again(tun: MemoryTun):
    assert read(tun) == b""
    tun.inject(b"one")
    assert is_readable(tun)
    assert read(tun) == b"one"


def test_many_are_read_one_behind_the_other_up_to_a_large_one(tun: MemoryTun):
    for packet in (b"one", b"two", b"a large one", b"four"):
        tun.inject(packet)
    room = memoryview(bytearray(READ_SIZE + 100))
    bounds = {"gap": 2, "large": 5}
    assert tun.read_run(room, most=1, **bounds) == [3]
    assert tun.read_run(room, most=9, **bounds) == [3, 11]
    assert bytes(room[:16]) == b"two\0\0a large one"
    assert tun.read_run(room, most=9, **bounds) == [4]
    assert tun.read_run(room, most=9, **bounds) == []


def test_a_run_ends_where_the_room_might_not_hold_another_packet(tun: MemoryTun):
    for packet in (b"one", b"two", b"three"):
        tun.inject(packet)
    bounds = {"gap": 2, "most": 9, "large": 9}
    room = memoryview(bytearray(READ_SIZE + 5))
    assert tun.read_run(room[: READ_SIZE - 1], **bounds) == []
    assert is_readable(tun)
    assert tun.read_run(room, **bounds) == [3, 3]
    assert tun.read_run(room[:READ_SIZE], **bounds) == [5]


def test_what_is_written_is_kept_as_it_was(tun: MemoryTun):
    buffer = bytearray(b"one")
    assert tun.write(memoryview(buffer))
    buffer[:] = b"two"
    assert tun.write(memoryview(buffer))
    assert tun.written == [b"one", b"two"]


def test_making_it_anew_changes_nothing(tun: MemoryTun):
    tun.inject(b"one")
    number = tun.fileno()
    tun.reopen()
    assert tun.fileno() == number
    assert read(tun) == b"one"


# -- UDP -------------------------------------------------------------------------------------------


def test_a_datagram_arrives_with_its_sender(network: MemoryNetwork):
    a, b = MemoryUdp(network, A), MemoryUdp(network, B)
    buffer = bytearray(b"hello")
    assert a.send(B, memoryview(buffer), 0)
    buffer[:] = b"other"
    assert is_readable(b)
    received = b.receive()
    assert received is not None
    assert (bytes(received.datagrams), received.step, received.source) == (b"hello", 0, A)
    assert b.receive() is None
    assert not is_readable(b)
    assert not is_readable(a)


def test_a_run_arrives_as_a_run(network: MemoryNetwork):
    a, b = MemoryUdp(network, A), MemoryUdp(network, B)
    a.send(B, memoryview(b"aabbc"), 2)
    received = b.receive()
    assert received is not None
    assert (bytes(received.datagrams), received.step) == (b"aabbc", 2)


def test_what_nobody_listens_for_is_lost_without_a_word(network: MemoryNetwork):
    a = MemoryUdp(network, A)
    assert a.send(B, memoryview(b"x"), 0)
    assert a.take_too_big() == set()


def test_a_closed_socket_receives_nothing_more(network: MemoryNetwork):
    """Its descriptor may be another file's by now: a late datagram must not touch it."""
    a, b = MemoryUdp(network, A), MemoryUdp(network, B)
    b.close()
    assert a.send(B, memoryview(b"x"), 0)
