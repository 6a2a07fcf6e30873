"""What an attacker on the path has recorded in a simulated world, and sends again.

    world ---- trace ----> `caught`: every datagram that ever arrived, in order
      ^                       |
      |                       v  in any order, from any address, to any node
      '---- `replay` ---- nothing delivered, moved, changed; every datagram in the books as a drop

A replay happens between two moments of virtual time, so that all state can be compared with `==`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from overlay.effects import Effect, SendDatagram
from overlay.session.shown import SessionsSnapshot
from overlay.sim import World, udp
from overlay.sim.trace import Passage
from overlay.types import Endpoint
from overlay.views import PodView
from overlay.wire.header import TYPE_INITIATION, TYPE_RESPONSE
from tests.support.engines import engine_of, everything, give

SIZES = (0, 1, 64, 512, 1400, 4000, 20_000)
"""Payloads of packets; the large ones are bursts of several segments."""


class Caught(NamedTuple):
    """A datagram on the wire."""

    source: Endpoint
    target: str
    datagram: bytes


def caught(world: World) -> list[Caught]:
    """Everything that has arrived at a machine until now, in the order in which it was sent."""
    entries = [entry for entry in world.trace._entries if isinstance(entry, Passage)]
    return [
        Caught(endpoint_of(world, one.source), one.destination, one.fate.datagram)
        for one in entries
        if one.fate.arrivals and max(one.fate.arrivals) < world.now
    ]


def endpoint_of(world: World, name: str) -> Endpoint:
    """Of a machine, or of one that had yet to join and has the same address as a member."""
    return world[name].endpoint


def drawn_up(seen: Sequence[Any], order: str, seed: int = 1) -> list[Any]:
    """The same datagrams `in order`, `reversed` or `shuffled`."""
    again = list(seen)
    if order == "reversed":
        again.reverse()
    elif order == "shuffled":
        random.Random(seed).shuffle(again)
    return again


def in_every_order(seen: Sequence[Any]) -> Iterator[list[Any]]:
    """In order, reversed, shuffled."""
    return (drawn_up(seen, order) for order in ("in order", "reversed", "shuffled"))


def chatter(world: World, until: float, *, every: float = 0.25, seed: int = 5) -> int:
    """Packets of all sizes between all pods until then; returns how many."""
    rng, sent = random.Random(f"{seed} {world.now}"), 0
    while world.now < until:
        pods: list[PodView] = list(world["node1"].snapshot().pods)
        near, far = rng.sample(pods, 2)
        payload = rng.randbytes(8) + bytes(rng.choice(SIZES))
        ends = (near.address, far.address) if rng.random() < 0.7 else (near.address6, far.address6)
        world.send_packet(near.node, udp(*ends, payload))
        sent += 1
        world.run(world.now + every * 2 * rng.random())
    return sent


class Before(NamedTuple):
    """What a node was like."""

    state: tuple[object, ...]
    delivered: int
    received: int
    queued: int
    drops: Counter[str]


def look(world: World, name: str) -> Before:
    """All of a node that a replay may not change, and its books."""
    engine = engine_of(world, name)
    ledger = engine.ledger.view()
    return Before(
        everything(engine, world.now),
        len(world[name].delivered),
        ledger.received,
        ledger.queued,
        Counter(ledger.drops),
    )


def play(
    world: World, name: str, seen: Sequence[Caught], source: Endpoint | None
) -> tuple[int, Counter[str]]:
    """Send datagrams again to a node: how many it answered, and what it dropped, by reason.

    Only initiations may be answered, with a response that is smaller, at the same address.

    Args:
        world: they are from.
        name: the node that gets them, whomever they were for.
        seen: the datagrams.
        source: where they seem to come from; None: where each came from before.
    """
    before, effects = look(world, name), list[tuple[bytes, Endpoint, Effect]]()
    for one in seen:
        sender = source or one.source
        effects += [
            (one.datagram, sender, effect) for effect in give(world, name, one.datagram, sender)
        ]
    after = look(world, name)
    assert after.delivered == before.delivered, "something was delivered twice"
    assert all(is_answer(*each) for each in effects), "something was done about it"
    assert after.received - before.received == len(seen)
    engine_of(world, name).ledger.check_invariants()
    engine_of(world, name).parts.sessions.check_invariants()
    return len(effects), after.drops - before.drops


def is_answer(datagram: bytes, sender: Endpoint, effect: Effect) -> bool:
    """Whether it is what an old initiation is answered with: less than it was, to whom it is from.

    Only the maker of the initiation can read it.
    """
    return (
        isinstance(effect, SendDatagram)
        and (datagram[0], effect.datagram[0]) == (TYPE_INITIATION, TYPE_RESPONSE)
        and len(effect.datagram) < len(datagram)
        and effect.endpoint == sender
    )


def replay(
    world: World, name: str, seen: Sequence[Caught], source: Endpoint | None = None
) -> Counter[str]:
    """As `play`, to a node that must not even answer; what it dropped, by reason."""
    before = look(world, name)
    answers, drops = play(world, name, seen, source)
    after = look(world, name)
    assert after.state == before.state, "something has changed"
    assert after.queued == before.queued
    assert drops.total() == len(seen), "something was not refused"
    assert not answers, "something was answered"
    return drops


class Peer(NamedTuple):
    """What of a session must not follow from an old initiation."""

    node: bytes
    endpoint: object
    established: object
    previous: object
    current: object
    attempt: object


def sessions(world: World, name: str) -> dict[bytes, Peer]:
    """By peer, without the half-open keypair; peers without anything are left out."""
    shown: SessionsSnapshot = engine_of(world, name).parts.sessions.snapshot()
    found = [
        Peer(one.node, one.endpoint, one.established_at, *one.keypairs[:2], one.attempt)
        for one in shown.peers
    ]
    return {one.node: one for one in found if any(part is not None for part in one[1:])}


def half_open(world: World, name: str) -> int:
    """How many keypairs wait at a node for somebody to prove that he has them."""
    return len(engine_of(world, name).parts.sessions.snapshot().indexes[2])
