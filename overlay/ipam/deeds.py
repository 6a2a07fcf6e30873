"""Who owns which address block, and how everyone can check it without asking anyone.

The founding node owns every block. A block changes hands by a *deed* that its present owner signs;
the deeds of a block, one after the other, are its chain of title:

    genesis --deed 1--> B --deed 2--> C          C owns the block

Only the owner can extend a chain, and an honest owner signs deed n once (it stores the chain before
it shows it), so two nodes can never both own a block: a partition may stop blocks from moving, but
it cannot make two owners.

    chain   [1, block, [[taker 32, signature 64], ...]]         canonical msgpack
    signed  [1, cluster id 8, block, sequence, giver 32, taker 32], context "deed", by the giver

The giver of deed 1 is the founding node, of deed n + 1 the taker of deed n; both follow from the
place in the chain and are not sent. An untouched block has no chain.

Merging is a choice between two valid chains of one block: the longer wins, and of two equally long
ones the one whose encoding is the greater byte string. That is the maximum of a total order, hence
commutative, associative and idempotent. Chains of which neither continues the other exist only if
some owner signed the same deed number twice, by malice or from a restored backup; then everyone at
least settles on the same owner.

That is how far members are trusted: whoever once owned a block can fork its chain at its own deed,
make the fork longer with keys of its own, and so take the block back. Refusing forks would stop
that, but then nodes that saw different forks first would never agree again.

References:
    RFC 2693 (SPKI certificate theory): rights passed on from key to key, each link signed by the
    one before, checked without a third party.
    Shapiro et al. 2011, "Conflict-free Replicated Data Types": merge as the join of a semilattice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from overlay.config import Limits
from overlay.errors import AuthError, CapacityError, StateError, WireError
from overlay.ipam.plan import BlockPlan
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from overlay.types import BlockIndex, NodeId
from overlay.wire.cluster import Cluster
from overlay.wire.items import BODY_LIMIT
from overlay.wire.packing import Fields, pack

# -- specification ---------------------------------------------------------------------------------

_VERSION: Final = 1
_CONTEXT: Final = "deed"


@dataclass(frozen=True, slots=True)
class Deed:
    """One transfer of one block."""

    block: BlockIndex
    sequence: int
    """Place in the chain of title, from 1."""
    giver: NodeId
    taker: NodeId
    signature: bytes
    """By the giver, 64 bytes."""

    def is_signed(self, cluster: bytes) -> bool:
        """Whether the giver signed this, for the cluster with that id."""
        message = _signed_bytes(cluster, self.block, self.sequence, self.giver, self.taker)
        return verify(self.giver, _CONTEXT, message, self.signature)


Chain = tuple[Deed, ...]
"""The deeds of one block, in order; empty for a block that never moved."""


def sign_deed(
    key: SigningKey, *, cluster: bytes, block: BlockIndex, sequence: int, taker: NodeId
) -> Deed:
    """Give `block` to `taker`. The caller owns it and makes each sequence number once.

    Args:
        key: the giver's.
        cluster: id of the cluster.
        block: which one.
        sequence: one more than the deeds the block has.
        taker: the next owner, not the giver itself.

    Raises:
        StateError: giver and taker are the same. Nothing else.
    """
    if taker == key.public:
        raise StateError("a deed to oneself moves nothing")
    message = _signed_bytes(cluster, block, sequence, key.public, taker)
    return Deed(block, sequence, key.public, taker, key.sign(_CONTEXT, message))


def _signed_bytes(
    cluster: bytes, block: BlockIndex, sequence: int, giver: NodeId, taker: NodeId
) -> bytes:
    return pack([_VERSION, cluster, block, sequence, giver, taker])


def encode_chain(chain: Sequence[Deed]) -> bytes:
    """The bytes of a chain of at least one deed. Equal chains have equal encodings."""
    deeds = [[deed.taker, deed.signature] for deed in chain]
    return pack([_VERSION, chain[0].block, deeds])


def decode_chain_untrusted(data: bytes, cluster: Cluster) -> Chain:
    """Read a chain. Its signatures are not checked: see `verify_chain`.

    Raises:
        WireError: wrong shape, size or version, no deed at all, a deed to its own giver, or not in
            canonical form. Nothing else.
    """
    fields = Fields.unpack_untrusted(data, BODY_LIMIT, "chain", version=_VERSION)
    block = BlockIndex(fields.integer(1))
    chain: list[Deed] = []
    giver = cluster.genesis
    for entry in fields.sequence(2, BODY_LIMIT):
        pair = Fields(entry, "deed")
        taker = NodeId(pair.bytes(0, KEY_SIZE))
        if taker == giver:
            raise WireError("deed: giver and taker are the same")
        chain.append(Deed(block, len(chain) + 1, giver, taker, pair.bytes(1, SIGNATURE_SIZE)))
        giver = taker
    if not chain:
        raise WireError("chain: no deeds")
    if encode_chain(chain) != data:
        raise WireError("chain: not in canonical form")
    return tuple(chain)


def verify_chain(chain: Chain, cluster: Cluster) -> None:
    """Check that each deed was signed by the owner the deeds before it made.

    Raises:
        WireError: the block does not exist, or the deeds do not follow each other.
        AuthError: a signature is not its giver's. Nothing else.
    """
    _check_continuity(chain, cluster)
    _check_signatures(chain, lambda deed: deed.is_signed(cluster.id))


def _check_continuity(chain: Chain, cluster: Cluster) -> None:
    giver, plan = cluster.genesis, BlockPlan(cluster)
    for place, deed in enumerate(chain, 1):
        if deed.block not in plan or deed.block != chain[0].block:
            raise WireError(f"deed: block {deed.block} is not the chain's, or does not exist")
        if (deed.sequence, deed.giver) != (place, giver) or deed.taker == giver:
            raise WireError(f"deed: {deed.sequence} of block {deed.block} is out of place")
        giver = deed.taker


def _check_signatures(deeds: Sequence[Deed], is_signed: Callable[[Deed], bool]) -> None:
    for deed in deeds:
        if not is_signed(deed):
            raise AuthError(f"deed {deed.sequence} of block {deed.block} is not the owner's")


class ChainReader:
    """Reads chains and checks deeds of one cluster. What it returns depends on the bytes alone.

    Args:
        cluster: whose deeds they must be.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def chain(self, data: bytes) -> Chain:
        """The deeds of a block, one following from the other. Their signatures are not checked.

        Raises:
            WireError: no chain, or the deeds do not follow each other. Nothing else.
        """
        chain = decode_chain_untrusted(data, self.cluster)
        _check_continuity(chain, self.cluster)
        return chain

    def is_signed(self, deed: Deed) -> bool:
        """Whether the giver has signed this deed."""
        return deed.is_signed(self.cluster.id)


class Titles:
    """The ledger: every block and its best chain so far.

    Only valid chains get in, so `admit` may be fed from anywhere.

    Error contract: a call that raises has changed nothing.

    Args:
        cluster: whose blocks these are.
        limits: `deed_chain` bounds the length of a chain.
        reader: reads chains and checks deeds; its own unless given.

    Attributes:
        generation: grows with every chain that gets in.
    """

    __slots__ = ("_chains", "_cluster", "_granted", "_longest", "_plan", "_reader", "generation")

    def __init__(self, cluster: Cluster, limits: Limits, reader: ChainReader | None = None) -> None:
        self._cluster = cluster
        self._reader = reader or ChainReader(cluster)
        self._plan = BlockPlan(cluster)
        self._longest = limits.deed_chain
        self._chains: dict[BlockIndex, Chain] = {}
        self.generation = 0
        self._granted: dict[NodeId, set[BlockIndex]] = {}  # owner -> its blocks that have a chain

    def owner(self, block: BlockIndex) -> NodeId:
        """Who owns `block` now."""
        chain = self._chains.get(block)
        return chain[-1].taker if chain else self._cluster.genesis

    def chain(self, block: BlockIndex) -> Chain:
        """The deeds of `block`; empty if it never moved."""
        return self._chains.get(block, ())

    def chains(self) -> Iterator[Chain]:
        """All chains that are not empty."""
        return iter(self._chains.values())

    def room(self, block: BlockIndex) -> int:
        """How many more deeds the chain of `block` may get."""
        return self._longest - len(self.chain(block))

    def blocks_of(self, node: NodeId) -> tuple[BlockIndex, ...]:
        """All blocks that `node` owns, in order."""
        granted = self._granted.get(node, set())
        if node != self._cluster.genesis:
            return tuple(sorted(granted))
        return tuple(sorted([*self.unmoved(), *granted]))

    def count_of(self, node: NodeId) -> int:
        """How many blocks `node` owns, without looking at each of them."""
        granted = len(self._granted.get(node, ()))
        unmoved = self._plan.blocks - len(self._chains) if node == self._cluster.genesis else 0
        return granted + unmoved

    def unmoved(self) -> Iterator[BlockIndex]:
        """The blocks that never moved, in order. There may be 65,536: stop when you have enough."""
        every = map(BlockIndex, range(self._plan.blocks))
        return (block for block in every if block not in self._chains)

    def spare(self, node: NodeId, in_use: Collection[BlockIndex]) -> Iterator[BlockIndex]:
        """Blocks of `node` that are not `in_use`: those that never moved first, then in order.

        What it costs grows with the blocks that are passed over, not with those that there are.
        """
        used = frozenset(in_use)
        if node == self._cluster.genesis:
            yield from (block for block in self.unmoved() if block not in used)
        yield from sorted(self.moved_to(node) - used)

    def moved_to(self, node: NodeId) -> frozenset[BlockIndex]:
        """The blocks that `node` owns by deed."""
        return frozenset(self._granted.get(node, ()))

    def given_to(self, node: NodeId) -> int:
        """How many blocks `node` was ever given by deed, those included that it passed on."""
        return sum(any(deed.taker == node for deed in chain) for chain in self._chains.values())

    def admit(self, data: bytes) -> bool:
        """Merge an encoded chain.

        Deeds at the front that the known chain has as well were verified when they came, so a
        chain that grows costs one signature check per new deed, not per deed.

        Returns:
            Whether it is the chain of its block from now on. False if the known one is the same
            or better; its signatures are then not looked at.

        Raises:
            WireError: not a chain of this cluster.
            AuthError: a signature is not its giver's.
            CapacityError: more deeds than `Limits.deed_chain`. Nothing else.
        """
        chain = self._reader.chain(data)
        block = chain[0].block
        known = self.chain(block)
        if len(chain) > self._longest:
            raise CapacityError(f"block {block} has moved {len(chain)} times", "deed_chain")
        if known is chain or len(chain) < len(known):
            return False
        if len(chain) == len(known) and data <= encode_chain(known):
            return False
        _check_signatures(chain[_common(known, chain) :], self._reader.is_signed)
        self._replace(block, chain)
        return True

    def _replace(self, block: BlockIndex, chain: Chain) -> None:
        before = self.owner(block)
        held = self._granted.get(before, set())
        held.discard(block)
        if not held:
            # A giver may sign to any number of inventions, each better than the last.
            self._granted.pop(before, None)
        self.generation += 1
        self._chains[block] = chain
        self._granted.setdefault(chain[-1].taker, set()).add(block)

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        for block, chain in self._chains.items():
            assert chain[0].block == block
            verify_chain(chain, self._cluster)
            assert len(chain) <= self._longest
        assert all(self._granted.values()), "an owner of nothing is remembered"
        owners = {self.owner(block) for block in self._chains} | {self._cluster.genesis}
        assert all(self.count_of(node) == len(self.blocks_of(node)) for node in owners)
        granted = {block: node for node, blocks in self._granted.items() for block in blocks}
        assert granted == {block: chain[-1].taker for block, chain in self._chains.items()}


def _common(known: Chain, chain: Chain) -> int:
    """How many deeds at the front are the same in both."""
    for place, (ours, theirs) in enumerate(zip(known, chain, strict=False)):
        if ours != theirs:
            return place
    return min(len(known), len(chain))
