"""The state folder, including what a crash or a full disk leaves behind."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import NodeError
from node.state import (
    CLUSTER,
    IDENTITY,
    StateFolder,
    StoredFile,
    seal,
    set_aside,
    sign_lock,
    unseal,
)
from overlay.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path / "deep" / "node")
    made.create()
    return made


def test_what_was_written_is_read_back_and_nobody_else_can_read_it(folder) -> None:
    folder.write(CLUSTER, b"payload\n\0")
    assert folder.read(CLUSTER) == b"payload\n\0"
    assert stat.S_IMODE((folder.path / "cluster").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_file_is_private_from_its_first_byte_whatever_was_in_its_place(
    folder, monkeypatch
) -> None:
    """Somebody has put an open file where the new one is going to be written."""
    prepared = folder.path / f".cluster.{os.getpid()}.new"
    prepared.write_bytes(b"")
    prepared.chmod(0o666)
    modes: list[int] = []
    write = os.write
    with prepared.open("rb") as watched, monkeypatch.context() as patched:

        def look(handle: int, data: bytes) -> int:
            modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
            return write(handle, data)

        patched.setattr("node.state.os.write", look)
        before = os.umask(0)
        folder.write(CLUSTER, b"secret")
        os.umask(before)
        assert watched.read() == b""
    assert modes == [0o600]
    assert stat.S_IMODE((folder.path / "cluster").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777, 0o720, 0o701])
def test_a_folder_that_others_may_enter_is_refused_with_what_to_run(folder, mode) -> None:
    folder.check_private()
    folder.path.chmod(mode)
    with pytest.raises(ConfigError, match=f"run chmod 700 {folder.path}$"):
        folder.check_private()


def test_the_format_is_the_documented_one(folder) -> None:
    folder.write(CLUSTER, b"hello")
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert (folder.path / "cluster").read_bytes() == f"muslin cluster 1 {digest}\nhello".encode()


@given(payload=st.binary(max_size=200), at=st.integers(0), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(payload, at, bit) -> None:
    content = bytearray(seal(CLUSTER, payload))
    content[at % len(content)] ^= 1 << bit
    with pytest.raises(ConfigError):
        unseal(CLUSTER, bytes(content))


@given(payload=st.binary(max_size=200), length=st.integers(0))
def test_any_truncation_is_noticed(payload, length) -> None:
    content = seal(CLUSTER, payload)
    with pytest.raises(ConfigError):
        unseal(CLUSTER, content[: length % len(content)])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is damaged or not a file of Muslin"),
        (b"\xff" * 500, "is damaged or not a file of Muslin"),
        (seal(CLUSTER, b"x")[:-1], "checksum mismatch"),
        (seal(StoredFile("cluster", "cluster", 2), b"x"), "newer Muslin: upgrade this Muslin"),
        (seal(IDENTITY, b"x"), "holds 'identity', not 'cluster'"),
    ],
)
def test_a_bad_file_is_named_with_what_to_do(folder, content, says) -> None:
    folder.write_raw("cluster", content)
    with pytest.raises(ConfigError) as caught:
        folder.read(CLUSTER)
    message = str(caught.value)
    assert says in message
    assert message.startswith(str(folder.path / "cluster"))
    assert "\n" not in message


def test_a_missing_file_is_named(folder) -> None:
    with pytest.raises(ConfigError, match="cluster is missing: restore it"):
        folder.read(CLUSTER)


def test_a_file_that_others_may_read_is_refused_with_the_command_that_helps(folder) -> None:
    folder.write(CLUSTER, b"secret")
    (folder.path / "cluster").chmod(0o640)
    with pytest.raises(ConfigError, match=r"chmod 600 .*cluster"):
        folder.read(CLUSTER)


def test_a_folder_in_place_of_a_file_is_refused(folder) -> None:
    (folder.path / "cluster").mkdir()
    with pytest.raises(ConfigError, match="cluster"):
        folder.read(CLUSTER)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failed_write_keeps_the_old_content_and_leaves_nothing(folder, monkeypatch, step) -> None:
    folder.write(CLUSTER, b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(Path, "replace", fail)
        else:
            patch.setattr(os, step, fail)
        with pytest.raises(NodeError, match="no space left") as caught:
            folder.write(CLUSTER, b"new")
    assert caught.value.fix == "free some disk space"
    assert folder.read(CLUSTER) == b"old"
    assert [path.name for path in folder.path.iterdir()] == ["cluster"]


def test_a_write_syncs_the_file_before_the_rename_and_the_folder_after(folder, monkeypatch) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def note_replace(path: Path, target: Path) -> None:
        order.append("rename")
        replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    folder.write(CLUSTER, b"x")
    assert order == ["file", "rename", "folder"]


def test_short_writes_are_continued(folder, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, bytes(data[:7])))
    folder.write(CLUSTER, bytes(range(100)))
    assert folder.read(CLUSTER) == bytes(range(100))


def test_a_held_folder_is_refused_naming_the_holder(folder) -> None:
    with folder.locked(), pytest.raises(NodeError) as caught, StateFolder(folder.path).locked():
        pass
    assert caught.value.code == "folder-locked"
    assert f"in use by process {os.getpid()}" in str(caught.value)


def test_the_lock_ends_with_its_block(folder) -> None:
    for _ in range(2):
        with folder.locked():
            assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_is_held_as_long_as_anybody_has_its_descriptor(folder) -> None:
    with folder.locked() as handle:
        passed_on = os.dup(handle)
        (folder.path / "lock").write_text("")
    with pytest.raises(NodeError, match="in use"), StateFolder(folder.path).locked():
        pass
    sign_lock(passed_on)
    assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"
    os.close(passed_on)
    with folder.locked():
        pass


def test_locking_a_folder_that_is_not_there_is_one_clause(tmp_path) -> None:
    with pytest.raises(NodeError, match="no such file"), StateFolder(tmp_path / "no").locked():
        pass


def test_a_folder_is_in_use_from_its_first_file_on(folder) -> None:
    (folder.path / "config.toml").write_text("")
    assert folder.used_by() is None
    folder.write(IDENTITY, b"x")
    assert folder.used_by() == "identity.key"


def test_what_may_not_be_looked_into_is_not_taken_for_empty(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match=r"looking into .*: not a directory"):
        StateFolder(tmp_path / "file").used_by()
    assert StateFolder(tmp_path / "none").used_by() is None


def test_creating_below_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match="is not a folder"):
        StateFolder(tmp_path / "file").create()
    with pytest.raises(NodeError, match="creating"):
        StateFolder(tmp_path / "file" / "below").create()


def test_only_a_folder_with_nothing_but_the_lock_is_discarded(folder) -> None:
    with folder.locked():
        folder.write(IDENTITY, b"x")
        folder.discard()
    assert folder.read(IDENTITY) == b"x"
    (folder.path / "identity.key").unlink()
    with folder.locked():
        folder.discard()
    assert not folder.path.exists()


def test_what_is_set_aside_never_takes_the_place_of_an_earlier_copy(tmp_path) -> None:
    path = tmp_path / "state"
    assert set_aside(path, b"one") == f"a copy is {path}.damaged-1"
    assert set_aside(path, b"two") == f"a copy is {path}.damaged-2"
    assert set_aside(path, b"one") == f"a copy is {path}.damaged-1"
    copies = {copy.name: copy.read_bytes() for copy in tmp_path.iterdir()}
    assert copies == {"state.damaged-1": b"one", "state.damaged-2": b"two"}


def test_an_earlier_copy_that_cannot_be_read_is_left_alone(tmp_path) -> None:
    (tmp_path / "state.damaged-1").mkdir()
    assert set_aside(tmp_path / "state", b"x").startswith("it could not be copied (")
    assert [copy.name for copy in tmp_path.iterdir()] == ["state.damaged-1"]


def test_a_full_disk_keeps_nobody_from_the_lock(folder, monkeypatch) -> None:
    """Whose it is, is written for people. A daemon that took over has nobody to go back to."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with (
            folder.locked(),
            pytest.raises(NodeError, match="in use by process unknown"),
            StateFolder(folder.path).locked(),
        ):
            pass
    (folder.path / "lock").write_text("1234567890\n")
    with folder.locked():
        assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"
