"""Who is compared: what they have in common, those that are the kernel's own, and Muslin.

A contestant is set up once, beside all others, and stays up for the whole run: idle daemons cost
nothing that shows (the report says how much). See `bench.peers` for those that bring a daemon.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.shell import run
from bench.topology import PLAIN_MTU, Ground, Side, join_pods, pod_address
from node.errors import NodeError
from node.lab.readiness import ask
from node.version import software_version

Find = Callable[[str], str | None]
"""`shutil.which`, or a test's stand-in."""


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant that is up: where traffic starts, where it goes, and who is billed for it."""

    name: str
    source: str
    """Namespace that sends."""
    sink: str
    """Namespace that receives."""
    target: str
    """Address of the sink."""
    pids: tuple[int, ...] = ()
    """The daemons of both ends; none for what the kernel does itself."""


class Contestant(ABC):
    """One way between two pods.

    Attributes:
        name: what it is called on the command line.
        title: what it is called in tables.
        octet: second byte of its addresses.
        mtu: inside its tunnel, as its defaults or its documentation have it.
        encrypted: whether it is.
        commands: what must be installed.
        package: Debian's package that brings them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    octet: ClassVar[int] = 0
    mtu: ClassVar[int] = PLAIN_MTU
    encrypted: ClassVar[bool] = True
    commands: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = ""

    @abstractmethod
    def start(self, ground: Ground, folder: Path, stack: ExitStack) -> Running:
        """Bring it up between the nodes.

        Args:
            ground: the topology.
            folder: an empty one of its own, removed after the run.
            stack: whatever must end with the run.

        Raises:
            NodeError: it did not come up.
        """

    def version(self) -> str:
        """Of the software that does it."""
        return f"Linux {platform.release()}"

    def require(self, find: Find) -> None:
        """Check that it can run here.

        Raises:
            NodeError: a command is missing. Nothing else.
        """
        for command in self.commands:
            if find(command) is None:
                fix = f"install it with: apt-get install {self.package}"
                raise NodeError(f"{self.name} needs {command}", fix, "not-installed")

    def running(self, ground: Ground, pids: tuple[int, ...] = ()) -> Running:
        """Itself in the plain pods, between which it has a way now."""
        first, second = ground.sides
        target = pod_address(self.octet, second)
        return Running(self.name, first.plain, second.plain, target, pids)


class NoOverlay(Contestant):
    """Packets routed over the underlay as they are."""

    name = "none"
    title = "no overlay"
    octet = 99
    encrypted = False

    def start(self, ground: Ground, folder: Path, stack: ExitStack) -> Running:
        """Two routes."""
        join_pods(ground, self.octet, self.mtu)
        for here, there in ground.both_ways():
            run(here.node, "ip", "route", "add", f"10.{self.octet}.{there.number}.0/24",
                "via", there.underlay)  # fmt: skip
        return self.running(ground)


class Vxlan(Contestant):
    """A VXLAN device of the kernel on each node."""

    name = "vxlan"
    title = "kernel VXLAN"
    octet = 98
    mtu = 1450
    """50 bytes less than the underlay, or the kernel would fragment every outer packet."""
    encrypted = False

    def start(self, ground: Ground, folder: Path, stack: ExitStack) -> Running:
        """Two devices and two routes."""
        join_pods(ground, self.octet, self.mtu)
        for here, there in ground.both_ways():
            run(here.node, "ip", "link", "add", "vx0", "type", "vxlan", "id", "98", "dstport",
                "4789", "local", here.underlay, "remote", there.underlay)  # fmt: skip
            run(here.node, "ip", "link", "set", "vx0", "mtu", str(self.mtu))
            route_through(self.octet, here, there, "vx0")
        return self.running(ground)


class Muslin(Contestant):
    """Muslin as shipped; the lab has brought it up already."""

    name = "muslin"
    title = "Muslin"

    def start(self, ground: Ground, folder: Path, stack: ExitStack) -> Running:
        """Find the daemons and the far pod's address."""
        first, second = ground.sides
        pids = [int(ask(ground.lab, side.name, "status")["pid"]) for side in ground.sides]
        target = ground.muslin_pods()[f"{second.name}-pod1"]
        return Running(self.name, first.pod, second.pod, target, tuple(pids))

    def version(self) -> str:
        """Of this tree."""
        return f"Muslin {software_version()}"


def route_through(octet: int, here: Side, there: Side, link: str) -> None:
    """Give this end of a tunnel an address, and route the far pod through the tunnel.

    Args:
        octet: the contestant's.
        here: this node.
        there: the other one.
        link: the tunnel's interface on this node.
    """
    run(here.node, "ip", "addr", "replace", f"10.{octet}.0.{here.number}/24", "dev", link)
    run(here.node, "ip", "link", "set", link, "up")
    run(here.node, "ip", "route", "replace", f"10.{octet}.{there.number}.0/24",
        "via", f"10.{octet}.0.{there.number}", "dev", link)  # fmt: skip
