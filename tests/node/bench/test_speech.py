"""Streams that the kernel throws away, commands that do not come whole, what TCP says of itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from node.bench.speech import (
    LONGEST_LINE,
    Lines,
    drain,
    exactly,
    family_of,
    pour,
    segments_of,
    waiting_in,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection over loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
    ):
        far, _ = server.accept()
        with far:
            near.settimeout(30)
            far.settimeout(30)
            yield near, far


def test_every_byte_that_was_poured_is_counted_and_none_is_copied(pair) -> None:
    near, far = pair
    buffer = bytearray(1 << 16)
    sent: list[int] = []

    def send() -> None:
        for size in (1, 100_000, 3):
            near.sendall(b"x" * size)
            sent.append(size)
        near.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    size, seconds = drain(far, memoryview(buffer))
    thread.join()
    assert size == sum(sent) == 100_004
    assert seconds >= 0
    assert not any(buffer)


def test_pouring_ends_when_it_is_told_to_and_says_that_this_is_the_end(pair) -> None:
    near, far = pair
    rounds = iter([False, False, True])
    pour(near, memoryview(b"abcd"), 60.0, lambda: next(rounds))
    assert drain(far, memoryview(bytearray(100)))[0] == 8


def test_pouring_ends_in_time(pair) -> None:
    near, far = pair
    pour(near, memoryview(b"abcd"), 0.0, lambda: False)
    assert drain(far, memoryview(bytearray(100))) == (0, 0.0)


def test_a_connection_tells_how_many_segments_it_sent(pair) -> None:
    near, far = pair
    near.sendall(b"x")
    assert exactly(far, 1) == b"x"
    assert segments_of(near) == (1, 0)


def test_what_is_not_a_tcp_connection_has_no_segments() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert segments_of(udp) == (0, 0)


def test_bytes_that_nobody_takes_are_waiting(pair) -> None:
    near, _ = pair
    assert waiting_in(near) == 0
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        near.sendall(bytes(64 << 20))
    assert waiting_in(near) > 0


def test_exactly_so_many_bytes_or_those_before_the_end(pair) -> None:
    near, far = pair
    near.sendall(b"abcde")
    near.close()
    assert exactly(far, 3) == b"abc"
    assert exactly(far, 3) == b"de"


def test_objects_travel_as_lines_however_they_are_cut(pair) -> None:
    near, far = pair
    lines = Lines(far)
    near.sendall(b'{"a": 1}\n{"b"')
    assert lines.receive() == {"a": 1}
    near.sendall(b": 2}\n")
    assert lines.receive() == {"b": 2}
    Lines(near).send({"c": [3]})
    assert lines.receive() == {"c": [3]}


@pytest.mark.parametrize("said", [b"", b"no json\n", b"[1]\n", b"x" * (LONGEST_LINE + 10)])
def test_anything_else_ends_the_conversation(pair, said: bytes) -> None:
    near, far = pair
    near.sendall(said)
    near.shutdown(socket.SHUT_WR)
    assert Lines(far).receive() is None


def test_an_address_says_its_family() -> None:
    assert family_of("fd00::1") == socket.AF_INET6
    assert family_of("192.0.2.1") == socket.AF_INET
