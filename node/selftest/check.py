"""The whole self-test, as the daemon runs it while it starts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from node.errors import NodeError
from node.io.tun import Tun
from node.io.udp import UdpSocket
from node.kernel import netns
from node.kernel.errors import KernelError
from node.kernel.model import Link
from node.kernel.netlink import Netlink
from node.kernel.reconcile import SetLink
from node.selftest import tun, udp
from node.selftest.tun import check_tun
from node.selftest.udp import check_udp

UDP = ("udp_gso", "udp_gro")
TUN = ("checksum", "tso", "uso")


class Result(NamedTuple):
    """What came of it.

    Attributes:
        works: those of the wanted offloads that did not fail.
        failed: the others, and why each is left off.
        trusted: why some could not be tested and are taken at the kernel's word; else empty.
    """

    works: tuple[str, ...]
    failed: Mapping[str, str]
    trusted: str = ""


def check_offloads(
    wanted: tuple[str, ...], *, make_tun: tun.Make = Tun, make_udp: udp.Make = UdpSocket
) -> Result:
    """Test the wanted offloads. Takes tens of milliseconds; to be called in any thread.

    Where namespaces may not be made, UDP is tested on this namespace's own loopback, and the TUN's
    offloads are trusted. Never raises for what the machine does.
    """
    sockets = tuple(name for name in UDP if name in wanted)
    interface = tuple(name for name in TUN if name in wanted)
    failed: dict[str, str] = {}
    trusted = ""
    if sockets:
        try:
            failed |= netns.run_in_new(_check_udp, sockets, make_udp)
        except KernelError:
            failed |= check_udp(sockets, make=make_udp)
    if interface:
        try:
            failed |= check_tun(interface, make=make_tun)
        except (NodeError, OSError) as error:
            trusted = str(error)
    if "checksum" in failed:  # the others build on it
        failed |= {name: "checksum failed" for name in interface if name not in failed}
    return Result(tuple(name for name in wanted if name not in failed), failed, trusted)


def _check_udp(wanted: tuple[str, ...], make: udp.Make) -> dict[str, str]:
    with closing(Netlink()) as netlink:
        netlink.apply(SetLink(Link("lo", up=True)))
    return check_udp(wanted, make=make)
