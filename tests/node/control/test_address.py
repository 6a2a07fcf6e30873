"""Socket paths longer than the kernel takes."""

from __future__ import annotations

import os
import socket

import pytest

from node.control.address import short_path
from node.control.schema import SOCKET_PATH_MAX


def test_a_short_path_is_used_as_it_is() -> None:
    with short_path("/run/x/control.sock") as path:
        assert path == "/run/x/control.sock"


def test_a_path_at_the_limit_is_what_the_kernel_takes(tmp_path) -> None:
    name = "s" * (SOCKET_PATH_MAX - len(str(tmp_path)) - 1)
    with socket.socket(socket.AF_UNIX) as handle, short_path(str(tmp_path / name)) as path:
        assert path == str(tmp_path / name)
        handle.bind(path)


def test_a_long_path_names_the_same_socket_and_costs_no_descriptor(tmp_path) -> None:
    folder = tmp_path / ("d" * 90) / ("e" * 90)
    folder.mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with short_path(str(folder / "control.sock")) as path:
            assert len(path) <= SOCKET_PATH_MAX
            listener.bind(path)
        listener.listen()
        with short_path(str(folder / "control.sock")) as path:
            client.connect(path)
    assert (folder / "control.sock").is_socket()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_long_path_to_nowhere_is_an_os_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError), short_path(str(tmp_path / ("x" * 120) / "s")):
        pass
