"""Join tokens: all that a new machine needs to find the cluster and to be let in, in one line.

    muslin1-kdJ4mQf0...       one line (`overlay.wire.text`) around

     [id 16, secret 32, static 32, member 32, authority's fingerprint 16,
      [[host, port], ...], expires]

The secret is the pre-shared key of the one handshake it is good for; `static` is whom to shake
hands with (Noise IK needs the responder's key beforehand), and the fingerprint is how the joiner
recognises the authority: a member cannot invite anyone into a cluster of somebody else's.
The token is a secret until it is used or has expired.

References:
    Kubernetes' `kubeadm join` carries the same three things (address, one-time secret, hash of the
    CA key) as three arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from overlay.errors import ConfigError, WireError
from overlay.keys import KEY_SIZE
from overlay.types import Endpoint, NodeId
from overlay.wire.cluster import FINGERPRINT_SIZE
from overlay.wire.packing import MAX_TIME, U16, Fields, pack
from overlay.wire.text import LineKind

# -- specification ---------------------------------------------------------------------------------

TOKEN_ID_SIZE: Final = 16
TOKEN_SECRET_SIZE: Final = 32
MAX_ENDPOINTS: Final = 8
"""More would make the line unwieldy, and each one that does not answer costs the joiner time."""

_TEXT_MAX: Final = 2048
_LINE: Final = LineKind("muslin", "join token", "muslin token", _TEXT_MAX)
_HOST_MAX: Final = 45


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A decoded join token."""

    id: bytes
    """Names the secret to the member, in the clear: 16 random bytes."""
    secret: bytes
    """32 random bytes."""
    static: bytes
    """X25519 public key of the member that minted it, 32 bytes."""
    member: NodeId
    authority_fingerprint: bytes
    """16 bytes that name the list of authorities, see `overlay.catalog.trust.Trust`."""
    endpoints: tuple[Endpoint, ...]
    """Where the member may be reached, best first; 1 to `MAX_ENDPOINTS`."""
    expires: int
    """Unix seconds. For the error message only: the member decides."""

    def __str__(self) -> str:
        """The line that a person copies."""
        fields = [
            self.id,
            self.secret,
            self.static,
            self.member,
            self.authority_fingerprint,
            [[endpoint.host, endpoint.port] for endpoint in self.endpoints],
            self.expires,
        ]
        return _LINE.write(pack(fields))

    def __repr__(self) -> str:
        """Without the secret: tokens end up in error messages and logs."""
        return f"JoinToken({self.id.hex()}, expires {self.expires})"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote; surrounding white space is ignored.

        Raises:
            ConfigError: not a token, damaged, or of an unknown version. Nothing else.
        """
        packed = _LINE.read_untrusted(text)
        try:
            return cls._decode(packed)
        except WireError as error:
            raise ConfigError(
                f"the join token makes no sense ({error}): make another with muslin token"
            ) from error

    @classmethod
    def _decode(cls, packed: bytes) -> Self:
        fields = Fields.unpack_untrusted(packed, _TEXT_MAX, "token")
        endpoints = [
            _endpoint_untrusted(Fields(pair, "endpoint", 2))
            for pair in fields.sequence(5, MAX_ENDPOINTS)
        ]
        if not endpoints:
            raise WireError("token: no endpoint")
        return cls(
            id=fields.bytes(0, TOKEN_ID_SIZE),
            secret=fields.bytes(1, TOKEN_SECRET_SIZE),
            static=fields.bytes(2, KEY_SIZE),
            member=NodeId(fields.bytes(3, KEY_SIZE)),
            authority_fingerprint=fields.bytes(4, FINGERPRINT_SIZE),
            endpoints=tuple(endpoints),
            expires=fields.integer(6, high=MAX_TIME),
        )


def _endpoint_untrusted(pair: Fields) -> Endpoint:
    try:
        return Endpoint.of(pair.text(0, _HOST_MAX), pair.integer(1, 1, U16))
    except ValueError as error:
        raise WireError(f"endpoint: {error}") from error
