"""What the machine around the daemon looks like now: its clock, addresses, link MTUs and routes.

Asked at start and every few seconds after, because all of them change while a daemon runs.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

from node.clock import WallWatch
from node.config import NodeConfig
from node.forwardguard import ForwardGuard
from node.hostguard import HostGuard
from node.kernel.errors import KernelError
from node.kernel.netlink import Netlink
from node.kernel.thread import KernelThread
from node.preflight import cluster_ranges
from overlay.config import Settings
from overlay.effects import Effect, Report
from overlay.engine import Engine
from overlay.types import Endpoint
from overlay.wire.cluster import Cluster

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

ADDRESS_INTERVAL: Final = 5.0
"""Between looks at this machine's addresses: a changed one is announced within this time."""


def boot_id() -> str:
    """Which boot of the machine this is; empty where the kernel does not say (random(4))."""
    try:
        return BOOT_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


async def own_endpoints(
    config: NodeConfig, local: Endpoint, cluster: Cluster, kernel: KernelThread
) -> tuple[Endpoint, ...]:
    """Where others reach this node: what was configured, else every address it has.

    Args:
        config: `advertise`.
        local: what the UDP socket is bound to.
        cluster: addresses in its ranges are never endpoints.
        kernel: asked for addresses where needed.

    Raises:
        KernelError: it does not answer. Nothing else.
    """
    if config.advertise:
        return config.advertise
    if local.host not in ("::", "0.0.0.0"):  # noqa: S104 (compared, not bound)
        return (local,)
    addresses = await kernel.call(Netlink.local_addresses, cluster_ranges(cluster))
    return tuple(Endpoint.of(str(address), local.port) for address in addresses)


async def largest_underlay_mtu(config: NodeConfig, cluster: Cluster, kernel: KernelThread) -> int:
    """The largest underlay packet worth probing for: configured, else what the links carry.

    Raises:
        KernelError: it does not answer. Nothing else.
    """
    if config.underlay_mtu is not None:
        return config.underlay_mtu
    found = await kernel.call(Netlink.underlay_mtu, cluster_ranges(cluster))
    return found or Settings().underlay_mtu


class Followed(Protocol):
    """What is told of the machine: the daemon."""

    engine: Engine

    def now(self) -> float:
        """Monotonic seconds."""

    def perform(self, effects: list[Effect]) -> None:
        """Execute effects; what cannot be stored now the engine stores later."""

    def report(self, report: Report) -> None:
        """Log it."""


class Surroundings:
    """The machine around one daemon, as of the last look.

    Args:
        config: `advertise`, `underlay_mtu` and `tun`.
        local: what the UDP socket is bound to.
        cluster: whose ranges are no underlay, and are not to be crossed.
        kernel: asked; stays open.

    Attributes:
        wall: the wall clock.
        endpoints: where others reach this node.
        underlay_mtu: the largest underlay packet worth probing for.
        guard: routes of the machine that cross the pod network, and addresses that it has.
        filters: packet filters of the machine that drop what pods send each other.
    """

    def __init__(
        self, config: NodeConfig, local: Endpoint, cluster: Cluster, kernel: KernelThread
    ) -> None:
        self._config = config
        self._local = local
        self._cluster = cluster
        self._kernel = kernel
        self.wall = WallWatch()
        self.endpoints: tuple[Endpoint, ...] = ()
        self.underlay_mtu = Settings().underlay_mtu
        self.guard = HostGuard(cluster, config.tun)
        self.filters = ForwardGuard(config.tun)

    async def look(self) -> None:
        """Look once.

        Raises:
            KernelError: the kernel does not answer. Nothing else.
        """
        config, cluster, kernel = self._config, self._cluster, self._kernel
        self.endpoints = await own_endpoints(config, self._local, cluster, kernel)
        self.underlay_mtu = await largest_underlay_mtu(config, cluster, kernel)
        await kernel.call(self.guard.look)
        await kernel.call(self.filters.look)

    async def follow(self, node: Followed) -> None:
        """Tell `node` what the last look found, and look every `ADDRESS_INTERVAL`, for ever."""
        self._tell(node)
        while True:
            await asyncio.sleep(ADDRESS_INTERVAL)
            if (drift := self.wall.step()) is not None:
                node.engine.on_clock(self.wall.epoch)
                node.report(Report("clock.set", {"drift": round(drift, 3)}))
            try:
                await self.look()
            except KernelError as error:
                node.report(Report("addresses.unknown", {"why": str(error)}))
                continue
            self._tell(node)

    def _tell(self, node: Followed) -> None:
        engine = node.engine  # now: it may have been another one before the look
        node.perform(engine.on_endpoints(self.endpoints, node.now()))
        node.perform(engine.on_underlay_mtu(self.underlay_mtu, node.now()))
        node.perform(engine.on_crossed(self.guard.crossed, node.now()))
        node.perform(engine.on_ways(self.guard.ways, node.now()))
        engine.on_own_addresses(self.guard.held)

    def close(self) -> None:
        """Stop listening to the kernel."""
        self.guard.close()
        self.filters.close()
