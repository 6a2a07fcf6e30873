"""The cluster itself: its address range, the authority's key, the founding node.

Made once by `muslin init`, signed by the authority, given to every node that joins, never changed.
All that must be the same everywhere is in here: who signs certificates, how addresses are cut into
blocks, and who owned all blocks in the beginning (the start of every chain of title, see
`overlay.ipam.deeds`).

    [1, id 8, authority 32, genesis 32, cidr 5, cidr6 17 or 0, block_prefix, created, signature 64]

A range is its network address followed by one byte of prefix length; an absent `cidr6` is empty.
The signature covers the packed array of all fields before it. The object is self-signed, so
`verify` alone proves only that it is whole; what makes it the right one is the authority's
fingerprint, which a joining node has from its token.

References:
    RFC 4193, section 3.2: how a random private IPv6 prefix is made.
    RFC 6890: the special ranges that cannot hold pods.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2s
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Self, TypeVar

from overlay.drops import DropReason
from overlay.errors import AuthError, ConfigError, WireError
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from overlay.types import Entropy, NodeId, Prefix
from overlay.wire.packing import MAX_TIME, Fields, pack

# -- specification ---------------------------------------------------------------------------------

CLUSTER_ID_SIZE: Final = 8
FINGERPRINT_SIZE: Final = 16
CLUSTER_MAX: Final = 256
"""Encoded size limit; the fields add up to less."""

_VERSION: Final = 1
_CONTEXT: Final = "cluster"
_PACKED_SIZE: Final = 5
_PACKED_SIZE6: Final = 17

DEFAULT_BLOCK_PREFIX: Final = 24
MAX_BLOCK_PREFIX: Final = 30
"""A /30 has four addresses: network, node, one pod, broadcast. Less holds no pod."""
MAX_BLOCK_BITS: Final = 16
"""At most 65,536 blocks: each may need a gossip item, and every node keeps them all."""
POD_PREFIX6: Final = 64
"""IPv6 blocks are always /64, the size that everything in IPv6 expects of a subnet."""

_UNUSABLE: Final = tuple(
    IPv4Network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
_UNUSABLE6: Final = tuple(IPv6Network(text) for text in ("::/8", "fe80::/10", "ff00::/8"))
"""`::/8` has the unspecified and the loopback address and everything that embeds IPv4."""

_Network = TypeVar("_Network", IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What every node of one cluster agrees on. Equal clusters have equal encodings."""

    id: bytes
    """8 random bytes; certificates and deeds are bound to it."""
    authority: bytes
    """Ed25519 public key that signs certificates, 32 bytes."""
    genesis: NodeId
    """The founding node; it owns every block that no deed has moved."""
    cidr: IPv4Network
    cidr6: IPv6Network | None
    block_prefix: int
    """Prefix length of an IPv4 block."""
    created: int
    """Unix seconds."""
    signature: bytes
    """By the authority, 64 bytes."""

    @property
    def authority_fingerprint(self) -> bytes:
        """What a join token says of the authority, 16 bytes."""
        return fingerprint_of(self.authority)

    def encode(self) -> bytes:
        """The bytes that `decode_untrusted` reads."""
        return pack([*self._signed_fields(), self.signature])

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Self:
        """Read an encoded cluster. Its signature is not checked: call `verify`.

        Raises:
            WireError: wrong shape, size, version or ranges, or not in canonical form. Nothing
                else.
        """
        fields = Fields.unpack_untrusted(data, CLUSTER_MAX, "cluster", version=_VERSION)
        cidr6 = fields.bytes(5, limit=17)
        cluster = cls(
            id=fields.bytes(1, CLUSTER_ID_SIZE),
            authority=fields.bytes(2, KEY_SIZE),
            genesis=NodeId(fields.bytes(3, KEY_SIZE)),
            cidr=_unpack_network(fields.bytes(4, 5), IPv4Network),
            cidr6=_unpack_network(cidr6, IPv6Network) if cidr6 else None,
            block_prefix=fields.integer(6),
            created=fields.integer(7, high=MAX_TIME),
            signature=fields.bytes(8, SIGNATURE_SIZE),
        )
        try:
            check_ranges(cluster.cidr, cluster.cidr6, cluster.block_prefix)
        except ConfigError as error:
            raise WireError(f"cluster: {error}") from error
        if cluster.encode() != data:
            raise WireError("cluster: not in canonical form")
        return cluster

    def verify(self) -> None:
        """Check that the authority named inside signed this.

        Raises:
            AuthError: it did not (BAD_CERTIFICATE). Nothing else.
        """
        if not verify(self.authority, _CONTEXT, self.signed_bytes(), self.signature):
            raise AuthError(
                "the cluster's description is not signed by its authority",
                DropReason.BAD_CERTIFICATE,
            )

    def signed_bytes(self) -> bytes:
        """What the signature covers (in context `cluster`, see `overlay.keys`)."""
        return pack(self._signed_fields())

    def _signed_fields(self) -> list[object]:
        return [
            _VERSION,
            self.id,
            self.authority,
            self.genesis,
            pack_network(self.cidr),
            pack_network(self.cidr6) if self.cidr6 is not None else b"",
            self.block_prefix,
            self.created,
        ]


def found_cluster(
    authority: SigningKey,
    *,
    genesis: NodeId,
    cidr: IPv4Network,
    cidr6: IPv6Network | None,
    block_prefix: int,
    created: int,
    entropy: Entropy,
) -> Cluster:
    """Make and sign a new cluster, with a random id.

    Raises:
        ConfigError: the ranges do not fit together (see `check_ranges`). Nothing else.
    """
    check_ranges(cidr, cidr6, block_prefix)
    unsigned = Cluster(
        id=entropy(CLUSTER_ID_SIZE),
        authority=authority.public,
        genesis=genesis,
        cidr=cidr,
        cidr6=cidr6,
        block_prefix=block_prefix,
        created=created,
        signature=b"",
    )
    return replace(unsigned, signature=authority.sign(_CONTEXT, unsigned.signed_bytes()))


def fingerprint_of(authority: bytes) -> bytes:
    """The 16-byte fingerprint of an authority's public key: BLAKE2s of it."""
    return blake2s(authority, digest_size=FINGERPRINT_SIZE).digest()


def random_ula(entropy: Entropy) -> IPv6Network:
    """A random private /48, the default for `--cidr6` (RFC 4193: fd00::/8 and 40 random bits).

    >>> random_ula(bytes)
    IPv6Network('fd00::/48')
    """
    return IPv6Network((b"\xfd" + entropy(5) + bytes(10), 48))


def check_ranges(cidr: IPv4Network, cidr6: IPv6Network | None, block_prefix: int) -> None:
    """Whether a cluster can live in these ranges.

    Raises:
        ConfigError: it cannot; `key` is `--cidr`, `--cidr6` or `--block-prefix`. Nothing else.
    """
    _check_usable(cidr, _UNUSABLE, "--cidr")
    if not cidr.prefixlen <= block_prefix <= MAX_BLOCK_PREFIX:
        raise ConfigError(
            f"a block of {cidr} is a /{cidr.prefixlen} to a /{MAX_BLOCK_PREFIX}, "
            f"not a /{block_prefix}",
            "--block-prefix",
        )
    bits = block_prefix - cidr.prefixlen
    if bits > MAX_BLOCK_BITS:
        raise ConfigError(
            f"{cidr} would have {1 << bits} blocks of /{block_prefix}; "
            f"{1 << MAX_BLOCK_BITS} is the most",
            "--block-prefix",
        )
    if cidr6 is None:
        return
    _check_usable(cidr6, _UNUSABLE6, "--cidr6")
    if cidr6.prefixlen + bits > POD_PREFIX6:
        raise ConfigError(
            f"{cidr6} has no room for {1 << bits} blocks of /{POD_PREFIX6}; "
            f"a /{POD_PREFIX6 - bits} has",
            "--cidr6",
        )


def _check_usable(network: _Network, unusable: tuple[_Network, ...], key: str) -> None:
    for special in unusable:
        if network.overlaps(special):
            raise ConfigError(f"{network} overlaps {special}, which cannot hold pods", key)


def pack_network(network: Prefix) -> bytes:
    """Network address, 4 or 16 bytes, and one byte of prefix length.

    >>> pack_network(IPv4Network("10.0.0.0/8")).hex()
    '0a00000008'
    """
    return network.network_address.packed + bytes([network.prefixlen])


def unpack_prefix(data: bytes) -> Prefix:
    """Read what `pack_network` wrote.

    Raises:
        WireError: neither 5 nor 17 bytes, too long a prefix, or host bits set. Nothing else.
    """
    if len(data) == _PACKED_SIZE:
        return _unpack_network(data, IPv4Network)
    if len(data) == _PACKED_SIZE6:
        return _unpack_network(data, IPv6Network)
    raise WireError(f"not an address range: {len(data)} bytes")


def _unpack_network(data: bytes, kind: type[_Network]) -> _Network:
    try:
        return kind((data[:-1], data[-1]))
    except ValueError as error:
        raise WireError(f"not an address range: {error}") from error
