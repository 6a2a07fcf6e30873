from __future__ import annotations

import errno
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.kernel import netns, packed
from node.kernel.frames import frame, split
from node.kernel.model import KernelState, Link
from node.kernel.reader import DUMP_TRIES, InterruptedDumpError, Reader
from tests.support.kernel import held, route
from tests.support.privileged import NEEDS_KERNEL

DONE, ERROR, INTERRUPTED = 3, 2, 0x10


def message(kind: int, body: bytes, flags: int = 2) -> bytes:
    return frame(kind, flags, 0, body)


def numbered(said: bytes, number: int) -> bytes:
    return b"".join(frame(kind, flags, number, body) for kind, flags, _, body in split(said))


class Kernel:
    """A socket that answers every request with the next of some prepared buffers."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.late = b""

    def send(self, request: bytes) -> int:
        ((kind, _, self.number, _),) = split(request)
        self.asked.append(kind)
        return len(request)

    def recv_into(self, buffer: bytearray) -> int:
        said = self.answers.pop(0) if self.answers else message(DONE, bytes(4))
        said = self.late + numbered(said, self.number)
        buffer[: len(said)] = said
        return len(said)

    def close(self) -> None:
        pass


def reader_of(*answers: bytes) -> tuple[Reader, Kernel]:
    kernel: Any = Kernel(*answers)
    return Reader(lambda: kernel), kernel


def test_a_dump_in_several_parts_is_one_answer() -> None:
    first, second = (
        packed.LINK_HEADER.pack(0, 0, index, 1, 0) + struct.pack("=HH", 6, 3) + b"%d\0" % index
        for index in (1, 2)
    )
    reader, kernel = reader_of(message(16, first), message(16, second) + message(DONE, bytes(4)))
    assert reader.read(bool, ()).links == {"1": Link("1", master=0), "2": Link("2", master=0)}
    assert kernel.asked == [18, 22, 26, 26, 30, 38]


def test_an_interrupted_dump_is_repeated() -> None:
    cut = message(DONE, bytes(4), flags=INTERRUPTED)
    reader, _ = reader_of(*[cut] * (DUMP_TRIES - 1))
    assert reader.read(bool, ()).links == {}
    reader, _ = reader_of(*[cut] * DUMP_TRIES)
    with pytest.raises(InterruptedDumpError):
        reader.read(bool, ())


def test_a_refusal_is_an_error_and_a_missing_table_is_empty() -> None:
    reader, _ = reader_of(message(ERROR, struct.pack("=i", -errno.EPERM)))
    with pytest.raises(OSError, match="not permitted"):
        reader.read(bool, ())
    reader, _ = reader_of(message(DONE, bytes(4)), message(DONE, struct.pack("=i", -errno.ENOENT)))
    assert reader.read(bool, ()) == KernelState()


def test_only_what_is_new_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    body = packed.LINK_HEADER.pack(0, 0, 7, 1, 0) + struct.pack("=HH", 8, 3) + b"mu0\0"
    again = [message(16, body) + message(DONE, bytes(4)), *[message(DONE, bytes(4))] * 5]
    reader, _ = reader_of(*again, *again)
    parsed = []
    parse = packed.parse_link
    monkeypatch.setattr(packed, "parse_link", lambda said: parsed.append(said) or parse(said))
    assert reader.read(bool, ()) == reader.read(bool, ())
    assert len(parsed) == 1


def test_the_late_answer_to_a_dump_that_was_not_waited_for_is_passed_over() -> None:
    reader, kernel = reader_of()
    kernel.late = numbered(message(16, packed.LINK_HEADER.pack(0, 0, 7, 1, 0)), 4711)
    assert reader.read(bool, ()) == KernelState()


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture
    def inside(self) -> Iterator[Path]:
        path = netns.create(f"kr{os.getpid()}")
        yield path
        netns.delete(path.name)

    @pytest.fixture
    def look(self, inside: Path) -> Iterator[Callable[..., KernelState]]:
        reader = netns.run_in(inside, Reader)
        yield lambda *paths: reader.read(lambda link: link.name.startswith("mus"), paths)
        reader.close()

    @staticmethod
    def do(inside: Path, *commands: str) -> None:
        for command in commands:
            netns.run_in(inside, subprocess.check_call, command.split())

    def test_it_sees_what_other_programs_do(
        self, inside: Path, look: Callable[..., KernelState]
    ) -> None:
        assert look().links == {}
        self.do(
            inside,
            "ip link add musa mtu 1400 address 02:00:00:00:00:01 type veth peer name other",
            "ip link set musa alias web txqueuelen 77 gso_max_size 61000 up",
            "ip link set other up",
            "ip addr add 10.0.0.1/24 dev musa",
            "ip -6 addr add fd00::1/64 dev musa nodad",
            "ip route add 10.5.0.0/16 dev musa src 10.0.0.1 proto 109 metric 3",
            "ip route add 10.6.0.0/16 dev musa proto static",
            "ip -6 route add unreachable fd05::/64 proto 109",
            "ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev musa nud permanent",
            "ip neigh add 10.0.0.8 lladdr 02:00:00:00:00:08 dev musa nud reachable",
            "ip neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 dev other nud permanent",
        )
        state = look()
        assert state.links == {
            "musa": Link("musa", True, 1400, 61000, 77, "web", "02:00:00:00:00:01", 0)
        }
        assert {held("musa", "10.0.0.1/24"), held("musa", "fd00::1/64")} <= state.addresses
        assert state.routes == {
            route("10.5.0.0/16", "musa", source="10.0.0.1", metric=3),
            route("fd05::/64", metric=1024),
        }
        assert [(str(one.address), one.mac) for one in state.neighbours] == [
            ("10.0.0.9", "02:00:00:00:00:09")
        ]

    @pytest.mark.parametrize("path", sorted(path.format("musa") for path in packed.LINK_SETTINGS))
    def test_settings_that_come_along_with_a_link_are_those_of_proc_sys(
        self, inside: Path, look: Callable[..., KernelState], path: str
    ) -> None:
        self.do(inside, "ip link add musa type veth peer name other")
        file = Path("/proc/sys") / path
        for value in ("0", "1"):
            netns.run_in(inside, file.write_text, value)
            assert look(path).sysctls == {path: value}

    def test_a_link_that_is_made_anew_is_another_one(
        self, inside: Path, look: Callable[..., KernelState]
    ) -> None:
        make = ("ip link add musa type veth peer name other", "ip link set musa up")
        self.do(inside, *make, "ip route add 10.5.0.0/16 dev musa proto 109")
        assert look().routes == {route("10.5.0.0/16", "musa")}
        self.do(inside, "ip link del musa", *make)
        assert look().routes == set()

    def test_links_of_pods_tell_which_namespace_the_pod_is_in(
        self, inside: Path, look: Callable[..., KernelState]
    ) -> None:
        pod = netns.create(f"kr{os.getpid()}p")
        try:
            self.do(inside, f"ip link add musa type veth peer name eth0 netns {pod.name}")
            self.do(inside, "ip link add musb type veth peer name here")
            assert set(look().namespaces) == {"musa"}
        finally:
            netns.delete(pod.name)

    def test_a_closed_socket_is_an_error(self, inside: Path) -> None:
        reader = netns.run_in(inside, Reader)
        reader.close()
        with pytest.raises(OSError, match="descriptor"):
            reader.read(bool, ())
