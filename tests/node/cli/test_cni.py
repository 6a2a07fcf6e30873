"""`muslin cni` writes where it is told, and says what it did."""

from __future__ import annotations

import json

import pytest

from node.cli import cni
from node.cni import install as installer


@pytest.fixture
def places(tmp_path) -> list[str]:
    for name in ("bin", "net.d"):
        (tmp_path / name).mkdir()
    return ["--bin-dir", str(tmp_path / "bin"), "--conf-dir", str(tmp_path / "net.d")]


def test_the_folders_are_those_of_the_installer() -> None:
    assert (cni.BIN_DIR, cni.CONF_DIR) == (installer.BIN_DIR, installer.CONF_DIR)


def test_installed_and_removed(muslin, state, places, tmp_path) -> None:
    ran = muslin("cni", "install", *places)
    assert (ran.code, ran.err) == (0, "")
    config = json.loads((tmp_path / "net.d" / "10-muslin.conflist").read_text())
    assert config["plugins"][0]["state"] == str(state)
    assert "the daemon publishes ports" in ran.out
    ran = muslin("cni", "uninstall", *places)
    assert (ran.code, ran.err) == (0, "")
    assert list((tmp_path / "bin").iterdir()) == list((tmp_path / "net.d").iterdir()) == []
    assert "nothing of Muslin" in muslin("cni", "install", "--remove", *places).out


def test_a_missing_folder_is_one_line(muslin, places, tmp_path) -> None:
    (tmp_path / "bin").rmdir()
    ran = muslin("cni", "install", *places)
    assert (ran.code, ran.out) == (1, "")
    assert "there is no folder" in ran.err


def test_a_foreign_file_is_one_line(muslin, places, tmp_path) -> None:
    (tmp_path / "bin" / "muslin-cni").write_text("theirs")
    for verb in ("install", "uninstall"):
        ran = muslin("cni", verb, *places)
        assert (ran.code, ran.out) == (1, "")
        assert "is not ours" in ran.err


def test_a_network_needs_a_plain_name(muslin, places) -> None:
    assert muslin("cni", "install", "--network", "a/b", *places).code == 2


def test_a_configuration_in_front_is_told(muslin, places, tmp_path) -> None:
    (tmp_path / "net.d" / "05-x.conf").write_text("{}")
    ran = muslin("cni", "install", *places)
    assert ran.code == 0
    assert "05-x.conf" in ran.err
