"""Tests of the connections, over loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.connections import connect, exchange


@pytest.fixture
def port() -> Iterator[int]:
    argv = [sys.executable, "-m", "bench.connections", "serve", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(json.loads(server.stdout.readline())["port"])
        server.terminate()


def test_a_connection_lives_its_whole_life(port):
    assert exchange("127.0.0.1", port)


def test_workers_share_the_count(port):
    result = connect("127.0.0.1", port, 0.2, 4)
    assert result["done"] >= 4
    assert result["failed"] == 0
    assert result["seconds"] >= 0.2


def test_where_nobody_listens_exchanges_fail():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not exchange("127.0.0.1", port)


def test_a_server_that_answers_wrongly_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        client.close()
        server.close()
        assert not exchange(*server_address(server))


def server_address(server: socket.socket) -> tuple[str, int]:
    """An address that was just given up."""
    with socket.create_server(("127.0.0.1", 0)) as fresh:
        return "127.0.0.1", int(fresh.getsockname()[1])
