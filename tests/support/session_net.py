"""Nodes that have sessions and nothing else, on virtual time over a bad network.

    node.send(other, b"...")        seals one burst if there is a keypair
    network.run(until)              delivers datagrams and calls deadlines in order of time

The network loses, duplicates and delays (hence reorders) datagrams by a seeded generator. A node
does what an engine must: it opens bursts, confirms keypairs, and sends something at SessionUp.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count

import pytest

from overlay.catalog.reader import Reader
from overlay.catalog.trust import Trust
from overlay.config import Limits, Settings, Timing
from overlay.effects import Effect, SendDatagram, SessionDown, SessionUp
from overlay.errors import AuthError, WireError
from overlay.session import heirs
from overlay.session.handshake import AnsweredError
from overlay.session.joiner import JoinSession
from overlay.session.sessions import Sessions
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId
from overlay.wall import Wall
from overlay.wire.certificate import Certificate
from overlay.wire.handshake import JoinerHello
from overlay.wire.header import HEADER_SIZE, TYPE_DATA, Header
from overlay.wire.packing import pack, unpack_untrusted
from tests.support.clusters import WALL, make_cluster, make_identity, signing_key, static_key

PSK = b"\x05" * 32
TOKEN, SECRET = b"t" * 16, b"s" * 32
PROBE = b"probe"
"""What a node says first under a new keypair."""
STRANGER = Endpoint("203.0.113.9", 999)
CLUSTER = make_cluster()
READER = Reader(CLUSTER, Limits())


def read_certificate(data: bytes) -> Certificate:
    """As a member of a cluster with one authority does."""
    certificate = READER.certificate(data)
    Trust.founded(CLUSTER).check_issuer(certificate)
    return certificate


@dataclass
class Link:
    """What happens to each datagram."""

    loss: float = 0.0
    duplicates: float = 0.0
    delay: tuple[float, float] = (0.01, 0.01)


PERFECT = Link()
TERRIBLE = Link(loss=0.3, duplicates=0.2, delay=(0.01, 1.5))


class Node:
    """One node: sessions, what they wanted, and what arrived.

    Attributes:
        effects: all that the sessions wanted.
        received: who sent each burst, and what was in it.
        taken: the datagrams that were not refused.
        refused: why the others were.
    """

    def __init__(self, network: Network, number: int, *, boot: int = 1, **changes: object) -> None:
        self.network = network
        self.endpoint = Endpoint(f"192.0.2.{number}", 6875)
        generator = random.Random(f"{network.seed} {number} {boot}")
        arguments: dict[str, object] = {
            "identity": make_identity(number, CLUSTER),
            "psk": PSK,
            "boot": boot,
            "settings": network.settings,
            "wall": Wall(WALL),
            "entropy": generator.randbytes,
            "rng": generator,
            "token_secret": lambda token_id: None,
            "read_certificate": read_certificate,
        }
        self.identity = arguments["identity"]
        self.id: NodeId = self.identity.node
        self._arguments = {**arguments, **changes}
        self.sessions = Sessions(**self._arguments)
        self.effects: list[Effect] = []
        self.received: list[tuple[NodeId | None, bytes]] = []
        self.taken: set[bytes] = set()
        self.refused: list[Exception] = []

    def hand_over(self) -> Sessions:
        """Another process takes over, as an engine's does; returns the sessions of the old one."""
        old, now = self.sessions, self.network.now
        data = pack(heirs.ALL.write(old))
        heirs.spend(old)
        self.sessions = Sessions(**self._arguments)
        handed = heirs.ALL.read(unpack_untrusted(data, len(data)))
        for node in heirs.take_over(self.sessions, handed):
            endpoint = self.sessions.peers[node].endpoint
            self.act(self.sessions.renew(node, endpoint, now))
        self.sessions.check_invariants()
        return old

    def knows(self, *others: Node) -> None:
        for other in others:
            self.sessions.introduce(other.id, other.identity.static.public)

    def connect(self, other: Node) -> None:
        self.act(self.sessions.connect(other.id, other.endpoint, self.network.now))

    def send(self, other: Node, payload: bytes) -> bool:
        """Whether there was a keypair to seal the burst with."""
        keypair = self.sessions.sending_keypair(other.id, self.network.now)
        if keypair is not None:
            self.network.send(self, other.endpoint, sealed(keypair, payload))
        return keypair is not None

    def act(self, effects: list[Effect]) -> None:
        self.effects += effects
        for effect in effects:
            match effect:
                case SendDatagram(endpoint, datagram):
                    self.network.send(self, endpoint, datagram)
                case SessionUp(node, endpoint):
                    keypair = self.sessions.sending_keypair(node, self.network.now)
                    assert keypair is not None
                    self.network.send(self, endpoint, sealed(keypair, PROBE))

    def on_datagram(self, datagram: bytes, source: Endpoint) -> None:
        now = self.network.now
        if datagram[0] == TYPE_DATA:
            self.on_burst(datagram, source)
            return
        try:
            self.act(self.sessions.on_handshake_untrusted(datagram, source, now))
            self.taken.add(datagram)
        except (AuthError, WireError) as error:
            self.refused.append(error)
            if isinstance(error, AnsweredError):
                self.network.send(self, source, error.answer)

    def on_burst(self, datagram: bytes, source: Endpoint) -> None:
        header = Header.decode_untrusted(datagram)
        if header.fault() is not None:
            return  # the one thing that the tag does not cover is which segment this is
        keypair = self.sessions.keypairs.get(header.receiver)
        if keypair is None or not keypair.usable(self.network.now):
            return
        if not keypair.replay.check(header.counter):
            return
        self.received.append((keypair.node, opened(keypair, datagram)))
        assert keypair.replay.accept(header.counter)
        self.taken.add(datagram)
        if not keypair.confirmed:
            self.act(self.sessions.on_opened(keypair, source, self.network.now))

    def ups(self, other: Node) -> int:
        return sum(isinstance(e, SessionUp) and e.node == other.id for e in self.effects)

    def downs(self) -> list[str]:
        return [e.why for e in self.effects if isinstance(e, SessionDown)]


@dataclass
class Network:
    """Everything between the nodes, and the clock."""

    seed: int = 0
    link: Link = field(default_factory=Link)
    settings: Settings = field(default_factory=Settings)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.nodes: dict[Endpoint, Node] = {}
        self.sent: list[tuple[Endpoint, Endpoint, bytes]] = []
        self._order = count()
        self._flying: list[tuple[float, int, Endpoint, Endpoint, bytes]] = []

    def add(self, number: int, **changes: object) -> Node:
        """A node; one with the same number before it has crashed."""
        node = Node(self, number, **changes)
        self.nodes[node.endpoint] = node
        return node

    def send(self, sender: Node, target: Endpoint, datagram: bytes) -> None:
        self.sent.append((sender.endpoint, target, datagram))
        copies = 1 + (self.rng.random() < self.link.duplicates)
        for _ in range(copies):
            if self.rng.random() >= self.link.loss:
                at = self.now + self.rng.uniform(*self.link.delay)
                flight = (at, next(self._order), sender.endpoint, target, datagram)
                heapq.heappush(self._flying, flight)

    def run(self, until: float) -> None:
        """Let time pass, checking invariants at each step."""
        while (at := self._next_event()) is not None and at <= until:
            self.now = max(self.now, at)
            while self._flying and self._flying[0][0] <= self.now:
                _, _, source, target, datagram = heapq.heappop(self._flying)
                if target in self.nodes:
                    self.nodes[target].on_datagram(datagram, source)
            for node in self.nodes.values():
                due = node.sessions.next_deadline()
                if due is not None and due <= self.now:
                    node.act(node.sessions.on_deadline(self.now))
                    after = node.sessions.next_deadline()
                    assert after is None or after > self.now, "a deadline that is never met"
                node.sessions.check_invariants()
        self.now = until

    def _next_event(self) -> float | None:
        times = [flight[0] for flight in self._flying[:1]]
        deadlines = (node.sessions.next_deadline() for node in self.nodes.values())
        return min((at for at in (*times, *deadlines) if at is not None), default=None)


def sealed(keypair: Keypair, payload: bytes) -> bytes:
    """One burst as one datagram."""
    counter = keypair.next_counter()
    header = Header(TYPE_DATA, receiver=keypair.remote_index, counter=counter)
    out = bytearray(len(payload) + 16)
    keypair.seal_into(counter, payload, header.associated_data(), out)
    return header.encode() + out


def opened(keypair: Keypair, datagram: bytes) -> bytes:
    """The payload of such a datagram."""
    header, ciphertext = Header.decode_untrusted(datagram), datagram[HEADER_SIZE:]
    out = bytearray(len(ciphertext) - 16)
    keypair.open_into(header.counter, ciphertext, header.associated_data(), out)
    return bytes(out)


# -- scenes --------------------------------------------------------------------------------------


def two(**options: object) -> tuple[Network, Node, Node]:
    """Two nodes that know each other."""
    network = Network(**options)
    a, b = network.add(1), network.add(2)
    a.knows(b)
    b.knows(a)
    return network, a, b


def up(a: Node, b: Node) -> bool:
    """Whether both can seal for each other."""
    now = a.network.now
    return all(x.sessions.sending_keypair(y.id, now) for x, y in ((a, b), (b, a)))


def initiation(a: Node, b: Node) -> bytes:
    """An initiation of `a` to `b`, not delivered."""
    [effect] = a.sessions.connect(b.id, b.endpoint, a.network.now)
    assert isinstance(effect, SendDatagram)
    return effect.datagram


def refuse(node: Node, datagram: bytes) -> AuthError | WireError:
    """Check that `node` refuses `datagram`, does not answer, and stays as it was."""
    before = node.sessions.snapshot()
    with pytest.raises((AuthError, WireError)) as refusal:
        node.sessions.on_handshake_untrusted(datagram, STRANGER, node.network.now)
    assert node.sessions.snapshot() == before
    node.sessions.check_invariants()
    return refusal.value


def join_session(
    *, token: bytes = TOKEN, secret: bytes = SECRET, suites: tuple[int, ...] = (1, 2), seed: int = 0
) -> JoinSession:
    """The joining side, with node 2 as the member."""
    member = make_identity(2, CLUSTER)
    return JoinSession(
        static=static_key(50),
        hello=JoinerHello(token, signing_key(50).public, suites),
        secret=secret,
        member=member.node,
        member_static=member.static.public,
        timing=Timing(),
        entropy=random.Random(seed).randbytes,
    )
