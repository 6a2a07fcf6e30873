"""The private keys of authorities: on disk, under a passphrase or not, and out of reach.

    authority.key    msgpack [1, [seed 32, ...]], the seeds of Ed25519 keys; may be sealed

                     --passphrase-file, or none is set
    authority.key -----------------------------------------> keys that sign
          |                                                        ^
          '-- nobody has said it --> locked keys -- authority unlock

The file is there where the cluster was founded, and wherever else a key is kept. Which of the keys
signs, and whether one is trusted at all, the list of authorities says (`overlay.catalog.trust`), so
a key may lie here before the cluster trusts it.

A locked key stands for one that signs nothing yet (`overlay.keys.LockedKey`): the node starts, and
carries packets, without anybody at its keyboard. Which keys there are can be read all the time: the
public ones are the label of the sealed file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from node.errors import NodeError
from node.state import AUTHORITY, StateFolder
from node.strongbox import Strongbox
from overlay.errors import ConfigError, WireError
from overlay.keys import KEY_SIZE, LockedKey, SigningKey
from overlay.wire.packing import Fields, pack

MOST_KEYS: Final = 16

_FORMAT: Final = 1
_LARGEST: Final = MOST_KEYS * (KEY_SIZE + 2) + 16


def write_keys(
    folder: StateFolder, keys: Sequence[SigningKey], passphrase: str | None = None
) -> None:
    """Store these keys in place of those that are there; without any, leave no file.

    Args:
        folder: of the node.
        keys: all of them, none locked.
        passphrase: of the file that is there, if it has one; else of the new file, or None.

    Raises:
        ConfigError: more than `MOST_KEYS`.
        WrongPassphraseError: it is not that of the file.
        NodeError: the file has a passphrase and none was said (`authority-locked`), or the file
            system does not allow it. Nothing else.
    """
    if len(keys) > MOST_KEYS:
        raise ConfigError(f"{len(keys)} keys of authorities: {MOST_KEYS} is the most")
    if not keys:
        folder.remove(AUTHORITY)
        return
    box = _box(folder)
    if box.exists:
        box.read(passphrase)
        box.write(_pack(keys), _label(keys))
    else:
        box.protect(_pack(keys), _label(keys), passphrase)


def read_keys(folder: StateFolder, passphrase: str | None = None) -> tuple[SigningKey, ...]:
    """The keys; locked ones if they are under a passphrase that is not said. None without a file.

    Raises:
        WrongPassphraseError: it is said, and is wrong.
        ConfigError: the file is damaged.
        NodeError: it may not be read. Nothing else.
    """
    box = _box(folder)
    if not box.exists:
        return ()
    payload = box.read(passphrase)
    if payload is not None:
        return _unpack(folder, payload)
    publics = box.label
    return tuple(LockedKey(publics[at : at + KEY_SIZE]) for at in range(0, len(publics), KEY_SIZE))


def check_here(folder: StateFolder) -> bool:
    """Whether the keys, which must be here, are under a passphrase.

    Raises:
        NodeError: there are none here (`not-authority`).
        ConfigError: the file is damaged. Nothing else.
    """
    box = _box(folder)
    if not box.exists:
        why, fix = (
            "this node holds no authority's key",
            "run it where the key is, at first where muslin init ran",
        )
        raise NodeError(why, fix, "not-authority")
    return box.is_sealed


def protect(folder: StateFolder, old: str | None, new: str | None) -> None:
    """Put the keys under another passphrase, or under none.

    Args:
        folder: of the node; the keys are here.
        old: the present one, if there is one.
        new: the next one, or None.

    Raises:
        WrongPassphraseError: `old` is not the present one.
        NodeError: there are no keys here, `old` is needed (`authority-locked`), or the file system
            does not allow it.
        ConfigError: the file is damaged. Nothing else.
    """
    check_here(folder)
    box = _box(folder)
    payload = box.read(old)
    if payload is None:
        why, fix = "the authority's key has a passphrase already", "say the present one as well"
        raise NodeError(why, fix, "authority-locked")
    box.protect(payload, _label(_unpack(folder, payload)), new)


def _box(folder: StateFolder) -> Strongbox:
    return Strongbox(folder, AUTHORITY, os.urandom)


def _label(keys: Sequence[SigningKey]) -> bytes:
    return b"".join(key.public for key in keys)


def _pack(keys: Sequence[SigningKey]) -> bytes:
    return pack([_FORMAT, [key.seed for key in keys]])


def _unpack(folder: StateFolder, payload: bytes) -> tuple[SigningKey, ...]:
    try:
        fields = Fields.unpack_untrusted(payload, _LARGEST, version=_FORMAT)
        seeds = Fields(fields.sequence(1, MOST_KEYS), "keys")
        return tuple(SigningKey(seeds.bytes(place, KEY_SIZE)) for place in range(len(seeds)))
    except WireError as error:
        path = folder.path / AUTHORITY.name
        raise ConfigError(f"{path} is unusable ({error}): restore it from a backup") from error
