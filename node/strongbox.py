"""One stored file whose payload may be sealed under a passphrase: the keys of authorities.

    open      the payload is there as it is, or was opened with the passphrase
    locked    it is sealed, and nobody has said the passphrase since the process began

Who changes the payload writes it back as it was, sealed or not. While it is locked it cannot be
changed, only opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from node.errors import NodeError
from node.sealed import Seal, is_sealed, label_of, open_secret
from node.state import StateFolder, StoredFile
from overlay.errors import ConfigError
from overlay.types import Entropy


class Strongbox:
    """A file that may be sealed.

    Args:
        folder: where it is.
        file: which one; need not exist.
        entropy: makes salts and nonces.
    """

    def __init__(self, folder: StateFolder, file: StoredFile, entropy: Entropy) -> None:
        self._folder = folder
        self._file = file
        self._entropy = entropy
        self._seal: Seal | None = None

    @property
    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._folder.has(self._file)

    @property
    def is_sealed(self) -> bool:
        """Whether it is under a passphrase. Raises as `read`."""
        return is_sealed(self._folder.read(self._file))

    @property
    def label(self) -> bytes:
        """What it says of its payload while it is locked. Raises as `read`."""
        with self._named():
            return label_of(self._folder.read(self._file))

    def read(self, passphrase: str | None = None) -> bytes | None:
        """The payload; None if it is sealed and no passphrase was said, now or before.

        Args:
            passphrase: opens it; of no matter where it is not sealed.

        Raises:
            WrongPassphraseError: it does not open the file.
            ConfigError: missing, readable by others, or damaged; names the file. Nothing else.
        """
        payload = self._folder.read(self._file)
        if not is_sealed(payload):
            self._seal = None
            return payload
        if passphrase is None:
            return None
        with self._named():
            secret, self._seal = open_secret(payload, passphrase)
        return secret

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            path = self._folder.path / self._file.name
            if str(path) in str(error):
                raise
            raise ConfigError(f"{path} is unusable ({error}): restore it from a backup") from error

    def write(self, payload: bytes, label: bytes) -> None:
        """Replace the payload, sealed as it was.

        Args:
            payload: all of it.
            label: what may be read of it while it is locked.

        Raises:
            NodeError: it is locked (`authority-locked`), or the file system does not allow it.
                Nothing else.
        """
        if self._seal is None and self.exists and self.is_sealed:
            raise NodeError(
                "the authority's key is locked", "run muslin authority unlock", "authority-locked"
            )
        self._store(payload, label)

    def protect(self, payload: bytes, label: bytes, passphrase: str | None) -> None:
        """Write the payload under another passphrase, or under none.

        Args:
            payload: from `read`.
            label: what may be read of it while it is locked.
            passphrase: the new one, from `check_passphrase`; None: the file is not sealed any more.

        Raises:
            NodeError: the file system does not allow it; all is as it was then. Nothing else.
        """
        before = self._seal
        self._seal = None if passphrase is None else Seal.make(passphrase, self._entropy)
        try:
            self._store(payload, label)
        except NodeError:
            self._seal = before
            raise

    def _store(self, payload: bytes, label: bytes) -> None:
        seal = self._seal
        content = payload if seal is None else seal.close(payload, label, self._entropy)
        self._folder.write(self._file, content)
