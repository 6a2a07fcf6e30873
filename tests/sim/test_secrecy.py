"""Proofs: what nodes and pods say to each other cannot be read on the way, and who they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from overlay.session import transport
from overlay.session.noise import CipherState
from overlay.sim import World, udp
from overlay.wire.handshake import TAG_SIZE
from tests.support.canaries import addresses, pieces, readable

CANARY = b"the canary sings at dawn, and nobody in the underlay may hear it"


class _NoCipher:
    """An AEAD that seals nothing."""

    def encrypt_into(self, _: bytes, plain: bytes, __: bytes, out: bytearray) -> int:
        out[: len(plain)] = plain
        out[len(plain) : len(plain) + TAG_SIZE] = bytes(TAG_SIZE)
        return len(plain) + TAG_SIZE

    def decrypt_into(self, _: bytes, sealed: bytes, __: bytes, out: bytearray) -> int:
        out[: len(sealed) - TAG_SIZE] = sealed[:-TAG_SIZE]
        return len(sealed) - TAG_SIZE


def heard() -> tuple[set[str], World]:
    """What a sniffer reads while nodes join, pods come, talk and go, and a node leaves."""
    world = World(7)
    for name in ("walnut", "hazel", "almond"):
        assert world.join(name) is not None
        world.run(world.now + 3.0)
    world.run_until(world.converged, timeout=30.0)
    pods = {name: world[name].add_pod(f"{name}-canary-pod") for name in world.machines}
    world.run(world.now + 2.0)
    for source in pods.values():
        for target in pods.values():
            for near, far in ((source.address, target.address), (source.address6, target.address6)):
                if near is not None and far is not None and near != far:
                    sender = next(name for name, pod in pods.items() if pod is source)
                    world.send_packet(sender, udp(near, far, CANARY * 40))
    world.run(world.now + 1.0)
    assert sum(packet.count(CANARY) for each in world.live() for packet in each.delivered) > 400
    named = addresses(
        address for pod in pods.values() for address in (pod.address, pod.address6) if address
    )
    stored = [item for name in world.machines for item in world[name].engine.parts.store.items()]
    world["almond"].remove_pod("almond-canary-pod")
    world["hazel"].leave()
    world.run(world.now + 3.0)
    stored += [item for each in world.live() for item in each.engine.parts.store.items()]
    members = [machine.membership for machine in world.machines.values()]
    long = [CANARY, *(item.body for item in stored), members[0].psk, members[0].cluster.encode()]
    for member in members:
        identity = member.identity
        long += [identity.certificate.encode(), identity.node, identity.static.public]
    named |= {f"node {name}": name.encode() for name in ("walnut", "hazel", "almond")}
    named["a pod's name"] = b"canary-pod"
    return set(readable(world.trace.datagrams(), named, pieces(long))), world


def test_a_sniffer_reads_nothing_of_who_talks_and_about_what() -> None:
    found, world = heard()
    assert found == set()
    assert len(world.trace.datagrams()) > 300


def _plain_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "make_aead", lambda *_: _NoCipher())


def _plain_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    def encrypt(self: CipherState, _: bytes, plain: bytes) -> tuple[CipherState, bytes]:
        return self, plain + bytes(TAG_SIZE)

    def decrypt(self: CipherState, _: bytes, sealed: bytes) -> tuple[CipherState, bytes]:
        return self, sealed[:-TAG_SIZE]

    monkeypatch.setattr(CipherState, "encrypt", encrypt)
    monkeypatch.setattr(CipherState, "decrypt", decrypt)


@pytest.mark.parametrize(
    ("disable", "expected"),
    [
        (_plain_bursts, {"inner header", "a pod's name", "node hazel", "a piece"}),
        (_plain_handshakes, {"node hazel", "a piece"}),
    ],
)
def test_without_a_cipher_the_sniffer_reads_it(
    disable: Callable[[pytest.MonkeyPatch], None],
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disable(monkeypatch)
    found, _ = heard()
    for what in expected:
        assert any(name.startswith(what) for name in found), what
