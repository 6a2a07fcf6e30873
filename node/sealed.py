"""A secret at rest under a passphrase.

    b"muslin sealed " || msgpack [1, log2 N, r, p, salt 16, label, nonce 12, ciphertext]

    label       what may be read without the passphrase
    key         scrypt(passphrase, salt, N, r, p), 32 bytes
    ciphertext  ChaCha20-Poly1305(key, nonce, secret), with all that stands before it authenticated

The parameters stand in the file, so that they can be raised later; what a file may ask for is
bounded, because whoever could write it could otherwise have the daemon take all memory. Every
passphrase that is set draws a salt, every sealing a nonce.

A passphrase is the text of one line, in UTF-8. It is never an argument, never in the environment
itself, in no log and in no error.

References:
    RFC 7914 (scrypt). OWASP Password Storage Cheat Sheet, "scrypt": N = 2^15, r = 8, p = 3 is one
    of its equal choices; this one takes 32 MiB, which the smallest of machines has.
    RFC 8439 (ChaCha20-Poly1305).
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from node.errors import NodeError
from overlay.errors import ConfigError, WireError
from overlay.types import Entropy
from overlay.wire.packing import Fields, pack

# -- specification ---------------------------------------------------------------------------------

MAGIC: Final = b"muslin sealed "
SALT_SIZE: Final = 16
NONCE_SIZE: Final = 12
KEY_SIZE: Final = 32

COST: Final = 15
"""log2 of N."""
BLOCK: Final = 8
PARALLEL: Final = 3

LONGEST_PASSPHRASE: Final = 1024
"""Bytes."""

LARGEST_SECRET: Final = 64 << 10

_FORMAT: Final = 1
_MOST_COST: Final = 20
_MOST_BLOCK: Final = 16
_MOST_PARALLEL: Final = 16
"""At most 2 GiB, 128 * N * r bytes, and some seconds."""


class WrongPassphraseError(NodeError):
    """The passphrase does not open the secret; or the file was changed, which looks the same."""

    def __init__(self) -> None:
        super().__init__("the passphrase is wrong", "try again", code="wrong-passphrase")


def is_sealed(data: bytes) -> bool:
    """Whether `data` was made by `Seal.close`."""
    return data.startswith(MAGIC)


@dataclass(frozen=True, slots=True)
class Seal:
    """A passphrase, stretched: what a secret was opened with, to seal a changed one alike.

    Worth as much as the passphrase for this one file, and never written down.
    """

    salt: bytes
    key: bytes = field(repr=False)
    cost: int = COST
    block: int = BLOCK
    parallel: int = PARALLEL

    @classmethod
    def make(cls, passphrase: str, entropy: Entropy) -> Self:
        """Stretch a passphrase from `check_passphrase`; takes a moment, and 32 MiB."""
        salt = entropy(SALT_SIZE)
        return cls(salt, _derive(passphrase, salt, COST, BLOCK, PARALLEL))

    def close(self, secret: bytes, label: bytes, entropy: Entropy) -> bytes:
        """What to write down of `secret`; `label` stays readable."""
        header = [*self._header(), label, entropy(NONCE_SIZE)]
        sealed = ChaCha20Poly1305(self.key).encrypt(header[-1], secret, MAGIC + pack(header))
        return MAGIC + pack([*header, sealed])

    def _header(self) -> list[Any]:
        return [_FORMAT, self.cost, self.block, self.parallel, self.salt]


def label_of(data: bytes) -> bytes:
    """The label of what `is_sealed`. Nothing vouches for it before the secret is opened.

    Raises:
        ConfigError: damaged. Nothing else.
    """
    return _read(data).label


def open_secret(data: bytes, passphrase: str) -> tuple[bytes, Seal]:
    """The secret in `data`, which `is_sealed`, and what it was sealed with.

    Raises:
        WrongPassphraseError: the passphrase does not open it.
        ConfigError: damaged, or it asks for more than this Muslin does. Nothing else.
    """
    parts = _read(data)
    seal = parts.seal
    key = _derive(passphrase, seal.salt, seal.cost, seal.block, seal.parallel)
    try:
        secret = ChaCha20Poly1305(key).decrypt(parts.nonce, parts.ciphertext, parts.header)
    except InvalidTag:
        # Not "from": what was tried is in that error's frames.
        raise WrongPassphraseError from None
    return secret, replace(seal, key=key)


class _Parts(NamedTuple):
    seal: Seal
    label: bytes
    nonce: bytes
    ciphertext: bytes
    header: bytes


def _read(data: bytes) -> _Parts:
    try:
        fields = Fields.unpack_untrusted(
            data.removeprefix(MAGIC), 2 * LARGEST_SECRET, "sealed secret", version=_FORMAT
        )
        seal = Seal(
            salt=fields.bytes(4, SALT_SIZE),
            key=b"",
            cost=fields.integer(1, 1, _MOST_COST),
            block=fields.integer(2, 1, _MOST_BLOCK),
            parallel=fields.integer(3, 1, _MOST_PARALLEL),
        )
        label, nonce = fields.bytes(5, limit=LARGEST_SECRET), fields.bytes(6, NONCE_SIZE)
        ciphertext = fields.bytes(7, limit=2 * LARGEST_SECRET)
    except WireError as error:
        raise ConfigError(str(error)) from error
    header = [_FORMAT, seal.cost, seal.block, seal.parallel, seal.salt, label, nonce]
    return _Parts(seal, label, nonce, ciphertext, MAGIC + pack(header))


def _derive(passphrase: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    kdf = Scrypt(salt=salt, length=KEY_SIZE, n=1 << cost, r=block, p=parallel)
    key: bytes = kdf.derive(passphrase.encode())
    return key


# -- passphrases -----------------------------------------------------------------------------------


def check_passphrase(text: str) -> str:
    """`text`, if it can be a passphrase: one line of it.

    Raises:
        ConfigError: empty, or too long. Nothing else; no part of it is in the error.
    """
    if not text:
        raise ConfigError("the passphrase is empty")
    if len(text.encode()) > LONGEST_PASSPHRASE:
        raise ConfigError(f"the passphrase has more than {LONGEST_PASSPHRASE} bytes")
    return text


def read_passphrase(file: str) -> str:
    """The passphrase in the first line of a file, or of standard input for "-".

    A file must be its owner's alone, like a key; a systemd credential is.

    Raises:
        ConfigError: it is empty or too long, not UTF-8, or others may read the file.
        NodeError: the file cannot be read. Nothing else.
    """
    try:
        if file == "-":
            line = sys.stdin.buffer.readline(LONGEST_PASSPHRASE + 2)
        else:
            line = _first_line(file)
    except OSError as error:
        raise NodeError.of(f"reading {file}", error) from error
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ConfigError("the passphrase is not UTF-8") from None
    return check_passphrase(text.removesuffix("\n").removesuffix("\r"))


def configured_passphrase(file: str) -> str | None:
    """The passphrase in the file of the settings; None where none is set. Raises as above."""
    return read_passphrase(file) if file else None


def _first_line(file: str) -> bytes:
    with open(file, "rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            raise ConfigError(f"{file} holds a passphrase and others may read it: chmod 600 {file}")
        return stream.readline(LONGEST_PASSPHRASE + 2)
