"""Removals: an authority's word that a node is gone for ever, and who has heard it.

One gossip item per removed node, written by an authority alone:

    key      b"a" || node id 32
    version  1: it never changes
    body     signature 64 || content, by the signer, in context `removal`
    content  [1, cluster id 8, node 32, serial, name, time, signer 32]

The signer is the authority's public key. Whether it is trusted, or what it said still stands, is
not asked here (`overlay.catalog.trust`).

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

from overlay.catalog.trust import stored_trust
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
    signer: bytes = b""
    """Public key of the authority that says so, 32 bytes; filled in when it is signed."""


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
        authority: the key of the authority in use.
        removal: what is said.
        cluster: id of the cluster.
    """
    fields = [_FORMAT, cluster, removal.node, removal.serial, removal.name, removal.time]
    content = pack([*fields, authority.public])
    return removal_item(removal.node, authority.sign(_CONTEXT, content) + content)


def removal_item(node: NodeId, body: bytes) -> Item:
    """The item that says `body` of `node`."""
    return Item(removal_key(node), _VERSION, body)


def open_removal_untrusted(item: Item, cluster: Cluster) -> Removal:
    """Read a removal and check that the authority it names made it.

    Raises:
        WireError: the item is not the shape of a removal.
        ForgedError: that authority did not sign it. Nothing else.
    """
    removal = decode_removal_untrusted(item, cluster)
    if not verify(removal.signer, _CONTEXT, removal_content(item), item.body[:SIGNATURE_SIZE]):
        why = f"the removal of {removal.name} is not signed by its signer"
        raise ForgedError(why, Fault.FORGED_REMOVAL)
    return removal


def removal_content(item: Item) -> bytes:
    """What its authority signed."""
    return item.body[SIGNATURE_SIZE:]


def decode_removal_untrusted(item: Item, cluster: Cluster) -> Removal:
    """Read a removal without checking who wrote it: for items that were admitted before.

    Raises:
        WireError: wrong size or shape, another cluster's, or not the key's. Nothing else.
    """
    if len(item.body) > REMOVAL_MAX or item.version != _VERSION:
        raise WireError("removal: too large, or of another version")
    fields = Fields.unpack_untrusted(
        item.body[SIGNATURE_SIZE:], REMOVAL_MAX, "removal", count=7, version=_FORMAT
    )
    removal = Removal(
        node=NodeId(fields.bytes(2, KEY_SIZE)),
        serial=fields.integer(3),
        name=fields.text(4, NAME_MAX),
        time=fields.integer(5, high=MAX_TIME),
        signer=fields.bytes(6, KEY_SIZE),
    )
    if fields.bytes(1, CLUSTER_ID_SIZE) != cluster.id or item.key != removal_key(removal.node):
        raise WireError("removal: for another cluster or another key")
    return removal


def is_removed(items: Iterable[Item], cluster: Cluster, node: NodeId) -> bool:
    """Whether one of `items`, which are this node's own, is an authority's word on `node`."""
    items = tuple(items)
    trust = stored_trust(items, cluster)
    for item in items:
        if item.key != removal_key(node):
            continue
        try:
            removal = open_removal_untrusted(item, cluster)
        except (WireError, AuthError):
            return False
        return trust.standing(removal.signer) is not None
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
