"""Deeds: how a block changes hands, so that everyone can check it without asking anyone.

The founding node owns every block. A block changes hands by a *deed* that its present owner signs;
the deeds of a block, one after the other, are its chain of title:

    genesis --deed 1--> B --deed 2--> C                    C owns the block
    base 7, owner A    --deed 8--> D                       D owns it, whatever came before 7

A chain may begin with a *base* instead of with genesis: an authority's word that after transfer
number `sequence` the block belongs to `owner`. Bases cut long chains short and take back the blocks
of removed nodes.

    body     one layout, no lengths: everything behind the head is whole records
    +--------+-----------+-----------------+---------------+------------ one per deed ------------+
    | format | block     | base sequence   | base, unless  | rank 16 | request u64 | taker 32     |
    | u8 = 2 | u32       | u64, 0: no base | sequence is 0 |         | signature 64               |
    +--------+-----------+-----------------+---------------+--------------------------------------+
    base     rank 16 | signer 32 | owner 32 | signature 64

    deed     signed  [2, cluster id 8, block, sequence, request, giver 32, taker 32], context "deed"
    base     signed  [2, cluster id 8, block, sequence, signer 32, owner 32], context "base", by the
             signer: an authority. Whether it is trusted is not asked here

The giver of a deed is the taker of the one before it (first: the base's owner, or genesis), its
sequence one more; both follow from the place in the chain and are not sent. `request` is the number
of the request that the deed answers, 0 if none: so a giver that is asked again finds its answer in
the chain, even after a restart.

Which of two chains of one block wins. Only the owner can extend a chain, and an honest owner signs
each number once (it stores the chain before it shows it), so honest chains continue each other. For
all others there is one total order:

    1. the higher base sequence
    2. at the first record where they differ, the lower hash of that record
    3. if none differs, the longer

`rank` is what makes this order the order of the *bytes*: it is the complement of the record's hash,
in front of it, so the winner is simply the greater body. Whoever stores chains without knowing what
they are keeps the same one as whoever reads them. A receiver computes it anew and refuses others.

Length proves nothing between forks: a former owner that signs its old deed again cannot win by
adding deeds of its own behind it. It may win by trying takers until a hash is low enough, so that
is not where safety comes from; a base is. The authority's node makes one whenever a block comes
back to it, and from then on nobody who had the block before can have a say in it.

References:
    RFC 2693 (SPKI certificate theory): rights passed on from key to key, each link signed by the
    one before, checked without a third party.
    Shapiro et al. 2011, "Conflict-free Replicated Data Types": merge as the join of a semilattice.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2s
from typing import Final

from overlay.errors import ForgedError, NewerError, StateError, WireError
from overlay.faults import Fault
from overlay.ipam.plan import count_blocks
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from overlay.types import BlockIndex, NodeId
from overlay.wire.cluster import Cluster
from overlay.wire.items import BODY_LIMIT
from overlay.wire.packing import U64, pack

# -- specification ---------------------------------------------------------------------------------

RANK_SIZE: Final = 16

_FORMAT: Final = 2
_DEED_CONTEXT: Final = "deed"
_BASE_CONTEXT: Final = "base"
_HEAD: Final = struct.Struct(">BIQ")
_BASE: Final = struct.Struct(f">{RANK_SIZE}s{KEY_SIZE}s{KEY_SIZE}s{SIGNATURE_SIZE}s")
_DEED: Final = struct.Struct(f">{RANK_SIZE}sQ{KEY_SIZE}s{SIGNATURE_SIZE}s")
_HASHED: Final = struct.Struct(f">IQQ{KEY_SIZE}s{KEY_SIZE}s")
_HIGHEST: Final = (1 << 8 * RANK_SIZE) - 1


@dataclass(frozen=True, slots=True)
class Deed:
    """One transfer of one block."""

    block: BlockIndex
    sequence: int
    """How often the block has moved with this one, from 1."""
    request: int
    """The request it answers, 0 <= request < 2**64; 0: none."""
    giver: NodeId
    taker: NodeId
    signature: bytes
    """By the giver, 64 bytes."""

    @property
    def rank(self) -> bytes:
        """Complement of its hash, 16 bytes: of two deeds in one place the greater wins."""
        fields = (self.block, self.sequence, self.request, self.giver, self.taker)
        return _complement(_HASHED.pack(*fields) + self.signature)

    def is_signed(self, cluster: Cluster) -> bool:
        """Whether the giver signed this, for that cluster."""
        return verify(self.giver, _DEED_CONTEXT, self.signed_bytes(cluster.id), self.signature)

    def signed_bytes(self, cluster: bytes) -> bytes:
        """What the giver signs, in context `deed`; `cluster` is the cluster's id."""
        place = [_FORMAT, cluster, self.block, self.sequence, self.request]
        return pack([*place, self.giver, self.taker])


@dataclass(frozen=True, slots=True)
class Base:
    """An authority's word on who owns a block after so many transfers."""

    block: BlockIndex
    sequence: int
    """From 1. The deed behind it has the next number."""
    signer: bytes
    """Public key of the authority, 32 bytes."""
    owner: NodeId
    signature: bytes
    """By the signer, 64 bytes."""

    @property
    def rank(self) -> bytes:
        """Complement of its hash, 16 bytes: of two with one sequence the greater wins."""
        hashed = _HASHED.pack(self.block, self.sequence, 0, self.signer, self.owner)
        return _complement(hashed + self.signature)

    def is_signed(self, cluster: Cluster) -> bool:
        """Whether the signer signed this, for that cluster."""
        message = self.signed_bytes(cluster.id)
        return verify(self.signer, _BASE_CONTEXT, message, self.signature)

    def signed_bytes(self, cluster: bytes) -> bytes:
        """What the authority signs, in context `base`; `cluster` is the cluster's id."""
        return pack([_FORMAT, cluster, self.block, self.sequence, self.signer, self.owner])


@dataclass(frozen=True, slots=True)
class Chain:
    """The title of one block: where it starts, and every transfer since."""

    block: BlockIndex
    root: NodeId
    """Who owned the block before the first deed: the base's owner, or the founding node."""
    base: Base | None = None
    deeds: tuple[Deed, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether there is anything to show: a base or a deed."""
        return self.base is not None or bool(self.deeds)

    @property
    def base_sequence(self) -> int:
        """Sequence of the base; 0 without one."""
        return 0 if self.base is None else self.base.sequence

    @property
    def sequence(self) -> int:
        """How often the block has moved."""
        return self.base_sequence + len(self.deeds)

    @property
    def owner(self) -> NodeId:
        """Who owns the block."""
        return self.deeds[-1].taker if self.deeds else self.root

    def extended(self, deed: Deed) -> Chain:
        """This chain and one more deed."""
        return replace(self, deeds=(*self.deeds, deed))

    def encode(self) -> bytes:
        """The body that `decode_chain_untrusted` reads. Equal chains have equal encodings."""
        base = self.base
        parts = [_HEAD.pack(_FORMAT, self.block, self.base_sequence)]
        if base is not None:
            parts.append(_BASE.pack(base.rank, base.signer, base.owner, base.signature))
        parts += [
            _DEED.pack(deed.rank, deed.request, deed.taker, deed.signature) for deed in self.deeds
        ]
        return b"".join(parts)


def _complement(data: bytes) -> bytes:
    digest = blake2s(data, digest_size=RANK_SIZE).digest()
    return (_HIGHEST ^ int.from_bytes(digest, "big")).to_bytes(RANK_SIZE, "big")


def sign_deed(
    key: SigningKey, chain: Chain, taker: NodeId, *, cluster: bytes, request: int = 0
) -> Chain:
    """Give the block of `chain` to `taker`. An owner makes each sequence number once.

    Args:
        key: the owner's.
        chain: the block's title so far.
        taker: the next owner, not the giver itself.
        cluster: id of the cluster.
        request: what is answered with it, 0 if nothing.

    Returns:
        The chain with one more deed.

    Raises:
        StateError: the key is not the owner's, or it would give to itself. Nothing else.
    """
    if key.public != chain.owner or taker == key.public:
        raise StateError("only the owner gives a block away, and not to itself")
    unsigned = Deed(chain.block, chain.sequence + 1, request, key.public, taker, b"")
    message = unsigned.signed_bytes(cluster)
    return chain.extended(replace(unsigned, signature=key.sign(_DEED_CONTEXT, message)))


def sign_base(
    authority: SigningKey, *, cluster: bytes, block: BlockIndex, sequence: int, owner: NodeId
) -> Chain:
    """The chain that starts with the authority's word and has no deeds yet.

    The caller answers for it that no living node uses the block but `owner`.
    """
    unsigned = Base(block, sequence, authority.public, owner, b"")
    message = unsigned.signed_bytes(cluster)
    base = replace(unsigned, signature=authority.sign(_BASE_CONTEXT, message))
    return Chain(block, owner, base)


def decode_chain_untrusted(data: bytes, cluster: Cluster) -> Chain:
    """Read a chain. Its signatures are not checked: see `verify_chain`.

    Raises:
        WireError: wrong shape, size or format, nothing in it, a deed to its own giver, or a rank
            that is not its record's. Nothing else.
    """
    if not _HEAD.size <= len(data) <= BODY_LIMIT:
        raise WireError(f"chain: {len(data)} bytes")
    form, block, sequence = _HEAD.unpack_from(data)
    if form != _FORMAT:
        raise NewerError(f"chain: format {form} is not known")
    at, root, base = _HEAD.size, cluster.genesis, None
    if sequence:
        if len(data) < at + _BASE.size:
            raise WireError("chain: the base is cut short")
        rank, base = _base_at(data, block, sequence)
        root = base.owner
        at += _BASE.size
        if base.rank != rank:
            raise WireError("chain: the base has another rank")
    chain = Chain(block, root, base, _deeds_untrusted(data[at:], block, sequence, root))
    if not chain.moved:
        raise WireError("chain: neither base nor deeds")
    return chain


def _deeds_untrusted(
    data: bytes, block: BlockIndex, sequence: int, giver: NodeId
) -> tuple[Deed, ...]:
    if len(data) % _DEED.size:
        raise WireError("chain: a deed is cut short")
    if sequence + len(data) // _DEED.size > U64:
        raise WireError("chain: sequence out of range")
    deeds: list[Deed] = []
    for rank, request, taker, signature in _DEED.iter_unpack(data):
        sequence += 1
        deed = Deed(block, sequence, request, giver, taker, signature)
        if taker == giver:
            raise WireError("deed: giver and taker are the same")
        if deed.rank != rank:
            raise WireError("deed: it has another rank")
        deeds.append(deed)
        giver = taker
    return tuple(deeds)


def count_moves(body: bytes) -> tuple[int, int]:
    """The base sequence, and the number of deeds, of a chain that was decoded before."""
    _, _, sequence = _HEAD.unpack_from(body)
    return sequence, (len(body) - _HEAD.size - (_BASE.size if sequence else 0)) // _DEED.size


def base_of(body: bytes) -> Base | None:
    """The base of a chain that was decoded before, without its deeds."""
    _, block, sequence = _HEAD.unpack_from(body)
    return _base_at(body, block, sequence)[1] if sequence else None


def _base_at(data: bytes, block: BlockIndex, sequence: int) -> tuple[bytes, Base]:
    """Its rank, as sent, and the base."""
    rank, signer, owner, signature = _BASE.unpack_from(data, _HEAD.size)
    return rank, Base(block, sequence, signer, owner, signature)


def owner_of(body: bytes) -> NodeId:
    """Who owns the block of a chain that was decoded before, without decoding it again.

    Bases and deeds alike end with a node and a signature, and the last of them decides.
    """
    return NodeId(body[-SIGNATURE_SIZE - KEY_SIZE : -SIGNATURE_SIZE])


class ChainReader:
    """Reads chains and checks signatures of one cluster; what it returns depends on that alone.

    Args:
        cluster: whose authority and founding node count.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def chain(self, data: bytes) -> Chain:
        """The chain of a block, one deed following from the other. No signature is checked.

        Raises:
            WireError: no chain, or the deeds do not follow each other. Nothing else.
        """
        chain = decode_chain_untrusted(data, self.cluster)
        _check_continuity(chain, self.cluster)
        return chain

    def is_signed(self, record: Deed | Base) -> bool:
        """Whether its giver has signed this deed, or the authority it names this base."""
        return record.is_signed(self.cluster)


def verify_chain(chain: Chain, reader: ChainReader, known: Chain | None = None) -> None:
    """Check that its signer signed the base, and each deed the owner that came before.

    Whether the signer of the base is an authority that is trusted is not asked.

    Args:
        chain: what to check.
        reader: checks one signature of the cluster that the chain must be of.
        known: a chain of the block that was checked before: what both begin with is not checked
            again, so a chain that grows costs one signature check per new deed.

    Raises:
        WireError: the block does not exist, or the deeds do not follow each other.
        ForgedError: a signature is not its giver's, or not the authority's. Nothing else.
    """
    _check_continuity(chain, reader.cluster)
    shared = None if known is None else shared_deeds(known, chain)
    if chain.base is not None and shared is None and not reader.is_signed(chain.base):
        why = f"the base of block {chain.block} is not its signer's"
        raise ForgedError(why, Fault.FORGED_BASE)
    for deed in chain.deeds[shared or 0 :]:
        if not reader.is_signed(deed):
            why = f"deed {deed.sequence} of block {deed.block} is not the owner's"
            raise ForgedError(why, Fault.FORGED_DEED)


def _check_continuity(chain: Chain, cluster: Cluster) -> None:
    block, base = chain.block, chain.base
    if not 0 <= block < count_blocks(cluster):
        raise WireError(f"chain: block {block} does not exist")
    start = (block, cluster.genesis) if base is None else (base.block, base.owner)
    if start != (block, chain.root):
        raise WireError(f"chain: it does not start where block {block} does")
    giver = chain.root
    for sequence, deed in enumerate(chain.deeds, chain.base_sequence + 1):
        place = (deed.block, deed.sequence, deed.giver)
        if place != (block, sequence, giver) or deed.taker == giver:
            raise WireError(f"deed: {deed.sequence} of block {deed.block} is out of place")
        giver = deed.taker


def shared_deeds(one: Chain, other: Chain) -> int | None:
    """How many deeds at the front are the same in both; None if they start differently."""
    if one.base != other.base:
        return None
    return _common(one.deeds, other.deeds)


def _common(one: Sequence[Deed], other: Sequence[Deed]) -> int:
    for place, (ours, theirs) in enumerate(zip(one, other, strict=False)):
        if ours != theirs:
            return place
    return min(len(one), len(other))
