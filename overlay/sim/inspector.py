"""Looks at every machine after everything it does: no invariant is broken for even a moment.

    machine acted --> what changed? --> its own invariants, then those of the cluster --> breach?
                                                                                           |
                                         InvariantError, from within the event <-----------'

Looking costs what changed. Most events change nothing that is judged, and cost a few comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overlay.catalog.keys import block_of_key, node_key
from overlay.catalog.removals import removed_of_key
from overlay.errors import OverlayError
from overlay.invariants import CLUSTER_INVARIANTS, Act, Breach, Memory, Register, Watch
from overlay.invariants.register import Holder, Stored
from overlay.ipam.deeds import decode_chain_untrusted
from overlay.sim.clock import Clock
from overlay.sim.machine import Machine
from overlay.sim.notary import Notary
from overlay.state import NodeState
from overlay.types import BlockIndex, NodeId
from overlay.wire.items import Item

EVERY_EVENT: Final = 100
"""Machines of the largest world in which every event is looked at. Above, all machines are looked
at together, at most every (machines / this) seconds: a look costs what they hold and know."""

EXCUSABLE: Final = {"block-titled"}
"""What a node may show for a while whose block was signed over twice, or which is there twice: it
does not know yet, or waits for its operator."""


class InvariantError(OverlayError):
    """Something happened that must never happen. Says what, when, and in which world.

    Attributes:
        breaches: everything that was found at that moment.
    """

    def __init__(self, message: str, breaches: list[Breach]) -> None:
        super().__init__(message)
        self.breaches = breaches


class _Sight:
    """What was seen of one run of one machine."""

    __slots__ = ("generation", "items", "pods", "root", "used", "watch")

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.items: dict[bytes, Item] = {}
        self.root: bytes | None = None
        self.generation: object = None
        self.used: tuple[int, ...] | None = None
        self.pods: object = None


class Inspector:
    """Judges the machines of one world.

    Args:
        notary: knows every signature.
        machines: all machines, by name. The world adds to it.
        clock: the world's.
        seed: of the world, for messages.

    Attributes:
        checks: how often it has looked at a machine.
    """

    def __init__(
        self, notary: Notary, machines: Mapping[str, Machine], clock: Clock, seed: int
    ) -> None:
        self.register = Register(notary.signed, self._stored)
        self._notary = notary
        self._machines = machines
        self._clock = clock
        self._seed = seed
        self.checks = 0
        self._at_rest = False
        self._look_at = 0.0
        self._distrusted: set[str] = set()
        self._sights: dict[str, _Sight] = {}
        self._memories: dict[str, Memory] = {}
        self._disks: dict[str, tuple[int, Stored]] = {}

    # -- looking -----------------------------------------------------------------------------------

    def acted(self, machine: Machine) -> None:
        """Look at what a machine has just done; in a big world at all of them, now and then.

        Raises:
            InvariantError: it must not have happened. Nothing else.
        """
        if len(self._machines) <= EVERY_EVENT:
            self._fail(self._glance(machine))
        elif self._clock.now >= self._look_at:
            self._look_at = self._clock.now + len(self._machines) / EVERY_EVENT
            self.look()

    def look(self, *, thorough: bool = False) -> None:
        """Look at all machines that run, at everything that a daemon would look at, or at all.

        Raises:
            InvariantError: something is wrong. Nothing else.
        """
        found: list[Breach] = []
        for name, sight in self._sights.items():
            # What was given away since the last look must not be held against whoever has it now.
            # A machine that is off gives nothing away, unless it went because it has left.
            if self._machines[name].live or self._machines[name].left:
                self.register.forget(name)
                sight.used = sight.generation = sight.pods = None
        for machine in self._machines.values():
            if machine.live and self._is_member(machine):
                found += self._glance(machine)
                if machine.name not in self._sights:
                    continue
                watch = self._sights[machine.name].watch
                found += self._own(machine, watch.look(machine.now, thorough=thorough))
        self._fail(found)

    def look_at_rest(self) -> None:
        """Look at everything, now that nobody is excused any more.

        Raises:
            InvariantError: something is wrong. Nothing else.
        """
        self._at_rest = True
        self.look(thorough=True)
        register, found = self.register, []
        for name, claims in (("one-owner", register.owners), ("one-user", register.users)):
            for block, holders in claims.shared():
                holders = [one for one in holders if self._claims(one, block)]
                if len({one.node for one in holders}) > 1:
                    names = " and ".join(map(str, holders))
                    found.append(Breach(name, f"at rest block {block} is claimed by {names}"))
        self._fail(found)

    def _claims(self, holder: Holder, block: BlockIndex) -> bool:
        """Whether a machine that runs holds a block for its own. One that lost it has said so."""
        machine = self._machines[holder.machine]
        if not machine.live:
            return False
        return machine.engine.parts.catalog.titles.owner(block) == holder.node

    def excuse(self, node: NodeId) -> None:
        """Somebody hostile has its keys, its state was copied or restored, or its disk lies."""
        self.register.suspects.add(node)

    def distrust(self, name: str) -> None:
        """The machine of that name may do as it likes."""
        self._distrusted.add(name)

    # -- one machine -------------------------------------------------------------------------------

    def _glance(self, machine: Machine) -> list[Breach]:
        if not machine.live or not self._is_member(machine):
            self._sights.pop(machine.name, None)
            return []
        engine = machine.engine
        sight = self._sights.get(machine.name)
        if sight is None or sight.watch.engine is not engine:
            if engine.not_stored:
                return []  # it has not become a node yet: nothing of this start was ever stored
            memory = self._memories.pop(machine.name, None)
            if machine.membership.identity.node in self.register.suspects:
                memory = None
            sight = self._sights[machine.name] = _Sight(Watch(engine, memory))
            self._memories[machine.name] = sight.watch.memory
        self.checks += 1
        act = self._act(machine, sight)
        sight.watch.writing = machine.disk.writing
        found = self._own(machine, sight.watch.glance(machine.now))
        if act is not None:
            for invariant in CLUSTER_INVARIANTS:
                found += invariant.breaches(act)
        return found

    def _act(self, machine: Machine, sight: _Sight) -> Act | None:
        """What is new at a machine; None when nothing is."""
        engine = machine.engine
        parts, node = engine.parts, engine.identity.node
        holdings, store = parts.holdings, parts.store
        root, used, generation = (
            store.root(),
            tuple(holdings.blocks_in_use),
            parts.catalog.generation,
        )
        pods = (root, len(holdings.pods))
        if (root, used, generation, pods) == (sight.root, sight.used, sight.generation, sight.pods):
            return None
        in_use = frozenset(holdings.blocks_in_use)
        act = Act(self.register, machine.name, node, engine)
        if root != sight.root:
            for item in store.items():
                old = sight.items.get(item.key)
                if old is not item:
                    act.items.append((old, item))
                    if (removed := removed_of_key(item.key)) is not None:
                        self.register.removed.add(removed)
                    sight.items[item.key] = item
        if (used, generation) != (sight.used, sight.generation):
            act.used = in_use
        if generation != sight.generation:
            owner = parts.catalog.titles.owner
            act.owned = {*holdings.free(), *(one for one in in_use if owner(one) == node)}
        if pods != sight.pods:
            act.slots = sight.watch.slots()
        sight.root, sight.used, sight.generation, sight.pods = root, used, generation, pods
        return act

    def _is_member(self, machine: Machine) -> bool:
        """Whether it is judged: one that nobody admitted may do as it likes."""
        if machine.name in self._distrusted:
            return False
        certificate = machine.membership.identity.certificate
        if machine.engine.parts.catalog.judge.trust.standing(certificate.issuer) is None:
            return False
        return self._notary.signed(certificate.issuer, certificate.signed_bytes())

    # -- helpers -----------------------------------------------------------------------------------

    def _stored(self, node: NodeId) -> Stored | None:
        """What the disk of `node` holds; None if no machine, or several, are that node."""
        machines = [one for one in self._machines.values() if one.membership.identity.node == node]
        if len(machines) != 1:
            return None
        machine = machines[0]
        writes = machine.disk.writes
        known = self._disks.get(machine.name)
        if known is None or known[0] != writes:
            state = NodeState.from_entries(machine.disk.durable())
            known = self._disks[machine.name] = (writes, _read(machine, state))
        return known[1]

    def _own(self, machine: Machine, breaches: list[Breach]) -> list[Breach]:
        """What is wrong at one machine, without what is excused for a while."""
        if not breaches:
            return []
        blocks = machine.engine.parts.holdings.blocks_in_use
        here = Holder(machine.name, machine.membership.identity.node)
        excused = any(self.register.excused(block, here) for block in blocks)
        return [
            Breach(name, f"{machine.name}: {evidence}")
            for name, evidence in breaches
            if self._at_rest or not excused or name not in EXCUSABLE
        ]

    def _fail(self, found: list[Breach]) -> None:
        if found:
            text = "; ".join(f"{name}: {evidence}" for name, evidence in found[:5])
            when = f"at {self._clock.now:.3f} s, seed {self._seed}"
            raise InvariantError(f"{when}: {text}", found)


def _read(machine: Machine, state: NodeState) -> Stored:
    cluster, own = machine.membership.cluster, node_key(machine.membership.identity.node)
    versions = [item.version for item in state.items if item.key == own]
    chains = [
        decode_chain_untrusted(item.body, cluster)
        for item in state.items
        if block_of_key(item.key) is not None
    ]
    return Stored(
        version=max(versions, default=0),
        deeds=frozenset(deed.signature for chain in chains for deed in chain.deeds),
        bases={chain.block: chain.base_sequence for chain in chains},
    )
