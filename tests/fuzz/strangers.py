"""The receive path of a node, for whoever is no member: nothing may come of it.

    any bytes ------------------------------\
    a handshake with a correct first MAC ----+--> one datagram --> a node that is at rest
    an initiation with anything in it -------/

No exception, no packet for a pod, no state that differs, and no answer but two: a cookie, which is
shorter than what it answers and given under load alone; and to a member's own initiation that comes
again, that it is too old. What waits for the rest of its burst is bounded.
"""

from __future__ import annotations

import random
from functools import cache

from overlay.config import Limits, Settings
from overlay.effects import Effect, SendDatagram
from overlay.session.cookie import MacMaker
from overlay.session.handshake import PROLOGUE
from overlay.session.noise import MUSLIN, Handshake
from overlay.sim import World, udp
from overlay.types import Endpoint
from overlay.wire.handshake import CookieReply, Initiation, JoinerHello, MemberHello, Response
from overlay.wire.header import TYPE_COOKIE_REPLY, TYPE_DATA, TYPE_INITIATION, TYPE_RESPONSE
from overlay.wire.virtio import NO_OFFLOAD
from tests.fuzz.packets import ordinary, super_packets
from tests.fuzz.target import Target
from tests.overlay.test_engine_strangers import passed
from tests.sim.worlds import settled
from tests.support.clusters import static_key
from tests.support.engines import STRANGER, everything

NODE = "node1"
QUIET = 3.0
"""Seconds after which nobody says anything for a while."""
PATIENT = Settings(limits=Limits(handshakes_per_second=1 << 30))
BUSY = Settings(limits=Limits(handshakes_per_second=0))


@cache
def world(*, busy: bool = False) -> World:
    """Three nodes that have talked a while, one for all inputs: none may change it.

    With `busy` the nodes ask everybody for a cookie; otherwise they never do.
    """
    made = settled(3, settings=BUSY if busy else PATIENT)
    for name in made.machines:
        made[name].add_pod(f"{name}-pod")
    made.run(made.now + QUIET)
    first, second = (made[name].snapshot().pods[0].address for name in (NODE, "node2"))
    for payload in (b"x", b"y" * 5_000):
        made.send_packet("node2", udp(second, first, payload))
    made.run(made.now + QUIET / 2)
    return made


def undisturbed(
    datagram: bytes, source: Endpoint, *, busy: bool = False, step: int = 0
) -> list[Effect]:
    """Give a read to the node, and see that nothing comes of it; returns the answers."""
    here = world(busy=busy)
    machine = here[NODE]
    engine, now = machine.engine, here.now
    before, was = everything(engine, now), engine.ledger.view()
    delivered = len(machine.delivered)
    effects = engine.on_datagrams(memoryview(datagram), step, source, now)
    for effect in effects:
        _permitted(effect, datagram, source, busy=busy)
    assert len(effects) <= 1
    assert everything(engine, now) == before, "the state has changed"
    assert len(machine.delivered) == delivered, "a packet came out"
    after = engine.ledger.view()
    lost = sum(after.drops.values()) - sum(was.drops.values())
    assert after.received - was.received == lost + after.queued - was.queued
    engine.parts.inbound.check_invariants()
    engine.parts.inbound.expire(now + 1e6)
    return effects


def _permitted(effect: Effect, datagram: bytes, source: Endpoint, *, busy: bool) -> None:
    assert isinstance(effect, SendDatagram), effect
    assert effect.endpoint == source, "an answer to somebody else"
    assert len(effect.datagram) < len(datagram), "an answer that is larger than the question"
    assert datagram[0] == TYPE_INITIATION
    assert effect.datagram[0] in ({TYPE_COOKIE_REPLY} if busy else {TYPE_RESPONSE})
    if not busy:
        member = any(datagram[16:132] == one[16:132] for one in caught())
        assert member, "a stranger was answered"


# -- targets ---------------------------------------------------------------------------------------


def datagram(data: bytes) -> None:
    """Any bytes: as one datagram and as several, from anywhere. The first byte says how."""
    if not data:
        return
    source = STRANGER if data[0] % 2 else world()["node2"].endpoint
    undisturbed(data[1:], source)
    step = 1 + 4 * data[0]
    if TYPE_INITIATION not in data[1::step]:  # each of those might be answered
        undisturbed(data[1:], source, step=step)


def macked(data: bytes) -> None:
    """A handshake message whose first MAC is right: its sender knows the node's public key."""
    for kind in (TYPE_INITIATION, TYPE_RESPONSE):
        for busy in (False, True):
            static = world(busy=busy)[NODE].membership.identity.static.public
            message = bytes([kind]) + data[1:].ljust(159, b"\0")
            sent = MacMaker(static).with_macs(message + bytes(32), 0.0)
            undisturbed(sent, STRANGER, busy=busy)


def insider(data: bytes) -> None:
    """An initiation that is sound, with anything at all for a hello."""
    static = world()[NODE].membership.identity.static.public
    entropy = random.Random(7).randbytes
    noise = Handshake(
        MUSLIN, static_key(99), prologue=PROLOGUE, remote_static=static, psk=bytes(32)
    )
    message = noise.write(data[:1084], entropy)
    sent = Initiation(5, message[:32], message[32:80], message[80:]).encode()
    assert undisturbed(MacMaker(static).with_macs(sent, 0.0), STRANGER) == []


def answer(data: bytes) -> None:
    """A response, and a cookie, for a handshake that the node waits in; the MAC is right."""
    here, index = _calling()
    machine = here[NODE]
    maker = MacMaker(machine.membership.identity.static.public)
    response = Response(index, 9, data[:32].ljust(32), data[32:76].ljust(16)).encode()
    reply = CookieReply(index, data[:24].ljust(24), data[24:56].ljust(32)).encode()
    for sent in (maker.with_macs(response, 0.0), reply):
        before = everything(machine.engine, here.now)
        source = here["node2"].endpoint
        assert machine.engine.on_datagrams(memoryview(sent), 0, source, here.now) == []
        assert everything(machine.engine, here.now) == before


@cache
def _calling() -> tuple[World, int]:
    """A world whose first node has sent an initiation that nobody answers, and its index."""
    here = settled(2)
    peer = here["node2"]
    sessions = here[NODE].engine.parts.sessions
    effects = sessions.renew(peer.membership.identity.node, peer.endpoint, now=here.now)
    (sent,) = (each.datagram for each in effects if isinstance(each, SendDatagram))
    return here, int.from_bytes(sent[16:20], "big")


def from_pod(data: bytes) -> None:
    """A packet that a pod wrote, or a kernel: it is sent or dropped, and never stops anything."""
    here = world()
    engine = here[NODE].engine
    packets = [NO_OFFLOAD + data, data] if data else []
    before = engine.ledger.view()
    for packet in packets:
        effects = engine.on_packet(packet[:65_585], here.now)
        assert all(isinstance(effect, SendDatagram) for effect in effects)
    engine.ledger.check_invariants()
    engine.outbound.check_invariants()
    after = engine.ledger.view()
    assert after.received - before.received == len(packets)
    here[NODE].delivered.clear()


# -- seeds -----------------------------------------------------------------------------------------


@cache
def caught() -> list[bytes]:
    """What somebody on the path saw: every handshake, some data, some of it for others."""
    here = passed(world(), "node2", NODE)
    elsewhere = passed(world(), "node2", "node3")[-5:] + passed(world(), NODE, "node2")[-5:]
    return [one for one in here if one[0] != TYPE_DATA] + here[-20:] + elsewhere


def _hellos() -> list[bytes]:
    certificate = world()["node2"].membership.identity.certificate
    return [
        MemberHello(1 << 40, certificate.encode(), (1, 2)).encode(),
        MemberHello(1 << 40, bytes(200), (1, 2)).encode(),
        JoinerHello(bytes(16), certificate.node, (2,)).encode(),
    ]


def _initiations() -> list[bytes]:
    return [one[:-32] for one in caught() if one[0] in (TYPE_INITIATION, TYPE_RESPONSE)]


TARGETS = [
    Target("datagram", datagram, lambda: [b"\0" + one for one in caught()], 1500),
    Target("macked", macked, _initiations, 1200),
    Target("insider", insider, _hellos, 1084),
    Target("answer", answer, lambda: [one[20:] for one in caught()[:4]], 100),
    Target("from-pod", from_pod, lambda: [*ordinary(), *super_packets()]),
]
