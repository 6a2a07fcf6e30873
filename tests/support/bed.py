"""Two nodes and three pods in real namespaces, without daemons.

    kt-node1                                              kt-node2
    +---------------------------+                         +---------------------------+
    | 10.244.1.1     muslin0 ===|==== Relay (a thread) ===|=== muslin0     10.244.2.1 |
    | mus..     mus..           |                         |           mus..           |
    +---||--------||------------+                         +-------------||------------+
     kt-pod11   kt-pod12                                             kt-pod21
     10.244.1.2 10.244.1.3                                           10.244.2.2

The relay copies packets between the two TUN interfaces as the daemons would, without sealing them.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from node.kernel import netns
from node.kernel.manager import KernelManager
from node.kernel.model import KernelSettings, veth_name
from node.kernel.netlink import Netlink
from node.kernel.nft import Firewall
from node.kernel.thread import KernelThread
from node.loop import LoopKind
from node.loop import run as run_loop
from overlay.views import PodView, Problem, Snapshot
from tests.support.views import node_snapshot, pod_view

TUN = "muslin0"
MTU = 1500
PREFIX = f"kt{os.getpid()}"
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001


def name(text: str) -> str:
    """The name of a namespace of this run."""
    return f"{PREFIX}-{text}"


def pod(node: int, number: int) -> PodView:
    """A pod in a namespace of this run."""
    return pod_view(node, number, netns=name(f"pod{node}{number}"))


def open_tun() -> int:
    """The descriptor of a new TUN without a virtio_net_hdr, here."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", TUN.encode(), IFF_TUN_NO_PI))
    return descriptor


class Relay:
    """Copies every packet from one TUN to the other, and back, until closed."""

    def __init__(self, left: int, right: int) -> None:
        self._far = {left: right, right: left}
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([*self._far, self._wake], [], [])
            if self._wake in ready:
                return
            for descriptor in ready:
                try:
                    os.write(self._far[descriptor], os.read(descriptor, 65536))
                except OSError:
                    continue  # a link is down for a moment

    def close(self) -> None:
        os.write(self._waker, b"x")
        self._thread.join()
        for descriptor in (*self._far, self._wake, self._waker):
            os.close(descriptor)


Work = Callable[[KernelManager], Coroutine[Any, Any, Any]]


def manage(node: str, work: Work, firewall: Firewall | None = None) -> Any:
    """`work` with a new manager in the namespace of a node, as a freshly started daemon has it."""

    async def main() -> Any:
        thread, removing = KernelThread(), KernelThread()
        try:
            return await work(KernelManager(KernelSettings(TUN, MTU), thread, removing, firewall))
        finally:
            await thread.close()
            await removing.close()

    # Threads inherit the namespace of the thread that starts them.
    return netns.run_in(node, run_loop, main, LoopKind.UVLOOP)


def run(where: str, *argv: str) -> str:
    """What a command says inside a namespace, whether it fails or not."""
    done = netns.run_in(
        where, subprocess.run, argv, capture_output=True, text=True, check=False, timeout=20
    )
    # One that succeeds may have words about namespaces that others remove meanwhile: ip has.
    return str(done.stdout + (done.stderr if done.returncode else ""))


def all_routes(where: str) -> list[str]:
    """Of both families, in order."""
    return sorted((run(where, "ip", "route") + run(where, "ip", "-6", "route")).splitlines())


def applied(node: str, state: Snapshot) -> tuple[Problem, ...]:
    """The problems that are left when a node was made as it shall be."""
    problems: tuple[Problem, ...] = manage(node, lambda manager: manager.apply(state)).problems
    return problems


@dataclass(frozen=True)
class Bed:
    """The namespaces of two nodes, what each shall be like, and the pods."""

    node1: str
    node2: str
    state1: Snapshot
    state2: Snapshot
    pod11: PodView
    pod12: PodView
    pod21: PodView

    def settle(self) -> None:
        """Both nodes as they shall be, whatever was done to them."""
        assert applied(self.node1, self.state1) == ()
        assert applied(self.node2, self.state2) == ()


@contextmanager
def making_a_bed() -> Iterator[Bed]:
    """Two nodes and three pods, nothing set up yet, for the time of a `with` block."""
    pod11, pod12, pod21 = pod(1, 1), pod(1, 2), pod(2, 1)
    bed = Bed(
        name("node1"),
        name("node2"),
        node_snapshot(1, (pod11, pod12)),
        node_snapshot(2, (pod21,)),
        pod11,
        pod12,
        pod21,
    )
    relay = None
    try:
        for namespace in (bed.node1, bed.node2, pod11.netns, pod12.netns, pod21.netns):
            netns.create(namespace)
        relay = Relay(netns.run_in(bed.node1, open_tun), netns.run_in(bed.node2, open_tun))
        yield bed
    finally:
        if relay:
            relay.close()
        for namespace in netns.names():
            if namespace.startswith(f"{PREFIX}-"):
                netns.delete(namespace)


@contextmanager
def a_spare_namespace() -> Iterator[str]:
    """The path of an empty namespace, for the time of a `with` block."""
    path = netns.create(name("spare"))
    try:
        yield str(path)
    finally:
        netns.delete(path.name)


def veth_index(node: str, pod_name: str) -> int | None:
    """The number of the link to a pod: another link, another number."""

    def look() -> int | None:
        with Netlink() as netlink:
            return netlink.link_index(veth_name(pod_name))

    return netns.run_in(node, look)
