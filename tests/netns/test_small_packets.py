"""Many small datagrams between pods: all of them, unchanged, in order, and joined on their way."""

from __future__ import annotations

import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from node.lab.verbs import lab_kill
from tests.support.judge import UDP_L4, VNET, parted
from tests.support.labs import Lab, Place
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.traffic import is_answered, opened
from tests.support.waiting import eventually
from tests.support.wiretap import SO_RCVBUFFORCE, UDP, UDP_SIZE, Wiretap

pytestmark = NEEDS_KERNEL

families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])

PORT = 5003
WINDOW = 256
"""Datagrams under way at most: fewer than any queue on the way holds, so that none is lost."""
HEADERS = {4: 20 + UDP_SIZE, 6: 40 + UDP_SIZE}


class Flow:
    """A connected pair of UDP sockets. What is sent is numbered; what comes has to be just that."""

    def __init__(self, source: Place, target: Place, family: int, *, seed: int = 0) -> None:
        self._sender = opened(source, socket.SOCK_DGRAM, family)
        self._receiver = opened(target, socket.SOCK_DGRAM, family)
        self._receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._receiver.bind((target.at(family), PORT))
        self._sender.connect((target.at(family), PORT))
        self._rng = random.Random(seed)
        self._expected: list[bytes] = []
        self.wrong = 0

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()

    def send(self, sizes: list[int]) -> list[bytes]:
        """Send a datagram of each size."""
        made = [self._rng.randbytes(size) for size in sizes]
        self._expected += made
        for data in made:
            self._sender.send(data)
        return made

    def receive(self) -> None:
        """Take all that was sent."""
        for data in self._expected:
            self.wrong += self._receiver.recv(1 << 16) != data
        self._expected.clear()

    def run(self, windows: int) -> None:
        """Send and receive: datagrams of one size, of two sizes in turn, and of any size."""
        for window in range(windows):
            size = self._rng.randint(1, 200)
            sizes = {
                0: [size] * WINDOW,
                1: [size, 1000] * (WINDOW // 2),
                2: [self._rng.randint(1, 1372) for _ in range(WINDOW)],
            }
            self.send(sizes[window % 3])
            self.receive()


@contextmanager
def flow(source: Place, target: Place, family: int, *, seed: int = 0) -> Iterator[Flow]:
    made = Flow(source, target, family, seed=seed)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def paused(lab: Lab, node: str) -> Iterator[None]:
    """The daemon of a node stands still; what comes to its TUN waits there."""
    lab_kill(lab.name, node, signal.SIGSTOP, store=lab.store)
    try:
        yield
    finally:
        lab_kill(lab.name, node, signal.SIGCONT, store=lab.store)


def to_port(packets: list[bytes], family: int) -> list[bytes]:
    """The UDP packets to the port of the test, behind their virtio_net_hdr."""
    at = VNET.size + HEADERS[family] - UDP_SIZE
    protocol_at = VNET.size + (9 if family == 4 else 6)
    return [
        packet
        for packet in packets
        if packet[VNET.size] >> 4 == family
        and packet[protocol_at] == UDP
        and packet[at + 2 : at + 4] == PORT.to_bytes(2, "big")
    ]


@families
@pytest.mark.parametrize("size", [1, 64, 1000])
def test_a_run_of_datagrams_is_written_to_the_far_tun_in_a_few_packets(
    lab: Lab, family: int, size: int
) -> None:
    if "uso" not in lab.ask("node2", "status")["offloads"]:
        pytest.skip("super-packets of UDP came with Linux 6.2")
    near, far = lab["node1-pod1"], lab["node2-pod1"]
    assert is_answered(near, far.at(family))
    with flow(near, far, family) as one, Wiretap(lab["node2"].netns, "muslin0") as tap:
        with paused(lab, "node1"):
            sent = one.send([size] * WINDOW)
        one.receive()
        passed = eventually(
            lambda: _data(to_port(tap.packets, family), family) == b"".join(sent) and tap.packets,
            within=PATIENCE,
        )
    assert one.wrong == 0
    joined = to_port(passed, family)
    # 128 in a pass, 64 in a super-packet at most and in a burst less where they are large.
    assert len(joined) <= WINDOW // 16
    assert all(parted(packet)[0].gso_type in (0, UDP_L4) for packet in joined)


def _data(packets: list[bytes], family: int) -> bytes:
    return b"".join(packet[VNET.size + HEADERS[family] :] for packet in packets)


@families
def test_flows_of_small_datagrams_side_by_side_arrive_unchanged_and_in_order(
    lab: Lab, family: int
) -> None:
    ends = [
        ("node1-pod1", "node2-pod1"),
        ("node1-pod2", "node3-pod1"),
        ("node3-pod2", "node2-pod2"),
    ]
    with ExitStack() as stack:
        flows = [
            stack.enter_context(flow(lab[source], lab[target], family, seed=seed))
            for seed, (source, target) in enumerate(ends)
        ]
        threads = [threading.Thread(target=one.run, args=(30,)) for one in flows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [one.wrong for one in flows] == [0, 0, 0]
