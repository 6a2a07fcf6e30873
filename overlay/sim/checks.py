"""What must be true of a whole cluster at rest: everybody knows the same.

`differences` says what keeps a cluster from being settled; it may say something at any time and
must fall silent in the end. It looks at snapshots only: it judges what a node shows, not how it
keeps it. What must hold at every moment is in `overlay.invariants`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from overlay.types import Address, Prefix
from overlay.views import NodeState, Snapshot


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
