"""Keys and membership on disk."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import count
from pathlib import Path

import pytest

from node.founding import found_node
from node.identity import load_node, write_node
from node.journal import Journal, SystemCalls
from node.state import AUTHORITY, CLUSTER, IDENTITY, STATE, StateFolder
from overlay.effects import Persist
from overlay.errors import ConfigError
from overlay.state import NodeState


def make_node(name: str = "node1", seed: int = 0):
    numbers = count(seed)
    return found_node(
        name,
        cidr=ip_network("10.244.0.0/16"),
        cidr6=None,
        block_prefix=24,
        entropy=lambda size: bytes([next(numbers)]) * size,
        wall=1_700_000_000.0,
    )


@pytest.fixture
def folder(tmp_path) -> StateFolder:
    made = StateFolder(tmp_path)
    write_node(made, make_node())
    return made


def test_a_node_is_read_back_as_it_was_written(folder) -> None:
    node, loaded = make_node(), load_node(folder)
    assert loaded.identity.node == node.keys.signing.public
    assert loaded.identity.name == "node1"
    assert loaded.keys.static.seed == node.keys.static.seed
    assert loaded.cluster == node.cluster
    assert loaded.psk == node.psk
    assert loaded.certificate == node.certificate
    assert loaded.state == node.state
    assert [key.seed for key in loaded.authorities] == [key.seed for key in node.authorities]


def test_no_text_shows_a_secret() -> None:
    node, secret = make_node(), b"the secret of a token"
    state = replace(node.state, tokens=secret)
    stored = Persist(tuple(state.entries().items()))
    shown = repr(replace(node, state=state)) + repr(stored)
    keys = [node.keys.signing, node.keys.static, *node.authorities]
    for one in (node.psk, secret, *(key.seed for key in keys)):
        assert repr(one)[2:-1] not in shown
        assert one.hex() not in shown


def test_without_the_authoritys_key_there_is_none(tmp_path) -> None:
    folder = StateFolder(tmp_path)
    write_node(folder, replace(make_node(), authorities=()))
    assert load_node(folder).authorities == ()


def test_an_empty_folder_says_what_to_run_first(tmp_path) -> None:
    with pytest.raises(
        ConfigError, match="run muslin init, muslin join TOKEN or muslin cert request first"
    ):
        load_node(StateFolder(tmp_path))


@pytest.mark.parametrize("name", ["identity.key", "cluster", "state"])
def test_a_missing_file_is_named(folder, name) -> None:
    (folder.path / name).unlink()
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        load_node(folder)


@pytest.mark.parametrize("file", [IDENTITY, CLUSTER, AUTHORITY])
def test_a_file_with_the_wrong_content_is_named(folder, file) -> None:
    folder.write(file, b"not it")
    with pytest.raises(ConfigError, match=f"{file.name} is unusable"):
        load_node(folder)


def test_a_state_that_says_what_is_not_known_is_named(folder) -> None:
    path = folder.path / STATE.name
    Journal.create(path, {b"schema": b"\x91\x01", b"later": b""}).close()
    with pytest.raises(ConfigError, match="entry b'later' is not known"):
        load_node(folder)
    Journal.create(path, {b"schema": b"\x91\x02"}).close()
    with pytest.raises(ConfigError, match="newer Muslin"):
        load_node(folder)


def test_a_stored_certificate_of_another_node_is_noticed(folder) -> None:
    other = make_node("node9", seed=100).certificate.encode()
    Journal.create(folder.path / STATE.name, NodeState(certificate=other).entries()).close()
    with pytest.raises(ConfigError, match="the stored certificate is for other keys"):
        load_node(folder)


@pytest.mark.parametrize("file", [IDENTITY, AUTHORITY])
def test_a_key_of_another_node_is_noticed(folder, tmp_path, file) -> None:
    other = StateFolder(tmp_path / "other")
    other.create()
    write_node(other, make_node("node9", seed=100))
    folder.write(file, other.read(file))
    with pytest.raises(ConfigError, match="are of different nodes"):
        load_node(folder)


def test_half_a_key_file_of_another_node_is_noticed(folder) -> None:
    folder.write(IDENTITY, folder.read(IDENTITY)[:32] + bytes(32))
    with pytest.raises(ConfigError, match="are of different nodes"):
        load_node(folder)


def test_the_state_is_written_last(folder, monkeypatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(StateFolder, "write", lambda _, file, __: written.append(file.name))
    rename = SystemCalls.rename

    def renamed(calls: SystemCalls, source: Path, target: Path) -> None:
        written.append(target.name)
        rename(calls, source, target)

    monkeypatch.setattr(SystemCalls, "rename", renamed)
    write_node(folder, make_node())
    assert written[-1] == STATE.name
    assert set(written) == {"authority.key", "identity.key", "cluster", "state"}
