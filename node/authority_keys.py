"""The private keys of authorities, on disk.

    authority.key    msgpack [1, [seed 32, ...]], the seeds of Ed25519 keys

The file is there where the cluster was founded, and wherever else a key is kept. Which of the keys
signs, and whether one is trusted at all, the list of authorities says (`overlay.catalog.trust`), so
a key may lie here before the cluster trusts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from node.state import AUTHORITY, StateFolder
from overlay.errors import ConfigError, WireError
from overlay.keys import KEY_SIZE, SigningKey
from overlay.wire.packing import Fields, pack

MOST_KEYS: Final = 16

_FORMAT: Final = 1
_LARGEST: Final = MOST_KEYS * (KEY_SIZE + 2) + 16


def write_keys(folder: StateFolder, keys: Sequence[SigningKey]) -> None:
    """Store these keys in place of those that are there; without any, leave no file.

    Raises:
        ConfigError: more than `MOST_KEYS`.
        NodeError: the file system does not allow it. Nothing else.
    """
    if len(keys) > MOST_KEYS:
        raise ConfigError(f"{len(keys)} keys of authorities: {MOST_KEYS} is the most")
    if keys:
        folder.write(AUTHORITY, pack([_FORMAT, [key.seed for key in keys]]))
    else:
        folder.remove(AUTHORITY)


def read_keys(folder: StateFolder) -> tuple[SigningKey, ...]:
    """The keys that are stored; none where there is no file.

    Raises:
        ConfigError: the file is damaged.
        NodeError: it may not be read. Nothing else.
    """
    if not folder.has(AUTHORITY):
        return ()
    try:
        fields = Fields.unpack_untrusted(folder.read(AUTHORITY), _LARGEST, version=_FORMAT)
        seeds = Fields(fields.sequence(1, MOST_KEYS), "keys")
        return tuple(SigningKey(seeds.bytes(place, KEY_SIZE)) for place in range(len(seeds)))
    except WireError as error:
        path = folder.path / AUTHORITY.name
        raise ConfigError(f"{path} is unusable ({error}): restore it from a backup") from error
