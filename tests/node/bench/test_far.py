"""Who is served by a far end, what it answers, and everything that ends it."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import replace

import pytest

from node.bench.far import Task
from node.bench.speech import (
    ARRIVED,
    COMMAND,
    DATAGRAM,
    GREETING,
    SINK,
    SOURCE,
    Lines,
    drain,
    exactly,
)
from tests.node.bench.ends import HERE, OTHER_TOKEN, TASK, TOKEN, FarEnd, far_end


def connect(end: FarEnd, token: bytes, kind: bytes, milliseconds: int = 0) -> socket.socket:
    connection = socket.create_connection((HERE, end.ports["port"]), 30)
    connection.sendall(GREETING.pack(token, kind, milliseconds))
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end closes it without a word. What it had not read makes that a reset."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_task_survives_the_way_to_the_child() -> None:
    assert Task.decode(TASK.encode().decode()) == TASK


def test_a_sink_says_how_much_arrived() -> None:
    with far_end() as end, connect(end, TOKEN, SINK) as sink:
        sink.sendall(bytes(100_000))
        sink.shutdown(socket.SHUT_WR)
        size, seconds = ARRIVED.unpack(exactly(sink, ARRIVED.size))
        assert size == 100_000
        assert seconds >= 0


def test_a_source_sends_and_its_segments_are_told_once() -> None:
    with far_end() as end, connect(end, TOKEN, COMMAND) as commands:
        lines = Lines(commands)
        with connect(end, TOKEN, SOURCE, 100) as source:
            assert drain(source, memoryview(bytearray(1 << 20)))[0] > 0
        lines.send({"do": "segments"})
        told = lines.receive()
        assert told is not None
        assert told["sent"] > 0
        lines.send({"do": "segments"})
        assert lines.receive() == {"sent": 0, "again": 0}


def test_a_datagram_comes_back_and_different_ones_are_counted_once() -> None:
    with (
        far_end() as end,
        connect(end, TOKEN, COMMAND) as commands,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.settimeout(30)
        udp.connect((HERE, end.ports["port"]))
        for sequence in (1, 2, 2):
            sent = DATAGRAM.pack(TOKEN, sequence) + b"padding"
            udp.send(sent)
            assert udp.recv(100) == sent
        lines = Lines(commands)
        lines.send({"do": "datagrams"})
        assert lines.receive() == {"overlay": 2, "underlay": 0}
        lines.send({"do": "datagrams"})
        assert lines.receive() == {"overlay": 0, "underlay": 0}


def test_the_load_is_told_without_the_far_end_itself() -> None:
    with far_end() as end, connect(end, TOKEN, COMMAND) as commands:
        lines = Lines(commands)
        lines.send({"do": "usage"})
        told = lines.receive()
        assert told is not None
        processes = told["usage"]["processes"]
        assert str(TASK.daemon) in processes
        assert str(end.process.pid) not in processes
        lines.send({"do": "a dance"})
        assert "error" in (lines.receive() or {})


@pytest.mark.parametrize("token", [OTHER_TOKEN, bytes(16), b"short"])
def test_who_does_not_know_the_token_is_closed_without_a_word(token: bytes) -> None:
    with far_end() as end, connect(end, TOKEN, COMMAND):
        with socket.create_connection((HERE, end.ports["port"]), 30) as stranger:
            greeting = GREETING.pack(token, SOURCE, 1000)
            stranger.sendall(greeting if len(token) == 16 else token)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect((HERE, end.ports["port"]))
            udp.settimeout(30)
            udp.send(DATAGRAM.pack(token.ljust(16), 1))
            udp.send(b"short")
            udp.send(DATAGRAM.pack(TOKEN, 2))  # answered after the others were not
            assert DATAGRAM.unpack(udp.recv(100)) == (TOKEN, 2)


def test_another_address_than_the_askers_is_closed_although_it_knows_the_token() -> None:
    task = replace(TASK, overlay=replace(TASK.overlay, asker="127.0.0.9"))
    with far_end(task) as end:
        with socket.create_connection((HERE, end.ports["port"]), 30) as stranger:
            with suppress(ConnectionError):
                stranger.sendall(GREETING.pack(TOKEN, SOURCE, 1000))
            assert is_closed(stranger)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect((HERE, end.ports["port"]))
            udp.send(DATAGRAM.pack(TOKEN, 1))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as right:
                right.bind(("127.0.0.9", 0))
                right.connect((HERE, end.ports["port"]))
                right.settimeout(30)
                right.send(DATAGRAM.pack(TOKEN, 2))
                right.recv(100)
            udp.setblocking(False)
            with pytest.raises(BlockingIOError):
                udp.recv(100)


def test_commands_are_not_taken_beside_the_overlay() -> None:
    with far_end() as end:
        there = ("127.0.0.2", end.ports["underlay_port"])
        with socket.create_connection(there, 30) as beside:
            beside.sendall(GREETING.pack(OTHER_TOKEN, COMMAND, 0))
            Lines(beside).send({"do": "usage"})
            assert is_closed(beside)
        with connect(end, TOKEN, COMMAND) as commands:
            Lines(commands).send({"do": "datagrams"})
            assert Lines(commands).receive()


def test_an_underlay_address_of_somebody_else_is_no_error() -> None:
    task = replace(TASK, underlay=replace(TASK.underlay, address="192.0.2.1"))
    with far_end(task) as end:
        assert end.ports["underlay_port"] == 0
        assert end.ports["port"] > 0


def test_an_address_of_somebody_else_is_told_and_ends_it() -> None:
    task = replace(TASK, overlay=replace(TASK.overlay, address="192.0.2.1"))
    with far_end(task) as end:
        assert "error" in end.ports
        assert end.ends() == 1


# -- what ends it ----------------------------------------------------------------------------------


def test_it_ends_with_the_command_connection() -> None:
    with far_end() as end:
        with connect(end, TOKEN, COMMAND) as commands:
            lines = Lines(commands)
            lines.send({"do": "segments"})
            assert lines.receive()
            busy = connect(end, TOKEN, SOURCE, 60_000)
        with busy:
            assert end.ends() == 0


def test_it_ends_with_the_daemon() -> None:
    with far_end() as end:
        assert end.process.stdin is not None
        end.process.stdin.close()
        assert end.ends() == 0


def test_it_ends_when_its_time_is_up() -> None:
    with far_end(replace(TASK, seconds=2.0)) as end, connect(end, TOKEN, COMMAND):
        assert end.ends() == 0


def test_it_ends_when_nobody_comes() -> None:
    with far_end(replace(TASK, seconds=1e6, patience=0.1)) as end:
        assert end.ends() == 0
