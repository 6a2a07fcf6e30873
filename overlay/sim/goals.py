"""Questions to one node about the final state of an event: cheap, and exact.

Each is asked up to twenty times a second of every node, so none walks what grows with the cluster.
They look at what the node acts by (its route table, its catalog, its members), not at what it
shows: taking a snapshot of a node in a cluster of a thousand costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

from overlay.catalog.records import NodeRecord
from overlay.sim.machine import Machine
from overlay.types import NodeId
from overlay.views import NodeState

Goal = Callable[[Machine], bool]
"""Whether a running machine shows the final state."""

BOOT_SHIFT = 32
"""A record's version is boot << 32 | n."""


def identity(machine: Machine) -> NodeId:
    """The node that this machine is."""
    return machine.membership.identity.node


def record_of(observer: Machine, node: NodeId) -> NodeRecord | None:
    """What `observer` knows of `node`."""
    return observer.engine.parts.catalog.nodes.get(node)


def own_version(machine: Machine) -> int:
    """The version of the record that a running machine has of itself; 0 before the first."""
    record = record_of(machine, identity(machine))
    return 0 if record is None else record.version


def routes_to(find: Callable[[], Machine | None], at: int = 0) -> Goal:
    """Routes packets to a block of a machine, which need not be there or have that block yet.

    Args:
        find: the machine; None as long as it is not there.
        at: which of the blocks that it uses, in the order in which it got them, from 0 on.
    """

    def met(observer: Machine) -> bool:
        machine = find()
        if machine is None or not machine.live:
            return False
        parts = machine.engine.parts
        used = parts.holdings.blocks_in_use
        if len(used) <= at:
            return False
        address = int(parts.plan.prefix4(used[at]).network_address)
        return observer.engine.parts.routes.lookup4(address) == identity(machine)

    return met


def knows_version(node: NodeId, version: int) -> Goal:
    """Holds this or a newer version of a node's record."""

    def met(observer: Machine) -> bool:
        record = record_of(observer, node)
        return record is not None and record.version >= version

    return met


def knows_pod(node: NodeId, name: str, *, there: bool) -> Goal:
    """Knows that a node has a pod of that name, or that it has none; or that the node has left."""

    def met(observer: Machine) -> bool:
        record = record_of(observer, node)
        if record is None:
            return False
        return record.left or any(pod.name == name for pod in record.pods) is there

    return met


def knows_left(node: NodeId) -> Goal:
    """Knows that a node has left, or has forgotten it since."""

    def met(observer: Machine) -> bool:
        record = record_of(observer, node)
        return record is None or record.left

    return met


def knows_removed(node: NodeId) -> Goal:
    """Knows that a node was removed."""

    def met(observer: Machine) -> bool:
        return node in observer.engine.parts.catalog.removed

    return met


def holds_for_dead(node: NodeId, boot: int) -> Goal:
    """Holds a node for dead, or has heard of a later start of it than `boot`."""

    def met(observer: Machine) -> bool:
        if observer.engine.parts.gossip.state(node, observer.now) is NodeState.DEAD:
            return True
        record = record_of(observer, node)
        return record is not None and record.version >> BOOT_SHIFT > boot

    return met


def holds_for_ready(node: NodeId) -> Goal:
    """Holds a node for ready; the node itself always does."""

    def met(observer: Machine) -> bool:
        if identity(observer) == node:
            return True
        return observer.engine.parts.gossip.state(node, observer.now) is NodeState.READY

    return met
