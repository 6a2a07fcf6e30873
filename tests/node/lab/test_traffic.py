"""The traffic tool, over loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node.lab import traffic
from node.lab.traffic import CHUNK, content

TOOL = [sys.executable, "-m", "node.lab.traffic"]


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return probe.getsockname()[1]


def run(*argv: str) -> dict[str, object]:
    done = subprocess.run([*TOOL, *argv], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@contextmanager
def server(*argv: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*TOOL, *argv], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline()) == {"ready": True}
            yield process
        finally:
            process.kill()


def test_content_differs_in_every_chunk_so_that_a_shifted_copy_is_noticed():
    data = content(3 * CHUNK)
    chunks = {data[at : at + CHUNK] for at in range(0, len(data), CHUNK)}
    assert len(chunks) == 3
    assert len(content(CHUNK + 7)) == CHUNK + 7


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_stream_arrives_with_the_checksum_it_was_sent_with(host):
    port = free_port()
    with server("receive", str(port)) as process:
        sent = run("send", host, str(port), str(CHUNK * 2 + 5))
        assert process.stdout is not None
        received = json.loads(process.stdout.readline())
    assert received["sha256"] == sent["sha256"]
    assert received["bytes"] == CHUNK * 2 + 5
    assert received["peer"] == host


def test_an_answer_that_comes_late_and_then_again_is_not_taken_for_the_next(monkeypatch):
    monkeypatch.setattr(traffic, "DATAGRAM_WAIT", 0.3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as slow:
        slow.bind(("127.0.0.1", 0))

        def answer() -> None:
            (first, _), (again, asker) = slow.recvfrom(100), slow.recvfrom(100)
            for data in (first, again):
                slow.sendto(data, asker)
            while len(data) != 4:
                data, asker = slow.recvfrom(100)
                slow.sendto(data, asker)

        answering = threading.Thread(target=answer)
        answering.start()
        said = traffic.datagrams(*slow.getsockname(), [3, 4])
        answering.join()
    assert said["wrong"] == []


def test_datagrams_and_connections_come_back_intact():
    port = free_port()
    with server("echo", str(port)):
        assert run("datagrams", "127.0.0.1", str(port), "1", "1400", "60000")["intact"]
        assert run("connections", "::1", str(port), "5", "100000") == {
            "count": 5,
            "intact": True,
            "wrong": 0,
        }


def test_a_changed_datagram_is_named():
    """A server that turns every byte round: what comes back is never what was sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        with subprocess.Popen(
            [*TOOL, "datagrams", "127.0.0.1", str(port), "100"], stdout=subprocess.PIPE, text=True
        ) as client:
            data, address = udp.recvfrom(2000)
            udp.sendto(bytes(byte ^ 1 for byte in data), address)
            assert client.stdout is not None
            assert json.loads(client.stdout.readline())["wrong"] == [100]
