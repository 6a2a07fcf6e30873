"""Certificates: the authority's word that a name, an identity and a handshake key belong together.

A node shows its certificate inside the handshake (encrypted) and in its record. Whoever has the
`Cluster` can check it without asking anybody.

    [1, node 32, static 32, name, cluster id 8, serial, not_before, not_after, issuer 32,
     [prefix, ...], signature 64]

The prefixes are outside routes that the node may advertise (`overlay.wire.routes`). `issuer` is the
authority's key. The signature, under that key, covers the packed array of all fields before it.
Encodings are canonical: bytes that decode but would be written differently are refused, so equal
certificates are equal bytes.

References:
    RFC 1123, section 2.1, and RFC 1035, section 2.3.1: which names are host names.
    The same split of identity key and handshake key as nebula's certificates; there the
    certificate also carries addresses, here those come from deeds (`overlay.ipam.deeds`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Self

from overlay.drops import DropReason
from overlay.errors import AuthError, ConfigError, ForgedError, WireError
from overlay.faults import Fault
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, StaticKey, verify
from overlay.types import NodeId, Prefix
from overlay.wire.cluster import CLUSTER_ID_SIZE, Cluster
from overlay.wire.packing import MAX_TIME, Fields, pack
from overlay.wire.routes import check_outside, pack_routes, routes_untrusted, sort_routes

# -- specification ---------------------------------------------------------------------------------

NAME_MAX: Final = 63
"""A DNS label. Names become host names in the pod network."""

CERTIFICATE_MAX: Final = 448
"""Encoded size limit; the fields add up to less. It travels in a handshake message,
which must fit one datagram on every path."""

_VERSION: Final = 1
_CONTEXT: Final = "certificate"
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the authority says of one node. Equal certificates have equal encodings."""

    node: NodeId
    """Ed25519 public key: signs the node's record and deeds."""
    static: bytes
    """X25519 public key of its handshakes, 32 bytes."""
    name: str
    cluster: bytes
    """Id of the one cluster it is valid in, 8 bytes."""
    serial: int
    """Grows by one with each certificate the authority issues; revocations will name it."""
    not_before: int
    """Unix seconds."""
    not_after: int
    """Unix seconds, the first at which it is no longer valid."""
    issuer: bytes
    """Ed25519 public key of the authority that signed it, 32 bytes."""
    routes: tuple[Prefix, ...]
    """Outside prefixes that the node may advertise, as `overlay.wire.routes` orders them."""
    signature: bytes
    """By the issuer, 64 bytes."""

    def encode(self) -> bytes:
        """The bytes that `decode_untrusted` reads."""
        return pack([*self._signed_fields(), self.signature])

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Self:
        """Read an encoded certificate. Nothing is proven yet: see `overlay.catalog.trust`.

        Raises:
            WireError: wrong shape, size, version or name, or not in canonical form. Nothing else.
        """
        fields = Fields.unpack_untrusted(data, CERTIFICATE_MAX, "certificate", version=_VERSION)
        certificate = cls(
            node=NodeId(fields.bytes(1, KEY_SIZE)),
            static=fields.bytes(2, KEY_SIZE),
            name=_name_untrusted(fields.text(3, NAME_MAX)),
            cluster=fields.bytes(4, CLUSTER_ID_SIZE),
            serial=fields.integer(5),
            not_before=fields.integer(6, high=MAX_TIME),
            not_after=fields.integer(7, high=MAX_TIME),
            issuer=fields.bytes(8, KEY_SIZE),
            routes=routes_untrusted(fields, 9),
            signature=fields.bytes(10, SIGNATURE_SIZE),
        )
        if certificate.encode() != data:
            raise WireError("certificate: not in canonical form")
        return certificate

    def check_time(self, wall: float) -> None:
        """Check that this is valid at `wall` (Unix seconds); who signed it is not asked.

        Raises:
            AuthError: it is not (BAD_CERTIFICATE); the message says why. Nothing else.
        """
        if wall < self.not_before:
            raise _bad(f"the certificate of {self.name} is not yet valid (is the clock right?)")
        if wall >= self.not_after:
            raise _bad(f"the certificate of {self.name} has expired")

    def verify_signature(self, cluster: Cluster) -> None:
        """Check that the issuer signed this, for `cluster`; whether it may is not asked.

        Raises:
            AuthError: it did not (BAD_CERTIFICATE); the message says why. Nothing else.
        """
        if self.cluster != cluster.id:
            raise _bad(f"the certificate of {self.name} is for another cluster")
        if not verify(self.issuer, _CONTEXT, self.signed_bytes(), self.signature):
            why = f"the certificate of {self.name} is not signed by its issuer"
            raise ForgedError(why, Fault.FORGED_CERTIFICATE)
        try:
            check_outside(self.routes, cluster)
        except ConfigError as error:
            raise _bad(f"the certificate of {self.name} allows too much: {error}") from error

    def signed_bytes(self) -> bytes:
        """What the signature covers (in context `certificate`, see `overlay.keys`)."""
        return pack(self._signed_fields())

    def _signed_fields(self) -> list[object]:
        return [
            _VERSION,
            self.node,
            self.static,
            self.name,
            self.cluster,
            self.serial,
            self.not_before,
            self.not_after,
            self.issuer,
            pack_routes(self.routes),
        ]


@dataclass(slots=True, eq=False)
class Identity:
    """Everything a node proves itself with: both private keys and the certificate over them.

    All parts of a node share one of these. The certificate is renewed while the node runs, so it is
    asked for whenever it is shown, and never kept.

    Raises:
        ConfigError: the certificate is for other keys (the state folder was mixed up). Nothing
            else.
    """

    signing: SigningKey
    static: StaticKey
    certificate: Certificate
    """The one in use."""
    kept: bytes = b""
    """The newest one that was granted since the node joined, encoded: what its state holds. Empty
    while there is none."""

    def __post_init__(self) -> None:
        ours = (self.signing.public, self.static.public)
        if ours != (self.certificate.node, self.certificate.static):
            raise ConfigError(f"the certificate of {self.name} is for other keys")

    @property
    def node(self) -> NodeId:
        """The node's identity: its Ed25519 public key."""
        return self.certificate.node

    @property
    def name(self) -> str:
        """The node's name, unique in its cluster."""
        return self.certificate.name

    def keep(self, certificate: Certificate) -> None:
        """A checked certificate that takes the place of the one in use, as soon as it is stored."""
        self.kept = certificate.encode()

    def use_kept(self) -> None:
        """What is kept is stored: show it from now on."""
        self.certificate = Certificate.decode_untrusted(self.kept)


def issue_certificate(
    authority: SigningKey,
    *,
    node: NodeId,
    static: bytes,
    name: str,
    cluster: bytes,
    serial: int,
    not_before: int,
    not_after: int,
    routes: Iterable[Prefix] = (),
) -> Certificate:
    """Make and sign a certificate.

    Whoever grants `routes` checks with `check_outside` that they lie outside the cluster; with
    others the certificate proves nothing.

    Raises:
        ConfigError: `name` cannot be a node's name, or `routes` not its routes. Nothing else.
    """
    unsigned = Certificate(
        node=node,
        static=static,
        name=check_name(name),
        cluster=cluster,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        issuer=authority.public,
        routes=sort_routes(routes),
        signature=b"",
    )
    return replace(unsigned, signature=authority.sign(_CONTEXT, unsigned.signed_bytes()))


def check_name(text: str) -> str:
    """`text`, if it can be the name of a node or a pod.

    Raises:
        ConfigError: it is no lower-case DNS label. Nothing else.

    >>> check_name("web-1")
    'web-1'
    """
    if len(text) > NAME_MAX or not _NAME.fullmatch(text):
        raise ConfigError(
            f"{text[:NAME_MAX]!r} is not a name: 1 to {NAME_MAX} of a-z, 0-9 and -, "
            "no - at either end"
        )
    return text


def _name_untrusted(text: str) -> str:
    try:
        return check_name(text)
    except ConfigError as error:
        raise WireError(f"certificate: {error}") from error


def _bad(message: str) -> AuthError:
    return AuthError(message, DropReason.BAD_CERTIFICATE)
