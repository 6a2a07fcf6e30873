"""The process of a lane: its two sockets, how it ends. On a real TUN: tests/netns/test_lanes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from node import children
from node.io.memory import MemoryNetwork, MemoryUdp
from node.io.udp import UdpSocket
from node.lanes.pipe import make_pair
from node.lanes.setup import LaneSetup
from node.lanes.worker import LaneUdp
from overlay.lanes.messages import Failed, decode_report
from overlay.lanes.remote import ViaFirst
from overlay.types import Endpoint
from tests.node.lanes.test_setup import SETUP
from tests.support.waiting import eventually

PATIENCE = 20.0
PEER = Endpoint("192.0.2.9", 6875)


def test_lane_0_of_a_peer_is_reached_from_our_own_lane_0() -> None:
    network = MemoryNetwork()
    first = MemoryUdp(network, Endpoint("192.0.2.1", 6875))
    own = MemoryUdp(network, Endpoint("192.0.2.1", 6876))
    peer = MemoryUdp(network, PEER)
    lane = LaneUdp(own, first)
    assert lane.local == own.local
    assert lane.offloads == own.offloads
    for endpoint, port in ((ViaFirst(*PEER), 6875), (PEER, 6876)):
        assert lane.send(endpoint, memoryview(b"x"), 0)
        received = peer.receive()
        assert received is not None
        assert received.source.port == port
    own.put(received)
    assert lane.receive() == received
    assert lane.fileno() == own.fileno()
    assert lane.take_too_big() == set()
    lane.close()


def test_a_shared_socket_sends_and_takes_no_offload_away_from_its_owner() -> None:
    with ExitStack() as stack:
        owner = UdpSocket(Endpoint("127.0.0.1", 0))
        stack.callback(owner.close)
        shared = UdpSocket(owner.local, shared=socket.socket(fileno=os.dup(owner.fileno())))
        stack.callback(shared.close)
        receiver = UdpSocket(Endpoint("127.0.0.1", 0))
        stack.callback(receiver.close)
        assert shared.local == owner.local
        assert "udp_gro" not in shared.offloads
        assert shared.send(receiver.local, memoryview(b"hello"), 0)
        received = receiver.receive()
        assert received is not None
        assert (bytes(received.datagrams), received.source) == (b"hello", owner.local)


class Process:
    """A worker's process and the daemon's end of its pipe."""

    def __init__(self) -> None:
        self.end, theirs = make_pair()
        self.end.settimeout(PATIENCE)
        with theirs, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            self.process = subprocess.Popen(
                children.command("node.lanes.worker", theirs.fileno(), udp.fileno()),
                pass_fds=(theirs.fileno(), udp.fileno()),
                env=children.environment(),
                stderr=subprocess.PIPE,
                text=True,
            )

    def close(self) -> None:
        self.end.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.close()


def test_it_ends_with_its_pipe_before_it_was_told_anything(process: Process) -> None:
    process.end.close()
    assert process.process.wait(PATIENCE) == 0


def test_it_says_why_it_cannot_run_and_ends(process: Process) -> None:
    setup = LaneSetup.decode(SETUP.encode())
    assert setup.host == "::"
    # The address is of nobody (RFC 5737), so it fails before it touches the machine.
    elsewhere = LaneSetup(
        lane=setup.lane,
        local=setup.local,
        host="192.0.2.1",
        port=6877,
        tun=setup.tun,
        offloads=setup.offloads,
        loop="asyncio",
        log_level="info",
        log_format="text",
    )
    process.end.send(elsewhere.encode())
    report = decode_report(process.end.recv(1 << 16))
    assert isinstance(report, Failed)
    assert report.why.startswith("cannot listen on 192.0.2.1:6877: ")
    assert process.process.wait(PATIENCE) == 0
    assert process.process.stderr is not None
    assert process.process.stderr.read() == ""


def test_its_arguments_hold_nothing_but_numbers(process: Process) -> None:
    arguments = process.process.args
    assert isinstance(arguments, list)
    assert all(str(word).isdigit() for word in arguments[3:])


def test_signals_for_the_daemon_do_not_end_it(process: Process) -> None:
    # It has read nothing yet, so what it answers shows that it came through all three.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        _ignored_by(process.process.pid, number)
        process.process.send_signal(number)
    process.end.close()
    assert process.process.wait(PATIENCE) == 0


def _ignored_by(pid: int, number: signal.Signals) -> None:
    """Wait until a process ignores a signal."""

    def ignored() -> bool:
        with open(f"/proc/{pid}/status") as status:
            words = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        return bool(int(words["SigIgn"], 16) >> (number - 1) & 1)

    eventually(ignored, within=PATIENCE)
