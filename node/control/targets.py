"""What a name on the command line stands for: POD, NODE/POD, NODE or ADDRESS.

    web              a pod of this node, or the only one of that name in the cluster, or a node
    node2/web        the pod of that node
    10.244.2.9       whoever owns the address, pod or not

A pod of this node wins over a node of the same name: it is the nearer thing, and NODE/POD and
addresses always say exactly what is meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from overlay.errors import RefusedError
from overlay.types import Address, parse_address
from overlay.views import NodeView, PodView, Snapshot


@dataclass(frozen=True, slots=True)
class Target:
    """One thing in the pod network.

    Attributes:
        kind: `pod`, `node` or `address`.
        name: as it is shown, `node2/web`, `node2` or the address.
        node: the node that owns the address.
        address: what is reached.
    """

    kind: str
    name: str
    node: NodeView
    address: Address


def find_pod(snapshot: Snapshot, name: str) -> PodView:
    """The pod that `NAME` or `NODE/NAME` stands for.

    Raises:
        RefusedError: `no-such-pod` or `ambiguous`, naming what exists. Nothing else.
    """
    node, _, short = name.rpartition("/")
    found = [pod for pod in snapshot.pods if pod.name == short and node in {"", pod.node}]
    near = [pod for pod in found if pod.local]
    if len(near) == 1 or len(found) == 1:
        return (near or found)[0]
    if found:
        places = ", ".join(f"{pod.node}/{pod.name}" for pod in found)
        raise RefusedError("ambiguous", f"several pods are called {short}", f"say which: {places}")
    known = _listed(f"{pod.node}/{pod.name}" for pod in snapshot.pods)
    raise RefusedError("no-such-pod", f"there is no pod {name}", f"pods are: {known}")


def find_target(snapshot: Snapshot, name: str, *, version: int | None = None) -> Target:
    """What `name` stands for.

    Args:
        snapshot: what the node knows.
        name: from the command line.
        version: 4 or 6 to insist on a family; None takes IPv4 where there is a choice.

    Raises:
        RefusedError: `no-such-target`, `ambiguous`, `no-route` or `no-address`. Nothing else.
    """
    try:
        return _owner_of(snapshot, parse_address(name))
    except ValueError:
        pass  # not an address, so a name
    pods = [pod for pod in snapshot.pods if name in {pod.name, f"{pod.node}/{pod.name}"}]
    node = next((node for node in snapshot.nodes if node.name == name), None)
    if node is not None and not any(pod.local for pod in pods):
        return Target("node", name, node, _pick(node, name, version))
    if not pods:
        nodes = _listed(node.name for node in snapshot.nodes)
        known = _listed(f"{pod.node}/{pod.name}" for pod in snapshot.pods)
        raise RefusedError(
            "no-such-target", f"nothing is called {name}", f"nodes are: {nodes}; pods are: {known}"
        )
    pod = find_pod(snapshot, name)
    owner = next(node for node in snapshot.nodes if node.name == pod.node)
    return Target("pod", f"{pod.node}/{pod.name}", owner, _pick(pod, name, version))


def _owner_of(snapshot: Snapshot, address: Address) -> Target:
    for kind, views in (("pod", snapshot.pods), ("node", snapshot.nodes)):
        for view in views:
            if address in {view.address, view.address6}:
                node = view.node if isinstance(view, PodView) else view.name
                return Target(kind, str(address), _node(snapshot, node), address)
    for route in snapshot.routes:
        if address.version == route.prefix.version and address in route.prefix:
            return Target("address", str(address), _node(snapshot, route.node), address)
    raise RefusedError(
        "no-route", f"no node owns {address}", "see muslin get routes for what is owned"
    )


def _node(snapshot: Snapshot, name: str) -> NodeView:
    return next(node for node in snapshot.nodes if node.name == name)


def _pick(view: NodeView | PodView, name: str, version: int | None) -> Address:
    address = view.address6 if version == 6 else view.address
    if address is None and version is None:
        address = view.address6
    if address is None:
        family = f"IPv{version} address" if version else "address in the pod network yet"
        raise RefusedError("no-address", f"{name} has no {family}", "see muslin get nodes -o wide")
    return address


def _listed(names: Iterable[str], most: int = 12) -> str:
    ordered = sorted(names)
    shown = ", ".join(ordered[:most]) or "none"
    return f"{shown} and {len(ordered) - most} more" if len(ordered) > most else shown
