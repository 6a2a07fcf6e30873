"""Every nonce that was ever sealed under, by key: a build of the cipher for tests writes them down.

    Keypair --> make_aead --> Watched --> the real cipher
                                 |
                                 '--> NonceLog: (key, nonce) once, and never again

The same key serves two objects, one that seals at one end and one that opens at the other. Only
sealing is written down; a key under which both ends sealed would show as a nonce used twice.
"""

from __future__ import annotations

import weakref
from hashlib import blake2s

import pytest

from overlay.session import transport
from overlay.session.suites import Aead, Buffer, Suite, make_aead

KEY_ID_SIZE = 8


class Watched:
    """A cipher under one key that says what it seals."""

    def __init__(self, log: NonceLog, key: bytes, cipher: Aead) -> None:
        self.key = blake2s(key, digest_size=KEY_ID_SIZE).digest()
        self._log = log
        self._cipher = cipher

    def encrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        self._log.sealed(self.key, bytes(nonce))
        return self._cipher.encrypt_into(nonce, data, associated_data, buf)

    def decrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        return self._cipher.decrypt_into(nonce, data, associated_data, buf)


class NonceLog:
    """All nonces by key, and the ciphers that still exist.

    Attributes:
        used: by key, named by its digest.
        twice: what was used a second time.
        alive: ciphers that somebody still holds.
        keys: every key that a cipher was made of, itself.
    """

    def __init__(self) -> None:
        self.used: dict[bytes, set[bytes]] = {}
        self.twice: list[tuple[bytes, bytes]] = []
        self.alive: weakref.WeakSet[Watched] = weakref.WeakSet()
        self.keys: list[bytes] = []

    def watch(self, patch: pytest.MonkeyPatch) -> NonceLog:
        """Have all keypairs from now on use watched ciphers."""
        patch.setattr(transport, "make_aead", self._make)
        return self

    def _make(self, suite: Suite, key: bytes) -> Watched:
        watched = Watched(self, key, make_aead(suite, key))
        self.alive.add(watched)
        self.keys.append(key)
        return watched

    def sealed(self, key: bytes, nonce: bytes) -> None:
        """A nonce is used under a key."""
        used = self.used.setdefault(key, set())
        if nonce in used:
            self.twice.append((key, nonce))
        used.add(nonce)

    @property
    def total(self) -> int:
        """Bursts sealed."""
        return sum(map(len, self.used.values())) + len(self.twice)
