"""A file that may be sealed stays as it is, sealed or not, whoever changes what is in it."""

from __future__ import annotations

import os

import pytest

from node import sealed
from node.errors import NodeError
from node.sealed import WrongPassphraseError
from node.state import AUTHORITY, StateFolder
from node.strongbox import Strongbox
from overlay.errors import ConfigError

SECRET = b"k" * 32
LABEL = b"label"


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    """The cheapest parameters: what they cost is not the question here."""
    derive = sealed._derive
    monkeypatch.setattr(sealed, "_derive", lambda words, salt, *_: derive(words, salt, 1, 1, 1))


@pytest.fixture
def folder(tmp_path) -> StateFolder:
    return StateFolder(tmp_path)


@pytest.fixture
def box(folder) -> Strongbox:
    made = Strongbox(folder, AUTHORITY, os.urandom)
    made.write(SECRET, LABEL)
    return made


def anew(folder: StateFolder) -> Strongbox:
    return Strongbox(folder, AUTHORITY, os.urandom)


def test_without_a_passphrase_it_is_an_ordinary_file(box, folder) -> None:
    assert (box.exists, box.is_sealed) == (True, False)
    assert folder.read(AUTHORITY) == SECRET
    assert anew(folder).read() == anew(folder).read("whatever") == SECRET


def test_with_one_it_is_locked_until_the_passphrase_is_said(box, folder) -> None:
    box.protect(SECRET, LABEL, "words")
    assert SECRET not in (folder.path / "authority.key").read_bytes()
    other = anew(folder)
    assert (other.is_sealed, other.read(), other.label) == (True, None, LABEL)
    with pytest.raises(NodeError) as caught:
        other.write(b"new", b"2")
    assert caught.value.code == "authority-locked"
    with pytest.raises(WrongPassphraseError):
        other.read("wrong")
    assert other.read("words") == SECRET
    other.write(b"new", b"2")
    assert anew(folder).read("words") == b"new"
    box.write(b"newer", b"3")
    assert anew(folder).read("words") == b"newer", "whoever has set it can go on writing"


def test_the_passphrase_is_changed_and_taken_away(box, folder) -> None:
    box.protect(SECRET, LABEL, "words")
    box.protect(SECRET, LABEL, "others")
    with pytest.raises(WrongPassphraseError):
        anew(folder).read("words")
    assert anew(folder).read("others") == SECRET
    box.protect(SECRET, LABEL, None)
    assert anew(folder).read() == SECRET


def test_what_cannot_be_stored_changes_nothing(box, folder, monkeypatch) -> None:
    box.protect(SECRET, LABEL, "words")
    before = folder.read(AUTHORITY)

    def full(*_: object) -> None:
        raise NodeError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(StateFolder, "write", full)
        with pytest.raises(NodeError, match="no space"):
            box.protect(SECRET, LABEL, "others")
    assert folder.read(AUTHORITY) == before
    box.write(SECRET, LABEL)
    assert anew(folder).read("words") == SECRET


def test_damage_is_named_with_the_file(box, folder) -> None:
    folder.write(AUTHORITY, sealed.MAGIC + b"\xc1")
    with pytest.raises(ConfigError, match=r"authority.key is unusable .* restore it from a backup"):
        box.read("words")
    (folder.path / "authority.key").unlink()
    assert not box.exists
    with pytest.raises(ConfigError, match="is missing"):
        box.read()
