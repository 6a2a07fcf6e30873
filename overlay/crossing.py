"""Where the machine of a node reaches parts of the pod network by itself.

A route of the machine to a part of the cluster's ranges, of a container engine, a VPN or a LAN,
is more specific than the cluster's own route, so packets to pods there go astray:

    10.244.0.0/16 dev muslin0          the pod network
    10.244.7.0/24 dev docker0          takes pods' addresses away, on this machine alone

One around the cluster's range is less specific, and loses a part of itself to the pod network.
Only that machine can see it. It is looked for before a cluster is made and before a daemon starts;
a route that comes later is said in the node's record, so that every member's status names it. It is
the node's word: it makes that node unwell, and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from overlay.catalog.records import NodeRecord
from overlay.types import NodeId, Prefix
from overlay.views import Problem
from overlay.wire.cluster import Cluster
from overlay.wire.routes import ROUTES_MAX

MAX_NAMED: Final = 16
"""Lines in a status; more are counted."""


def told(crossed: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """What of them a record says: each once, in a stable order, the widest first, not too many."""
    ordered = sorted(set(crossed), key=lambda one: (one.version, one.prefixlen, one))
    return tuple(ordered[:ROUTES_MAX])


def crosses(prefix: Prefix, cluster: Cluster) -> bool:
    """Whether `prefix` shares addresses with the cluster's range of its family."""
    own = cluster.cidr if prefix.version == 4 else cluster.cidr6
    return own is not None and own.overlaps(prefix)


def lost(prefix: Prefix, cluster: Cluster) -> str:
    """What a machine with a route to `prefix`, which `crosses`, does not reach: a clause."""
    own = cluster.cidr if prefix.version == 4 else cluster.cidr6
    if own is None or own.prefixlen <= prefix.prefixlen:
        return "pods with such addresses are out of its reach"
    return f"other addresses in {own} are out of its reach"


def crossing_notices(
    nodes: Mapping[NodeId, NodeRecord], local: NodeId, cluster: Cluster
) -> Iterator[Problem]:
    """What other members say of their machines; what does not concern the cluster is passed over.

    Args:
        nodes: their records.
        local: this node, which has a problem instead of a notice.
        cluster: whose ranges.
    """
    found = [
        (record.name, prefix)
        for record in nodes.values()
        for prefix in (record.crossed if record.node != local else ())
        if crosses(prefix, cluster)
    ]
    found.sort(key=lambda one: (one[0], str(one[1])))
    for name, prefix in found[:MAX_NAMED]:
        yield Problem(
            "node-range-overlap",
            f"{name} reaches {prefix} by itself: {lost(prefix, cluster)}",
            "its machine has a route of its own to a part of the cluster's range",
            f"remove that route on {name}; muslin status there says which it is",
        )
    if (more := len(found) - MAX_NAMED) > 0:
        yield Problem(
            "node-range-overlap",
            f"members reach {more} more parts of the cluster's range by themselves",
            "their machines have routes of their own",
            "see muslin status there",
        )
