from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.kernel import netns
from node.kernel.watch import KernelWatch
from tests.support.privileged import NEEDS_KERNEL


class Announcements:
    """A socket with prepared answers."""

    def __init__(self, *answers: bytes | OSError) -> None:
        self.answers = list(answers)

    def recv(self, _: int) -> bytes:
        answer = self.answers.pop(0) if self.answers else BlockingIOError()
        if isinstance(answer, OSError):
            raise answer
        return answer

    def bind(self, _: object) -> None:
        pass


def watching(announcements: Announcements, monkeypatch: pytest.MonkeyPatch) -> KernelWatch:
    monkeypatch.setattr("node.kernel.watch.socket.socket", lambda *_: announcements)
    return KernelWatch()


def test_silence_means_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not watching(Announcements(), monkeypatch).changed()


def test_lost_announcements_mean_that_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(Announcements(OSError(errno.ENOBUFS, "")), monkeypatch)
    assert watch.changed()
    assert not watch.changed()


def test_a_broken_socket_is_not_taken_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="broken"):
        watching(Announcements(OSError(errno.EBADF, "broken")), monkeypatch).changed()


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture
    def inside(self) -> Iterator[Path]:
        path = netns.create(f"kw{os.getpid()}")
        netns.run_in(path, subprocess.check_call, ["ip", "link", "set", "lo", "up"])
        # A new namespace may inherit these from the machine, and setting them again is no change.
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            netns.run_in(path, subprocess.check_call, ["sysctl", "-qw", f"{key}=0"])
        yield path
        netns.delete(path.name)

    @pytest.mark.parametrize(
        "damage",
        [
            "ip link set lo mtu 1400",
            "ip addr add 10.0.0.1/32 dev lo",
            "ip -6 addr add fd00::1/128 dev lo",
            "ip route add unreachable 10.0.0.0/8",
            "ip -6 route add unreachable fd00::/8",
            "sysctl -qw net.ipv4.ip_forward=1",
            "sysctl -qw net.ipv6.conf.all.forwarding=1",
            "sysctl -qw net.ipv4.conf.lo.rp_filter=1",
        ],
    )
    def test_every_kind_of_change_is_announced(self, inside: Path, damage: str) -> None:
        watch = netns.run_in(inside, KernelWatch)
        try:
            watch.changed()
            assert not watch.changed()
            netns.run_in(inside, subprocess.check_call, damage.split())
            assert watch.changed()
        finally:
            watch.close()
