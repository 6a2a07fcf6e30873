"""One line of text around packed bytes: what people copy from one machine to another.

    muslin1-kdJ4mQf0...       a word, the version, "-", then base64url without padding of

     0                                     n               n + 4
     +-------------------------------------+---------------+
     | packed array                        | checksum 4    |   BLAKE2s of the array
     +-------------------------------------+---------------+

The checksum only catches bad copying. No part of a line is ever in an error: it may be a secret.

References:
    RFC 4648, section 5: base64url.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

from overlay.errors import ConfigError

_CHECKSUM_SIZE: Final = 4


@dataclass(frozen=True, slots=True)
class LineKind:
    """One kind of line."""

    word: str
    """What it begins with, in front of the version: `muslin`."""
    what: str
    """What people call it: `join token`."""
    source: str
    """The verb that prints it: `muslin token`."""
    longest: int
    """Characters of the longest one."""
    version: int = 1

    @property
    def prefix(self) -> str:
        """What every line of this kind and version begins with."""
        return f"{self.word}{self.version}-"

    def write(self, packed: bytes) -> str:
        """The line around `packed`."""
        return self.prefix + _encode(packed + _checksum(packed))

    def read_untrusted(self, text: str) -> bytes:
        """The packed bytes inside a line; surrounding white space is ignored.

        Raises:
            ConfigError: not such a line, damaged, or of an unknown version. Nothing else.
        """
        text = text.strip()
        version = re.match(rf"{self.word}([0-9]+)-", text)
        if version is None or len(text) > self.longest:
            raise ConfigError(
                f"this is not a {self.what}: copy the line that {self.source} prints, "
                f"{self.prefix}..."
            )
        if not text.startswith(self.prefix):
            raise ConfigError(
                f"this {self.what} is of version {version[1][:9]}, only {self.version} is known: "
                "upgrade this Muslin"
            )
        data = self._decode_untrusted(text.removeprefix(self.prefix))
        return data[:-_CHECKSUM_SIZE]

    def _decode_untrusted(self, text: str) -> bytes:
        damaged = ConfigError(f"the {self.what} is damaged: copy the whole line again")
        if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
            raise damaged
        try:
            data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:  # binascii.Error is one: a length that base64 never has
            raise damaged from None
        # The last character may hold bits that decoding ignores; writing it again shows a change.
        whole = _checksum(data[:-_CHECKSUM_SIZE]) == data[-_CHECKSUM_SIZE:]
        if not whole or _encode(data) != text:
            raise damaged
        return data


def _checksum(packed: bytes) -> bytes:
    return blake2s(packed, digest_size=_CHECKSUM_SIZE).digest()


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
