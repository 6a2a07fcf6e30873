"""Engines of a simulated world, and datagrams that are made for them by hand."""

from __future__ import annotations

from overlay.effects import Effect
from overlay.engine import Engine
from overlay.session.transport import Keypair
from overlay.sim import World
from overlay.types import Endpoint, NodeId
from overlay.views import Snapshot
from overlay.wire.burst import TAG_SIZE, BlockKind, block
from overlay.wire.control import encode
from overlay.wire.header import TYPE_DATA, Header
from overlay.wire.messages import Message

STRANGER = Endpoint("203.0.113.9", 999)


def engine_of(world: World, name: str) -> Engine:
    """The engine of a node."""
    return world[name].engine


def node_id(world: World, name: str) -> NodeId:
    """The id of a node."""
    return world[name].membership.identity.node


def drops(world: World, name: str) -> dict[str, int]:
    """What a node has dropped, by reason."""
    return dict(world[name].snapshot().ledger.drops)


def newly_dropped(world: World, name: str, before: dict[str, int]) -> dict[str, int]:
    """The same since `before`; without reasons that did not count on."""
    after = drops(world, name)
    return {
        reason: count - before.get(reason, 0)
        for reason, count in after.items()
        if count != before.get(reason, 0)
    }


def give(world: World, name: str, datagram: bytes, source: Endpoint = STRANGER) -> list[Effect]:
    """One datagram for a node; the effects are not executed."""
    return engine_of(world, name).on_datagrams(memoryview(datagram), 0, source, world.now)


def keypair_of(world: World, name: str, peer: str) -> Keypair:
    """With which a node sends to another at present."""
    keypair = engine_of(world, name).parts.paths[node_id(world, peer)].keypair
    assert keypair is not None
    return keypair


def burst(keypair: Keypair, plaintext: bytes) -> bytes:
    """One datagram with one burst, sealed by hand."""
    header = Header(TYPE_DATA, receiver=keypair.remote_index, counter=keypair.next_counter())
    sealed = bytearray(len(plaintext) + TAG_SIZE)
    keypair.seal_into(header.counter, plaintext, header.associated_data(), sealed)
    return header.encode() + sealed


def control(keypair: Keypair, message: Message | bytes) -> bytes:
    """A burst with one control message."""
    encoded = message if isinstance(message, bytes) else encode(message)
    return burst(keypair, block(BlockKind.CONTROL, encoded))


def everything(engine: Engine, now: float) -> tuple[object, ...]:
    """All state of a node but its counters."""
    parts = engine.parts
    shown = engine.snapshot(now)
    paths = [
        (path.node, path.endpoint, path.keypair, path.path_mtu, path.heard_at, path.rx_bytes)
        for path in parts.paths.values()
    ]
    return (
        [getattr(shown, field) for field in Snapshot.__slots__ if field != "ledger"],
        parts.sessions.snapshot(),
        dict(parts.gossip.snapshot(now)),
        parts.store.items(),
        parts.holdings.stored(parts.record.versions.boot),
        parts.registrar.encode() if parts.registrar else b"",
        parts.registrar.tokens.encode() if parts.registrar else b"",
        parts.peering.next_deadline(),
        parts.gossip.next_deadline(),
        paths,
    )
