"""Tests of node.authority_keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.authority_keys import MOST_KEYS, read_keys, write_keys
from node.state import AUTHORITY, StateFolder
from overlay.errors import ConfigError
from overlay.keys import SigningKey
from overlay.wire.packing import pack

KEYS = [SigningKey(bytes([number]) * 32) for number in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "state")
    made.create()
    return made


def test_keys_are_read_back_in_order(folder: StateFolder) -> None:
    assert read_keys(folder) == ()
    write_keys(folder, KEYS)
    assert [key.seed for key in read_keys(folder)] == [key.seed for key in KEYS]
    assert (folder.path / AUTHORITY.name).stat().st_mode & 0o077 == 0
    write_keys(folder, KEYS[1:])
    assert [key.seed for key in read_keys(folder)] == [key.seed for key in KEYS[1:]]


def test_without_keys_there_is_no_file(folder: StateFolder) -> None:
    write_keys(folder, KEYS)
    write_keys(folder, [])
    assert not (folder.path / AUTHORITY.name).exists()
    assert read_keys(folder) == ()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(32),
        pack([2, []]),
        pack([1, [bytes(31)]]),
        pack([1, "seeds"]),
        pack([1, [bytes(32)] * (MOST_KEYS + 1)]),
    ],
)
def test_a_damaged_file_is_named(folder: StateFolder, payload: bytes) -> None:
    folder.write(AUTHORITY, payload)
    with pytest.raises(ConfigError, match=r"authority\.key is unusable .* restore"):
        read_keys(folder)


def test_there_are_few_keys_on_a_node(folder: StateFolder) -> None:
    most = [SigningKey(bytes([number]) * 32) for number in range(MOST_KEYS)]
    write_keys(folder, most)
    assert len(read_keys(folder)) == MOST_KEYS
    with pytest.raises(ConfigError, match="17 keys"):
        write_keys(folder, [*most, KEYS[0]])
