"""A pod cannot pass for somebody else, and cannot reach the underlay from inside.

    node1 -- underlay -- node2        the forger is root in node1-pod1 and writes whole frames
    | pod1  pod2         | pod1 pod2

Everything is sent as raw Ethernet frames, so nothing in the pod's kernel corrects it. Each frame
carries a word of its own; taps on every link it could come out of look for that word. The same
taps see the honest packet that ends each test: they work, and everything before it has passed.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from node.kernel import netns
from node.kernel.model import veth_name
from node.kernel.nft import Firewall
from overlay.types import DEFAULT_PORT
from tests.support.labs import Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.traffic import is_answered, opened
from tests.support.waiting import eventually
from tests.support.wiretap import Wiretap

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(Firewall().why == "there is no nft", reason="needs nft"),
]

WITHIN = 20.0
GATEWAY, GATEWAY6 = "169.254.1.1", "fe80::1"
ETH0 = "eth0"
OUTSIDE = {4: "203.0.113.9", 6: "2001:db8::9"}
PORT = 5353

PASSING = re.compile(r"( (REACHABLE|STALE|DELAY|PROBE)|(expires|valid_lft|preferred_lft) \S+| )+$")
"""When a neighbour was last used says nothing about what is believed of it."""

families = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


@dataclass
class Scene:
    """A lab of two nodes, seen from one pod that lies."""

    lab: Lab

    def __post_init__(self) -> None:
        self.forger = self.lab["node1-pod1"]
        self.beside = self.lab["node1-pod2"]
        self.far = self.lab["node2-pod1"]
        self.node = self.lab["node1"]
        self.veth = veth_name(self.forger.name)
        self._words = (b"<canary-%d>" % number for number in itertools.count(1))
        self._wire = netns.run_in(
            self.forger.netns, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0
        )
        self._wire.bind((ETH0, 0))
        is_answered(self.forger, self.node.address)
        self.mac = self._mac(self.forger.netns, ETH0)
        self.gateway = self._mac(self.node.netns, self.veth)

    def close(self) -> None:
        self._wire.close()

    @staticmethod
    def _mac(namespace: str, link: str) -> str:
        (row,) = json.loads(run(namespace, "ip", "-j", "link", "show", "dev", link))
        return str(row["address"])

    def word(self) -> bytes:
        """Something to be recognised by."""
        return next(self._words)

    def send(self, packet: Packet, to: str = "") -> None:
        """Write a frame to the forger's wire."""
        frame = Ether(src=self.mac, dst=to or self.gateway) / packet
        self._wire.send(bytes(frame))

    def dropped(self, counter: str) -> int:
        """What the node says that its filter has dropped."""
        guard = self.lab.ask("node1", "status")["guard"]
        assert guard["by"] == "nft", guard
        return int(guard["drops"].get(counter, 0))

    @contextmanager
    def counting(self, counter: str, count: int) -> Iterator[None]:
        """So many are dropped meanwhile, and no more."""
        before = self.dropped(counter)
        yield
        eventually(lambda: self.dropped(counter) >= before + count, within=WITHIN)
        assert self.dropped(counter) == before + count

    @contextmanager
    def unseen(self, words: Sequence[bytes], family: int) -> Iterator[None]:
        """None of the words comes out anywhere; that of honest packets, sent last, does."""
        with ExitStack() as stack:
            tap = {
                place: stack.enter_context(Wiretap(space, link))
                for place, space, link in self._ways_out()
            }
            yield
            proof = self.word()
            for target in (self.beside, self.far):
                self.send(datagram(self.forger.at(family), target.at(family), proof))
            # The underlay sees it only sealed.
            eventually(
                lambda: all(holds(tap[place], proof) for place in tap if place != "underlay"),
                within=WITHIN,
            )
            seen = {word: [place for place in tap if holds(tap[place], word)] for word in words}
        assert {word: places for word, places in seen.items() if places} == {}

    def _ways_out(self) -> Iterator[tuple[str, str, str]]:
        yield "pod beside", self.beside.netns, ETH0
        yield "far pod", self.far.netns, ETH0
        yield "overlay", self.node.netns, "muslin0"
        yield "underlay", self.lab.underlay, "node1"

    def kernel(self) -> dict[str, list[str]]:
        """What node and pod beside believe of the network."""
        # A pod may tell on its own link where its own end of it is.
        true = f"fe80::2 dev {self.veth} lladdr {self.mac}"
        said = {}
        for place in (self.node, self.beside):
            for words in ("-4 route", "-6 route", "-4 neigh", "-6 neigh", "-o addr"):
                lines = [PASSING.sub("", each) for each in self._ip(place.netns, words)]
                said[f"{place.name}: {words}"] = sorted(line for line in lines if line != true)
        return said

    @staticmethod
    def _ip(namespace: str, words: str) -> list[str]:
        return run(namespace, "ip", *words.split()).splitlines()


def holds(tap: Wiretap, word: bytes) -> bool:
    return any(word in frame for frame in tap.frames)


@pytest.fixture(scope="module")
def scene(make_module_lab: LabMaker) -> Iterator[Scene]:
    made = Scene(make_module_lab(nodes=2, pods=2))
    # All who may legitimately know each other do: what is new afterwards is the forger's work.
    for family in (4, 6):
        for near in (made.forger, made.beside):
            for target in (made.node, made.far, made.lab["node2"]):
                assert is_answered(near, target.at(family))
        assert is_answered(made.node, made.forger.at(family))
        assert is_answered(made.node, made.beside.at(family))
    yield made
    made.close()


def datagram(source: str, target: str, word: bytes, port: int = PORT) -> Packet:
    layer = IPv6 if ":" in source else IP
    return layer(src=source, dst=target) / UDP(sport=PORT, dport=port) / Raw(word)


def forged_sources(scene: Scene, family: int) -> list[str]:
    """Everybody whom the forger might want to be."""
    lies = [
        scene.beside.at(family),
        scene.far.at(family),
        scene.node.at(family),
        scene.lab["node2"].at(family),
        OUTSIDE[family],
    ]
    if family == 4:
        underlay = [scene.lab.underlay_address(node) for node in ("node1", "node2")]
        return [
            *lies,
            *underlay,
            GATEWAY,
            "127.0.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "10.244.255.255",
        ]
    return [*lies, GATEWAY6, "fe80::2", "fe80::3", "::1", f"::ffff:{scene.beside.address}"]


@families
def test_a_forged_source_reaches_nobody_whoever_it_is_of(scene: Scene, family: int) -> None:
    targets = [scene.beside, scene.far, scene.node, scene.lab["node2"]]
    packets = [
        (datagram(source, target.at(family), word := scene.word()), word)
        for source in forged_sources(scene, family)
        for target in targets
    ]

    # The kernel itself refuses loopback, multicast and broadcast as sources, before the filter.
    martian = ("127.", "255.", "224.", "::1", "::ffff")
    counted = sum(not _source(packet).startswith(martian) for packet, _ in packets)
    before = scene.dropped("spoofed")
    with scene.unseen([word for _, word in packets], family):
        for packet, _ in packets:
            scene.send(packet)
    eventually(lambda: scene.dropped("spoofed") >= before + counted, within=WITHIN)
    assert scene.dropped("spoofed") <= before + len(packets)


def _source(packet: Packet) -> str:
    return str(packet.src)


@families
def test_not_with_other_protocols_nor_in_pieces_either(scene: Scene, family: int) -> None:
    lie, target = scene.beside.at(family), scene.far.at(family)
    layer = IPv6 if family == 6 else IP
    head = layer(src=lie, dst=target)
    words = [scene.word() for _ in range(4)]
    packets: list[Any] = [
        head / TCP(sport=PORT, dport=PORT, flags="S") / Raw(words[0]),
        head / (ICMPv6EchoRequest() if family == 6 else ICMP()) / Raw(words[1]),
        layer(src=lie, dst=target, **({"nh": 253} if family == 6 else {"proto": 253}))
        / Raw(words[2]),
    ]
    if family == 4:
        packets.append(
            IP(src=lie, dst=target, flags="MF", frag=0) / UDP(dport=PORT) / Raw(words[3])
        )

    with scene.counting("spoofed", len(packets)), scene.unseen(words, family):
        for packet in packets:
            scene.send(packet)


def test_arp_cannot_speak_for_others_and_changes_no_table(scene: Scene) -> None:
    lies = [scene.beside.address, scene.far.address, scene.node.address, GATEWAY, OUTSIDE[4]]
    lies.append(scene.lab.underlay_address("node2"))
    before = scene.kernel()
    messages = [
        ARP(op=op, hwsrc=scene.mac, psrc=lie, hwdst=scene.gateway, pdst=target)
        for lie in lies
        for op in (1, 2)
        for target in (GATEWAY, lie, scene.node.address)
    ]
    with scene.counting("spoofed", 2 * len(messages)):
        for message in messages:
            scene.send(message)
            scene.send(message, to="ff:ff:ff:ff:ff:ff")
    assert scene.kernel() == before
    assert is_answered(scene.beside, scene.far.address)


def test_a_flood_of_arp_and_of_solicitations_does_not_fill_the_neighbour_table(
    scene: Scene,
) -> None:
    before = scene.kernel()
    everyone = "ff:ff:ff:ff:ff:ff"
    with scene.counting("spoofed", 1000):
        for number in range(500):
            claimed = f"172.20.{number // 250}.{number % 250 + 1}"
            scene.send(ARP(op=1, hwsrc=scene.mac, psrc=claimed, pdst=GATEWAY), to=everyone)
            source = f"fe80::1:{number:x}"
            ask = IPv6(src=source, dst=GATEWAY6) / ICMPv6ND_NS(tgt=GATEWAY6)
            scene.send(ask / ICMPv6NDOptSrcLLAddr(lladdr=scene.mac))
    assert scene.kernel() == before


def test_neighbour_discovery_cannot_speak_for_others(scene: Scene) -> None:
    before = scene.kernel()
    option = ICMPv6NDOptDstLLAddr(lladdr=scene.mac)
    lies = [scene.beside.address6, scene.far.address6, scene.node.address6, GATEWAY6, OUTSIDE[6]]
    for lie in lies:
        for source in (lie, scene.forger.address6, "fe80::2"):
            for target in (GATEWAY6, "ff02::1", scene.node.address6, scene.beside.address6):
                claim = ICMPv6ND_NA(tgt=lie, R=1, S=target != "ff02::1", O=1)
                scene.send(IPv6(src=source, dst=target, hlim=255) / claim / option)
    assert is_answered(scene.beside, scene.far.address6), "and everything before it has passed"
    assert is_answered(scene.forger, scene.node.address6)
    assert scene.kernel() == before


def test_advertisements_and_redirects_are_not_believed(scene: Scene) -> None:
    before = scene.kernel()
    prefix = ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64, L=1, A=1)
    ours = scene.forger.address6
    for source in (GATEWAY6, "fe80::2", "fe80::bad", ours):
        for target in ("ff02::1", GATEWAY6, scene.node.address6, scene.beside.address6):
            head = IPv6(src=source, dst=target, hlim=255)
            advertised = ICMPv6ND_RA(routerlifetime=9000, prf=1) / prefix
            scene.send(head / advertised / ICMPv6NDOptSrcLLAddr(lladdr=scene.mac))
            better = ICMPv6ND_Redirect(tgt="fe80::2", dst=scene.far.address6)
            scene.send(head / better / ICMPv6NDOptDstLLAddr(lladdr=scene.mac))
    inner = IP(src=scene.node.address, dst=scene.far.address) / UDP()
    for source in (GATEWAY, scene.node.address, scene.forger.address):
        for target in (scene.node, scene.beside):
            better = ICMP(type=5, code=1, gw=scene.forger.address)
            scene.send(IP(src=source, dst=target.address) / better / inner)
    assert is_answered(scene.beside, scene.far.address6), "and everything before it has passed"
    assert is_answered(scene.forger, scene.node.address)
    assert scene.kernel() == before


def test_nobody_hears_a_dhcp_server_in_a_pod(scene: Scene) -> None:
    everyone = "ff:ff:ff:ff:ff:ff"
    offer = BOOTP(op=2, yiaddr="10.9.9.9", siaddr=scene.forger.address, xid=7) / DHCP(
        options=[("message-type", "offer"), ("router", scene.forger.address), "end"]
    )
    with opened(scene.node, socket.SOCK_DGRAM, 4) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("", 68))
        sources = ("0.0.0.0", GATEWAY, scene.node.address, scene.beside.address)
        words = [scene.word() for _ in sources]
        with scene.counting("spoofed", len(sources)):
            for source, word in zip(sources, words, strict=True):
                head = IP(src=source, dst="255.255.255.255") / UDP(sport=67, dport=68)
                scene.send(head / offer / Raw(word), to=everyone)
        scene.send(datagram(scene.forger.address, scene.node.address, b"honest", port=68))
        assert client.recv(2048) == b"honest"


@families
def test_the_underlays_port_cannot_be_reached_from_inside(scene: Scene, family: int) -> None:
    lab, near = scene.lab, scene.forger.at(family)
    before = {node: received(lab, node) for node in ("node1", "node2")}
    targets = [scene.node.at(family)]
    if family == 4:
        targets += [lab.underlay_address("node1"), GATEWAY]
    with scene.counting("underlay", 2 * len(targets)):
        for target in targets:
            for kind in (1, 4):
                message = bytes([kind]) + bytes(15) + scene.word()
                scene.send(datagram(near, target, message, port=DEFAULT_PORT))
    assert received(lab, "node1") == before["node1"]
    # Through the overlay, to the pod-network address of the other node.
    far = lab["node2"]
    said = lab.ask("node2", "status")["guard"]["drops"].get("underlay", 0)
    scene.send(datagram(near, far.at(family), b"\x01" + bytes(200), port=DEFAULT_PORT))
    eventually(
        lambda: lab.ask("node2", "status")["guard"]["drops"].get("underlay", 0) == said + 1,
        within=WITHIN,
    )
    assert received(lab, "node2") == before["node2"]
    # It is the port of the node that is closed, not the number.
    with opened(scene.far, socket.SOCK_DGRAM, family) as receiver:
        receiver.bind((scene.far.at(family), DEFAULT_PORT))
        scene.send(datagram(near, scene.far.at(family), b"honest", port=DEFAULT_PORT))
        assert receiver.recv(64) == b"honest"


def received(lab: Lab, node: str) -> dict[str, int]:
    """What the daemon lost of what came to its underlay port and made no sense."""
    drops = lab.drops(node)
    senseless = ("truncated", "unknown_type", "bad_handshake", "overlay_source", "unknown_index")
    return {reason: drops[reason] for reason in senseless}


def test_rules_that_somebody_flushed_come_back_by_themselves(scene: Scene) -> None:
    def flush() -> None:
        subprocess.run(["nft", "flush", "ruleset"], check=True)

    netns.run_in(scene.node.netns, flush)

    def lie_is_dropped() -> bool:
        before = scene.dropped("spoofed")
        scene.send(datagram(scene.beside.address, scene.node.address, b"lie"))
        return scene.dropped("spoofed") == before + 1

    eventually(lie_is_dropped, within=WITHIN)
    assert is_answered(scene.forger, scene.far.address)
