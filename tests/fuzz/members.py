"""The receive path of a node behind a session: a member says anything at all.

It may lie, and what it says of itself may be taken. But no exception comes of it, no invariant of
the node or of the cluster breaks, the books balance, and what the node holds stays within its
limits. Each input is given to a fresh world, so that it alone is what made the defect; it may be
several messages, one after the other.
"""

from __future__ import annotations

from overlay.catalog.records import sign_record
from overlay.session.transport import Keypair
from overlay.sim import World, udp
from overlay.types import Endpoint
from overlay.wire.burst import BlockKind, block
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta
from overlay.wire.virtio import NO_OFFLOAD
from tests.fuzz.packets import super_packets
from tests.fuzz.target import Target, framed, frames
from tests.overlay.test_engine import burst
from tests.overlay.test_joining import HERE, MEMBER, Member, joiner_of
from tests.overlay.wire.test_control import GOLDEN
from tests.sim.worlds import settled

NODE, LIAR = "node1", "node2"
MOST = 6
"""Messages of one input."""
SECONDS = 0.4
"""Between two of them: answers come, and some deadlines."""
MOST_EFFECTS = 64
"""Of one message: its sender must not make the node talk to everybody."""


def _world() -> World:
    made = settled(2, seed=3)
    made.inspector.distrust(LIAR)
    made.inspector.excuse(made[LIAR].membership.identity.node)
    made[NODE].add_pod("web")
    made[LIAR].add_pod("db")
    made.run(made.now + 1.0)
    _lies(made)  # the judge must have seen what is signed
    return made


def _lies(made: World) -> list[Item]:
    """A later record of the liar's own, and its tombstone."""
    identity = made[LIAR].membership.identity
    later = sign_record(identity, version=9 << 32, software="x")
    return [later, sign_record(identity, version=10 << 32, left=True)]


def _keypair(made: World) -> Keypair | None:
    path = made[LIAR].engine.parts.paths.get(made[NODE].membership.identity.node)
    return None if path is None else path.keypair


def hear(messages: list[bytes], source: Endpoint | None = None) -> World:
    """Give plaintexts of bursts to the node, sealed by the liar, while the world goes on."""
    made = _world()
    for plaintext in messages:
        keypair = _keypair(made)
        if keypair is None or not made[NODE].live:
            made.run(made.now + 2 * SECONDS)
            continue
        sealed = burst(keypair, plaintext)
        machine = made[NODE]
        sender = source or made[LIAR].endpoint
        effects = machine.engine.on_datagrams(memoryview(sealed), 0, sender, made.now)
        assert len(effects) <= MOST_EFFECTS, f"{len(effects)} effects of one message"
        machine.perform(effects)
        made.run(made.now + SECONDS)
        _sound(made)
    made.run(made.now + 2.0)
    _sound(made)
    return made


def _sound(made: World) -> None:
    made.check_invariants()
    machine = made[NODE]
    if not machine.live:
        return
    engine = machine.engine
    engine.ledger.check_invariants()
    engine.outbound.check_invariants()
    engine.parts.inbound.check_invariants()
    items = engine.parts.store.items()
    assert len(items) <= MOST_ITEMS, f"{len(items)} items"
    assert sum(len(item.body) for item in items) <= MOST_BYTES


MOST_ITEMS, MOST_BYTES = 300, 100_000
"""Two records and a deed or two, and what a member may add in some seconds: its own alone."""


def plaintext(data: bytes) -> None:
    """The whole plaintext of a burst."""
    hear([data])


def control(data: bytes) -> None:
    """Control messages, each alone in a burst."""
    hear([block(BlockKind.CONTROL, message) for message in frames(data, MOST)])


def packet(data: bytes) -> None:
    """A packet from a peer: it is delivered only if it is from the peer's pods to one of ours."""
    made = hear([block(BlockKind.OFFLOADED, data), block(BlockKind.PACKET, data)])
    ours, theirs = (made[name].snapshot().own_prefixes for name in (NODE, LIAR))
    for delivered in made[NODE].delivered:
        if delivered[0] >> 4 == 4:
            ends = delivered[12:16], delivered[16:20]
        else:
            ends = delivered[8:24], delivered[24:40]
        for end, prefixes in zip(ends, (theirs, ours), strict=True):
            number = int.from_bytes(end, "big")
            inside = [
                one.version == (4 if len(end) == 4 else 6)
                and number >> (one.max_prefixlen - one.prefixlen)
                == int(one.network_address) >> (one.max_prefixlen - one.prefixlen)
                for one in prefixes
            ]
            assert any(inside), f"delivered a packet of {ends}"


def joiner(data: bytes) -> None:
    """What a process that wants to join hears: from strangers, and from the member it asked."""
    member = Member()
    token = member.mint()
    one = joiner_of(token)
    (first,) = one.start(0.0)
    state = one.snapshot()
    for message in frames(data, MOST):
        assert one.on_datagram_untrusted(message, HERE, 0.1) == []
    assert one.snapshot() == state, "a stranger changed a join"
    (response,) = member.on_datagram(first.datagram, HERE, 0.1)
    one.on_datagram_untrusted(response, MEMBER, 0.2)
    (keypair,) = member.sessions.keypairs.values()
    for message in frames(data, MOST):
        for inside in (message, block(BlockKind.CONTROL, message)):
            assert one.on_datagram_untrusted(burst(keypair, inside), MEMBER, 0.3) == []
    assert one.outcome is None, "joined by something that nobody signed"
    one.on_deadline(1.0)


# -- seeds -----------------------------------------------------------------------------------------


def _messages() -> list[bytes]:
    return [bytes.fromhex(packed) for _, packed in GOLDEN]


def _deltas() -> list[bytes]:
    """Items that the node knows, and the liar's own."""
    made = _world()
    items, lies = made[LIAR].engine.parts.store.items(), _lies(made)
    said = (items, lies[:1], lies[1:], [*lies, *items])
    return [encode(Delta(tuple(some))) for some in said]


def _inner() -> list[bytes]:
    made = _world()
    db, web = (made[name].snapshot().pods[0].address for name in (LIAR, NODE))
    return [NO_OFFLOAD + udp(db, web, b"hello"), udp(db, web, b"hello"), *super_packets()]


def _plaintexts() -> list[bytes]:
    kinds = [BlockKind.CONTROL, BlockKind.PACKET, BlockKind.OFFLOADED]
    mixed = b"".join(block(kind, one) for kind in kinds for one in _inner()[:2])
    return [mixed, block(BlockKind.CONTROL, _messages()[0]) * 3, b"\0\0\3", b""]


def _controls() -> list[bytes]:
    singles = [framed(one) for one in (*_messages(), *_deltas())]
    return [*singles, framed(*_messages()[:MOST]), framed(*_deltas())]


TARGETS = [
    Target("plaintext", plaintext, _plaintexts),
    Target("member-control", control, _controls),
    Target("member-packet", packet, _inner),
    Target("joiner", joiner, _controls),
]
