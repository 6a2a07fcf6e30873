"""Tests of node.control.peers; real other users are in `tests/netns/test_control_group.py`."""

from __future__ import annotations

import grp
import os
import socket
from array import array
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from types import SimpleNamespace

import pytest

from node.control import peers
from node.control.handlers import Handlers
from node.control.peers import READING, Rights, group_id, hand_over, let_in, rights_of
from node.errors import NodeError

OWN = grp.getgrgid(os.getegid())


class Connection:
    """A peer with this user, main group and other groups."""

    def __init__(self, uid: int, gid: int, groups: list[int] | None = None) -> None:
        self._credentials = pack("3i", 1, uid, gid)
        self._groups = groups

    def getsockopt(self, _: int, option: int, size: int) -> bytes:
        if option == socket.SO_PEERCRED:
            return self._credentials
        if self._groups is None:
            raise OSError(34, "ERANGE")
        return array("I", self._groups).tobytes()[:size]


@pytest.mark.parametrize(
    ("connection", "group", "rights"),
    [
        (Connection(0, 0, []), None, Rights.ALL),
        (Connection(os.geteuid(), 7, []), None, Rights.ALL),
        (Connection(12345, 7, [7, 8]), None, Rights.NONE),
        (Connection(12345, 7, []), 7, Rights.READING),
        (Connection(12345, 9, [7, 8]), 8, Rights.READING),
        (Connection(12345, 9, [7, 8]), 10, Rights.NONE),
        (Connection(12345, 9, None), 8, Rights.NONE),
        (Connection(12345, 8, None), 8, Rights.READING),
        (Connection(12345, 0, [0]), None, Rights.NONE),
    ],
)
def test_rights_follow_user_and_groups(
    connection: Connection, group: int | None, rights: Rights
) -> None:
    assert rights_of(connection, group) is rights  # type: ignore[arg-type]


def test_an_error_that_says_nothing_about_groups_is_not_swallowed() -> None:
    class Broken(Connection):
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            if option != socket.SO_PEERCRED:
                raise OSError(9, "EBADF")
            return super().getsockopt(level, option, size)

    with pytest.raises(OSError, match="EBADF"):
        rights_of(Broken(12345, 1), 7)  # type: ignore[arg-type]


def test_the_kernel_says_who_is_there() -> None:
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        assert rights_of(near, None) is Rights.ALL
        assert set(peers._groups_of(near)) == set(os.getgroups())


def test_what_members_of_the_group_may_ask_are_methods() -> None:
    methods = Handlers(SimpleNamespace())._methods  # type: ignore[arg-type]
    assert set(methods) >= READING
    assert not READING & {"token", "pod.add", "pod.del", "leave", "remove", "stop", "ipam.claim"}


def test_no_group_has_no_id_and_one_that_is_not_there_is_an_error() -> None:
    assert group_id("") is None
    assert group_id(OWN.gr_name) == OWN.gr_gid
    with pytest.raises(NodeError) as caught:
        group_id("no-such-group")
    assert "groupadd no-such-group" in caught.value.fix


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o700)
    yield tmp_path
    tmp_path.chmod(0o700)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_the_group_passes_through_the_folder_until_none_is_wanted(folder: Path) -> None:
    let_in(folder, "")
    assert mode(folder) == 0o700
    let_in(folder, OWN.gr_name)
    assert (mode(folder), folder.stat().st_gid) == (0o710, OWN.gr_gid)
    let_in(folder, "")
    assert mode(folder) == 0o700


def test_the_socket_is_the_groups_only_when_there_is_one(folder: Path) -> None:
    path = folder / "control.sock"
    path.touch(0o600)
    hand_over(path, None)
    assert mode(path) == 0o600
    hand_over(path, OWN.gr_gid)
    assert (mode(path), path.stat().st_gid) == (0o660, OWN.gr_gid)


def test_a_group_that_cannot_be_entered_is_one_clause(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(1, "not permitted")

    other = next(group for group in grp.getgrall() if group.gr_gid not in {*os.getgroups(), 0})
    monkeypatch.setattr(os, "setgroups", refuse)
    monkeypatch.setattr(os, "getgroups", list)
    with pytest.raises(NodeError, match=f"letting group {other.gr_name} in") as caught:
        let_in(folder, other.gr_name)
    assert f"SupplementaryGroups={other.gr_name}" in caught.value.fix
    assert mode(folder) == 0o700
