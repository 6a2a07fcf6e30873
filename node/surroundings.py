"""What the machine around the daemon looks like now: addresses and link MTUs, as settings allow.

Asked at start and every few seconds after, because both change while a daemon runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from node.config import NodeConfig
from node.kernel.netlink import Netlink
from node.kernel.thread import KernelThread
from node.preflight import cluster_ranges
from overlay.config import Settings
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
