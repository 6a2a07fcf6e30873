"""Tests of node.authority_keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node import sealed
from node.authority_keys import MOST_KEYS, check_here, protect, read_keys, write_keys
from node.errors import NodeError
from node.identity import load_node, write_node
from node.sealed import WrongPassphraseError
from node.state import AUTHORITY, StateFolder
from overlay.errors import ConfigError, RefusedError
from overlay.keys import SigningKey
from overlay.wire.packing import pack
from tests.node.test_identity import make_node

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


# -- under a passphrase ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    """The cheapest parameters: what they cost is not the question here."""
    derive = sealed._derive
    monkeypatch.setattr(sealed, "_derive", lambda words, salt, *_: derive(words, salt, 1, 1, 1))


@pytest.fixture
def node(tmp_path) -> StateFolder:
    """The folder of a node whose authority is under a passphrase."""
    made = StateFolder(tmp_path)
    write_node(made, make_node(), "words")
    return made


def test_a_locked_key_is_known_and_signs_nothing(node) -> None:
    locked = read_keys(node)
    opened = read_keys(node, "words")
    assert [key.public for key in locked] == [key.public for key in opened]
    assert [key.is_locked for key in (*locked, *opened)] == [True, False]
    opened[0].sign("record", b"x")
    with pytest.raises(RefusedError) as caught:
        locked[0].sign("record", b"x")
    assert caught.value.code == "authority-locked"
    assert "muslin authority unlock" in caught.value.fix
    with pytest.raises(WrongPassphraseError):
        read_keys(node, "other")


def test_a_node_starts_with_its_key_locked(node) -> None:
    assert load_node(node) is not None
    seed = make_node().keys.signing.seed
    assert seed not in node.read(AUTHORITY)
    assert load_node(node, "words") is not None


def test_the_passphrase_is_set_changed_and_removed(node) -> None:
    with pytest.raises(NodeError) as caught:
        protect(node, None, "new")
    assert caught.value.code == "authority-locked"
    with pytest.raises(WrongPassphraseError):
        protect(node, "wrong", "new")
    protect(node, "words", "new")
    assert not read_keys(node, "new")[0].is_locked
    protect(node, "new", None)
    assert check_here(node) is False
    assert not read_keys(node)[0].is_locked
    protect(node, None, "again")
    assert read_keys(node)[0].is_locked


def test_where_there_is_no_key_there_is_nothing_to_protect(folder) -> None:
    for call in (check_here, lambda folder: protect(folder, None, "new")):
        with pytest.raises(NodeError) as caught:
            call(folder)
        assert caught.value.code == "not-authority"


def test_no_copy_of_the_key_is_left_in_the_folder_when_it_is_protected(tmp_path) -> None:
    folder = StateFolder(tmp_path)
    write_node(folder, make_node())
    (key,) = read_keys(folder)
    assert key.seed in (folder.path / "authority.key").read_bytes()
    protect(folder, None, "words")
    for path in folder.path.iterdir():
        assert key.seed not in path.read_bytes(), path
    assert os.listdir(tmp_path)


def test_other_keys_are_stored_under_the_passphrase_that_is_there(node) -> None:
    (own,) = read_keys(node, "words")
    for words, code in ((None, "authority-locked"), ("wrong", "wrong-passphrase")):
        with pytest.raises(NodeError) as caught:
            write_keys(node, [own, *KEYS], words)
        assert caught.value.code == code
    write_keys(node, [own, *KEYS], "words")
    assert [key.public for key in read_keys(node)] == [own.public, *(key.public for key in KEYS)]
    assert [key.seed for key in read_keys(node, "words")] == [own.seed, *(k.seed for k in KEYS)]
