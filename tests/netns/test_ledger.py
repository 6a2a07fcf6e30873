"""Item 10: every packet read ends in exactly one counter, under mixed load with cuts.

Bulk TCP, small UDP, packets to nobody, multicast, spoofed sources, strangers' garbage, and a cut in
the middle of it; then rest, and the books of every node balance.
"""

from __future__ import annotations

import random
import socket

from node.kernel import netns
from tests.support.builders import udp4
from tests.support.labs import Lab, LabMaker, Place
from tests.support.privileged import NEEDS_KERNEL
from tests.support.traffic import (
    ECHO_PORT,
    TOOL,
    attempt,
    background,
    client,
    opened,
    reaches,
    serving,
)
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SIZE = 64 << 20
GARBAGE = 200
SPOOFED = 50
SOON = 15.0


def books(lab: Lab, node: str) -> dict[str, int]:
    ledger = lab.ask(node, "status")["ledger"]
    return {
        "in": ledger["in"],
        "out": ledger["out"],
        "queued": ledger["queued"],
        "lost": sum(ledger["drops"].values()),
    }


def balanced(lab: Lab) -> bool:
    """Asked while nothing but gossip moves; one answer is one moment of the daemon."""
    pages = [books(lab, node.name) for node in lab.nodes]
    return all(page["in"] == page["out"] + page["queued"] + page["lost"] for page in pages)


def throw_garbage(lab: Lab, target: Place) -> None:
    """From another node's namespace, so that the underlay carries it."""
    rng = random.Random(10)
    thrower = opened(lab["node3"], socket.SOCK_DGRAM, 4)
    with thrower:
        for _ in range(GARBAGE):
            thrower.sendto(
                rng.randbytes(rng.randrange(0, 1400)), (lab.underlay_address(target.name), 6875)
            )


def spoof(pod: Place, target: Place) -> None:
    """Packets with a source address that is not the pod's, nor its node's."""

    def raw() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        made.settimeout(5.0)
        return made

    with netns.run_in(pod.netns, raw) as sender:
        for port in range(SPOOFED):
            packet = udp4("203.0.113.9", target.address, b"spoofed", sport=9, dport=1000 + port)
            sender.sendto(packet, (target.address, 0))


def test_the_books_balance_at_rest_after_mixed_load_with_cuts(make_lab: LabMaker) -> None:
    lab = make_lab(nodes=3, pods=1)
    here, there, third = lab["node1-pod1"], lab["node2-pod1"], lab["node3-pod1"]
    before = lab.drops("node1")
    with (
        serving(there, "receive", 5001),
        serving(third, "echo", ECHO_PORT),
        background(here.netns, *TOOL, "send", there.address, "5001", str(SIZE)) as bulk,
    ):
        client(here, "datagrams", third.address, ECHO_PORT, *range(1, 400, 7))
        spoof(here, there)
        throw_garbage(lab, lab["node1"])
        attempt(here.netns, "ping", "-c", "2", "-W", "1", "10.244.250.9")  # in no block
        attempt(lab["node1"].netns, "ping", "-c", "2", "-W", "1", "-I", "muslin0", "224.0.0.251")
        lab.cut("node1", "node2")
        attempt(here.netns, "ping", "-c", "3", "-i", "0.3", "-W", "1", there.address)
        lab.heal()
        assert eventually(lambda: reaches(here, there.address), within=SOON)
        assert bulk.answer(60.0)["bytes"] == SIZE
    lost = lab.drops("node1") - before
    assert lost["foreign_source"] >= SPOOFED
    assert lost["no_route"] >= 1
    assert lost["multicast"] >= 1
    # Random first bytes: most are of no type we know, some are too short to have one.
    assert lost["unknown_type"] + lost["truncated"] >= GARBAGE // 2
    assert eventually(lambda: balanced(lab), within=SOON), [
        books(lab, node.name) for node in lab.nodes
    ]
