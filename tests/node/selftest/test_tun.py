"""The self-test of the TUN, against this kernel and against kernels that corrupt."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from node.io.tun import Tun
from node.kernel import netns
from node.selftest import tun as module
from node.selftest.tun import check_tun
from overlay.wire.virtio import (
    VIRTIO_HEADER_SIZE,
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_UDP_L4,
)
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL

ALL = ("checksum", "tso", "uso")


class Corrupting(Tun):
    """An interface whose kernel flips the last byte of what it takes with one of its offloads."""

    fault = ""

    def _write(self, packet: memoryview) -> bool:
        kind = packet[1]
        uses = "uso" if kind == VIRTIO_NET_HDR_GSO_UDP_L4 else "tso" if kind else "checksum"
        partial = packet[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM
        if self._header and uses == self.fault and partial and len(packet) > 100:
            changed = bytearray(packet)
            changed[-1] ^= 1
            packet = memoryview(changed)
        return super()._write(packet)


class Losing(Corrupting):
    """The same, but it loses them."""

    def _write(self, packet: memoryview) -> bool:
        kind = packet[1]
        uses = "uso" if kind == VIRTIO_NET_HDR_GSO_UDP_L4 else "tso" if kind else "checksum"
        partial = packet[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM
        if uses == self.fault and partial and len(packet) > VIRTIO_HEADER_SIZE + 100:
            return True
        return Tun._write(self, packet)


def of(kind: type[Corrupting], fault: str) -> type[Corrupting]:
    return type("This", (kind,), {"fault": fault})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost on purpose is not waited for."""
    monkeypatch.setattr(module, "PATIENCE", 0.4)


@pytest.mark.alone("netns")  # a kernel that loads ifb makes links in the machine's own namespace
def test_this_kernel_s_offloads_work_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(name: str) -> Path:
        raise AssertionError(name)

    monkeypatch.setattr(netns, "create", no_name)  # what has no name goes with its descriptors
    before = links(), Path("/proc/thread-self/ns/net").stat().st_ino
    descriptors = len(os.listdir("/proc/self/fd"))
    assert check_tun(ALL) == {}
    assert (links(), Path("/proc/thread-self/ns/net").stat().st_ino) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def links() -> str:
    return subprocess.check_output(["ip", "-o", "link"], text=True)


@pytest.mark.parametrize("fault", ["tso", "uso"])
@pytest.mark.parametrize("kind", [Corrupting, Losing])
def test_what_is_corrupted_or_lost_is_blamed_on_its_offload(
    kind: type[Corrupting], fault: str
) -> None:
    found = check_tun(ALL, make=of(kind, fault))
    assert set(found) == {fault}
    assert "IPv4" in found[fault]


@pytest.mark.parametrize("kind", [Corrupting, Losing])
def test_without_right_checksums_nothing_is_used(kind: type[Corrupting]) -> None:
    assert set(check_tun(ALL, make=of(kind, "checksum"))) == {"checksum"}


def test_a_single_failure_proves_nothing() -> None:
    made: list[Tun] = []

    def once(name: str, *, offload: tuple[str, ...]) -> Tun:
        # The first two interfaces corrupt, as a kernel that was out of memory for a moment.
        made.append((of(Corrupting, "uso") if len(made) < 2 else Tun)(name, offload=offload))
        return made[-1]

    assert check_tun(ALL, make=once) == {}
    assert len(made) == 4


def test_what_the_kernel_does_not_have_does_not_fail() -> None:
    class Old(Tun):
        def __init__(self, name: str, *, offload: tuple[str, ...]) -> None:
            super().__init__(name, offload=[each for each in offload if each != "uso"])

    assert check_tun(ALL, make=Old) == {}


def test_a_kernel_without_ipv6_is_tried_over_ipv4_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # A multicast address cannot be given to an interface: refused, as any without IPv6.
    ends = [dict(end) | {socket.AF_INET6: "ff02::77"} for end in module.ENDS]
    monkeypatch.setattr(module, "ENDS", tuple(ends))
    assert check_tun(ALL) == {}
    assert set(check_tun(ALL, make=of(Corrupting, "uso"))) == {"uso"}


def test_super_packets_that_never_appear_are_no_offload() -> None:
    class Claiming(Tun):
        """Says that it has what was asked for, and asks the kernel for checksums alone."""

        def __init__(self, name: str, *, offload: tuple[str, ...]) -> None:
            super().__init__(name, offload=offload[:1])
            self.offloads = offload

    assert set(check_tun(ALL, make=Claiming)) == {"tso", "uso"}
