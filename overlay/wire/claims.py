"""Claims: what nodes say of each other's lives.

    [node 32, boot, incarnation, state, own, proof 0 or 64]

    boot         which start of the node: the upper half of the version of its record
    incarnation  grows when the node itself contradicts a suspicion; 0 after each start
    state        0 alive < 1 suspect < 2 dead
    own          the sender says so from its own evidence, not because it was told
    proof        by the node, over boot and incarnation: it was alive in this incarnation

Of two claims about a node the greater (boot, incarnation, state) holds, so merging them is a
semilattice. Incarnation 0 needs no proof: the node's record, which it signed, shows the boot.
Any greater one was signed by the node itself, so nobody else can make it grow.

References:
    SWIM (Das et al. 2002), section 4.2: incarnation numbers, and the order of their states.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from overlay.errors import WireError
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from overlay.types import NodeId
from overlay.wire.packing import U32

# -- specification ---------------------------------------------------------------------------------

_CONTEXT: Final = "alive"
_STAMP: Final = struct.Struct(">II")


class ClaimState(IntEnum):
    """In the order in which one claim beats another of the same incarnation."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2


_STATES: Final = tuple(ClaimState)
_TYPES: Final = [bytes, int, int, int, bool, bytes]
"""Of a claim's fields, as they are unpacked."""
_FIELDS: Final = len(_TYPES)


class Claim(NamedTuple):
    """One node's life, as somebody sees it. See the module."""

    node: NodeId
    boot: int
    incarnation: int
    state: ClaimState
    own: bool
    proof: bytes

    @property
    def rank(self) -> tuple[int, int, int]:
        """What decides between two claims about one node."""
        return self.boot, self.incarnation, self.state


def prove_alive(signing: SigningKey, cluster: bytes, boot: int, incarnation: int) -> bytes:
    """The node's proof that it lives in this incarnation.

    Args:
        signing: its identity.
        cluster: id of the cluster, 8 bytes.
        boot: which start of the node, 0 <= boot < 2**32.
        incarnation: 0 <= incarnation < 2**32.
    """
    return signing.sign(_CONTEXT, cluster + _STAMP.pack(boot, incarnation))


def is_proven(claim: Claim, cluster: bytes) -> bool:
    """Whether the node of `claim` itself went on to that incarnation."""
    if claim.incarnation == 0:
        return True
    stamp = _STAMP.pack(claim.boot, claim.incarnation)
    return verify(claim.node, _CONTEXT, cluster + stamp, claim.proof)


def claim_untrusted(value: object) -> Claim:
    """Read one claim; its proof is not checked.

    Raises:
        WireError: wrong shape or out of range. Nothing else.
    """
    # Not field by field, nor by a pattern, which takes six times as long: when many die, hundreds
    # of claims come with every message.
    if isinstance(value, list) and [*map(type, value[:_FIELDS])] == _TYPES:
        node, boot, incarnation, state, own, proof = value[:_FIELDS]
        if (
            len(node) == KEY_SIZE
            and 0 <= boot <= U32
            and 0 <= incarnation <= U32
            and 0 <= state < len(_STATES)
            # A proof is needed for an incarnation, and only for one.
            and len(proof) == (SIGNATURE_SIZE if incarnation else 0)
        ):
            return Claim(NodeId(node), boot, incarnation, _STATES[state], own, proof)
    raise WireError("claim: not node, boot, incarnation, state, own and proof within their limits")
