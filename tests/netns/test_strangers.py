"""Item 8 of what Muslin promises: outsiders read nothing, get no answer, change nothing.

    node1 ---- port | br0 | port ---- node2        a tap on a port sees what passes in the underlay;
                      port ---- stranger           the stranger sends whatever it likes

Datagrams that the stranger alters come from a moment when node1 and node2 were cut off from each
other: they are genuine and have never arrived, so that only the alteration can be why they are
refused.
"""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from overlay.config import Timing
from overlay.drops import DropReason
from overlay.types import DEFAULT_PORT
from overlay.wire.burst import BLOCK_HEADER_SIZE, TAG_SIZE
from overlay.wire.header import (
    HEADER_SIZE,
    TYPE_COOKIE_REPLY,
    TYPE_DATA,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Header,
)
from overlay.wire.ip import IPV4_HEADER_SIZE
from overlay.wire.transport import UDP_HEADER_SIZE
from overlay.wire.virtio import VIRTIO_HEADER_SIZE
from tests.support.labs import Lab, LabMaker, Place
from tests.support.pings import Pings
from tests.support.privileged import NEEDS_KERNEL
from tests.support.stranger import Stranger, stranger_in
from tests.support.traffic import (
    PORT,
    echo_datagrams,
    opened,
    reaches,
)
from tests.support.waiting import eventually
from tests.support.wiretap import Datagram, Wiretap

pytestmark = NEEDS_KERNEL

DGRAM = socket.SOCK_DGRAM

CANARY = b"the canary sings at dawn, and nobody in the underlay may hear it; "

SIZES = [1, 100, 500, 1000, 1472]
"""Payloads of the UDP packets that are kept from arriving; the last one makes two segments."""

COUNTED = 20.0
"""Seconds until everything is in the books: what waits for the rest of its burst takes one."""

LASTING = 0.75 * Timing().rekey_after
"""Seconds until keys are no longer so young that they outlast whatever a test does."""

RENEWED = 2 * Timing().rekey_after
"""Seconds until older ones are replaced, at the latest."""

INBOUND = {
    DropReason.TRUNCATED,
    DropReason.UNKNOWN_TYPE,
    DropReason.BAD_HEADER,
    DropReason.UNKNOWN_INDEX,
    DropReason.REPLAYED,
    DropReason.BAD_TAG,
    DropReason.BAD_HANDSHAKE,
    DropReason.BAD_CERTIFICATE,
    DropReason.UNDER_LOAD,
    DropReason.REASSEMBLY_FULL,
    DropReason.REASSEMBLY_EXPIRED,
    DropReason.DUPLICATE_SEGMENT,
}
"""What can become of a datagram from the underlay, other than being understood."""


@dataclass(frozen=True)
class Scene:
    """A lab that a stranger has watched from its first datagram on."""

    lab: Lab
    stranger: Stranger
    seen: list[Datagram]
    near: Place
    far: Place

    def attack(self, node: str, payloads: Sequence[bytes]) -> Counter[str]:
        """Send datagrams to a node from the stranger's address; what it lost, by reason."""
        return self._lost(node, len(payloads), lambda: self.stranger.send(node, payloads))

    def repeat(self, node: str, datagrams: Sequence[Datagram]) -> Counter[str]:
        """The same, each from the address that it came from before."""

        def act() -> None:
            for each in datagrams:
                self.stranger.send_as(each.source, node, each.payload)

        return self._lost(node, len(datagrams), act)

    def _lost(self, node: str, count: int, act: Callable[[], None]) -> Counter[str]:
        before = self._drops(node)
        act()

        def counted() -> bool:
            lost = self._drops(node) - before
            assert lost.total() == count, f"{lost}, and {count} were sent"
            return True

        eventually(counted, within=COUNTED)
        return self._drops(node) - before

    def _drops(self, node: str) -> Counter[str]:
        return Counter({k: v for k, v in self.lab.drops(node).items() if k in INBOUND})


@pytest.fixture(scope="module")
def scene(make_module_lab: LabMaker) -> Iterator[Scene]:
    taps: list[Wiretap] = []
    try:
        lab = make_module_lab(wired=lambda name: taps.append(watch(f"{name}-underlay")))
        near, far = lab["node1-pod1"], lab["node2-pod1"]
        echo_datagrams(near, far, [100, 1472, 20_000])
        taps[0].stop()
        eventually(lambda: settled(lab, near, far), within=COUNTED)
        with stranger_in(lab) as stranger:
            yield Scene(lab, stranger, taps[0].datagrams, near, far)
    finally:
        for tap in taps:
            tap.stop()


def watch(underlay: str) -> Wiretap:
    """Listen to everything between node2 and the others, from now on."""
    return Wiretap(underlay, "node2").__enter__()


@pytest.fixture(scope="module")
def fresh(scene: Scene) -> list[bytes]:
    """Data datagrams from node1 to node2 that are genuine and have never arrived.

    The tap listens only while the two are cut off: a frame passes it before it passes the cut.
    """
    lab = scene.lab
    lab.cut("node1", "node2")
    try:
        with Wiretap(lab.underlay, "node1") as tap, opened(scene.near, DGRAM, 4) as sender:
            for size in SIZES:
                before = sealed(lab)
                sender.sendto(bytes(size), (scene.far.address, PORT))
                eventually(lambda: sealed(lab) > before, within=COUNTED)  # noqa: B023 - at once
                eventually(lambda: size in passed(scene, tap), within=COUNTED)  # noqa: B023
    finally:
        lab.heal()
    eventually(lambda: reaches(scene.near, scene.far.address), within=COUNTED)
    return [found.payload for found in data_to(scene, "node2", tap.datagrams)]


def sealed(lab: Lab) -> int:
    """How many packets node1 has sealed; cut off, it counts nothing else as handed on."""
    return int(lab.ask("node1", "status")["ledger"]["out"])


def passed(scene: Scene, tap: Wiretap) -> set[int]:
    """For each burst from node1 to node2 the payload of the UDP packet that may be alone in it."""
    sizes: Counter[int] = Counter()
    for found in data_to(scene, "node2", tap.datagrams):
        counter = Header.decode_untrusted(found.payload).counter
        sizes[counter] += len(found.payload) - HEADER_SIZE
    around = BLOCK_HEADER_SIZE + VIRTIO_HEADER_SIZE + IPV4_HEADER_SIZE + UDP_HEADER_SIZE + TAG_SIZE
    return {size - around for size in sizes.values()}


def sent_to(scene: Scene, node: str, datagrams: Iterable[Datagram]) -> list[Datagram]:
    host = scene.lab.underlay_address(node)
    return [each for each in datagrams if each.destination == (host, DEFAULT_PORT)]


def data_to(scene: Scene, node: str, datagrams: Iterable[Datagram]) -> list[Datagram]:
    return [each for each in sent_to(scene, node, datagrams) if each.payload[0] == TYPE_DATA]


def known(lab: Lab) -> list[Any]:
    """What two nodes know, without what changes by itself."""
    passing = {"age", "seen", "rtt", "loss", "tx_bytes", "rx_bytes", "drops"}
    return [
        {key: value for key, value in row.items() if key not in passing}
        for node in lab.nodes
        for kind in ("nodes", "pods", "routes", "sessions", "blocks")
        for row in lab.get(node.name, kind)
    ]


@contextmanager
def undisturbed(scene: Scene) -> Iterator[None]:
    """Whatever happens meanwhile gets no answer, changes nothing, and pods go on talking."""
    lab = scene.lab
    eventually(lambda: keys_last(lab), within=RENEWED)
    heard, before = len(scene.stranger.heard), known(lab)
    pings = Pings(scene.near, scene.far.address, every=0.02)
    with pings, Wiretap(lab.underlay, "node1") as tap:
        yield
        eventually(lambda: balanced(lab), within=COUNTED)
        pings.go_on()
    assert pings.lost == 0
    assert known(lab) == before
    assert scene.stranger.heard[heard:] == []
    handshakes = [each for each in tap.datagrams if each.payload[:1] < bytes([TYPE_DATA])]
    node1 = lab.underlay_address("node1")
    assert [each for each in handshakes if each.source.host == node1] == []


def settled(lab: Lab, near: Place, far: Place) -> bool:
    """Whether nodes have found out all that they look for on a path that carries packets."""
    reaches(near, far.address)
    sessions = [row for node in lab.nodes for row in lab.get(node.name, "sessions")]
    return all(row["mtu_state"] == "settled" and row["trial"] for row in sessions)


def keys_last(lab: Lab) -> bool:
    """Whether no session will be renewed soon, which would look like an answer to a stranger."""
    now = time.time()
    made = [row["rekeyed"] for node in lab.nodes for row in lab.get(node.name, "sessions")]
    return all(now - datetime.fromisoformat(one).timestamp() < LASTING for one in made)


def balanced(lab: Lab) -> bool:
    ledgers = [lab.ask(node.name, "status")["ledger"] for node in lab.nodes]
    return all(
        ledger["in"] == ledger["out"] + ledger["queued"] + sum(ledger["drops"].values())
        for ledger in ledgers
    )


# -- what can be read ------------------------------------------------------------------------------


def test_what_pods_say_to_each_other_cannot_be_read_in_the_underlay(scene: Scene) -> None:
    near, far = scene.near, scene.far
    song = CANARY * 2000
    with Wiretap(scene.lab.underlay, "node1") as outside, Wiretap(near.netns, "eth0") as inside:
        say(near, far, socket.SOCK_STREAM, song)
        say(near, far, socket.SOCK_DGRAM, song[:1400])
        say(near, far, socket.SOCK_DGRAM, song[:60_000])
    assert sum(frame.count(CANARY) for frame in inside.frames) > 2000, "the tap works"
    assert sum(CANARY[:16] in frame for frame in outside.frames) == 0
    data = data_to(scene, "node2", outside.datagrams)
    assert sum(len(each.payload) for each in data) > len(song)
    assert {each.payload[0] for each in outside.datagrams} == {TYPE_DATA}
    assert {each.source.port for each in outside.datagrams} == {DEFAULT_PORT}


def say(near: Place, far: Place, kind: socket.SocketKind, data: bytes) -> None:
    """Send `data` from one pod to another, where it has to arrive."""
    with opened(far, kind, 4) as receiver, opened(near, kind, 4) as sender:
        receiver.bind((far.address, 0))
        if kind == socket.SOCK_DGRAM:
            sender.sendto(data, receiver.getsockname())
            assert receiver.recv(1 << 16) == data
            return
        receiver.listen()
        sender.connect(receiver.getsockname())
        accepted, _ = receiver.accept()
        with accepted, accepted.makefile("rb") as stream:
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            assert stream.read() == data


# -- what can be sent ------------------------------------------------------------------------------


def test_random_bytes_are_lost_and_counted(scene: Scene, rng: random.Random) -> None:
    noise = [rng.randbytes(size) for size in range(0, 1472, 3)]
    for kind in (TYPE_INITIATION, TYPE_RESPONSE, TYPE_COOKIE_REPLY, TYPE_DATA):
        noise += [bytes([kind]) + rng.randbytes(size) for size in range(0, 1471, 20)]
        noise += [Header(kind).encode() + rng.randbytes(size) for size in range(0, 1400, 20)]
    with undisturbed(scene):
        for node in ("node1", "node2"):
            assert set(scene.attack(node, noise)) == {
                DropReason.TRUNCATED,
                DropReason.UNKNOWN_TYPE,
                DropReason.BAD_HEADER,
                DropReason.UNKNOWN_INDEX,
                DropReason.BAD_HANDSHAKE,
            }


def test_truncated_datagrams_are_lost_and_counted(scene: Scene, fresh: list[bytes]) -> None:
    whole = [each for each in fresh if Header.decode_untrusted(each).last == 0]
    cut = [each[:size] for each in whole for size in range(len(each))]
    hopeless = (HEADER_SIZE + TAG_SIZE) * len(whole)
    with undisturbed(scene):
        lost = scene.attack("node2", cut)
    assert lost == {DropReason.TRUNCATED: hopeless, DropReason.BAD_TAG: len(cut) - hopeless}


def test_a_single_flipped_bit_is_found_wherever_it_is(scene: Scene, fresh: list[bytes]) -> None:
    original = min(fresh, key=len)
    size = len(original)
    with undisturbed(scene):
        lost = scene.attack("node2", [flip(original, bit) for bit in range(8 * size)])
    assert lost[DropReason.UNKNOWN_TYPE] == 8
    # The index, and the lane of the sender: node1 has said nothing of other lanes than 0.
    assert lost[DropReason.UNKNOWN_INDEX] == 32 + 4
    # Place, our lane and the two high bits of `last`; the others ask for segments that never come.
    assert lost[DropReason.BAD_HEADER] >= 14
    assert lost[DropReason.BAD_HEADER] + lost[DropReason.REASSEMBLY_EXPIRED] == 20
    # A changed counter may be that of a burst that did arrive.
    assert lost[DropReason.BAD_TAG] >= 8 * (size - HEADER_SIZE)
    assert lost[DropReason.BAD_TAG] + lost[DropReason.REPLAYED] == 8 * (size - 8)


def flip(datagram: bytes, bit: int) -> bytes:
    changed = bytearray(datagram)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_changed_segment_spoils_its_burst_and_nothing_else(
    scene: Scene, fresh: list[bytes]
) -> None:
    *others, last = (each for each in fresh if Header.decode_untrusted(each).last)
    counter = Header.decode_untrusted(last).counter
    burst = [each for each in others if Header.decode_untrusted(each).counter == counter]
    assert burst
    with undisturbed(scene):
        lost = scene.attack("node2", [*burst, flip(last, 8 * len(last) - 1)])
    assert lost == {DropReason.BAD_TAG: len(burst) + 1}


def test_repeating_all_that_was_ever_sent_achieves_nothing(scene: Scene) -> None:
    kinds = {each.payload[0] for each in scene.seen}
    assert {TYPE_INITIATION, TYPE_RESPONSE, TYPE_DATA} <= kinds
    with undisturbed(scene):
        for node in ("node1", "node2"):
            seen = sent_to(scene, node, scene.seen)
            for lost in (
                scene.attack(node, [each.payload for each in seen]),
                scene.repeat(node, seen),
            ):
                assert lost[DropReason.REPLAYED] > len(seen) / 2
                assert set(lost) <= {
                    DropReason.REPLAYED,
                    DropReason.UNKNOWN_INDEX,
                    DropReason.BAD_HANDSHAKE,
                }


def test_datagrams_for_one_node_mean_nothing_to_another(scene: Scene) -> None:
    payloads = [each.payload for each in sent_to(scene, "node1", scene.seen)]
    with undisturbed(scene):
        lost = scene.attack("node2", payloads)
    assert set(lost) == {DropReason.UNKNOWN_INDEX, DropReason.BAD_HANDSHAKE}


def test_repeated_bursts_do_not_reach_pods_again(scene: Scene) -> None:
    near, far = scene.near, scene.far
    paid = [b"pay %d" % number for number in range(50)]
    with opened(far, DGRAM, 4) as receiver, opened(near, DGRAM, 4) as sender:
        receiver.bind((far.address, PORT))
        sender.connect((far.address, PORT))
        with Wiretap(scene.lab.underlay, "node1") as tap:
            for payment in paid:
                sender.send(payment)
            assert [receiver.recv(64) for _ in paid] == paid
        seen = data_to(scene, "node2", tap.datagrams)
        with undisturbed(scene):
            lost = scene.attack("node2", [each.payload for each in seen])
            lost += scene.repeat("node2", seen)
        assert lost == {DropReason.REPLAYED: 2 * len(seen)}
        sender.send(b"enough")
        assert receiver.recv(64) == b"enough"


def test_the_untouched_originals_would_have_been_taken(scene: Scene, fresh: list[bytes]) -> None:
    """What was altered was why the others were refused. Comes last: it uses the originals up."""
    with opened(scene.far, DGRAM, 4) as receiver:
        receiver.bind((scene.far.address, PORT))
        scene.stranger.send("node2", fresh)
        assert [len(receiver.recv(1 << 16)) for _ in SIZES] == SIZES
    eventually(lambda: reaches(scene.near, scene.far.address), within=COUNTED)
