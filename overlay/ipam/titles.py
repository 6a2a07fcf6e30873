"""Who owns which address block: the best chain of title of every block, and proofs of cheating.

`admit` merges one chain after the other, from anywhere and in any order. Of two chains of a block
the greater encoding wins (`overlay.ipam.deeds` says what that means), which is the maximum of a
total order: hence commutative, associative and idempotent.

Two chains of which neither continues the other prove that a giver signed one number twice, by
malice or from a restored backup. Everybody settles on the same owner anyway; the two deeds are kept
as evidence, so that an operator learns whom not to trust.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from overlay.config import Limits
from overlay.drops import DropReason
from overlay.errors import AuthError, CapacityError
from overlay.ipam.deeds import (
    Base,
    Chain,
    ChainReader,
    Deed,
    base_of,
    count_moves,
    owner_of,
    shared_deeds,
    verify_chain,
)
from overlay.ipam.plan import BlockPlan
from overlay.types import BlockIndex, NodeId
from overlay.wire.cluster import Cluster

# -- implementation --------------------------------------------------------------------------------

MAX_CONFLICTS: Final = 64
"""Proofs that are kept: enough to see who it was. A giver can make any number of them."""

ASKERS: Final = 256
"""Nodes of which it is remembered how many blocks they were given, as long as no block moves."""

CONFLICTS_EACH: Final = 2
"""Proofs against one giver: whoever makes many leaves room for those against others."""


class Conflict(NamedTuple):
    """Two deeds with one number, both signed by their giver."""

    block: BlockIndex
    giver: NodeId
    won: Deed
    lost: Deed


class Titles:
    """The ledger: every block and its best chain so far.

    Only valid chains get in, so `admit` may be fed from anywhere.

    Error contract: a call that raises has changed nothing.

    Args:
        cluster: whose blocks these are.
        limits: `deed_chain` bounds the length of a chain.
        reader: reads chains and checks signatures; its own unless given.
        check_base: raises AuthError for a base that its signer did sign but that does not count.
            One that is in force stays so. Bases of the cluster's own authority count, unless given.

    Attributes:
        generation: grows with every chain that gets in.
        conflicts: proofs that a giver signed twice, one per block and giver, at most
            `MAX_CONFLICTS`, as far as they came by. To be read only.
    """

    __slots__ = (
        "_bodies",
        "_cluster",
        "_given",
        "_granted",
        "_judge_base",
        "_longest",
        "_plan",
        "_reader",
        "conflicts",
        "generation",
    )

    def __init__(
        self,
        cluster: Cluster,
        limits: Limits,
        reader: ChainReader | None = None,
        check_base: Callable[[Base], None] | None = None,
    ) -> None:
        self._cluster = cluster
        self._judge_base = check_base or self._check_signer
        self._reader = reader or ChainReader(cluster)
        self.generation = 0
        self._plan = BlockPlan(cluster)
        self._longest = limits.deed_chain
        # Chains as they were sent, which are the bytes that the store holds: nobody but the owner
        # of a block reads its chain again, and who that is stands at its end.
        self._bodies: dict[BlockIndex, bytes] = {}
        # Owner -> its blocks that have a chain. Nearly all own one, which stands there by itself:
        # a tuple around it would double the memory, at every node for every node.
        self._granted: dict[NodeId, BlockIndex | tuple[BlockIndex, ...]] = {}
        self._given: dict[NodeId, tuple[int, NodeId | None, int]] = {}
        self.conflicts: list[Conflict] = []

    def owner(self, block: BlockIndex) -> NodeId:
        """Who owns `block` now."""
        body = self._bodies.get(block)
        return self._cluster.genesis if body is None else owner_of(body)

    def chain(self, block: BlockIndex) -> Chain:
        """The title of `block`; one without base and deeds if it never moved."""
        body = self._bodies.get(block)
        return Chain(block, self._cluster.genesis) if body is None else self._reader.chain(body)

    def holds(self, block: BlockIndex, data: bytes) -> bool:
        """Whether this encoded chain is the title of `block`."""
        return self._bodies.get(block) == data

    def bases(self) -> Iterator[Base]:
        """The bases in force."""
        return (base for body in self._bodies.values() if (base := base_of(body)) is not None)

    def chains(self) -> Iterator[Chain]:
        """All chains of blocks that have moved."""
        return map(self.chain, self._bodies)

    def moved(self) -> Collection[BlockIndex]:
        """The blocks that have one."""
        return self._bodies.keys()

    def moves(self, block: BlockIndex) -> tuple[int, int]:
        """How often `block` moved: up to its base, and by deeds since."""
        body = self._bodies.get(block)
        return (0, 0) if body is None else count_moves(body)

    def room(self, block: BlockIndex) -> int:
        """How many more deeds the chain of `block` may get."""
        return self._longest - self.moves(block)[1]

    def blocks_of(self, node: NodeId) -> tuple[BlockIndex, ...]:
        """All blocks that `node` owns, in order."""
        granted = self._granted_to(node)
        if node != self._cluster.genesis:
            return tuple(sorted(granted))
        return tuple(sorted([*self.unmoved(), *granted]))

    def count_of(self, node: NodeId) -> int:
        """How many blocks `node` owns, without looking at each of them."""
        granted = len(self._granted_to(node))
        unmoved = self._plan.blocks - len(self._bodies) if node == self._cluster.genesis else 0
        return granted + unmoved

    def unmoved(self) -> Iterator[BlockIndex]:
        """The blocks that never moved, in order. There may be 65,536: stop when you have enough."""
        every = map(BlockIndex, range(self._plan.blocks))
        return (block for block in every if block not in self._bodies)

    def spare(self, node: NodeId, stays: Collection[BlockIndex]) -> Iterator[BlockIndex]:
        """Blocks of `node` that are not in `stays`: those that never moved first, then in order.

        What it costs grows with the blocks that are passed over, not with those that there are.
        """
        kept = frozenset(stays)
        if node == self._cluster.genesis:
            yield from (block for block in self.unmoved() if block not in kept)
        yield from sorted(self.moved_to(node) - kept)

    def moved_to(self, node: NodeId) -> frozenset[BlockIndex]:
        """The blocks that `node` owns because they came to it."""
        return frozenset(self._granted_to(node))

    def _granted_to(self, node: NodeId) -> tuple[BlockIndex, ...]:
        granted = self._granted.get(node, ())
        return granted if isinstance(granted, tuple) else (granted,)

    def _grant(self, node: NodeId, blocks: tuple[BlockIndex, ...]) -> None:
        if blocks:
            self._granted[node] = blocks if len(blocks) > 1 else blocks[0]
        else:
            # A giver may sign to any number of inventions, each better than the last.
            self._granted.pop(node, None)

    def given_to(self, node: NodeId, back_at: NodeId | None = None) -> int:
        """How many blocks `node` was given by deed, those included that it passed on.

        Blocks that went back to the authority's node do not count any more: a base stands in
        front of their chains, and what was before it is forgotten. Nor do those that `back_at`
        owns now: a node that left, handed its blocks over and came back, gets one where they are.
        """
        known = self._given.get(node)
        if known is not None and known[:2] == (self.generation, back_at):
            return known[2]  # who asks again and again makes nobody walk all chains
        given = sum(
            owner_of(body) != back_at
            and any(deed.taker == node for deed in self.chain(block).deeds)
            for block, body in self._bodies.items()
            if bytes(node) in body  # which costs a hundredth of reading the deeds
        )
        if len(self._given) >= ASKERS:
            self._given.clear()
        self._given[node] = self.generation, back_at, given
        return given

    def passed_by(self, nodes: Collection[NodeId]) -> tuple[BlockIndex, ...]:
        """Blocks that one of `nodes` owns or has given away, as far as chains tell; in order."""
        if not nodes:
            return ()
        return tuple(sorted(block for block in self._bodies if self.is_of(block, nodes)))

    def is_of(self, block: BlockIndex, nodes: Collection[NodeId]) -> bool:
        """Whether one of `nodes` owns `block`, or gave it away since the chain begins."""
        body = self._bodies.get(block)
        if body is None or not nodes:
            return False
        if owner_of(body) in nodes:
            return True
        named = self._cluster.genesis in nodes or any(bytes(node) in body for node in nodes)
        return named and any(deed.giver in nodes for deed in self.chain(block).deeds)

    def admit(self, data: bytes) -> bool:
        """Merge an encoded chain.

        Returns:
            Whether it is the chain of its block from now on. False if the known one is the same
            or better; its signatures are then not looked at.

        Raises:
            WireError: not a chain of this cluster.
            AuthError: a signature is not its giver's, or the base does not count.
            CapacityError: more deeds than `Limits.deed_chain`. Nothing else.
        """
        chain = self._reader.chain(data)
        held = self._bodies.get(chain.block)
        if len(chain.deeds) > self._longest:
            raise CapacityError(
                f"block {chain.block} has moved {len(chain.deeds)} times", "deed_chain"
            )
        if held is not None and data <= held:
            return False
        known = None if held is None else self._reader.chain(held)
        verify_chain(chain, self._reader, known)
        if chain.base is not None and (known is None or known.base != chain.base):
            self._judge_base(chain.base)
        if known is not None:
            self._note_conflict(known, chain)
        self._replace(chain, data)
        return True

    def _check_signer(self, base: Base) -> None:
        if base.signer != self._cluster.authority:
            why = f"the base of block {base.block} is not by the cluster's authority"
            raise AuthError(why, DropReason.BAD_CERTIFICATE)

    def _note_conflict(self, known: Chain, chain: Chain) -> None:
        shared = shared_deeds(known, chain)
        if shared is None or shared == len(known.deeds):
            return  # another base, or a continuation
        lost, won = known.deeds[shared], chain.deeds[shared]
        his = [one.block for one in self.conflicts if one.giver == won.giver]
        told = won.block in his or len(his) >= CONFLICTS_EACH
        if not told and len(self.conflicts) < MAX_CONFLICTS:
            self.conflicts.append(Conflict(won.block, won.giver, won, lost))

    def _replace(self, chain: Chain, data: bytes) -> None:
        before = self.owner(chain.block)
        if chain.block in self._bodies and before != chain.owner:
            held = tuple(block for block in self._granted_to(before) if block != chain.block)
            self._grant(before, held)
        if chain.block not in self._bodies or before != chain.owner:
            self._grant(chain.owner, (*self._granted_to(chain.owner), chain.block))
        self.generation += 1
        self._bodies[chain.block] = data

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        owned = {}
        for block, body in self._bodies.items():
            chain = self.chain(block)
            owned[block] = chain.owner
            assert (chain.block, chain.owner) == (block, owner_of(body))
            assert chain.encode() == body
            assert self.moves(block) == (chain.base_sequence, len(chain.deeds))
            verify_chain(chain, ChainReader(self._cluster))
            assert len(chain.deeds) <= self._longest
        assert () not in self._granted.values(), "an owner of nothing is remembered"
        owners = {*owned.values(), self._cluster.genesis}
        assert all(self.count_of(node) == len(self.blocks_of(node)) for node in owners)
        granted = {block: node for node in self._granted for block in self._granted_to(node)}
        assert granted == owned
        assert len(self.conflicts) <= MAX_CONFLICTS
