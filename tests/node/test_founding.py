"""How a node comes to be."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_network

import pytest

from node.config import NodeConfig, load_config
from node.errors import NodeError
from node.founding import (
    check_unused,
    found_node,
    node_name,
    reserved,
    settings_to_write,
    store_node,
)
from node.identity import load_node
from node.state import StateFolder
from overlay.catalog.trust import Trust
from overlay.errors import ConfigError
from overlay.state import NodeState
from overlay.types import Endpoint

WALL = 1_700_000_000.0


def found(**changes: object):
    arguments = {
        "cidr": ip_network("10.244.0.0/16"),
        "cidr6": ip_network("fd00::/48"),
        "block_prefix": 24,
        "entropy": os.urandom,
        "wall": WALL,
        **changes,
    }
    return found_node("vm1", **arguments)


def test_the_first_node_is_certified_by_its_own_cluster() -> None:
    node = found()
    node.cluster.verify()
    Trust.founded(node.cluster).check_certificate(node.certificate, WALL)
    assert node.cluster.genesis == node.certificate.node == node.keys.signing.public
    assert node.authorities
    assert node.authorities[0].public == node.cluster.authority


def test_the_first_node_s_name_is_taken_from_the_beginning() -> None:
    node = found()
    state = node.state
    assert b"vm1" in state.names
    assert replace(state, names=b"") == NodeState()


def test_two_clusters_share_nothing() -> None:
    one, two = found(), found()
    assert one.cluster.id != two.cluster.id
    assert one.psk != two.psk
    assert one.keys.static.seed != two.keys.static.seed


def test_ranges_that_do_not_fit_are_refused_with_the_flag() -> None:
    with pytest.raises(ConfigError) as caught:
        found(cidr=ip_network("127.0.0.0/8"))
    assert caught.value.key == "--cidr"


def test_the_name_defaults_to_the_host_without_its_domain(monkeypatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "VM1.example.org")
    assert node_name(None) == "vm1"
    assert node_name("other") == "other"


def test_a_host_name_that_is_no_name_asks_for_one(monkeypatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "my_host")
    with pytest.raises(ConfigError, match="my_host") as caught:
        node_name(None)
    assert caught.value.key == "--name"


def test_a_stored_node_is_found_again_with_its_settings(tmp_path) -> None:
    folder = StateFolder(tmp_path / "node")
    advertise = (Endpoint("192.0.2.1", 7000),)
    settings = settings_to_write(folder, Endpoint("::", 7000), advertise)
    node = found()
    with reserved(folder):
        store_node(folder, node, settings)
    assert load_node(folder).cluster == node.cluster
    config = load_config(folder.config, {})
    assert (config.listen, config.advertise) == (Endpoint("::", 7000), advertise)


def test_the_lifetime_of_certificates_holds_from_the_first_one_on(tmp_path) -> None:
    folder = StateFolder(tmp_path)
    assert found().certificate.not_after - WALL == NodeConfig().certificate_lifetime
    assert found(lifetime=86_400).certificate.not_after - WALL == 86_400
    settings = settings_to_write(folder, None, (), 7)
    assert settings is not None
    folder.config.write_text(settings)
    assert load_config(folder.config, {}).certificate_lifetime == 7 * 86_400
    with pytest.raises(ConfigError, match="says otherwise"):
        settings_to_write(folder, None, (), 8)


def test_defaults_need_no_file(tmp_path) -> None:
    assert settings_to_write(StateFolder(tmp_path), None, ()) is None
    assert settings_to_write(StateFolder(tmp_path), NodeConfig().listen, ()) is None


def test_a_file_of_the_operator_is_never_overwritten(tmp_path) -> None:
    folder = StateFolder(tmp_path)
    folder.config.write_text('listen = "[::]:7000"\n')
    assert settings_to_write(folder, Endpoint("::", 7000), ()) is None
    with pytest.raises(ConfigError, match="says otherwise") as caught:
        settings_to_write(folder, Endpoint("::", 8000), ())
    assert caught.value.key == "listen"


def test_a_used_folder_is_refused_before_and_while_holding_it(tmp_path) -> None:
    folder = StateFolder(tmp_path)
    with reserved(folder):
        store_node(folder, found(), None)
    with pytest.raises(NodeError, match="already holds a node") as caught:
        check_unused(folder)
    assert caught.value.code == "folder-used"
    with pytest.raises(NodeError, match="already holds a node"), reserved(folder):
        pass


def test_a_folder_made_in_vain_is_gone_again(tmp_path) -> None:
    folder = StateFolder(tmp_path / "node")
    with pytest.raises(KeyboardInterrupt), reserved(folder):
        raise KeyboardInterrupt
    assert not folder.path.exists()
    with pytest.raises(KeyboardInterrupt):
        _store_and_interrupt(folder)
    assert folder.used_by() is not None


def _store_and_interrupt(folder: StateFolder) -> None:
    with reserved(folder):
        store_node(folder, found(), None)
        raise KeyboardInterrupt


def test_a_folder_that_was_there_stays(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt), reserved(StateFolder(tmp_path)):
        raise KeyboardInterrupt
    assert tmp_path.is_dir()
