"""What must be true of a whole cluster: at rest, and at every moment.

`differences` says what keeps a cluster from being settled; it may say something at any time and
must fall silent in the end. `violations` says what is never allowed to happen, not even while
messages are lost and machines crash:

    - two nodes, neither of them removed, use one address block, or both hold themselves for its
      owner
    - two pods have one address, or a pod has one outside its node's blocks
    - a node's books do not balance

Both look at snapshots only: they judge what a node shows, not how it keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from overlay.types import Address, NodeId, Prefix
from overlay.views import LedgerView, NodeState, NodeView, Snapshot

Claim = tuple[int, int, int, str]
"""IP version, first and last address of a range, and who claims it."""


# -- at rest ---------------------------------------------------------------------------------------


def differences(
    names: Sequence[str], show: Callable[[str], Snapshot], everyone: Collection[str] = ()
) -> Iterator[str]:
    """What keeps these live nodes from agreeing, one clause each; nothing when they are settled.

    Settled: every node has a block in use, every node knows every other and does not believe that
    it left, and all have the same routes and list the same pods.

    Args:
        names: live nodes.
        show: a node's snapshot. Asked for one after the other, so that whoever only wants to know
            whether there is a difference pays for few of them.
        everyone: nodes that all must know; those of `names` unless given. A machine may run under
            another name than its node's: a clone.
    """
    expected = set(everyone or names)
    first: Snapshot | None = None
    for name in names:
        snapshot = show(name)
        if not snapshot.own_prefixes:
            yield f"{name} has no block"
        absent = (NodeState.LEFT, NodeState.REMOVED)
        known = {node.name for node in snapshot.nodes if node.state not in absent}
        if missing := expected - known:
            yield f"{name} does not know {_names(missing)}"
        first = first or snapshot
        if prefixes := {prefix for prefix, _ in _routes(first) ^ _routes(snapshot)}:
            yield f"{first.name} and {name} route differently: {_names(map(str, prefixes))}"
        if pods := {f"{node}/{pod}" for node, pod, _, _ in _pods(first) ^ _pods(snapshot)}:
            yield f"{first.name} and {name} list different pods: {_names(pods)}"


def _routes(snapshot: Snapshot) -> set[tuple[Prefix, str]]:
    return {(route.prefix, route.node) for route in snapshot.routes}


def _pods(snapshot: Snapshot) -> set[tuple[str, str, Address, Address | None]]:
    return {(pod.node, pod.name, pod.address, pod.address6) for pod in snapshot.pods}


def _names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


# -- at every moment -------------------------------------------------------------------------------


def violations(snapshots: Mapping[str, Snapshot]) -> Iterator[str]:
    """What these live nodes must never show, one clause each.

    Args:
        snapshots: live machines by name. Two of one node, an original and its clone, hold the same
            blocks and the pods that are on the disk of both; neither may add to them.
    """
    gone = {node.id for snapshot in snapshots.values() for node in snapshot.nodes if _gone(node)}
    # A removed node may go on by itself for ever: its operator has answered for that.
    members = {name: one for name, one in snapshots.items() if not _own_ids(one) & gone}
    yield from _overlaps(_used(members), "in use")
    yield from _overlaps(_owned(members), "owned")
    yield from _pod_faults(members)
    for name, snapshot in snapshots.items():
        if missing := imbalance(snapshot.ledger):
            yield f"the books of {name} are off by {missing}: {snapshot.ledger}"


def _gone(node: NodeView) -> bool:
    return node.state is NodeState.REMOVED


def _own_ids(snapshot: Snapshot) -> set[NodeId]:
    return {node.id for node in snapshot.nodes if node.local}


def imbalance(ledger: LedgerView) -> int:
    """Things read of which no counter knows what became; zero in a sound node."""
    return ledger.received - ledger.sent - ledger.queued - sum(ledger.drops.values())


def _used(snapshots: Mapping[str, Snapshot]) -> Iterator[Claim]:
    for snapshot in snapshots.values():
        for prefix in snapshot.own_prefixes:
            yield _claim(prefix, snapshot.name)


def _owned(snapshots: Mapping[str, Snapshot]) -> Iterator[Claim]:
    for snapshot in snapshots.values():
        for block in snapshot.blocks:
            # A held one is nobody's to use; the authority may have taken it back unseen.
            if block.node == snapshot.name and block.state in ("in-use", "free"):
                yield _claim(block.prefix, snapshot.name)


def _claim(prefix: IPv4Network | IPv6Network, name: str) -> Claim:
    return prefix.version, int(prefix[0]), int(prefix[-1]), name


def _overlaps(claims: Iterable[Claim], what: str) -> Iterator[str]:
    """Sorted by first address, a range overlaps an earlier one iff it starts before its end."""
    reach: Claim | None = None
    for claim in sorted(claims):
        version, first, last, name = claim
        if reach is not None and version == reach[0] and first <= reach[2] and name != reach[3]:
            at = IPv4Network(first) if version == 4 else IPv6Network(first)
            yield f"the block at {at.network_address} is {what} by both {reach[3]} and {name}"
        if reach is None or version != reach[0] or last > reach[2]:
            reach = claim


def _pod_faults(snapshots: Mapping[str, Snapshot]) -> Iterator[str]:
    owners: dict[object, str] = {}
    for snapshot in snapshots.values():
        name = snapshot.name
        for pod in snapshot.pods:
            if not pod.local:
                continue
            for address in (pod.address, pod.address6):
                if address is None:
                    continue
                this = f"{name}/{pod.name}"
                if (other := owners.setdefault(address, this)) != this:
                    yield f"{address} belongs to both {other} and {this}"
                if not any(address in prefix for prefix in snapshot.own_prefixes):
                    yield f"{this} has {address}, which is in no block of {name}"
