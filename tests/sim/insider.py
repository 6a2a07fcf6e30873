"""A member that lies, and a world in which somebody else's traffic flows all the time.

node3's pod <---- a packet each way, twenty times a second ----> node2's pod
mallory: a member like the others, whose lies are told by hand; node2 is its victim
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.sim import udp
from overlay.sim.hostile import NAME
from overlay.sim.machine import Machine
from overlay.types import Address, NodeId
from overlay.wire.burst import BlockKind, block
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta, Message
from tests.sim.worlds import settled

VICTIM, TOLD, BYSTANDER = "node2", "node3", "node1"
EVERY = 0.05
"""Seconds between two packets of the stream."""


class Insider:
    """The world, the lying member, and the stream that must not notice.

    Args:
        seed: of the world.
        nodes: honest ones, at least three.
    """

    def __init__(self, seed: int = 1, nodes: int = 3, **settings: object) -> None:
        self.world = settled(nodes, seed=seed, **settings)
        self.world.inspector.distrust(NAME)
        self.machine: Machine = self.world.add_node(NAME)
        self.world.inspector.excuse(self.machine.membership.identity.node)
        self.world.run_until(self.world.converged, timeout=30.0)
        self.pods: dict[str, Address] = {}
        for name in (VICTIM, TOLD, NAME):
            self.pods[name] = self.world[name].add_pod("web").address
        self.sent: dict[str, list[bytes]] = {VICTIM: [], TOLD: []}
        self.world.run(self.world.now + 3.0)
        self.world.every(EVERY, self._send)
        self.world.run(self.world.now + 1.0)

    def _send(self) -> None:
        for source, target in ((VICTIM, TOLD), (TOLD, VICTIM)):
            if not self.world[source].live or not self.world[target].live:
                continue
            payload = b"stream %d" % len(self.sent[target])
            packet = udp(self.pods[source], self.pods[target], payload)
            self.sent[target].append(packet)
            self.world.send_packet(source, packet)

    def lost(self) -> int:
        """Packets of the stream that did not arrive, but for those that are on their way."""
        self.world.run(self.world.now + 0.2)
        missing = 0
        for name, packets in self.sent.items():
            settled_packets = packets[:-5]
            arrived = set(self.world[name].delivered)
            missing += sum(packet not in arrived for packet in settled_packets)
        return missing

    # -- who is who --------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.world.now

    def node(self, name: str) -> NodeId:
        return self.world[name].membership.identity.node

    def honest(self) -> Iterable[Machine]:
        return [machine for machine in self.world.live() if machine.name != NAME]

    # -- what it does ------------------------------------------------------------------------------

    def say(self, message: Message | bytes, *targets: str) -> None:
        """Say something to members; to `TOLD` unless it is said to whom."""
        data = message if isinstance(message, bytes) else encode(message)
        for name in targets or (TOLD,):
            self.machine.perform(self.machine.engine.say(self.node(name), data, self.machine.now))

    def tell(self, *items: Item, to: Iterable[str] = (TOLD,)) -> None:
        """Send items to members."""
        self.say(Delta(tuple(items)), *to)

    def burst(self, plaintext: bytes, target: str = TOLD) -> None:
        """Send an authentic burst with any plaintext."""
        engine = self.machine.engine
        path = engine.parts.paths[self.node(target)]
        assert path.keypair is not None
        engine.outbound._sealer.seal(path, path.keypair, memoryview(plaintext), 0)

    def packet(self, source: Address, destination: Address, target: str = TOLD) -> bytes:
        """Send one packet between any two addresses to a member, whatever the routes say."""
        packet = udp(source, destination, b"lie")
        self.burst(block(BlockKind.PACKET, packet), target)
        return packet

    # -- what others say ---------------------------------------------------------------------------

    def codes(self, name: str) -> set[str]:
        """Codes of what one node has seen the liar do, in its status."""
        return {
            problem.code
            for problem in self.world[name].snapshot().problems
            if problem.code.startswith("member-") and NAME in problem.what
        }

    def is_named(self, code: str, *, by: str = TOLD) -> bool:
        """Whether who saw it says so, and everybody else that it does, each in words."""
        if f"member-{code}" not in self.codes(by):
            return False
        said = f"{by} complains of {NAME}: {code}"
        return all(
            any(said in notice.what for notice in machine.snapshot().notices)
            or f"member-{code}" in self.codes(machine.name)
            for machine in self.honest()
            if machine.name != by
        )

    def others_accused(self) -> list[str]:
        """Complaints of honest nodes about anybody but the liar."""
        liar = self.node(NAME)
        return [
            f"{machine.name}: {one.fault} {machine.engine.parts.name_of(one.node)}"
            for machine in self.honest()
            for one in machine.engine.parts.complaints.entries
            if one.node != liar
        ]
