"""What must be true of the machine before anything on it is touched.

Each check raises the one error that says what is missing and what to do, instead of letting a
system call fail half way through the start.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from node.errors import NodeError
from node.identity import StoredNode
from node.kernel.overlap import HostRoute, find_overlap
from overlay.catalog.removals import is_removed
from overlay.types import Prefix
from overlay.wire.cluster import Cluster

TUN_DEVICE: Final = Path("/dev/net/tun")
CAP_NET_ADMIN: Final = 12
"""The capability that links, addresses and routes need (capabilities(7))."""


def check_privilege(status: Path = Path("/proc/self/status")) -> None:
    """Whether this process may change the network.

    Args:
        status: where the kernel tells the process's capabilities.

    Raises:
        NodeError: it may not (`no-privilege`). Nothing else.
    """
    if not _effective_capabilities(status) >> CAP_NET_ADMIN & 1:
        raise NodeError(
            "this process may not change the network (it has no CAP_NET_ADMIN)",
            "run as root" if os.geteuid() else "give the container NET_ADMIN",
            code="no-privilege",
        )


def _effective_capabilities(status: Path) -> int:
    for line in status.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "CapEff":
            return int(value, 16)
    return 0


def check_tun(device: Path = TUN_DEVICE) -> None:
    """Whether TUN interfaces can be made.

    Raises:
        NodeError: they cannot (`no-tun`). Nothing else.
    """
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        absent = error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}
        raise NodeError(
            f"there is no {device}" if absent else f"{device} cannot be opened ({error.strerror})",
            "run modprobe tun, or give the container --device /dev/net/tun",
            code="no-tun",
        ) from error


def check_overlap(cluster: Cluster, routes: Iterable[HostRoute]) -> None:
    """Whether the cluster's ranges leave every route of the host alone.

    Raises:
        NodeError: they do not (`range-overlap`); names both. Nothing else.
    """
    found = find_overlap(routes, cluster_ranges(cluster))
    if found is not None:
        route, prefix = found
        raise NodeError(
            f"the cluster range {prefix} overlaps the host route {route}",
            "remove that route, or make the cluster with another "
            + ("--cidr" if prefix.version == 4 else "--cidr6"),
            code="range-overlap",
        )


def cluster_ranges(cluster: Cluster) -> tuple[Prefix, ...]:
    """The ranges of the pod network, one per family."""
    return (cluster.cidr,) if cluster.cidr6 is None else (cluster.cidr, cluster.cidr6)


def has_aes() -> bool:
    """Whether the processor has AES instructions; if it does not say, it is taken to have none."""
    try:
        with open("/proc/cpuinfo") as file:
            words = file.read().split()
    except OSError:
        return False
    return "aes" in words


def check_membership(node: StoredNode) -> None:
    """Whether the node is still a member of its cluster, as far as it knows.

    Raises:
        NodeError: it has left and somebody knows, or an operator has removed it. Nothing else.
    """
    state, fix = node.state, "remove the folder and join again with a new token"
    if state.left and state.told:
        raise NodeError("this node has left its cluster", fix)
    if is_removed(state.items, node.cluster, node.identity.node):
        raise NodeError("this node was removed from its cluster by an operator", fix)
