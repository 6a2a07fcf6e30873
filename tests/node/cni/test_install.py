"""Installing: both files or neither, whole, and never over what is not ours."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from node.cni import install as installer
from node.cni.install import CONFIG, MARK, PROGRAM, install, launcher, remove
from node.errors import NodeError
from tests.support.cni import VERSIONS


@pytest.fixture
def places(tmp_path) -> tuple[Path, Path]:
    folders = tmp_path / "bin", tmp_path / "net.d"
    for folder in folders:
        folder.mkdir()
    return folders


def portmap(bin_dir: Path, *versions: str, text: str = "") -> None:
    """A plugin that says these versions."""
    said = text or json.dumps({"supportedVersions": versions})
    (bin_dir / "portmap").write_text(f"#!/bin/sh\necho '{said}'\n")
    (bin_dir / "portmap").chmod(0o755)


def listed(conf_dir: Path) -> dict[str, object]:
    return json.loads((conf_dir / CONFIG).read_text())


def names(*folders: Path) -> list[str]:
    return sorted(path.name for folder in folders for path in folder.iterdir())


def test_the_program_runs_and_speaks_all_versions(places) -> None:
    done = install(*places)
    assert names(*places) == [CONFIG, PROGRAM]
    ended = subprocess.run(
        [done.program], env={"CNI_COMMAND": "VERSION"}, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout)["supportedVersions"] == list(VERSIONS)
    assert ended.stderr == ""


def test_modes_do_not_depend_on_the_umask(places) -> None:
    before = os.umask(0o077)
    try:
        done = install(*places)
    finally:
        os.umask(before)
    assert stat.S_IMODE(done.program.stat().st_mode) == 0o755
    assert stat.S_IMODE(done.config.stat().st_mode) == 0o644


def test_without_portmap_the_daemon_opens_ports(places) -> None:
    assert not install(*places).portmap
    config = listed(places[1])
    assert (config["cniVersion"], config["cniVersions"]) == ("1.0.0", list(VERSIONS))
    assert config["name"] == "muslin"
    capabilities = {"ips": True, "bandwidth": True, "portMappings": True}
    assert config["plugins"] == [{"type": PROGRAM, "capabilities": capabilities}]


def test_portmap_is_chained_and_the_chain_speaks_what_it_speaks(places) -> None:
    portmap(places[0], "0.1.0", "0.4.0", "1.0.0")
    assert install(*places).portmap
    config = listed(places[1])
    assert (config["cniVersion"], config["cniVersions"]) == ("1.0.0", ["0.4.0", "1.0.0"])
    ours, theirs = config["plugins"]
    assert "portMappings" not in ours["capabilities"]
    assert theirs["capabilities"] == {"portMappings": True}


def test_portmap_can_be_left_out(places) -> None:
    portmap(places[0], "1.0.0")
    assert not install(*places, portmap=False).portmap


def test_folder_and_network_are_said(places) -> None:
    install(*places, state="/srv/node2", network="pods2")
    config = listed(places[1])
    assert config["name"] == "pods2"
    assert config["plugins"][0]["state"] == "/srv/node2"


@pytest.mark.parametrize("said", ["no json", "{}", '{"supportedVersions": 7}', "[]", "[" * 99_999])
def test_a_portmap_that_does_not_answer_stops_it(places, said) -> None:
    portmap(places[0], text=said)
    with pytest.raises(NodeError, match="portmap"):
        install(*places)
    assert names(*places) == ["portmap"]


def test_a_portmap_that_is_wanted_and_missing_or_too_old_stops_it(places) -> None:
    with pytest.raises(NodeError, match="cannot be run"):
        install(*places, portmap=True)
    portmap(places[0], "0.2.0")
    with pytest.raises(NodeError, match="speaks none"):
        install(*places)
    assert names(*places) == ["portmap"]


def test_installing_again_updates_both(places) -> None:
    install(*places)
    (places[0] / PROGRAM).write_text(f"old\n{MARK}\n")
    install(*places, network="other")
    assert "node.cni.plugin" in (places[0] / PROGRAM).read_text()
    assert listed(places[1])["name"] == "other"
    assert names(*places) == [CONFIG, PROGRAM]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "what", ["text", '{"plugins": [{"type": "bridge"}]}', "[]", "[" * 99_999, None]
)
def test_what_is_not_ours_stays(places, which, what) -> None:
    path = places[which] / (PROGRAM, CONFIG)[which]
    if what is None:
        path.mkdir()
    else:
        path.write_text(what)
    for act in (install, remove):
        with pytest.raises(NodeError) as caught:
            act(*places)
        assert caught.value.code == "not-ours"
    assert names(*places) == [path.name]
    assert what is None or path.read_text() == what


def test_a_link_is_not_ours(places) -> None:
    target = places[1] / "elsewhere"
    target.write_text(MARK)
    (places[0] / PROGRAM).symlink_to(target)
    with pytest.raises(NodeError, match="not ours"):
        install(*places)


@pytest.mark.parametrize("which", [0, 1])
def test_a_folder_that_is_missing_is_named(places, which) -> None:
    places[which].rmdir()
    with pytest.raises(NodeError, match=str(places[which])) as caught:
        install(*places)
    assert ("--bin-dir", "--conf-dir")[which] in caught.value.fix
    assert names(places[1 - which]) == []


@pytest.fixture
def full(monkeypatch) -> None:
    """The disk is full as soon as the configuration is written."""
    sync = os.fsync

    def refuse(handle: int) -> None:
        if CONFIG in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr("os.fsync", refuse)


@pytest.mark.usefixtures("full")
def test_a_configuration_that_cannot_be_written_leaves_no_program(places) -> None:
    with pytest.raises(NodeError, match="space"):
        install(*places)
    assert names(*places) == []


@pytest.mark.usefixtures("full")
def test_a_configuration_that_cannot_be_written_leaves_the_program_as_it_was(places) -> None:
    (places[0] / PROGRAM).write_text(f"old\n{MARK}\n")
    with pytest.raises(NodeError, match="space"):
        install(*places)
    assert (places[0] / PROGRAM).read_text() == f"old\n{MARK}\n"
    assert names(*places) == [PROGRAM]


def test_a_program_that_cannot_run_is_not_installed(places, monkeypatch) -> None:
    shutil.copy("/bin/false", places[0] / "python")
    monkeypatch.setattr("sys.executable", str(places[0] / "python"))
    with pytest.raises(NodeError, match=PROGRAM):
        install(*places)
    assert names(*places) == ["python"]


@pytest.mark.parametrize("where", ["with space", "x" * 300])
def test_an_interpreter_that_no_first_line_can_name_is_refused(where) -> None:
    with pytest.raises(NodeError, match="first line"):
        launcher(Path("/") / where / "python")


def test_a_launcher_without_its_package_says_so_as_json(places, monkeypatch) -> None:
    done = install(*places)
    text = done.program.read_text().replace(str(installer.__file__).rpartition("/node/")[0], "/x")
    done.program.write_text(text)
    ended = subprocess.run([done.program], capture_output=True, text=True, check=False, env={})
    assert (ended.returncode, ended.stderr) == (1, "")
    assert json.loads(ended.stdout)["code"] == 199


def test_removing_takes_both_and_only_them(places) -> None:
    install(*places)
    (places[1] / "99-other.conflist").write_text("{}")
    assert [path.name for path in remove(*places)] == [CONFIG, PROGRAM]
    assert names(*places) == ["99-other.conflist"]
    assert remove(*places) == ()


def test_configurations_in_front_are_named(places) -> None:
    for name in ("05-other.conflist", "10-muslin.conf", "20-later.conflist", "00-readme"):
        (places[1] / name).write_text("{}")
    assert install(*places).before == ("05-other.conflist", "10-muslin.conf")
