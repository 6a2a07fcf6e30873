from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node.kernel import netns
from node.kernel.errors import KernelError
from tests.support.privileged import NEEDS_KERNEL

NAME = f"kn{os.getpid()}"
OWN = Path("/proc/thread-self/ns/net")


def inodes_of_names() -> set[int]:
    """The namespaces that have a name; others make and remove some at the same time."""
    found = set()
    for name in netns.names():
        with suppress(FileNotFoundError):
            found.add(netns.path_of(name).stat().st_ino)
    return found


def own_inode() -> int:
    return OWN.stat().st_ino


@pytest.fixture
def made() -> Iterator[Path]:
    path = netns.create(NAME)
    yield path
    netns.delete(NAME)


def test_names_mean_files_below_run_netns_and_paths_mean_themselves() -> None:
    assert netns.path_of("web") == Path("/run/netns/web")
    assert netns.path_of("/proc/1/ns/net") == Path("/proc/1/ns/net")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(KernelError, match="cannot name a namespace"):
        netns.create(name)


def test_a_missing_namespace_is_said_to_be_missing() -> None:
    with pytest.raises(KernelError, match="there is no namespace nowhere") as caught:
        netns.run_in("nowhere", own_inode)
    assert caught.value.code == "no-netns"
    assert not netns.exists("nowhere")


def test_an_ordinary_file_is_no_namespace(tmp_path: Path) -> None:
    file = tmp_path / "plain"
    file.touch()
    assert not netns.exists(file)
    with pytest.raises(KernelError, match="is not a network namespace"):
        netns.run_in(file, own_inode)


def test_a_namespace_of_another_kind_is_no_network_namespace() -> None:
    with pytest.raises(KernelError, match="is not a network namespace"):
        netns.run_in("/proc/self/ns/uts", own_inode)


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    def test_a_new_namespace_has_nothing_but_a_loopback(self, made: Path) -> None:
        listed = netns.run_in(made, subprocess.check_output, ["ip", "-o", "link"], text=True)
        assert [line.split(":")[1].strip() for line in str(listed).splitlines()] == ["lo"]
        assert NAME in netns.names()

    def test_ip_netns_sees_ours_and_we_see_its(self, made: Path) -> None:
        assert NAME in subprocess.check_output(["ip", "netns"], text=True)
        subprocess.check_call(["ip", "netns", "del", made.name])
        assert not netns.exists(NAME)
        subprocess.check_call(["ip", "netns", "add", NAME])
        assert netns.exists(NAME)

    def test_a_name_is_given_once(self, made: Path) -> None:
        with pytest.raises(KernelError, match=f"namespace {NAME} exists already"):
            netns.create(NAME)
        assert netns.exists(made)

    def test_a_leftover_file_does_not_block_the_name(self) -> None:
        (netns.NETNS_DIR / NAME).touch()
        try:
            netns.create(NAME)
            assert netns.exists(NAME)
        finally:
            netns.delete(NAME)

    def test_removing_works_through_stacked_mounts_and_twice(self, made: Path) -> None:
        subprocess.check_call(["mount", "--bind", str(made), str(made)])
        netns.delete(NAME)
        assert not made.exists()
        netns.delete(NAME)

    def test_work_inside_does_not_move_the_caller(self, made: Path) -> None:
        before, threads = own_inode(), threading.active_count()
        assert netns.run_in(made, own_inode) == made.stat().st_ino
        assert own_inode() == before
        assert threading.active_count() <= threads

    def test_a_new_namespace_without_a_name_lives_as_long_as_what_is_open_in_it(self) -> None:
        before = own_inode()
        inode, opened = netns.run_in_new(lambda: (own_inode(), socket.socket()))
        with opened:
            assert inode != before
            assert own_inode() == before
            assert inode not in inodes_of_names()
            # Nothing but a loopback is there, and that is down.
            assert opened.connect_ex(("127.0.0.1", 1)) == errno.ENETUNREACH

    def test_what_the_work_raises_reaches_the_caller(self, made: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            netns.run_in(made, divmod, 1, 0)

    def test_a_process_started_inside_stays_inside(self, made: Path) -> None:
        inode = netns.run_in(
            made, subprocess.check_output, ["stat", "-Lc%i", "/proc/self/ns/net"], text=True
        )
        assert int(inode) == made.stat().st_ino

    def test_execute_becomes_the_command(self, made: Path) -> None:
        program = (
            "from node.kernel import netns;"
            f"netns.execute({NAME!r}, ['sh', '-c', 'stat -Lc%i /proc/self/ns/net; exit 7'])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 7, done.stderr
        assert int(done.stdout) == made.stat().st_ino

    def test_executing_what_does_not_exist_is_a_clear_error(self, made: Path) -> None:
        with pytest.raises(KernelError, match="running no-such-command: no such file"):
            netns.run_in(made, netns.execute, NAME, ["no-such-command"])

    def test_the_own_namespace_is_recognised(self, made: Path) -> None:
        with netns.opened(made) as other, netns.opened(OWN) as own:
            assert netns.is_own(own)
            assert not netns.is_own(other)
