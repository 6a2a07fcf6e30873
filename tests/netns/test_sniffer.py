"""A sniffer on a real underlay: nothing of what nodes and pods say can be read, nor who they are.

It listens at every port of the underlay's bridge from the first datagram on: while nodes join, pods
talk, and one comes and goes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from node.identity import load_node
from node.journal import read_entries
from node.state import STATE, StateFolder
from overlay.state import NodeState
from overlay.types import DEFAULT_PORT
from overlay.wire.header import TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE
from tests.netns.test_strangers import say
from tests.support.canaries import addresses, pieces, readable
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import PATIENCE
from tests.support.waiting import eventually
from tests.support.wiretap import Wiretap

pytestmark = NEEDS_KERNEL

NODES = 3
CANARY = b"the canary sings at dawn, and nobody in the underlay may hear it; "
POD = "canary-pod"


@dataclass(frozen=True)
class Heard:
    """What passed the underlay, and what inside of a pod."""

    lab: Lab
    frames: list[bytes]
    datagrams: list[bytes]
    inside: list[bytes]
    stored: list[bytes]


@pytest.fixture(scope="module")
def heard(make_module_lab: LabMaker) -> Iterator[Heard]:
    taps: list[Wiretap] = []

    def listen(name: str) -> None:
        for number in range(1, NODES + 1):
            taps.append(Wiretap(f"{name}-underlay", f"node{number}").__enter__())

    try:
        lab = make_module_lab(NODES, 1, wired=listen)
        near, far = lab["node1-pod1"], lab["node2-pod1"]
        stored = long_things(lab)
        with Wiretap(near.netns, "eth0") as inside:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                say(near, far, kind, CANARY * 20)
            say(lab["node3-pod1"], near, socket.SOCK_STREAM, CANARY * 20)
        made = lab.ask("node3", "pod.add", name=POD)
        eventually(
            lambda: POD in {row["name"] for row in lab.get("node1", "pods")}, within=PATIENCE
        )
        stored += long_things(lab)
        lab.ask("node3", "pod.del", name=POD)
        eventually(
            lambda: POD not in {row["name"] for row in lab.get("node1", "pods")}, within=10.0
        )
        stored += long_things(lab)
        for tap in taps:
            tap.stop()
        assert made["name"] == POD
        yield Heard(
            lab,
            [frame for tap in taps for frame in tap.frames],
            [each.payload for tap in taps for each in tap.datagrams],
            inside.frames,
            stored,
        )
    finally:
        for tap in taps:
            tap.stop()


def long_things(lab: Lab) -> list[bytes]:
    """Everything that nodes gossip, and what they are certified by."""
    found = []
    for node in lab.nodes:
        folder = StateFolder(lab.info.state(node.name))
        stored = load_node(folder)
        state = NodeState.from_entries(read_entries(folder.path / STATE.name))
        identity = stored.identity
        found += [item.body for item in state.items]
        found += [stored.psk, stored.cluster.encode(), identity.certificate.encode()]
        found += [identity.node, identity.static.public]
    return found


def named(lab: Lab) -> dict[str, bytes]:
    """Short things: who talks to whom."""
    known = [ip_address(text) for place in (*lab.nodes, *lab.pods) for text in inner(place)]
    found = addresses(known)
    found |= {f"name {place.name}": place.name.encode() for place in (*lab.nodes, *lab.pods)}
    found |= {"the canary": CANARY[:12], "name of the pod that came and went": POD.encode()}
    return found


def inner(place: object) -> list[str]:
    return [text for text in (place.address, place.address6) if text]


def test_the_sniffer_hears_all_there_is(heard: Heard) -> None:
    """Handshakes of members and of those that join, data both ways, and nothing else over UDP."""
    kinds = [datagram[0] for datagram in heard.datagrams]
    assert {TYPE_INITIATION, TYPE_RESPONSE, TYPE_DATA} <= set(kinds)
    assert kinds.count(TYPE_INITIATION) >= 2 * (2 * (NODES - 1)), "two joins, then sessions"
    assert sum(map(len, heard.datagrams)) > 3 * 20 * len(CANARY)
    port = DEFAULT_PORT.to_bytes(2, "big")
    assert any(port in frame[34:38] for frame in heard.frames)


def test_nothing_of_it_can_be_read(heard: Heard) -> None:
    assert set(readable(heard.datagrams, named(heard.lab), pieces(heard.stored))) == set()


def test_nor_in_anything_else_that_passes_the_underlay(heard: Heard) -> None:
    """ARP and the kernel's own: nodes' names and pods' addresses are in none of them."""
    assert set(readable(heard.frames, named(heard.lab), pieces([]))) == set()


def test_the_search_finds_what_can_be_read(heard: Heard) -> None:
    """Inside of a pod all of it passes in the clear; and gossip would be found in gossip."""
    found = set(readable(heard.inside, named(heard.lab), pieces(heard.stored)))
    assert "the canary" in found
    assert any(name.startswith("inner header") for name in found)
    piece = heard.stored[0][40:60]
    leaked = [*heard.datagrams[:50], b"x" * 30 + piece + b"y"]
    assert any(name.startswith("a piece") for name in readable(leaked, {}, pieces(heard.stored)))
