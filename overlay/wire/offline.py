"""Certificates without a network: a request, and what comes back, each one line of text.

    new machine                                                     the authority's node
      | muslin-request1-...   public keys, name, own signature -------> |  by hand, mail, paper
      | <------ muslin-cert1-...  certificate, cluster, secret, items   |  sealed to the static key

    request   [1, node 32, static 32, name, cluster id 8 or 0, signature 64]
    grant     [1, cluster, certificate, psk 32 or 0, [[key, version, body], ...], signature 64]

A request has no secret. It is signed by the identity key in it, so nobody can ask for a certificate
over another's key; a cluster id says that the node is a member already and wants another
certificate. A grant is signed by the authority that issued the certificate in it, so its secret and
its items are the authority's word as well; it has no psk for one who is a member already. It
travels as one message of Noise N to the static key that was requested for (`overlay.offline`).

The items are gossip items: the list of authorities, removals, and records of members, by which the
new node finds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2s
from typing import Final, Self

from overlay.errors import AuthError, ConfigError, WireError
from overlay.keys import KEY_SIZE, SIGNATURE_SIZE, SigningKey, verify
from overlay.types import NodeId
from overlay.wire.authority import AUTHORITIES_KEY
from overlay.wire.certificate import CERTIFICATE_MAX, NAME_MAX, Certificate, check_name
from overlay.wire.cluster import CLUSTER_ID_SIZE, CLUSTER_MAX, Cluster
from overlay.wire.items import Item, item_untrusted
from overlay.wire.packing import Fields, pack
from overlay.wire.text import LineKind

# -- specification ---------------------------------------------------------------------------------

GRANT_LIMIT: Final = 160_000
"""Bytes of a grant: a list of authorities and a record of the largest size, and some more."""

GRANT_ITEMS_MAX: Final = 256

REQUEST_LINE: Final = LineKind(
    "muslin-request", "request for a certificate", "muslin cert request", 1024
)
GRANT_LINE: Final = LineKind("muslin-cert", "certificate", "muslin cert sign", 220_000)

_VERSION: Final = 1
_PSK_SIZE: Final = 32
REQUEST_CONTEXT: Final = "request"
GRANT_CONTEXT: Final = "grant"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What somebody who wants a certificate says of itself."""

    node: NodeId
    """Ed25519 public key."""
    static: bytes
    """X25519 public key, 32 bytes."""
    name: str
    cluster: bytes
    """Id of the cluster that it is a member of, 8 bytes; empty if it is new."""
    signature: bytes
    """By the node, 64 bytes."""

    @classmethod
    def sign(cls, signing: SigningKey, static: bytes, name: str, cluster: bytes = b"") -> Self:
        """The request of who has the key `signing`.

        Raises:
            ConfigError: `name` cannot be a node's name. Nothing else.
        """
        unsigned = cls(signing.public, static, check_name(name), cluster, b"")
        signature = signing.sign(REQUEST_CONTEXT, unsigned.signed_bytes())
        return replace(unsigned, signature=signature)

    def signed_bytes(self) -> bytes:
        """What the signature covers (in context `request`, see `overlay.keys`)."""
        return pack(self._fields())

    def _fields(self) -> list[object]:
        return [_VERSION, self.node, self.static, self.name, self.cluster]

    @property
    def fingerprint(self) -> bytes:
        """What people compare: whose keys these are, and the name. 16 bytes."""
        return blake2s(pack([self.node, self.static, self.name]), digest_size=16).digest()

    def __str__(self) -> str:
        """The line that a person copies."""
        return REQUEST_LINE.write(pack([*self._fields(), self.signature]))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote, and check its signature.

        Raises:
            ConfigError: not a request, damaged, or not signed by the key in it. Nothing else.
        """
        packed = REQUEST_LINE.read_untrusted(text)
        try:
            fields = Fields.unpack_untrusted(packed, len(packed), "request", version=_VERSION)
            cluster = fields.bytes(4, limit=CLUSTER_ID_SIZE)
            request = cls(
                node=NodeId(fields.bytes(1, KEY_SIZE)),
                static=fields.bytes(2, KEY_SIZE),
                name=check_name(fields.text(3, NAME_MAX)),
                cluster=cluster if not cluster else fields.bytes(4, CLUSTER_ID_SIZE),
                signature=fields.bytes(5, SIGNATURE_SIZE),
            )
        except WireError as error:
            raise ConfigError(f"the request makes no sense ({error}): make another") from error
        signed = request.signed_bytes()
        if not verify(request.node, REQUEST_CONTEXT, signed, request.signature):
            raise ConfigError("the request is not signed by the key in it: make another")
        return request


@dataclass(frozen=True, slots=True)
class Grant:
    """All that makes the keys of a request a node, before it is sealed."""

    cluster: Cluster
    certificate: Certificate
    psk: bytes = field(repr=False)
    """The cluster's pre-shared key, 32 bytes; empty for a node that is a member already."""
    items: tuple[Item, ...]
    """Gossip items to start with."""
    signature: bytes = b""
    """By the issuer of the certificate, 64 bytes."""

    @property
    def authorities(self) -> Item | None:
        """The item among them that is the list of authorities; None where that never changed."""
        return next((item for item in self.items if item.key == AUTHORITIES_KEY), None)

    def signed(self, authority: SigningKey) -> Grant:
        """The same with a signature of `authority`, which issued the certificate."""
        return replace(self, signature=authority.sign(GRANT_CONTEXT, self.signed_bytes()))

    def encode(self) -> bytes:
        """The bytes that `decode_untrusted` reads."""
        return pack([*self._fields(), self.signature])

    def signed_bytes(self) -> bytes:
        """What the signature covers (in context `grant`, see `overlay.keys`)."""
        return pack(self._fields())

    def _fields(self) -> list[object]:
        items = [list(item) for item in self.items]
        return [_VERSION, self.cluster.encode(), self.certificate.encode(), self.psk, items]

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Self:
        """Read an encoded grant. Nothing is proven yet: call `verify`.

        Raises:
            WireError: wrong shape or size. Nothing else.
        """
        fields = Fields.unpack_untrusted(data, GRANT_LIMIT, "grant", version=_VERSION)
        psk = fields.bytes(3, limit=_PSK_SIZE)
        return cls(
            cluster=Cluster.decode_untrusted(fields.bytes(1, limit=CLUSTER_MAX)),
            certificate=Certificate.decode_untrusted(fields.bytes(2, limit=CERTIFICATE_MAX)),
            psk=fields.bytes(3, _PSK_SIZE) if psk else b"",
            items=tuple(map(item_untrusted, fields.sequence(4, GRANT_ITEMS_MAX))),
            signature=fields.bytes(5, SIGNATURE_SIZE),
        )

    def verify(self) -> None:
        """Check that the issuer of the certificate signed all of this, and the certificate.

        Whether that issuer is an authority of the cluster, or the right one, is not asked.

        Raises:
            AuthError: it did not. Nothing else.
        """
        self.cluster.verify()
        self.certificate.verify_signature(self.cluster)
        signed = self.signed_bytes()
        if not verify(self.certificate.issuer, GRANT_CONTEXT, signed, self.signature):
            raise AuthError("what comes with the certificate is not signed by its issuer")
