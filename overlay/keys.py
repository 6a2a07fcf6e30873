"""The two key pairs of a node, and the one way to sign.

Ed25519 signs records, deeds and certificates and *is* the node's identity; X25519 is the static
key of its Noise handshakes. Both are made from 32-byte seeds that the caller draws, because the
core has no randomness of its own.

Every signature covers a context string as well as the message, so that a signature over one kind
of object can never pass for another.

References:
    RFC 8032 (Ed25519), RFC 7748 (X25519).
    Chalkias, Garillot, Nikolaenko, "Taming the many EdDSAs" (2020), section 3: under a public key
    of low order one signature holds for many messages. RFC 8032 leaves the check to who verifies.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from overlay.errors import AuthError, RefusedError
from overlay.types import NodeId

LOCKED: Final = "the authority's key is locked"
UNLOCK: Final = "run muslin authority unlock on the node that holds it"

KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64


_WEAK: Final = frozenset(
    (int.from_bytes(bytes.fromhex(low), "little") | sign << 255).to_bytes(KEY_SIZE, "little")
    for sign in (0, 1)
    for low in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""All encodings of the points of low order, whether canonical or not."""


def is_weak(public: bytes) -> bool:
    """Whether an Ed25519 public key is a point of low order.

    Nobody has the private half of one, and everybody can make signatures that hold under it.
    """
    return public in _WEAK


class SigningKey:
    """An Ed25519 private key.

    Args:
        seed: 32 bytes, the RFC 8032 private key.
    """

    __slots__ = ("_private", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = NodeId(self._private.public_key().public_bytes_raw())

    @property
    def is_locked(self) -> bool:
        """Whether the private half is out of reach for now."""
        return False

    def sign(self, context: str, message: bytes) -> bytes:
        """A 64-byte signature over `message`, valid only in `context`.

        Raises:
            RefusedError: `authority-locked`, if `is_locked`. Nothing else.
        """
        return self._private.sign(_bound(context, message))


class LockedKey(SigningKey):
    """An Ed25519 key whose private half is here, but under a passphrase that nobody has said yet.

    It takes the place of the key until that is done, and signs nothing.

    Args:
        public: the public key, 32 bytes.
    """

    __slots__ = ()

    def __init__(self, public: bytes) -> None:
        self.public = NodeId(public)

    @property
    def is_locked(self) -> bool:
        """Whether the private half is out of reach for now."""
        return True

    def sign(self, context: str, message: bytes) -> bytes:
        """Nothing can be signed. Raises RefusedError: `authority-locked`."""
        raise RefusedError("authority-locked", LOCKED, UNLOCK)


def verify(public: bytes, context: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `public`'s over `message` in `context`. Never raises on bad input.

    No signature holds under a key that `is_weak`.
    """
    if is_weak(public):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _bound(context, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def _bound(context: str, message: bytes) -> bytes:
    # The zero byte cannot occur in a context, so (context, message) is encoded injectively.
    return b"muslin " + context.encode() + b"\0" + message


class StaticKey:
    """An X25519 private key.

    Args:
        seed: 32 bytes, clamped by the library as RFC 7748 asks.
    """

    __slots__ = ("_private", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._private = X25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        """The 32-byte shared secret with `public`.

        Raises:
            AuthError: `public` is not a key, or of low order (the secret would be all zero;
                RFC 7748, section 6.1). Nothing else.
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise AuthError("a public key of low order or wrong size") from error
