"""Item 10 of what Muslin promises: every packet read ends in exactly one counter.

    in == out + queued + sum(drops)      for each node, here at every moment, not at rest alone

The load: bulk TCP, small UDP, packets to nobody, multicast, spoofed sources and strangers' garbage,
with cuts in between.
"""

from __future__ import annotations

import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import Any

from node.kernel import netns
from node.lab.verbs import lab_kill, lab_start
from overlay.types import DEFAULT_PORT
from tests.support.builders import udp4
from tests.support.labs import Lab, LabMaker, Place
from tests.support.machines import Machine
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt
from tests.support.streams import Stream
from tests.support.traffic import ECHO_PORT, client, opened, ping, reaches, serving
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

GARBAGE = 200
SPOOFED = 50
SOON = 20.0


def balance(ledger: dict[str, Any]) -> int:
    """What the books of a node do not account for."""
    return int(ledger["in"] - ledger["out"] - ledger["queued"] - sum(ledger["drops"].values()))


@contextmanager
def auditing(lab: Lab, *nodes: str) -> Iterator[list[dict[str, Any]]]:
    """Look into books all the time of a `with` block; yields those that do not balance."""
    wrong: list[dict[str, Any]] = []
    over = threading.Event()

    def audit() -> None:
        while not over.wait(0.02):
            books = [lab.ask(node, "status")["ledger"] for node in nodes]
            wrong.extend(page for page in books if balance(page))

    thread = threading.Thread(target=audit)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join()


# -- the load --------------------------------------------------------------------------------------


def throw_garbage(lab: Lab) -> None:
    """Random datagrams to every daemon, from a namespace in the same underlay."""
    rng = random.Random(10)
    with opened(lab["node3"], socket.SOCK_DGRAM, 4) as thrower:
        for node in ("node1", "node2"):
            for _ in range(GARBAGE):
                garbage = rng.randbytes(rng.randrange(1400))
                thrower.sendto(garbage, (lab.underlay_address(node), DEFAULT_PORT))


def spoof(node: Place, target: Place, source: str) -> None:
    """Packets whose source address is not of the node, from itself: pods are kept from forging."""
    raw = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with netns.run_in(node.netns, socket.socket, *raw) as sender:
        for port in range(SPOOFED):
            packet = udp4(source, target.address, b"spoofed", sport=9, dport=1000 + port)
            sender.sendto(packet, (target.address, 0))


def ask_nobody(lab: Lab, pod: Place) -> None:
    """Pings to addresses without a pod: of this node, of another one, of none."""
    for family in (4, 6):
        for node in ("node1", "node2"):
            ping(pod, str(ip_address(lab[node].at(family)) + 200), wait=1)
    ping(pod, "10.244.250.9", wait=1)


def say_to_everybody(node: Place) -> None:
    """Multicast and broadcast out of the TUN interface."""
    for address in ("224.0.0.251", "255.255.255.255", "ff02::1%muslin0"):
        attempt(node.netns, "ping", "-b", "-c2", "-i0.2", "-W1", "-I", "muslin0", address)


def test_the_books_balance_under_mixed_load_with_cuts(make_lab: LabMaker) -> None:
    lab = make_lab(nodes=3, pods=1)
    here, there, third = (lab[f"node{number}-pod1"] for number in (1, 2, 3))
    before = lab.drops("node1")
    with ExitStack() as load:
        wrong = load.enter_context(auditing(lab, "node1", "node2", "node3"))
        load.enter_context(Stream(here, there))
        back = load.enter_context(Stream(third, here))
        load.enter_context(serving(third, "echo", ECHO_PORT))
        for number, family in enumerate((4, 6)):
            client(here, "datagrams", third.at(family), ECHO_PORT, *range(1, 400, 7))
            spoof(lab["node1"], there, source=("203.0.113.9", there.address)[number])
            throw_garbage(lab)
            ask_nobody(lab, here)
            say_to_everybody(lab["node1"])
            lab.cut("node1", ("node2", "node3")[number])
            ping(here, there.address, "-i0.3", count=3, wait=1)
            lab.heal()
        eventually(lambda: reaches(here, there.address), within=SOON)
        back.moves()
    assert wrong == []
    for node in lab.nodes:
        ledger = Machine(lab.info, node.name).shows("status")["ledger"]
        assert balance(ledger) == 0
        assert ledger["queued"] == 0
        assert ledger["out"] > 0
    lost = lab.drops("node1") - before
    assert lost["foreign_source"] == 2 * SPOOFED
    assert lost["no_route"] >= 2
    assert lost["multicast"] >= 4
    assert strangers(lost) >= 2 * GARBAGE
    assert strangers(lab.drops("node2")) >= 2 * GARBAGE


def strangers(lost: Counter[str]) -> int:
    """What random bytes are taken for, by their first one and their length."""
    reasons = ("truncated", "unknown_type", "bad_header", "bad_handshake", "unknown_index")
    return sum(lost[reason] for reason in reasons)


def test_packets_that_wait_for_a_session_are_counted_as_queued(make_lab: LabMaker) -> None:
    lab = make_lab(nodes=2, pods=1)
    here, there = lab["node1-pod1"], lab["node2-pod1"]
    lab_kill(lab.name, "node2", signal.SIGTERM, store=lab.store)  # it says good-bye
    with auditing(lab, "node1") as wrong:
        ping(here, there.address, "-i0.2", count=5, wait=1)
        assert lab.ask("node1", "status")["ledger"]["queued"] >= 5
        lab_start(lab.name, "node2", store=lab.store)
        eventually(lambda: reaches(here, there.address), within=SOON)
        eventually(lambda: lab.ask("node1", "status")["ledger"]["queued"] == 0, within=SOON)
    assert wrong == []
