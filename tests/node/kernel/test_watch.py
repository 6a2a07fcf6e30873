from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.kernel import netns
from node.kernel.reader import Reader
from node.kernel.watch import ANYTHING, NO_NEWS, Heard, KernelWatch, News
from tests.support.privileged import NEEDS_KERNEL

SILENCE = Heard(here=False, there=frozenset(), lost=False)


class Announcements:
    """A socket with prepared answers."""

    def __init__(self, *answers: int | OSError | None) -> None:
        self.answers = list(answers)

    def recvmsg(self, *_: int) -> tuple[bytes, list[object], int, None]:
        answer = self.answers.pop(0) if self.answers else BlockingIOError()
        if isinstance(answer, OSError):
            raise answer
        extra = [] if answer is None else [(270, 8, struct.pack("=i", answer))]
        return b"", extra, 0, None

    def bind(self, _: object) -> None:
        pass


def watching(announcements: Announcements, monkeypatch: pytest.MonkeyPatch) -> KernelWatch:
    monkeypatch.setattr("node.kernel.watch.socket.socket", lambda *_: announcements)
    return KernelWatch()


def test_silence_means_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watching(Announcements(), monkeypatch).hear() == SILENCE


def test_announcements_tell_where_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(Announcements(3, None, 7, 3), monkeypatch)
    assert watch.hear() == Heard(here=True, there=frozenset({3, 7}), lost=False)
    assert watch.hear() == SILENCE


def test_news_add_up() -> None:
    one, two = News(node=True, inside=frozenset({1}), sweep=4), News(inside=frozenset({2}))
    assert one | two == News(node=True, inside=frozenset({1, 2}), sweep=4)
    assert one | News(rules=True, inside=None) == News(True, True, None, 4)
    assert (one | NO_NEWS, two | ANYTHING) == (one, ANYTHING)


def test_lost_announcements_mean_that_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(Announcements(OSError(errno.ENOBUFS, "")), monkeypatch)
    assert watch.hear().lost
    assert watch.hear() == SILENCE


def test_a_broken_socket_is_not_taken_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="broken"):
        watching(Announcements(OSError(errno.EBADF, "broken")), monkeypatch).hear()


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
            watch.hear()
            assert watch.hear() == SILENCE
            netns.run_in(inside, subprocess.check_call, damage.split())
            assert watch.hear().here
        finally:
            watch.close()

    def test_changes_in_a_pods_namespace_are_heard_under_its_number(self, inside: Path) -> None:
        pod = netns.create(f"kw{os.getpid()}p")
        watch = netns.run_in(inside, lambda: KernelWatch(everywhere=True))
        reader = netns.run_in(inside, Reader)
        try:
            make = f"ip link add musa type veth peer name eth0 netns {pod.name}"
            netns.run_in(inside, subprocess.check_call, make.split())
            number = reader.read(lambda link: link.name == "musa", ()).namespaces["musa"]
            watch.hear()
            add = "ip addr add 10.0.0.1/32 dev eth0"
            netns.run_in(pod, subprocess.check_call, add.split())
            assert watch.hear() == Heard(here=False, there=frozenset({number}), lost=False)
        finally:
            watch.close()
            reader.close()
            netns.delete(pod.name)

    def test_the_announcements_of_many_changes_wait_until_they_are_heard(
        self, inside: Path
    ) -> None:
        watch = netns.run_in(inside, lambda: KernelWatch(everywhere=True))
        try:
            watch.hear()
            many = "".join(f"link set lo mtu {mtu}\n" for mtu in range(1400, 1650))
            command = ["ip", "-batch", "-"]
            netns.run_in(inside, lambda: subprocess.run(command, input=many, text=True, check=True))
            assert watch.hear() == Heard(here=True, there=frozenset(), lost=False)
        finally:
            watch.close()

    def test_without_the_privilege_only_the_own_namespace_is_heard(
        self, inside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> bool:
            raise PermissionError

        def make() -> KernelWatch:
            with monkeypatch.context() as patch:
                patch.setattr(KernelWatch, "_ask_for_everything", refuse)
                return KernelWatch(everywhere=True)

        watch = netns.run_in(inside, make)
        assert not watch.everywhere
        watch.close()
