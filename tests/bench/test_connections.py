"""Tests of the connections, over loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from bench.connections import connect, exchange
from tests.arch.project import ROOT


@pytest.fixture
def port() -> Iterator[int]:
    argv = [sys.executable, "-m", "bench.connections", "serve", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        yield int(json.loads(server.stdout.readline())["port"])
        server.terminate()


def test_a_connection_lives_its_whole_life(port):
    assert exchange("127.0.0.1", port)


def test_workers_share_the_count(port):
    result = connect("127.0.0.1", port, 1.0, 4)
    assert result["done"] >= 4
    assert result["failed"] == 0
    assert result["seconds"] >= 1.0


def test_where_nobody_listens_exchanges_fail():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not exchange("127.0.0.1", port)


@pytest.mark.parametrize(("answer", "right"), [(b"x", True), (b"y", False), (b"xx", False)])
def test_exactly_the_byte_and_then_the_end_is_right(answer, right):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                connection.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert exchange("127.0.0.1", server.getsockname()[1]) is right
        thread.join()
