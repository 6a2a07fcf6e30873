"""A member that lies: valid keys and certificate, and no good intentions.

It is a machine like the others, whose engine is made to say what no engine would: forged records
of others, old records again, one version with two contents, versions far ahead, one block signed
over to two takers. Nobody judges it (`Inspector.distrust`); what it does to others is judged.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from overlay.catalog.keys import deed_item, node_of_key
from overlay.catalog.records import sign_record
from overlay.ipam.deeds import Chain, sign_deed
from overlay.sim.faults import Power
from overlay.sim.machine import Machine
from overlay.sim.world import World
from overlay.types import NodeId
from overlay.wire.certificate import Identity
from overlay.wire.control import encode
from overlay.wire.items import Item
from overlay.wire.messages import Delta
from overlay.wire.packing import U64

NAME: Final = "mallory"


class Mask(Identity):
    """Its own keys behind the certificate of another."""

    def __post_init__(self) -> None:
        """Nothing is checked."""


class Hostile:
    """The one hostile member of a world; joins when it first acts.

    Args:
        world: whose.
        rng: its choices.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.name = NAME
        self._world = world
        self._rng = rng
        self._seen: list[Item] = []

    def act(self) -> str | None:
        """Do something hostile; says what, or None if it cannot."""
        machine = self._world.machines.get(NAME)
        if machine is None:
            self._world.inspector.distrust(NAME)
            machine = self._world.add_node(NAME)
            self._world.inspector.excuse(machine.membership.identity.node)
            return "joins"
        if machine.power is not Power.RUNNING:
            return None
        items = machine.engine.parts.store.items()
        self._seen += self._rng.sample(items, min(2, len(items)))
        do = self._rng.choice([self._forge, self._replay, self._equivocate, self._jump, self._fork])
        return do(machine)

    def _tell(self, machine: Machine, item: Item, *, node: NodeId | None = None) -> str:
        """Say an item to one member, by itself."""
        others = [one for one in machine.engine.parts.peering.paths if one != node]
        if not others:
            return "nobody"
        target = self._rng.choice(sorted(others))
        now = machine.now
        machine.perform(machine.engine.say(target, encode(Delta((item,))), now))
        return machine.engine.parts.name_of(target)

    def _forge(self, machine: Machine) -> str | None:
        """Another node's record, a little newer, and not signed by it."""
        own = machine.engine.parts.own_key
        records = [
            item
            for item in machine.engine.parts.store.items()
            if node_of_key(item.key) in machine.engine.parts.catalog.nodes and item.key != own
        ]
        if not records:
            return None
        item = self._rng.choice(records)
        record = machine.engine.parts.catalog.nodes[NodeId(item.key[1:])]
        mine = machine.membership.identity
        forged = sign_record(
            Mask(mine.signing, mine.static, record.certificate),
            version=min(U64, item.version + self._rng.choice([1, 1 << 32])),
            blocks_in_use=record.blocks_in_use,
            left=self._rng.random() < 0.3,
        )
        return f"forges a record of {record.name} for {self._tell(machine, forged)}"

    def _replay(self, machine: Machine) -> str | None:
        if not self._seen:
            return None
        item = self._rng.choice(self._seen)
        return f"repeats version {item.version >> 32}.{item.version & 0xFFFF} to " + self._tell(
            machine, item
        )

    def _equivocate(self, machine: Machine) -> str | None:
        """Two records under one version, for different members."""
        version = self._version(machine) + 1
        for software in ("this", "that"):
            item = sign_record(machine.membership.identity, version=version, software=software)
            self._tell(machine, item)
        return "says two things under one version"

    def _jump(self, machine: Machine) -> str | None:
        """A version so high that hardly any comes after it."""
        version = min(U64, self._rng.choice([self._version(machine) + (5 << 32), U64 - 1, U64]))
        item = sign_record(machine.membership.identity, version=version)
        return f"jumps to version {version >> 32}.., heard by {self._tell(machine, item)}"

    def _version(self, machine: Machine) -> int:
        own = machine.engine.parts.store.get(machine.engine.parts.own_key)
        return min(U64 - 1, own.version if own else 0)

    def _fork(self, machine: Machine) -> str | None:
        """A block that it was given once goes to two takers at a time."""
        engine, identity = machine.engine, machine.membership.identity
        titles = engine.parts.catalog.titles
        chains = [chain for chain in titles.chains() if _place(chain, identity.node) is not None]
        takers = sorted(node for node in engine.parts.catalog.nodes if node != identity.node)
        if not chains or len(takers) < 2:
            return None
        chain = min(chains, key=lambda chain: chain.block)
        at = _place(chain, identity.node)
        assert at is not None  # chains were chosen by it
        told = []
        for taker in self._rng.sample(takers, 2):
            before = replace(chain, deeds=chain.deeds[:at])
            forked = sign_deed(identity.signing, before, taker, cluster=engine.cluster.id)
            told.append(self._tell(machine, deed_item(forked)))
        return f"signs block {chain.block} over twice, for {' and '.join(told)}"


def _place(chain: Chain, node: NodeId) -> int | None:
    """How many deeds came before `node` first owned the block; None if it never did."""
    if chain.root == node:
        return 0
    places = [place for place, deed in enumerate(chain.deeds, 1) if deed.taker == node]
    return places[0] if places else None
