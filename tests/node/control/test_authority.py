"""The authority's key through the control socket."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from node import sealed
from node.authority_keys import read_keys
from node.control.authority import Authority
from node.control.schema import ControlError
from node.errors import NodeError
from node.identity import write_node
from node.sealed import WrongPassphraseError
from node.state import StateFolder
from overlay.views import Problem
from tests.node.test_identity import make_node
from tests.support.daemon import FakeDaemon

LOCKED = Problem("authority-locked", "it is", "why", "fix")


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    derive = sealed._derive
    monkeypatch.setattr(sealed, "_derive", lambda words, salt, *_: derive(words, salt, 1, 1, 1))


@pytest.fixture
def daemon(tmp_path) -> FakeDaemon:
    made = FakeDaemon()
    made.folder = StateFolder(tmp_path)
    write_node(made.folder, make_node(), "words")
    made.engine.shot = replace(made.engine.shot, notices=(LOCKED,))
    return made


def ask(daemon: FakeDaemon, method: str, **params: object) -> object:
    return asyncio.run(Authority(daemon).methods[method](params))


def test_the_passphrase_gives_the_engine_its_key(daemon) -> None:
    (key,) = read_keys(daemon.folder, "words")
    assert ask(daemon, "authority.unlock", passphrase="words") == {"was_locked": True}
    assert daemon.engine.calls == [("hold_authority_key", key.public)]
    assert ask(daemon, "authority.unlock", passphrase="words") == {"was_locked": False}
    assert len(daemon.engine.calls) == 1


def test_a_wrong_passphrase_changes_nothing_and_is_in_no_error(daemon) -> None:
    with pytest.raises(WrongPassphraseError) as caught:
        ask(daemon, "authority.unlock", passphrase="hunter2")
    assert "hunter2" not in repr(caught.value)
    with pytest.raises(ControlError):
        ask(daemon, "authority.unlock")
    assert daemon.engine.calls == []


def test_protecting_writes_the_file_and_leaves_the_engine_alone(daemon) -> None:
    with pytest.raises(NodeError):
        ask(daemon, "authority.protect", old=None, new="others")
    assert ask(daemon, "authority.protect", old="words", new="others") == {"protected": True}
    assert not read_keys(daemon.folder, "others")[0].is_locked
    assert ask(daemon, "authority.protect", old="others", new=None) == {"protected": False}
    assert not read_keys(daemon.folder)[0].is_locked
    assert daemon.engine.calls == []


def test_without_a_key_there_is_nothing_to_unlock(daemon, tmp_path) -> None:
    daemon.folder = StateFolder(tmp_path / "other")
    with pytest.raises(NodeError) as caught:
        ask(daemon, "authority.unlock", passphrase="words")
    assert caught.value.code == "not-authority"
