"""Item 8: who is not a member reads nothing, changes nothing, and gets no answer.

pods -- node1 ==== underlay bridge ==== node2 -- pods
                        |
                   the stranger: sees every frame, sends what it likes
"""

from __future__ import annotations

import random
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node.kernel import netns
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.traffic import opened, reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

CANARY = b"the canary sings in plain text 0123456789"
PORT = 6875
STRANGER = "198.51.100.250"
ETH_P_ALL = 0x0003
HEADERS = 14 + 20 + 8
TYPE_DATA = 4
RANDOM = 300


class Wire:
    """Every frame at the bridge's port to a node, both directions."""

    def __init__(self, port: str) -> None:
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind((port, 0))
        self.frames: list[bytes] = []

    def read(self) -> list[bytes]:
        """All frames so far."""
        while select.select([self._socket], [], [], 0)[0]:
            self.frames.append(self._socket.recv(1 << 17))
        return self.frames

    def datagrams_to(self, address: str) -> list[bytes]:
        """Payloads of UDP datagrams to `address` and our port."""
        wanted = socket.inet_aton(address)
        return [
            frame[HEADERS:]
            for frame in self.read()
            if frame[12:14] == b"\x08\x00"
            and frame[23] == socket.IPPROTO_UDP
            and frame[30:34] == wanted
            and struct.unpack_from(">H", frame, 36) == (PORT,)
        ]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Lab:
    lab = make_module_lab(nodes=2, pods=1)
    run(lab.underlay, "ip", "address", "add", f"{STRANGER}/24", "dev", "br0")
    return lab


@contextmanager
def watching(lab: Lab, node: str) -> Iterator[Wire]:
    wire = netns.run_in(lab.underlay, Wire, node)
    try:
        yield wire
    finally:
        wire.close()


@contextmanager
def stranger(lab: Lab) -> Iterator[socket.socket]:
    made = netns.run_in(lab.underlay, socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.bind((STRANGER, 0))
        yield made


def exchange(lab: Lab, payload: bytes) -> None:
    """A UDP datagram from pod to pod and back."""
    here, there = lab["node1-pod1"], lab["node2-pod1"]
    with (
        opened(there, socket.SOCK_DGRAM, 4) as server,
        opened(here, socket.SOCK_DGRAM, 4) as client,
    ):
        server.bind(("", 7000))
        client.sendto(payload, (there.address, 7000))
        data, source = server.recvfrom(2000)
        assert (data, source[0]) == (payload, here.address)
        server.sendto(data, source)
        assert client.recv(2000) == payload


def standing(lab: Lab) -> object:
    """What a stranger must not be able to change on node1."""
    sessions = [
        (row["node"], row["endpoint"], row["established"], row["rekeyed"])
        for row in lab.get("node1", "sessions")
    ]
    routes = [(row["prefix"], row["node"], row["via"]) for row in lab.get("node1", "routes")]
    nodes = [(row["name"], row["state"], row["endpoint"]) for row in lab.get("node1", "nodes")]
    return sessions, routes, nodes


def captured_bursts(lab: Lab) -> list[bytes]:
    """Genuine single-segment data datagrams to node1, as seen on the wire."""
    with watching(lab, "node1") as wire:
        for _ in range(5):
            exchange(lab, CANARY)
        found = wire.datagrams_to(lab.underlay_address("node1"))
    genuine = [data for data in found if data[0] == TYPE_DATA and data[2] == 0]
    assert genuine
    return genuine


def test_the_underlay_carries_no_plaintext(lab: Lab) -> None:
    with watching(lab, "node1") as wire:
        for _ in range(20):
            exchange(lab, CANARY)
        carried = wire.datagrams_to(lab.underlay_address("node1"))
        everything = b"".join(wire.read())
    assert carried, "the capture saw the overlay's datagrams"
    assert CANARY not in everything
    assert socket.inet_aton(lab["node1-pod1"].address) not in everything


def shots(genuine: list[bytes]) -> dict[str, list[bytes]]:
    """What a stranger throws, by kind."""
    rng = random.Random(8)
    burst = max(genuine, key=len)
    handshake = bytes([1]) + rng.randbytes(300)
    flipped = [
        burst[:at] + bytes([burst[at] ^ (1 << rng.randrange(8))]) + burst[at + 1 :]
        for at in range(len(burst))
    ]
    return {
        "random": [rng.randbytes(rng.randrange(1, 1400)) for _ in range(RANDOM)],
        "truncated": [burst[:size] for size in range(len(burst))],
        "flipped": flipped,
        "replayed": genuine,
        "handshakes": [handshake, bytes([2]) + handshake[1:], bytes([3]) + handshake[1:]],
    }


EXPECTED = {
    "random": {"unknown_type", "bad_header", "unknown_index", "bad_handshake", "truncated"},
    "truncated": {"truncated", "bad_tag", "replayed"},
    "flipped": {
        "bad_tag",
        "replayed",
        "unknown_index",
        "unknown_type",
        "bad_header",
        "bad_handshake",
        "reassembly_expired",
        "duplicate_segment",
    },
    "replayed": {"replayed"},
    "handshakes": {"bad_handshake", "unknown_index"},
}
"""Reasons that each kind may be lost to. A captured counter was accepted before: `replayed`."""


@pytest.mark.parametrize("kind", list(EXPECTED))
def test_a_stranger_gets_no_answer_changes_nothing_and_is_counted(lab: Lab, kind: str) -> None:
    thrown = shots(captured_bursts(lab))[kind]
    before, lost = standing(lab), lab.drops("node1")
    with stranger(lab) as thrower, watching(lab, "node1") as wire:
        for shot in thrown:
            thrower.sendto(shot, (lab.underlay_address("node1"), PORT))
        reasons = EXPECTED[kind]

        def counted() -> bool:
            grown = lab.drops("node1") - lost
            return sum(grown[reason] for reason in reasons) >= len(thrown)

        eventually(counted, within=10.0)
        answers = [
            frame
            for frame in wire.read()
            if frame[12:14] == b"\x08\x00" and frame[30:34] == socket.inet_aton(STRANGER)
        ]
        thrower.setblocking(False)
        with pytest.raises(BlockingIOError):
            thrower.recv(2000)
    assert answers == [], "not one packet back, ICMP included"
    if kind == "flipped":
        assert (lab.drops("node1") - lost)["bad_tag"] > 0, "a changed counter is new, its tag wrong"
    assert standing(lab) == before
    assert reaches(lab["node2-pod1"], lab["node1-pod1"].address)


def test_replayed_bursts_do_not_reach_the_pod(lab: Lab) -> None:
    here, there = lab["node2-pod1"], lab["node1-pod1"]
    with (
        opened(there, socket.SOCK_DGRAM, 4) as server,
        opened(here, socket.SOCK_DGRAM, 4) as client,
        watching(lab, "node1") as wire,
        stranger(lab) as thrower,
    ):
        server.bind(("", 7001))
        client.sendto(CANARY, (there.address, 7001))
        assert server.recv(2000) == CANARY
        for data in wire.datagrams_to(lab.underlay_address("node1")):
            thrower.sendto(data, (lab.underlay_address("node1"), PORT))
        assert reaches(here, there.address)  # what was thrown has been read by now
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(2000)
