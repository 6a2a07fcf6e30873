"""The two ciphers that protect data, and how their keys follow from a handshake.

A handshake always uses ChaCha20-Poly1305. What protects the data afterwards is negotiated, because
AES-GCM is several times faster where the processor has AES instructions and slower where not.

    Noise Split()  ->  k1 (initiator to responder), k2 (responder to initiator), 32 bytes each
    transport key  =   BLAKE2s(key = k, data = "muslin transport " + name of the suite), 32 bytes

    of two lanes   k'   =   BLAKE2s(key = k, data = "muslin lane" + sender + receiver), 32 bytes

Hashing the name in means that the two suites never run under the same key, even if an attacker
could make the ends disagree about which one was chosen. Each pair of lanes but (0, 0) has a k' of
its own in place of k: no two processes of a node ever count nonces under one key.

    nonce          =   00 00 00 00 | counter, 8 bytes, big endian       (both suites)

References:
    NIST SP 800-38D (GCM); RFC 8439 (ChaCha20-Poly1305); RFC 7693 (BLAKE2s, keyed).
    Noise specification, revision 34, section 12. Differs from it: Noise counts little endian
    under ChaChaPoly. One byte order for both saves a case on the packet path, and is safe because
    a transport key belongs to one suite and one direction only.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2s
from typing import Final, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from overlay.wire.handshake import Suite as Suite  # offered on: this is where ciphers live

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
_LABEL: Final = b"muslin transport "
_LANE_LABEL: Final = b"muslin lane"

Buffer = bytes | bytearray | memoryview


class Aead(Protocol):
    """What both ciphers of the library offer: one call, no copy."""

    def encrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        """Seal `data` into `buf`, which must be exactly 16 bytes longer; return its size."""

    def decrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        """Open `data` into `buf`, which must be exactly 16 bytes shorter; return its size."""


_NAMES: Final = {
    Suite.AES_256_GCM: "AES-256-GCM",
    Suite.CHACHA20_POLY1305: "ChaCha20-Poly1305",
}


def suite_name(suite: Suite) -> str:
    """As people and the key derivation write it: `AES-256-GCM`, `ChaCha20-Poly1305`."""
    return _NAMES[suite]


def offered_suites(*, prefer_aes: bool) -> tuple[int, ...]:
    """What this node offers in an initiation, best first. ChaCha20-Poly1305 is always there."""
    if prefer_aes:
        return (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)
    return (Suite.CHACHA20_POLY1305,)


def choose_suite(offered: Sequence[int], *, prefer_aes: bool) -> Suite | None:
    """The responder's choice: AES only if both ends want it. None if there is nothing in common.

    Numbers this version does not know are passed over, so that suites can be added.
    """
    if prefer_aes and Suite.AES_256_GCM in offered:
        return Suite.AES_256_GCM
    return Suite.CHACHA20_POLY1305 if Suite.CHACHA20_POLY1305 in offered else None


def transport_key(split_key: bytes, suite: Suite) -> bytes:
    """The 32-byte key of one direction, from that direction's key of Noise's Split()."""
    return blake2s(
        _LABEL + suite_name(suite).encode(), key=split_key, digest_size=KEY_SIZE
    ).digest()


def lane_key(split_key: bytes, sender: int, receiver: int) -> bytes:
    """What takes the place of a direction's key of Split() for one pair of lanes, 32 bytes.

    Args:
        split_key: that direction's key of Noise's Split().
        sender: lane, 0 to 15.
        receiver: lane, 0 to 15. Not both 0: that pair uses the key itself.
    """
    info = _LANE_LABEL + bytes((sender, receiver))
    return blake2s(info, key=split_key, digest_size=KEY_SIZE).digest()


def make_aead(suite: Suite, key: bytes) -> Aead:
    """The cipher of `suite` under a 32-byte `key`."""
    return AESGCM(key) if suite == Suite.AES_256_GCM else ChaCha20Poly1305(key)
