"""The private keys of authorities that this node holds, and which of them signs.

New certificates, removals and bases are signed with the key of the authority in use, if it is held.
A link that changes the list may be signed with any held key that is trusted: so the list can be
changed also when the key in use is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from overlay.catalog.trust import Trust
from overlay.keys import SigningKey


class Signers:
    """Holds keys; the list of authorities decides.

    Args:
        keys: those held.
        trust: the list, as it is known at the moment.
    """

    def __init__(self, keys: Iterable[SigningKey], trust: Callable[[], Trust]) -> None:
        self._keys: dict[bytes, SigningKey] = {key.public: key for key in keys}
        self._trust = trust

    def add(self, key: SigningKey) -> None:
        """Hold one more."""
        self._keys[key.public] = key

    def holds(self, public: bytes) -> bool:
        """Whether the private key of this authority is here."""
        return public in self._keys

    @property
    def is_locked(self) -> bool:
        """Whether some key that is held is locked: its passphrase was not said yet."""
        return any(key.is_locked for key in self._keys.values())

    @property
    def any(self) -> SigningKey | None:
        """Some key that is held, whatever it is to the cluster; None if there is none."""
        return next(iter(self._keys.values()), None)

    @property
    def in_use(self) -> SigningKey | None:
        """The key that signs; None if it is not here."""
        return self._keys.get(self._trust().in_use)

    def for_link(self, about: bytes) -> SigningKey | None:
        """The key to sign a link about an authority with; None if none is here that is trusted.

        The one in use, or another; that authority's own only if there is no other.
        """
        trust = self._trust()
        trusted = [key for public, key in self._keys.items() if trust.trusts(public)]
        ranked = sorted(trusted, key=lambda key: (key.public == about, key.public != trust.in_use))
        return next(iter(ranked), None)
