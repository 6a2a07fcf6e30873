"""Who signed what: everything that a key of this world ever signed.

A simulation can know what no node can: whether an owner really said what its signature claims. So
it does not verify signatures, it looks them up; a check of signatures that is broken shows at once.
"""

from __future__ import annotations

from overlay.keys import SigningKey


class Notary:
    """Makes keys, and remembers what they sign."""

    __slots__ = ("_signed",)

    def __init__(self) -> None:
        self._signed: set[tuple[bytes, bytes]] = set()

    def key(self, seed: bytes) -> SigningKey:
        """The key of this 32-byte seed."""
        return _NotedKey(seed, self)

    def signed(self, public: bytes, message: bytes) -> bool:
        """Whether the owner of `public` ever signed `message`."""
        return (public, message) in self._signed

    def note(self, public: bytes, message: bytes) -> None:
        """The owner of `public` signs `message`."""
        self._signed.add((public, message))


class _NotedKey(SigningKey):
    """A key whose every signature is noted."""

    __slots__ = ("_notary",)

    def __init__(self, seed: bytes, notary: Notary) -> None:
        super().__init__(seed)
        self._notary = notary

    def sign(self, context: str, message: bytes) -> bytes:
        self._notary.note(self.public, message)
        return super().sign(context, message)
