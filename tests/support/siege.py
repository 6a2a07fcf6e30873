"""A node under attack: an underlay with strangers, floods from there, and a stream to look after.

    node2-pod ===== TCP stream, samples of what arrives ===> node1-pod
                 node2 ---- br0 ---- node1     the target, which founded the cluster
                             |  |
  newcomers: node3 ... ------+  +------ strangers: one address, and a network of 65,536

The strangers have seen everything that was ever sent to node1, know its public key, and read what
comes to their addresses. Their link is shared with nobody, so what arrives there is an answer.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from node.kernel import netns
from node.lab.wiring import BRIDGE
from overlay.session.cookie import MacMaker
from overlay.types import DEFAULT_PORT, Endpoint
from overlay.wire.handshake import Initiation
from overlay.wire.header import TYPE_DATA
from overlay.wire.token import JoinToken
from tests.support import flooder, pump
from tests.support.labs import Place
from tests.support.machines import Machine, Yard, YardMaker
from tests.support.processes import PATIENCE, Background, background, run
from tests.support.stranger import ADDRESS, LINK
from tests.support.traffic import echo_datagrams
from tests.support.waiting import eventually
from tests.support.wiretap import Wiretap

NETWORK = IPv4Address("172.30.0.0")
"""The first of 65,536 addresses of the strangers; a route of node1 leads there."""
PREFIX = 16
TCP_PORT = 5010
MODULES = (sys.executable, "-m")
GARBAGE = 288
"""Bytes of payload in a made-up initiation: as long as a member's."""


@dataclass(frozen=True)
class Flood:
    """What came of one flood.

    Attributes:
        sent: packets; seconds: how long that took; cookies: that were taken and shown.
        began, ended: monotonic seconds.
    """

    sent: int
    seconds: float
    cookies: int
    began: float
    ended: float

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.sent / self.seconds


@dataclass
class Siege:
    """A yard with a cluster of two, a newcomer, and strangers.

    Attributes:
        seen: payloads of all datagrams that node1 was ever sent.
        static: node1's public key.
        strangers: their namespace.
    """

    yard: Yard
    strangers: str
    folder: Path
    near: Place
    far: Place
    seen: list[bytes] = field(repr=False)
    static: bytes = field(repr=False)

    @property
    def target(self) -> Machine:
        """Who is attacked."""
        return self.yard.machines[0]

    @property
    def newcomers(self) -> list[Machine]:
        """Who is no member yet."""
        return self.yard.machines[2:]

    # -- what the strangers do ---------------------------------------------------------------------

    @contextmanager
    def flooding(
        self, packets: Sequence[bytes], *, rate: float, count: int, cookies: bool = False
    ) -> Iterator[Background]:
        """A flood, for the time of a `with` block. `finish` waits for its end."""
        path = self.folder / "packets"
        flooder.write_packets(path, packets)
        words = [str(path), self.target.address, str(rate), str(count)]
        words += [self.static.hex()] * cookies
        module = "tests.support.flooder"
        with background(self.strangers, *MODULES, module, *words) as running:
            assert running.answer(PATIENCE) == {"ready": True}
            yield running

    def flood(self, packets: Sequence[bytes], *, rate: float, count: int) -> Flood:
        """A flood to its end."""
        with self.flooding(packets, rate=rate, count=count) as running:
            return finish(running)

    def from_one(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Packets from the strangers' own address."""
        source, target = Endpoint(ADDRESS, flooder.PORT), self._target
        return [flooder.packet(source, target, payload) for payload in payloads]

    def from_many(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Packets, each from another address of their network."""
        return [
            flooder.packet(Endpoint(str(NETWORK + number + 1), flooder.PORT), self._target, payload)
            for number, payload in enumerate(payloads)
        ]

    @property
    def _target(self) -> Endpoint:
        return Endpoint(self.target.address, DEFAULT_PORT)

    def initiations(self, count: int, rng: random.Random) -> list[bytes]:
        """With a valid mac1, and garbage otherwise."""
        macs = MacMaker(self.static)
        bare = Initiation(9, bytes(32), rng.randbytes(48), rng.randbytes(GARBAGE))
        made = (replace(bare, ephemeral=rng.randbytes(32)).encode() for _ in range(count))
        return [macs.with_macs(datagram, 0.0) for datagram in made]

    def hostile(self, count: int, rng: random.Random) -> list[bytes]:
        """Random, truncated at each length, bit-flipped and replayed datagrams, a quarter each."""
        data = [each for each in self.seen if each[0] == TYPE_DATA]
        whole = [*(each for each in self.seen if each[0] != TYPE_DATA), max(data, key=len)]
        cut = [each[:size] for each in whole for size in range(len(each))]
        rng.shuffle(cut)
        kinds: list[Iterator[bytes]] = [
            _noise(rng),
            cycle(cut),
            (_flipped(rng.choice(self.seen), rng) for _ in cycle([0])),
            (rng.choice(self.seen) for _ in cycle([0])),
        ]
        return list(islice((next(kind) for kind in cycle(kinds)), count))

    # -- what is seen of it ------------------------------------------------------------------------

    @property
    def answers(self) -> int:
        """IPv4 packets that have come to the strangers' link."""
        return _counter(self.strangers, "Ip", "InReceives")

    @property
    def delivered(self) -> int:
        """UDP and ICMP packets that have come to node1's pod; its stream is TCP."""
        udp = sum(_counter(self.near.netns, "Udp", name) for name in ("InDatagrams", "NoPorts"))
        return udp + _counter(self.near.netns, "Icmp", "InMsgs")

    @property
    def drops(self) -> Counter[str]:
        """What node1 has lost so far, by reason."""
        return Counter(self.target.ask("status")["ledger"]["drops"])

    @property
    def rss(self) -> int:
        """Bytes of memory that node1's daemon has."""
        status = Path("/proc", str(self.target.pid), "status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) << 10

    @property
    def cpu(self) -> float:
        """Processor seconds of node1's daemon: of its first thread, which reads the socket."""
        return int(Path("/proc", str(self.target.pid), "schedstat").read_text().split()[0]) / 1e9

    @property
    def overflowed(self) -> int:
        """Datagrams that node1's kernel dropped because the daemon did not read fast enough."""
        return _counter(self.target.netns, "Udp", "RcvbufErrors")

    def settled(self) -> None:
        """Wait until all that was sent to node1 is in its books."""
        was = -1

        def at_rest() -> bool:
            nonlocal was
            ledger = self.target.ask("status")["ledger"]
            now, was = was, sum(ledger["drops"].values())
            balance = ledger["out"] + ledger["queued"] + sum(ledger["drops"].values())
            return now == was and ledger["in"] == balance

        eventually(at_rest, within=PATIENCE, poll=0.3)

    def reports(self, event: str) -> int:
        """How often node1's log says so."""
        return self.target.log.read_text().count(event)

    @contextmanager
    def streaming(self) -> Iterator[Path]:
        """A TCP stream from node2's pod to node1's; the file of samples for `pump.goodput`."""
        samples = self.folder / "samples"
        words = (*MODULES, "tests.support.pump")
        port = str(TCP_PORT)
        with background(self.near.netns, *words, "receive", port, str(samples)) as receiver:
            assert receiver.answer(PATIENCE) == {"ready": True}
            with background(self.far.netns, *words, "send", self.near.address, port):
                eventually(lambda: _samples(samples) > 5, within=PATIENCE)
                yield samples

    def rounds(
        self, packets: Sequence[bytes], *, rate: float, seconds: float, count: int
    ) -> tuple[list[float], list[float]]:
        """Goodput without and with a flood, in turn: bytes a second of each round."""
        quiet, loud = [], []
        with self.streaming() as samples:
            for _ in range(count):
                began = time.monotonic()
                time.sleep(seconds)
                quiet.append((began, time.monotonic()))
                flood = self.flood(packets, rate=rate, count=int(rate * seconds))
                loud.append((flood.began, flood.ended))
            return [pump.goodput(samples, *one) for one in quiet], [
                pump.goodput(samples, *one) for one in loud
            ]


def finish(running: Background, within: float = 600.0) -> Flood:
    """Wait for the end of a flood."""
    done: dict[str, Any] = running.answer(within)
    ended = time.monotonic()
    return Flood(done["sent"], done["seconds"], done["cookies"], ended - done["seconds"], ended)


def ratio(quiet: Sequence[float], loud: Sequence[float]) -> float:
    """Of the medians."""
    return median(loud) / median(quiet)


@contextmanager
def besieged(newcomers: int = 1) -> Iterator[Siege]:
    """A siege with so many who are no members yet, and nothing of it afterwards."""
    with ExitStack() as stack:
        yard = stack.enter_context(YardMaker())(2 + newcomers)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with Wiretap(f"{yard.name}-underlay", "node1") as tap:
            first = yard.found()
            second = yard.join(yard.machines[1])
            for machine in (first, second):
                machine.says("pod", "add", f"{machine.name}-pod")
            near, far = (machine.place(f"{machine.name}-pod") for machine in (first, second))
            eventually(lambda: len(first.get("sessions")) == 1, within=PATIENCE)
            echo_datagrams(far, near, [100, 1472, 20_000])
        to_target = Endpoint(first.address, DEFAULT_PORT)
        seen = [each.payload for each in tap.datagrams if each.destination == to_target]
        token = JoinToken.parse(first.says("token").strip())
        strangers = stack.enter_context(_outside(yard))
        yield Siege(yard, strangers, folder, near, far, seen, token.static)


@contextmanager
def _outside(yard: Yard) -> Iterator[str]:
    """A namespace on the underlay with one address there, and a network behind it."""
    namespace, underlay = f"{yard.name}-strangers", f"{yard.name}-underlay"
    netns.create(namespace)
    try:
        for words in (
            f"link add strangers type veth peer name {LINK} netns {namespace}",
            f"link set strangers master {BRIDGE}",
            "link set strangers up",
        ):
            run(underlay, "ip", *words.split())
        for words in (
            "link set lo up",
            f"addr add {ADDRESS}/24 dev {LINK}",
            f"link set {LINK} up",
            f"route add local {NETWORK}/{PREFIX} dev lo",
        ):
            run(namespace, "ip", *words.split())
        way = f"route add {NETWORK}/{PREFIX} via {ADDRESS}"
        run(yard.machines[0].netns, "ip", *way.split())
        yield namespace
    finally:
        netns.delete(namespace)


def _samples(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def _counter(namespace: str, group: str, name: str) -> int:
    """One of the kernel's counters (RFC 4293, 4113) in a namespace."""
    lines = run(namespace, "cat", "/proc/net/snmp").splitlines()
    names, values = (line.split() for line in lines if line.startswith(f"{group}:"))
    return int(values[names.index(name)])


def _noise(rng: random.Random) -> Iterator[bytes]:
    """Random bytes; every second datagram has a type that there is."""
    while True:
        noise = rng.randbytes(rng.randrange(1472))
        yield noise
        yield bytes([rng.randrange(1, 5)]) + noise[1:]


def _flipped(datagram: bytes, rng: random.Random) -> bytes:
    bit = rng.randrange(8 * len(datagram))
    changed = bytearray(datagram)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
