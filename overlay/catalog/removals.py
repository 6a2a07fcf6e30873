"""Removals: the authority's word that a node is gone for ever, and who has heard it.

One gossip item per removed node, written by the authority alone:

    key      b"a" || node id 32
    version  1: it never changes
    body     signature 64 || content, by the authority, in context `removal`
    content  [1, cluster id 8, node 32, serial, name, time]

It revokes the node's certificate: every certificate, should it get others. Whoever has the item
takes no notice of the node's record, routes nothing to it, and refuses its handshakes.

Each node's record carries a fingerprint of the removals it knows, its *acknowledgement*:

    XOR over all removed nodes of BLAKE2s-8(node id); 8 zero bytes while there are none

Equal fingerprints mean equal sets. So the authority's node can tell when everybody knows, and only
then takes the blocks of the removed node (`overlay.landlord`).

References:
    RFC 5280, section 5: a revocation names the certificate and is signed by its issuer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

from overlay.errors import AuthError, ForgedError, WireError
from overlay.faults import Fault
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from overlay.types import NodeId
from overlay.wire.certificate import NAME_MAX
from overlay.wire.cluster import CLUSTER_ID_SIZE, Cluster
from overlay.wire.items import Item
from overlay.wire.packing import MAX_TIME, Fields, pack

# -- specification ---------------------------------------------------------------------------------

REMOVAL_MAX: Final = 256
"""Bytes of a body; the fields add up to less."""

ACKNOWLEDGEMENT_SIZE: Final = 8

NO_REMOVALS: Final = bytes(ACKNOWLEDGEMENT_SIZE)
"""The acknowledgement of a node that knows of no removal."""

_FORMAT: Final = 1
_CONTEXT: Final = "removal"
_VERSION: Final = 1
_PREFIX: Final = b"a"


@dataclass(frozen=True, slots=True)
class Removal:
    """One node that an operator has removed."""

    node: NodeId
    serial: int
    """Of its certificate; 0 if the authority's node did not know it."""
    name: str
    time: int
    """Unix seconds."""


def removal_key(node: NodeId) -> bytes:
    """The item key of a node's removal."""
    return _PREFIX + node


def removed_of_key(key: bytes) -> NodeId | None:
    """Whose removal has this key; None if it is no removal's.

    >>> removed_of_key(removal_key(NodeId(bytes(32)))) == bytes(32)
    True
    """
    if key[:1] != _PREFIX or len(key) != 1 + KEY_SIZE:
        return None
    return NodeId(key[1:])


def sign_removal(authority: SigningKey, removal: Removal, *, cluster: bytes) -> Item:
    """The item that tells everyone. Store it before it is sent.

    Args:
        authority: the authority's key.
        removal: what is said.
        cluster: id of the cluster.
    """
    fields = [_FORMAT, cluster, removal.node, removal.serial, removal.name, removal.time]
    content = pack(fields)
    return removal_item(removal.node, authority.sign(_CONTEXT, content) + content)


def removal_item(node: NodeId, body: bytes) -> Item:
    """The item that says `body` of `node`."""
    return Item(removal_key(node), _VERSION, body)


def open_removal_untrusted(item: Item, cluster: Cluster) -> Removal:
    """Read a removal and check that the authority made it.

    Raises:
        WireError: the item is not the shape of a removal.
        ForgedError: the authority did not sign it. Nothing else.
    """
    removal = decode_removal_untrusted(item, cluster)
    signature, content = item.body[:SIGNATURE_SIZE], item.body[SIGNATURE_SIZE:]
    if not verify(cluster.authority, _CONTEXT, content, signature):
        why = f"the removal of {removal.name} is not signed by the authority"
        raise ForgedError(why, Fault.FORGED_REMOVAL)
    return removal


def decode_removal_untrusted(item: Item, cluster: Cluster) -> Removal:
    """Read a removal without checking who wrote it: for items that were admitted before.

    Raises:
        WireError: wrong size or shape, another cluster's, or not the key's. Nothing else.
    """
    if len(item.body) > REMOVAL_MAX or item.version != _VERSION:
        raise WireError("removal: too large, or of another version")
    fields = Fields.unpack_untrusted(
        item.body[SIGNATURE_SIZE:], REMOVAL_MAX, "removal", count=6, version=_FORMAT
    )
    removal = Removal(
        node=NodeId(fields.bytes(2, KEY_SIZE)),
        serial=fields.integer(3),
        name=fields.text(4, NAME_MAX),
        time=fields.integer(5, high=MAX_TIME),
    )
    if fields.bytes(1, CLUSTER_ID_SIZE) != cluster.id or item.key != removal_key(removal.node):
        raise WireError("removal: for another cluster or another key")
    return removal


def is_removed(items: Iterable[Item], cluster: Cluster, node: NodeId) -> bool:
    """Whether one of `items` is the authority's word that `node` is removed."""
    for item in items:
        if item.key != removal_key(node):
            continue
        try:
            open_removal_untrusted(item, cluster)
        except (WireError, AuthError):
            return False
        return True
    return False


def acknowledgement(removed: Iterable[NodeId]) -> bytes:
    """Eight bytes that are equal for equal sets of removed nodes, in any order.

    >>> acknowledgement([]) == NO_REMOVALS
    True
    """
    mixed = 0
    for node in removed:
        digest = blake2s(node, digest_size=ACKNOWLEDGEMENT_SIZE).digest()
        mixed ^= int.from_bytes(digest, "big")
    return mixed.to_bytes(ACKNOWLEDGEMENT_SIZE, "big")
